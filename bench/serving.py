"""Serving: a service under measurement, and the calls that measure it."""

from __future__ import annotations

import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from bench import machine
from bench.companions.serving import ECHO, EMPTY, RETURN
from wasmeval import wire
from wasmeval.client import connection
from wasmeval.limits import Limits
from wasmeval.model import Request

_LISTENING = re.compile(rb"listening on (\S+)")
_START_SECONDS = 60.0
_END_SECONDS = 15.0


@dataclass(slots=True)
class Serving:
    """A service of `workers` workers in processes of its own, and a channel to it."""

    workers: int
    target: str
    pid: int
    channel: grpc.Channel

    def evaluating(
        self, code: str, language: str, limits: Limits | None = None
    ) -> tuple[grpc.UnaryUnaryMultiCallable[bytes, bytes], bytes]:
        """The bare call and its message, for who wants nothing but the RPC."""
        message = wire.encode_request(Request(code, language, {}, limits)).SerializeToString()
        return self.channel.unary_unary(wire.EVALUATE), message

    def empty(self) -> Callable[[], bytes]:
        """The empty call: what any unary call of this server takes."""
        call: Any = self.channel.unary_unary(EMPTY)
        return lambda: call(b"")

    def returned(self, message: bytes) -> Callable[[], bytes]:
        """The call whose message comes back: what any unary call with as many bytes takes."""
        call: Any = self.channel.unary_unary(RETURN)
        return lambda: call(message)

    def echo(self) -> Callable[[Any], Any]:
        """The stream whose every message comes back."""
        return self.channel.stream_stream(ECHO)

    def bare(self, language: str, code: str = "1+1") -> Callable[[], bytes]:
        """One evaluation by the bare call, its reply left as bytes. Checked once to be `ok`."""
        call, message = self.evaluating(code, language)
        wire.decode_reply(call(message)).raise_for_status()
        return lambda: call(message)

    def cpu_seconds(self) -> float:
        """CPU time that the service has spent so far: front and workers."""
        return machine.cpu_seconds([self.pid, *machine.children(self.pid)])


@contextmanager
def serving(workers: int, reachable: str = "") -> Iterator[Serving]:
    """A running service; stopped in the end, whatever happens. `reachable` is where guests may send HTTP requests."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.companions.serving", str(workers), *([reachable] if reachable else [])],
        cwd=machine.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        target = listening(process)
        # Nobody reads what it says later; it must not stand still for that.
        threading.Thread(target=_drain, args=(process,), daemon=True).start()
        # Over a channel like the client's own.
        with grpc.insecure_channel(*connection(target, None)) as channel:
            yield Serving(workers, target, process.pid, channel)
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin
        process.stdin.close()


def listening(process: subprocess.Popen[bytes]) -> str:
    """Where it listens, once it says so. Raises RuntimeError when it does not."""
    assert process.stdout
    said = b""
    end = time.monotonic() + _START_SECONDS
    while not (match := _LISTENING.search(said)) or b"\n" not in said[match.start() :]:
        left = end - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise RuntimeError(f"the service was not ready within {_START_SECONDS:g} s")
        data = process.stdout.read1(65536)  # type: ignore[attr-defined]
        if not data:
            raise RuntimeError(f"the service ended: {said.decode('utf-8', 'replace').strip()[-500:]}")
        said += data
    return match[1].decode()


def _drain(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout
    with process.stdout:
        while process.stdout.read1(65536):  # type: ignore[attr-defined]
            pass
