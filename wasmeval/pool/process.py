"""WorkerProcess: one worker as its parent sees it: a process, a socket, and what it was given to do."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import wasmeval
from wasmeval.wasm.progress import Progress
from wasmeval.worker import frames

_RECEIVE_BYTES = 1 << 16
_SEND_BUFFER_BYTES = 1 << 20
_F_ADD_SEALS, _F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1033, 1, 2, 4
_BOOT = """
import gc, sys
gc.disable()
sys.path += sys.argv[3:]
from wasmeval.worker.main import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""


class State(Enum):
    """Of a worker: it loads its images, it takes evaluations, it is gone."""

    STARTING = "starting"
    READY = "ready"
    GONE = "gone"


class WorkerProcess:
    """Start with `spawn`, end with `kill`; both return at once. The socket never blocks: what it does not take
    waits in an outbox."""

    def __init__(
        self, process: subprocess.Popen[bytes], channel: socket.socket, page: mmap.mmap, started: float
    ) -> None:
        self.process = process
        self.channel = channel
        self.started = started
        self.ready = 0.0
        """When it was ready, by the monotonic clock."""
        self.answered = 0.0
        """When its last result arrived, by the monotonic clock."""
        self.streak = 0
        """How many evaluations it was given in a row, without a rest."""
        self.heard = 0.0
        """The same, or when it was given something to do after it had nothing."""
        self.state = State.STARTING
        self.jail: list[list[Any]] = []
        self._page = page
        self._progress = Progress.from_buffer(page)
        self._decoder = frames.Decoder()
        self._outbox: deque[memoryview] = deque()

    @classmethod
    def spawn(cls, configuration: dict[str, Any], started: float) -> WorkerProcess:
        """A new worker, told what to load. It inherits nothing but its socket and one shared page; its environment is
        empty."""
        ours, theirs = socket.socketpair()
        # A session's state goes over in few turns; where the system allows less, it is more of them.
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        page_fd = os.memfd_create("wasmeval-progress", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(page_fd, mmap.PAGESIZE)
            # A page that its other holder takes away would be a bus error here.
            fcntl.fcntl(page_fd, _F_ADD_SEALS, _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW)
            page = mmap.mmap(page_fd, mmap.PAGESIZE)
            command = [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _BOOT,
                str(theirs.fileno()),
                str(page_fd),
                *_import_path(),
            ]
            process = subprocess.Popen(
                command,
                env={},
                cwd="/",
                pass_fds=(theirs.fileno(), page_fd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Out of reach of the terminal's Ctrl-C, yet in our session: only there does niceness count.
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(page_fd)
        ours.setblocking(False)
        worker = cls(process, ours, page, started)
        worker.send(frames.encode(frames.Kind.CONFIGURE, json.dumps(configuration).encode()))
        return worker

    def fileno(self) -> int:
        """Of the socket, for select, epoll and asyncio."""
        return self.channel.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether the outbox holds something the socket would not take."""
        return bool(self._outbox)

    @property
    def blamed(self) -> int:
        """The number of the evaluation that runs, or ran when the worker died; 0 when none did. A hint: the worker
        writes it."""
        return int(self._progress.number)

    def overdue_seconds(self, now: float) -> float:
        """For how long the evaluation that runs should have been over; negative when it has time. A hint, too."""
        return now - self._progress.deadline_ns / 1e9 if self._progress.number else -1.0

    def send(self, data: bytes | memoryview) -> None:
        """Send what the socket takes of `data` now, and queue the rest. A worker that is gone is noticed by
        `receive`."""
        self._outbox.append(memoryview(data))
        if len(self._outbox) == 1:
            self.flush()

    def flush(self) -> None:
        """Send of the outbox what the socket takes."""
        while self._outbox:
            first = self._outbox[0]
            try:
                sent = self.channel.send(first)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._outbox.clear()
                return
            if sent < len(first):
                self._outbox[0] = first[sent:]
            else:
                self._outbox.popleft()

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """The frames that have arrived. Raises EOFError when the worker is gone, MalformedFrame when it cannot be
        trusted."""
        decoder = self._decoder
        try:
            if room := decoder.room:
                size = self.channel.recv_into(room)
                arrived = decoder.filled(size)
            else:
                data = self.channel.recv(_RECEIVE_BYTES)
                size = len(data)
                arrived = decoder.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise EOFError from error
        if not size:
            raise EOFError
        yield from arrived

    def kill(self) -> None:
        """End the process for good and close the socket; `reaped` says when it is buried."""
        self.state = State.GONE
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.channel.close()

    def reaped(self) -> bool:
        """Whether the dead process has been waited for."""
        return self.process.poll() is not None


def _import_path() -> list[str]:
    """Where the worker finds this package and Wasmtime: without `site`, a start takes half the time."""
    package = Path(wasmeval.__file__).resolve().parent.parent
    from wasmeval.wasm import installation

    return list(dict.fromkeys([str(package), str(installation.PACKAGE.parent)]))
