"""Guests made for tests: small WebAssembly modules that keep, or break, the guest ABI, in a catalogue of their own."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wasmeval.limits import DEFAULTS, MIB, Limits
from wasmeval.model import Job
from wasmeval.pool import BlockingPool, PoolSettings
from wasmeval.runtimes import Catalogue

PAGE = 65536
REQUEST = 65536
"""Where `guest` puts the request; the reply stands at REPLY."""
REPLY = 1024
LIMITS = Limits(fuel=10**9, deadline_seconds=5.0, memory_bytes=16 * MIB, output_bytes=65536).within(
    DEFAULTS, Limits()
)


def guest(
    evaluate: str, *, imports: str = "", functions: str = "", reserve: str = "", pages: int = 24
) -> str:
    """A module in WebAssembly text whose warm-up does nothing and whose evaluation is `evaluate`, which leaves an i64.

    `$len` is the request's length; `$code` and `$code_len` give the snippet, `$reply` makes a reply of (outcome,
    value's address, value's length).
    """
    return f"""(module
      {imports}
      (memory (export "memory") {pages})
      (data (i32.const 16) "null")
      {functions}
      (func $code (result i32) (i32.const {REQUEST + 16}))
      (func $code_len (result i32) (i32.load (i32.const {REQUEST + 8})))
      (func $reply (param $outcome i32) (param $value i32) (param $length i32) (result i64)
        (i32.store (i32.const {REPLY}) (local.get $outcome))
        (i32.store (i32.const {REPLY + 4}) (i32.const 0))
        (i32.store (i32.const {REPLY + 8}) (local.get $length))
        (i64.store (i32.const {REPLY + 12}) (i64.const 0))
        (i64.store (i32.const {REPLY + 20}) (i64.const 0))
        (i32.store (i32.const {REPLY + 28}) (i32.const 0))
        (memory.copy (i32.const {REPLY + 32}) (local.get $value) (local.get $length))
        (call $at (i32.const {REPLY}) (i32.add (i32.const 32) (local.get $length))))
      (func $at (param $address i32) (param $length i32) (result i64)
        (i64.or (i64.shl (i64.extend_i32_u (local.get $address)) (i64.const 32))
                (i64.extend_i32_u (local.get $length))))
      (func $null (result i64) (call $reply (i32.const 0) (i32.const 16) (i32.const 4)))
      (func (export "wasmeval_reserve") (param $len i32) (result i32)
        {reserve or f"(i32.const {REQUEST})"})
      (func (export "wasmeval_evaluate") (param $len i32) (result i64)
        (if (i32.eqz (i32.load (i32.const 8)))
          (then (i32.store (i32.const 8) (i32.const 1)) (return (i64.const 0))))
        {evaluate}))"""


def write_image(images: Path, name: str, module: str | bytes, **changes: Any) -> Path:
    """A runtime `name` below `images`, made of `module`; `changes` go into its manifest."""
    import wasmtime

    folder = images / name
    folder.mkdir(parents=True)
    binary = bytes(wasmtime.wat2wasm(module)) if isinstance(module, str) else module
    (folder / "image.wasm.xz").write_bytes(lzma.compress(binary, preset=0))
    manifest = {
        "abi": 1,
        "name": name,
        "version": "1.0",
        "languages": [name],
        "interpreter": name,
        "image": {
            "file": "image.wasm.xz",
            "sha256": hashlib.sha256(binary).hexdigest(),
            "bytes": len(binary),
        },
        "library": None,
        "memory": {"initial_bytes": 24 * PAGE, "minimum_bytes": 24 * PAGE},
        "max_wasm_stack": 1 * MIB,
        "fuel_per_millisecond": 1_000_000,
        "warm_up": "1",
        "sources": [],
        "toolchain": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


def catalogue(images: Path, modules: Mapping[str, str | bytes]) -> Catalogue:
    """A catalogue of `modules`, by name."""
    for name, module in modules.items():
        write_image(images, name, module)
    return Catalogue.installed(images)


@contextmanager
def pool_of(tmp_path: Path, modules: Mapping[str, str | bytes], **settings: Any) -> Iterator[BlockingPool]:
    """One worker, unless `settings` say otherwise, that runs `modules` as its runtimes."""
    pool = BlockingPool(
        PoolSettings(**{"workers": 1, "cache_dir": tmp_path / "cache", **settings}),
        catalogue(tmp_path / "images", modules),
    )
    try:
        pool.start()
        yield pool
    finally:
        pool.close()


def job(runtime: str, code: bytes = b"", limits: Limits = LIMITS, inputs: bytes = b"") -> Job:
    """A job for the guest `runtime`, whose gaps in `limits` are LIMITS'."""
    return Job(runtime, code, inputs, limits.within(LIMITS, Limits()))


def worker_pids(pool: BlockingPool) -> list[int]:
    """The processes of the pool's workers."""
    assert pool._pool
    return [worker.process.pid for worker in pool._pool._workers]


CALL_BYTES = 76


def host_functions() -> list[tuple[str, str, str, str]]:
    """(module, name, parameters, results) of every host function there is."""
    from wasmeval.wasm import wasi

    module = wasi.MODULE.decode()
    return [
        *((module, name, parameters, "i") for name, (parameters, _) in wasi.FUNCTIONS.items()),
        (module, "proc_exit", "i", ""),
        (module, "poll_oneoff", "iiii", "i"),
        ("wasmeval", "host_call", "ii", "i"),
        ("wasmeval", "host_read", "i", ""),
    ]


def caller() -> str:
    """A module whose snippet is a list of host calls: 76 bytes each, the function's index and nine 8-byte arguments.

    It makes them all, whatever comes back, and replies `null`.
    """
    types = {"i": "i32", "I": "i64"}
    declared, calls = [], []
    for index, (module, name, parameters, results) in enumerate(host_functions()):
        signature = " ".join(f"(param {types[p]})" for p in parameters) + (" (result i32)" if results else "")
        declared.append(f'(import "{module}" "{name}" (func ${name} {signature}))')
        arguments = " ".join(
            f"({types[p]}.load offset={4 + 8 * position} (local.get $at))"
            for position, p in enumerate(parameters)
        )
        call = f"(call ${name} {arguments})"
        if results:
            call = f"(drop {call})"
        calls.append(f"(if (i32.eq (i32.load (local.get $at)) (i32.const {index})) (then {call}))")
    return guest(
        "(call $run (i32.add (call $code) (call $code_len))) (call $null)",
        imports="\n".join(declared),
        functions=f"""(func $run (param $end i32) (local $at i32)
          (local.set $at (call $code))
          (block $done (loop $next
            (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
            {" ".join(calls)}
            (local.set $at (i32.add (local.get $at) (i32.const {CALL_BYTES})))
            (br $next))))""",
    )
