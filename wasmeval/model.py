"""Evaluation, Result, Status: the plain frozen values that every layer passes along."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from wasmeval.arrays import Array
from wasmeval.determinism import (
    MOST_TRANSCRIPT_BYTES,
    Deterministic,
    Receipt,
    World,
    deterministic_of,
)
from wasmeval.errors import EvaluationError, Internal, InvalidArgument
from wasmeval.grants import Grants, HttpPolicy, HttpUse
from wasmeval.limits import Limits, Usage

if TYPE_CHECKING:
    from wasmeval.recording import Recording


class Tier(StrEnum):
    """Where an evaluation may run."""

    AUTO = "auto"
    """In Wasm, and in a VM when it turns out to need one and its first run had no effect outside."""
    WASM = "wasm"
    """In a fresh Wasm instance, and nowhere else."""
    VM = "vm"
    """In a microVM of its own, used once."""


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
    """One snippet to run: `inputs` become its variables, each a JSON value or, in Python, an array of NumPy's.

    `files` (relative path to content) are put below `/workspace`, where the snippet starts; what it leaves there and
    `outputs` (glob patterns such as `out/*.png`) match comes back as `Result.files`. `mounts` are names of folders
    that the operator has named; they appear at `/mnt/NAME`. `http` says which requests it may send: none by default.
    `deterministic` makes it repeatable, True with the seed and the start time of `Deterministic()`; with `cache` the
    answer may be one that was given before.

    `tier` is "auto", "wasm" or "vm": see Tier. The language "bash" runs in a VM alone, and so does `command`, a program
    and its arguments, run in place of `code` and without a language. Of these two `inputs` are environment variables.
    """

    code: str = ""
    language: str = "python"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    files: Mapping[str, bytes] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    mounts: Sequence[str] = ()
    http: HttpPolicy | None = None
    deterministic: Deterministic | bool = False
    cache: bool = False
    tier: str = "auto"
    command: Sequence[str] = ()


_NO_LIMITS = Limits()


def evaluation_of(
    code: str,
    language: str,
    inputs: Mapping[str, Any] | None,
    limits: Limits | None,
    files: Mapping[str, bytes] | None = None,
    outputs: Sequence[str] = (),
    mounts: Sequence[str] = (),
    http: HttpPolicy | None = None,
    deterministic: Deterministic | bool = False,
    cache: bool = False,
    tier: str = "auto",
) -> Evaluation:
    """The evaluation that the arguments of an `evaluate` mean; only None stands for none."""
    return Evaluation(
        code,
        language,
        {} if inputs is None else inputs,
        _NO_LIMITS if limits is None else limits,
        {} if files is None else files,
        outputs,
        mounts,
        http,
        deterministic,
        cache,
        tier,
    )


def command_of(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    limits: Limits | None,
    files: Mapping[str, bytes] | None,
    outputs: Sequence[str],
    http: HttpPolicy | None,
) -> Evaluation:
    """The evaluation that the arguments of a `run_command` mean. Raises InvalidArgument for an `argv` that is none."""
    if not argv:
        raise InvalidArgument(
            "command", "empty; give a program and its arguments, such as ['git', '--version']"
        )
    evaluation = evaluation_of("", "", env, limits, files, outputs, http=http, tier=Tier.VM)
    return replace(evaluation, command=argv)


def checked(evaluation: object) -> Evaluation:
    """The evaluation, if its parts have the types they must have; raises InvalidArgument that names the part."""
    if not isinstance(evaluation, Evaluation):
        raise InvalidArgument("evaluation", f"must be an Evaluation, not {type(evaluation).__name__}")
    for name, kind, what in _PARTS:
        value = getattr(evaluation, name)
        if not isinstance(value, kind):
            raise InvalidArgument(name, f"must be {what}, not {type(value).__name__}")
    for name in ("outputs", "mounts"):
        value = getattr(evaluation, name)
        if value and (isinstance(value, str) or not all(isinstance(item, str) for item in value)):
            raise InvalidArgument(name, "must be a sequence of str, such as ['out/*.png']")
    contents: list[tuple[object, object]] = list(evaluation.files.items())
    for path, content in contents:
        if not isinstance(path, str) or not isinstance(content, bytes | bytearray | memoryview):
            raise InvalidArgument("files", f"must map str to bytes, not {path!r} to {type(content).__name__}")
    deterministic_of(evaluation.deterministic)
    if evaluation.tier not in _TIERS:
        raise InvalidArgument("tier", f"must be 'auto', 'wasm' or 'vm', not {evaluation.tier[:40]!r}")
    if evaluation.command != ():
        _check_command(evaluation)
    return evaluation


def _check_command(evaluation: Evaluation) -> None:
    command: object = evaluation.command
    if not isinstance(command, list | tuple) or not all(isinstance(item, str) for item in command):
        raise InvalidArgument("command", "must be a sequence of str, such as ['git', '--version']")
    if command and evaluation.code:
        raise InvalidArgument("code", "a command runs in place of code; leave one of them out")


_TIERS = frozenset(Tier)


_PARTS: tuple[tuple[str, Any, str], ...] = (
    ("code", str, "a str"),
    ("language", str, "a str"),
    ("inputs", Mapping, "a mapping from names to values"),
    ("limits", Limits, "wasmeval.Limits"),
    ("files", Mapping, "a mapping from paths to bytes"),
    ("http", HttpPolicy | None, "wasmeval.HttpPolicy"),
    ("cache", bool, "True or False"),
    ("tier", str, "'auto', 'wasm' or 'vm'"),
)


class Request(NamedTuple):
    """An evaluation as it arrives: `inputs` are JSON text already, `arrays` those that are arrays, and nothing is
    checked yet.

    `limits` is None when the caller set none, and `grants` when he gives nothing beside code and inputs.
    `deterministic`, `cache`, `tier` and `command`: see Evaluation.
    """

    code: str | bytes
    language: str
    inputs: Mapping[str, bytes] = {}
    limits: Limits | None = None
    grants: Grants | None = None
    deterministic: Deterministic | None = None
    cache: bool = False
    tier: str = "auto"
    command: tuple[str, ...] = ()
    arrays: Mapping[str, Array] = {}


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a caller may know of an installed runtime.

    `languages` are what `language` may be to get it; `image_sha256` names the image: with the same one, the
    same code and inputs spend the same fuel. `minimum_memory_bytes` is the smallest `limits.memory_bytes` it
    works with. `tier` is where it runs, "wasm" or "vm"; "vm-command" has no language: it runs commands.
    """

    name: str
    version: str
    interpreter: str
    languages: tuple[str, ...]
    image_sha256: str
    initial_memory_bytes: int
    minimum_memory_bytes: int
    tier: str = "wasm"


@dataclass(frozen=True, slots=True)
class Job:
    """An evaluation that was checked, clamped and encoded: what the pool runs.

    `runtime` is the name of an installed runtime, `inputs` one JSON object or empty, `limits` has no gaps; `arrays` are
    the records of inputs that are arrays, in pieces. `translator` is the runtime that turns `code` into what `runtime`
    runs; empty for none. `tier` is "wasm", "vm", or "auto" for one that runs in Wasm and may move: `asked` are the
    limits that its caller set. `inputs` of bash and of a `command`, which has no `code`, are its environment: a JSON
    object of strings.
    """

    runtime: str
    code: bytes
    inputs: bytes
    limits: Limits
    grants: Grants | None = None
    translator: str = ""
    session: Any = field(default=None, compare=False)
    """The pool's place of the session whose next step it is; None for an evaluation of its own."""
    deterministic: Deterministic | None = None
    """What its caller, or its session's, asked for; None for the world as it is."""
    world: World | None = None
    """What it then sees of time and chance."""
    cache: bool = False
    tier: str = "wasm"
    command: tuple[str, ...] = ()
    asked: Limits | None = None
    arrays: tuple[bytes | memoryview, ...] = ()

    @property
    def size(self) -> int:
        """Bytes it holds while it waits and runs."""
        files = sum(map(len, self.grants.files.values())) if self.grants else 0
        transcript = len(self.world.transcript or b"") if self.world else 0
        return len(self.code) + self.inputs_bytes + files + transcript

    @property
    def inputs_bytes(self) -> int:
        """Of the inputs, arrays counted."""
        return len(self.inputs) + sum(map(len, self.arrays))


_UNKNOWN_MEDIA = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that the snippet left below `/workspace`, by the name that is its key in `Result.files`."""

    data: bytes
    media_type: str = _UNKNOWN_MEDIA

    @classmethod
    def of(cls, path: str, data: bytes) -> OutputFile:
        """The file of that name; its media type is guessed from it."""
        from mimetypes import guess_type

        # As a path, whatever it looks like: of `data:a/b;,` a URL's type would be a/b, and some are no URL at all.
        return cls(data, guess_type(f"./{path}")[0] or _UNKNOWN_MEDIA)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)


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
    JSON cannot say and stands as `{"repr": ..., "type": ...}`. `array` is the value as well, when it is an array of
    NumPy's; above 10,000 elements `value` is its repr. `files` are those that `outputs` asked for, whatever the
    status but `cancelled`; `http` tells each request that the snippet sent, or wanted to send. `rolled_back`: it was a
    step of a session, which is as it was before that step.

    Of a deterministic evaluation: `receipt` says what ran and what came of it, or `unrepeatable` why there is none;
    `transcript` is what it asked for and was answered; of a repetition `seal_holds` says whether the seal that it was
    given is that of its receipt; `recording` is all that `replay` needs. `cached`: the answer was given before.

    `tier` is where it ran, "wasm" or "vm", and `tier_detail` more about that, for people. `moved`: it ran once more, in
    a VM, and this is why; empty when it did not. `exit_status` is that of bash and of a command; negative, the signal
    that killed it; None when it did not end.
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
    files: Mapping[str, OutputFile] = field(default_factory=dict)
    http: tuple[HttpUse, ...] = ()
    rolled_back: bool = False
    receipt: Receipt | None = None
    unrepeatable: str = ""
    transcript: bytes = field(default=b"", repr=False)
    seal_holds: bool = False
    cached: bool = False
    tier_detail: str = ""
    moved: str = ""
    exit_status: int | None = None
    recording: Recording | None = field(default=None, repr=False, compare=False)
    array: Array | None = None

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
    def value_bytes(self) -> int:
        """Of the value, its array counted."""
        return len(self.value_json) + (0 if self.array is None else len(self.array.elements))

    @property
    def ok(self) -> bool:
        """Whether `status` is `ok`."""
        return self.status is Status.OK

    def raise_for_status(self) -> Result:
        """This result when it is `ok`; raises EvaluationError, which carries it, otherwise."""
        if not self.ok:
            raise EvaluationError(self)
        return self


_WHY = {
    Status.DEADLINE_EXCEEDED: "the deadline ended it by the wall clock",
    Status.CANCELLED: "it was cancelled",
    Status.CRASHED: "its instance or its worker died",
    Status.MEMORY_EXCEEDED: "its worker ran out of memory for all its guests",
    Status.ERROR: "it did something else than its transcript says",
}
TOO_LONG = f"its transcript is longer than {MOST_TRANSCRIPT_BYTES} bytes"
NO_ROOM = "there was no room for what it gave"


def why_unrepeatable(status: Status) -> str:
    """Why what ended so, not by anything of the evaluation's own, has no receipt."""
    return _WHY.get(status, "what ended it is no function of its inputs")


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
