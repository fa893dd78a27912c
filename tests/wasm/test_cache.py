"""The cache of compiled images heals itself, keeps what is in use, and says what the machine refused."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.guests import catalogue, guest
from wasmeval import SetupError
from wasmeval.runtimes import Catalogue
from wasmeval.wasm.cache import Cache, CompileProgress, default_folder
from wasmeval.wasm.engine import Engine

OLD = (0.0, 0.0)


@pytest.fixture
def installed(tmp_path: Path) -> Catalogue:
    return catalogue(tmp_path / "images", {"one": guest("(call $null)")})


def entries(cache: Cache) -> list[str]:
    return sorted(name for name in os.listdir(cache.folder) if name != "lock")


@pytest.mark.parametrize("size", [0, 1, -1])
def test_an_entry_that_was_cut_short_is_made_anew(installed: Catalogue, tmp_path: Path, size: int) -> None:
    cache = Cache(tmp_path / "cache")
    (compiled,) = cache.prepare(installed)
    whole = compiled.module.read_bytes()
    os.truncate(compiled.module, size if size >= 0 else len(whole) - 1)
    assert cache.find(installed["one"]) is None
    (again,) = cache.prepare(installed)
    assert (again.module.name.split("-")[:2], again.module.stat().st_size) == (
        compiled.module.name.split("-")[:2],
        int(again.module.stem.rsplit("-", 1)[1]),
    )
    assert cache.find(installed["one"]) == again


def test_a_module_that_wasmtime_refuses_is_named_with_its_remedy(
    installed: Catalogue, tmp_path: Path, engine: Engine
) -> None:
    (compiled,) = Cache(tmp_path / "cache").prepare(installed)
    compiled.module.write_bytes(bytes(compiled.module.stat().st_size))
    with pytest.raises(SetupError) as refused:
        engine.load(compiled.module)
    assert str(refused.value).startswith("wasmtime: ")
    assert str(refused.value).endswith(f"; remove {compiled.module}, it is made anew")


def test_who_waits_for_another_process_says_so(installed: Catalogue, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    told: list[CompileProgress] = []
    with open(cache.folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=cache.prepare, args=(installed, told.append))
        thread.start()
        give_up = time.monotonic() + 10
        while len(told) < 2 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert {(each.runtime, each.waiting) for each in told} == {("one", True)}
    thread.join(30)
    assert told[-1].done == told[-1].total
    assert not told[-1].waiting
    assert cache.find(installed["one"])


@pytest.mark.parametrize("name", ["mkstemp", "lock", "rename"])
def test_a_folder_that_cannot_be_written_is_a_setup_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    cache = Cache(tmp_path / "cache")
    if name == "lock":
        (cache.folder / "lock").mkdir()
    else:
        monkeypatch.setattr(tempfile if name == "mkstemp" else os, name, refuse)
    # Its library is unpacked first, by this process.
    only_python = Catalogue((Catalogue.installed()["python"],))
    with pytest.raises(SetupError, match=r"cannot use the cache folder .*; set WASMEVAL_CACHE_DIR"):
        cache.prepare(only_python)
    assert entries(cache) == []


def test_a_failed_compilation_says_its_last_line(tmp_path: Path) -> None:
    broken = catalogue(tmp_path / "images", {"one": b"\0asm\1\0\0\0\xff"})
    with pytest.raises(SetupError, match=r"^compiling one failed: (?!\[).") as failed:
        Cache(tmp_path / "cache").prepare(broken)
    assert "\n" not in str(failed.value)


def test_relative_folders_are_made_absolute(
    installed: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WASMEVAL_CACHE_DIR", "here")
    assert Cache().folder == tmp_path / "here"
    (compiled,) = Cache(Path("there")).prepare(installed)
    assert compiled.module.parent == tmp_path / "there"
    monkeypatch.delenv("WASMEVAL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert Cache().folder == tmp_path / "caches" / "wasmeval"


def test_without_a_home_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("WASMEVAL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SetupError, match=r"has no home folder .*; set WASMEVAL_CACHE_DIR"):
        default_folder()


def test_a_folder_others_can_write_can_only_be_removed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(SetupError, match="remove it, or set WASMEVAL_CACHE_DIR") as refused:
        Cache(tmp_path / "cache")
    assert "chmod" not in str(refused.value)


@pytest.mark.parametrize("target", ["real", "nowhere"])
def test_a_link_is_refused_as_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(SetupError, match=r"link is a symbolic link, .*; remove the link, or"):
        Cache(tmp_path / "link")


def test_the_compiler_as_a_process_says_its_error_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from wasmeval.wasm.cache import main; main('nowhere', 'x')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("nowhere/manifest.json is no usable manifest: ")
    assert done.stderr.count("\n") == 1
