"""How a job in a machine becomes a Result: by its program's reply or end, or by the host's decision to stop it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wasmeval.arrays import Array
from wasmeval.limits import Usage
from wasmeval.model import ErrorInfo, Job, OutputFile, Result, Status
from wasmeval.wasm import abi
from wasmeval.wasm.output import Output

_STATUS = {
    abi.Outcome.VALUE: Status.OK,
    abi.Outcome.RAISED: Status.ERROR,
    abi.Outcome.VALUE_TOO_LARGE: Status.OUTPUT_EXCEEDED,
    abi.Outcome.UNSUPPORTED: Status.UNSUPPORTED,
    abi.Outcome.OUT_OF_MEMORY: Status.MEMORY_EXCEEDED,
}
_PLAIN = frozenset(["bash", "command"])


class Ended(NamedTuple):
    """What the guest's agent says of the end; every part may be a lie."""

    exit_status: int | None = None
    """Of the program itself, negative for a signal; None while it goes on, as an interpreter that has replied does."""
    out_of_memory: bool = False
    files_left_out: bool = False
    peak_memory_bytes: int = 0

    @classmethod
    def of(cls, told: Mapping[str, Any], most_memory: int) -> Ended:
        """Raises ValueError for what cannot be."""
        status, peak = told.get("exit_status"), told.get("peak_memory_bytes", 0)
        if status is not None and (type(status) is not int or not -64 <= status <= 255):
            raise ValueError("an exit status that cannot be")
        if type(peak) is not int or peak < 0:
            raise ValueError("a size that cannot be")
        flags = told.get("out_of_memory") is True, told.get("files_left_out") is True
        return cls(status, *flags, min(peak, most_memory))


@dataclass(slots=True)
class Ending:
    """What is known of a job when it ends."""

    job: Job
    program: str
    tier_detail: str
    stdout: Output
    stderr: Output
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    tool_calls: int = 0
    reply: bytes = b""
    ended: Ended = field(default_factory=Ended)
    files: dict[str, bytearray] = field(default_factory=dict)
    no_room: bool = False
    """Whether its files were dropped, because the host has no room for them now."""

    def told(self) -> Result:
        """As its program says."""
        ended, limits = self.ended, self.job.limits
        if self.no_room:
            text = "there is no room now for the files that outputs asked for; try again, or ask for fewer"
            return self._result(Status.OUTPUT_EXCEEDED, ErrorInfo("OutputExceeded", text))
        if ended.files_left_out:
            most = f"{limits.workspace_bytes} bytes or {limits.workspace_files} files"
            text = f"the files that outputs asked for are more than {most}; ask for fewer"
            return self._result(Status.OUTPUT_EXCEEDED, ErrorInfo("OutputExceeded", text))
        if self.program in _PLAIN:
            return self._exited()
        if self.reply:
            return self._replied()
        status, is_step = ended.exit_status, self.job.session is not None
        if status == 0 and not is_step:
            return self._result(Status.OK, value=b"null")
        if ended.out_of_memory:
            return self._out_of_memory()
        if status is None or status < 0:
            how = f"killed by {_signal(-status)}" if status else "gone"
            return self.crashed(f"its interpreter was {how}")
        if is_step:
            return self.crashed(f"its interpreter exited with the status {status}, and the session with it")
        if self.program == "python":
            return self._result(Status.ERROR, ErrorInfo("SystemExit", str(status)))
        return self._result(Status.ERROR, ErrorInfo("ExitStatus", f"exit status {status}"))

    def deadline(self) -> Result:
        """The deadline passed."""
        seconds = self.job.limits.deadline_seconds
        text = f"the deadline of {seconds:g} s passed; raise limits.deadline_seconds or do less"
        return self._result(Status.DEADLINE_EXCEEDED, ErrorInfo("DeadlineExceeded", text))

    def cpu_used_up(self) -> Result:
        """All CPU time was used."""
        text = (
            f"all CPU time was used ({self.job.limits.cpu_seconds:g} s); raise limits.cpu_seconds or do less"
        )
        return self._result(Status.FUEL_EXHAUSTED, ErrorInfo("CpuExhausted", text))

    def cancelled(self, why: str) -> Result:
        """It was stopped from outside."""
        return self._result(Status.CANCELLED, ErrorInfo("Cancelled", why))

    def crashed(self, why: str) -> Result:
        """The interpreter or the machine is gone through no decision of ours."""
        return self._result(Status.CRASHED, ErrorInfo("Crashed", why))

    def _replied(self) -> Result:
        limits = self.job.limits
        try:
            reply = abi.decode_reply(self.reply, limits.output_bytes or 0)
        except abi.MalformedReply as malformed:
            return self.crashed(f"the interpreter's reply is malformed: {malformed}")
        if reply.outcome is abi.Outcome.VALUE:
            return self._result(
                Status.OK, value=reply.value, value_is_json=reply.value_is_json, array=reply.array
            )
        message = reply.message
        if reply.outcome is abi.Outcome.OUT_OF_MEMORY:
            message = f"{message} ({limits.memory_bytes} bytes); raise limits.memory_bytes or use less"
        elif reply.outcome is abi.Outcome.VALUE_TOO_LARGE:
            most = limits.output_bytes
            message = (
                f"the value is larger than output_bytes ({most}); raise limits.output_bytes or return less"
            )
        error = ErrorInfo(reply.type, message, reply.traceback, reply.line or None, reply.column or None)
        return self._result(_STATUS[reply.outcome], error)

    def _exited(self) -> Result:
        status = self.ended.exit_status
        if status == 0:
            return self._result(Status.OK, value=b"null")
        if self.ended.out_of_memory and status == -signal.SIGKILL:
            return self._out_of_memory()
        if status is None:
            return self.crashed("its program ended without a status")
        text = f"killed by {_signal(-status)}" if status < 0 else f"exit status {status}"
        return self._result(Status.ERROR, ErrorInfo("ExitStatus", text))

    def _out_of_memory(self) -> Result:
        text = f"memory ran out ({self.job.limits.memory_bytes} bytes); raise limits.memory_bytes or use less"
        return self._result(Status.MEMORY_EXCEEDED, ErrorInfo("MemoryExceeded", text))

    def _result(
        self,
        status: Status,
        error: ErrorInfo | None = None,
        value: bytes = b"",
        value_is_json: bool = True,
        array: Array | None = None,
    ) -> Result:
        most = self.job.limits.output_bytes or 0
        if value and len(value) > most:
            status, value = Status.OUTPUT_EXCEEDED, b""
            error = ErrorInfo(
                "OutputExceeded", f"the value's JSON is larger than {most} bytes; raise limits.output_bytes"
            )
        keeps_files = status is not Status.CANCELLED
        return Result(
            status,
            value,
            value_is_json,
            self.stdout.text() if self.stdout.written else "",
            self.stderr.text() if self.stderr.written else "",
            self.stdout.truncated,
            self.stderr.truncated,
            error,
            Usage(
                0,
                self.wall_seconds,
                self.ended.peak_memory_bytes,
                self.tool_calls,
                cpu_seconds=self.cpu_seconds,
            ),
            self.job.limits,
            "vm",
            self.job.runtime,
            files={path: OutputFile.of(path, bytes(data)) for path, data in self.files.items()}
            if keeps_files
            else {},
            tier_detail=self.tier_detail,
            exit_status=self.ended.exit_status if self.program in _PLAIN else None,
            array=array,
        )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
