"""Packages: what the library holds of PyPI beside CPython's own modules: pure Python, pinned, with its licences."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from runtimes import toolchain
from runtimes.toolchain import Source

PACKAGES = ("requests", "urllib3", "idna", "charset-normalizer")

# Command lines, and what is for other platforms.
_LEFT_OUT = ("__main__.py", "/cli/", "/cli.py", "/emscripten/", "/pyopenssl.py", "/socks.py")


def fetch(source: Source) -> Path:
    """The package's wheel."""
    return toolchain.fetch(source)[0]


def add(wheel: Path, root: Path) -> None:
    """Adds a wheel's modules to the library, and of its metadata what `importlib.metadata` answers with."""
    with zipfile.ZipFile(wheel) as content:
        for name in content.namelist():
            if ".dist-info/" in name:
                if name.endswith("/METADATA"):
                    target = root / name
                    target.parent.mkdir()
                    target.write_bytes(content.read(name).split(b"\n\n")[0] + b"\n")
            elif name.endswith(".py") and not any(part in name for part in _LEFT_OUT):
                content.extract(name, root)


def write_licence(wheel: Path, target: Path) -> Path:
    """Writes the licence texts of a wheel as one file, and returns it."""
    with zipfile.ZipFile(wheel) as content:
        names = sorted(name for name in content.namelist() if ".dist-info/licenses/" in name)
        target.write_bytes(b"\n".join(content.read(name) for name in names))
    return target


def copy(folder: Path, root: Path) -> None:
    """Adds a folder of modules of our own to the library, over what is there."""
    shutil.copytree(folder, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
