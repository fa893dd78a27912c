"""`wasmeval serve` as an operator sees it: what it says, where it listens, how it stops."""

from __future__ import annotations

import signal
import stat
import time
from pathlib import Path

import pytest

import wasmeval as package
from tests.conftest import Command
from tests.running import running_service


def test_it_says_where_it_listens_and_what_is_in_force(tmp_path: Path) -> None:
    config = tmp_path / "wasmeval.toml"
    config.write_text(
        "queue_size = 77\n[limits.defaults]\ndeadline_seconds = 3.5\n[limits.ceilings]\nfuel = 123_456_789_012\n"
    )
    with running_service("--config", str(config)) as service:
        assert service.target.startswith("127.0.0.1:")
        with package.Client(service.target) as client:
            result = client.evaluate("1 + 1", limits=package.Limits(fuel=2**62))
            assert {runtime.name for runtime in client.runtimes()} == {"python", "javascript", "typescript"}
    assert (result.value, result.limits.deadline_seconds, result.limits.fuel) == (2, 3.5, 123_456_789_012)
    said = "".join(service.log)
    for words in (
        "python 3.",
        "javascript ",
        "workers: 1",
        "77 queued",
        "3.5 s",
        "123,456,789,012 fuel",
        "256 MiB",
        "jail",
    ):
        assert words in said


def test_sigterm_stops_it_gracefully() -> None:
    with running_service() as service:
        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
        assert time.monotonic() - started < 5
    assert service.log[-1] == "stopped\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "0.0.0.0:0"], "listen: '0.0.0.0:0' can be reached from other machines"),
        (["--listen", "nowhere"], "listen: "),
        (["--config", "missing.toml"], "config: cannot read missing.toml: No such file or directory"),
    ],
)
def test_what_it_must_not_do_exits_with_2_and_one_line(
    wasmeval: Command, arguments: list[str], message: str
) -> None:
    done = wasmeval("serve", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"wasmeval: {message}")
    assert done.stderr.count(b"\n") == 1


def test_a_setting_nobody_knows_is_refused(wasmeval: Command, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("wrokers = 2\n")
    done = wasmeval("serve", "--config", "a.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert b"wrokers: no such setting" in done.stderr


def test_a_port_in_use_exits_with_4(wasmeval: Command) -> None:
    with running_service() as service:
        done = wasmeval("serve", "--listen", service.target)
        assert done.returncode == 4
        assert done.stderr.startswith(b"wasmeval: cannot listen at ")


def test_insecure_is_said_aloud() -> None:
    with running_service("--listen", "0.0.0.0:0", "--insecure") as service:
        assert any("INSECURE" in line for line in service.log)


def test_first_use_compiles_into_a_private_cache_and_later_starts_take_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASMEVAL_CACHE_DIR", str(tmp_path / "cache"))
    with running_service() as service:
        assert any(line.startswith("compiling python: ") for line in service.log)
    with running_service() as service:
        assert not any(line.startswith("compiling ") for line in service.log)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_a_home_that_cannot_be_written_is_said_with_the_remedy(
    wasmeval: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WASMEVAL_SESSIONS_STORE", raising=False)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    done = wasmeval("serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 4
    assert b"set sessions.store (WASMEVAL_SESSIONS_STORE) to memory:, or to a store" in done.stderr
