"""Blobs that no record names: they are removed, and never one that a replica may be about to name."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.grpc.conftest import WAIT_SECONDS
from tests.grpc.test_sessions import KEY, serve
from wasmeval import Client, Conflict, Evaluator, open_store
from wasmeval.embedded_session import EmbeddedSession
from wasmeval.errors import StoreUnavailable
from wasmeval.sessions.orphans import Orphans
from wasmeval.sessions.record import decode, record_key
from wasmeval.stores import Store

HOUR = 3600.0


class Clock:
    """Of all who take part."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return time.time() + self.passed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"dir:{tmp_path}/store") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def evaluating(store: Store, clock: Clock) -> Iterator[Evaluator]:
    with Evaluator(workers=1, store=store, snapshot_key=KEY) as evaluator:
        evaluator._retained()._keeper._clock = clock
        yield evaluator


@pytest.fixture
def evaluator(store: Store, clock: Clock) -> Iterator[Evaluator]:
    with evaluating(store, clock) as evaluator:
        yield evaluator


@pytest.fixture
def orphans(store: Store, clock: Clock) -> Orphans:
    """Another replica's."""
    return Orphans(store, clock=clock, monotonic=clock)


def sweep_twice(orphans: Orphans, clock: Clock) -> int:
    """What sweeps before, at and after the age remove."""
    removed = orphans.sweep(HOUR)
    clock.passed += HOUR - 1
    assert removed + orphans.sweep(HOUR) == 0
    clock.passed += 60
    return orphans.sweep(HOUR)


def named(store: Store) -> set[str]:
    """The blobs that records name."""
    keys = set()
    for key in store.keys("sessions/"):
        found = store.get(key)
        assert found is not None
        record = decode(found.data)
        keys |= {record.blob_key(name) for name in record.blobs_named}
    return keys


def leave_an_orphan(session: EmbeddedSession, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose snapshot is put, and not named."""

    def down(*_: object) -> None:
        raise StoreUnavailable("the store is down")

    with monkeypatch.context() as patched:
        patched.setattr(store, "swap", down)
        with pytest.raises(StoreUnavailable):
            session.evaluate("x = 'not stored'")


def test_what_no_record_names_is_removed_and_nothing_else(
    evaluator: Evaluator, store: Store, orphans: Orphans, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = evaluator.session(durability="step")
    session.evaluate("x = 1")
    mark = session.checkpoint()
    session.evaluate("x = 2")
    leave_an_orphan(session, store, monkeypatch)
    session.hibernate()
    closed = evaluator.session(durability="step")
    closed.evaluate("x = 1")
    with monkeypatch.context() as patched:
        patched.setattr(store, "remove_blob", refuse)
        closed.close()
    assert len(set(store.blobs()) - named(store)) == 2
    assert sweep_twice(orphans, clock) == 2
    assert set(store.blobs()) == named(store)
    with evaluating(store, clock) as other:
        session = other.attach(session.id)
        assert session.evaluate("x").value == 2
        session.restore(mark)
        assert session.evaluate("x").value == 1
        assert sweep_twice(orphans, clock) == 0
        session.close()
    assert list(store.blobs()) == []


def refuse(*_: object) -> None:
    raise StoreUnavailable("the store is down")


def test_a_replica_that_was_stopped_between_a_blob_and_its_record_names_it_no_more(
    evaluator: Evaluator, store: Store, orphans: Orphans, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = evaluator.session(durability="step")
    session.evaluate("x = 1")
    swap, stopped_at = store.swap, []

    def stop(key: str, data: bytes, version: str) -> str:
        """Stopped here for hours; others see its lease pass, and its blob."""
        if decode(data).steps == 2 and not stopped_at:
            stopped_at.append(key)
            assert sweep_twice(orphans, clock) == 1
        return swap(key, data, version)

    monkeypatch.setattr(store, "swap", stop)
    with pytest.raises(Conflict):
        session.evaluate("x = 2")
    monkeypatch.undo()
    assert stopped_at
    with evaluating(store, clock) as other:
        assert other.attach(session.id).evaluate("x").value == 1


def test_nor_does_one_that_finds_what_it_wrote_before(
    evaluator: Evaluator, store: Store, orphans: Orphans, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that was written, and whose answer was lost, is taken over by its data: not once it was swept."""
    session = evaluator.session(durability="step")
    session.evaluate("x = 1")
    swap = store.swap

    def lose_the_answer(*arguments: Any) -> str:
        swap(*arguments)
        raise StoreUnavailable("the answer is lost")

    with monkeypatch.context() as patched:
        patched.setattr(store, "swap", lose_the_answer)
        with pytest.raises(StoreUnavailable):
            session.evaluate("x = 2")
    # The record names the second snapshot; this evaluator thinks it names the first, which nobody has removed.
    assert sweep_twice(orphans, clock) == 1
    with pytest.raises(Conflict):
        session.evaluate("x = 3")
    with evaluating(store, clock) as other:
        assert other.attach(session.id).evaluate("x").value == 2


def test_a_session_that_somebody_has_is_left_alone(
    evaluator: Evaluator, store: Store, orphans: Orphans, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = evaluator.session(durability="step")
    session.evaluate("x = 1")
    leave_an_orphan(session, store, monkeypatch)
    orphans.sweep(HOUR)
    clock.passed += 2 * HOUR
    assert orphans.sweep(HOUR, held={session.id}) == 0
    orphans.sweep(HOUR)
    clock.passed += 2 * HOUR
    keeper = evaluator._retained()._keeper
    keeper.settings = replace(keeper.settings, linger_seconds=10 * HOUR, lease_seconds=10 * HOUR)
    assert session.evaluate("x").value == 1
    assert orphans.sweep(HOUR) == 0
    assert session.evaluate("x").value == 1


def test_a_fork_on_its_way_is_left_alone(
    evaluator: Evaluator, store: Store, orphans: Orphans, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = evaluator.session(durability="step")
    session.evaluate("x = 1")
    create = store.create

    def look_first(key: str, data: bytes) -> str:
        orphans.sweep(HOUR)
        clock.passed += HOUR - 1
        assert orphans.sweep(HOUR) == 0
        return create(key, data)

    monkeypatch.setattr(store, "create", look_first)
    fork = session.fork()
    fork.hibernate()
    clock.passed += 2 * HOUR
    assert orphans.sweep(HOUR) == 0
    assert fork.evaluate("x").value == 1


def test_what_cannot_be_read_is_left_alone(
    evaluator: Evaluator, store: Store, orphans: Orphans, clock: Clock
) -> None:
    session = evaluator.session(durability="step")
    session.evaluate("x = 1")
    key = record_key(session.id)
    found = store.get(key)
    assert found is not None
    store.swap(key, found.data.replace(b'"version":1', b'"version":2'), found.version)
    assert sweep_twice(orphans, clock) == 0
    assert len(list(store.blobs())) == 1


KILLED = """
import os, signal, sys
from dataclasses import replace
from wasmeval import Evaluator, open_store
from wasmeval.sessions.record import decode

store = open_store(sys.argv[1])
with Evaluator(workers=1, store=store, snapshot_key=b"k" * 32) as evaluator:
    session = evaluator.session(durability="step")
    keeper = evaluator._retained()._keeper
    keeper.settings = replace(keeper.settings, lease_seconds=0.5)
    session.evaluate("x = 1")
    swap = store.swap
    def die(key, data, version):
        if decode(data).steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return swap(key, data, version)
    store.swap = die
    print(session.id, flush=True)
    session.evaluate("x = 2")
"""


def test_what_a_killed_process_left_is_removed_by_a_service(store: Store, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, f"dir:{tmp_path}/store"],
        capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    session_id = done.stdout.strip()
    assert len(set(store.blobs()) - named(store)) == 1
    with serve(store, owner="two", orphan_seconds=0.2) as real, Client(real.target) as client:
        residence = real.service._residence
        assert residence is not None
        end = time.monotonic() + WAIT_SECONDS
        while set(store.blobs()) != named(store):
            assert time.monotonic() < end
            real.call(residence.sweep_orphans())
            time.sleep(0.1)
        assert client.attach(session_id, timeout=WAIT_SECONDS).evaluate("x").value == 1
