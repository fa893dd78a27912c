"""One job in a machine, its guest played by the test: what it says is counted against what the job was granted."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vm.machines import SKIPPED, FakeMachine, Play, frame, left, played
from wasmeval.grants import Grants, Tool
from wasmeval.limits import MIB, Limits
from wasmeval.model import ErrorInfo, Result, Status
from wasmeval.tools import raised
from wasmeval.vm import task as tasks
from wasmeval.vm.agent import Agent
from wasmeval.vm.frames import MalformedFrame, Order, Word
from wasmeval.vm.task import Task
from wasmeval.wasm import abi
from wasmeval.wasm.calls import NO_SUCH_OPERATION, Operation, Outcome

SMALL = Limits(output_bytes=100, workspace_bytes=1000, workspace_files=5, memory_bytes=64 * MIB)
TOOLS = Grants(tools=(Tool("f"),))
LIVE = Grants(live=True, stdin=True)
OUTPUTS = Grants(outputs=("**",))
WAIT_FOR_EVER = struct.pack("<qI", -1, 0)
REPLY = struct.Struct("<8I")


def error(result: Result) -> ErrorInfo:
    assert result.error is not None
    return result.error


async def is_ended(play: Play, why: str) -> None:
    """The guest was not believed: its machine is killed, and the job tells why."""
    result = await play.result()
    assert (result.status, error(result).type) == (Status.CRASHED, "Crashed")
    assert error(result).message == f"the guest's agent is not to be trusted any more: {why}"
    assert play.machine.is_killed
    assert result.files == {}


# --- orders, and the honest end ----------------------------------------------------------------------------------


async def test_a_job_is_files_then_its_order_then_what_runs() -> None:
    files = {"a": b"", "d/b": bytes(150_000)}
    with played(grants=Grants(files=files, outputs=("x/*.txt", "**")), limits=SMALL) as play:
        heard = [await play.guest.hear() for _ in range(6)]
        assert [(order, number) for order, number, _ in heard] == [
            (Order.FILE, 1), (Order.FILE, 1), (Order.FILE, 0), (Order.FILE, 0), (Order.BEGIN, 0), (Order.RUN, 0),
        ]  # fmt: skip
        assert heard[0][2] == left("a")
        assert b"".join(payload[5:] for _, _, payload in heard[1:4]) == files["d/b"]
        order = json.loads(heard[4][2])
        assert (order["program"], order["argv"], order["outputs"][1]) == ("command", ["true"], [None])
        assert (order["output_bytes"], order["workspace_files"], order["processes"]) == (100, 5, 128)
        await play.guest.done(peak_memory_bytes=5 * MIB)
        result = await play.result()
        assert not play.machine.is_killed
    assert (result.status, result.exit_status, result.tier, result.tier_detail) == ("ok", 0, "vm", "a double")
    assert result.usage.peak_memory_bytes == 5 * MIB


async def test_the_interpreter_gets_a_request_and_gives_a_reply() -> None:
    with played(runtime="vm-python") as play:
        assert (await play.guest.hear_until(Order.RUN)).endswith(b"1 + 1")
        reply = REPLY.pack(0, 0, 1, 0, 0, 0, 0, 0) + b"2"
        await play.guest.say(Word.REPLY, reply[:20])
        await play.guest.say(Word.REPLY, reply[20:])
        await play.guest.done(exit_status=None)
        result = await play.result()
    assert (result.status, result.value, result.exit_status) == ("ok", 2, None)


async def test_output_comes_as_it_is_written_and_whole() -> None:
    with played(grants=LIVE) as play:
        await play.guest.say(Word.OUTPUT, b"out", 1)
        await play.guest.say(Word.OUTPUT, b"err", 2)
        await play.guest.say(Word.OUTPUT, b"put", 1)
        await play.guest.done(exit_status=3)
        result = await play.result()
    assert (result.stdout, result.stderr, result.exit_status) == ("output", "err", 3)
    assert play.outside.output == [(1, b"out"), (2, b"err"), (1, b"put")]


async def test_a_tail_says_what_was_left_out() -> None:
    with played(limits=SMALL, grants=LIVE) as play:
        await play.guest.say(Word.OUTPUT, b"a" * 100, 1)
        await play.guest.say(Word.TAIL, SKIPPED.pack(1 << 63) + b"z" * 50, 1)
        await play.guest.done()
        result = await play.result()
    assert result.stdout_truncated
    assert result.stdout == "a" * 50 + f"\n[... {(1 << 63) + 50} bytes left out ...]\n" + "z" * 50
    assert not result.stderr_truncated
    assert len(play.outside.output) == 1


async def test_files_are_given_back() -> None:
    with played(grants=OUTPUTS) as play:
        await play.guest.left("a/b.txt", b"one")
        await play.guest.left("a/b.txt", b"two", begins=False)
        await play.guest.left("../x", b"no")
        await play.guest.done()
        result = await play.result()
    assert {path: file.data for path, file in result.files.items()} == {"a/b.txt": b"onetwo"}


async def test_files_that_were_left_out_are_told() -> None:
    with played(grants=OUTPUTS, limits=SMALL) as play:
        await play.guest.done(files_left_out=True)
        result = await play.result()
    assert result.status == "output_exceeded"
    assert "1000 bytes or 5 files" in error(result).message


# --- what a guest must not say -----------------------------------------------------------------------------------

Says = Callable[[Play], Awaitable[None]]


def says(*frames: bytes) -> Says:
    async def say(play: Play) -> None:
        await play.guest.utter(b"".join(frames))

    return say


def output(data: bytes, stream: int = 1) -> bytes:
    return frame(Word.OUTPUT, data, stream)


def tail(skipped: int, data: bytes) -> bytes:
    return frame(Word.TAIL, SKIPPED.pack(skipped) + data, 1)


def call(operation: int, body: bytes = b"") -> bytes:
    return frame(Word.CALL, bytes([operation]) + body)


def done(text: str | bytes) -> bytes:
    return frame(Word.DONE, text if isinstance(text, bytes) else text.encode())


FULL = output(b"x" * 100)
NO_TAIL, NO_END, NO_OUTPUT = (
    "a tail that cannot be",
    "an end that is none",
    "output of nothing, or beyond its limit",
)
TWO_CALLS = "a call while another one waits, or one too many"
NO_INPUT = "input is wanted where there is none, or too often"
LIES: dict[str, tuple[Grants | None, bytes, str]] = {
    "output beyond its limit": (None, FULL + output(b"y"), NO_OUTPUT),
    "output beyond its limit at once": (None, output(b"y" * 101), NO_OUTPUT),
    "output of nothing": (None, output(b""), NO_OUTPUT),
    "output on stream 0": (None, output(b"x", 0), "output on the stream 0"),
    "output on stream 3": (None, output(b"x", 3), "output on the stream 3"),
    "output on the last stream": (None, output(b"x", 0xFFFFFFFF), "output on the stream 4294967295"),
    "a tail without a head": (None, tail(5, b"x"), NO_TAIL),
    "a tail of nothing": (None, FULL + tail(5, b""), NO_TAIL),
    "a tail without its number": (None, FULL + frame(Word.TAIL, b"1234567", 1), NO_TAIL),
    "a long tail": (None, FULL + tail(0, b"x" * 101), NO_TAIL),
    "two tails": (None, FULL + tail(1, b"x") + tail(1, b"x"), NO_TAIL),
    "output after its tail": (None, FULL + tail(1, b"x") + output(b"x"), NO_OUTPUT),
    "a tail of stream 9": (None, frame(Word.TAIL, bytes(9), 9), "output on the stream 9"),
    "two calls at once": (TOOLS, call(1, b'{"name": "f"}') + call(5, WAIT_FOR_EVER) + call(0), TWO_CALLS),
    "a long call": (TOOLS, call(1, bytes(2 * MIB)), "a call longer than there can be"),
    "input that there is none of": (None, frame(Word.INPUT), NO_INPUT),
    "input without an end": (LIVE, frame(Word.INPUT) * 2, NO_INPUT),
    "a long reply": (None, frame(Word.REPLY, bytes(1 << 16)), "a reply longer than there can be"),
    "ready": (None, frame(Word.READY, b"{}"), "READY in the middle of a job"),
    "resumed": (None, frame(Word.RESUMED), "RESUMED in the middle of a job"),
    "rehearsed": (None, frame(Word.REHEARSED), "REHEARSED in the middle of a job"),
    "files unasked": (None, frame(Word.LEFT, left("a"), 1), "files that nobody asked for"),
    "half a file": (OUTPUTS, frame(Word.LEFT, left("a", b"x")), "a file that begins twice, or not at all"),
    "too many files": (
        OUTPUTS, b"".join(frame(Word.LEFT, left(f"f{n}"), 1) for n in range(6)), "more files than their limit",
    ),
    "too large files": (OUTPUTS, frame(Word.LEFT, left("a", bytes(1001)), 1), "more files than their limit"),
    "no payload of a file": (OUTPUTS, frame(Word.LEFT, b"", 1) * 6, "more files than their limit"),
    "a frame of no kind": (None, frame(99), "a frame of the unknown kind 99"),
    "an order": (None, frame(Order.BEGIN), f"a frame of the unknown kind {Order.BEGIN}"),
    **{
        f"an end that is {text[:40]!r}": (None, done(text), NO_END)
        for text in (
            b"", b"\xff", "{", "null", "1", '"text"', "[]", "[" * 100_000, '{"a":' * 20_000,
            '{"exit_status": "0"}', '{"exit_status": 256}', '{"exit_status": -65}', '{"exit_status": true}',
            '{"exit_status": 0.0}', '{"exit_status": NaN}', '{"exit_status": [0]}', '{"exit_status": 1e999}',
            '{"peak_memory_bytes": -1}', '{"peak_memory_bytes": null}', '{"peak_memory_bytes": false}',
            '{"exit_status": ' + "9" * 5000 + "}",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_ends_the_machine_and_is_told(lie: str) -> None:
    grants, data, why = LIES[lie]
    with played(limits=SMALL, grants=grants) as play:
        await play.guest.hear_until(Order.RUN)
        await play.guest.utter(data)
        await is_ended(play, why)


async def test_what_comes_after_the_end_is_of_no_account_and_ends_the_machine() -> None:
    with played(grants=LIVE) as play:
        await play.guest.utter(done('{"exit_status": 0}') + output(b"late") + frame(Word.INPUT))
        result = await play.result()
    assert (result.status, result.stdout) == ("ok", "")
    assert play.outside.output == []
    assert play.outside.calls == []
    assert play.machine.is_killed


@pytest.mark.parametrize(
    "told",
    [
        {"exit_status": 0, "peak_memory_bytes": 1 << 200},
        {"exit_status": 0, "out_of_memory": "yes", "files_left_out": 1},
        {"exit_status": 0, "more": {"than": ["was", "asked"]}},
    ],
)
async def test_an_end_that_boasts_is_cut_to_what_can_be(told: dict[str, Any]) -> None:
    with played(limits=SMALL) as play:
        await play.guest.done(**told)
        result = await play.result()
    assert result.status == "ok"
    assert result.usage.peak_memory_bytes <= 64 * MIB


@pytest.mark.parametrize(
    "reply",
    [
        b"short",
        REPLY.pack(0, 0, 0, 0, 0, 0, 0, 0),
        REPLY.pack(9, 0, 1, 0, 0, 0, 0, 0) + b"1",
        REPLY.pack(0, 0, 0xFFFFFFFF, 0, 0, 0, 0, 0) + b"1",
        REPLY.pack(1, 0, 0, 300, 0, 0, 0, 0) + bytes(300),
    ],
)
async def test_a_malformed_reply_is_a_crash(reply: bytes) -> None:
    with played(runtime="vm-python", limits=SMALL) as play:
        await play.guest.say(Word.REPLY, reply)
        await play.guest.done(exit_status=None)
        result = await play.result()
    assert result.status == "crashed"
    assert error(result).message.startswith("the interpreter's reply is malformed: ")


async def test_the_longest_reply_that_there_can_be_is_taken() -> None:
    with played(runtime="vm-python", limits=SMALL) as play:
        sizes = (0, abi.TYPE_BYTES, abi.MESSAGE_BYTES, abi.TRACEBACK_BYTES)
        await play.guest.say(Word.REPLY, REPLY.pack(1, 0, *sizes, 0, 0) + b"x" * sum(sizes))
        await play.guest.done(exit_status=None)
        result = await play.result()
    assert (result.status, len(error(result).message)) == ("error", abi.MESSAGE_BYTES)


async def test_an_order_that_could_not_be_followed_is_told_within_bounds() -> None:
    with played() as play:
        await play.guest.say(Word.FAILED, b"\xff" * 100_000)
        result = await play.result()
    assert result.status == "crashed"
    assert error(result).message == "the guest could not do it: " + "�" * 1000


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(Word), st.binary(max_size=60), st.integers(0, 3))
        | st.binary(min_size=1, max_size=30),
        max_size=15,
    )
)
def test_whatever_it_says_the_job_ends_with_a_result(said: list[tuple[Word, bytes, int] | bytes]) -> None:
    async def play_it() -> Result:
        grants = Grants(tools=(Tool("f"),), live=True, stdin=True, outputs=("**",))
        with played(runtime="vm-python", limits=SMALL, grants=grants) as play:
            await asyncio.sleep(0)
            for each in said:
                await play.guest.utter(each if isinstance(each, bytes) else frame(*each))
            await asyncio.sleep(0)
            play.guest.end()
            return await play.result()

    result = asyncio.run(play_it())
    assert result.status in (
        Status.CRASHED,
        Status.OK,
        Status.ERROR,
        Status.OUTPUT_EXCEEDED,
        Status.MEMORY_EXCEEDED,
    )
    assert len(result.stdout) <= 200
    assert sum(file.size for file in result.files.values()) <= 1000


# --- calls -------------------------------------------------------------------------------------------------------


async def test_calls_of_tools_are_answered() -> None:
    with played(grants=TOOLS) as play:
        number = await play.call(Operation.CALL, b'{"name": "f"}')
        assert isinstance(number, bytes)
        (name,) = struct.unpack("<I", number)
        await play.guest.say(Word.CALL, bytes([Operation.WAIT]) + WAIT_FOR_EVER)
        await asyncio.sleep(0.01)
        play.task.answer(name, Outcome.DONE, b"42")
        outcome = await play.answer()
        assert isinstance(outcome, bytes)
        assert (outcome[:5], outcome[8:]) == (number + bytes([Outcome.DONE]), b"42")
        await play.guest.done()
        result = await play.result()
    assert (result.status, result.usage.tool_calls) == ("ok", 1)
    assert play.outside.calls == [(name, Operation.CALL, b'{"name": "f"}')]


async def test_a_wait_ends_with_its_time() -> None:
    with played(grants=TOOLS) as play:
        await play.call(Operation.CALL, b'{"name": "f"}')
        assert await play.call(Operation.WAIT, struct.pack("<qI", 20_000_000, 0)) == b""
        assert await play.call(Operation.WAIT, struct.pack("<qI", 0, 0)) == b""


async def test_a_call_has_its_time() -> None:
    with played(grants=TOOLS, limits=Limits(tool_seconds=0.05)) as play:
        await play.call(Operation.CALL, b'{"name": "f"}')
        outcome = await play.call(Operation.WAIT, WAIT_FOR_EVER)
        assert isinstance(outcome, bytes)
        assert outcome[4] == Outcome.LIMIT
        assert json.loads(outcome[8:])["limit"] == "tool_seconds"


async def test_without_a_grant_there_is_no_operation() -> None:
    with played() as play:
        for operation in (*Operation, 77, 255):
            if operation not in (Operation.CONTEXT, Operation.WAIT, Operation.DROP):
                assert await play.call(operation, b"12345678") == NO_SUCH_OPERATION
        assert play.outside.calls == []


async def test_calls_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_MOST_CALLS", 5)
    with played(grants=TOOLS) as play:
        for _ in range(5):
            await play.call(Operation.CONTEXT)
        await play.guest.say(Word.CALL, bytes([Operation.CONTEXT]))
        await is_ended(play, TWO_CALLS)


async def test_a_guest_that_reads_no_answers_is_ended_before_they_take_memory() -> None:
    tool = Tool("f", doc="x" * 50_000)
    with played(grants=Grants(tools=(tool,))) as play:
        await play.guest.utter(call(Operation.CONTEXT) * 10_000)
        await is_ended(play, "a call before the answer to the last one")
        assert play.task._agent.queued_bytes < 2 * MIB


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from((*Operation, 99)), st.binary(max_size=40)), max_size=8))
def test_any_request_of_a_guest_is_answered_or_waits(requests: list[tuple[int, bytes]]) -> None:
    async def play_it() -> None:
        with played(grants=TOOLS) as play:
            for operation, body in requests:
                play.task._is_waiting = False
                try:
                    play.task._call(bytes([operation]) + body)
                except MalformedFrame:
                    return
            await asyncio.sleep(0)

    asyncio.run(play_it())


# --- input -------------------------------------------------------------------------------------------------------


async def test_input_is_asked_for_once_a_piece() -> None:
    with played(grants=LIVE) as play:
        await play.guest.hear_until(Order.RUN)
        await play.guest.say(Word.INPUT)
        await until(lambda: play.outside.inputs_wanted == 1)
        play.task.feed(b"x" * 100_000, False)
        assert [len((await play.guest.hear())[2]) for _ in range(2)] == [65536, 34464]
        await play.guest.utter(frame(Word.INPUT) * 2)
        await until(lambda: play.outside.inputs_wanted == 2)
        play.task.feed(b"end", True)
        assert [(await play.guest.hear())[1:] for _ in range(2)] == [(0, b"end"), (1, b"")]
        await play.guest.say(Word.INPUT)
        await play.guest.done()
        assert (await play.result()).status == "ok"
        assert play.outside.inputs_wanted == 3


async def test_input_that_was_not_granted_goes_nowhere() -> None:
    with played() as play:
        await play.guest.hear_until(Order.RUN)
        play.task.feed(b"psst", True)
        play.task.stop()
        assert (await play.guest.hear())[0] is Order.STOP


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


# --- the end, by the host ----------------------------------------------------------------------------------------


async def test_the_deadline_stops_it_and_what_it_did_counts() -> None:
    with played(limits=Limits(deadline_seconds=0.05), grants=OUTPUTS) as play:
        await play.guest.say(Word.OUTPUT, b"begun", 1)
        await play.guest.hear_until(Order.STOP)
        await play.guest.left("a", b"kept")
        await play.guest.done(exit_status=-9)
        result = await play.result()
    assert result.status == "deadline_exceeded"
    assert (result.stdout, result.files["a"].data, result.exit_status) == ("begun", b"kept", -9)
    assert "0.05 s" in error(result).message


@pytest.mark.parametrize("last", [None, frame(99), frame(Word.FAILED, b"no"), frame(Word.DONE, b"{"), b""])
async def test_a_guest_that_does_not_stop_is_ended_with_the_same_status(
    last: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_STOPPING_SECONDS", 0.05)
    with played(limits=Limits(deadline_seconds=0.05)) as play:
        await play.guest.hear_until(Order.STOP)
        if last:
            await play.guest.utter(last)
        elif last is not None:
            play.guest.end()
        assert (await play.result()).status == "deadline_exceeded"


async def test_cpu_time_stops_it() -> None:
    with played(limits=Limits(cpu_seconds=1)) as play:
        await play.guest.hear_until(Order.RUN)
        play.machine.cpu = 1.5
        await play.guest.hear_until(Order.STOP)
        await play.guest.done(exit_status=-9)
        result = await play.result()
    assert (result.status, error(result).type) == ("fuel_exhausted", "CpuExhausted")
    assert result.usage.cpu_seconds == 1.5


async def test_cpu_time_of_before_the_job_is_not_the_job_s() -> None:
    machine = FakeMachine()
    machine.cpu = 100.0
    with played(limits=Limits(cpu_seconds=1)) as play:
        play.machine.cpu = 100.0
        await play.guest.hear_until(Order.RUN)
        await asyncio.sleep(0.05)
        await play.guest.done()
        result = await play.result()
    assert (result.status, result.usage.cpu_seconds) == ("ok", 0.0)
    machine.close()


async def test_the_time_of_tools_does_not_count_where_it_must_not() -> None:
    grants = Grants(tools=(Tool("f"),), tool_time_counts=False)
    with played(limits=Limits(deadline_seconds=0.3), grants=grants) as play:
        await play.call(Operation.CALL, b'{"name": "f"}')
        await play.guest.say(Word.CALL, bytes([Operation.WAIT]) + WAIT_FOR_EVER)
        await asyncio.sleep(0.6)
        assert not play.running.done()
        play.task.answer(1, Outcome.RAISED, raised("X", "y"))
        await play.answer()
        await play.guest.hear_until(Order.STOP)
        await play.guest.done()
        result = await play.result()
    assert result.status == "deadline_exceeded"
    assert result.usage.wall_seconds > 0.6


async def test_the_time_of_tools_counts_otherwise() -> None:
    with played(limits=Limits(deadline_seconds=0.1), grants=TOOLS) as play:
        await play.call(Operation.CALL, b'{"name": "f"}')
        await play.guest.say(Word.CALL, bytes([Operation.WAIT]) + WAIT_FOR_EVER)
        await play.guest.hear_until(Order.STOP)
        await play.guest.done()
        assert (await play.result()).status == "deadline_exceeded"


async def test_a_caller_that_stops_it_gets_what_there_is() -> None:
    with played() as play:
        await play.guest.say(Word.OUTPUT, b"begun", 1)
        await play.guest.hear_until(Order.RUN)
        await asyncio.sleep(0.01)
        play.task.stop()
        play.task.stop("twice")
        await play.guest.hear_until(Order.STOP)
        await play.guest.done()
        result = await play.result()
    assert (result.status, result.stdout) == ("cancelled", "begun")
    assert error(result).message == "the evaluation was cancelled by its caller"


async def test_after_the_end_nothing_does_anything() -> None:
    with played(grants=LIVE, limits=Limits(deadline_seconds=0.2)) as play:
        await play.guest.hear_until(Order.RUN)
        await play.guest.done()
        result = await play.result()
        play.task.stop()
        play.task.feed(b"x", True)
        play.task.answer(1, Outcome.DONE, b"")
        await asyncio.sleep(0.3)
        assert play.task.is_over
        assert play.task._agent.queued_bytes == play.task._agent.sent_bytes
        play.task._agent.send(Order.SIGNAL, number=1)
        assert await play.guest.hear() == (Order.SIGNAL, 1, b"")
        assert (await play.result()) is result


# --- the end, by the guest's death -------------------------------------------------------------------------------


async def after_nothing(play: Play) -> None:
    pass


async def after_orders(play: Play) -> None:
    await play.guest.hear_until(Order.RUN)


async def after_output(play: Play) -> None:
    await play.guest.utter(output(b"x") + frame(Word.OUTPUT, b"cut")[:5])


async def in_a_call(play: Play) -> None:
    await play.call(Operation.CALL, b'{"name": "f"}')
    await play.guest.say(Word.CALL, bytes([Operation.WAIT]) + WAIT_FOR_EVER)


async def in_its_reply(play: Play) -> None:
    await play.guest.say(Word.REPLY, bytes(10))


async def in_a_file(play: Play) -> None:
    await play.guest.left("a", b"half")


DEATHS = [after_nothing, after_orders, after_output, in_a_call, in_its_reply, in_a_file]


@pytest.mark.parametrize("dies", DEATHS)
async def test_wherever_it_dies_the_job_ends_crashed(dies: Says) -> None:
    with played(grants=Grants(tools=(Tool("f"),), outputs=("**",))) as play:
        await dies(play)
        play.machine.last_words = "qemu: killed"
        play.guest.end()
        result = await play.result()
    assert (result.status, error(result).message, result.files) == ("crashed", "qemu: killed", {})
    assert 0 <= result.usage.wall_seconds < 60


async def test_a_machine_that_was_dead_before_its_job_ends_crashed() -> None:
    with played() as play:
        agent = play.task._agent
        agent.close()
        result = await play.result()
    assert (result.status, error(result).message) == ("crashed", "the virtual machine was ended by its host")
    assert result.usage.wall_seconds < 60


async def test_cancelling_it_leaves_the_machine_to_its_owner() -> None:
    with played() as play:
        await play.guest.hear_until(Order.RUN)
        play.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await play.running
        assert play.task.is_over
        assert not play.machine.is_killed


async def test_a_step_leaves_its_machine_fit_for_the_next() -> None:
    machine = FakeMachine()
    agent = Agent(machine)
    with played() as play:
        job = play.task._job
    for number in range(3):
        running = asyncio.create_task(Task(job, agent, "a double", is_step=True).run())
        order = json.loads(await machine.guest.hear_until(Order.BEGIN))
        assert order["is_step"]
        await machine.guest.hear_until(Order.RUN)
        await machine.guest.done(exit_status=number)
        assert (await running).exit_status == number
    agent.close()
    machine.close()
