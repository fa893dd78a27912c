"""Between two steps an image's instance is its memory and nothing else: globals and tables are as in the image."""

from __future__ import annotations

import lzma
import struct
import zipfile
from pathlib import Path

import pytest

from runtimes.snapshot import Guest
from wasmeval.runtimes import Catalogue

STEPS = {
    "python": (
        "import json, re, collections; x = [1]\ndef f(n): return f(n - 1) + 1 if n else 0",
        "f(300); {}['missing']",
        "def deep(n): return deep(n + 1)\ndeep(0)",
        "g = (i for i in range(9)); next(g)",
        "y = bytearray(30_000_000); len(y)",
        "import sys; sys.exit(3)",
        "x = = 1",
    ),
    "javascript": (
        "let x = [1]; function f(n) { return n ? f(n - 1) + 1 : 0 }",
        "f(300); null.missing",
        "function deep(n) { return deep(n + 1) + 1 } deep(0)",
        "function* g() { yield 1; yield 2 } const h = g(); h.next()",
        "const y = new Uint8Array(30_000_000); await Promise.resolve(y.length)",
        "new Promise(() => {})",
        "x = = 1",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("language", STEPS)
def test_a_step_leaves_globals_and_tables_as_they_were(language: str, tmp_path: Path) -> None:
    runtime = Catalogue.installed().for_language(language)
    image = lzma.decompress(runtime.image.path.read_bytes())
    if runtime.library is not None:
        archive = tmp_path / "library.zip"
        archive.write_bytes(lzma.decompress(runtime.library.path.read_bytes()))
        zipfile.ZipFile(archive).extractall(tmp_path / "root" / runtime.library_mount.strip("/"))
    for name in ("workspace", "tmp"):
        (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
    with Guest(image, root=tmp_path / "root", max_wasm_stack=runtime.max_wasm_stack) as guest:
        before = guest.capture()
        for code in STEPS[language]:
            source = code.encode()
            # Version 1, a step.
            frame = struct.pack("<HHIII", 1, 2, 1 << 20, len(source), 0) + source
            guest.write(guest.call("wasmeval_reserve", len(frame)), frame)
            assert guest.call("wasmeval_evaluate", len(frame)) & 0xFFFFFFFF > 32
            # Raises when a table has changed.
            after = guest.capture()
            assert after.globals == before.globals
        assert len(after.memory) > len(before.memory)
