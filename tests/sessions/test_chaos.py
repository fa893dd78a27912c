"""Replicas and workers are killed at random under load, and no session loses a step that was answered."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.running import Service, running_service
from wasmeval import Client, Conflict, DeadlineExceeded, ServiceSession, Unavailable, WasmevalError

SECONDS = 60
REPLICAS = 3
SESSIONS = 6


@dataclass
class History:
    """What one client did in its session: the steps that were answered, in order, and all that it ever sent."""

    answered: list[int] = field(default_factory=list)
    sent: int = 0
    refused: int = 0
    failure: BaseException | None = None


class Replicas:
    """Services over one store, each of which may be killed and begun again."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.running: list[Service] = [self._start() for _ in range(REPLICAS)]
        self.kills = 0

    def _start(self) -> Service:
        return self._stack.enter_context(running_service())

    def target(self) -> str:
        return random.choice(self.running).target

    def kill_one(self) -> None:
        """A worker, or a whole replica, whose workers die with it; that one is begun again."""
        self.kills += 1
        place = random.randrange(REPLICAS)
        service = self.running[place]
        if random.random() < 0.5:
            children = subprocess.run(
                ["pgrep", "-P", str(service.process.pid)], capture_output=True, text=True, check=False
            ).stdout.split()
            for child in children:
                os.kill(int(child), signal.SIGKILL)
        else:
            service.process.kill()
            service.process.wait()
            self.running[place] = self._start()


def use(session_id: str, replicas: Replicas, history: History, end: float) -> None:
    """Steps at whichever replica, one after the other, each of which writes its own number down."""
    try:
        while time.monotonic() < end:
            number = history.sent = history.sent + 1
            try:
                with Client(replicas.target()) as client:
                    session = ServiceSession(client, client.attach(session_id, timeout=5)._info)
                    result = session.evaluate(f"log.append({number}); log[-1]", timeout=5)
            except (Unavailable, DeadlineExceeded, Conflict):
                history.refused += 1
                time.sleep(0.02)
                continue
            if result.ok:
                assert result.value == number
                history.answered.append(number)
            else:
                assert result.rolled_back, result
    except BaseException as error:
        history.failure = error


@pytest.mark.slow
def test_no_answered_step_is_ever_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    monkeypatch.setenv("WASMEVAL_SESSIONS_STORE", f"dir:{tmp_path}/store")
    monkeypatch.setenv("WASMEVAL_SESSIONS_KEY_FILE", str(key))
    monkeypatch.setenv("WASMEVAL_SESSIONS_LEASE_SECONDS", "1")
    with ExitStack() as stack:
        replicas = Replicas(stack)
        ids = []
        with Client(replicas.target()) as client:
            for _ in range(SESSIONS):
                session = client.session(durability="step")
                assert session.evaluate("log = []").ok
                ids.append(session.id)
        end = time.monotonic() + SECONDS
        histories = [History() for _ in ids]
        users = [
            threading.Thread(target=use, args=(session_id, replicas, history, end))
            for session_id, history in zip(ids, histories, strict=True)
        ]
        for user in users:
            user.start()
        while time.monotonic() < end:
            time.sleep(random.uniform(0.3, 1.5))
            replicas.kill_one()
        for user in users:
            user.join(60)
            assert not user.is_alive()
        for session_id, history in zip(ids, histories, strict=True):
            assert history.failure is None, history.failure
            log = final_log(session_id, replicas)
            # In order, none twice, none that was answered is missing; one whose answer was lost may be there.
            assert log == sorted(set(log))
            assert set(history.answered) <= set(log)
            assert set(log) <= set(range(1, history.sent + 1))
            assert len(log) - len(history.answered) <= history.refused
        answered = sum(len(history.answered) for history in histories)
        assert answered > 10 * SESSIONS, (answered, [history.refused for history in histories])
        assert replicas.kills > 10
        print(answered, [history.refused for history in histories], replicas.kills)


def final_log(session_id: str, replicas: Replicas) -> list[int]:
    """Once there is peace."""
    end = time.monotonic() + 60
    while True:
        try:
            with Client(replicas.target()) as client:
                log: list[int] = client.attach(session_id, timeout=20).evaluate("log", timeout=20).value
                return log
        except WasmevalError:
            assert time.monotonic() < end
            time.sleep(0.2)
