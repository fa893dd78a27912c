"""Runs in an instance, and in the NumPy that it is compared with: what each of `operations` gives, as plain JSON.

An array is told by its type, data type, shape and elements; a failure by its class and message;
warnings by their texts.
"""

import ast
import io
import pathlib
import pickle
import warnings

import numpy as np


def described(operation):
    names = {"np": np, "io": io, "pathlib": pathlib, "pickle": pickle}
    *first, last = ast.parse(operation).body
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(compile(ast.Module(first, []), "<operation>", "exec"), names)
            what = value(eval(compile(ast.Expression(last.value), "<operation>", "eval"), names))
        except Exception as error:
            what = {"error": type(error).__name__, "message": str(error)}
    if caught:
        what["warnings"] = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    return what


def value(given):
    if isinstance(given, np.ma.MaskedArray):
        return {"type": "masked", "data": array(given.filled()), "mask": np.ma.getmaskarray(given).tolist()}
    if isinstance(given, (np.ndarray, np.generic)):
        return array(given)
    if isinstance(given, (tuple, list)):
        return {"type": type(given).__name__, "items": [value(item) for item in given]}
    if isinstance(given, dict):
        return {"type": "dict", "items": [[str(key), value(item)] for key, item in given.items()]}
    return {"type": type(given).__name__, "elements": [element(given)]}


def array(given):
    elements = np.asarray(given).ravel().tolist()
    return {
        "type": type(given).__name__,
        "dtype": str(given.dtype),
        "shape": list(given.shape),
        "elements": [element(item) for item in elements],
    }


def element(given):
    """Numbers as such; all else, and what JSON has no number for, as text."""
    if isinstance(given, float) and np.isfinite(given):
        return given
    if isinstance(given, complex) and np.isfinite(given):
        return {"complex": [given.real, given.imag]}
    if type(given) in (int, bool, str):
        return given
    return repr(given)


answers = [described(operation) for operation in operations]
