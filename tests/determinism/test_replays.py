"""A recording is repeated from its transcript alone, and whatever differs is said."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import (
    Deterministic,
    Evaluator,
    HttpCeiling,
    HttpPolicy,
    HttpRule,
    InvalidArgument,
    Limits,
    Recording,
    Result,
    Status,
)
from wasmeval.grants import Grants, Tool
from wasmeval.model import Job
from wasmeval.transcript import Event, Kind, MalformedTranscript, Player, Recorder
from wasmeval.wasm.calls import Operation
from wasmeval.wasm.recorded import ANSWER_NS, ReplayedCalls
from wasmeval.wasm.world import FixedWorld

GATHERING = """
import asyncio, time

async def main():
    calls = [asyncio.create_task(look.aio(i)) if hasattr(look, "aio") else asyncio.to_thread(look, i) for i in range(4)]
    return await asyncio.gather(*calls)

values = asyncio.run(main())
print(values, time.time())
values
"""
RACING = """
const seen = [];
const calls = [0, 1, 2, 3].map(async i => { seen.push(await look(i)); });
await Promise.all(calls);
const late = Promise.race([slow(), new Promise(done => setTimeout(() => done("timer"), 50))]);
({ seen, late: await late, at: performance.now() })
"""


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    ceiling = HttpCeiling((HttpRule("*:*", schemes=("http", "https")),), private_networks=("127.0.0.1/32",))
    with Evaluator(workers=2, http=ceiling) as evaluator:
        yield evaluator


def recording_of(result: Result) -> Recording:
    assert result.recording, (result.error, result.unrepeatable)
    return result.recording


def check_same(evaluator: Evaluator, result: Result) -> None:
    """Repeat it, from a file's form, and see that it is the same."""
    told = json.loads(json.dumps(recording_of(result).told()))
    replay = evaluator.replay(Recording.of(told))
    assert replay.differences == ()
    assert replay.is_same
    assert replay.is_sealed
    assert (replay.result.value_json, replay.result.usage.fuel) == (result.value_json, result.usage.fuel)
    assert replay.result.transcript == result.transcript


def test_tools_are_not_called_again(evaluator: Evaluator) -> None:
    calls: list[Any] = []

    def look(x: int) -> list[int]:
        calls.append(x)
        return [x, x * random.randrange(1_000_000)]

    def fail() -> None:
        raise KeyError("nothing there")

    code = "try:\n    fail()\nexcept KeyError as e:\n    print(e)\n[look(1), look(x=2)]"
    result = evaluator.evaluate(code, tools={"look": look, "fail": fail}, deterministic=True)
    assert calls == [1, 2]
    check_same(evaluator, result)
    assert calls == [1, 2]


@pytest.mark.parametrize("attempt", range(3))
def test_answers_come_in_any_order_and_are_seen_in_the_recorded_one(
    evaluator: Evaluator, attempt: int
) -> None:
    def look(i: int) -> int:
        time.sleep(random.random() / 50)
        return i * 10

    def slow() -> str:
        time.sleep(0.2)
        return "tool"

    tools = {"look": look, "slow": slow}
    result = evaluator.evaluate(RACING, language="javascript", tools=tools, deterministic=True)
    result.raise_for_status()
    assert sorted(result.value["seen"]) == [0, 10, 20, 30]
    assert result.value["late"] == "timer"
    check_same(evaluator, result)


def test_limits_of_tools_are_part_of_it(evaluator: Evaluator) -> None:
    def look(size: int) -> str:
        if size < 0:
            time.sleep(1)
        return "x" * size

    code = """
seen = []
for size in (10, 5000, 10, -1, 10, 10):
    try:
        seen.append(look(size))
    except Exception as e:
        seen.append(f"{type(e).__name__}: {e}")
seen
"""
    limits = Limits(tool_call_bytes=1000, tool_seconds=0.1, tool_calls=5)
    result = evaluator.evaluate(code, tools={"look": look}, limits=limits, deterministic=True)
    assert [text.partition(":")[0] for text in result.value] == [
        "x" * 10,
        "ToolLimitError",
        "x" * 10,
        "ToolLimitError",
        "x" * 10,
        "ToolLimitError",
    ]
    check_same(evaluator, result)


def test_input_is_read_from_the_transcript(evaluator: Evaluator) -> None:
    def lines() -> Iterator[str]:
        for i in range(5):
            time.sleep(0.01)
            yield f"line {i}\n"

    code = "import sys\nfirst = input()\n[first, *sys.stdin]"
    result = evaluator.evaluate(code, stdin=lines(), deterministic=True)
    assert result.value == ["line 0"] + [f"line {i}\n" for i in range(1, 5)]
    check_same(evaluator, result)
    script = evaluator.evaluate("print(input()); input()", stdin="a\nb", deterministic=True)
    check_same(evaluator, script)


def test_files_come_back_again(evaluator: Evaluator) -> None:
    code = "import random\nopen('out.bin', 'wb').write(random.randbytes(1000) + open('in.bin', 'rb').read())"
    result = evaluator.evaluate(
        code, files={"in.bin": b"\0\xff" * 100}, outputs=["*.bin"], deterministic=True
    )
    assert result.files["out.bin"].size == 1200
    check_same(evaluator, result)
    changed = replace(
        recording_of(result), outcome={**recording_of(result).outcome, "files": {"other": "00"}}
    )
    differences = evaluator.replay(changed).differences
    assert [text for text in differences if text.startswith("file ")] == [
        "file in.bin: missing then",
        "file other: missing now",
        "file out.bin: missing then",
    ]


class Site(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        Site.asked += 1
        body = f"{Site.asked} ".encode() * 20_000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_web_is_not_asked_again(evaluator: Evaluator) -> None:
    with HTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        policy = HttpPolicy((HttpRule(f"127.0.0.1:{server.server_port}", schemes=("http",)),))
        fetching = (
            f"const r = await fetch('{url}'); const t = await r.text(); [r.status, t.length, t.slice(0, 4)]"
        )
        reading = f"with urllib.request.urlopen('{url}') as r: body = r.read()"
        python = f"import urllib.request\n{reading}\n(r.status, len(body))"
        results = [
            evaluator.evaluate(fetching, language="javascript", http=policy, deterministic=True),
            evaluator.evaluate(python, http=policy, deterministic=True),
        ]
        server.shutdown()
        thread.join()
    asked = Site.asked
    for result in results:
        result.raise_for_status()
        assert result.value[:2] == [200, 40_000]
        assert result.http
        check_same(evaluator, result)
    assert Site.asked == asked


def test_a_changed_snippet_is_told_from_the_recorded_one(evaluator: Evaluator) -> None:
    tools = {"look": lambda x: x + 1}
    recording = recording_of(evaluator.evaluate("look(1)", tools=tools, deterministic=True))
    other_argument = replace(recording, request=recording.request._replace(code="look(2)"))
    replay = evaluator.replay(other_argument)
    assert replay.result.status is Status.ERROR
    assert replay.result.error
    assert replay.result.error.type == "ReplayDiverged"
    assert replay.differences == (
        "it went another way: event 1 of the transcript: the snippet began call 1 (CALL) with something else than then",
    )
    more = replace(recording, request=recording.request._replace(code="look(1)\nlook(1)"))
    assert "transcript is at its end" in evaluator.replay(more).differences[0]
    none = replace(recording, request=recording.request._replace(code="3"))
    assert [text.partition(":")[0] for text in evaluator.replay(none).differences] == [
        "code",
        "value",
        "transcript",
        "output",
        "fuel",
        "virtual_ns",
    ]


def test_each_difference_is_named(evaluator: Evaluator) -> None:
    result = evaluator.evaluate("print('a')\nprint('b')\nraise ValueError('no')", deterministic=True)
    recording = recording_of(result)
    receipt = recording.receipt
    changed = replace(
        recording,
        receipt=replace(receipt, image="0" * 64, engine="1.0", status="ok", output="00"),
        outcome={**recording.outcome, "stdout": "a\nc\n", "error": None, "value": "1"},
    )
    assert evaluator.replay(changed).differences == (
        f"image: '{'0' * 64}' then, '{receipt.image}' now",
        f"Wasmtime: '1.0' then, '{receipt.engine}' now",
        "status: ok then, error now",
        "value: '1' then, '' now",
        "stdout: line 2: 'c' then, 'b' now",
        "error: 'none' then, 'ValueError: no' now",
        f"output: '00' then, '{receipt.output}' now",
    )


@pytest.mark.parametrize("damage", ["cut", "kind", "length", "outcome", "garbage", "call"])
def test_a_damaged_transcript_ends_the_snippet_and_nothing_else(evaluator: Evaluator, damage: str) -> None:
    recording = recording_of(evaluator.evaluate("f(1)", tools={"f": lambda x: x}, deterministic=True))
    whole = bytearray(recording.transcript)
    second = 10 + int.from_bytes(whole[6:10], "little")
    match damage:
        case "cut":
            del whole[-1:]
        case "kind":
            whole[0] = 9
        case "length":
            whole[6:10] = b"\xff" * 4
        case "outcome":
            whole[second + 1] = 77
        case "garbage":
            whole = bytearray(random.randbytes(500))
        case "call":
            whole[second + 2] = 9
    replay = evaluator.replay(replace(recording, transcript=bytes(whole)))
    assert replay.result.status is Status.ERROR
    assert not replay.is_same
    assert evaluator.evaluate("1 + 1").value == 2


def test_a_file_that_is_no_recording_is_refused(evaluator: Evaluator, tmp_path: Path) -> None:
    recording = recording_of(evaluator.evaluate("1", deterministic=True))
    path = tmp_path / "receipt.json"
    recording.save(path)
    assert Recording.load(path) == recording
    told = recording.told()
    for wrong in (
        [],
        {},
        {**told, "kind": "other"},
        {**told, "version": 2},
        {**told, "receipt": {}},
        {**told, "receipt": {**told["receipt"], "fuel": "1"}},
        {**told, "receipt": {**told["receipt"], "limits": {"fuel": -1}}},
        {**told, "transcript": "%"},
        {**told, "request": {**told["request"], "inputs": []}},
        {**told, "outcome": {}},
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InvalidArgument):
            Recording.load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(InvalidArgument):
        evaluator.replay(path)
    with pytest.raises(InvalidArgument, match="none"):
        evaluator.replay()
    with pytest.raises(InvalidArgument, match="alone"):
        evaluator.replay(recording, recording)


def test_another_key_gives_another_seal(evaluator: Evaluator) -> None:
    recording = recording_of(evaluator.evaluate("1", deterministic=Deterministic(9)))
    with Evaluator(workers=1) as stranger:
        replay = stranger.replay(recording)
    assert replay.is_same
    assert not replay.is_sealed
    forged = replace(recording, receipt=replace(recording.receipt, seal="0" * 64))
    assert not evaluator.replay(forged).is_sealed


events = st.builds(
    Event,
    st.sampled_from([kind for kind in Kind if kind is not Kind.PASSED]),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=20),
)


@given(st.lists(st.none() | events, max_size=30))
def test_events_are_read_as_they_were_written(written: list[Event | None]) -> None:
    """None is a wait in vain."""
    recorder = Recorder()
    for event in written:
        if event is None:
            recorder.passed()
        else:
            recorder.add(event.kind, event.body, event.call, event.detail)
    player = Player(recorder.data)
    read = [player.take() for _ in written]
    assert [event if event and event.kind is not Kind.PASSED else None for event in read] == written
    assert player.take() is None
    assert recorder.size == len(recorder.data)


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_malformed(data: bytes) -> None:
    player = Player(data)
    try:
        for _ in range(300):
            if (event := player.take()) is None:
                break
            assert isinstance(event.kind, Kind)
    except MalformedTranscript:
        pass


def test_a_repetition_is_not_sealed(evaluator: Evaluator) -> None:
    recording = recording_of(evaluator.evaluate("f()", tools={"f": lambda: 5}, deterministic=True))
    assert recording.receipt.seal
    forged = replace(recording, transcript=recording.transcript[:-1] + b"9")
    replay = evaluator.replay(forged)
    assert (replay.result.value, replay.is_sealed) == (9, False)
    assert replay.result.receipt
    assert replay.result.receipt.seal == ""
    assert "transcript: not the one that the receipt is of" in replay.differences
    given = Deterministic(transcript=forged.transcript)
    by_hand = evaluator.evaluate("f()", tools={"f": lambda: 5}, deterministic=given)
    assert by_hand.value == 9
    assert by_hand.receipt
    assert (by_hand.receipt.seal, by_hand.seal_holds) == ("", False)


def test_an_answer_made_up_at_its_end_is_noticed(evaluator: Evaluator) -> None:
    recording = recording_of(evaluator.evaluate("1", deterministic=True))
    more = Recorder()
    more.add(Kind.READ, b"more")
    replay = evaluator.replay(replace(recording, transcript=more.data))
    assert replay.differences == ("transcript: not the one that the receipt is of",)


def test_a_poll_past_the_deadline_is_the_same_again(evaluator: Evaluator) -> None:
    """What its fuel takes sets the clock forward, beyond the deadline by then: only sleep ends it there, and a poll
    is none."""
    code = """
const call = slow();
let polls = 0;
const pause = () => new Promise(done => setTimeout(done, 0));
let over = false;
call.then(() => { over = true; });
let n = 0;
for (let i = 0; i < 2_000_000; i++) n += i;
while (!over) { await pause(); polls += 1; if (polls > 3) break; }
await call
"""

    def slow() -> int:
        time.sleep(1.0)
        return 1

    limits = Limits(deadline_seconds=30.0)
    result = evaluator.evaluate(
        code, language="javascript", tools={"slow": slow}, limits=limits, deterministic=True
    )
    result.raise_for_status()
    assert Kind.PASSED in {event.kind for event in events_of(result.transcript)}
    # The same transcript where the clock has long passed the deadline when it polls.
    recorder, world = Recorder(), PassedWorld()
    calls = ReplayedCalls(
        Grants(tools=(Tool("slow"),)),
        result.limits,
        cast(FixedWorld, world),
        recorder,
        Player(result.transcript),
    )
    for event in events_of(result.transcript):
        if event.kind is Kind.BEGAN:
            calls.operate(bytes((event.detail,)) + event.body)
        elif event.kind is Kind.PASSED:
            assert calls.operate(bytes((Operation.WAIT,)) + bytes(12)) == b""
        else:
            calls.operate(bytes((Operation.WAIT,)) + (-1).to_bytes(8, "little", signed=True) + bytes(4))
    assert recorder.data == result.transcript
    assert world.passed == [ANSWER_NS]
    check_same(evaluator, result)


class PassedWorld:
    """A clock that is told how time passes."""

    def __init__(self) -> None:
        self.passed: list[int] = []

    def pass_time(self, pause: int) -> None:
        self.passed.append(pause)


def events_of(transcript: bytes) -> Iterator[Event]:
    player = Player(transcript)
    while (event := player.take()) is not None:
        yield event


def test_whoever_asks_until_it_is_late_comes_to_an_end(evaluator: Evaluator) -> None:
    code = "import time\nn, end = 0, time.monotonic() + 0.1\nwhile time.monotonic() < end: n += f()\nn"
    result = evaluator.evaluate(code, tools={"f": lambda: 1}, deterministic=True)
    assert 90 <= result.value <= 100
    check_same(evaluator, result)


def test_transcripts_count_to_what_is_held() -> None:
    plain = Job("python", b"12", b"3", Limits())
    world = Deterministic(transcript=b"4567").world()
    assert replace(plain, world=world).size == plain.size + 4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("request", "code"), 7),
        (("request", "code"), "\ud800"),
        (("request", "language"), None),
        (("request", "inputs"), {"x": 1}),
        (("request", "inputs"), {"x": "\ud800"}),
        (("request", "grants"), {}),
        (("outcome", "error"), "text"),
        (("outcome", "files"), []),
        (("outcome", "stdout"), None),
        (("receipt", "limits", "fuel"), None),
        (("receipt", "limits", "fuel"), "many"),
        (("receipt", "seal"), 1),
        (("transcript",), "\u00e4"),
    ],
)
def test_parts_that_cannot_be_are_refused(evaluator: Evaluator, path: tuple[str, ...], value: object) -> None:
    told = json.loads(json.dumps(recording_of(evaluator.evaluate("1", deterministic=True)).told()))
    part = told
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    with pytest.raises(InvalidArgument):
        Recording.of(told)


def test_a_recording_is_its_owners_alone(evaluator: Evaluator, tmp_path: Path) -> None:
    recording = recording_of(evaluator.evaluate("1", deterministic=True))
    recording.save(tmp_path / "r.json")
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(Deterministic(transcript=b"secret"))
