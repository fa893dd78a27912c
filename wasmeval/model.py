"""Evaluation, Result, Status: the plain frozen values that every layer passes along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from wasmeval.errors import EvaluationError, Internal, InvalidArgument
from wasmeval.limits import Limits, Usage


class Status(StrEnum):
    """How an evaluation ended: a closed set."""

    OK = "ok"
    ERROR = "error"
    """The snippet raised."""
    FUEL_EXHAUSTED = "fuel_exhausted"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    MEMORY_EXCEEDED = "memory_exceeded"
    OUTPUT_EXCEEDED = "output_exceeded"
    """The value is larger than `limits.output_bytes`."""
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    """The instance or its worker died."""
    UNSUPPORTED = "unsupported"
    """The snippet needs what this tier does not have; `error.message` says what."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One snippet to run: `inputs` become its variables, each a JSON value."""

    code: str
    language: str = "python"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()


def evaluation_of(
    code: str, language: str, inputs: Mapping[str, Any] | None, limits: Limits | None
) -> Evaluation:
    """The evaluation that the arguments of an `evaluate` mean; only None stands for none."""
    return Evaluation(
        code, language, {} if inputs is None else inputs, Limits() if limits is None else limits
    )


def checked(evaluation: object) -> Evaluation:
    """The evaluation, if its parts have the types they must have; raises InvalidArgument that names the part."""
    if not isinstance(evaluation, Evaluation):
        raise InvalidArgument("evaluation", f"must be an Evaluation, not {type(evaluation).__name__}")
    for name, kind, what in _PARTS:
        value = getattr(evaluation, name)
        if not isinstance(value, kind):
            raise InvalidArgument(name, f"must be {what}, not {type(value).__name__}")
    return evaluation


_PARTS: tuple[tuple[str, type, str], ...] = (
    ("code", str, "a str"),
    ("language", str, "a str"),
    ("inputs", Mapping, "a mapping from names to values"),
    ("limits", Limits, "wasmeval.Limits"),
)


class Request(NamedTuple):
    """An evaluation as it arrives: `inputs` are JSON text already, and nothing is checked yet.

    `limits` is None when the caller set none.
    """

    code: str | bytes
    language: str
    inputs: Mapping[str, bytes] = {}
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a caller may know of an installed runtime.

    `languages` are what `language` may be to get it; `image_sha256` names the image: with the same one, the
    same code and inputs spend the same fuel. `minimum_memory_bytes` is the smallest `limits.memory_bytes` it
    works with.
    """

    name: str
    version: str
    interpreter: str
    languages: tuple[str, ...]
    image_sha256: str
    initial_memory_bytes: int
    minimum_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """An evaluation that was checked, clamped and encoded: what the pool runs.

    `runtime` is the name of an installed runtime, `inputs` one JSON object or empty, `limits` has no gaps.
    """

    runtime: str
    code: bytes
    inputs: bytes
    limits: Limits


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why an evaluation did not end `ok`.

    For `error` and `unsupported`: the exception's type, text and traceback as the language's own interpreter
    prints it, and where in the snippet it was raised (1-based; None when it has no place there). For a limit:
    the limit, its value and the remedy.
    """

    type: str
    message: str
    traceback: str = ""
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class Result:
    """What one evaluation gave. A snippet's failure is a Result like any other.

    `value_json` holds the value as JSON text (with the number tokens NaN, Infinity, -Infinity), empty unless
    `status` is `ok`; `value` decodes it at first use. When `value_is_json` is False the value was something
    JSON cannot say and stands as `{"repr": ..., "type": ...}`.
    """

    status: Status
    value_json: bytes = b""
    value_is_json: bool = True
    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    error: ErrorInfo | None = None
    usage: Usage = Usage()
    limits: Limits = Limits()
    tier: str = "wasm"
    runtime: str = ""

    @cached_property
    def value(self) -> Any:
        """The value, decoded; None when there is none.

        Raises Internal when it is not JSON: only a guest that broke its interpreter can give such a value.
        """
        if not self.value_json:
            return None
        try:
            return decode_value(self.value_json)
        except (ValueError, RecursionError) as error:
            raise Internal("the value is not JSON: its guest broke the interpreter it ran in") from error

    @property
    def ok(self) -> bool:
        """Whether `status` is `ok`."""
        return self.status is Status.OK

    def raise_for_status(self) -> Result:
        """This result when it is `ok`; raises EvaluationError, which carries it, otherwise."""
        if not self.ok:
            raise EvaluationError(self)
        return self


def decode_value(text: bytes) -> Any:
    """The value of JSON `text`; integers of any size, in less than quadratic time. Raises ValueError."""
    return json.loads(text, parse_int=_parse_int)


# Python refuses longer ones by default, because its conversion takes quadratic time (CVE-2020-10735).
_PLAIN_DIGITS = 4000


def _parse_int(digits: str) -> int:
    if len(digits) <= _PLAIN_DIGITS:
        return int(digits)
    if digits.startswith("-"):
        return -_parse_int(digits[1:])
    middle = len(digits) // 2
    power: int = 10**middle
    return _parse_int(digits[:-middle]) * power + _parse_int(digits[-middle:])
