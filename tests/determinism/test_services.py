"""Deterministic evaluations at a service, and at a prompt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.running import running_service
from wasmeval import (
    AsyncClient,
    Client,
    Deterministic,
    Evaluation,
    Evaluator,
    InvalidArgument,
    Recording,
    Result,
    Status,
    ToolCall,
)

CODE = "import random, time\nprint(time.time())\n(random.random(), ask(x))"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running_service("--workers", "2") as service, Client(service.target) as client:
        yield client


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


def given() -> dict[str, Any]:
    return {"inputs": {"x": 4}, "tools": {"ask": lambda x: x + 1}, "deterministic": Deterministic(3)}


def check_alike(first: Result, second: Result) -> None:
    assert first.receipt
    assert second.receipt
    assert first.receipt.payload == second.receipt.payload
    assert (first.value, first.stdout, first.transcript) == (second.value, second.stdout, second.transcript)


def test_a_service_and_an_evaluator_give_the_same(client: Client, evaluator: Evaluator) -> None:
    there, here = client.evaluate(CODE, **given()), evaluator.evaluate(CODE, **given())
    assert there.value[1] == 5
    check_alike(there, here)
    assert there.recording
    assert here.recording
    assert evaluator.replay(there.recording).is_same
    replay = client.replay(here.recording)
    assert (replay.differences, replay.is_sealed) == ((), False)
    assert client.replay(there.recording).is_sealed


def test_the_async_client_does_too(client: Client) -> None:
    async def run() -> None:
        async with AsyncClient(client._target) as other:
            result = await other.evaluate(CODE, **given())
            check_alike(result, client.evaluate(CODE, **given()))
            assert result.recording
            assert (await other.replay(result.recording)).is_same
            async with other.converse("ask(1)", tools={"ask": lambda x: x}, deterministic=True) as events:
                last = None
                async for event in events:
                    if isinstance(event, Result):
                        last = event
                    elif hasattr(event, "reply"):
                        event.reply(8)
            assert isinstance(last, Result)
            assert last.value == 8
            assert last.recording
            assert client.replay(last.recording).is_same
            async with await other.session(deterministic=True) as session:
                step = await session.evaluate("1")
                assert step.receipt
                assert (await session.checkpoint()).digest

    asyncio.run(run())


def test_a_conversation_is_recorded(client: Client, evaluator: Evaluator) -> None:
    results = []
    for place in (client, evaluator):
        with place.converse(
            "ask(1) + len(open('a').read())",
            tools={"ask": lambda x: x},
            files={"a": b"abc"},
            deterministic=True,
        ) as conversation:
            for event in conversation:
                if isinstance(event, Result):
                    results.append(event)
                elif isinstance(event, ToolCall):
                    event.reply(6)
    assert [result.value for result in results] == [9, 9]
    check_alike(*results)
    for result in results:
        assert result.recording
        assert client.replay(result.recording).is_same


def test_batches_and_files(client: Client, evaluator: Evaluator) -> None:
    asked = [
        Evaluation("import random; random.random()", deterministic=Deterministic(seed)) for seed in range(5)
    ]
    asked.append(Evaluation("open('a').read()", files={"a": b"x"}, outputs=["a"], deterministic=True))
    for there, here in zip(client.evaluate_batch(asked), evaluator.evaluate_batch(asked), strict=True):
        check_alike(there, here)
        assert there.recording


def test_answers_are_known_the_second_time(client: Client) -> None:
    code = "import random; random.random() # known"
    results = [client.evaluate(code, deterministic=True, cache=True) for _ in range(3)]
    assert [result.cached for result in results] == [False, True, True]
    assert len({result.receipt for result in results}) == 1
    (batched,) = client.evaluate_batch([Evaluation(code, deterministic=True, cache=True)])
    assert batched.cached


def test_sessions_at_a_service(client: Client, evaluator: Evaluator) -> None:
    steps = ["import random; x = random.random()", "x, random.random(), ask(1)"]
    told = []
    for place in (client, evaluator):
        with place.session(deterministic=Deterministic(2)) as session:
            results = [session.evaluate(code, tools={"ask": lambda x: x}) for code in steps]
            session.hibernate()
            told.append((results, session.checkpoint().digest))
    for there, here in zip(told[0][0], told[1][0], strict=True):
        check_alike(there, here)
    assert told[0][1] == told[1][1]
    recordings = [result.recording for result in told[0][0] if result.recording]
    assert len(recordings) == 2
    assert client.replay(*recordings).differences == ()
    assert evaluator.replay(*recordings).differences == ()
    assert [each.id for each in client.sessions()] == []


def test_what_a_service_refuses(client: Client) -> None:
    with pytest.raises(InvalidArgument) as refused:
        client.evaluate("1", deterministic=True, mounts=["m"])
    assert refused.value.field == "mounts"
    with pytest.raises(InvalidArgument) as refused:
        client.evaluate("1", cache=True)
    assert refused.value.field == "cache"


@pytest.mark.parametrize("where", ["here", "there"])
def test_at_the_prompt(
    wasmeval: Command, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    server = ["--server", client._target] if where == "there" else []
    path = str(tmp_path / "receipt.json")
    code = "import random\nprint(input())\nrandom.random()"
    done = wasmeval("run", "--seed", "7", "--receipt", path, "-c", code, *server, stdin=b"typed\n")
    assert (done.returncode, done.stderr) == (0, b"")
    again = wasmeval("run", "--seed", "7", "-c", code, *server, stdin=b"typed\n")
    assert again.stdout == done.stdout
    replayed = wasmeval("replay", path, *server)
    assert (replayed.returncode, replayed.stderr) == (0, b"")
    assert replayed.stdout.startswith(b"the same: ok, ")
    assert replayed.stdout.endswith(b" fuel, sealed by this key\n")
    told = json.loads(Path(path).read_text())
    told["outcome"]["stdout"] = "tiped\n"
    Path(path).write_text(json.dumps(told))
    differs = wasmeval("replay", path, *server)
    assert (differs.returncode, differs.stdout) == (1, b"stdout: line 1: 'tiped' then, 'typed' now\n")
    as_json = json.loads(wasmeval("replay", "--json", path, *server).stdout)
    assert (as_json["same"], len(as_json["differences"])) == (False, 1)


def test_options_imply_one_another(
    wasmeval: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    year = "import datetime; datetime.datetime.now().year"
    assert wasmeval("run", "--start-time", "2030-02-01", "-c", year).stdout == b"2030\n"
    assert wasmeval("run", "--start-time", "86400", "-c", year).stdout == b"1970\n"
    results = [json.loads(wasmeval("run", "--json", "--cache", "-c", "1 + 1").stdout) for _ in range(2)]
    assert [result["cached"] for result in results] == [False, True]
    assert results[0]["receipt"] == results[1]["receipt"]
    wrong = wasmeval("run", "--start-time", "soon", "-c", "1")
    assert wrong.returncode == 2
    assert b"neither a number of seconds nor a date" in wrong.stderr
    for missing in (str(tmp_path / "none"), str(tmp_path)):
        done = wasmeval("replay", missing)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(b"wasmeval: recording: ")
    unfinished = wasmeval(
        "run",
        "--deadline",
        "0.2",
        "--fuel",
        "1e12",
        "--receipt",
        str(tmp_path / "r"),
        "-c",
        "while True: pass",
    )
    assert unfinished.returncode == 3
    assert b"there is no receipt: the deadline ended it by the wall clock" in unfinished.stderr


def test_a_recording_of_another_status(client: Client) -> None:
    result = client.evaluate("1 / 0", deterministic=True)
    assert result.status is Status.ERROR
    assert isinstance(result.recording, Recording)
    assert client.replay(result.recording).is_same
