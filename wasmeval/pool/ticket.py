"""Ticket: one submitted evaluation as the pool knows it, and what its worker may still say about it.

A worker is not trusted: whatever it sends of an evaluation is counted here against what that evaluation was granted,
and what is beyond raises MalformedFrame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from wasmeval.determinism import MOST_TRANSCRIPT_BYTES
from wasmeval.errors import InvalidArgument
from wasmeval.model import NO_ROOM, ErrorInfo, Job, OutputFile, Result, Status
from wasmeval.paths import check_path
from wasmeval.pool.process import WorkerProcess
from wasmeval.wasm.calls import MOST_HTTP_IN_FLIGHT, Operation
from wasmeval.worker.frames import MalformedFrame

_HTTP = (Operation.HTTP, Operation.READ)
_READ_BYTES = 8
_HEAD_BYTES = 1 << 17
"""What an HTTP operation's head may take, beside the body; see wasm/calls.py."""


class Partner(Protocol):
    """Whom an evaluation talks to while it runs. Called where the pool is driven; must not block or raise."""

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """The guest asks for something; `Pool.answer` gives it. DROP takes the call of that number back."""

    def printed(self, stream: int, data: bytes) -> None:
        """The guest wrote to stdout (1) or stderr (2)."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One submitted evaluation. `settle` is called once with its Result, or never after `cancel`. `size` counts
    towards the pool's held bytes until it is released."""

    number: int
    job: Job
    settle: Callable[[Result | Exception], None] | None
    submitted: float
    size: int
    partner: Partner | None = None
    worker: WorkerProcess | None = None
    attempts: int = 0
    active: float = 0.0
    """When it was last given something to go on with, by the monotonic clock."""
    bound: bool = False
    """Whether it had an effect outside, or got input that is gone: it must not run a second time."""
    input: list[tuple[bytes, bool]] = field(default_factory=list)
    """Standard input that waits for a worker."""
    _wants_input: bool = False
    _wanted: int = 0
    _fed: int = 0
    _calls: int = 0
    _open: dict[int, Operation] = field(default_factory=dict)
    _printed: dict[int, int] = field(default_factory=dict)
    _files: dict[str, bytearray] = field(default_factory=dict)
    _file_bytes: int = 0
    _dropped: bool = False
    _transcript: bytearray = field(default_factory=bytearray)

    @property
    def stands_still(self) -> bool:
        """Whether its clock does: it waits for tools, and their time does not count."""
        grants = self.job.grants
        return grants is not None and not grants.tool_time_counts and Operation.CALL in self._open.values()

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """The worker says that the evaluation begins a call, or drops one."""
        is_heard = False
        if operation is Operation.DROP:
            self._open.pop(call, None)
        elif operation is Operation.INPUT:
            is_heard = self._want_input()
        else:
            self._check(operation, body)
            if call in self._open:
                raise MalformedFrame(f"call {call} begins twice")
            self._open[call] = operation
        self.bound = True
        if self.partner and self.settle and not is_heard:
            self.partner.called(call, operation, body)

    def fed(self) -> None:
        """Input went to the worker."""
        self.bound = True
        self._fed += 1
        self._wants_input = False

    def answered(self, call: int) -> bool:
        """Whether that call is still waited for; it is not any more."""
        return self._open.pop(call, None) is not None

    def printed(self, stream: int, data: bytes) -> None:
        """The worker says that the evaluation printed."""
        total = self._printed[stream] = self._printed.get(stream, 0) + len(data)
        grants = self.job.grants
        if grants is None or not grants.live or total > (self.job.limits.output_bytes or 0):
            raise MalformedFrame("output that nobody asked for, or more than its limit")
        self.bound = True
        if self.partner and self.settle:
            self.partner.printed(stream, data)

    def keep_file(self, path: str, data: bytes) -> None:
        """The worker sends a piece of a file that the evaluation left."""
        limits, grants = self.job.limits, self.job.grants
        self._file_bytes += len(data)
        if path not in self._files:
            try:
                check_path("path", path)
            except InvalidArgument as error:
                raise MalformedFrame(f"a file with a path that cannot be: {error}") from None
        if not self._dropped:
            self._files.setdefault(path, bytearray()).extend(data)
        if (
            grants is None
            or not grants.outputs
            or self._file_bytes > (limits.workspace_bytes or 0)
            or len(self._files) > (limits.workspace_files or 0)
        ):
            raise MalformedFrame("files that nobody asked for, or more than their limit")

    def keep_transcript(self, data: bytes) -> None:
        """The worker sends a piece of the evaluation's transcript."""
        self._transcript += data
        if self.job.world is None or self.job.grants is None or len(self._transcript) > MOST_TRANSCRIPT_BYTES:
            raise MalformedFrame("a transcript that nobody asked for, or more than its limit")

    def drop_files(self) -> int:
        """There is no room for its files: let go of them, and keep no more. How many bytes that frees."""
        self._dropped = True
        return self.forget_files()

    def forget_files(self) -> int:
        """What it left so far does not count: it runs again. How many bytes that frees."""
        freed = sum(map(len, self._files.values())) + len(self._transcript)
        self._files.clear()
        self._transcript.clear()
        self._file_bytes = 0
        return freed

    def complete(self, result: Result) -> Result:
        """The result, with what came before it."""
        if self._transcript:
            result = replace(result, transcript=bytes(self._transcript))
        if self._dropped:
            text = "there is no room now for the files that outputs asked for; try again, or ask for fewer"
            error = ErrorInfo("OutputExceeded", text)
            unrepeatable = NO_ROOM if self.job.world else ""
            return replace(
                result,
                status=Status.OUTPUT_EXCEEDED,
                value_json=b"",
                array=None,
                error=error,
                unrepeatable=unrepeatable,
            )
        if not self._files or result.status is Status.CANCELLED:
            # Of one that was stopped the last file may be cut.
            return result
        files = {path: OutputFile.of(path, bytes(data)) for path, data in self._files.items()}
        return replace(result, files=files)

    def _want_input(self) -> bool:
        """Whether the caller has been told so already. A guest waits once for each input it gets, and once more."""
        self._wanted += 1
        if self._wanted > self._fed + 1 or not (self.job.grants and self.job.grants.stdin):
            raise MalformedFrame("input is wanted more often than it came, or by an evaluation that has none")
        heard, self._wants_input = self._wants_input, True
        return heard

    def _check(self, operation: Operation, body: bytes) -> None:
        grants, limits = self.job.grants, self.job.limits
        under_way = list(self._open.values())
        if grants is None:
            raise MalformedFrame("a call by an evaluation that was granted nothing")
        if operation is Operation.CALL:
            self._calls += 1
            fits = (
                bool(grants.tools)
                and self._calls <= (limits.tool_calls or 0)
                and under_way.count(operation) < (limits.tool_calls_in_flight or 0)
                and len(body) <= (limits.tool_call_bytes or 0)
            )
        elif operation is Operation.FILES:
            fits = bool(grants.mounts) and operation not in under_way
        else:
            fits = (
                grants.http is not None
                and (operation is Operation.HTTP or len(body) == _READ_BYTES)
                and sum(map(under_way.count, _HTTP)) < MOST_HTTP_IN_FLIGHT
                and len(body) <= grants.http.request_bytes + _HEAD_BYTES
            )
        if not fits:
            raise MalformedFrame(f"an operation {operation.name} beyond what was granted")
