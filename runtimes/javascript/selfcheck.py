"""Self-check of the JavaScript image: what the guest ABI promises, under plain wasmtime-py.

The last stage of the build, and `python -m runtimes.javascript.selfcheck` at any time.
"""

from __future__ import annotations

import json
import lzma
import threading
from typing import Any

import wasmtime

from runtimes.javascript import grantcheck
from runtimes.javascript.harness import (
    IMAGES,
    CheckError,
    Host,
    Image,
    Reply,
    call,
    decode,
    expect,
    request,
    sha256,
)
from runtimes.snapshot import ABI_EXPORTS, check_copy_on_write

__all__ = [
    "IMAGES",
    "CheckError",
    "Host",
    "Image",
    "Reply",
    "call",
    "check",
    "decode",
    "expect",
    "request",
    "sha256",
]

HOST_PAGE_BYTES = 4096

# ---- the checks ------------------------------------------------------------------------------------------------

WASI_FUNCTIONS = {
    "clock_time_get",
    "clock_res_get",
    "random_get",
    "poll_oneoff",
    "fd_write",
    "fd_read",
    "fd_close",
    "fd_filestat_get",
    "fd_readdir",
    "path_create_directory",
    "path_filestat_get",
    "path_open",
    "path_remove_directory",
    "path_rename",
    "path_unlink_file",
    "fd_fdstat_get",
    "fd_seek",
    "proc_exit",
    "sched_yield",
}

# Snippet and value. That the values are right is the corpus's matter (tests/guest); this is that the parts are there.
VALUES: tuple[tuple[str, Any], ...] = (
    ("1 + 1", 2),
    ("let x = 5", 5),
    ("const y = [1]; y", [1]),
    ("z = 7", 7),
    ("let a = 1, b = 2", None),
    ("await Promise.resolve({ a: 1 })", {"a": 1}),
    ("new Promise(r => setTimeout(r, 20, 'late'))", "late"),
    ("10n ** 30n", 10**30),
    ("[-0, 1e300, undefined, '\\ud800']", [-0.0, 1e300, None, "\ud800"]),
    ("new URL('../b?x=1', 'http://h/a/c/d').href", "http://h/a/b?x=1"),
    ("structuredClone(new Map([[1, { a: [2] }]])).get(1).a", [2]),
    ("new TextDecoder().decode(new TextEncoder().encode('é€😀'))", "é€😀"),
    ("atob(btoa('hello'))", "hello"),
    ("crypto.randomUUID().length", 36),
    ("typeof Intl + typeof process + typeof module + typeof host", "undefined" * 4),
)

# Snippet, outcome, type, line.
FAILURES: tuple[tuple[str, int, str, int], ...] = (
    ("\nthrow new TypeError('x')", 1, "TypeError", 2),
    ("1;\n2;\nlet = ;", 1, "SyntaxError", 3),
    ("throw 5", 1, "Uncaught", 0),
    ("Promise.reject(new RangeError('r'))", 1, "RangeError", 1),
    ("setTimeout(() => { throw new Error('t') }, 5)", 1, "Error", 1),
    ("await new Promise(() => {})", 1, "Error", 0),
    ("const fs = require('lodash')", 3, "Error", 1),
    ("import fs from 'lodash'", 3, "ReferenceError", 1),
    ("1\nimport fs from 'fs'", 3, "SyntaxError", 2),
    ("await fetch('http://a.test/')", 3, "TypeError", 1),
    ("new Intl.NumberFormat()", 3, "ReferenceError", 1),
    ("'x'.repeat(3e6)", 2, "OutputTooLarge", 0),
    ("const a = []; for (;;) a.push(new Array(1000).fill(a))", 4, "OutOfMemory", 1),
)

# Each recurses without end in another part of the engine: all must end in an error of JavaScript.
RECURSIONS = (
    "(function f() { f() })()",
    "(function f(a, b, c) { return 1 + f(a, b, c) })(1, 2, 3)",
    "JSON.parse('['.repeat(1e6))",
    "JSON.parse('{\"a\":'.repeat(1e5) + '1' + '}'.repeat(1e5))",
    "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; JSON.stringify(a)",
    "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; a.flat(Infinity)",
    "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; String(a)",
    "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; structuredClone(a)",
    "let a = []; for (let i = 0; i < 1e5; i++) a = { a }; console.dir(a, { depth: null })",
    "new RegExp('(?:'.repeat(1e5) + ')'.repeat(1e5))",
    "new RegExp('['.repeat(1e5) + ']'.repeat(1e5), 'v')",
    "eval('['.repeat(1e5))",
    "eval('('.repeat(1e5))",
    "eval('{'.repeat(1e5) + '}'.repeat(1e5))",
    "eval('!'.repeat(1e5) + '1')",
    "eval('2**'.repeat(1e5) + '1')",
    "eval('1?'.repeat(1e5))",
    "eval('a='.repeat(1e5) + '1')",
    "eval('if(1)'.repeat(1e5) + '1')",
    "eval('()=>'.repeat(1e5) + '1')",
    "eval('`${'.repeat(1e5))",
    "eval('new '.repeat(1e5) + 'f')",
    "eval('class A extends '.repeat(1e5) + 'B{}')",
    "(function c() { [3, 2, 1].sort(c); return 0 })()",
    "(function c() { 'a'.replace(/a/, c) })()",
    "(function c() { Array.from([1], c) })()",
    "(function c() { eval('c()') })()",
    "const p = new Proxy({}, { get(t, k, r) { return r[k] } }); p.x",
    "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); p.x",
    "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); Object.keys(p)",
    "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); 'x' in p",
    "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); Object.getPrototypeOf(p)",
    "const o = { toString() { return '' + o } }; '' + o",
    "const o = { get x() { return this.x } }; o.x",
    "const o = { toJSON() { return JSON.stringify(o) } }; JSON.stringify(o)",
    "class A { constructor() { new A() } } new A()",
    "[...(function* g() { yield* g() })()]",
    "await (async function g() { await g() })()",
    "const o = { [Symbol.iterator]() { return [...o] } }; [...o]",
    "const o = { [Symbol.toPrimitive]() { return +o } }; +o",
    "const o = { valueOf() { return o * 1 } }; o * 1",
    "class A extends Array { static get [Symbol.species]() { return new A(1).map(x => x) } } new A(1).map(x => x)",
    "const o = { toString() { return new Headers([['a', o]]).get('a') } }; '' + o",
    "const o = { toString() { return String(new Blob([o]).size) } }; '' + o",
    "const o = { valueOf() { return Buffer.from(o) } }; Buffer.from(o)",
    "const o = { [Symbol.toPrimitive]() { return require('path').join(`${o}`) } }; `${o}`",
    "(() => {" * 20000,
    "[" * 50000,
)

# The most a snippet as small as the warm-up may write to: 0.15 MB is promised, the rest is the host's.
MOST_DIRTY_PAGES = 32


def check(wasm: bytes, *, max_wasm_stack: int, warm_up: str) -> None:
    """Raises `CheckError` for the first promise that the image breaks.

    Works in a thread of its own, whose stack is larger than the guest may ask for.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            _check(wasm, max_wasm_stack, warm_up)
        except BaseException as error:
            failures.append(error)

    before = threading.stack_size(max_wasm_stack + (16 << 20))
    worker = threading.Thread(target=work)
    worker.start()
    threading.stack_size(before)
    worker.join()
    if failures:
        raise failures[0]


def _check(wasm: bytes, max_wasm_stack: int, warm_up: str) -> None:
    module = Image(wasm, max_wasm_stack=max_wasm_stack, warm_up=warm_up)
    check_copy_on_write(wasm)
    check_interface(module)
    check_values(module)
    check_failures(module)
    check_recursion(module)
    check_freshness(module)
    check_determinism(module)
    grantcheck.check(module)
    check_dirty_pages(wasm, max_wasm_stack)


def check_interface(image: Image) -> None:
    exports = sorted(export.name for export in image.module.exports)
    expect(exports == sorted(ABI_EXPORTS), f"exports are {exports}")
    for wanted in image.module.imports:
        known = wanted.module == "wasmeval" or wanted.name in WASI_FUNCTIONS
        expect(known, f"imports {wanted.module}.{wanted.name}")


def check_values(image: Image) -> None:
    for code, value in VALUES:
        reply = image.evaluate(code)
        expect((reply.outcome, reply.flags) == (0, 0), f"{code!r} gave {reply}")
        expect(repr(reply.value) == repr(value), f"{code!r} gave {reply.value!r}, not {value!r}")
    reply = image.evaluate(
        "[xs, big, nan]", '{"xs": [1, {"a": "\\u00e9"}], "big": 12345678901234567890, "nan": NaN}'
    )
    expect(
        repr(reply.value) == repr([[1, {"a": "é"}], 12345678901234567890, float("nan")]),
        f"inputs gave {reply}",
    )
    reply = image.evaluate("new Set([1])")
    expect((reply.flags, reply.value) == (1, {"repr": "Set(1) { 1 }", "type": "Set"}), f"a Set gave {reply}")
    reply = image.evaluate(
        "console.log('out', { a: [1] }); console.error('err'); setTimeout(() => console.log('late'), 3)"
    )
    expect((reply.stdout, reply.stderr) == ("out { a: [ 1 ] }\nlate\n", "err\n"), f"the console gave {reply}")


def check_failures(image: Image) -> None:
    for code, outcome, kind, line in FAILURES:
        reply = image.evaluate(code, memory_bytes=64 << 20)
        got = (reply.outcome, reply.type, reply.line)
        expect(got == (outcome, kind, line), f"{code!r} gave {got}: {reply.message}")
        expect("boot" not in reply.traceback, f"{code!r} shows the harness: {reply.traceback}")
    reply = image.evaluate(
        "let n = 0; try { for (const a = []; ; n++) a.push(new Array(1e5)) } catch (e) { e.message }"
    )
    expect(reply.value == "out of memory", f"a caught lack of memory gave {reply}")


def check_recursion(image: Image) -> None:
    for code in RECURSIONS:
        try:
            reply = image.evaluate(code)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise CheckError(f"{code[:100]!r} trapped: {error}") from error
        expect(reply.type in ("RangeError", "SyntaxError"), f"{code[:100]!r} gave {reply}")


def check_freshness(image: Image) -> None:
    code = "[Math.random(), crypto.randomUUID(), ...crypto.getRandomValues(new Uint8Array(4))]"
    first, second = image.evaluate(code), image.evaluate(code)
    expect(
        all(a != b for a, b in zip(first.value[:2], second.value[:2], strict=True)),
        "two instances drew alike",
    )
    host = Host(now_ns=lambda: 2_000_000_000_123_000_000)
    reply = image.evaluate(
        "[Date.now(), performance.now() < 1000, performance.timeOrigin > 1.9e12]", host=host
    )
    expect(reply.value == [2_000_000_000_123, True, True], f"the clock gave {reply.value}")
    expect(
        image.evaluate("Object.keys(globalThis)").value == [], "the global object has names of the warm-up"
    )


def check_determinism(image: Image) -> None:
    def fuel(code: str) -> int:
        host = Host(entropy=lambda n: bytes(range(1, n + 1)), now_ns=lambda: 1_800_000_000_000_000_000)
        return image.evaluate(code, host=host).fuel

    for code in (
        "1 + 1",
        "console.log(Math.random(), [1, { a: 2 }]); [3, 1, 2].sort()",
        "await new Promise(r => setTimeout(r, 5))",
    ):
        expect(len({fuel(code) for _ in range(3)}) == 1, f"{code!r} does not use the same fuel each time")


def dirty_pages(wasm: bytes, max_wasm_stack: int, code: str = "1+1") -> int:
    """How many pages of the image one evaluation in a fresh instance leaves different."""
    image = Image(wasm, max_wasm_stack=max_wasm_stack, warm_up="")
    instance = image.instance(Host())
    memory, store = instance["memory"], instance["store"]
    before = bytes(memory.read(store, 0, memory.data_len(store)))
    call(instance, code.encode(), b"", 1024)
    after = bytes(memory.read(store, 0, memory.data_len(store)))
    return sum(
        before[i : i + HOST_PAGE_BYTES] != after[i : i + HOST_PAGE_BYTES]
        for i in range(0, len(after), HOST_PAGE_BYTES)
    )


def check_dirty_pages(wasm: bytes, max_wasm_stack: int) -> None:
    pages = dirty_pages(wasm, max_wasm_stack)
    expect(pages <= MOST_DIRTY_PAGES, f"1+1 writes to {pages} pages, {MOST_DIRTY_PAGES} at most")


def main() -> None:
    manifest = json.loads((IMAGES / "manifest.json").read_text())
    wasm = lzma.decompress((IMAGES / manifest["image"]["file"]).read_bytes())
    expect(sha256(wasm) == manifest["image"]["sha256"], "the image is not the manifest's")
    check(wasm, max_wasm_stack=manifest["max_wasm_stack"], warm_up=manifest["warm_up"])
    print(
        f"{manifest['interpreter']}: all well, {dirty_pages(wasm, manifest['max_wasm_stack'])} pages for 1+1"
    )


if __name__ == "__main__":
    main()
