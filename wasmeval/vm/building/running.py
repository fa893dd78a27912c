"""Children of a build: logged, followed line by line, and ended together with the build."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from wasmeval.errors import SetupError
from wasmeval.vm.building import tools

# mmdebstrap removes its folder of some hundred MB when it is asked to end.
_SECONDS_TO_END = 20.0
_POLL_SECONDS = 0.2
# However this process ends. Source: prctl(2), PR_SET_PDEATHSIG; it is the thread that waits for the child that counts.
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "TERM")
_LONGEST_LINE = 8192


class Ended(Exception):
    """The build was given up while a child ran; the child is gone."""


class Runner:
    """Runs the programs of one build, and writes all they say into its log.

    `give_up` ends every child, from any thread: the calls that wait for them raise Ended. `tick` is called about five
    times a second while one runs.
    """

    def __init__(self, log: Path, tick: Callable[[], None] = lambda: None) -> None:
        self.log = log
        self._tick = tick
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._given_up = False

    def output(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        most: int = 64 << 20,
        seconds: float = 3600.0,
    ) -> str:
        """What `argv` prints on standard output. Raises SetupError when it fails, with the last it said, when it
        takes more than `seconds`, or prints more than `most` bytes."""
        process = self._start(argv, cwd=cwd, environment=environment)
        said: list[bytes] = []
        stdout, stderr = process.stdout, process.stderr
        assert stdout is not None and stderr is not None
        reader = threading.Thread(target=_read_bounded, args=(stdout, most, said))
        reader.start()
        late = threading.Timer(seconds, _end, (process, signal.SIGTERM))
        late.start()
        try:
            self._follow(process, stderr, lambda line: None, argv)
        finally:
            late.cancel()
            reader.join()
        if len(said[0]) > most:
            raise SetupError(f"{Path(argv[0]).name} printed more than {most} bytes")
        return said[0].decode("utf-8", "replace")

    def follow(
        self,
        argv: Sequence[str],
        heard: Callable[[str], None],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Run `argv`; `heard` gets each line of what it says. Raises SetupError when it fails."""
        process = self._start(
            argv,
            cwd=cwd,
            environment=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            descriptors=descriptors,
        )
        assert process.stdout is not None
        self._follow(process, process.stdout, heard, argv)

    def give_up(self) -> None:
        """End every child now, and let none start any more."""
        with self._lock:
            self._given_up = True
            running = list(self._running)
        for process in running:
            _end(process, signal.SIGTERM)

    def _start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None,
        environment: Mapping[str, str] | None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        descriptors: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        program = tools.find(argv[0])
        if not program:
            tools.require([argv[0]])
        self._write(f"$ {' '.join(argv)}\n".encode("utf-8", "replace"))
        with self._lock:
            if self._given_up:
                raise Ended
            process = subprocess.Popen(
                [*_ENDS_WITH_US, program, *argv[1:]],
                cwd=cwd or "/",
                env={**tools.environment(), **(environment or {})},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=descriptors,
                # A Ctrl-C on the terminal is for us, who end the group in order.
                process_group=0,
            )
            self._running.add(process)
        return process

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        stream: IO[bytes],
        heard: Callable[[str], None],
        argv: Sequence[str],
    ) -> None:
        """Read `stream` to its end, then the status; whatever is raised meanwhile ends the process first."""
        tail: list[str] = []
        reader = threading.Thread(target=self._read, args=(stream, heard, tail))
        try:
            reader.start()
            while reader.is_alive():
                reader.join(_POLL_SECONDS)
                self._tick()
            status = process.wait()
        except BaseException:
            _end(process, signal.SIGTERM)
            reader.join(1.0)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
                given_up = self._given_up
            stream.close()
        if given_up:
            raise Ended
        if status != 0:
            how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
            detail = f": {tail[-1]}" if tail else ""
            raise SetupError(f"{_named(argv)} {how}{detail}")

    def _read(self, stream: IO[bytes], heard: Callable[[str], None], tail: list[str]) -> None:
        with contextlib.suppress(ValueError, OSError):
            while line := stream.readline(_LONGEST_LINE):
                self._write(line if line.endswith(b"\n") else line + b"\n")
                if text := line.decode("utf-8", "replace").strip():
                    tail[:] = [*tail[-2:], text]
                    heard(text)

    def _write(self, data: bytes) -> None:
        # Appended whole by the kernel, whichever thread writes.
        with open(self.log, "ab", buffering=0) as file:
            file.write(data)


def _named(argv: Sequence[str]) -> str:
    """The program that `argv` is about, whatever it is wrapped in."""
    program = argv[argv.index("--") + 1] if argv[0] == "unshare" and "--" in argv else argv[0]
    return Path(program).name


def _read_bounded(stream: IO[bytes], most: int, said: list[bytes]) -> None:
    """Read `stream` into `said`; one that goes on beyond `most` bytes is closed, and its writer ends of it."""
    with stream:
        said.append(stream.read(most + 1))


def _end(process: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """End the group of `process`: asked first, killed when it does not listen."""
    for number in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
            break
