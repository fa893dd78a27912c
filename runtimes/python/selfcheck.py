"""Self-check of the Python image: what abi.md and docs/python.md promise, under plain wasmtime-py.

The last gate of the build, and `python -m runtimes.python.selfcheck` at any time. It imports nothing of the service;
files, clock and entropy are Wasmtime's own, so that a mistake in the service's WASI cannot hide one in the image.
"""

from __future__ import annotations

import json
import lzma
import math
import os
import struct
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from runtimes.python import cases, grantcases
from runtimes.python.library import MOUNT, TIMESTAMP
from runtimes.python.scripted import ScriptedHost
from runtimes.snapshot import ABI_EXPORTS, check_copy_on_write

IMAGES = Path(__file__).resolve().parents[2] / "wasmeval" / "images" / "python"
FUEL = 60_000_000_000
MEMORY_BYTES = 256 << 20
HOST_PAGE_BYTES = 4096
VALUE, RAISED, TOO_LARGE, UNSUPPORTED, MEMORY = range(5)

# What the first and every later evaluation of `1+1` may dirty, in pages of 4 KiB.
FRESH_PAGES, WARM_PAGES = 48, 32


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
        self, code: str | bytes, inputs: str | dict[str, Any] | None = None, value_limit: int = 1 << 20
    ) -> Reply:
        for stream in self.output.values():
            stream.clear()
        source = code.encode() if isinstance(code, str) else code
        given = (inputs if isinstance(inputs, str) else json.dumps(inputs) if inputs else "").encode()
        flags = int(self.host is not None)
        frame = struct.pack("<HHIII", 1, flags, value_limit, len(source), len(given)) + source + given
        address = self.call("wasmeval_reserve", len(frame)) & 0xFFFF_FFFF
        self.memory.write(self.store, frame, address)
        before = self.store.get_fuel()
        result = self.call("wasmeval_evaluate", len(frame)) & (1 << 64) - 1
        return self._decode(self.read(result >> 32, result & 0xFFFF_FFFF), before - self.store.get_fuel())

    def _decode(self, frame: bytes, fuel: int) -> Reply:
        outcome, flags, *lengths, line, column = struct.unpack("<8I", frame[:32])
        parts, at = [], 32
        for length, most in zip(lengths, (1 << 32, 256, 8192, 32768), strict=True):
            require(length <= most, f"{length} bytes where {most} are the most")
            parts.append(frame[at : at + length].decode())
            at += length
        require(at == len(frame), f"a reply of {len(frame)} bytes says it has {at}")
        require((outcome == VALUE) == bool(parts[0]), f"outcome {outcome} with the value {parts[0][:40]!r}")
        require(outcome != VALUE or parts[1:] == ["", "", ""], "an error beside a value")
        value = json.loads(parts[0]) if parts[0] else None
        for number, path in self.spoken.items():
            self.output[number] += path.read_bytes()
        out, err = (bytes(self.output[n]).decode() for n in (1, 2))
        kind, message, traceback = parts[1:]
        return Reply(outcome, flags, value, kind, message, traceback, line, column, out, err, fuel)

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
        value_limit = options.pop("value_limit", 1 << 20)
        instance = Instance(self, **options)
        instance.evaluate("1+1")
        try:
            return instance.evaluate(code, inputs, value_limit)
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


# ---- the checks ------------------------------------------------------------------------------------------------


def check_interface(image: Image) -> None:
    exports = sorted(export.name for export in image.module.exports)
    require(exports == sorted(ABI_EXPORTS), f"exports {exports}")
    own = {(i.module, i.name) for i in image.module.imports if i.module != "wasi_snapshot_preview1"}
    require(own <= {("wasmeval", "host_call"), ("wasmeval", "host_read")}, f"imports {own}")


def check_values(image: Image) -> None:
    for code, wanted in cases.VALUES:
        reply = image.evaluate(code)
        require(reply.outcome == VALUE, f"{code!r}: {reply.type}: {reply.message}\n{reply.traceback}")
        require(
            reply.flags == 0 and same(reply.value, wanted), f"{code!r} is {reply.value!r}, not {wanted!r}"
        )


def check_values_that_are_not_json(image: Image) -> None:
    for code, text, kind in cases.NOT_JSON:
        reply = image.evaluate(code)
        require(reply.outcome == VALUE and reply.flags == 1, f"{code!r}: {reply}")
        require(reply.value == {"repr": text, "type": kind}, f"{code!r} is {reply.value!r}")


def check_inputs(image: Image) -> None:
    given = '{"a": 1, "b": [NaN, -Infinity], "c": "é\\ud83d\\ude00", "d": null, "e": true}'
    reply = image.evaluate("[a, b, c, d, e]", given)
    require(same(reply.value, [1, [math.nan, -math.inf], "é😀", None, True]), f"inputs came as {reply}")
    digits, most = "7" * 6000, sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    reply = image.evaluate("n + 1 if n % 2 else n", f'{{"n": {digits}}}')
    require(
        reply.outcome == VALUE and str(reply.value % 10**9) == "777777778", f"a long integer: {reply.message}"
    )
    sys.set_int_max_str_digits(most)


def check_errors(image: Image) -> None:
    for code, kind, message, line, column in cases.ERRORS:
        reply = image.evaluate(code)
        require(reply.outcome == RAISED, f"{code!r} has outcome {reply.outcome}: {reply.message}")
        told = (reply.type, reply.message, reply.line, reply.column)
        require(told == (kind, message, line, column), f"{code!r} is told as {told}")
        require(
            "_wasmeval" not in reply.traceback and not reply.stderr,
            f"{code!r}:\n{reply.traceback}{reply.stderr}",
        )
    for code, wanted in cases.TRACEBACKS:
        reply = image.evaluate(code)
        require(reply.traceback == wanted, f"{code!r} is told as\n{reply.traceback}")


def check_needs(image: Image) -> None:
    for code, need in cases.NEEDS:
        reply = image.evaluate(code)
        require(reply.outcome == UNSUPPORTED and need in reply.message, f"{code!r}: {reply}")
        require(
            reply.traceback.startswith("Traceback") and "_wasmeval" not in reply.traceback, reply.traceback
        )
        body = code.replace("\n", "\n    ")
        caught = image.evaluate(f"try:\n    {body}\nexcept BaseException:\n    seen = 1\nseen")
        require(caught.outcome == VALUE, f"{code!r} cannot be caught: {caught}")


def check_imports(image: Image) -> None:
    for name in cases.MODULES:
        reply = image.evaluate(f"import {name}\n1")
        require(reply.outcome == VALUE, f"import {name}: {reply.type}: {reply.message}\n{reply.traceback}")


def check_output(image: Image) -> None:
    reply = image.evaluate(
        "import sys\nprint('a', 'ü😀')\nprint('b', file=sys.stderr)\n"
        "print('c', end='')\nsys.stderr.write('\\udc80')"
    )
    require((reply.stdout, reply.stderr) == ("a ü😀\nc", "b\n\\udc80"), f"{reply}")
    reply = image.evaluate(
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as f:\n    print('x')\nf.getvalue()"
    )
    require((reply.value, reply.stdout) == ("x\n", ""), f"{reply}")
    reply = image.evaluate("import atexit\natexit.register(print, 'bye')\nprint('hello')\n1/0")
    require(reply.stdout == "hello\nbye\n", f"exit functions: {reply.stdout!r}")


def check_exits(image: Image) -> None:
    for code in ("import sys; sys.exit()", "exit(0)", "raise SystemExit"):
        reply = image.evaluate(code)
        require(reply.outcome == VALUE and reply.value is None, f"{code!r}: {reply}")
    reply = image.evaluate("import sys\nsys.exit(3)")
    require(
        (reply.outcome, reply.type, reply.message, reply.stderr) == (RAISED, "SystemExit", "3", ""),
        f"{reply}",
    )
    reply = image.evaluate("import sys\nsys.exit('no more')")
    require(
        (reply.outcome, reply.message, reply.stderr, reply.line) == (RAISED, "no more", "no more\n", 2),
        f"{reply}",
    )


def check_limits(image: Image) -> None:
    for code in cases.LARGE:
        reply = image.evaluate(code, value_limit=1000)
        require(
            reply.outcome == TOO_LARGE and reply.message.endswith("output_bytes (1000)"), f"{code!r}: {reply}"
        )
    require(image.evaluate("'x' * 998", value_limit=1000).outcome == VALUE, "a value of just output_bytes")
    for code in cases.MEMORY:
        reply = image.evaluate(code, memory_bytes=64 << 20)
        require((reply.outcome, reply.type) == (MEMORY, "MemoryError"), f"{code!r}: {reply}")
    reply = image.evaluate(
        "try:\n    x = [0] * 10**9\nexcept MemoryError:\n    x = 'caught'\nx", memory_bytes=64 << 20
    )
    require(reply.value == "caught", f"{reply}")
    reply = image.evaluate("raise ValueError('x' * 10**6)")
    require(len(reply.message.encode()) <= 8192 and reply.message.endswith("x"), "a long message")


def check_recursion(image: Image) -> None:
    for code in cases.RECURSIONS:
        reply = image.evaluate(code)
        require(reply.outcome in (VALUE, RAISED, MEMORY), f"{code[:90]!r}: {reply}")
    for code in cases.RECURSION_ERRORS:
        reply = image.evaluate(code)
        require(reply.type == "RecursionError", f"{code[:90]!r}: {reply.type} {reply.message}")


def check_freshness(image: Image) -> None:
    for code in cases.RANDOM:
        seen = {json.dumps(image.evaluate(code).value) for _ in range(3)}
        require(len(seen) == 3, f"{code!r} gives {seen}")
    now = time.time()
    reply = image.evaluate(
        "import time, datetime\n[time.time(), datetime.datetime.now().timestamp(), time.localtime().tm_zone]"
    )
    require(all(abs(moment - now) < 60 for moment in reply.value[:2]), f"clock: {reply.value}")
    require(reply.value[2] == "UTC", f"time zone: {reply.value}")
    reply = image.evaluate(
        "import time\na = time.monotonic()\ntime.sleep(0.05)\nround(time.monotonic() - a, 1)"
    )
    require(reply.value == 0.1 or reply.value == 0.0, f"sleep: {reply}")
    instance = Instance(image)
    instance.evaluate("import math\nleft = 1\nmath.left = 1")
    reply = instance.evaluate("sorted(name for name in globals() if not name.startswith('__'))")
    require(reply.value == [], f"names left over: {reply.value}")


def check_fuel(image: Image) -> None:
    for code in ("1+1", *cases.TRAINED):
        used = {image.evaluate(code).fuel for _ in range(3)}
        require(len(used) == 1, f"{code!r} uses {used} fuel")


def check_dirty_pages(image: Image) -> None:
    counts = []
    for warm in (False, True):
        instance = Instance(image)
        if warm:
            instance.evaluate("1+1")
        before = instance.all_memory()
        instance.evaluate("1+1")
        counts.append(sum(1 for _ in _changed_pages(before, instance.all_memory())))
    print(f"python: 1+1 dirties {counts[0]} pages, {counts[1]} after the warm-up", flush=True)
    require(counts[0] <= FRESH_PAGES and counts[1] <= WARM_PAGES, f"pages dirtied by 1+1: {counts}")


def _changed_pages(before: bytes, after: bytes) -> Iterator[int]:
    for start in range(0, len(after), HOST_PAGE_BYTES):
        if before[start : start + HOST_PAGE_BYTES] != after[start : start + HOST_PAGE_BYTES]:
            yield start


def check_case(image: Image, case: grantcases.Case, host: ScriptedHost, folder: Path | None = None) -> None:
    code, wanted = case
    reply = image.evaluate(code, host=host, folder=folder)
    if isinstance(wanted, grantcases.Raises):
        kind, text = wanted
        require(
            reply.type == kind and text in reply.message, f"{code!r} is told as {reply.type}: {reply.message}"
        )
        require("_wasmeval" not in reply.traceback or "_wasmeval_http" in reply.traceback, reply.traceback)
    else:
        require(reply.outcome == VALUE, f"{code!r}: {reply.type}: {reply.message}\n{reply.traceback}")
        require(
            reply.flags == 0 and same(reply.value, wanted), f"{code!r} is {reply.value!r}, not {wanted!r}"
        )


def check_tools(image: Image) -> None:
    most = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    for case in grantcases.TOOLS:
        check_case(image, case, grantcases.tool_host())
    sys.set_int_max_str_digits(most)
    host = grantcases.tool_host()
    code = "import asyncio\nasync def main():\n    async with asyncio.timeout(0.01):\n        await never.aio()\nasyncio.run(main())"
    image.evaluate(code, host=host)
    require(host.dropped == [1], f"a cancelled call is not dropped: {host.dropped}")
    require(all(number == 0 for _, number in host.waits), f"a loop waits for one call alone: {host.waits}")
    reply = image.evaluate("search.aio(1)\nNone", host=host)
    require("'search.aio' was never awaited" in reply.stderr, f"{reply}")


def check_http(image: Image) -> None:
    for case in grantcases.HTTP:
        check_case(image, case, grantcases.http_host())
    host = grantcases.http_host()
    image.evaluate("import requests\nrequests.get('https://stream.test/', stream=True).close()", host=host)
    require(host.dropped == [1000], f"a body that is not read is not dropped: {host.dropped}")


def check_files(image: Image) -> None:
    for case in grantcases.FILES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "workspace"
            folder.mkdir()
            (folder / "helper.py").write_text("answer = 42\n")
            check_case(image, case, grantcases.tool_host(), folder)


CHECKS: tuple[Callable[[Image], None], ...] = (
    check_interface,
    check_values,
    check_values_that_are_not_json,
    check_inputs,
    check_errors,
    check_needs,
    check_imports,
    check_output,
    check_exits,
    check_limits,
    check_freshness,
    check_tools,
    check_http,
    check_files,
    check_fuel,
    check_dirty_pages,
    check_recursion,
)


# ---- running them ----------------------------------------------------------------------------------------------


@contextmanager
def _mounted(library: bytes) -> Iterator[Path]:
    """A folder that stands for the guest's `/`, with the library in its place."""
    with tempfile.TemporaryDirectory() as folder:
        archive, root = Path(folder) / "library.zip", Path(folder) / "root"
        archive.write_bytes(library)
        with zipfile.ZipFile(archive) as content:
            content.extractall(root / MOUNT.strip("/"))
        for name in ("workspace", "tmp"):
            (root / name).mkdir()
        for path in [root, *root.rglob("*")]:
            os.utime(path, (TIMESTAMP, TIMESTAMP))
        yield root


def check(wasm: bytes, library: bytes, max_wasm_stack: int, only: str = "") -> None:
    """Runs every check. Raises CheckError for the first promise that is broken."""
    if not only:
        check_copy_on_write(wasm)
    with _mounted(library) as root:
        image = Image(wasm, root, max_wasm_stack)
        for function in CHECKS:
            if only in function.__name__:
                start = time.monotonic()
                function(image)
                print(f"python: {function.__name__} passed in {time.monotonic() - start:.1f} s", flush=True)


def check_on_thread(wasm: bytes, library: bytes, max_wasm_stack: int, only: str = "") -> None:
    """The same on a thread whose stack has room for `max_wasm_stack`; the main thread's is what the shell allows."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            check(wasm, library, max_wasm_stack, only)
        except BaseException as error:  # handed to the caller's thread
            failures.append(error)

    before = threading.stack_size(max_wasm_stack + (8 << 20))
    thread = threading.Thread(target=run)
    thread.start()
    threading.stack_size(before)
    thread.join()
    if failures:
        raise failures[0]


def main() -> None:
    manifest = json.loads((IMAGES / "manifest.json").read_text())
    wasm, library = (
        lzma.decompress((IMAGES / manifest[name]["file"]).read_bytes()) for name in ("image", "library")
    )
    check_on_thread(wasm, library, manifest["max_wasm_stack"], *sys.argv[1:2])


if __name__ == "__main__":
    main()
