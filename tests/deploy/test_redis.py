"""The Redis of `deploy/`, a real one, started by the very command lines that stand there."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.conftest import DEPLOY, WAIT_SECONDS, documents, sharing
from tests.stores.servers import free_port, need, running
from wasmeval import Client, SetupError, open_store

PASSWORD = "letters-and-digits-0123"


def of_compose() -> list[str]:
    [compose] = documents("compose.yaml")
    # Compose writes $$ for a $ that is not its own.
    return [part.replace("$$", "$") for part in compose["services"]["redis"]["command"]]


def of_kubernetes() -> list[str]:
    _, stateful = documents("redis", "statefulset.yaml")
    [container] = stateful["spec"]["template"]["spec"]["containers"]
    return list(container["command"])


@contextmanager
def redis(command: list[str], folder: Path) -> Iterator[int]:
    """The server with other paths, at a port of loopback, and nothing else changed."""
    program = need("redis-server", "apt-get install redis-server")
    port = free_port()
    password = folder / "redis.password"
    password.write_text(PASSWORD)
    shell, flag, script = command
    assert (shell, flag) == ("sh", "-c")
    text = (DEPLOY / "redis" / "redis.conf").read_text()
    assert "\ndir /data\n" in text
    (folder / "redis.conf").write_text(text.replace("\ndir /data\n", f"\ndir {folder}\n"))
    for old, new in (
        ("/etc/redis/redis.conf", str(folder / "redis.conf")),
        ("/run/secrets/redis-password", str(password)),
        ("exec redis-server -", f"exec {program} - --port {port} --bind 127.0.0.1"),
    ):
        assert old in script
        script = script.replace(old, new)

    def is_up() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"-NOAUTH")
        except OSError:
            return False

    with running([shell, flag, script], folder, is_up) as process:
        yield port
        # The signal reaches the server itself, which ends in good order.
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("command", [of_compose(), of_kubernetes()], ids=["compose", "kubernetes"])
def test_it_takes_its_configuration_and_asks_for_the_password(command: list[str], tmp_path: Path) -> None:
    with redis(command, tmp_path) as port:
        password = tmp_path / "redis.password"
        with open_store(f"redis://127.0.0.1:{port}/0?password_file={password}") as store:
            store.create("sessions/1", b"record")
        (tmp_path / "wrong").write_text("wrong")
        with pytest.raises(SetupError, match="refuses the credentials"):
            open_store(f"redis://127.0.0.1:{port}/0?password_file={tmp_path}/wrong")
        assert b"sessions/1" in b"".join(
            path.read_bytes() for path in tmp_path.rglob("*.aof*") if path.is_file()
        )


def test_replicas_share_sessions_through_it(tmp_path: Path) -> None:
    with redis(of_compose(), tmp_path) as port:
        store = f"redis://127.0.0.1:{port}/0?password_file={tmp_path}/redis.password"
        with (
            sharing(2, store, tmp_path, lease_seconds=3600) as (one, two),
            Client(one.target) as first,
            Client(two.target) as second,
        ):
            session = first.session()
            assert session.evaluate("x = 41").ok
            one.process.send_signal(signal.SIGTERM)
            assert one.process.wait(WAIT_SECONDS) == 0
            assert second.attach(session.id).evaluate("x + 1").value == 42
