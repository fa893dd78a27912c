"""What a deterministic snippet sees is a function of what was said, wherever and whenever it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from wasmeval import Deterministic, Evaluation, Evaluator, InvalidArgument, Limits, Status

PYTHON = """
import datetime, os, random, secrets, sqlite3, tempfile, time, uuid
open("a.txt", "w").write("x")
os.mkdir("d")
stat = os.stat("a.txt")
{
    "random": [random.random(), random.gauss(0, 1), os.urandom(5).hex(), secrets.token_hex(4), str(uuid.uuid4())],
    "sqlite": sqlite3.connect(":memory:").execute("select random(), hex(randomblob(8)), datetime('now')").fetchall(),
    "time": [time.time(), time.time_ns(), time.monotonic(), time.perf_counter(), time.process_time()],
    "dates": [str(datetime.datetime.now()), str(datetime.date.today())],
    "order": list({f"k{i}" for i in range(50)}) + [hash("text")],
    "id": id(object()),
    "files": [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, os.stat("given.txt").st_mtime_ns, os.listdir(".")],
    "names": tempfile.mkstemp()[1],
}
"""
JAVASCRIPT = """
const bytes = new Uint8Array(8);
crypto.getRandomValues(bytes);
({
  random: [Math.random(), Math.random(), crypto.randomUUID(), [...bytes]],
  time: [Date.now(), performance.now(), new Date().toISOString()],
})
"""
TYPESCRIPT = "const seen: number[] = [Math.random(), Date.now()];\nseen"


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=2) as evaluator:
        yield evaluator


@pytest.fixture(scope="module")
def other() -> Iterator[Evaluator]:
    """Workers, and a key, that have nothing to do with the first ones."""
    with Evaluator(workers=1) as evaluator:
        yield evaluator


@pytest.mark.parametrize(
    ("language", "code"), [("python", PYTHON), ("javascript", JAVASCRIPT), ("typescript", TYPESCRIPT)]
)
def test_all_that_it_sees_is_the_same_elsewhere(
    evaluator: Evaluator, other: Evaluator, language: str, code: str
) -> None:
    asked = Evaluation(code, language, files={"given.txt": b"1", "b.txt": b""}, deterministic=True)
    # Beside others, which take the CPU and the prepared instances away.
    noise = [Evaluation("sum(i * i for i in range(300_000))")] * 12
    many = evaluator.evaluate_batch([*noise, *[asked] * 6, *noise])[12:18]
    elsewhere = other.evaluate_batch([asked])
    for result in [*many, *elsewhere]:
        result.raise_for_status()
        assert (result.value, result.usage.fuel) == (many[0].value, many[0].usage.fuel)
        assert result.receipt
        assert many[0].receipt
        assert result.receipt.payload == many[0].receipt.payload


@pytest.mark.parametrize(("language", "code"), [("python", PYTHON), ("javascript", JAVASCRIPT)])
def test_another_seed_is_other_randomness_and_nothing_else(
    evaluator: Evaluator, language: str, code: str
) -> None:
    files = {"given.txt": b"1"}
    first, second = (
        evaluator.evaluate(code, language=language, files=files, deterministic=Deterministic(seed)).value
        for seed in (1, 2)
    )
    assert not set(map(str, first["random"])) & set(map(str, second["random"]))
    if language == "python":
        assert first["order"] == second["order"]
        assert first["sqlite"][0][0] != second["sqlite"][0][0]
        assert first["names"] != second["names"]


def test_all_clocks_begin_at_the_start_time(evaluator: Evaluator) -> None:
    start = Deterministic(start_time=1_900_000_000.25)
    value = evaluator.evaluate(PYTHON, files={"given.txt": b"1"}, deterministic=start).value
    assert 1_900_000_000.25 <= value["time"][0] < 1_900_000_001
    assert value["dates"] == [value["dates"][0], "2030-03-17"]
    assert value["dates"][0].startswith("2030-03-17 17:46:40")
    assert {times // 10**9 for times in [*value["files"][:2], value["files"][3]]} == {1_900_000_000}
    date = evaluator.evaluate("new Date().getFullYear()", language="javascript", deterministic=start)
    assert date.value == 2030


def test_the_clock_goes_with_the_fuel(evaluator: Evaluator) -> None:
    code = "import time\na = time.monotonic_ns()\nfor i in range({}): pass\ntime.monotonic_ns() - a"
    short, long = (evaluator.evaluate(code.format(n), deterministic=True) for n in (1_000, 200_000))
    assert 0 < short.value < long.value
    assert long.usage.virtual_ns == pytest.approx(long.usage.fuel / 20, abs=1)
    assert long.value <= long.usage.virtual_ns


def test_sleep_is_over_at_once_and_counts(evaluator: Evaluator) -> None:
    code = (
        "import time, asyncio\na = time.time()\ntime.sleep(3)\nasyncio.run(asyncio.sleep(4))\ntime.time() - a"
    )
    result = evaluator.evaluate(code, deterministic=True, timeout=5)
    assert 7 <= result.value < 7.1
    assert result.usage.virtual_ns >= 7 * 10**9
    timers = "new Promise(done => setTimeout(() => done(Math.round(performance.now() / 1000)), 8000))"
    assert evaluator.evaluate(timers, language="javascript", deterministic=True, timeout=5).value == 8


def test_whoever_sleeps_past_the_deadline_ends_there_each_time_alike(evaluator: Evaluator) -> None:
    code = "import time\nn = 0\nwhile True:\n    n += 1\n    print(n)\n    time.sleep(0.25)"
    limits = Limits(deadline_seconds=2.0)
    first, second = (
        evaluator.evaluate(code, limits=limits, deterministic=True, timeout=20) for _ in range(2)
    )
    assert first.status is second.status is Status.DEADLINE_EXCEEDED
    assert first.stdout == second.stdout == "".join(f"{n}\n" for n in range(1, 9))
    assert first.receipt
    assert first.receipt == second.receipt


def test_fuel_ends_it_at_the_same_place(evaluator: Evaluator, other: Evaluator) -> None:
    code = "n = 0\nwhile True:\n    n += 1\n    print(n)"
    asked = [Evaluation(code, limits=Limits(fuel=30_000_000), deterministic=True)] * 4
    results = evaluator.evaluate_batch(asked) + other.evaluate_batch(asked[:1])
    assert {result.status for result in results} == {Status.FUEL_EXHAUSTED}
    assert len({result.stdout for result in results}) == 1
    assert len(results[0].stdout) > 100
    assert len({result.receipt.payload for result in results if result.receipt}) == 1


def test_the_order_of_inputs_and_files_is_of_no_account(evaluator: Evaluator) -> None:
    code = "import os\n(b, a, [n for n in globals() if len(n) == 1], os.listdir('.'), os.stat('y').st_ino)"
    first = evaluator.evaluate(
        code, inputs={"a": 1, "b": [2]}, files={"x": b"1", "y": b"2"}, deterministic=True
    )
    second = evaluator.evaluate(
        code, inputs={"b": [2], "a": 1}, files={"y": b"2", "x": b"1"}, deterministic=True
    )
    assert first.value == second.value
    assert first.receipt == second.receipt


def test_what_it_is_granted_unseen_changes_nothing(evaluator: Evaluator) -> None:
    heard: list[str] = []
    code = "import random\nprint(random.random())"
    plain = evaluator.evaluate(code, deterministic=True)
    heard_too = evaluator.evaluate(code, deterministic=True, on_output=lambda _, text: heard.append(text))
    assert "".join(heard) == plain.stdout
    assert plain.receipt == heard_too.receipt


def test_other_evaluations_are_as_they_were(evaluator: Evaluator) -> None:
    plain = [evaluator.evaluate("import random, time\n(random.random(), time.time())") for _ in range(2)]
    assert plain[0].value[0] != plain[1].value[0]
    assert plain[0].value[1] > 1_700_000_000
    assert (plain[0].receipt, plain[0].unrepeatable, plain[0].usage.virtual_ns) == (None, "", 0)


def test_threads_share_it(evaluator: Evaluator) -> None:
    with ThreadPoolExecutor(8) as threads:
        code = "import random\nsum(random.random() for _ in range(1000))"
        results = list(threads.map(lambda _: evaluator.evaluate(code, deterministic=True), range(24)))
    assert len({json.dumps([result.value, result.usage.fuel]) for result in results}) == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"deterministic": 7}, "deterministic"),
        ({"deterministic": True, "mounts": {"m": "/tmp"}}, "mounts"),
        ({"cache": True}, "cache"),
        ({"deterministic": True, "cache": 1}, "cache"),
        ({"deterministic": True, "cache": True, "tools": {"f": lambda: 1}}, "cache"),
        ({"deterministic": True, "cache": True, "stdin": "x"}, "cache"),
        ({"deterministic": Deterministic(transcript=b""), "cache": True}, "cache"),
    ],
)
def test_what_cannot_be_is_refused(evaluator: Evaluator, given: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        evaluator.evaluate("1", **given)  # type: ignore[arg-type]
    assert refused.value.field == field


@pytest.mark.parametrize(
    "given",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 1.0},
        {"seed": True},
        {"start_time": -1},
        {"start_time": float("nan")},
        {"start_time": 2**32 + 1},
        {"start_time": True},
        {"transcript": "text"},
        {"transcript": bytes(8 * 2**20 + 1)},
    ],
)
def test_a_world_that_cannot_be_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Deterministic(**given)  # type: ignore[arg-type]
    assert refused.value.field == f"deterministic.{next(iter(given))}"


def test_what_no_function_of_its_inputs_ended_has_no_receipt(evaluator: Evaluator) -> None:
    endless = evaluator.evaluate(
        "while True: pass", limits=Limits(deadline_seconds=0.2, fuel=10**12), deterministic=True
    )
    assert endless.status is Status.DEADLINE_EXCEEDED
    assert endless.receipt is None
    assert "wall clock" in endless.unrepeatable
    stopped = None
    with evaluator.converse("while True: pass", deterministic=True) as conversation:
        conversation.cancel()
        stopped = list(conversation)[-1]
    assert stopped.status is Status.CANCELLED  # type: ignore[union-attr]
    assert "cancelled" in stopped.unrepeatable  # type: ignore[union-attr]
    large = evaluator.evaluate(
        "for _ in range(10): f('x' * 900_000)\n1", tools={"f": lambda _: None}, deterministic=True
    )
    assert large.value == 1
    assert (large.receipt, large.recording, large.transcript) == (None, None, b"")
    assert "longer than" in large.unrepeatable
