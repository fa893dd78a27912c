"""Two replicas over one store, without anything between: what becomes of a session when its replica ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import WAIT_SECONDS, sharing
from tests.running import Service
from wasmeval import Client, SessionLost, Unavailable


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[Service]]:
    with sharing(2, f"dir:{tmp_path}/store", tmp_path) as replicas:
        yield replicas


def test_a_session_moves_when_its_replica_is_stopped(tmp_path: Path) -> None:
    """It goes to sleep before its replica ends, so nobody waits for the lease, which is a long one here."""
    with (
        sharing(2, f"dir:{tmp_path}/store", tmp_path, lease_seconds=3600) as (one, two),
        Client(one.target) as first,
        Client(two.target) as second,
    ):
        session = first.session()
        other = first.session("javascript")
        assert session.evaluate("xs = [1]; open('kept.txt', 'w').write('kept')").ok
        assert other.evaluate("let x = 1").ok
        with pytest.raises(Unavailable, match=r"another replica has the session .* nothing ran"):
            second.attach(session.id, timeout=0.3)

        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(WAIT_SECONDS) == 0

        moved = second.attach(session.id)
        assert moved.evaluate("xs.append(2); (xs, open('kept.txt').read())").value == [[1, 2], "kept"]
        assert second.attach(other.id).evaluate("x += 1").value == 2
        assert moved.info().steps == 2


def test_a_session_whose_replica_was_killed_is_taken_over_when_the_lease_has_run_out(
    replicas: list[Service],
) -> None:
    one, two = replicas
    with Client(one.target) as first, Client(two.target) as second:
        session = first.session(durability="step")
        careless = first.session()
        for step in range(3):
            assert session.evaluate(f"x = {step}").ok
        assert careless.evaluate("x = 1").ok

        one.process.kill()
        one.process.wait(WAIT_SECONDS)

        # The client asks again while another replica still has the lease.
        moved = second.attach(session.id, timeout=WAIT_SECONDS)
        assert moved.evaluate("x += 1; x", timeout=WAIT_SECONDS).value == 3
        assert moved.info().steps == 4
        # What no step stored is gone, and says so.
        gone = second.attach(careless.id, timeout=WAIT_SECONDS)
        with pytest.raises(SessionLost, match="the process that had the session is gone"):
            gone.evaluate("x", timeout=WAIT_SECONDS)


def test_a_session_goes_back_and_forth_between_replicas(replicas: list[Service]) -> None:
    with Client(replicas[0].target) as first, Client(replicas[1].target) as second:
        session = first.session()
        for turn in range(6):
            at = (first, second)[turn % 2].attach(session.id, timeout=WAIT_SECONDS)
            assert at.evaluate(f"turns = {turn} if {turn} == 0 else turns + 1; turns").value == turn
            at.hibernate()
        assert first.attach(session.id).info().steps == 6


def test_a_replica_with_another_key_refuses_what_it_cannot_open(tmp_path: Path) -> None:
    store = f"dir:{tmp_path}/store"
    with sharing(1, store, tmp_path) as [one], Client(one.target) as client:
        session = client.session()
        assert session.evaluate("x = 1").ok
    with sharing(1, store, tmp_path, key=b"another key" * 3) as [one], Client(one.target) as client:
        with pytest.raises(SessionLost):
            client.attach(session.id).evaluate("x")
        assert client.evaluate("1").value == 1
    with sharing(1, store, tmp_path) as [one], Client(one.target) as client:
        assert client.attach(session.id).evaluate("x").value == 1
