"""`wasmeval runtimes` and `wasmeval doctor`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command
from wasmeval import doctor
from wasmeval.errors import SetupError
from wasmeval.runtimes import Catalogue


def test_the_table_has_a_line_for_each_runtime(wasmeval: Command) -> None:
    heads, *rows = wasmeval("runtimes", "--compile").stdout.decode().splitlines()
    assert heads.split() == ["NAME", "TIER", "VERSION", "LANGUAGES", "IMAGE", "COMPILED"]
    # Behind them are those of VMs, where there are some.
    for row, runtime in zip(rows, Catalogue.installed(), strict=False):
        cells = row.split()
        assert (*cells[:3], cells[-1]) == (runtime.name, "wasm", runtime.version, "yes")
        assert cells[-2] == runtime.image_sha256[:12]
    assert len(rows) >= len(Catalogue.installed().runtimes)
    assert all(row.startswith("vm-") for row in rows[len(Catalogue.installed().runtimes) :])


def test_json_has_the_whole_digests(wasmeval: Command) -> None:
    listed = {row["name"]: row for row in json.loads(wasmeval("runtimes", "--json").stdout)}
    for runtime in Catalogue.installed():
        assert listed[runtime.name]["image_sha256"] == runtime.image_sha256
        assert listed[runtime.name]["languages"] == list(runtime.languages)
        assert listed[runtime.name]["initial_memory_bytes"] == runtime.initial_memory_bytes
        assert listed[runtime.name]["minimum_memory_bytes"] == runtime.minimum_memory_bytes


def test_doctor_finds_that_all_works_here(wasmeval: Command) -> None:
    done = wasmeval("doctor")
    assert done.returncode == 0, done.stdout.decode()
    assert b"FAIL" not in done.stdout
    assert done.stdout.endswith(b"Everything needed works.\n")


def test_doctor_as_json_names_every_check(wasmeval: Command) -> None:
    checks = {check["name"]: check for check in json.loads(wasmeval("doctor", "--json").stdout)}
    languages = [runtime.name for runtime in Catalogue.installed()]
    expected = {"python", "wasmtime", "vm qemu", "vm bubblewrap", "vm image", "cache"}
    expected |= {f"{kind} {name}" for kind in ("image", "compiled", "evaluate") for name in languages}
    assert expected <= set(checks)
    assert any(name.startswith("jail ") for name in checks)


def test_a_cache_that_others_can_write_is_a_failure_with_a_remedy(wasmeval: Command, tmp_path: Path) -> None:
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


only_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become less than root"
)


def with_less(*options: str, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `script`, in which `wasmeval` is this one, as `setpriv` with `options` has it, and without HOME."""
    command = f"wasmeval() {{ '{sys.executable}' -m wasmeval \"$@\"; }}\n{script}"
    return subprocess.run(
        ["setpriv", *options, "bash", "-c", command],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@only_root
def test_a_user_without_a_home_is_told_what_to_set() -> None:
    # A user that /etc/passwd does not know, who may read this environment wherever it lies.
    reading = "+dac_override,+dac_read_search"
    options = ["--reuid=54321", "--regid=54321", "--clear-groups", f"--inh-caps={reading}"]
    script = "wasmeval run -c 1; echo $?; wasmeval doctor; echo $?"
    done = with_less(*options, f"--ambient-caps={reading}", script=script)
    message = "this user (uid 54321) has no home folder to keep compiled images in; set WASMEVAL_CACHE_DIR"
    assert done.stderr == f"wasmeval: {message}\n"
    first, *checks, last = done.stdout.splitlines()
    assert (first, last) == ("4", "4")
    assert f"FAIL  cache                {message}" in checks
    # No worker starts; what the jail could be is told all the same.
    assert any(line.startswith("ok    jail rlimits") for line in checks)


@only_root
@pytest.mark.parametrize("prepared", ["nothing", "lock"])
def test_a_cache_its_owner_cannot_write_exits_with_4(tmp_path: Path, prepared: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / prepared).touch()
    cache.chmod(0o500)
    without = "-dac_override,-dac_read_search"
    done = with_less(
        f"--inh-caps={without}",
        f"--bounding-set={without}",
        script="wasmeval run -c 1; echo $?; wasmeval doctor",
        WASMEVAL_CACHE_DIR=str(cache),
    )
    code, *checks = done.stdout.splitlines()
    assert code == "4"
    assert done.stderr.startswith(
        f"wasmeval: cannot use the cache folder {cache}: [Errno 13] Permission denied"
    )
    assert done.stderr.endswith("; set WASMEVAL_CACHE_DIR to one that can be written\n")
    assert done.stderr.count("\n") == 1
    assert f"note  cache                {cache} cannot be written: nothing new is kept" in checks
    assert any(line.startswith("FAIL  evaluate             cannot use the cache folder") for line in checks)


def test_a_relative_cache_folder_counts_from_here(wasmeval: Command, tmp_path: Path) -> None:
    for name in ("WASMEVAL_CACHE_DIR", "XDG_CACHE_HOME"):
        environment = {key: value for key, value in os.environ.items() if key != "WASMEVAL_CACHE_DIR"}
        done = wasmeval("runtimes", cwd=tmp_path, env={**environment, name: name.lower()})
        assert done.returncode == 0
    assert (tmp_path / "wasmeval_cache_dir").is_dir()
    assert (tmp_path / "xdg_cache_home" / "wasmeval").is_dir()


def test_what_a_check_raises_is_its_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(cls: type[Catalogue]) -> Catalogue:
        raise SetupError("no runtime image; reinstall wasmeval")

    monkeypatch.setattr(Catalogue, "installed", classmethod(broken))
    last = list(doctor.examine())[-1]
    assert last == doctor.Check("images", False, "no runtime image; reinstall wasmeval")
