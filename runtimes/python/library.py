"""The library of the Python image: a folder tree for the build, and the same tree as one zip for the host to mount.

Sources and compiled bytecode lie as `importlib` expects them on a read-only folder (`__pycache__`, unchecked-hash), so
that nothing is compiled at run time. Times, order and bytes are the same in every build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from runtimes.python import packages

PYTHON = "3.13"
MOUNT = f"/usr/lib/python{PYTHON}"

# Left out: tests, what draws on a screen, what installs packages.
EXCLUDED = frozenset(
    "__phello__ __hello__.py antigravity.py ensurepip idlelib pydoc_data site-packages test this.py tkinter "
    "turtle.py turtledemo venv tests _aix_support.py _android_support.py _apple_support.py _ios_support.py "
    "_osx_support.py build-details.json".split()
)

# 1980, the first moment a zip can say, and what the host tells of every file: `importlib` compares it with the time
# of a folder whose names it remembers.
TIMESTAMP = 315_532_800
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

# linecache drops names in angle brackets; the lines of the snippet, or of a session's step, are where the reactor has
# them.
_LINECACHE_ANCHOR = """    entry = cache.pop(filename, None)
    if not filename or (filename.startswith('<') and filename.endswith('>')):
        return []
"""
_LINECACHE_SNIPPET = """    if filename == '<snippet>' or filename.startswith('<step '):
        import _wasmeval
        text = _wasmeval.source(filename)
        if text is not None:
            lines = [line + '\\n' for line in text.splitlines()]
            cache[filename] = len(text), None, lines, filename
            return lines

"""

# Records say how long after the start they were made; the image was started long ago.
_LOGGING_ANCHOR = "_startTime = time.time_ns()\n"
_LOGGING_START = "_startTime = None\n"
_LOGGING_USE = "        self.relativeCreated = (ct - _startTime) / 1e6\n"
_LOGGING_FIRST_USE = """        global _startTime
        if _startTime is None:
            _startTime = ct
        self.relativeCreated = (ct - _startTime) / 1e6
"""

PATCHES: dict[str, tuple[tuple[str, str], ...]] = {
    "linecache.py": ((_LINECACHE_ANCHOR, _LINECACHE_SNIPPET + _LINECACHE_ANCHOR),),
    "logging/__init__.py": ((_LOGGING_ANCHOR, _LOGGING_START), (_LOGGING_USE, _LOGGING_FIRST_USE)),
}

# Runs under the native interpreter of the same version: bytecode is its own.
_COMPILE = """
import py_compile, sys
root, mount = sys.argv[1:3]
for line in sys.stdin:
    name = line.rstrip("\\n")
    py_compile.compile(f"{root}/{name}", dfile=f"{mount}/{name}", doraise=True, optimize=0,
                       invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def build_tree(
    root: Path,
    *,
    source: Path,
    wheels: Sequence[Path],
    own: Sequence[Path],
    tzdata: Path,
    sysconfig: Path,
    python: Path,
    build: Path,
    add: Callable[[Path], None],
) -> None:
    """Fills `root` (made anew) with the library: CPython's own, packages, our folders over it, time zones, bytecode.

    `build` is the folder whose name must not stand in it; `add` is called with the tree before bytecode is made.
    """
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(source, root, ignore=_ignored)
    for wheel in wheels:
        packages.add(wheel, root)
    add(root)
    for folder in own:
        packages.copy(folder, root)
    with zipfile.ZipFile(tzdata) as wheel:
        for name in wheel.namelist():
            if name.startswith("tzdata/"):
                wheel.extract(name, root)
    (root / sysconfig.name).write_text(sysconfig.read_text().replace(str(build), "/build"))
    for name, changes in PATCHES.items():
        _patch(root / name, changes)
    compile_tree(root, python)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (TIMESTAMP, TIMESTAMP))


def _ignored(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in EXCLUDED or name == "__pycache__" or name.endswith(".exe")}


def _patch(path: Path, changes: tuple[tuple[str, str], ...]) -> None:
    text = path.read_text()
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{path.name} has changed: {old.strip()!r} stands there {text.count(old)} times")
        text = text.replace(old, new)
    path.write_text(text)


def compile_tree(root: Path, python: Path) -> None:
    """Writes the bytecode of every module below `root`."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.py"))
    subprocess.run(
        [python, "-I", "-S", "-c", _COMPILE, root, MOUNT],
        input="\n".join(names).encode(),
        check=True,
        env={"PYTHONHASHSEED": "0", "PATH": os.defpath},
    )


def add_modules(root: Path, modules: Path, python: Path) -> None:
    """Adds modules to a tree that is packed already: found while the image is made, and never later."""
    for path in sorted(modules.glob("*.py")):
        shutil.copy(path, root / path.name)
    compile_tree(root, python)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (TIMESTAMP, TIMESTAMP))


def pack_tree(root: Path, target: Path) -> None:
    """The tree as a zip of stored entries, sorted, without folders of its own."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _ZIP_TIME)
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, path.read_bytes())
