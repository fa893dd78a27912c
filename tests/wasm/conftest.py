"""Small guests in an engine of this process: real Wasmtime, no worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wasmtime

from tests.guests import guest, write_image
from wasmeval.limits import DEFAULTS, MIB, Limits
from wasmeval.runtimes import Runtime
from wasmeval.wasm.engine import Engine, EngineSettings
from wasmeval.wasm.host import Host
from wasmeval.wasm.instance import Image
from wasmeval.wasm.library import Library

LIMITS = Limits(fuel=100_000_000, deadline_seconds=60.0, memory_bytes=16 * MIB, output_bytes=1000).within(
    DEFAULTS, Limits()
)
MakeImage = Callable[..., Image]

WASI = "wasi_snapshot_preview1"
# Sleeps for as many nanoseconds as the snippet's first eight bytes say, then replies null.
SLEEPER = guest(
    """(i64.store (i32.const 640) (i64.load (call $code)))
       (drop (call $poll (i32.const 616) (i32.const 700) (i32.const 1) (i32.const 800)))
       (call $null)""",
    imports=f'(import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
    functions='(data (i32.const 632) "\\01")',
)
# Sleeps for no time at all, again and again.
RESTLESS = guest(
    """(loop $l (drop (call $poll (i32.const 616) (i32.const 700) (i32.const 1) (i32.const 800))) (br $l))
       (call $null)""",
    imports=f'(import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))',
    functions='(data (i32.const 632) "\\01")',
)
ECHO = guest("(call $reply (i32.const 0) (call $code) (call $code_len))")
LOOP = guest("(loop $l (br $l)) (i64.const 0)")
HOARDER = guest(
    "(drop (memory.grow (i32.load (call $code)))) (loop $l (br $l)) (i64.const 0)",
)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    engine = Engine(EngineSettings(slots=64, max_memory_bytes=64 * MIB, max_wasm_stack=1 * MIB))
    yield engine
    engine.close()


@pytest.fixture
def make_image(engine: Engine, tmp_path: Path) -> MakeImage:
    """An image of a module in WebAssembly text, named as the test likes."""
    assert engine.address
    host = Host(engine.address)

    def make(name: str, module: str, slice_ms: float = 1.0) -> Image:
        runtime = Runtime.load(write_image(tmp_path / "images", name, module))
        compiled = tmp_path / f"{name}.cwasm"
        compiled.write_bytes(engine.compile(bytes(wasmtime.wat2wasm(module))))
        return Image.load(runtime, engine, host, engine.load(compiled).address, Library(), slice_ms)

    return make
