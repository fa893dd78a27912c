"""Self-check of the Python image: what abi.md and docs/python.md promise, under plain wasmtime-py.

The last gate of the build, and `python -m runtimes.python.selfcheck` at any time. It imports nothing of the service;
files, clock and entropy are Wasmtime's own, so that a mistake in the service's WASI cannot hide one in the image.
"""

from __future__ import annotations

import itertools
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
from pathlib import Path

from runtimes.python import cases
from runtimes.python.grantcheck import check_files, check_http, check_tools
from runtimes.python.instances import (
    IS_ELSEWHERE,
    MEMORY,
    RAISED,
    TOO_LARGE,
    UNSUPPORTED,
    VALUE,
    Image,
    Instance,
    require,
    same,
)
from runtimes.python.library import MOUNT, TIMESTAMP
from runtimes.snapshot import ABI_EXPORTS, check_copy_on_write

IMAGES = Path(__file__).resolve().parents[2] / "wasmeval" / "images" / "python"
HOST_PAGE_BYTES = 4096

# What the first and every later evaluation of `1+1` may dirty, in pages of 4 KiB.
FRESH_PAGES, WARM_PAGES = 48, 32


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


def check_arrays(image: Image) -> None:
    for code, value, dtype, shape in cases.ARRAYS:
        reply = image.evaluate("import numpy as np\n" + code)
        require(reply.outcome == VALUE, f"{code!r}: {reply.type}: {reply.message}\n{reply.traceback}")
        require(same(reply.value, value), f"{code!r} is {reply.value!r}, not {value!r}")
        told = reply.array[:2] if reply.array else ("", ())
        require(told == (dtype, shape), f"{code!r} is an array {told}")
        require((reply.flags & IS_ELSEWHERE != 0) == (reply.array is not None), f"{code!r}: {reply.flags}")


def check_arrays_as_inputs(image: Image) -> None:
    given = (
        ("x", "<f8", (2, 1), struct.pack("<2d", 1.5, -2)),
        ("y", ">u2", (), b"\1\2"),
        ("z", "<M8[s]", (0, 3), b""),
    )
    records = b"".join(itertools.starmap(_record, given))
    for length in range(17):
        code = f"#{'c' * length}\nx[0] += n\nx.ctypes.data % 16, x.flags.owndata, x, y, str(z.dtype), z.shape"
        reply = image.evaluate(code, {"n": 1}, arrays=records)
        wanted = [0, False, [[2.5], [-2.0]], 258, "datetime64[s]", [0, 3]]
        require(same(reply.value, wanted), f"arrays came as {reply}")
    reply = image.evaluate("x", arrays=records)
    require(reply.array == given[0][1:], f"an array came back as {reply.array}")
    for broken in (
        records[:-1],
        records[:20],
        _record("x", "|O", (1,), bytes(8)),
        _record("x", "<f8", (3,), bytes(8)),
    ):
        reply = image.evaluate("x", arrays=broken)
        require(reply.outcome == RAISED and "array" in reply.message, f"a broken record gives {reply}")


def _record(name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    head = struct.pack("<4I", len(name), len(dtype), len(shape), len(data)) + struct.pack(
        f"<{len(shape)}Q", *shape
    )
    head += (name + dtype).encode()
    return head + bytes(-len(head) % 16) + data + bytes(-len(data) % 16)


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


CHECKS: tuple[Callable[[Image], None], ...] = (
    check_interface,
    check_values,
    check_values_that_are_not_json,
    check_arrays,
    check_arrays_as_inputs,
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
