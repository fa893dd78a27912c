"""The folder that each instance mounts: NumPy's tests as its source distribution has them, and what runs them.

    site/numpy/**/tests    the tests and what they read
    pytest.ini             NumPy's own settings, under which a warning is an error
    packages.zip           pytest, hypothesis and what these need (requirements.txt), as bytecode

The bytecode is the guest interpreter's, so an instance compiles it.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from runtimes.toolchain import BUILD, fetch, load_lock
from wasmeval import Evaluator

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements.txt"
_COMPILING = (_HERE / "compiling.py").read_text()
_SITE = Path("site")
_LANGUAGES = ("__init__", "_mapping", "diff", "python")


def folder_of_tests(evaluator: Evaluator, cache: Path = BUILD) -> Path:
    """The folder, made when it is not there. Raises ToolchainError or CalledProcessError when it cannot be had."""
    source = load_lock()["numpy"]
    runtime = next(runtime.version for runtime in evaluator.runtimes() if runtime.name == "python")
    made_of = [*source.files.values(), runtime, _REQUIREMENTS.read_text(), _COMPILING]
    home = cache / "numpy_suite" / hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    if (home / "complete").exists():
        return home
    shutil.rmtree(home.parent, ignore_errors=True)
    home.mkdir(parents=True)
    for archive in fetch(source, cache / "archives"):
        _unpack(archive, home)
    (home / "packages.zip").write_bytes(_compiled(evaluator, _installed(home / "packages")))
    (home / "complete").touch()
    return home


def files_of_tests(home: Path) -> list[str]:
    """All test files, as paths below `site`."""
    return sorted(
        str(path.relative_to(home / _SITE)) for path in home.glob(f"{_SITE}/numpy/**/tests/test_*.py")
    )


def _unpack(archive: Path, home: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            target = _place(Path(*Path(member.name).parts[1:]))
            if target is not None and member.isfile():
                (home / target).parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content
                (home / target).write_bytes(content.read())


def _place(name: Path) -> Path | None:
    """Where a file of the distribution goes; None for one that no test needs."""
    if name == Path("pytest.ini"):
        return name
    # Below `src` is what others have written, with tests of their own.
    is_test = name.parts[:1] == ("numpy",) and "tests" in name.parts and "src" not in name.parts
    return _SITE / name if is_test or name == Path("numpy/conftest.py") else None


def _installed(packages: Path) -> bytes:
    """A zip file of the packages."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--no-compile", "--only-binary", ":all:", "--require-hashes", "--target", str(packages)]
    subprocess.run([*pip, "-r", str(_REQUIREMENTS)], check=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        for name in _needed(packages):
            target.writestr(str(name), (packages / name).read_bytes())
    shutil.rmtree(packages)
    return packed.getvalue()


def _needed(packages: Path) -> Iterator[Path]:
    for path in sorted(packages.rglob("*")):
        name = path.relative_to(packages)
        # Pygments knows 500 languages; pytest imports two of them, and here shows none.
        is_language = name.parent == Path("pygments/lexers") and name.stem not in _LANGUAGES
        if path.is_file() and not is_language:
            yield name


def _compiled(evaluator: Evaluator, packages: bytes) -> bytes:
    result = evaluator.evaluate(_COMPILING, files={"packages.zip": packages}, outputs=["compiled.zip"])
    if not result.ok:
        raise RuntimeError(f"compiling the packages: {result.status.value}: {result.error}")
    return result.files["compiled.zip"].data
