"""An agent that its host must not believe: it is root in its guest, and does what the job's command names.

It lies in the guest in the place of `guest/agent.py`, whose files it has beside it.
"""

from __future__ import annotations

import json
import os
import select
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from _agent_streams import BEGIN, HEADER, INPUT, READY, REHEARSE, REHEARSED, RESUME, RESUMED, STOP, open_port

OUTPUT, TAIL, CALL, LEFT, DONE = 35, 36, 37, 40, 41


def frame(kind: int, payload: bytes = b"", number: int = 0) -> bytes:
    return HEADER.pack(len(payload), kind, number) + payload


class Port:
    def __init__(self, name: str) -> None:
        self.descriptor = open_port(name)
        os.set_blocking(self.descriptor, True)
        self._heard = bytearray()

    def put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest[: 1 << 16]) :]

    def flood(self, data: bytes) -> None:
        while True:
            self.put(data)

    def hear(self) -> tuple[int, bytes]:
        while True:
            if len(self._heard) >= HEADER.size:
                length, kind, _ = HEADER.unpack_from(self._heard)
                if len(self._heard) >= HEADER.size + length:
                    payload = bytes(self._heard[HEADER.size : HEADER.size + length])
                    del self._heard[: HEADER.size + length]
                    return kind, payload
            self._heard += os.read(self.descriptor, 1 << 16)


def main() -> None:
    if os.getpid() == 1 and os.fork():
        while True:
            os.wait()
    host = Port("wasmeval.agent")
    net = Port("wasmeval.net")
    host.put(frame(READY, json.dumps({"languages": {"bash": "5"}}).encode()))
    while True:
        kind, payload = host.hear()
        if kind == RESUME:
            host.put(frame(RESUMED))
        elif kind == REHEARSE:
            host.put(frame(REHEARSED))
        elif kind == BEGIN:
            attack(json.loads(payload)["argv"][0], host, net)


def attack(what: str, host: Port, net: Port) -> None:
    if what == "nothing":
        time.sleep(1000)
    elif what == "spin":
        while True:
            pass
    elif what == "honest":
        host.put(frame(OUTPUT, b"fine", 1) + frame(DONE, b'{"exit_status": 0}'))
    elif what == "output":
        host.flood(frame(OUTPUT, bytes(60_000), 1))
    elif what == "bytes":
        host.flood(frame(OUTPUT, b"x", 1) * 6000)
    elif what == "single writes":
        # As often as it can the host is woken, for a byte.
        data = frame(OUTPUT, b"x", 1)
        while True:
            for each in data:
                os.write(host.descriptor, bytes([each]))
    elif what == "empty":
        host.flood(frame(OUTPUT, b"", 1) * 6000)
    elif what == "garbage":
        host.flood(os.urandom(1 << 16))
    elif what == "huge":
        host.put(struct.pack("<IBI", 0xFFFFFFFF, OUTPUT, 1))
        host.flood(bytes(1 << 16))
    elif what == "almost huge":
        # As long as a frame may be, and its end never comes.
        host.put(struct.pack("<IBI", 16 << 20, CALL, 0))
        host.put(bytes((16 << 20) - 1))
        time.sleep(1000)
    elif what == "calls":
        host.flood(frame(CALL, b"\0") * 5000)
    elif what == "calls answered":
        while True:
            host.put(frame(CALL, b"\0"))
            host.hear()
    elif what == "inputs":
        host.flood(frame(INPUT) * 6000)
    elif what == "files":
        host.flood(frame(LEFT, b"\x03\x00../" + bytes(1000), 1) * 60)
    elif what == "tails":
        host.flood(frame(TAIL, bytes(9_000_000), 1))
    elif what == "done and on":
        host.put(frame(DONE, b'{"exit_status": 0}'))
        host.flood(frame(OUTPUT, b"x", 1) * 6000)
    elif what == "never stops":
        while host.hear()[0] != STOP:
            pass
        host.flood(frame(OUTPUT, b"x", 1))
    elif what == "network":
        net.flood(os.urandom(1 << 16))
    elif what == "connections":
        for number in range(1, 1 << 20):
            net.put(struct.pack("<II", number, 0))
    elif what == "connection bytes":
        data = struct.pack("<II", 1, 1) + b"x"
        while True:
            for each in data:
                os.write(net.descriptor, bytes([each]))
    elif what == "both ways":
        # It reads nothing of what it makes the host send.
        while select.select([], [host.descriptor], [], 1000)[1]:
            host.put(frame(CALL, b"\0"))
    elif what == "power off":
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("o")
        time.sleep(1000)
    elif what == "panic":
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("c")
    else:
        host.put(b"what is " + what.encode())


main()
