/* Floating-point status for code that keeps one where the machine has none.
 *
 * WebAssembly has neither status flags nor rounding modes, and its C library's header says so. NumPy tells many errors
 * through the flags that it raises itself (integer division by zero, a singular matrix, a half that is too large): here
 * they are one word of memory. What arithmetic alone would raise is found by looking at its results.
 */
#ifndef WASMEVAL_FENV_H
#define WASMEVAL_FENV_H

#include_next <fenv.h>

#undef FE_INVALID
#undef FE_DIVBYZERO
#undef FE_OVERFLOW
#undef FE_UNDERFLOW
#undef FE_INEXACT
#undef FE_ALL_EXCEPT
#define FE_INVALID 1
#define FE_DIVBYZERO 4
#define FE_OVERFLOW 8
#define FE_UNDERFLOW 16
#define FE_INEXACT 32
#define FE_ALL_EXCEPT 61

#ifdef __cplusplus
extern "C" {
#endif
extern int wasmeval_float_status;
#ifdef __cplusplus
}
#endif

#define feraiseexcept(flags) (wasmeval_float_status |= (flags), 0)
#define fetestexcept(flags) (wasmeval_float_status & (flags))
#define feclearexcept(flags) (wasmeval_float_status &= ~(flags), 0)

#endif
