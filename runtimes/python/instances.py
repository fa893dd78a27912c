"""Instances: the Python image under plain wasmtime-py, and what one evaluation of it replies."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from runtimes.python.scripted import ScriptedHost

FUEL = 60_000_000_000
MEMORY_BYTES = 256 << 20
VALUE, RAISED, TOO_LARGE, UNSUPPORTED, MEMORY = range(5)
NOT_JSON, HAS_ARRAY, IS_ELSEWHERE = 1, 2, 4


class CheckError(AssertionError):
    """The image breaks a promise of the ABI or of docs/python.md."""


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
    array: tuple[str, tuple[int, ...], bytes] | None = None
    """Its dtype, shape and elements, when the value is one."""


class Instance:
    """One fresh instance of the image."""

    def __init__(
        self,
        image: Image,
        memory_bytes: int = MEMORY_BYTES,
        fuel: int = FUEL,
        host: ScriptedHost | None = None,
        folder: Path | None = None,
    ) -> None:
        """`host` answers host operations; `folder` is the guest's `/workspace` and `/tmp`."""
        self.host, self.answer = host, b""
        self.output = {1: bytearray(), 2: bytearray()}
        self.store = wasmtime.Store(image.engine)
        wasi = wasmtime.WasiConfig()
        wasi.preopen_dir(str(image.root), "/", False)
        self.spoken: dict[int, Path] = {}
        if folder:
            # Wasmtime writes the output itself where it writes files.
            for name in ("/workspace", "/tmp"):
                wasi.preopen_dir(str(folder), name, True)
            self.spoken = {1: Path(f"{folder}.out"), 2: Path(f"{folder}.err")}
            wasi.stdout_file, wasi.stderr_file = map(str, self.spoken.values())
        self.store.set_wasi(wasi)
        self.store.set_fuel(fuel)
        self.store.set_limits(memory_size=memory_bytes, memories=1)
        linker = wasmtime.Linker(image.engine)
        linker.allow_shadowing = True
        linker.define_wasi()
        i32 = wasmtime.ValType.i32
        for module, name, inputs, results, function in (
            *([] if folder else [("wasi_snapshot_preview1", "fd_write", 4, 1, self._fd_write)]),
            ("wasmeval", "host_call", 2, 1, self._host_call),
            ("wasmeval", "host_read", 1, 0, self._host_read),
        ):
            kind = wasmtime.FuncType([i32()] * inputs, [i32()] * results)
            linker.define_func(module, name, kind, function)
        self.exports = linker.instantiate(self.store, image.module).exports(self.store)
        memory = self.exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self.memory = memory

    def call(self, name: str, argument: int) -> int:
        function = self.exports[name]
        assert isinstance(function, wasmtime.Func)
        return int(function(self.store, argument))

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.memory.read(self.store, address, address + length))

    def all_memory(self) -> bytes:
        return self.read(0, self.memory.data_len(self.store))

    def evaluate(
        self,
        code: str | bytes,
        inputs: str | dict[str, Any] | None = None,
        value_limit: int = 1 << 20,
        arrays: bytes = b"",
    ) -> Reply:
        """`arrays` are records of them."""
        for stream in self.output.values():
            stream.clear()
        source = code.encode() if isinstance(code, str) else code
        given = (inputs if isinstance(inputs, str) else json.dumps(inputs) if inputs else "").encode()
        flags = int(self.host is not None) | 8 * bool(arrays)
        frame = struct.pack("<HHIII", 1, flags, value_limit, len(source), len(given)) + source + given
        if arrays:
            frame += bytes(-len(frame) % 16) + arrays
        address = self.call("wasmeval_reserve", len(frame)) & 0xFFFF_FFFF
        self.memory.write(self.store, frame, address)
        before = self.store.get_fuel()
        result = self.call("wasmeval_evaluate", len(frame)) & (1 << 64) - 1
        return self._decode(self.read(result >> 32, result & 0xFFFF_FFFF), before - self.store.get_fuel())

    def _decode(self, frame: bytes, fuel: int) -> Reply:
        outcome, flags, *lengths, line, column = struct.unpack("<8I", frame[:32])
        parts, at, array = [], 32, None
        for length, most in zip(lengths, (1 << 32, 256, 8192, 32768), strict=True):
            require(length <= most, f"{length} bytes where {most} are the most")
            parts.append(frame[at : at + length].decode())
            at += length
        if flags & HAS_ARRAY:
            array, at = self._array(frame, at)
        require(at == len(frame), f"a reply of {len(frame)} bytes says it has {at}")
        require((outcome == VALUE) == bool(parts[0]), f"outcome {outcome} with the value {parts[0][:40]!r}")
        require(outcome != VALUE or parts[1:] == ["", "", ""], "an error beside a value")
        value = json.loads(parts[0]) if parts[0] else None
        for number, path in self.spoken.items():
            self.output[number] += path.read_bytes()
        out, err = (bytes(self.output[n]).decode() for n in (1, 2))
        kind, message, traceback = parts[1:]
        return Reply(outcome, flags, value, kind, message, traceback, line, column, out, err, fuel, array)

    def _array(self, frame: bytes, at: int) -> tuple[tuple[str, tuple[int, ...], bytes], int]:
        """What the record at `at` says, and where it ends: behind the address of its elements."""
        name, dtype, dimensions, length = struct.unpack_from("<4I", frame, at)
        shape = struct.unpack_from(f"<{dimensions}Q", frame, at + 16)
        words = at + 16 + 8 * dimensions
        start = words + dtype + -(words + dtype - at) % 16
        require(name == 0, "an array of a reply has a name")
        (address,) = struct.unpack_from("<I", frame, start)
        text = frame[words : words + dtype].decode()
        return (text, shape, self.read(address, length)), start + 4

    def _host_call(self, pointer: int, length: int) -> int:
        answer = self.host.answer(self.read(pointer, length)) if self.host else -1
        if isinstance(answer, int):
            return answer
        self.answer = answer
        return len(answer)

    def _host_read(self, pointer: int) -> None:
        self.memory.write(self.store, self.answer, pointer)

    def _fd_write(self, descriptor: int, vectors: int, count: int, result: int) -> int:
        total = 0
        for i in range(count):
            address, length = struct.unpack("<II", self.read(vectors + 8 * i, 8))
            self.output[descriptor] += self.read(address, length)
            total += length
        self.memory.write(self.store, struct.pack("<I", total), result)
        return 0


class Image:
    """The compiled image; every `evaluate` is a fresh instance that has run the warm-up snippet."""

    def __init__(self, wasm: bytes, root: Path, max_wasm_stack: int) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        ffi.wasmtime_config_async_stack_size_set(config.ptr(), max_wasm_stack + (1 << 20))
        config.max_wasm_stack = max_wasm_stack
        self.engine = wasmtime.Engine(config)
        self.module = wasmtime.Module(self.engine, wasm)
        self.root = root

    def evaluate(
        self, code: str | bytes, inputs: str | dict[str, Any] | None = None, **options: Any
    ) -> Reply:
        value_limit, arrays = options.pop("value_limit", 1 << 20), options.pop("arrays", b"")
        instance = Instance(self, **options)
        instance.evaluate("1+1")
        try:
            return instance.evaluate(code, inputs, value_limit, arrays)
        finally:
            instance.store.close()


def require(condition: bool, message: str) -> None:
    if not condition:
        raise CheckError(message)


def same(value: Any, wanted: Any) -> bool:
    if isinstance(value, float) and isinstance(wanted, float):
        return value == wanted or (math.isnan(value) and math.isnan(wanted))
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(same, value, wanted))
    return type(value) is type(wanted) and value == wanted
