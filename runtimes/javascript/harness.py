"""Image: the JavaScript image under plain wasmtime-py, for the self-check and for tests.

It imports nothing of the service: its WASI is written out here, so that a mistake there cannot hide one in the image.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from runtimes.javascript.scripted import NO_SUCH_OPERATION, Operations

IMAGES = Path(__file__).resolve().parents[2] / "wasmeval" / "images" / "javascript"
FUEL = 20_000_000_000
MEMORY_BYTES = 256 << 20


class CheckError(AssertionError):
    """The image breaks a promise of the ABI or of docs/javascript.md."""


@dataclass(slots=True)
class Reply:
    """One decoded reply frame and what else the evaluation did."""

    outcome: int
    flags: int
    value: Any
    type: str
    message: str
    traceback: str
    line: int
    column: int
    stdout: str
    stderr: str
    fuel: int
    seconds: float


@dataclass(slots=True)
class Host:
    """What the image imports, for one instance.

    Without `folder` there are no files: what asks for them gets ENOSYS. With it, Wasmtime's own WASI has its `root`
    as `/`, and its files `stdin` and `stdout` are the streams. `operations` is what the evaluation is given.
    """

    entropy: Callable[[int], bytes] = os.urandom
    now_ns: Callable[[], int] = time.time_ns
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    slept_ns: int = 0
    folder: Path | None = None
    operations: Operations | None = None
    answer: bytes = b""
    memory: wasmtime.Memory | None = None
    store: wasmtime.Store | None = None

    def read(self, address: int, length: int) -> bytes:
        assert self.memory is not None and self.store is not None
        return bytes(self.memory.read(self.store, address, address + length))

    def write(self, address: int, data: bytes) -> None:
        assert self.memory is not None and self.store is not None
        self.memory.write(self.store, data, address)

    def host_call(self, address: int, length: int) -> int:
        answer = self.operations.operate(self.read(address, length)) if self.operations else NO_SUCH_OPERATION
        if isinstance(answer, int):
            return answer
        self.answer = answer
        return len(answer)

    def host_read(self, address: int) -> None:
        self.write(address, self.answer)

    def clock_time_get(self, clock: int, precision: int, result: int) -> int:
        passed_ns = self.slept_ns + (self.operations.now_ns if self.operations else 0)
        self.write(result, struct.pack("<Q", self.now_ns() + passed_ns))
        return 0

    def random_get(self, buffer: int, length: int) -> int:
        self.write(buffer, self.entropy(length))
        return 0

    def fd_write(self, descriptor: int, vectors: int, count: int, result: int) -> int:
        if descriptor not in (1, 2):
            return 8  # EBADF
        total = 0
        for i in range(count):
            address, length = struct.unpack("<II", self.read(vectors + 8 * i, 8))
            (self.stdout if descriptor == 1 else self.stderr).extend(self.read(address, length))
            total += length
        self.write(result, struct.pack("<I", total))
        return 0

    def poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Clock subscriptions alone; time passes at once."""
        self.slept_ns += struct.unpack("<Q", self.read(subscriptions + 24, 8))[0]
        self.write(events, self.read(subscriptions, 8) + bytes(24))
        self.write(result, struct.pack("<I", 1))
        return 0


class Image:
    """The compiled image; every `evaluate` is a fresh instance."""

    def __init__(self, wasm: bytes, *, max_wasm_stack: int, warm_up: str, fuel: bool = True) -> None:
        config = wasmtime.Config()
        config.consume_fuel = fuel
        ffi.wasmtime_config_async_stack_size_set(config.ptr(), max_wasm_stack + (1 << 20))
        config.max_wasm_stack = max_wasm_stack
        self.fuel = fuel
        self.engine = wasmtime.Engine(config)
        self.module = wasmtime.Module(self.engine, wasm)
        self.warm_up = warm_up

    def instance(self, host: Host, memory_bytes: int = MEMORY_BYTES) -> dict[str, Any]:
        linker = wasmtime.Linker(self.engine)
        store = wasmtime.Store(self.engine)
        if host.folder:
            linker.allow_shadowing = True
            linker.define_wasi()
            store.set_wasi(_wasi_of(host.folder))
        for wanted in self.module.imports:
            assert wanted.name is not None and isinstance(wanted.type, wasmtime.FuncType)
            if function := _host_function(host, wanted.name):
                linker.define_func(wanted.module, wanted.name, wanted.type, function)
        if self.fuel:
            store.set_fuel(FUEL)
        store.set_limits(memory_size=memory_bytes, memories=1)
        exports = linker.instantiate(store, self.module).exports(store)
        host.store, memory = store, exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        host.memory = memory
        return {"store": store, "memory": memory, "exports": exports}

    def evaluate(
        self,
        code: str | bytes,
        inputs: str | dict[str, Any] | None = None,
        *,
        value_limit: int = 1 << 20,
        host: Host | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> Reply:
        host = host or Host()
        instance = self.instance(host, memory_bytes)
        if self.warm_up:
            call(instance, self.warm_up.encode(), b"", 1024)
        before = instance["store"].get_fuel() if self.fuel else 0
        given = inputs if isinstance(inputs, str) else json.dumps(inputs) if inputs else ""
        start = time.perf_counter()
        text = code.encode() if isinstance(code, str) else code
        frame = call(instance, text, given.encode(), value_limit, has_context=host.operations is not None)
        seconds = time.perf_counter() - start
        used = before - instance["store"].get_fuel() if self.fuel else 0
        if host.folder:
            host.stdout = bytearray((host.folder / "stdout").read_bytes())
        return decode(frame, host, used, seconds)


def file_host(folder: Path, *, stdin: bytes = b"", operations: Operations | None = None) -> Host:
    """A host with files: `folder`, which is empty, gets a `root` with a `/workspace`."""
    (folder / "root" / "workspace").mkdir(parents=True)
    (folder / "stdin").write_bytes(stdin)
    return Host(folder=folder, operations=operations)


def _wasi_of(folder: Path) -> wasmtime.WasiConfig:
    wasi = wasmtime.WasiConfig()
    wasi.preopen_dir(str(folder / "root"), "/")
    wasi.stdin_file = folder / "stdin"
    wasi.stdout_file = folder / "stdout"
    return wasi


def _host_function(host: Host, name: str) -> Callable[..., int | None] | None:
    """Ours for an import; None leaves it to Wasmtime's WASI."""
    match name:
        case "host_call" | "host_read" | "clock_time_get" | "random_get" | "poll_oneoff":
            function: Callable[..., int | None] = getattr(host, name)
            return function
        case "fd_write" if not host.folder:
            return host.fd_write
    return None if host.folder else lambda *arguments: 52  # ENOSYS


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def request(
    code: bytes, inputs: bytes = b"", value_limit: int = 1 << 20, *, has_context: bool = False
) -> bytes:
    """A request frame of the ABI."""
    return struct.pack("<HHIII", 1, has_context, value_limit, len(code), len(inputs)) + code + inputs


def call(
    instance: dict[str, Any], code: bytes, inputs: bytes, value_limit: int, *, has_context: bool = False
) -> bytes:
    """One request through the exports: the bytes of the reply frame."""
    store, memory, exports = instance["store"], instance["memory"], instance["exports"]
    frame = request(code, inputs, value_limit, has_context=has_context)
    address = exports["wasmeval_reserve"](store, len(frame)) & 0xFFFFFFFF
    if not address:
        raise CheckError("wasmeval_reserve gave no buffer")
    memory.write(store, frame, address)
    packed = exports["wasmeval_evaluate"](store, len(frame)) & 0xFFFFFFFFFFFFFFFF
    address, length = packed >> 32, packed & 0xFFFFFFFF
    return bytes(memory.read(store, address, address + length))


def decode(frame: bytes, host: Host, fuel: int, seconds: float) -> Reply:
    outcome, flags, *lengths, line, column = struct.unpack("<8I", frame[:32])
    if 32 + sum(lengths) != len(frame):
        raise CheckError(f"a reply of {len(frame)} bytes whose parts have {lengths}")
    parts, at = [], 32
    for length in lengths:
        parts.append(frame[at : at + length].decode())
        at += length
    return Reply(
        outcome=outcome,
        flags=flags,
        value=json.loads(parts[0]) if parts[0] else None,
        type=parts[1],
        message=parts[2],
        traceback=parts[3],
        line=line,
        column=column,
        stdout=host.stdout.decode(),
        stderr=host.stderr.decode(),
        fuel=fuel,
        seconds=seconds,
    )


def expect(condition: bool, what: str) -> None:
    """Raises `CheckError` unless the condition holds."""
    if not condition:
        raise CheckError(what)
