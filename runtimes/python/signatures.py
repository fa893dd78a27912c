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
from collections.abc import Iterable, Iterator
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

_HEAD = re.compile(r"\n(\w+)\(")
_PARAMETERS = re.compile(r"([^;{}]*?)\)\s*\{")
_METHOD = re.compile(
    r'\{\s*(?:"|STR\()(\w+)["\)]\s*,\s*(?:\([^"{}]*?\))?\s*([\w#]+)\s*,\s*((?:METH_[A-Z]+[\s|]*)+)'
)
_FLAG = re.compile(r"(?<!\w)METH_[A-Z]+")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
# What no text here defines, each with what is known of it.
_NOT_READ = {
    "Py_GenericAlias": "CPython's: an origin and arguments, as METH_O passes them",
    "lapack_lite_##name": "a macro makes the entries, and each function of that start has self and args",
}
_ARGUMENTS = {
    ("METH_NOARGS",): 2,
    ("METH_O",): 2,
    ("METH_VARARGS",): 2,
    ("METH_KEYWORDS",): 3,
    ("METH_KEYWORDS", "METH_VARARGS"): 3,
    ("METH_FASTCALL",): 3,
    ("METH_FASTCALL", "METH_KEYWORDS"): 4,
}

Definitions = list[tuple[str, bool, int]]
"""Of functions: the name, whether it is static, and how many parameters there are."""


def check(made: Path, objects: list[str], zig: Zig) -> None:
    """Raises `ToolchainError` that names every wrong one. `made` is the build folder."""
    entries = json.loads((made / "compile_commands.json").read_text())
    wanted = set(objects)
    entries = [entry for entry in entries if entry["output"] in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda entry: _compiler_says(entry["command"], made, zig), entries))
    wrong = sorted({cast for text in said for cast in _wrong_casts(text)})
    # Cython writes its tables and their functions together.
    wrong += _wrong_methods(
        sorted({made / entry["file"] for entry in entries if ".pyx." not in entry["file"]})
    )
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


def _wrong_methods(sources: list[Path]) -> Iterator[str]:
    """Methods whose function has another number of parameters than their flags ask for, or is not found.

    The sources are those that are compiled: what a template makes, and not the template.
    """
    texts = {path: path.read_text(errors="replace") for path in sources}
    tables = {path: _COMMENT.sub("", text) for path, text in texts.items() if "PyMethodDef" in text}
    methods = {path: _METHOD.findall(text) for path, text in tables.items()}
    names = {function for found in methods.values() for _, function, _ in found}
    definitions = {path: _definitions(text, names) for path, text in texts.items()}
    for path, text in tables.items():
        yield from _unread_flags(path, text, methods[path])
        for name, function, flags in methods[path]:
            found = _own(function, definitions[path]) or _shared(function, definitions.values())
            if wrong := _wrong_method(function, found, _FLAG.findall(flags)):
                yield f"method {name}: {wrong}"


def _unread_flags(path: Path, text: str, methods: list[tuple[str, str, str]]) -> Iterator[str]:
    present = len(_FLAG.findall(text))
    read = sum(len(_FLAG.findall(flags)) for *_, flags in methods)
    if read != present:
        yield f"{path.name}: of {present} flags of methods {read} stand where they can be read"


def _definitions(text: str, names: set[str]) -> Definitions:
    found: Definitions = []
    for head in _HEAD.finditer(text):
        if head[1] in names and (parameters := _PARAMETERS.match(text, head.end())):
            is_static = "static" in text[text.rfind("\n", 0, head.start()) + 1 : head.start()]
            found.append((head[1], is_static, _count(parameters[1])))
    return found


def _own(function: str, definitions: Definitions) -> set[int]:
    return {count for name, _, count in definitions if name == function}


def _shared(function: str, files: Iterable[Definitions]) -> set[int]:
    """Of functions that other files see."""
    return {
        count
        for definitions in files
        for name, is_static, count in definitions
        if name == function and not is_static
    }


def _wrong_method(function: str, found: set[int], flags: list[str]) -> str:
    kinds = tuple(sorted(set(flags) - {"METH_CLASS", "METH_STATIC", "METH_COEXIST"}))
    if not found:
        return "" if function in _NOT_READ else f"{function} is not found"
    wanted = _ARGUMENTS.get(kinds)
    if found == {wanted}:
        return ""
    has = " or ".join(map(str, sorted(found)))
    return f"{function} has {has} parameters, {' | '.join(kinds)} has {wanted}"


def _count(parameters: str) -> int:
    plain = re.sub(r"NPY_UNUSED\((\w+)\)", r"\1", parameters).strip()
    return 0 if plain in ("", "void") else plain.count(",") + 1
