"""Scripted: a host for the self-check whose answers are written down beforehand. See `abi.md`, "Host operations".

Calls end in the order latest first unless told otherwise, so that who mixes them up is found out.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DONE, RAISED, LIMIT, REFUSED, FAILED = range(5)
NO_SUCH_OPERATION, NOTHING_UNDER_WAY = -1, -2

Outcome = tuple[int, bytes]


def done(value: Any) -> Outcome:
    return DONE, json.dumps(value).encode()


def told(kind: int, **words: Any) -> Outcome:
    return kind, json.dumps(words).encode()


@dataclass(slots=True)
class ScriptedHost:
    """`tools`: name -> function of the positional and named arguments; None for a call that never ends.

    `http`: function of a request's head and body; `respond` makes its outcomes.
    """

    tools: Mapping[str, Callable[[list[Any], dict[str, Any]], Outcome | None]] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    http: Callable[[dict[str, Any], bytes], Outcome] | None = None
    in_order: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    waits: list[tuple[int, int]] = field(default_factory=list)
    streams: dict[int, list[bytes]] = field(default_factory=dict)
    _ended: dict[int, Outcome] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _last: int = 0

    def answer(self, request: bytes) -> bytes | int:
        """The answer to one `host_call`."""
        body = request[1:]
        match request[0]:
            case 0:
                return json.dumps(self._context()).encode()
            case 1:
                return self._begin(self._call(json.loads(body)))
            case 2 if self.http is not None:
                length = struct.unpack_from("<I", body)[0]
                head = json.loads(body[4 : 4 + length])
                self.requests.append(head)
                return self._begin(self.http(head, body[4 + length :]))
            case 3:
                parts = self.streams[struct.unpack("<II", body)[0]]
                return self._begin((DONE, parts.pop(0) if parts else b""))
            case 4:
                number = struct.unpack("<I", body)[0]
                self.dropped.append(number)
                self._open.discard(number)
                self._ended.pop(number, None)
                return b""
            case 5:
                return self._wait(*struct.unpack("<qI", body))
        return NO_SUCH_OPERATION

    def respond(self, status: int, headers: list[list[str]], *parts: bytes) -> Outcome:
        """The outcome of a request: the first part comes with the head, the others when they are read."""
        stream = 0
        if len(parts) > 1:
            stream = 1000 + len(self.streams)
            self.streams[stream] = list(parts[1:])
        head = {
            "status": status,
            "reason": "",
            "url": "",
            "headers": headers,
            "redirected": False,
            "stream": stream,
        }
        encoded = json.dumps(head).encode()
        return DONE, struct.pack("<I", len(encoded)) + encoded + b"".join(parts[:1])

    def _context(self) -> dict[str, Any]:
        tools = [
            {
                "name": name,
                "signature": self.signatures.get(name, ""),
                "parameters": [],
                "doc": f"What {name} does.",
            }
            for name in self.tools
        ]
        return {"tools": tools, "http": self.http is not None, "workspace": True, "mounts": []}

    def _call(self, call: dict[str, Any]) -> Outcome | None:
        self.requests.append(call)
        return self.tools[call["name"]](call["args"], call["kwargs"])

    def _begin(self, outcome: Outcome | None) -> bytes:
        self._last += 1
        if outcome is None:
            self._open.add(self._last)
        else:
            self._ended[self._last] = outcome
        return struct.pack("<I", self._last)

    def _wait(self, timeout: int, number: int) -> bytes | int:
        self.waits.append((timeout, number))
        if not number:
            number = next(iter(self._ended if self.in_order else reversed(self._ended)), 0)
        if number in self._ended:
            kind, payload = self._ended.pop(number)
            return struct.pack("<IB3x", number, kind) + payload
        return b"" if timeout >= 0 else NOTHING_UNDER_WAY
