"""Snapshot: the memory and globals of an initialised instance, made the initial ones of its module.

    with Guest(raw_wasm) as guest:          # fixed clock and entropy: the same bytes every time
        guest.call("_initialize")
        guest.call("boot")
        image = bake(raw_wasm, guest.capture(), keep=ABI_EXPORTS)
    check_copy_on_write(image)

The format is read and written here, section by section; only what a snapshot changes is decoded.
Source: https://webassembly.github.io/spec/core/binary/
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import wasmtime
from wasmtime import _ffi as ffi

from runtimes.files import Files

ABI_EXPORTS = ("memory", "wasmeval_evaluate", "wasmeval_reserve")

WASM_PAGE_BYTES = 65_536
HOST_PAGE_BYTES = 4_096

# Wasmtime maps an image copy-on-write when it is at most this large, or at least half of its range is data.
# Source: wasmtime, crates/environ/src/module.rs, `try_static_init` (MEMORY_IMAGE_SIZE_LIMIT, sparse check).
COPY_ON_WRITE_BYTES = 16 << 20

# 2024-01-01T00:00:00Z. Any instant would do; nothing of it may be seen after the snapshot.
BUILD_CLOCK_NS = 1_704_067_200_000_000_000

_MAGIC = b"\0asm\x01\0\0\0"
_CUSTOM, _IMPORT, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START, _DATA, _DATA_COUNT = 0, 2, 4, 5, 6, 7, 8, 11, 12
_EXTERN_TABLE, _EXTERN_GLOBAL = 1, 3
_I32, _I64, _F32, _F64 = 0x7F, 0x7E, 0x7D, 0x7C
_END = 0x0B
_GLOBAL_EXPORT, _TABLE_EXPORT = "snapshot.global.", "snapshot.table."
_WASI = "wasi_snapshot_preview1"
_ENOTSUP = 58


class SnapshotError(Exception):
    """The module, or the state it is in, cannot be made a snapshot of; the message says what is in the way."""


# ---- the binary format -----------------------------------------------------------------------------------------


class Reader:
    """Reads the primitive encodings from a section's bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise SnapshotError(f"{count} bytes wanted at {self.at}, {len(taken)} there")
        self.at += count
        return taken

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << shift) if byte & 0x40 else value

    def name(self) -> str:
        return self.take(self.unsigned()).decode()

    def limits(self) -> tuple[int, int, int | None]:
        """Flags, minimum, maximum."""
        flags = self.byte()
        if flags & ~0b101:
            raise SnapshotError(
                f"memory or table limits with flags {flags:#x}: shared memory has no snapshot"
            )
        return flags, self.unsigned(), self.unsigned() if flags & 1 else None

    def constant(self) -> bytes:
        """A constant expression with its end, as it stands."""
        start = self.at
        while (opcode := self.byte()) != _END:
            if opcode in (0x41, 0x42):  # i32.const, i64.const
                self.signed()
            elif opcode in (0x23, 0xD2, 0xD0):  # global.get, ref.func, ref.null
                self.unsigned()
            elif opcode in (0x43, 0x44):  # f32.const, f64.const
                self.take(4 if opcode == 0x43 else 8)
            else:
                raise SnapshotError(f"opcode {opcode:#x} in a constant expression")
        return self.data[start : self.at]


def unsigned_leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed_leb(value: int) -> bytes:
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def _vector(items: Sequence[bytes]) -> bytes:
    return unsigned_leb(len(items)) + b"".join(items)


def _encode_name(name: str) -> bytes:
    return unsigned_leb(len(name.encode())) + name.encode()


@dataclass(frozen=True, slots=True)
class Export:
    name: str
    kind: int
    index: int

    def encode(self) -> bytes:
        return _encode_name(self.name) + bytes([self.kind]) + unsigned_leb(self.index)


@dataclass(frozen=True, slots=True)
class GlobalVariable:
    value_type: int
    mutable: bool
    initial: bytes

    def encode(self) -> bytes:
        return bytes([self.value_type, self.mutable]) + self.initial

    def holding(self, value: int | float) -> GlobalVariable:
        """The same variable with another initial value."""
        match self.value_type:
            case 0x7F | 0x7E:
                bits = 32 if self.value_type == _I32 else 64
                wrapped = (int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
                code = bytes([0x41 if bits == 32 else 0x42]) + signed_leb(wrapped)
            case 0x7D:
                code = b"\x43" + struct.pack("<f", value)
            case 0x7C:
                code = b"\x44" + struct.pack("<d", value)
            case other:
                raise SnapshotError(f"a mutable global of type {other:#x} has no constant")
        return GlobalVariable(self.value_type, self.mutable, code + bytes([_END]))


def read_sections(wasm: bytes) -> list[tuple[int, bytes]]:
    """Every section's id and body, in the module's order."""
    if wasm[:8] != _MAGIC:
        raise SnapshotError("not a core WebAssembly module of version 1")
    reader, sections = Reader(wasm), []
    reader.at = 8
    while reader.at < len(wasm):
        section = reader.byte()
        sections.append((section, reader.take(reader.unsigned())))
    return sections


def write_sections(sections: Iterable[tuple[int, bytes]]) -> bytes:
    return _MAGIC + b"".join(bytes([section]) + unsigned_leb(len(body)) + body for section, body in sections)


def count_imports(imports: bytes) -> dict[int, int]:
    """How many of each kind the import section brings; they come first in their index spaces."""
    reader, counts = Reader(imports), dict.fromkeys(range(5), 0)
    for _ in range(reader.unsigned()):
        module, name, kind = reader.name(), reader.name(), reader.byte()
        counts[kind] += 1
        match kind:
            case 0:  # function
                reader.unsigned()
            case 1:  # table
                reader.byte()
                reader.limits()
            case 2:
                raise SnapshotError(f"memory {module}.{name} is imported: a snapshot has its own")
            case 3:  # global
                if reader.take(2)[1]:
                    raise SnapshotError(f"mutable global {module}.{name} is imported")
            case _:
                raise SnapshotError(f"import {module}.{name} of kind {kind}")
    return counts


def read_exports(body: bytes) -> list[Export]:
    reader = Reader(body)
    return [Export(reader.name(), reader.byte(), reader.unsigned()) for _ in range(reader.unsigned())]


def read_globals(body: bytes) -> list[GlobalVariable]:
    reader = Reader(body)
    return [
        GlobalVariable(reader.byte(), bool(reader.byte()), reader.constant())
        for _ in range(reader.unsigned())
    ]


def export_state(wasm: bytes) -> tuple[bytes, dict[int, str]]:
    """The module with its tables and mutable globals exported; index among its own globals -> export name."""
    sections = read_sections(wasm)
    bodies = dict(sections)
    imported = count_imports(bodies.get(_IMPORT, b"\0"))
    variables = read_globals(bodies.get(_GLOBAL, b"\0"))
    names = {i: f"{_GLOBAL_EXPORT}{i}" for i, variable in enumerate(variables) if variable.mutable}
    tables = imported[_EXTERN_TABLE] + Reader(bodies.get(_TABLE, b"\0")).unsigned()
    added = [Export(name, _EXTERN_GLOBAL, imported[_EXTERN_GLOBAL] + i) for i, name in names.items()]
    added += [Export(f"{_TABLE_EXPORT}{i}", _EXTERN_TABLE, i) for i in range(tables)]
    exports = [export.encode() for export in read_exports(bodies[_EXPORT]) + added]
    return write_sections((s, _vector(exports) if s == _EXPORT else body) for s, body in sections), names


# ---- the rewriting ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """What an instance has that its module has not."""

    memory: bytes
    globals: dict[int, int | float] = field(default_factory=dict)


def segments(memory: bytes) -> list[tuple[int, bytes]]:
    """Data segments, in whole host pages, that restore the memory and keep Wasmtime's copy-on-write.

    Pages of zeros are left out; where that would leave more holes than data in a range above
    `COPY_ON_WRITE_BYTES`, the smallest holes are filled until half of the range is data.
    """
    zero = bytes(HOST_PAGE_BYTES)
    runs: list[list[int]] = []
    for start in range(0, len(memory), HOST_PAGE_BYTES):
        if memory.startswith(zero, start):
            continue
        if runs and runs[-1][1] == start:
            runs[-1][1] = start + HOST_PAGE_BYTES
        else:
            runs.append([start, start + HOST_PAGE_BYTES])
    runs = _fill_holes(runs)
    return [(start, memory[start:end]) for start, end in runs]


def _fill_holes(runs: list[list[int]]) -> list[list[int]]:
    if not runs:
        return runs
    reach = runs[-1][1]
    if reach <= COPY_ON_WRITE_BYTES:
        return runs
    missing = (reach + 1) // 2 - sum(end - start for start, end in runs)
    starts = [0] + [end for _, end in runs[:-1]]
    holes = sorted((run[0] - hole, hole) for hole, run in zip(starts, runs, strict=True) if run[0] > hole)
    filled = set()
    for size, hole in holes:
        if missing <= 0:
            break
        filled.add(hole)
        missing -= size
    merged: list[list[int]] = [[0, 0]] if 0 in filled else []
    for start, end in runs:
        if merged and merged[-1][1] in filled | {start}:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return merged


def bake(
    wasm: bytes, state: State, *, keep: Sequence[str] = ABI_EXPORTS, memory_pages: int | None = None
) -> bytes:
    """The module that starts in `state`: no start function, no custom sections, the exports of `keep` alone.

    `memory_pages` sets the maximum of its memory; without it the module's own stays. Raises `SnapshotError` where
    the module has what a snapshot would lose: several memories, passive data, a missing export.
    """
    sections = [(s, body) for s, body in read_sections(wasm) if s not in (_CUSTOM, _START)]
    if _DATA not in (s for s, _ in sections):
        sections.append((_DATA, b"\0"))  # the last section there is
    bodies = dict(sections)
    _refuse_passive_data(bodies.get(_DATA, b"\0"))
    exports = {export.name: export for export in read_exports(bodies[_EXPORT])}
    if missing := set(keep) - exports.keys():
        raise SnapshotError(f"the module does not export {', '.join(sorted(missing))}")
    variables = read_globals(bodies.get(_GLOBAL, b"\0"))
    for index, value in state.globals.items():
        variables[index] = variables[index].holding(value)
    data = [
        b"\0\x41"
        + signed_leb(start if start < 1 << 31 else start - (1 << 32))
        + bytes([_END])
        + unsigned_leb(len(content))
        + content
        for start, content in segments(state.memory)
    ]
    replaced = {
        _MEMORY: _memory_section(bodies[_MEMORY], len(state.memory), memory_pages),
        _GLOBAL: _vector([variable.encode() for variable in variables]),
        _EXPORT: _vector([exports[name].encode() for name in sorted(keep)]),
        _DATA: _vector(data),
        _DATA_COUNT: unsigned_leb(len(data)),
    }
    return write_sections((s, replaced.get(s, body)) for s, body in sections)


def _refuse_passive_data(body: bytes) -> None:
    reader = Reader(body)
    for _ in range(reader.unsigned()):
        if reader.unsigned() != 0:
            raise SnapshotError("passive data segments (or a second memory) would be lost")
        reader.constant()
        reader.take(reader.unsigned())


def _memory_section(body: bytes, memory_bytes: int, maximum: int | None) -> bytes:
    reader = Reader(body)
    if reader.unsigned() != 1:
        raise SnapshotError("a snapshot has exactly one memory")
    flags, _, declared = reader.limits()
    maximum = declared if maximum is None else maximum
    pages = unsigned_leb(memory_bytes // WASM_PAGE_BYTES)
    if maximum is None:
        return b"\x01" + bytes([flags & ~1]) + pages
    return b"\x01" + bytes([flags | 1]) + pages + unsigned_leb(maximum)


# ---- running the initialiser -----------------------------------------------------------------------------------


def _entropy() -> Iterator[bytes]:
    """A fixed stream in place of entropy, so that two builds give the same bytes."""
    block = b"wasmeval build"
    while True:
        block = hashlib.sha256(block).digest()
        yield block


class Guest:
    """An instance of a raw module under WASI with a clock of its own and a fixed stream for entropy.

    `root` is the folder that stands for the guest's read-only `/`. `wasmeval.host_call` answers that nothing is there.
    Whatever the guest writes to stdout and stderr is in `output`.
    """

    def __init__(
        self,
        wasm: bytes,
        *,
        root: Path | None = None,
        environment: dict[str, str] | None = None,
        max_wasm_stack: int = 4 << 20,
    ) -> None:
        exported, self._globals = export_state(wasm)
        config = wasmtime.Config()
        # Wasmtime aborts when the stack exceeds this size of fibers, which are not used here.
        ffi.wasmtime_config_async_stack_size_set(config.ptr(), max_wasm_stack + (1 << 20))
        config.max_wasm_stack = max_wasm_stack
        config.cranelift_opt_level = "speed"
        self._engine = wasmtime.Engine(config)
        self._module = wasmtime.Module(self._engine, exported)
        self._store = wasmtime.Store(self._engine)
        self._random = _entropy()
        self._now_ns = BUILD_CLOCK_NS
        self.output = bytearray()
        wasi = wasmtime.WasiConfig()
        wasi.env = list((environment or {}).items())
        self._store.set_wasi(wasi)
        self._files = Files(root, self.read, self.write).functions() if root else {}
        self._instance = self._linker().instantiate(self._store, self._module)
        self._exports = self._instance.exports(self._store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory
        self._tables_before = self._tables()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        del self._exports, self._memory, self._instance, self._store

    def call(self, name: str, *arguments: int) -> Any:
        """Calls an export. A trap or an exit of the guest is raised as Wasmtime raises it."""
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return function(self._store, *arguments)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self._memory.read(self._store, address, address + length))

    def write(self, address: int, data: bytes) -> None:
        self._memory.write(self._store, data, address)

    def capture(self) -> State:
        """Memory and mutable globals as they are now. Refuses when a table has changed: it would be lost."""
        if self._tables() != self._tables_before:
            raise SnapshotError("the initialiser changed a table, which a snapshot does not keep")
        values: dict[int, int | float] = {}
        for index, name in self._globals.items():
            variable = self._exports[name]
            assert isinstance(variable, wasmtime.Global)
            values[index] = variable.value(self._store)
        return State(self.read(0, self._memory.data_len(self._store)), values)

    def _tables(self) -> list[list[object]]:
        """The identity of every element of every table."""
        tables = []
        for export in self._module.exports:
            if export.name.startswith(_TABLE_EXPORT):
                table = self._exports[export.name]
                assert isinstance(table, wasmtime.Table)
                tables.append([_identity(table.get(self._store, i)) for i in range(table.size(self._store))])
        return tables

    def _linker(self) -> wasmtime.Linker:
        linker = wasmtime.Linker(self._engine)
        linker.allow_shadowing = True
        linker.define_wasi()
        for imported in self._module.imports:
            assert imported.name is not None
            if isinstance(imported.type, wasmtime.FuncType) and (
                host := self._host(imported.module, imported.name)
            ):
                linker.define_func(imported.module, imported.name, imported.type, host)
        return linker

    def _host(self, module: str, name: str) -> Callable[..., int | None] | None:
        """Our own function for an import; None leaves Wasmtime's."""
        ours: dict[tuple[str, str], Callable[..., int | None]] = {
            ("wasmeval", "host_call"): lambda pointer, length: -1,
            ("wasmeval", "host_read"): lambda pointer: None,
            (_WASI, "clock_time_get"): self._clock_time_get,
            (_WASI, "random_get"): self._random_get,
            (_WASI, "poll_oneoff"): self._poll_oneoff,
            (_WASI, "fd_write"): self._fd_write,
        }
        if self._files and module == _WASI and name in self._files:
            return self._files[name]
        return ours.get((module, name))

    def _clock_time_get(self, clock: int, precision: int, result: int) -> int:
        self.write(result, struct.pack("<Q", self._now_ns))
        return 0

    def _poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """A sleep takes no time, but the clock is later by it. Only clocks can be waited for."""
        userdata, kind, _, timeout, _, flags = struct.unpack("<QB7xIxxxxQQH", self.read(subscriptions, 42))
        if kind != 0:
            return _ENOTSUP
        self._now_ns = max(self._now_ns, timeout) if flags & 1 else self._now_ns + timeout
        self.write(events, struct.pack("<QHB21x", userdata, 0, 0))
        self.write(result, struct.pack("<I", 1))
        return 0

    def _random_get(self, buffer: int, length: int) -> int:
        content = b"".join(next(self._random) for _ in range(-(-length // 32)))
        self.write(buffer, content[:length])
        return 0

    def _fd_write(self, descriptor: int, vectors: int, count: int, result: int) -> int:
        total = 0
        for i in range(count):
            address, length = struct.unpack("<II", self.read(vectors + 8 * i, 8))
            self.output += self.read(address, length)
            total += length
        self.write(result, struct.pack("<I", total))
        return 0


def _identity(element: object) -> object:
    if isinstance(element, wasmtime.Func):
        raw = element._func
        return raw.store_id, raw.__private
    return element


# ---- the checks ------------------------------------------------------------------------------------------------


def instantiate_seconds(wasm: bytes, *, rounds: int = 200) -> float:
    """The least time that a store, an instance of the module and their end take together."""
    config = wasmtime.Config()
    config.memory_init_cow = True
    engine = wasmtime.Engine(config)
    module = wasmtime.Module(engine, wasm)
    linker = wasmtime.Linker(engine)
    for imported in module.imports:
        assert imported.name is not None and isinstance(imported.type, wasmtime.FuncType)
        results = [0] * len(imported.type.results)
        answer = results[0] if results else None
        linker.define_func(imported.module, imported.name, imported.type, lambda *_, answer=answer: answer)
    pre = linker.instantiate_pre(module)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        store = wasmtime.Store(engine)
        pre.instantiate(store)
        del store
        best = min(best, time.perf_counter() - start)
    return best


def check_copy_on_write(wasm: bytes, *, limit_seconds: float = 0.001) -> float:
    """Fails the build when an instance takes so long that Wasmtime must be copying the image.

    A copied image of 1 MiB takes about 0.4 ms, one of 16 MiB 15 ms; a mapped one 0.02 ms whatever its size. So an
    image below 4 MiB is judged by its layout as well.
    """
    bodies = dict(read_sections(wasm))
    reader = Reader(bodies.get(_DATA, b"\0"))
    covered = reach = 0
    for _ in range(reader.unsigned()):
        reader.unsigned()
        start = Reader(reader.constant()[1:]).signed() % (1 << 32)
        length = len(reader.take(reader.unsigned()))
        covered += length
        reach = max(reach, start + length)
    if reach > COPY_ON_WRITE_BYTES and covered * 2 < reach:
        raise SnapshotError(f"{covered} bytes of data in a range of {reach}: Wasmtime would copy the image")
    if (seconds := instantiate_seconds(wasm)) > limit_seconds:
        raise SnapshotError(f"an instance takes {seconds * 1e3:.2f} ms, {limit_seconds * 1e3:.2f} ms at most")
    return seconds


def initial_memory_bytes(wasm: bytes) -> int:
    """The size of the module's memory as an instance starts with it."""
    reader = Reader(dict(read_sections(wasm))[_MEMORY])
    reader.unsigned()
    return reader.limits()[1] * WASM_PAGE_BYTES
