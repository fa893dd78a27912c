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
import threading
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


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def request(code: bytes, inputs: bytes = b"", value_limit: int = 1 << 20) -> bytes:
    """A request frame of the ABI."""
    return struct.pack("<HHIII", 1, 0, value_limit, len(code), len(inputs)) + code + inputs


def call(instance: dict[str, Any], code: bytes, inputs: bytes, value_limit: int) -> bytes:
    """One request through the exports: the bytes of the reply frame."""
    store, memory, exports = instance["store"], instance["memory"], instance["exports"]
    frame = request(code, inputs, value_limit)
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


# ---- the checks ------------------------------------------------------------------------------------------------

WASI_FUNCTIONS = {
    "clock_time_get",
    "clock_res_get",
    "random_get",
    "poll_oneoff",
    "fd_write",
    "fd_close",
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
    ("typeof Intl + typeof process + typeof require + typeof host", "undefined" * 4),
)

# Snippet, outcome, type, line.
FAILURES: tuple[tuple[str, int, str, int], ...] = (
    ("\nthrow new TypeError('x')", 1, "TypeError", 2),
    ("1;\n2;\nlet = ;", 1, "SyntaxError", 3),
    ("throw 5", 1, "Uncaught", 0),
    ("Promise.reject(new RangeError('r'))", 1, "RangeError", 1),
    ("setTimeout(() => { throw new Error('t') }, 5)", 1, "Error", 1),
    ("await new Promise(() => {})", 1, "Error", 0),
    ("const fs = require('fs')", 3, "ReferenceError", 1),
    ("import fs from 'fs'", 3, "SyntaxError", 1),
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
    "(() => {" * 20000,
    "[" * 50000,
)

# The most a snippet as small as the warm-up may write to: 0.15 MB is promised, the rest is the host's.
MOST_DIRTY_PAGES = 32


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise CheckError(what)


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
