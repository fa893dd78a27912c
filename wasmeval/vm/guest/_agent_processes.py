"""Processes of the job's user, each in a cgroup, as the agent has them."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Mapping, Sequence

from _agent_streams import HARNESS_HEADER, PIECE_BYTES, SKIPPED, Stream

USER = 1000
WORKSPACE = "/workspace"
GROUPS = "/sys/fs/cgroup"
_TRIM_BYTES = 1 << 20


def write(path: str, text: str) -> None:
    """Write it, as files of the kernel's are written."""
    with open(path, "w") as file:
        file.write(text)


def number_in(path: str, name: str = "") -> int:
    """A number from a cgroup's file; the one behind `name` in a file of pairs; 0 when there is none."""
    try:
        with open(path) as file:
            for line in file:
                key, _, value = line.strip().rpartition(" ")
                if key == name:
                    return int(value)
    except (OSError, ValueError):
        pass
    return 0


def spawn(argv: Sequence[str], group: str, environment: Mapping[str, str], descriptors: Sequence[int]) -> int:
    """A process of the user's in that cgroup, with `descriptors` as its 0, 1, 2, ...; its number.

    Raises OSError when the program cannot be started.
    """
    failure, told = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            write(f"{GROUPS}/{group}/cgroup.procs", "0")
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            # Out of the way first: they may lie where others are to be.
            high = [fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in descriptors]
            for place, each in enumerate(high):
                os.dup2(each, place)
            os.closerange(len(high), told)
            os.closerange(told + 1, 1024)
            os.chdir(WORKSPACE)
            for each_signal in (signal.SIGPIPE, signal.SIGINT):
                signal.signal(each_signal, signal.SIG_DFL)
            os.umask(0o022)
            os.execvpe(argv[0], list(argv), environment)
        except BaseException as error:
            os.write(told, struct.pack("<i", getattr(error, "errno", 0) or errno.EINVAL))
        finally:
            os._exit(127)
    os.close(told)
    answer = os.read(failure, 4)
    os.close(failure)
    if answer:
        os.waitpid(child, 0)
        number = struct.unpack("<i", answer)[0]
        raise OSError(number, os.strerror(number), argv[0])
    return child


class Output:
    """One of a process's two streams: passed on to its limit, and beyond that its last half kept."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self.descriptor = descriptor
        self.limit = 0
        self.is_open = True
        self._passed = 0
        self._tail = bytearray()
        self._skipped = 0

    def read(self) -> bytes | None:
        """What there is to pass on; None when there is nothing to read."""
        try:
            data = os.read(self.descriptor, PIECE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.is_open = False
            return None
        room = self.limit - self._passed
        self._passed += min(room, len(data))
        self._keep(data[room:])
        return data[:room]

    def _keep(self, data: bytes) -> None:
        keep = self.limit - self.limit // 2
        self._tail += data
        # Now and then, and not for every read: that would move it each time.
        if len(self._tail) > keep + _TRIM_BYTES:
            self._skipped += len(self._tail) - keep
            del self._tail[: len(self._tail) - keep]

    def rest(self) -> bytes | None:
        """How much was left out, and what came at the end; None when all was passed on. It begins anew."""
        over = max(0, len(self._tail) - (self.limit - self.limit // 2))
        told = SKIPPED.pack(self._skipped + over) + bytes(self._tail[over:]) if self._tail else None
        self._passed = self._skipped = 0
        self._tail = bytearray()
        return told


class Process:
    """A process and its streams; with `has_control` also a socket, its descriptor 3, for a harness's frames."""

    def __init__(
        self, argv: Sequence[str], group: str, environment: Mapping[str, str], *, has_control: bool = False
    ) -> None:
        self.group = group
        self.status: int | None = None
        self.control: Stream | None = None
        stdin, ours = os.pipe2(os.O_CLOEXEC)
        self.stdin: int | None = ours
        theirs = [stdin]
        self.outputs: list[Output] = []
        for number in (1, 2):
            ours, out = os.pipe2(os.O_CLOEXEC)
            theirs.append(out)
            self.outputs.append(Output(number, ours))
        if has_control:
            control, end = socket.socketpair()
            control.setblocking(False)
            theirs.append(end.detach())
            self.control = Stream(control.detach(), HARNESS_HEADER)
        for each in self._streams():
            os.set_blocking(each, False)
        # Not a second descriptor of the same file: this one does not block, and the process's own does.
        self._unread = (
            os.open(f"/proc/self/fd/{stdin}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if has_control
            else -1
        )
        try:
            self.number = spawn(argv, group, environment, theirs)
        except OSError:
            for each in self._streams():
                os.close(each)
            raise
        finally:
            for each in theirs:
                os.close(each)
        self.ending = os.pidfd_open(self.number)

    def _streams(self) -> list[int]:
        outputs = [output.descriptor for output in self.outputs]
        return outputs if self.stdin is None else [self.stdin, *outputs]

    def poll(self) -> int | None:
        """How it ended, as a wait status; None while it runs."""
        if self.status is None:
            try:
                number, status = os.waitpid(self.number, os.WNOHANG)
            except ChildProcessError:
                number, status = self.number, 0
            if number:
                self.status = status
        return self.status

    def wait(self, seconds: float) -> int | None:
        """The same, after it has ended or so long."""
        select.select([self.ending], [], [], seconds)
        return self.poll()

    def open_stdin(self) -> None:
        """A harness's input begins anew, without what it left unread: a pipe that is written to again has no end."""
        if self.stdin is None and self._unread >= 0:
            try:
                while os.read(self._unread, PIECE_BYTES):
                    pass
            except BlockingIOError:
                pass  # somebody else writes to it
            self.stdin = os.open(f"/proc/self/fd/{self._unread}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def close_stdin(self) -> None:
        """Its input ends."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        """Let go of its descriptors."""
        for each in (*self._streams(), self.ending, self._unread):
            if each >= 0:
                os.close(each)


def said_by(argv: Sequence[str], group: str, environment: Mapping[str, str]) -> str:
    """What a program that says little says."""
    process = Process(argv, group, environment)
    process.wait(30)
    said = b""
    for output in process.outputs:
        try:
            said += os.read(output.descriptor, PIECE_BYTES)
        except BlockingIOError:
            pass
    process.close()
    return said.decode("utf-8", "replace").strip()
