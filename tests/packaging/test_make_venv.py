"""The environment is made on a Python with ensurepip and on one without."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import make_venv


@pytest.fixture(autouse=True)
def apt_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """No test installs anything on this machine or reads its configuration; what apt-get would be told is kept."""
    runs: list[list[str]] = []
    really = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        if command[0] != "apt-get":
            return really(command, **options)
        runs.append(command)
        if len(runs) == 1:
            raise subprocess.CalledProcessError(100, command)
        return None

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(make_venv, "CONFIGURATIONS", [tmp_path / "pip.conf"])
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    return runs


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package index in a folder, with the pip that comes with this Python; skips where none does."""
    bundle = importlib.util.find_spec("ensurepip")
    folder = Path(bundle.origin).parent / "_bundled" if bundle and bundle.origin else tmp_path
    wheels = list(folder.glob("pip-*.whl"))
    if not wheels:
        pytest.skip("this Python has no ensurepip to take a wheel from")
    page = tmp_path / "simple" / "pip"
    page.mkdir(parents=True)
    shutil.copy(wheels[0], page)
    (page / "index.html").write_text(f'<a href="{wheels[0].name}#sha256=0">pip</a>')
    monkeypatch.setattr(make_venv, "PIP_WHEEL", wheels[0].name)
    monkeypatch.setattr(make_venv, "PIP_SHA256", hashlib.sha256(wheels[0].read_bytes()).hexdigest())
    return (tmp_path / "simple").as_uri()


def without_ensurepip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("source", ["environment", "file"])
def test_without_ensurepip_pip_comes_from_the_configured_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str, source: str
) -> None:
    if source == "environment":
        monkeypatch.setenv("PIP_INDEX_URL", index)
    else:
        # The first does not have it; the second does.
        (tmp_path / "pip.conf").write_text(f"[global]\nextra-index-url = file:///nowhere\n    {index}\n")
    without_ensurepip(monkeypatch)
    folder = tmp_path / "venv"
    assert make_venv.main(folder) == 0
    done = subprocess.run([folder / "bin" / "pip", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pip ")
    marker = folder / "marker"
    marker.touch()
    assert make_venv.main(folder) == 0
    assert marker.exists(), "an environment that works is kept"


def test_root_installs_ensurepip_before_any_index_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apt_runs: list[list[str]]
) -> None:
    if not importlib.util.find_spec("ensurepip"):
        pytest.skip("this Python has no ensurepip that could have come from apt")
    without_ensurepip(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(make_venv, "download", lambda url: pytest.fail(f"{url} was asked"))
    assert make_venv.main(tmp_path / "venv") == 0
    package = f"python3.{sys.version_info.minor}-venv"
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    # The first attempt fails here for want of package lists.
    assert apt_runs == [install, ["apt-get", "update"], install]


def test_who_is_not_root_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apt_runs: list[list[str]]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="only root can install it"):
        make_venv.from_apt(tmp_path)
    assert apt_runs == []


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("index-url = x", "configuration cannot be read: .*no section headers"),
        ("[global]\nindex-url = https://me:secret@index.invalid/simple", "wants a password is not asked$"),
        ("[global]\nindex-url = nonsense", "unknown url type"),
        ("[global]\ncert = x", "names no package index"),
    ],
)
def test_a_configuration_that_helps_nothing_is_said(tmp_path: Path, configuration: str, message: str) -> None:
    (tmp_path / "pip.conf").write_text(configuration)
    with pytest.raises(ValueError, match=message) as refused:
        make_venv.from_index(tmp_path)
    assert "secret" not in str(refused.value)


def test_no_registry_stands_in_the_project() -> None:
    assert "://" not in Path(make_venv.__file__).read_text(encoding="utf-8")


def test_a_wheel_with_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f'<a href="x/{make_venv.PIP_WHEEL}#sha256=0">'.encode()
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    monkeypatch.setattr(make_venv, "download", lambda url: page if url.endswith("/pip/") else b"not it")
    with pytest.raises(ValueError, match=r"has sha256 .*, not"):
        make_venv.from_index(tmp_path)


@pytest.mark.parametrize("configured", [True, False])
def test_without_any_way_to_pip_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], configured: bool
) -> None:
    def unreachable(url: str) -> bytes:
        raise OSError("no route to host")

    if configured:
        monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    without_ensurepip(monkeypatch)
    monkeypatch.setattr(make_venv, "download", unreachable)
    assert make_venv.main(tmp_path / "venv") == 1
    message = capsys.readouterr().err
    assert ("no route to host" if configured else "names no package index") in message
    assert message.endswith(f"sudo apt-get install python3.{sys.version_info.minor}-venv\n")
