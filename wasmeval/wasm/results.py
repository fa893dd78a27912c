"""How a guest's end becomes a Result: its reply, its trap, or the host's decision to stop it."""

from __future__ import annotations

from typing import NamedTuple

from wasmeval.arrays import Array
from wasmeval.limits import Limits, Usage
from wasmeval.model import ErrorInfo, Result, Status, why_unrepeatable
from wasmeval.wasm import abi, capi
from wasmeval.wasm.instance import Instance, NoRoom, NoSpace, Trapped
from wasmeval.wasm.translation import Lines, map_traceback, original_place
from wasmeval.wasm.world import PastDeadline

_NEARLY = 0.9
"""A guest that dies by `unreachable` with this much of its memory in use is taken to have died of it."""

_STATUS = {
    abi.Outcome.VALUE: Status.OK,
    abi.Outcome.RAISED: Status.ERROR,
    abi.Outcome.VALUE_TOO_LARGE: Status.OUTPUT_EXCEEDED,
    abi.Outcome.UNSUPPORTED: Status.UNSUPPORTED,
    abi.Outcome.OUT_OF_MEMORY: Status.MEMORY_EXCEEDED,
}


class Ending(NamedTuple):
    """What is known of an evaluation when it ends: its instance (None when it never got one), limits and time."""

    instance: Instance | None
    limits: Limits
    wall_seconds: float
    runtime: str
    tool_calls: int = 0
    spent_fuel: int = 0
    """By a translator, before this instance."""
    lines: Lines | None = None
    """See translation.Translation."""
    virtual_ns: int = 0
    """How far a deterministic guest's clock went."""
    is_deterministic: bool = False

    def replied(self) -> Result:
        """The guest's own reply, or `crashed` when it is no reply."""
        assert self.instance is not None
        try:
            reply = self.instance.reply()
        except abi.MalformedReply as malformed:
            return self.crashed(f"the interpreter's reply is malformed: {malformed}")
        if reply.outcome is abi.Outcome.VALUE:
            return self._result(Status.OK, None, reply.value, reply.value_is_json, array=reply.array)
        message = reply.message
        if reply.outcome is abi.Outcome.OUT_OF_MEMORY:
            message = f"{message} ({self.limits.memory_bytes} bytes); raise limits.memory_bytes or use less"
        elif reply.outcome is abi.Outcome.VALUE_TOO_LARGE:
            most = self.limits.output_bytes
            message = (
                f"the value is larger than output_bytes ({most}); raise limits.output_bytes or return less"
            )
        line, column, traceback = reply.line, reply.column, reply.traceback
        if self.lines is not None:
            line, column = original_place(self.lines, line, column)
            traceback = map_traceback(traceback, self.lines)
        error = ErrorInfo(reply.type, message, traceback, line or None, column or None)
        return self._result(_STATUS[reply.outcome], error)

    def trapped(self, trap: Trapped) -> Result:
        """The instance died."""
        limits = self.limits
        if isinstance(trap.reason, PastDeadline):
            return self.deadline(is_repeatable=True)
        if trap.reason is not None:
            return self._result(
                Status.ERROR, ErrorInfo("ReplayDiverged", str(trap.reason)), is_repeatable=False
            )
        if trap.exit_code is not None:
            if trap.exit_code == 0:
                return self._null()
            return self._result(Status.ERROR, ErrorInfo("SystemExit", str(trap.exit_code)))
        if trap.code == capi.OUT_OF_FUEL:
            text = f"all fuel was used ({limits.fuel}); raise limits.fuel or do less"
            return self._result(Status.FUEL_EXHAUSTED, ErrorInfo("FuelExhausted", text), fuel=limits.fuel)
        dying = trap.code == capi.UNREACHABLE and self._memory_bytes() >= _NEARLY * (limits.memory_bytes or 0)
        if dying or isinstance(trap, NoRoom):
            return self._stopped_memory(
                f"memory ran out ({limits.memory_bytes} bytes); raise limits.memory_bytes"
            )
        if isinstance(trap, NoSpace):
            text = (
                f"[Errno 28] No space left on device: the files of this step do not fit into what is left of the "
                f"session's workspace ({limits.workspace_bytes} bytes, {limits.workspace_files} files); remove some"
            )
            return self._result(Status.ERROR, ErrorInfo("OSError", text))
        if trap.code == capi.STACK_OVERFLOW:
            return self.crashed("the interpreter's native stack overflowed; recurse less deeply")
        return self.crashed(f"the instance ended by a trap: {trap}")

    def deadline(self, *, is_repeatable: bool = False) -> Result:
        """The deadline passed: on the wall clock, or, `is_repeatable`, on the guest's own."""
        text = f"the deadline of {self.limits.deadline_seconds:g} s passed; raise limits.deadline_seconds or do less"
        error = ErrorInfo("DeadlineExceeded", text)
        return self._result(Status.DEADLINE_EXCEEDED, error, is_repeatable=is_repeatable)

    def cancelled(self) -> Result:
        """The caller went away or took it back."""
        error = ErrorInfo("Cancelled", "the evaluation was cancelled by its caller")
        return self._result(Status.CANCELLED, error, is_repeatable=False)

    def evicted(self, budget_bytes: int) -> Result:
        """The worker's memory ran out, and this was its largest guest."""
        text = (
            f"the worker's guests together used more than {budget_bytes} bytes, and this one most of it; "
            f"use less, or have the operator raise worker_memory_bytes"
        )
        return self._stopped_memory(text, is_repeatable=False)

    def crashed(self, why: str) -> Result:
        """The instance is gone through no decision of ours."""
        return self._result(Status.CRASHED, ErrorInfo("Crashed", why), is_repeatable=False)

    def _null(self) -> Result:
        value, most = b"null", self.limits.output_bytes or 0
        if len(value) <= most:
            return self._result(Status.OK, None, value)
        text = f"the value's JSON is larger than {most} bytes; raise limits.output_bytes"
        return self._result(Status.OUTPUT_EXCEEDED, ErrorInfo("OutputExceeded", text))

    def _stopped_memory(self, text: str, *, is_repeatable: bool = True) -> Result:
        error = ErrorInfo("MemoryExceeded", text)
        return self._result(Status.MEMORY_EXCEEDED, error, is_repeatable=is_repeatable)

    def _memory_bytes(self) -> int:
        return self.instance.memory_bytes() if self.instance else 0

    def _usage(self, fuel: int | None) -> Usage:
        assert self.instance is not None
        fuel = self.spent_fuel + self.instance.fuel_used() if fuel is None else fuel
        return Usage(fuel, self.wall_seconds, self._memory_bytes(), self.tool_calls, self.virtual_ns)

    def _result(
        self,
        status: Status,
        error: ErrorInfo | None,
        value: bytes = b"",
        value_is_json: bool = True,
        fuel: int | None = None,
        *,
        array: Array | None = None,
        is_repeatable: bool = True,
    ) -> Result:
        instance = self.instance
        unrepeatable = why_unrepeatable(status) if self.is_deterministic and not is_repeatable else ""
        if instance is None:
            return Result(
                status, error=error, limits=self.limits, runtime=self.runtime, unrepeatable=unrepeatable
            )
        out, err = instance.wasi.stdout, instance.wasi.stderr
        return Result(
            status,
            value,
            value_is_json,
            out.text() if out.written else "",
            err.text() if err.written else "",
            out.truncated,
            err.truncated,
            error,
            self._usage(fuel),
            self.limits,
            "wasm",
            self.runtime,
            unrepeatable=unrepeatable,
            array=array,
        )
