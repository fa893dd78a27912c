"""The checker of import layers finds what it is there to find; the package itself passes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_layers import check

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "wasmeval" / "wasm").mkdir(parents=True)
    for name in ("__init__", "errors", "limits", "model", "pool", "service", "client", "wasm/__init__"):
        (tmp_path / "wasmeval" / f"{name}.py").touch()
    return tmp_path


def write(root: Path, module: str, text: str) -> None:
    (root / "wasmeval" / f"{module}.py").write_text(text)


def test_this_package_keeps_its_layers() -> None:
    assert check(ROOT) == []


def test_an_import_downwards_is_fine(package: Path) -> None:
    write(package, "service", "from wasmeval.pool import x\nfrom wasmeval import errors, __version__\n")
    assert check(package) == []


@pytest.mark.parametrize(
    "statement",
    [
        "from wasmeval.service import x",
        "from wasmeval import service",
        "import wasmeval.service",
        "from . import service",
        "from .service import x",
        "def f():\n    from wasmeval.service import x",
    ],
)
def test_an_import_upwards_is_found_however_it_is_written(package: Path, statement: str) -> None:
    write(package, "pool", statement)
    line = statement.count("\n") + 1
    assert check(package) == [
        f"wasmeval/pool.py:{line}: wasmeval.pool imports wasmeval.service, which is not in a lower layer"
    ]


def test_an_import_for_types_alone_is_exempt(package: Path) -> None:
    write(
        package,
        "errors",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wasmeval.model import X\n",
    )
    assert check(package) == []


def test_a_client_may_not_import_what_only_a_server_has(package: Path) -> None:
    write(package, "client", "from wasmeval.pool import x\n")
    [line] = check(package)
    assert line.startswith("wasmeval/client.py:1: wasmeval.client imports wasmeval.pool; it may only import")


def test_wasmtime_stays_in_its_room(package: Path) -> None:
    write(package, "pool", "import wasmtime.loader\n")
    assert check(package) == [
        "wasmeval/pool.py:1: wasmeval.pool imports wasmtime.loader, which only wasm may"
    ]


def test_a_circle_inside_a_room_is_found(package: Path) -> None:
    write(package, "wasm/a", "from wasmeval.wasm.b import x\n")
    write(package, "wasm/b", "from wasmeval.wasm import a\n")
    [line] = check(package)
    assert line.startswith("import cycle: wasmeval.wasm.")


def test_a_new_module_needs_a_place(package: Path) -> None:
    write(package, "novelty", "")
    assert check(package) == ["wasmeval.novelty has no place in LAYERS"]
