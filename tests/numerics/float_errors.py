"""Runs in an instance, and in the NumPy that it is compared with: where errors of floating point are told wrongly.

A case is a ufunc, operands of which it makes an error, the culprit, and ordinary ones. Each is tried in arrays of each
length, with the culprit at the beginning, in the middle and at the end, and in each form that a call has; nothing may
be told while the culprit is not there. Underflow is not looked at, nor what is infinite or NaN among complex operands,
or among those of a reduction.

    nat/bin/python tests/numerics/float_errors.py float64 int8

says what another NumPy does otherwise than this file expects: nothing, on x86-64.
"""

import operator
import sys

import numpy as np

OPERATORS = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.floor_divide: operator.floordiv,
    np.remainder: operator.mod,
    np.power: operator.pow,
}
CALM_AT_INFINITY = (np.add, np.subtract, np.multiply, np.divide, np.square, np.sqrt, np.exp, np.log)
DIVIDE, OVERFLOW, INVALID = "divide by zero", "overflow", "invalid value"
INF, NAN = float("inf"), float("nan")
REAL, COMPLEX, INTEGER = "f", "c", "i"


def errors_of(function):
    """The errors that a call tells of."""
    told = set()
    with np.errstate(all="call", under="ignore", call=lambda error, flags: told.add(error)):
        function()
    return told


def is_raised(function, error):
    with np.errstate(all="raise", under="ignore"):
        try:
            function()
        except FloatingPointError as raised:
            return error in str(raised)
    return False


def real_cases(kind):
    info = np.finfo(kind)
    most, tiny = info.max, info.smallest_subnormal
    yield from every(DIVIDE, np.divide, [(1, 0), (-1, 0), (most, -0.0)], (1, 2))
    yield from every(DIVIDE, np.floor_divide, [(1, 0)], (5, 2))
    yield from every(DIVIDE, np.power, [(0, -1)], (2, 2))
    yield from every(DIVIDE, np.reciprocal, [(0,)], (2,))
    for logarithm in (np.log, np.log2, np.log10):
        yield from every(DIVIDE, logarithm, [(0,), (-0.0,)], (2,))
        yield from every(INVALID, logarithm, [(-1,), (-INF,), (-most,)], (2,))
    yield from every(DIVIDE, np.log1p, [(-1,)], (2,))
    yield from every(DIVIDE, np.arctanh, [(1,), (-1,)], (0.5,))
    yield from every(OVERFLOW, np.add, [(most, most), (-most, -most)], (1, 2))
    yield from every(OVERFLOW, np.subtract, [(most, -most), (-most, most)], (1, 2))
    yield from every(OVERFLOW, np.multiply, [(most, 2), (-most, most)], (1, 2))
    yield from every(OVERFLOW, np.divide, [(most, 0.5), (-most, 0.5)], (1, 2))
    yield from every(OVERFLOW, np.power, [(most, 2), (2, most)], (2, 2))
    yield from every(OVERFLOW, np.float_power, [(np.finfo("f8").max, 2)] if kind == "f8" else [], (2, 2))
    yield from every(OVERFLOW, np.square, [(most,), (-most,)], (2,))
    yield from every(OVERFLOW, np.nextafter, [(most, INF), (-most, -INF)], (1, 2))
    yield from every(OVERFLOW, np.reciprocal, [(tiny,)], (2,))
    for growing in (np.exp, np.exp2, np.expm1, np.sinh, np.cosh):
        yield from every(OVERFLOW, growing, [(most,)], (2,))
    for even in (np.sinh, np.cosh):
        yield from every(OVERFLOW, even, [(-most,)], (2,))
    yield from every(OVERFLOW, np.hypot, [(most, most)], (3, 4))
    yield from every(OVERFLOW, np.ldexp, [(most, 1), (1, 20_000)], (1, 2))
    yield from every(OVERFLOW, np.degrees, [(most,)], (1,))
    yield from every(INVALID, np.sqrt, [(-1,), (-INF,), (-tiny,)], (2,))
    yield from every(INVALID, np.log1p, [(-2,), (-INF,)], (2,))
    yield from every(INVALID, np.subtract, [(INF, INF), (-INF, -INF)], (1, 2))
    yield from every(INVALID, np.add, [(INF, -INF), (-INF, INF)], (1, 2))
    yield from every(INVALID, np.multiply, [(0, INF), (-INF, 0)], (1, 2))
    yield from every(INVALID, np.divide, [(INF, INF), (-INF, INF), (0, 0)], (1, 2))
    yield from every(INVALID, np.floor_divide, [(INF, INF), (0, 0)], (5, 2))
    yield from every(INVALID, np.fmod, [(1, 0), (INF, 1)], (5, 2))
    # Natively, a remainder of scalars of half precision is a division by zero as well.
    yield from every(INVALID, np.remainder, [(1, 0), (INF, 1)][kind == "float16" :], (5, 2))
    yield from every(INVALID, np.power, [(-1, 0.5)], (2, 2))
    for logarithm in (np.logaddexp, np.logaddexp2):
        yield from every(INVALID, logarithm, [(NAN, 3), (3, NAN), (NAN, NAN)], (1, 2))
    for arc in (np.arcsin, np.arccos, np.arctanh):
        yield from every(INVALID, arc, [(2,), (-INF,)], (0.5,))
    yield from every(INVALID, np.arccosh, [(0.5,), (-2,)], (2,))
    for wave in (np.sin, np.cos, np.tan):
        yield from every(INVALID, wave, [(INF,), (-INF,)], (1,))


def silent_real_cases():
    """Operands that explain a result which is not finite."""
    unary = (
        np.sqrt,
        np.exp,
        np.exp2,
        np.expm1,
        np.log,
        np.log1p,
        np.log2,
        np.log10,
        np.sinh,
        np.cosh,
        np.tanh,
        np.square,
        np.reciprocal,
        np.negative,
        np.absolute,
        np.arctan,
        np.arcsinh,
        np.arccosh,
        np.degrees,
    )
    for function in unary:
        yield from every("", function, [(NAN,), (INF,)], (2,))
    for function in (np.exp, np.exp2, np.expm1, np.sinh, np.cosh, np.tanh, np.square, np.arctan):
        yield from every("", function, [(-INF,)], (2,))
    for function in (np.sin, np.cos, np.tan, np.arcsin, np.arccos, np.arctanh):
        yield from every("", function, [(NAN,)], (0.5,))
    binary = (np.add, np.subtract, np.multiply, np.divide, np.power, np.fmod, np.remainder, np.floor_divide)
    for function in (*binary, np.hypot, np.fmax, np.copysign, np.arctan2):
        yield from every("", function, [(NAN, 3), (3, NAN), (NAN, NAN)], (5, 2))
    yield from every("", np.add, [(INF, 1), (1, -INF), (INF, INF), (NAN, INF)], (1, 2))
    yield from every("", np.subtract, [(INF, 1), (1, INF), (INF, -INF), (INF, NAN)], (1, 2))
    yield from every("", np.multiply, [(INF, 2), (-INF, INF), (NAN, INF), (0, NAN)], (1, 2))
    yield from every("", np.divide, [(INF, 2), (1, INF), (0, INF), (INF, 0), (NAN, 0)], (1, 2))
    yield from every("", np.power, [(INF, 2), (2, INF), (NAN, 0), (1, NAN), (INF, -1), (0, INF)], (2, 2))
    yield from every("", np.fmod, [(1, INF), (NAN, 0)], (5, 2))
    yield from every("", np.hypot, [(INF, 1), (INF, NAN)], (3, 4))
    yield from every("", np.logaddexp, [(INF, 1), (INF, INF), (-INF, -INF)], (1, 2))
    yield from every("", np.ldexp, [(INF, 1), (NAN, 1)], (1, 2))


def complex_cases(kind):
    """Of finite operands: what an infinity hides among complex ones is not noticed."""
    most = np.finfo(kind).max
    yield from every(OVERFLOW, np.add, [(most, most), (1j * -most, 1j * -most)], (1, 2j))
    yield from every(OVERFLOW, np.subtract, [(most, -most), (1j * most, 1j * -most)], (1, 2j))
    yield from every(OVERFLOW, np.multiply, [(most, 2), (2j, 1j * most)], (1, 2j))
    yield from every(OVERFLOW, np.square, [(most,), (1j * -most,)], (2 + 1j,))
    yield from every(OVERFLOW, np.divide, [(most, 0.5), (1j * most, 0.5)], (1, 2j))
    yield from every(OVERFLOW, np.exp, [(most,)], (2 + 1j,))
    yield from every(OVERFLOW, np.power, [(most, 3)], (2 + 1j, 2))
    yield from every(DIVIDE, np.divide, [(1, 0)], (1, 2j))
    yield from every(INVALID, np.divide, [(0, 0)], (1, 2j))
    yield from every(INVALID, np.reciprocal, [(0,)], (2 + 1j,))
    for logarithm in (np.log, np.log2, np.log10):
        yield from every(DIVIDE, logarithm, [(0,)], (2 + 1j,))
    for function, nans in ((np.add, (NAN, 1)), (np.subtract, (1, NAN)), (np.sqrt, (NAN,)), (np.exp, (NAN,))):
        yield from every("", function, [nans], (1 + 1j, 2)[: function.nin])


def integer_cases(kind):
    least = np.iinfo(kind).min
    yield from every(DIVIDE, np.divide, [(1, 0)], (1, 2))
    yield from every(INVALID, np.divide, [(0, 0)], (1, 2))
    for function in (np.floor_divide, np.remainder, np.fmod):
        yield from every(DIVIDE, function, [(1, 0), (0, 0), (least, 0)], (5, 2))
    yield from every(OVERFLOW, np.floor_divide, [(least, -1)], (5, 2))


def every(error, function, culprits, ordinary):
    return ((error, function, culprit, ordinary) for culprit in culprits)


def operands(function, culprit, ordinary, length, at, kind):
    """An array for each operand, with the culprit at one place."""
    for place, (bad, good) in enumerate(zip(culprit, ordinary, strict=True)):
        is_exponent = function is np.ldexp and place == 1
        array = np.full(length, good, "i4" if is_exponent else kind)
        if at is not None:
            array[at] = bad
        yield array


def strided(array, gaps):
    """The array with every second place of a larger one, whose others hold `gaps`."""
    wide = np.full(2 * array.size, gaps, array.dtype)
    wide[::2] = array
    return wide[::2]


def exact_forms(function, arrays, culprit):
    """Calls of the elements that `arrays` have, and of no others."""
    gaps = [strided(array, bad) for array, bad in zip(arrays, culprit, strict=True)]
    swapped = [array.astype(array.dtype.newbyteorder()) for array in arrays]
    rows = [np.tile(array, (2, 2))[:, : array.size] for array in arrays]
    yield "contiguous", lambda: function(*arrays)
    yield "strided", lambda: function(*gaps)
    yield "backwards", lambda: function(*(array[::-1] for array in arrays))
    yield "one strided", lambda: function(gaps[0], *arrays[1:])
    yield "of the other byte order", lambda: function(*swapped)
    yield "rows", lambda: function(*rows)
    yield "columns", lambda: function(*(array.T for array in rows))
    if function(*(array[:0] for array in arrays)).dtype == arrays[0].dtype:
        yield from changing_forms(function, arrays)


def changing_forms(function, arrays):
    copies = [[array.copy() for array in arrays] for _ in range(3)]
    yield "in place", lambda: function(*copies[0], out=copies[0][0])
    if function.nin == 2 and arrays[1].dtype == arrays[0].dtype:
        yield "in place of the second", lambda: function(*copies[1], out=copies[1][1])
    changed, *others = copies[2]
    yield "at", lambda: function.at(changed, np.arange(changed.size), *others)


def operator_form(function, arrays, at):
    if function in OPERATORS:
        one, other = (array[at] for array in arrays)
        yield "scalars", lambda: OPERATORS[function](one, other)
        yield "arrays without dimensions", lambda: OPERATORS[function](np.array(one), np.array(other))
        yield "operator", lambda: OPERATORS[function](*arrays)


def masked_form(function, arrays, where):
    out = np.zeros_like(function(*(array[:0] for array in arrays)), shape=arrays[0].shape)
    return lambda: function(*arrays, where=where, out=out)


def mixing_forms(function, arrays, culprit):
    """Calls of pairs of the culprit's operands with ordinary ones, too, which may be errors of another kind."""
    first, second = arrays
    yield "scalar second", lambda: function(first, second.dtype.type(culprit[1]))
    yield "scalar first", lambda: function(first.dtype.type(culprit[0]), second)
    yield "stride of 0", lambda: function(first, np.broadcast_to(second.dtype.type(culprit[1]), first.shape))
    yield (
        "first has a stride of 0",
        lambda: function(np.broadcast_to(first.dtype.type(culprit[0]), first.shape), second),
    )
    if first.size <= 100:
        yield "outer", lambda: function.outer(first, second)


def is_as_expected(told, expected, kind):
    """An error among complex numbers brings others: an overflow is multiplied by zeros."""
    return expected <= told if expected and kind.kind == COMPLEX else told == expected


def failing(calls, expected, kind):
    for form, call in calls:
        if not is_as_expected(told := errors_of(call), expected, kind):
            yield form, sorted(told)


def case_failures(case, kind, lengths):
    for length in lengths:
        for at in (None, *sorted({0, length // 2, length - 1})):
            for form, told in failures_at(case, kind, length, at):
                yield f"{form}, {at} of {length}", told


def failures_at(case, kind, length, at):
    error, function, culprit, ordinary = case
    arrays = list(operands(function, culprit, ordinary, length, at, kind))
    expected = set() if at is None else {error} - {""}
    here = np.arange(length) == (-1 if at is None else at)
    calls = [*exact_forms(function, arrays, culprit), *operator_form(function, arrays, at or 0)]
    yield from failing([*calls, ("where", masked_form(function, arrays, here))], expected, kind)
    yield from failing([("where not", masked_form(function, arrays, ~here))], set(), kind)
    if expected and function.nin == 2:
        for form, call in mixing_forms(function, arrays, culprit):
            if not expected <= (told := errors_of(call)):
                yield form, sorted(told)
    if expected and not is_raised(lambda: function(*arrays), error):
        yield "raised", []


def failures_in_company(case, kind):
    """What is not finite among the operands of other elements hides nothing."""
    error, function, culprit, ordinary = case
    if error and kind.kind == REAL:
        for company in (NAN, INF) if function in CALM_AT_INFINITY else (NAN,):
            arrays = list(operands(function, culprit, (company, *ordinary[1:]), 16, 5, kind))
            for form, told in failing(exact_forms(function, arrays, culprit), {error}, kind):
                yield f"{form}, beside {company}", told


def reductions(kind):
    """The errors of reductions of finite numbers, by name."""
    most = np.finfo(kind).max
    for length in (2, 15, 16, 100, 5000):
        zeros, ones = np.zeros(length, kind), np.ones(length, kind)
        for first, second in {(0, length - 1), (length // 2 - 1, length // 2)}:
            large, doubled = zeros.copy(), ones.copy()
            large[[first, second]] = most
            doubled[first], doubled[second] = most, 2
            yield from overflows(large, doubled)
            yield from overflows(strided(large, most), strided(doubled, most))
            yield from overflows(large[::-1], doubled[::-1])
            one = zeros.copy()
            one[first] = most
            yield from ((name, call, set()) for name, call, _ in overflows(one, ones))
        yield "divide.reduce", lambda: np.divide.reduce(zeros), {INVALID}  # noqa: B023


def overflows(large, doubled):
    for name, call in {
        "sum": large.sum,
        "cumsum": large.cumsum,
        "add.reduce": lambda: np.add.reduce(large, keepdims=True),
        "sum of columns": lambda: np.stack([large, large], 1).sum(0),
        "sum of rows": lambda: np.stack([large, large]).sum(1),
        "sum of all": lambda: np.stack([large, np.zeros_like(large)]).sum(),
        "sum where": lambda: large.sum(where=large != 0),
        "reduceat": lambda: np.add.reduceat(large, [0]),
        "prod": doubled.prod,
        "cumprod": doubled.cumprod,
        "prod of columns": lambda: np.stack([doubled, doubled], 1).prod(0),
        "dot": lambda: large.dot(np.ones_like(large)),
        "matmul": lambda: np.stack([large, large]) @ np.ones_like(large),
    }.items():
        yield name, call, {OVERFLOW}


def cases_of(kind):
    if kind.kind == INTEGER:
        return list(integer_cases(kind))
    return list(complex_cases(kind)) if kind.kind == COMPLEX else [*real_cases(kind), *silent_real_cases()]


def failures_of(dtype):
    kind = np.dtype(dtype)
    lengths = (1, 15, 16, 100) if "longdouble" in dtype else (1, 15, 16, 100, 5000)
    found = [
        named(case, *failure) for case in cases_of(kind) for failure in case_failures(case, kind, lengths)
    ]
    for name, call, expected in reductions(kind) if kind.kind != INTEGER else ():
        found += [f"{name}: {told}" for _, told in failing([(name, call)], expected, kind)]
    return found


def failures_in_company_of(dtype):
    kind = np.dtype(dtype)
    return [named(case, *failure) for case in cases_of(kind) for failure in failures_in_company(case, kind)]


def named(case, form, told):
    error, function, culprit, _ = case
    operands = ", ".join(map(str, culprit))
    return f"{function.__name__}({operands}), {form}: {told}, expected {error or 'nothing'}"


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(each, *failures_of(each), *failures_in_company_of(each), sep="\n    ")
