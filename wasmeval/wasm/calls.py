"""Calls: the host calls of one evaluation: what is under way, what has ended, and the limits on both.

The operations and their frames are those of runtimes/abi.md. Nothing here waits: what is begun goes out by `send`, its
outcome comes back by `answer` or, when its time is over, by `expire`; the guest fetches outcomes with `wait`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic, monotonic_ns

from wasmeval.grants import Grants
from wasmeval.limits import Limits


class Operation(IntEnum):
    """What a guest may ask for. The last two are the host's own: for files of mounted folders, and for input."""

    CONTEXT = 0
    CALL = 1
    HTTP = 2
    READ = 3
    DROP = 4
    WAIT = 5
    FILES = 16
    INPUT = 17


class Outcome(IntEnum):
    """How a call ended."""

    DONE = 0
    RAISED = 1
    LIMIT = 2
    REFUSED = 3
    FAILED = 4


NO_SUCH_OPERATION, NOTHING_UNDER_WAY = -1, -2
FOREVER = (1 << 63) - 1
"""A moment that never comes, in monotonic nanoseconds."""

MOST_HTTP_IN_FLIGHT = 64
"""Requests and reads of one evaluation at a time; their answers are held until the guest takes them."""

MOST_HTTP_OPERATIONS = 1 << 16
"""Of one evaluation in all: each costs the parent process a little, even one that it refuses."""

MOST_UNFETCHED = 4096
"""Outcomes that wait for the guest to fetch them; one that begins more calls meanwhile gets no number for them."""

_OUTCOME_BYTES = 256
"""What an outcome takes beside its bytes, about."""

MOST_READ_BYTES = 1 << 20
_HEAD_BYTES = 1 << 17
_NUMBER = struct.Struct("<I")
_READ = struct.Struct("<II")
_WAIT = struct.Struct("<qI")
_OUTCOME = struct.Struct("<IB3x")

Send = Callable[[int, int, bytes], None]


@dataclass(slots=True)
class Waiting:
    """A guest that waits until `wake` (monotonic nanoseconds), or until `call` has ended; 0 stands for any call."""

    wake: int
    call: int


class Calls:
    """One evaluation's. `send(call, operation, body)` passes on what begins."""

    def __init__(self, grants: Grants, limits: Limits, send: Send) -> None:
        self._grants = grants
        self._limits = limits
        self._pass_on = send
        self._open: dict[int, Operation] = {}
        self._due: dict[int, float] = {}
        self._ended: dict[int, tuple[Outcome, bytes]] = {}
        self._last = 0
        self._tool_bytes = 0
        self._http_operations = 0
        self._streams_dropped = 0
        self.tool_calls = 0
        """Tools called so far."""
        self.held_bytes = 0
        """Host memory that outcomes take until the guest fetches them."""
        self.waiting: Waiting | None = None

    @property
    def most_request_bytes(self) -> int:
        """A longer request cannot be one."""
        http = self._grants.http
        room = max(self._limits.tool_call_bytes or 0, http.request_bytes if http else 0)
        return room + _HEAD_BYTES

    @property
    def next_due(self) -> float | None:
        """When the first call under way has had its time, by the monotonic clock."""
        return min(self._due.values(), default=None)

    @property
    def has_context(self) -> bool:
        """Whether the guest was granted anything that it has to be told of."""
        grants = self._grants
        return bool(grants.tools or grants.http or grants.mounts)

    @property
    def is_under_way(self) -> bool:
        """Whether anything is that the guest has not been answered."""
        return bool(self._open)

    @property
    def waits_for_tools(self) -> bool:
        """Whether the guest waits, and for tools alone."""
        waiting = self.waiting
        if waiting is None or not self._open:
            return False
        if waiting.call:
            return self._open.get(waiting.call) is Operation.CALL
        return all(operation is Operation.CALL for operation in self._open.values())

    def operate(self, request: bytes) -> bytes | int | Waiting:
        """The answer to a guest's request; a negative number when there is none; Waiting when the guest must wait."""
        if not request:
            return NO_SUCH_OPERATION
        body = request[1:]
        if len(self._ended) >= MOST_UNFETCHED and request[0] not in (Operation.WAIT, Operation.DROP):
            return NO_SUCH_OPERATION
        match request[0]:
            case Operation.CONTEXT:
                return self._context()
            case Operation.CALL if self._grants.tools:
                return self._call(body)
            case Operation.HTTP if self._grants.http is not None:
                return self._begin_http(Operation.HTTP, body)
            case Operation.READ if self._grants.http is not None and len(body) == _READ.size:
                stream, most = _READ.unpack(body)
                return self._begin_http(Operation.READ, _READ.pack(stream, min(most, MOST_READ_BYTES)))
            case Operation.DROP if len(body) == _NUMBER.size:
                return self._drop(*_NUMBER.unpack(body))
            case Operation.WAIT if len(body) == _WAIT.size:
                return self._wait(*_WAIT.unpack(body))
        return NO_SUCH_OPERATION

    def ask(self, request: bytes) -> int:
        """Begin an operation on files of a mounted folder, which the guest does not know as a call."""
        self._last += 1
        self._open[self._last] = Operation.FILES
        self._send(self._last, Operation.FILES, request)
        return self._last

    def want_input(self) -> None:
        """Tell the other side that the guest waits for standard input."""
        self._last += 1
        self._send(self._last, Operation.INPUT, b"")

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> Operation | None:
        """The outcome of a call has come. Returns what it was; None for one that is not under way any more."""
        operation = self._open.pop(call, None)
        self._due.pop(call, None)
        if operation is Operation.CALL:
            outcome, payload = self._within(outcome, payload)
        if operation is not None and operation is not Operation.FILES:
            self._keep(call, outcome, payload)
        return operation

    def expire(self, now: float) -> None:
        """End the calls whose time is over."""
        for call in [call for call, due in self._due.items() if due <= now]:
            self._open.pop(call, None)
            self._due.pop(call, None)
            self._keep(call, Outcome.LIMIT, self._too_slow())
            self._send(call, Operation.DROP, b"")

    @property
    def is_satisfied(self) -> bool:
        """Whether the guest can go on: what it waits for has ended."""
        waiting = self.waiting
        return waiting is not None and (waiting.call in self._ended if waiting.call else bool(self._ended))

    def take(self) -> bytes:
        """What the wait that is over gives the guest: an outcome, or nothing when time was up."""
        waiting, self.waiting = self.waiting, None
        return self._take(waiting.call) if waiting else b""

    # --- inside --------------------------------------------------------------------------------------------------

    def _context(self) -> bytes:
        grants = self._grants
        context = {
            "tools": [
                {
                    "name": tool.name,
                    "signature": tool.signature,
                    "parameters": list(tool.parameters),
                    "doc": tool.doc,
                }
                for tool in grants.tools
            ],
            "http": grants.http is not None,
            "workspace": True,
            "mounts": [
                {"path": f"/mnt/{mount.name}", "read_only": mount.read_only} for mount in grants.mounts
            ],
        }
        return json.dumps(context).encode()

    def _call(self, body: bytes) -> bytes:
        limits = self._limits
        self._last += 1
        call = self._last
        assert limits.tool_calls
        assert limits.tool_calls_in_flight
        assert limits.tool_call_bytes
        assert limits.tool_bytes
        assert limits.tool_seconds
        in_flight = self._tools_open()
        if self.tool_calls >= limits.tool_calls:
            text = f"more than {limits.tool_calls} calls of tools; raise limits.tool_calls or call fewer"
            self._end(call, "tool_calls", text)
        elif in_flight >= limits.tool_calls_in_flight:
            text = f"{in_flight} calls are under way already; await some first, or raise limits.tool_calls_in_flight"
            self._end(call, "tool_calls_in_flight", text)
        elif len(body) > limits.tool_call_bytes:
            text = (
                f"the arguments are {len(body)} bytes of JSON, more than {limits.tool_call_bytes}; send less or raise "
                "limits.tool_call_bytes"
            )
            self._end(call, "tool_call_bytes", text)
        elif self._tool_bytes + len(body) > limits.tool_bytes:
            self._end(call, "tool_bytes", self._too_many_bytes())
        else:
            self.tool_calls += 1
            self._tool_bytes += len(body)
            self._open[call] = Operation.CALL
            self._due[call] = monotonic() + limits.tool_seconds
            self._send(call, Operation.CALL, body)
        return _NUMBER.pack(call)

    def _send(self, call: int, operation: int, body: bytes) -> None:
        """Tell the other side. A method, and not what `send` is: nothing here may know itself, for no worker collects
        cycles."""
        self._pass_on(call, operation, body)

    def _tools_open(self) -> int:
        return list(self._open.values()).count(Operation.CALL)

    def _begin_http(self, operation: Operation, body: bytes) -> bytes:
        self._last += 1
        call = self._last
        if len(self._open) - self._tools_open() >= MOST_HTTP_IN_FLIGHT:
            text = f"{MOST_HTTP_IN_FLIGHT} requests are under way already; await some first"
            self._end(call, "http_in_flight", text)
        elif self._http_operations >= MOST_HTTP_OPERATIONS:
            self._end(
                call, "http_operations", f"more than {MOST_HTTP_OPERATIONS} requests and reads; do fewer"
            )
        else:
            self._http_operations += 1
            self._open[call] = operation
            self._send(call, operation, body)
        return _NUMBER.pack(call)

    def _drop(self, number: int) -> bytes:
        self._due.pop(number, None)
        if not number or self._fetch(number):
            return b""
        # A stream's number is known to the other side alone; there are no more of them than requests.
        if self._open.pop(number, None) is None:
            self._streams_dropped += 1
            if self._streams_dropped > self._http_operations:
                return b""
        self._send(number, Operation.DROP, b"")
        return b""

    def _wait(self, timeout: int, call: int) -> bytes | int | Waiting:
        if call in self._ended or (not call and self._ended):
            return self._take(call)
        if call not in self._open if call else not self._open and timeout < 0:
            return NOTHING_UNDER_WAY
        wake = FOREVER if timeout < 0 else min(monotonic_ns() + timeout, FOREVER)
        self.waiting = Waiting(wake, call)
        return self.waiting

    def _take(self, call: int) -> bytes:
        if not call:
            call = next(iter(self._ended), 0)
        ended = self._fetch(call)
        return b"" if ended is None else _OUTCOME.pack(call, ended[0]) + ended[1]

    def _keep(self, call: int, outcome: Outcome, payload: bytes) -> None:
        self._ended[call] = outcome, payload
        self.held_bytes += len(payload) + _OUTCOME_BYTES

    def _fetch(self, call: int) -> tuple[Outcome, bytes] | None:
        ended = self._ended.pop(call, None)
        if ended is not None:
            self.held_bytes -= len(ended[1]) + _OUTCOME_BYTES
        return ended

    def _within(self, outcome: Outcome, payload: bytes) -> tuple[Outcome, bytes]:
        """The outcome, if it keeps the limits on bytes."""
        most, total = self._limits.tool_call_bytes or 0, self._limits.tool_bytes or 0
        self._tool_bytes += len(payload)
        if len(payload) > most:
            text = (
                f"the answer is {len(payload)} bytes of JSON, more than {most}; raise limits.tool_call_bytes"
            )
            return Outcome.LIMIT, limit_reached("tool_call_bytes", text)
        if self._tool_bytes > total:
            return Outcome.LIMIT, limit_reached("tool_bytes", self._too_many_bytes())
        return outcome, payload

    def _too_slow(self) -> bytes:
        seconds = self._limits.tool_seconds
        return limit_reached(
            "tool_seconds", f"the call took longer than {seconds:g} s; raise limits.tool_seconds"
        )

    def _too_many_bytes(self) -> str:
        return (
            f"all calls of tools together take more than {self._limits.tool_bytes} bytes of JSON; send and return "
            "less, or raise limits.tool_bytes"
        )

    def _end(self, call: int, limit: str, text: str) -> None:
        self._open.pop(call, None)
        self._due.pop(call, None)
        self._keep(call, Outcome.LIMIT, limit_reached(limit, text))


def limit_reached(name: str, text: str) -> bytes:
    """What a call gives that reached that limit."""
    return json.dumps({"limit": name, "message": text}).encode()
