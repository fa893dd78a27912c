"""Self-check of the TypeScript image: what the guest ABI promises, under plain wasmtime-py.

The last stage of the build, and `python -m runtimes.typescript.selfcheck` at any time. What the translations then do is
the matter of tests/guest/typescript.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from runtimes.snapshot import ABI_EXPORTS, check_copy_on_write

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
    ("await (1 as any)", "await (1       )"),
    ("import type { A } from 'a'\nlet b!: A", "                          \nlet b    "),
    ("", ""),
)

# Snippet, and the translation's lines as `original_place` would place their beginnings.
REWRITTEN = (
    ("enum E { A }\n\nE.A", {"E.A;": 3}),
    ("class P {\n  constructor(public x: number) {}\n}\n\nnew P(1)", {"this.x = x;": 2, "new P(1);": 5}),
    ("namespace N {\n  export const a = 1\n}", {"N.a = 1;": 2}),
)

# Snippet, type, line, column.
REFUSED = (
    ("let x: = 3", "SyntaxError", 1, 8),
    ("const y = 1;\n  let x: = 3", "SyntaxError", 2, 10),
    ("class A { @x() y() {} }", "SyntaxError", 1, 11),
    ("enum E { A, ", "SyntaxError", 1, 13),
)

# Each nests without end in another part of the front end: all must end in its error.
RECURSIONS = (
    "(" * 100_000,
    "[" * 50_000,
    "{" * 50_000,
    "1+" * 100_000 + "1",
    "!" * 100_000 + "1",
    "- -" * 50_000 + "1",
    "x" + ".y" * 100_000,
    "x" + "()" * 100_000,
    "x" + "!" * 50_000,
    "x" + "`a`" * 50_000,
    "x" + " as any" * 50_000,
    "a" + "?.b" * 50_000,
    "a&&" * 50_000 + "a",
    "a??" * 50_000 + "a",
    "a=" * 50_000 + "1",
    "1?" * 50_000,
    "2**" * 50_000 + "1",
    "new " * 50_000 + "f",
    "typeof " * 50_000 + "x",
    "a => " * 50_000 + "1",
    "(() => {" * 20_000,
    "`${" * 10_000,
    "if(1)" * 50_000 + "1",
    "for(;;)" * 50_000 + ";",
    "do " * 50_000,
    "try{" * 50_000,
    "function f(){" * 20_000,
    "class A extends " * 20_000 + "B{}",
    "let " + "[" * 50_000,
    "let " + "{a:" * 50_000,
    "import(" * 50_000,
    "<any>" * 50_000 + "x",
    "namespace A {" * 20_000,
    "namespace A." + "B." * 50_000 + "C { export const x = 1 }",
    "type X = " + "A<" * 50_000,
    "type X = " + "(" * 50_000,
    "type X = " + "{a:" * 50_000,
    "type X = " + "keyof " * 50_000 + "A",
    "let x: " + "() => " * 50_000 + "A",
    "enum E { A = " + "(" * 50_000,
    "enum E { A = " + "1+" * 50_000 + "1}",
    "enum E {A} " + "1+" * 100_000 + "1",
    "enum E {A} x" + ".y" * 100_000,
    "enum E {A} x" + "`a`" * 50_000,
)


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise CheckError(what[:1000])


def check(wasm: bytes, *, max_wasm_stack: int) -> None:
    """Raises `CheckError` for the first promise that the image breaks.

    Works in a thread of its own, whose stack is larger than the guest may ask for.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            _check(wasm, max_wasm_stack)
        except BaseException as error:
            failures.append(error)

    before = threading.stack_size(max_wasm_stack + (16 << 20))
    worker = threading.Thread(target=work)
    worker.start()
    threading.stack_size(before)
    worker.join()
    if failures:
        raise failures[0]


def _check(wasm: bytes, max_wasm_stack: int) -> None:
    check_copy_on_write(wasm)
    image = Image(wasm, max_wasm_stack=max_wasm_stack)
    exports = sorted(export.name for export in image.module.exports)
    expect(exports == sorted(ABI_EXPORTS), f"exports are {exports}")
    expect(not image.module.imports, f"imports {[wanted.name for wanted in image.module.imports]}")
    check_translations(image)
    check_refusals(image)
    check_limits(image)


def check_translations(image: Image) -> None:
    for code, translation in STRIPPED:
        reply = image.evaluate(code)
        expect(reply.value == {"code": translation, "lines": None}, f"{code!r} gave {reply}")
    for code, wanted in REWRITTEN:
        reply = image.evaluate(code)
        expect(reply.outcome == 0 and reply.value["lines"] is not None, f"{code!r} gave {reply}")
        lines = [line.strip() for line in reply.value["code"].split("\n")]
        for text, line in wanted.items():
            segments = reply.value["lines"][lines.index(text)]
            expect(segments.split(",")[1] == str(line), f"{text!r} of {code!r} comes from {segments}")
    first, second = (image.evaluate(REWRITTEN[0][0]).fuel for _ in range(2))
    expect(first == second, f"the same translation used {first} and {second} fuel")


def check_refusals(image: Image) -> None:
    for code, kind, line, column in REFUSED:
        reply = image.evaluate(code)
        got = (reply.outcome, reply.type, reply.line, reply.column)
        expect(got == (1, kind, line, column), f"{code!r} gave {got}: {reply.message}")
        expect(
            reply.traceback.startswith(f"<snippet>:{line}\n{code.splitlines()[line - 1]}\n"),
            f"{code!r} has the traceback {reply.traceback!r}",
        )


def check_limits(image: Image) -> None:
    for code in RECURSIONS:
        try:
            reply = image.evaluate(code)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise CheckError(f"{code[:60]!r} trapped: {error}") from error
        expect((reply.outcome, reply.type) == (1, "RangeError"), f"{code[:60]!r} gave {reply}")
    reply = image.evaluate("".join(f"enum E{i} {{}}\n" for i in range(4000)))
    expect((reply.outcome, reply.type) == (1, "RangeError"), f"a translation over its limit gave {reply}")
    reply = image.evaluate("const a: number[] = [" + "1, " * 1_000_000 + "]", memory_bytes=16 << 20)
    expect((reply.outcome, reply.type) == (4, "OutOfMemory"), f"a lack of memory gave {reply}")


def main() -> None:
    manifest = json.loads((IMAGES / "manifest.json").read_text())
    wasm = lzma.decompress((IMAGES / manifest["image"]["file"]).read_bytes())
    expect(sha256(wasm) == manifest["image"]["sha256"], "the image is not the manifest's")
    check(wasm, max_wasm_stack=manifest["max_wasm_stack"])
    print(f"{manifest['interpreter']}: all well")


if __name__ == "__main__":
    main()
