"""A wheel built from this tree works in an environment that has nothing else of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from wasmeval.vm.guest import guest_files

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints; it must succeed, away from this tree and its environment."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    [path] = distributions.glob("*.whl")
    return path


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wasmeval"}
    assert {"wasmeval/py.typed", "wasmeval/v1/wasmeval_pb2.py", "wasmeval/cli/__init__.py"} <= names
    assert not {name for name in names if name.endswith(".pyc")}


def test_the_wheel_has_what_microvms_are_made_of(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    guest = {name.rsplit("/", 1)[1] for name in names if name.startswith("wasmeval/vm/guest/")}
    assert guest - {"__init__.py"} == set(guest_files())
    assert "wasmeval/vm/building/debian.sh" in names


def test_the_wheel_has_each_image_with_its_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    images = sorted(path.parent.name for path in (ROOT / "wasmeval" / "images").glob("*/manifest.json"))
    assert images
    for image in images:
        files = {name.rsplit("/", 1)[1] for name in names if name.startswith(f"wasmeval/images/{image}/")}
        assert {"manifest.json", "image.wasm.xz"} <= files
        assert any(name.startswith("LICENSE") for name in files)
        assert any(f".dist-info/licenses/wasmeval/images/{image}/LICENSE" in name for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_distribution_has_what_it_takes_to_build_and_test(distributions: Path) -> None:
    [path] = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = "Makefile README.md requirements.lock proto/wasmeval/v1/wasmeval.proto runtimes/abi.md tests/conftest.py"
    assert set(needed.split()) <= names
    assert not {name for name in names if name.startswith((".venv", "runtimes/.build", ".git/"))}


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    printed = run(
        binaries / "wasmeval", "run", "--json", "-c", "sum(xs)", "--input", "xs=[1, 2, 3]", cwd=tmp_path
    )
    assert json.loads(printed)["value"] == 6
    assert run(binaries / "wasmeval", "run", "-l", "javascript", "-c", "6 * 7", cwd=tmp_path) == "42\n"
    run(binaries / "wasmeval", "doctor", cwd=tmp_path)
    program = "import wasmeval; print(wasmeval.evaluate('x + 1', inputs={'x': 1}).value)"
    assert run(binaries / "python", "-I", "-c", program, cwd=tmp_path) == "2\n"
