"""Self-check of the TypeScript image: what the guest ABI promises, under plain wasmtime-py.

The last stage of the build, and `python -m runtimes.typescript.selfcheck` at any time. What the translations then do is
the matter of tests/guest/typescript.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from runtimes.snapshot import check_copy_on_write

IMAGES = Path(__file__).resolve().parents[2] / "wasmeval" / "images" / "typescript"

# What every instance translates before its request. It touches what nearly every snippet touches.
INSTANCE_WARM_UP = (Path(__file__).parent / "training" / "04-small.ts").read_text()

FUEL = 20_000_000_000
MEMORY_BYTES = 256 << 20


class CheckError(AssertionError):
    """The image breaks a promise of the ABI or of docs/typescript.md."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One decoded reply frame, and the fuel that it took."""

    outcome: int
    value: Any
    type: str
    message: str
    traceback: str
    line: int
    column: int
    fuel: int = 0


class Image:
    """The compiled image; every `evaluate` is a fresh instance. It imports nothing, so there is nothing to supply."""

    def __init__(self, wasm: bytes, *, max_wasm_stack: int) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        ffi.wasmtime_config_async_stack_size_set(config.ptr(), max_wasm_stack + (1 << 20))
        config.max_wasm_stack = max_wasm_stack
        self.engine = wasmtime.Engine(config)
        self.module = wasmtime.Module(self.engine, wasm)

    def evaluate(self, code: str, *, value_limit: int = 1 << 24, memory_bytes: int = MEMORY_BYTES) -> Reply:
        store = wasmtime.Store(self.engine)
        store.set_fuel(FUEL)
        store.set_limits(memory_size=memory_bytes, memories=1)
        exports = wasmtime.Instance(store, self.module, []).exports(store)
        call(store, exports, INSTANCE_WARM_UP.encode(), value_limit)
        before = store.get_fuel()
        frame = call(store, exports, code.encode(), value_limit)
        return decode(frame, before - store.get_fuel())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def request(code: bytes, value_limit: int = 1 << 24) -> bytes:
    """A request frame of the ABI."""
    return struct.pack("<HHIII", 1, 0, value_limit, len(code), 0) + code


def call(store: wasmtime.Store, exports: Any, code: bytes, value_limit: int) -> bytes:
    """One request through the exports: the bytes of the reply frame."""
    frame, memory = request(code, value_limit), exports["memory"]
    address = exports["wasmeval_reserve"](store, len(frame)) & 0xFFFFFFFF
    if not address:
        raise CheckError("wasmeval_reserve gave no buffer")
    memory.write(store, frame, address)
    packed = exports["wasmeval_evaluate"](store, len(frame)) & 0xFFFFFFFFFFFFFFFF
    address, length = packed >> 32, packed & 0xFFFFFFFF
    return bytes(memory.read(store, address, address + length))


def decode(frame: bytes, fuel: int = 0) -> Reply:
    outcome, flags, *lengths, line, column = struct.unpack("<8I", frame[:32])
    if 32 + sum(lengths) != len(frame) or flags:
        raise CheckError(f"a reply of {len(frame)} bytes with flags {flags} whose parts have {lengths}")
    parts, at = [], 32
    for length in lengths:
        parts.append(frame[at : at + length].decode())
        at += length
    return Reply(
        outcome, json.loads(parts[0]) if parts[0] else None, parts[1], parts[2], parts[3], line, column, fuel
    )


# ---- the checks ------------------------------------------------------------------------------------------------

# Snippet and translation. What is left out leaves its place empty, so that every line and column stays.
STRIPPED = (
    ("const x: number = 1; x + 1", "const x         = 1; x + 1"),
    ("await 1 as any", "await 1       "),
    ("type A = { a: 1 }\n[1].map(x => x)", ";                \n[1].map(x => x)"),
)


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise CheckError(what)


def check(wasm: bytes, *, max_wasm_stack: int) -> None:
    check_copy_on_write(wasm)
