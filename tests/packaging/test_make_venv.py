"""The environment is made on a Python with ensurepip and on one without."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tools import make_venv


def test_without_ensurepip_pip_comes_from_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    folder = tmp_path / "venv"
    assert make_venv.main(folder) == 0
    done = subprocess.run([folder / "bin" / "pip", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pip 26.3 ")
    marker = folder / "marker"
    marker.touch()
    assert make_venv.main(folder) == 0
    assert marker.exists(), "an environment that works is kept"


def test_a_wheel_with_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = f'<a href="x/{make_venv.PIP_WHEEL}#sha256=0">'.encode()
    monkeypatch.setattr(make_venv, "download", lambda url: page if url.endswith("/pip/") else b"not it")
    with pytest.raises(ValueError, match=r"has sha256 .*, not"):
        make_venv.from_index(tmp_path)


def test_without_any_way_to_pip_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(url: str) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(make_venv, "download", unreachable)
    assert make_venv.main(tmp_path / "venv") == 1
    message = capsys.readouterr().err
    assert "no route to host" in message
    assert "apt-get install python3" in message
