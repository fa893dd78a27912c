"""Plain wasmtime-py: a WASI Python as it comes, or one of our images, by the public API, a fresh instance each time.

    python -m bench.companions.naive command PATH    # a CPython command module: python.wasm
    python -m bench.companions.naive image RUNTIME   # the shipped image of a runtime, compiled without limits
    python -m bench.companions.naive image PATH      # another image of the same ABI, .wasm or .wasm.xz

Compiled ahead of time and kept in Wasmtime's own cache; no fuel, no limits, default engine settings.
"""

from __future__ import annotations

import lzma
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wasmtime

from bench.companions import lines
from wasmeval.runtimes import Catalogue
from wasmeval.wasm import abi
from wasmeval.wasm.cache import unpack

_VALUE_BYTES = 1 << 20

Evaluate = Callable[[str], tuple[float, Any]]


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.cache = True
    return wasmtime.Engine(config)


def command(path: str) -> Evaluate:
    """CPython's own command line, as a Wasm module: `python -I -c CODE`."""
    engine = _engine()
    module = wasmtime.Module.from_file(engine, path)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()

    def evaluate(code: str) -> tuple[float, Any]:
        with tempfile.NamedTemporaryFile(prefix="wasmeval-bench-") as output:
            start = time.perf_counter()
            store = wasmtime.Store(engine)
            wasi = wasmtime.WasiConfig()
            wasi.argv = ("python", "-I", "-c", code)
            wasi.stdout_file = output.name
            store.set_wasi(wasi)
            main = linker.instantiate(store, module).exports(store)["_start"]
            assert isinstance(main, wasmtime.Func)
            try:
                main(store)
            except wasmtime.ExitTrap as trap:
                if trap.code:
                    raise
            store.close()
            return time.perf_counter() - start, Path(output.name).read_text()

    return evaluate


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def image(name: str) -> Evaluate:
    """An image of our guest ABI: `seconds` are those of the evaluation and, for `1+1`, of the instance as well."""
    engine = _engine()
    installed = {runtime.name: runtime for runtime in Catalogue.installed()}
    binary = unpack(installed[name].image) if name in installed else _read(Path(name))
    module = wasmtime.Module(engine, binary)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    i32 = wasmtime.ValType.i32()
    linker.define_func("wasmeval", "host_call", wasmtime.FuncType([i32, i32], [i32]), lambda *_: -1)
    linker.define_func("wasmeval", "host_read", wasmtime.FuncType([i32], []), lambda *_: None)

    def evaluate(code: str) -> tuple[float, Any]:
        request = abi.encode_request(code.encode(), b"", _VALUE_BYTES)
        start = time.perf_counter()
        store = wasmtime.Store(engine)
        store.set_wasi(wasmtime.WasiConfig())
        exports: Any = linker.instantiate(store, module).exports(store)
        memory = exports["memory"]
        memory.write(store, request, exports["wasmeval_reserve"](store, len(request)))
        packed = exports["wasmeval_evaluate"](store, len(request)) & (1 << 64) - 1
        address, length = packed >> 32, packed & 0xFFFFFFFF
        reply = abi.decode_reply(bytes(memory.read(store, address, address + length)), _VALUE_BYTES)
        store.close()
        seconds = time.perf_counter() - start
        if reply.outcome is not abi.Outcome.VALUE:
            raise RuntimeError(f"{reply.type}: {reply.message}")
        return seconds, reply.value.decode()

    return evaluate


def main(kind: str, name: str) -> None:
    """Answer every line: see bench/companion.py."""
    evaluate = {"command": command, "image": image}[kind](name)
    os.nice(5)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        runs = [evaluate(question["code"]) for _ in range(question["count"])]
        return {"seconds": [seconds for seconds, _ in runs], "value": runs[-1][1]}

    lines.serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
