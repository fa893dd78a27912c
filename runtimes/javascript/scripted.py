"""Operations: a scripted host of the ABI's host operations, for the self-check and the tests of the image.

Tools and the network are Python functions, time is a number that only waiting moves, and what ends at the same moment
ends in the order in which it began: the same snippet sees the same thing each time. It keeps no limits; a script plays
them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

DONE, RAISED, LIMIT, REFUSED, FAILED = range(5)
CONTEXT, CALL, HTTP, READ, DROP, WAIT = range(6)

NO_SUCH_OPERATION = -1
NOTHING_UNDER_WAY = -2


class Ended(Exception):
    """Raised by a tool or the network: the call ends with this kind and outcome."""

    def __init__(self, kind: int, **outcome: Any) -> None:
        super().__init__(kind, outcome)
        self.kind = kind
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class After:
    """What a tool or the network gives when its answer takes time."""

    seconds: float
    value: Any


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the host's that the snippet may call."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[str, ...] = ()
    signature: str = ""
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: `chunks` come with the head (the first) and then one a read."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    chunks: Sequence[bytes] = ()
    url: str = ""
    redirected: bool = False
    reason: str = ""


@dataclass(slots=True)
class Call:
    """A call that is under way: when it ends, and how."""

    number: int
    due_ns: int
    kind: int
    outcome: bytes


@dataclass(slots=True)
class Operations:
    """One evaluation's. `requests` are the heads and bodies that were sent, `dropped` the numbers given up."""

    tools: Sequence[Tool] = ()
    http: Callable[[dict[str, Any], bytes], Any] | None = None
    mounts: Sequence[tuple[str, bool]] = ()
    now_ns: int = 0
    calls: list[Call] = field(default_factory=list)
    streams: dict[int, list[bytes]] = field(default_factory=dict)
    requests: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    _last: int = 0

    def operate(self, request: bytes) -> bytes | int:
        """The answer to one `host_call`."""
        operation, body = request[0], request[1:]
        match operation:
            case 0:
                return self._context()
            case 1 if self.tools:
                return self._begin(lambda: self._call(json.loads(body)))
            case 2 if self.http is not None:
                length = struct.unpack("<I", body[:4])[0]
                head = json.loads(body[4 : 4 + length])
                return self._begin(lambda: self._fetch(head, body[4 + length :]))
            case 3:
                stream, most = struct.unpack("<II", body)
                return self._begin(lambda: self._read(stream, most))
            case 4:
                return self._drop(*struct.unpack("<I", body))
            case 5:
                return self._wait(*struct.unpack("<qI", body))
        return NO_SUCH_OPERATION

    def _context(self) -> bytes:
        tools = [
            {"name": tool.name, "signature": tool.signature, "parameters": tool.parameters, "doc": tool.doc}
            for tool in self.tools
        ]
        mounts = [{"path": path, "read_only": read_only} for path, read_only in self.mounts]
        context = {"tools": tools, "http": self.http is not None, "workspace": True, "mounts": mounts}
        return json.dumps(context).encode()

    def _begin(self, work: Callable[[], tuple[float, bytes]]) -> bytes:
        self._last += 1
        seconds = 0.0
        try:
            (seconds, outcome), kind = work(), DONE
        except Ended as ended:
            outcome, kind = json.dumps(ended.outcome).encode(), ended.kind
        except Exception as error:
            told = {"type": type(error).__name__, "message": str(error)}
            outcome, kind = json.dumps(told).encode(), RAISED
        self.calls.append(Call(self._last, self.now_ns + int(seconds * 1e9), kind, outcome))
        return struct.pack("<I", self._last)

    def _call(self, request: dict[str, Any]) -> tuple[float, bytes]:
        tool = next(tool for tool in self.tools if tool.name == request["name"])
        seconds, value = _timed(tool.function(*request["args"], **request["kwargs"]))
        return seconds, json.dumps(value).encode()

    def _fetch(self, head: dict[str, Any], body: bytes) -> tuple[float, bytes]:
        assert self.http is not None
        self.requests.append((head, body))
        seconds, answer = _timed(self.http(head, body))
        first, *rest = list(answer.chunks) or [b""]
        stream = 0
        if rest:
            stream = 1000 + self._last
            self.streams[stream] = rest
        described = {
            "status": answer.status,
            "reason": answer.reason,
            "url": answer.url or head["url"],
            "headers": [list(pair) for pair in answer.headers],
            "redirected": answer.redirected,
            "stream": stream,
        }
        text = json.dumps(described).encode()
        return seconds, struct.pack("<I", len(text)) + text + first

    def _read(self, stream: int, most: int) -> tuple[float, bytes]:
        chunks = self.streams.get(stream, [])
        return 0.0, chunks.pop(0)[:most] if chunks else b""

    def _drop(self, number: int) -> bytes:
        self.dropped.append(number)
        self.calls = [call for call in self.calls if call.number != number]
        self.streams.pop(number, None)
        return b""

    def _wait(self, timeout_ns: int, number: int) -> bytes | int:
        wanted = [call for call in self.calls if not number or call.number == number]
        if not wanted and timeout_ns < 0:
            return NOTHING_UNDER_WAY
        first = min(wanted, key=lambda call: call.due_ns, default=None)
        if first is None or (timeout_ns >= 0 and first.due_ns > self.now_ns + timeout_ns):
            self.now_ns += timeout_ns
            return b""
        self.now_ns = max(self.now_ns, first.due_ns)
        self.calls.remove(first)
        return struct.pack("<IB3x", first.number, first.kind) + first.outcome


def _timed(value: Any) -> tuple[float, Any]:
    return (value.seconds, value.value) if isinstance(value, After) else (0.0, value)
