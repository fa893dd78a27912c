"""Sessions: a step beside an empty call, an agent's ten steps, forks, checkpoints, sleep, durability, sizes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import peers
from bench.companion import Failed
from bench.machine import private_dirty_bytes
from bench.measure import Samples, Turn, in_turns, timed
from bench.report import Figure, Row, ms, number, pair, times
from bench.rows.names import RUNTIMES
from bench.serving import serving
from bench.settings import Settings, say
from wasmeval import Client, Evaluator, wire
from wasmeval.model import Request
from wasmeval.stores import Store, open_store
from wasmeval.wire import sessions as messages

_KEY = b"the benchmark's own key of 32 by"
_BEGIN = {"python": "import json; x = 1", "javascript": "var x = 1"}
_AGENT_TARGETS = {"python": 1.5e-3, "javascript": 0.8e-3}
_OWN_DATA = "import os; data = [os.urandom(1000) for _ in range(10_000)]; len(data)"


def rows(settings: Settings) -> Iterator[Row]:
    """All of them."""
    yield from _steps(settings)
    yield from _agents(settings)
    yield from _copies(settings)
    yield from _sleep(settings)
    yield from _durability(settings)
    yield from _sleepers(settings)


def _steps(settings: Settings) -> Iterator[Row]:
    """`x + 1` in a live session by the bare call, beside the empty call and a fresh `1+1`."""
    with serving(settings.workers) as service, Client(service.target) as client:
        turns = {"empty": Turn(timed(service.empty()))}
        for runtime in RUNTIMES:
            session = client.session(runtime)
            session.evaluate(_BEGIN[runtime]).raise_for_status()
            message = messages.encode_step(session.id, Request("x + 1", ""), waits=True)
            call = service.channel.unary_unary(wire.STEP)
            wire.decode_reply(call(message)).raise_for_status()
            turns[f"step {runtime}"] = Turn(timed(partial(call, message)))
            turns[f"fresh {runtime}"] = Turn(timed(service.bare(runtime)))
        samples = in_turns(turns, settings.of(40, 3))
    empty = samples["empty"]
    for runtime, name in RUNTIMES.items():
        step, fresh = samples[f"step {runtime}"], samples[f"fresh {runtime}"]
        ratio = step.p50 / empty.p50
        yield Row(
            f"a step `x + 1` in a live session over gRPC, {name}, p50 / p99",
            f"{pair(step)}: **{number(ratio)}x** the empty call",
            f"empty call {pair(empty)}; fresh `1+1` {pair(fresh)}",
            "<= 1.3x",
            ratio <= 1.3,
            [
                *times("session_step", step, runtime=runtime),
                Figure("session_step_ratio", "ratio", ratio, {"runtime": runtime}),
            ],
        )


def _agents(settings: Settings) -> Iterator[Row]:
    """A session, ten steps, its end; beside Monty's."""
    with ExitStack() as stack:
        evaluator = stack.enter_context(Evaluator(settings.workers))
        turns = {runtime: Turn(timed(partial(_agent, evaluator, runtime)), 20) for runtime in RUNTIMES}
        beside = ""
        try:
            monty = stack.enter_context(peers.monty())
            turns["monty"] = Turn(timed(lambda: [monty("1 + 1") for _ in range(10)]), 20)
        except (peers.NotInstalled, Failed) as reason:
            say(f"  Pydantic Monty: {reason}")
        samples = in_turns(turns, settings.of(12, 2))
    if "monty" in samples:
        beside = f"ten fresh evaluations by Pydantic Monty {pair(samples['monty'])}"
    for runtime, name in RUNTIMES.items():
        target = _AGENT_TARGETS[runtime]
        yield Row(
            f"ten steps of an agent in one session, embedded, its begin and end included, {name}, p50 / p99",
            f"**{pair(samples[runtime])}**",
            beside,
            f"<= {ms(target)}",
            samples[runtime].p50 <= target,
            times("session_agent", samples[runtime], runtime=runtime),
        )


def _agent(evaluator: Evaluator, runtime: str) -> None:
    with evaluator.session(runtime) as session:
        session.evaluate(_BEGIN[runtime])
        for _ in range(9):
            session.evaluate("x + 1")


def _copies(settings: Settings) -> Iterator[Row]:
    """Fork, checkpoint and restore of a session with 10 MB of its own; a fork counts until its first step has ended."""
    rounds = settings.of(30, 3)
    forks, checkpoints, restores = Samples(), Samples(), Samples()
    with _evaluator() as evaluator, evaluator.session() as session:
        session.evaluate(_OWN_DATA).raise_for_status()
        for _ in range(rounds):
            with _clocked(forks):
                fork = session.fork()
                fork.evaluate("0")
            fork.close()
            with _clocked(checkpoints):
                mark = session.checkpoint()
            with _clocked(restores):
                session.restore(mark)
                session.evaluate("0")
    for what, samples, target in (
        ("fork, until the copy has done its first step", forks, 15e-3),
        ("checkpoint", checkpoints, 15e-3),
        ("restore, until the next step has ended", restores, 10e-3),
    ):
        yield Row(
            f"{what}: a session with 10 MB of its own data, CPython, directory store, p50 / p99",
            f"**{pair(samples)}**",
            target=f"<= {ms(target)}",
            reached=samples.p50 <= target,
            figures=times(f"session_{what.split(',')[0]}", samples),
        )


def _sleep(settings: Settings) -> Iterator[Row]:
    """Hibernate and wake of a small session, and what it takes on disk."""
    asleep, awake, plain = Samples(), Samples(), Samples()
    with _evaluator() as evaluator, evaluator.session() as session:
        session.evaluate(_BEGIN["python"]).raise_for_status()
        for _ in range(settings.of(100, 10)):
            with _clocked(asleep):
                session.hibernate()
            with _clocked(awake):
                session.evaluate("x")
            with _clocked(plain):
                session.evaluate("x")
        session.hibernate()
        store = evaluator._store
        assert store is not None
        records = [record for record in map(store.get, store.keys()) if record is not None]
        size = sum(len(store.get_blob(key)) for key in store.blobs()) + sum(
            len(each.data) for each in records
        )
    for what, samples in (("hibernate to disk", asleep), ("wake, and a step", awake)):
        yield Row(
            f"{what}: a small session, CPython, p50 / p99",
            f"**{pair(samples)}**",
            f"a step of one that is awake {pair(plain)}",
            "<= 5.00 ms",
            samples.p50 <= 5e-3,
            times(f"session_{what.split()[0].strip(',')}", samples),
        )
    yield Row(
        "a sleeping session's size after `import json; x = 1`, CPython",
        f"**{number(size / 1e3)} KB**",
        target="<= 300 KB",
        reached=size <= 300e3,
        figures=[Figure("session_stored", "KB", size / 1e3)],
    )


def _durability(settings: Settings) -> Iterator[Row]:
    """What `durability="step"` adds to a step, by store."""
    stores: list[tuple[str, float, Callable[[ExitStack], Store]]] = [
        ("directory", 3e-3, _directory),
        ("Redis", 4e-3, _redis),
    ]
    for name, target, make in stores:
        with ExitStack() as stack:
            try:
                store = make(stack)
            except (OSError, peers.NotInstalled) as reason:
                yield Row(f'`durability="step"`, {name} store', f"not measured: {reason}")
                continue
            evaluator = stack.enter_context(Evaluator(1, store=store, snapshot_key=_KEY))
            turns = {}
            for durability in ("none", "step"):
                session = stack.enter_context(evaluator.session(durability=durability))
                session.evaluate(_BEGIN["python"]).raise_for_status()
                turns[durability] = Turn(timed(partial(session.evaluate, "x + 1")), 20)
            samples = in_turns(turns, settings.of(12, 2))
            none, step = samples["none"], samples["step"]
            added = step.p50 - none.p50
            yield Row(
                f'`durability="step"` added to a step, CPython, {name} store, p50',
                f"**{ms(added)}**: {pair(step)}",
                f"without it {pair(none)}",
                f"<= {ms(target)}",
                added <= target,
                [
                    *times("session_durable_step", step, store=name),
                    *times("session_plain_step", none, store=name),
                ],
            )


def _sleepers(settings: Settings) -> Iterator[Row]:
    """Memory that the service takes for each of many sleeping sessions."""
    count = settings.of(10_000, 300)
    with serving(settings.workers) as service, Client(service.target) as client:
        for _ in range(50):
            client.session("javascript").hibernate()
        before = private_dirty_bytes(service.pid)
        for _ in range(count):
            session = client.session("javascript")
            session.evaluate("var x = 1")
            session.hibernate()
        each = (private_dirty_bytes(service.pid) - before) / count
        seconds = Samples()
        for info in client.sessions()[:50]:
            with _clocked(seconds):
                client.attach(info.id).evaluate("x")
    yield Row(
        f"{count:,} sleeping sessions in a directory: memory of the service for each",
        f"**{number(each / 1e3)} KB**",
        f"waking one of them through `Client` {pair(seconds)}",
        "<= 2 KB",
        each <= 2e3,
        [Figure("session_asleep", "KB", each / 1e3, {"n": count})],
    )


@contextmanager
def _clocked(samples: Samples) -> Iterator[None]:
    start = time.perf_counter()
    yield
    samples.seconds.append(time.perf_counter() - start)


@contextmanager
def _evaluator() -> Iterator[Evaluator]:
    with ExitStack() as stack:
        store = _directory(stack)
        yield stack.enter_context(Evaluator(1, store=store, snapshot_key=_KEY))


def _directory(stack: ExitStack) -> Store:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return stack.enter_context(open_store(f"dir:{folder}/store"))


def _redis(stack: ExitStack) -> Store:
    server = shutil.which("redis-server")
    if server is None:
        raise peers.NotInstalled("apt-get install redis-server")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    socket = folder / "socket"
    process = subprocess.Popen(
        [
            server,
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--dir",
            str(folder),
            "--appendonly",
            "yes",
            "--save",
            "",
        ],
        stdout=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    end = time.monotonic() + 10
    while not socket.exists():
        if time.monotonic() > end:
            raise OSError("it does not start")
        time.sleep(0.02)
    return stack.enter_context(open_store(f"unix://{socket}"))
