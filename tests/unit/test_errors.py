"""The exceptions: what they say, and that they cross a process boundary whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from wasmeval import errors
from wasmeval.errors import EvaluationError, InvalidArgument, ResourceExhausted, WasmevalError
from wasmeval.model import ErrorInfo, Result, Status

RESULT = Result(Status.ERROR, stdout="x", error=ErrorInfo("KeyError", "'x'", "Traceback", 2, 3))
CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, WasmevalError)
]


def example(kind: type[WasmevalError]) -> WasmevalError:
    if kind is EvaluationError:
        return EvaluationError(RESULT)
    if kind is InvalidArgument:
        return InvalidArgument("limits.fuel", "must be positive")
    if kind is ResourceExhausted:
        return ResourceExhausted("the queue is full", 1.5)
    return kind("what happened")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickle_and_copy(kind: type[WasmevalError]) -> None:
    error = example(kind)
    error.add_note("seen by a test")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_an_evaluation_error_names_status_and_kind() -> None:
    assert str(EvaluationError(RESULT)) == "error: KeyError: 'x'"
    assert str(EvaluationError(Result(Status.CANCELLED))) == "cancelled: no detail"
