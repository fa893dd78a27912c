/* The mathematical library, but for functions that are wrong in what zig links for WebAssembly: numpy.c has others. */
#ifndef WASMEVAL_MATH_H
#define WASMEVAL_MATH_H

#include_next <math.h>

#ifdef WASMEVAL_OWN_MATH
#ifdef __cplusplus
extern "C" {
#endif

double log2(double x) __asm__("wasmeval_log2");
double log10(double x) __asm__("wasmeval_log10");
double acosh(double x) __asm__("wasmeval_acosh");
float acoshf(float x) __asm__("wasmeval_acoshf");

#ifdef __cplusplus
}
#endif
#endif

#endif
