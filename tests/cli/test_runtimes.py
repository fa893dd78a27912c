"""`wasmeval runtimes` and `wasmeval doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from wasmeval import doctor
from wasmeval.errors import SetupError
from wasmeval.runtimes import Catalogue


def test_the_table_has_a_line_for_each_runtime(wasmeval: Command) -> None:
    heads, *rows = wasmeval("runtimes", "--compile").stdout.decode().splitlines()
    assert heads.split() == ["NAME", "VERSION", "LANGUAGES", "IMAGE", "COMPILED"]
    for row, runtime in zip(rows, Catalogue.installed(), strict=True):
        cells = row.split()
        assert (cells[0], cells[1], cells[-1]) == (runtime.name, runtime.version, "yes")
        assert cells[-2] == runtime.image_sha256[:12]


def test_json_has_the_whole_digests(wasmeval: Command) -> None:
    listed = {row["name"]: row for row in json.loads(wasmeval("runtimes", "--json").stdout)}
    for runtime in Catalogue.installed():
        assert listed[runtime.name]["image_sha256"] == runtime.image_sha256
        assert listed[runtime.name]["languages"] == list(runtime.languages)


def test_doctor_finds_that_all_works_here(wasmeval: Command) -> None:
    done = wasmeval("doctor")
    assert done.returncode == 0, done.stdout.decode()
    assert b"FAIL" not in done.stdout
    assert done.stdout.endswith(b"Everything needed works.\n")


def test_doctor_as_json_names_every_check(wasmeval: Command) -> None:
    checks = {check["name"]: check for check in json.loads(wasmeval("doctor", "--json").stdout)}
    languages = [runtime.name for runtime in Catalogue.installed()]
    expected = {"python", "wasmtime", "kvm", "cache"}
    expected |= {f"{kind} {name}" for kind in ("image", "compiled", "evaluate") for name in languages}
    assert expected <= set(checks)
    assert any(name.startswith("jail ") for name in checks)


def test_a_cache_that_others_can_write_is_a_failure_with_a_remedy(wasmeval: Command, tmp_path: Path) -> None:
    import os

    shared = tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o777)
    done = wasmeval("doctor", env={**os.environ, "WASMEVAL_CACHE_DIR": str(shared)})
    assert done.returncode == 4
    assert b"FAIL  cache" in done.stdout
    assert b"could be written by others" in done.stdout
    run = wasmeval("run", "-c", "1", env={**os.environ, "WASMEVAL_CACHE_DIR": str(shared)})
    assert run.returncode == 4
    assert run.stderr.startswith(b"wasmeval: the cache folder ")


def test_what_a_check_raises_is_its_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(cls: type[Catalogue]) -> Catalogue:
        raise SetupError("no runtime image; reinstall wasmeval")

    monkeypatch.setattr(Catalogue, "installed", classmethod(broken))
    last = list(doctor.examine())[-1]
    assert last == doctor.Check("images", False, "no runtime image; reinstall wasmeval")
