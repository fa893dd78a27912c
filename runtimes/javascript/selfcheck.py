"""Self-check of the JavaScript image: what the guest ABI promises, under plain wasmtime-py.

The last stage of the build, and `python -m runtimes.javascript.selfcheck` at any time. It imports nothing of the
service: its WASI is written out here, so that a mistake there cannot hide one in the image.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from runtimes.snapshot import ABI_EXPORTS, check_copy_on_write

IMAGES = Path(__file__).resolve().parents[2] / "wasmeval" / "images" / "javascript"
FUEL = 20_000_000_000
MEMORY_BYTES = 256 << 20
HOST_PAGE_BYTES = 4096


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
    """The WASI functions that the image imports, for one instance."""

    entropy: Callable[[int], bytes] = os.urandom
    now_ns: Callable[[], int] = time.time_ns
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    slept_ns: int = 0
    memory: wasmtime.Memory | None = None
    store: wasmtime.Store | None = None

    def read(self, address: int, length: int) -> bytes:
        assert self.memory is not None and self.store is not None
        return bytes(self.memory.read(self.store, address, address + length))

    def write(self, address: int, data: bytes) -> None:
        assert self.memory is not None and self.store is not None
        self.memory.write(self.store, data, address)

    def clock_time_get(self, clock: int, precision: int, result: int) -> int:
        self.write(result, struct.pack("<Q", self.now_ns() + self.slept_ns))
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
        for wanted in self.module.imports:
            assert wanted.name is not None and isinstance(wanted.type, wasmtime.FuncType)
            linker.define_func(wanted.module, wanted.name, wanted.type, _host_function(host, wanted.name))
        store = wasmtime.Store(self.engine)
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
        host.stdout.clear()
        before = instance["store"].get_fuel() if self.fuel else 0
        given = inputs if isinstance(inputs, str) else json.dumps(inputs) if inputs else ""
        start = time.perf_counter()
        frame = call(instance, code.encode() if isinstance(code, str) else code, given.encode(), value_limit)
        seconds = time.perf_counter() - start
        used = before - instance["store"].get_fuel() if self.fuel else 0
        return decode(frame, host, used, seconds)


def _host_function(host: Host, name: str) -> Callable[..., int | None]:
    match name:
        case "host_call":
            return lambda pointer, length: -1
        case "host_read":
            return lambda pointer: None
        case "clock_time_get" | "random_get" | "fd_write" | "poll_oneoff":
            function: Callable[..., int] = getattr(host, name)
            return function
    return lambda *arguments: 52  # ENOSYS


def call(instance: dict[str, Any], code: bytes, inputs: bytes, value_limit: int) -> bytes:
    """One request through the exports: the bytes of the reply frame."""
    store, memory, exports = instance["store"], instance["memory"], instance["exports"]
    request = struct.pack("<HHIII", 1, 0, value_limit, len(code), len(inputs)) + code + inputs
    address = exports["wasmeval_reserve"](store, len(request)) & 0xFFFFFFFF
    if not address:
        raise CheckError("wasmeval_reserve gave no buffer")
    memory.write(store, request, address)
    packed = exports["wasmeval_evaluate"](store, len(request)) & 0xFFFFFFFFFFFFFFFF
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
    value = json.loads(parts[0]) if parts[0] else None
    stdout, stderr = host.stdout.decode(), host.stderr.decode()
    return Reply(outcome, flags, value, *parts[1:], line, column, stdout, stderr, fuel, seconds)
