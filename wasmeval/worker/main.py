"""The worker's loop: frames in, guests a slice at a time, frames out.

Started by the pool as a fresh interpreter with an empty environment; the socket is its only way to anyone. The
first frame says which compiled runtimes to load; then the jail closes, READY goes out, and only then does guest
code run.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, cast

from wasmeval.errors import WasmevalError
from wasmeval.heap import keep_freed_memory
from wasmeval.limits import MIB
from wasmeval.model import Result
from wasmeval.runtimes import Runtime
from wasmeval.wasm.engine import Engine, EngineSettings
from wasmeval.wasm.host import Host
from wasmeval.wasm.instance import Image, Instance
from wasmeval.wasm.library import Library
from wasmeval.wasm.pages import Pagemap
from wasmeval.wasm.progress import Progress
from wasmeval.wasm.scheduler import Scheduler, SchedulerSettings
from wasmeval.worker import exchanges, frames, jail, orders, residents
from wasmeval.worker.frames import Kind

_RECEIVE_BYTES = 1 << 16
_FLUSH_SECONDS = 0.0005
_NICENESS = 5
"""Guests yield the CPU to the front process, which answers everybody."""
_SLOTS_BEYOND_CONCURRENCY = 32
_FULL_BYTES = 1 << 22
"""An outbox so full is sent before more is put into it."""


class Worker:
    """One worker: its channel, its scheduler, the results not yet sent."""

    def __init__(self, channel: socket.socket, page: mmap.mmap) -> None:
        self._channel = channel
        self._decoder = frames.Decoder()
        self._outbox = bytearray()
        self._outbox_since = 0.0
        self._poller = select.poll()
        self._poller.register(channel.fileno(), select.POLLIN)
        self._names: list[str] = []
        self._page = page
        self._scheduler: Scheduler | None = None
        self._files: dict[int, dict[str, bytearray]] = {}
        """Of evaluations that are still to come."""
        self._states: dict[int, list[memoryview]] = {}
        """Of sessions that are still to come."""

    def run(self) -> None:
        """Serve until the channel closes."""
        while True:
            scheduler = self._scheduler
            timeout = scheduler.timeout() if scheduler else None
            if self._outbox and (
                timeout or timeout is None or monotonic() - self._outbox_since > _FLUSH_SECONDS
            ):
                self._flush()
            if self._poller.poll(None if timeout is None else 1000 * timeout + (0.999 if timeout else 0.0)):
                if room := self._decoder.room:
                    size = self._channel.recv_into(room)
                    arrived = self._decoder.filled(size)
                else:
                    data = self._channel.recv(_RECEIVE_BYTES)
                    size = len(data)
                    arrived = self._decoder.feed(data)
                if not size:
                    return
                for kind, body in arrived:
                    self._handle(kind, body)
            if self._scheduler:
                self._scheduler.step()
                if self._outbox and not self._scheduler.pressing:
                    self._flush()

    def _handle(self, kind: int, body: bytes) -> None:
        scheduler = self._scheduler
        if kind == Kind.EVALUATE and scheduler:
            order = orders.decode_order(body, self._names)
            if order.grants and (files := self._files.pop(order.number, None)):
                order = order._replace(grants=replace(order.grants, files=cast(dict[str, bytes], files)))
            scheduler.submit(order)
        elif kind == Kind.ANSWER and scheduler:
            scheduler.answer(*exchanges.decode_answer(body))
        elif kind == Kind.INPUT and scheduler:
            scheduler.feed(*exchanges.decode_input(body))
        elif kind == Kind.FILE and scheduler:
            number, path, content = orders.decode_file(body)
            self._files.setdefault(number, {}).setdefault(path, bytearray()).extend(content)
        elif kind == Kind.CANCEL and scheduler:
            number = frames.decode_number(body)
            self._files.pop(number, None)
            scheduler.cancel(number)
        elif kind == Kind.STATE and scheduler:
            number, piece = residents.decode_piece(body)
            self._states.setdefault(number, []).append(piece)
        elif kind == Kind.OPEN_SESSION and scheduler:
            number, runtime = residents.decode_open(body, self._names)
            scheduler.open_session(number, runtime, bytearray().join(self._states.pop(number, ())))
        elif kind == Kind.FORK_SESSION and scheduler:
            scheduler.fork_session(*residents.decode_pair(body))
        elif kind == Kind.MARK_SESSION and scheduler:
            scheduler.mark_session(frames.decode_number(body))
        elif kind == Kind.REVERT_SESSION and scheduler:
            scheduler.revert_session(*residents.decode_pair(body))
        elif kind == Kind.TELL_STATE and scheduler:
            scheduler.tell_state(*residents.decode_pair(body))
        elif kind == Kind.CLOSE_SESSION and scheduler:
            scheduler.close_session(frames.decode_number(body))
        elif kind == Kind.CONFIGURE and not self._scheduler:
            self._configure(json.loads(body))
        else:
            raise frames.MalformedFrame(f"kind {kind}")

    def _configure(self, configuration: dict[str, Any]) -> None:
        images = load(configuration)
        self._names = list(images)
        settings = SchedulerSettings(
            configuration["slice_seconds"], configuration["ready"], configuration["memory_bytes"]
        )
        for image in images.values():
            # Proves that the image works, and maps all of Wasmtime's lazy state before the jail closes.
            Instance(image).close()
        # No file can be opened once the jail is closed.
        pagemap = Pagemap()
        os.nice(_NICENESS)
        layers = jail.enter()
        missing = [layer for layer in layers if not layer.ok]
        if missing and configuration["require_jail"]:
            raise WasmevalError(
                "the jail is required, and this is missing: "
                + "; ".join(f"{x.name}: {x.detail}" for x in missing)
            )
        self._scheduler = Scheduler(images, self, settings, Progress.from_buffer(self._page), pagemap)
        answer = {"jail": [[layer.name, layer.ok, layer.detail] for layer in layers]}
        self._send(frames.encode(Kind.READY, json.dumps(answer).encode()))

    # --- Outlet --------------------------------------------------------------------------------------------------

    def result(self, number: int, result: Result) -> None:
        """See task.Outlet."""
        if result.array is None:
            self._put(frames.encode_result(number, result))
        else:
            self._flush()
            self._send_parts(list(frames.result_parts(number, result)))

    def call(self, number: int, call: int, operation: int, body: bytes) -> None:
        """See task.Outlet."""
        self._put(exchanges.encode_call(number, call, operation, body))

    def output(self, number: int, stream: int, data: bytes) -> None:
        """See task.Outlet."""
        self._put(exchanges.encode_output(number, stream, data))

    def file(self, number: int, path: str, data: bytes, is_last: bool) -> None:
        """See task.Outlet."""
        self._put(exchanges.encode_output_file(number, path, data, is_last))
        if len(self._outbox) > _FULL_BYTES:
            self._flush()

    def transcript(self, number: int, data: bytes) -> None:
        """See task.Outlet."""
        self._put(exchanges.encode_transcript(number, data))
        if len(self._outbox) > _FULL_BYTES:
            self._flush()

    def state(self, number: int, pieces: Iterable[bytes | memoryview]) -> None:
        """See task.Outlet."""
        self._flush()
        for parts in residents.encode_state(number, pieces):
            self._send_parts(parts)

    # --- inside --------------------------------------------------------------------------------------------------

    def _put(self, frame: bytes) -> None:
        if not self._outbox:
            self._outbox_since = monotonic()
        self._outbox += frame

    def _flush(self) -> None:
        data, self._outbox = self._outbox, bytearray()
        self._send(data)

    def _send(self, data: bytes | bytearray) -> None:
        self._channel.sendall(data)

    def _send_parts(self, parts: list[bytes | memoryview]) -> None:
        sent = self._channel.sendmsg(parts)
        for part in parts:
            if sent < len(part):
                self._channel.sendall(memoryview(part)[sent:])
            sent = max(0, sent - len(part))


def load(configuration: dict[str, Any]) -> dict[str, Image]:
    """The configured runtimes, each loaded into one engine, by name."""
    runtimes = [(Runtime.load(Path(entry["folder"])), entry) for entry in configuration["runtimes"]]
    engine = Engine(
        EngineSettings(
            slots=configuration["concurrency"]
            + configuration["sessions"]
            + configuration["ready"] * len(runtimes)
            + _SLOTS_BEYOND_CONCURRENCY,
            max_memory_bytes=configuration["max_memory_bytes"],
            max_wasm_stack=max(4 * MIB, *(runtime.max_wasm_stack for runtime, _ in runtimes)),
        )
    )
    assert engine.address is not None
    host = Host(engine.address)
    images = {}
    for runtime, entry in runtimes:
        library = Library(Path(entry["library"]), runtime.library_mount) if entry["library"] else Library()
        module = engine.load(Path(entry["module"]))
        slice_ms = 1000 * configuration["slice_seconds"]
        images[runtime.name] = Image.load(runtime, engine, host, module.address, library, slice_ms)
    return images


def main(channel_fd: int, page_fd: int) -> None:
    """Run a worker on the two descriptors it inherited."""
    # Its pauses would be some evaluation's; what we allocate has no cycles. The pool's boot line does this even before
    # the imports.
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The terminal's Ctrl-C is for the parent to act on.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep_freed_memory()
    channel = socket.socket(fileno=channel_fd)
    page = mmap.mmap(page_fd, mmap.PAGESIZE)
    os.close(page_fd)
    try:
        Worker(channel, page).run()
    except (BrokenPipeError, ConnectionResetError):
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            channel.sendall(frames.encode(Kind.FAILED, f"{type(error).__name__}: {error}".encode()))
        raise


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
