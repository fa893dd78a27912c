/* NumPy's extension modules, among the built-in ones, and the word that stands for the machine's floating-point status. */
#include "image.h"

#include <math.h>

#define MODULES(each)                                                  \
    each("numpy._core._multiarray_umath", _multiarray_umath)           \
    each("numpy._core._multiarray_tests", _multiarray_tests)           \
    each("numpy._core._operand_flag_tests", _operand_flag_tests)       \
    each("numpy._core._rational_tests", _rational_tests)               \
    each("numpy._core._struct_ufunc_tests", _struct_ufunc_tests)       \
    each("numpy._core._umath_tests", _umath_tests)                     \
    each("numpy.fft._pocketfft_umath", _pocketfft_umath)               \
    each("numpy.linalg._umath_linalg", _umath_linalg)                  \
    each("numpy.linalg.lapack_lite", lapack_lite)                      \
    each("numpy.random._bounded_integers", _bounded_integers)          \
    each("numpy.random._common", _common)                              \
    each("numpy.random._generator", _generator)                        \
    each("numpy.random._mt19937", _mt19937)                            \
    each("numpy.random._pcg64", _pcg64)                                \
    each("numpy.random._philox", _philox)                              \
    each("numpy.random._sfc64", _sfc64)                                \
    each("numpy.random.bit_generator", bit_generator)                  \
    each("numpy.random.mtrand", mtrand)

#define DECLARE(name, function) extern PyObject *PyInit_##function(void);
#define APPEND(name, function) \
    if (PyImport_AppendInittab(name, PyInit_##function) < 0) { \
        return false;                                          \
    }

MODULES(DECLARE)

/* shim/fenv.h */
int wasmeval_float_status;

/* There are no C++ exceptions here. What throws looks for memory before it begins (patches/numpy), so that nothing does. */

void *
__cxa_allocate_exception(size_t size)
{
    __builtin_trap();
}

void
__cxa_throw(void *exception, void *type, void (*destructor)(void *))
{
    __builtin_trap();
}

bool
add_numpy_modules(void)
{
    MODULES(APPEND)
    return true;
}

/* ---- shim/math.h ---- */

/* Of a subnormal number the library takes the low half before it scales it: only ten digits are right. */

static bool
is_subnormal(double x)
{
    return x > 0 && x < 0x1p-1022;
}

double
wasmeval_log2(double x)
{
    return is_subnormal(x) ? log2(x * 0x1p54) - 54 : log2(x);
}

double
wasmeval_log10(double x)
{
    return is_subnormal(x) ? log10(x * 0x1p54) - 16.255619765854984 : log10(x);
}

/* Far below 1, where there is no result, the library's cancellation makes one up. */

double
wasmeval_acosh(double x)
{
    return x < 1 ? (x - x) / (x - x) : acosh(x);
}

float
wasmeval_acoshf(float x)
{
    return x < 1 ? (x - x) / (x - x) : acoshf(x);
}
