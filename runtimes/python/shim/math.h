/* The mathematical library, but for functions that are wrong in what zig links for WebAssembly. C++ has its own names. */
#ifndef WASMEVAL_MATH_H
#define WASMEVAL_MATH_H

#include_next <math.h>

#ifndef __cplusplus

/* Of a subnormal number it takes the low half before it scales it: only ten digits are right. */
static inline double
wasmeval_log2(double x)
{
    return x > 0 && x < 0x1p-1022 ? log2(x * 0x1p54) - 54 : log2(x);
}

static inline double
wasmeval_log10(double x)
{
    return x > 0 && x < 0x1p-1022 ? log10(x * 0x1p54) - 16.255619765854984 : log10(x);
}

/* Far below 1, where there is no result, cancellation makes one up. */
static inline double
wasmeval_acosh(double x)
{
    return x < 1 ? (x - x) / (x - x) : acosh(x);
}

static inline float
wasmeval_acoshf(float x)
{
    return x < 1 ? (x - x) / (x - x) : acoshf(x);
}

#define log2 wasmeval_log2
#define log10 wasmeval_log10
#define acosh wasmeval_acosh
#define acoshf wasmeval_acoshf

#endif
#endif
