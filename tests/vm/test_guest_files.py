"""The files that a guest gets are all there, in a checkout and in a wheel."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from wasmeval.vm.guest import SHARED, guest_files

ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_carries_what_the_harnesses_share_with_the_images() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {
        home: f"wasmeval/vm/guest/shared/{name}" for name, home in SHARED.items()
    }


def test_every_file_is_there_once_and_is_the_images_own() -> None:
    files = guest_files()
    assert {"python.py", "javascript.cjs", "_wasmeval.py", "values.cjs", *SHARED} <= set(files)
    assert "__init__.py" not in files
    for name, home in SHARED.items():
        assert files[name] == (ROOT / home).read_bytes()


def test_the_harness_is_python_3_9() -> None:
    for name, content in guest_files().items():
        if name.endswith(".py"):
            ast.parse(content, name, feature_version=(3, 9))
