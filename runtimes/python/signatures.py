"""Signatures: no function of NumPy is called through a pointer of another type, which traps in WebAssembly.

Native machines forgive a missing or spare argument, so such calls are found nowhere else. Two gates over all sources of
our modules: the compiler names casts between function types, and what tables of methods say is held against the
functions that they name, whose casts to `PyCFunction` are meant.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtimes.toolchain import ToolchainError, Zig

_CAST = re.compile(r"^(\S+?):(\d+):\d+: warning: cast from '(.*?)' .*to '(\w+ ?\*?)'", re.M)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")

# Casts that are undone before the call, and one to a type that nothing calls through.
_MEANT = frozenset(
    {
        "PyCFunction",  # tables of methods
        "PyArray_MaskedStridedUnaryOp *",  # kept as a PyArrayMethod_StridedLoop
        "PyArrayMethod_StridedLoop *",
        "PyArray_FillWithScalarFunc *",  # kept for extensions that no longer exist
    }
)

_DEFINITION = re.compile(r"^(\w+)\(([^;{}]*?)\)\s*\{", re.M)
_METHOD = re.compile(r'\{\s*"(\w+)"\s*,\s*(?:\([^"{}]*?\))?\s*(\w+)\s*,\s*(METH_[A-Z_|\s]+)')
_ARGUMENTS = {
    ("METH_NOARGS",): 2,
    ("METH_O",): 2,
    ("METH_VARARGS",): 2,
    ("METH_KEYWORDS",): 3,
    ("METH_KEYWORDS", "METH_VARARGS"): 3,
    ("METH_FASTCALL",): 3,
    ("METH_FASTCALL", "METH_KEYWORDS"): 4,
}


def check(source: Path, made: Path, objects: list[str], zig: Zig) -> None:
    """Raises `ToolchainError` that names every wrong one. `made` is the build folder, `source` NumPy's."""
    entries = json.loads((made / "compile_commands.json").read_text())
    wanted = set(objects)
    commands = [entry["command"] for entry in entries if entry["output"] in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda command: _compiler_says(command, made, zig), commands))
    wrong = sorted({cast for text in said for cast in _wrong_casts(text)})
    wrong += list(_wrong_methods(source / "numpy"))
    if wrong:
        raise ToolchainError("functions are called through pointers of another type:\n" + "\n".join(wrong))


def _compiler_says(command: str, made: Path, zig: Zig) -> str:
    words = shlex.split(command)
    at = words.index("-o")
    words[at : at + 2] = ["-fsyntax-only", "-Wno-everything", "-Wcast-function-type-mismatch"]
    done = subprocess.run(
        words, cwd=made, env=zig.environment, capture_output=True, text=True, check=False, errors="replace"
    )
    if done.returncode:
        raise ToolchainError(f"{' '.join(words)[:400]} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return _COLOUR.sub("", done.stderr)


def _wrong_casts(text: str) -> Iterator[str]:
    for file, line, before, after in _CAST.findall(text):
        if after not in _MEANT:
            yield f"{Path(file).name}:{line}: {before} as {after}"


def _wrong_methods(package: Path) -> Iterator[str]:
    """Methods whose function has another number of parameters than their flags ask for."""
    texts = [path.read_text(errors="replace") for path in _sources(package)]
    parameters: dict[str, set[int]] = {}
    for text in texts:
        for name, given in _DEFINITION.findall(text):
            parameters.setdefault(name, set()).add(_count(given))
    for text in texts:
        for name, function, flags in _METHOD.findall(text):
            kinds = sorted(
                set(re.findall(r"METH_\w+", flags)) - {"METH_CLASS", "METH_STATIC", "METH_COEXIST"}
            )
            wanted = _ARGUMENTS.get(tuple(kinds))
            found = parameters.get(function)
            if wanted is None or (found and wanted not in found):
                has = " or ".join(map(str, sorted(found or {0})))
                yield f"method {name}: {function} has {has} parameters, {' | '.join(kinds)} has {wanted}"


def _sources(package: Path) -> Iterator[Path]:
    for path in sorted(package.rglob("*")):
        if path.name.endswith((".c", ".cpp", ".c.src")) and "f2py" not in path.parts:
            yield path


def _count(parameters: str) -> int:
    plain = re.sub(r"NPY_UNUSED\((\w+)\)", r"\1", parameters).strip()
    return 0 if plain in ("", "void") else plain.count(",") + 1
