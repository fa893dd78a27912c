"""Streams of frames, and the port to the host, as the agent has them."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

# Host to guest.
RESUME, FILE, BEGIN, RUN, FEED, ANSWER, SIGNAL, REHEARSE, STOP = range(1, 10)
# Guest to host.
READY, RESUMED, OUTPUT, TAIL, CALL, INPUT, REPLY, LEFT, DONE, FAILED, REHEARSED = range(33, 44)

HEADER = struct.Struct("<IBI")
PATH = struct.Struct("<H")
SKIPPED = struct.Struct("<Q")
HARNESS_HEADER = struct.Struct("<IB")
# To a harness and from it; see python.py.
EVALUATE, ANSWERED, PRACTISE, WARM, REPLIED, CALLED = b"EAPWRH"

PIECE_BYTES = 1 << 16
MOST_FRAME_BYTES = 32 << 20


def open_port(name: str) -> int:
    """The virtio-serial port of that name, which may take a moment to appear."""
    folder = "/sys/class/virtio-ports"
    for _ in range(2000):
        for port in os.listdir(folder) if os.path.isdir(folder) else ():
            with open(f"{folder}/{port}/name") as file:
                if file.read().strip() == name:
                    return os.open(f"/dev/{port}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        time.sleep(0.005)
    raise SystemExit(f"there is no port {name}")


class Stream:
    """Frames over one descriptor that never blocks: what does not go out yet waits, what comes is cut into frames."""

    def __init__(self, descriptor: int, header: struct.Struct) -> None:
        self.descriptor = descriptor
        self.muted = False
        """Whether what is put goes nowhere."""
        self._header = header
        self._coming = bytearray()
        self._going = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that wait for the other side to read."""
        return len(self._going)

    def put(self, data: bytes) -> None:
        """Send it, as soon as the other side reads."""
        if not self.muted:
            self._going += data
            self.flush()

    def flush(self) -> None:
        """Send what goes out now."""
        while self._going:
            try:
                sent = os.write(self.descriptor, memoryview(self._going)[:PIECE_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self._going.clear()
                return
            del self._going[:sent]

    def frames(self) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """What has come, as header and payload. EOFError when nothing will, or what came is no frame."""
        try:
            data = os.read(self.descriptor, PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise EOFError
        self._coming += data
        size = self._header.size
        while len(self._coming) >= size:
            head = self._header.unpack_from(self._coming)
            if head[0] > MOST_FRAME_BYTES:
                raise EOFError
            if len(self._coming) < size + head[0]:
                return
            payload = bytes(memoryview(self._coming)[size : size + head[0]])
            del self._coming[: size + head[0]]
            yield head, payload
