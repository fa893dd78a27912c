"""Converse over real gRPC and real guests: what comes while a snippet runs, what a client may say and when."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterable, Iterator

import grpc
import pytest

from tests.grpc.conftest import WAIT_SECONDS, Running, serve_above
from wasmeval import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    EvaluationError,
    Folder,
    InputWanted,
    InvalidArgument,
    Limits,
    Output,
    Result,
    Status,
    Tool,
    ToolCall,
    ToolCallCancelled,
    wire,
)
from wasmeval.offer import Offer
from wasmeval.pool import PoolSettings
from wasmeval.pool.driven import AsyncPool
from wasmeval.runtimes import Catalogue
from wasmeval.v1 import wasmeval_pb2 as pb

MIB = 1 << 20

Real = Running[AsyncPool]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """One service for this module: each test proves that the one before left it healthy."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "numbers.csv").write_text("a,b\n1,2\n")
    offer = Offer(folders={"datasets": Folder(folder)})
    catalogue = Catalogue.installed()
    with serve_above(lambda: AsyncPool(PoolSettings(workers=1), catalogue), catalogue, offer=offer) as server:
        yield server


@pytest.fixture
def client(real: Real) -> Iterator[Client]:
    with Client(real.target) as client:
        yield client
        real.wait_until(lambda: real.pool.stats().running == 0)
        assert client.evaluate("1 + 1").value == 2


def say(real: Real, messages: Iterable[pb.ConverseRequest]) -> list[pb.ConverseResponse]:
    """The service's answers to a client that says just this. Raises RpcError."""
    with grpc.insecure_channel(real.target) as channel:
        call = channel.stream_stream(wire.CONVERSE)
        replies = call(iter([message.SerializeToString() for message in messages]), timeout=WAIT_SECONDS)
        return [pb.ConverseResponse.FromString(reply) for reply in replies]


def start(code: str, **fields: object) -> pb.ConverseRequest:
    evaluation = pb.EvaluateRequest(code=code, language="python")
    return pb.ConverseRequest(start=pb.Start(evaluation=evaluation, **fields))  # type: ignore[arg-type]


def piece(path: str, data: bytes, last: bool = True) -> pb.ConverseRequest:
    return pb.ConverseRequest(file=pb.FilePiece(path=path, data=data, last=last))


# Output.


def test_output_arrives_while_the_snippet_runs(client: Client) -> None:
    arrived: list[tuple[str, float]] = []
    result = client.evaluate(
        "import time\nprint('before')\ntime.sleep(1)\nprint('after')\n'value'",
        on_output=lambda _, text: arrived.append((text, time.monotonic())),
    )
    end = time.monotonic()
    assert [text for text, _ in arrived] == ["before\n", "after\n"]
    # Of the second that it sleeps at least half had not passed: no promise of a latency, but one of an order.
    assert end - arrived[0][1] > 0.5
    assert (result.value, result.stdout) == ("value", "before\nafter\n")


def test_output_keeps_its_order_and_its_streams(client: Client) -> None:
    pieces: list[tuple[str, str]] = []
    code = "import sys\nfor i in range(200):\n    print(i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)"
    result = client.evaluate(code, on_output=lambda stream, text: pieces.append((stream, text)))
    assert "".join(text for _, text in pieces).split() == [str(i) for i in range(200)]
    for name, whole in (("stdout", result.stdout), ("stderr", result.stderr)):
        assert "".join(text for stream, text in pieces if stream == name) == whole


@pytest.mark.parametrize("size", [1000, 70_000, 3_000_000])
def test_a_flood_comes_in_few_pieces_and_never_beyond_the_limit(client: Client, size: int) -> None:
    pieces: list[str] = []
    limit = 200_000
    result = client.evaluate(
        f"for _ in range({size} // 10): print('x' * 9, flush=True)",
        limits=Limits(output_bytes=limit),
        on_output=lambda _, text: pieces.append(text),
    )
    assert sum(map(len, pieces)) == min(size, limit)
    assert len(pieces) < 200
    assert result.stdout_truncated == (size > limit)


def test_a_flood_on_both_streams_comes_in_few_pieces(client: Client) -> None:
    pieces: list[tuple[str, str]] = []
    code = "import os\nfor i in range(50_000):\n    os.write(1, b'%d\\n' % i); os.write(2, b'%d\\n' % i)"
    result = client.evaluate(code, on_output=lambda *piece: pieces.append(piece))
    for name in ("stdout", "stderr"):
        text = "".join(text for stream, text in pieces if stream == name)
        assert text == "".join(f"{i}\n" for i in range(50_000))
    assert result.stdout == result.stderr
    assert len(pieces) < 20_000


def test_a_character_that_is_cut_arrives_whole(client: Client) -> None:
    pieces: list[str] = []
    code = (
        "import sys, time\nfor byte in '\\N{SNOWMAN}\\N{SNOWMAN}'.encode():\n"
        "    sys.stdout.buffer.write(bytes([byte])); sys.stdout.flush(); time.sleep(0.01)"
    )
    client.evaluate(code, on_output=lambda _, text: pieces.append(text))
    assert pieces == ["\N{SNOWMAN}", "\N{SNOWMAN}"]


def test_what_on_output_raises_ends_the_snippet(client: Client, real: Real) -> None:
    def fail(_: str, text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="x"):
        client.evaluate("print('x')\nimport time; time.sleep(100)", on_output=fail)
    real.wait_until(lambda: real.pool.stats().running == 0)


# Input.


@pytest.mark.parametrize(
    "stdin",
    ["one\ntwo\n", b"one\ntwo\n", io.BytesIO(b"one\ntwo\n"), io.StringIO("one\ntwo\n"), [b"on", b"e\ntwo\n"]],
)
def test_standard_input(client: Client, stdin: object) -> None:
    result = client.evaluate("import sys\n[input(), sys.stdin.read(), sys.stdin.read()]", stdin=stdin)  # type: ignore[arg-type]
    assert result.value == ["one", "two\n", ""]


def test_a_file_is_read_only_when_the_snippet_asks(client: Client) -> None:
    reads: list[int] = []

    class Source:
        def read1(self, size: int) -> bytes:
            reads.append(size)
            return b"x\n"

    assert client.evaluate("1", stdin=Source()).value == 1  # type: ignore[arg-type]
    assert reads == []
    assert client.evaluate("input()", stdin=Source()).value == "x"  # type: ignore[arg-type]
    assert len(reads) == 1


def test_input_may_be_sent_ahead(client: Client, real: Real) -> None:
    count = 3000
    with client.converse(
        f"total = 0\nfor _ in range({count}): total += int(input())\ntotal", stdin=True
    ) as conversation:
        for number in range(count):
            conversation.send_input(f"{number}\n")
        events = list(conversation)
    assert isinstance(events[-1], Result)
    assert events[-1].value == sum(range(count))
    assert real.pool.stats().restarts == 0


def test_a_source_that_fails_is_an_end(client: Client) -> None:
    closed = io.BytesIO(b"x")
    closed.close()
    result = client.evaluate("input()", stdin=closed)
    assert result.error is not None
    assert result.error.type == "EOFError"


def test_without_input_there_is_none(client: Client) -> None:
    for result in (client.evaluate("input()"), client.evaluate("input()", on_output=lambda *_: None)):
        assert result.error is not None
        assert result.error.type == "EOFError"


def test_more_input_than_the_workspace_holds_is_refused(client: Client) -> None:
    chunks = [b"x" * MIB] * 4
    with pytest.raises(InvalidArgument) as refused:
        client.evaluate(
            "import sys; len(sys.stdin.buffer.read())", stdin=chunks, limits=Limits(workspace_bytes=3 * MIB)
        )
    assert "limits.workspace_bytes (3145728)" in refused.value.description
    read = client.evaluate("import sys; len(sys.stdin.buffer.read())", stdin=chunks)
    assert read.value == 4 * MIB


def test_waiting_for_input_ends_at_the_deadline(client: Client) -> None:
    with client.converse("input()", stdin=True, limits=Limits(deadline_seconds=0.2)) as conversation:
        events = list(conversation)
    assert isinstance(events[0], InputWanted)
    assert isinstance(events[-1], Result)
    assert events[-1].status is Status.DEADLINE_EXCEEDED


# Files.


def test_files_go_in_and_come_out(client: Client) -> None:
    result = client.evaluate(
        "import os\nos.makedirs('out')\nopen('out/b.csv', 'w').write(open('in/a.csv').read().upper())\nos.getcwd()",
        files={"in/a.csv": b"x,y\n"},
        outputs=["out/*"],
    )
    assert result.value == "/workspace"
    assert {path: (file.data, file.media_type, file.size) for path, file in result.files.items()} == {
        "out/b.csv": (b"X,Y\n", "text/csv", 4)
    }


def test_large_files_go_in_pieces_both_ways(client: Client) -> None:
    content = bytes(range(256)) * (40 * MIB // 256) + b"end"
    result = client.evaluate(
        "import os; os.rename('a', 'b'); os.path.getsize('b')",
        files={"a": content},
        outputs=["b"],
        limits=Limits(workspace_bytes=100 * MIB),
    )
    assert result.value == len(content)
    assert result.files["b"].data == content


def test_files_come_back_however_the_snippet_ends(client: Client) -> None:
    for code, status in (
        ("1 / 0", Status.ERROR),
        ("while True: pass", Status.DEADLINE_EXCEEDED),
        ("import os; os._exit(3)", Status.ERROR),
    ):
        result = client.evaluate(
            f"open('log.txt', 'w').write('so far')\n{code}",
            outputs=["*.txt"],
            limits=Limits(deadline_seconds=0.3),
        )
        assert result.status is status
        assert result.files["log.txt"].data == b"so far"


def test_files_in_an_unary_call(client: Client, real: Real) -> None:
    request = pb.EvaluateRequest(
        code="open('o', 'wb').write(open('i', 'rb').read() * 2)", language="python", outputs=["o"]
    )
    request.files["i"] = b"12"
    with grpc.insecure_channel(real.target) as channel:
        call = channel.unary_unary(wire.EVALUATE)
        reply = pb.EvaluateResponse.FromString(call(request.SerializeToString(), timeout=WAIT_SECONDS))
        assert [(file.path, file.data, file.size) for file in reply.result.files] == [("o", b"1212", 4)]
        request.code = "open('o', 'wb').write(bytes(17 << 20))"
        reply = pb.EvaluateResponse.FromString(call(request.SerializeToString(), timeout=WAIT_SECONDS))
    assert reply.result.status == pb.STATUS_OUTPUT_EXCEEDED
    assert "converse" in reply.result.error.message


def test_a_folder_of_the_operators_is_mounted_by_name(client: Client) -> None:
    code = "open('/mnt/datasets/numbers.csv').read()"
    assert client.evaluate(code, mounts=["datasets"]).value == "a,b\n1,2\n"
    result = client.evaluate("open('/mnt/datasets/x', 'w')", mounts=["datasets"])
    assert result.error is not None
    assert "[Errno 69] Read-only file system" in result.error.message
    with pytest.raises(
        InvalidArgument, match=r"no folder is named 'other' so here|no folder is named 'other'"
    ):
        client.evaluate("1", mounts=["other"])


# Ends.


def test_cancel_gives_a_result(client: Client) -> None:
    with client.converse("print('on')\nimport time; time.sleep(100)") as conversation:
        events = []
        for event in conversation:
            events.append(event)
            if isinstance(event, Output):
                conversation.cancel()
    assert isinstance(events[-1], Result)
    assert (events[-1].status, events[-1].stdout) == (Status.CANCELLED, "on\n")
    with pytest.raises(EvaluationError, match="cancelled"):
        events[-1].raise_for_status()


def test_leaving_a_conversation_stops_the_snippet(client: Client, real: Real) -> None:
    for code in ("import time; time.sleep(100)", "while True: pass", "input()"):
        with client.converse(code, stdin=True):
            real.wait_until(lambda: real.pool.stats().running == 1)
        real.wait_until(lambda: real.pool.stats().running == 0)


def test_a_time_out_stops_the_snippet(client: Client, real: Real) -> None:
    with pytest.raises(DeadlineExceeded):
        client.evaluate("import time; time.sleep(100)", on_output=lambda *_: None, timeout=0.3)
    real.wait_until(lambda: real.pool.stats().running == 0)


def test_the_events_of_an_async_conversation(real: Real) -> None:
    async def converse() -> list[object]:
        events: list[object] = []
        async with (
            AsyncClient(real.target) as client,
            client.converse("print('out'); input()", stdin=True) as conversation,
        ):
            async for event in conversation:
                events.append(event)
                if isinstance(event, InputWanted):
                    conversation.send_input("in\n")
        return events

    *events, result = asyncio.run(converse())
    assert events == [Output("stdout", "out\n"), InputWanted()]
    assert isinstance(result, Result)
    assert result.value == "in"


# Order.

TOOLS = [pb.Tool(name="ask")]
ASLEEP = "import time; time.sleep(0.5)"
WRONG_ORDER: dict[str, tuple[list[pb.ConverseRequest], str]] = {
    "nothing": ([], "ended its side; the first message must be start"),
    "input first": ([pb.ConverseRequest(input=pb.Input())], "sent input; the first message must be start"),
    "a file first": ([piece("a", b"")], "sent file; the first message must be start"),
    "cancel first": (
        [pb.ConverseRequest(cancel=pb.Cancel())],
        "sent cancel; the first message must be start",
    ),
    "start twice": ([start(ASLEEP), start("1")], "start came a second time"),
    "too few files": ([start("1", files=2), piece("a", b"")], "ended its side; 1 of the files it announced"),
    "input before files": (
        [start("1", files=1, input=True), pb.ConverseRequest(input=pb.Input())],
        "sent input; 1 of the files",
    ),
    "a file twice": (
        [start("1", files=2), piece("a", b""), piece("a", b"")],
        "a piece of a file came that was whole already",
    ),
    "another file than announced": (
        [start("1", files=1), piece("a", b"", last=False), piece("b", b"")],
        "none of the 1 announced",
    ),
    "a file too many": ([start(ASLEEP), piece("a", b"")], "a piece of a file came"),
    "input nobody announced": (
        [start(ASLEEP), pb.ConverseRequest(input=pb.Input())],
        "input came after its end",
    ),
    "input after its end": (
        [start(ASLEEP, input=True), *[pb.ConverseRequest(input=pb.Input(last=True))] * 2],
        "input came after its end",
    ),
}


@pytest.mark.parametrize("case", WRONG_ORDER)
def test_messages_out_of_order_are_refused_with_what_was_expected(
    real: Real, client: Client, case: str
) -> None:
    messages, expected = WRONG_ORDER[case]
    with pytest.raises(grpc.RpcError) as refused:
        say(real, messages)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert expected in refused.value.details()


WRONG: dict[str, tuple[list[pb.ConverseRequest], str]] = {
    "an empty message": ([pb.ConverseRequest()], "message"),
    "an empty start": ([pb.ConverseRequest(start=pb.Start())], "start.evaluation"),
    "no code": ([start("")], "code"),
    "no such call": (
        [start(ASLEEP), pb.ConverseRequest(tool_result=pb.ToolResult(call_id=7, value=b"1"))],
        "tool_result.call_id",
    ),
    "an answer without an outcome": (
        [start(ASLEEP), pb.ConverseRequest(tool_result=pb.ToolResult(call_id=1))],
        "tool_result.outcome",
    ),
    "a file above": ([start("1", files=1), piece("../a", b"")], "file.path"),
    "a file at the root": ([start("1", files=1), piece("/etc/passwd", b"")], "file.path"),
    "a file of a long name": ([start("1", files=1), piece("a" * 5000, b"", last=False)], "file.path"),
    "a tool that is no name": ([start("1", tools=[pb.Tool(name="a b")])], "tools[0].name"),
    "a tool twice": ([start("1", tools=TOOLS * 2)], "tools[1].name"),
    "many tools": ([start("1", tools=[pb.Tool(name=f"t{i}") for i in range(129)])], "tools"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_messages_are_refused_and_the_field_is_named(real: Real, client: Client, case: str) -> None:
    messages, field = WRONG[case]
    with pytest.raises(grpc.RpcError) as refused:
        say(real, messages)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"{field}:")


def test_a_client_that_ends_its_side_still_gets_its_result(real: Real, client: Client) -> None:
    replies = say(real, [start("import sys; sys.stdin.read()", input=True)])
    assert [reply.WhichOneof("event") for reply in replies][-1] == "result"
    assert replies[-1].result.value == b'""'


def test_announced_files_are_there_when_the_snippet_starts(real: Real, client: Client) -> None:
    code = "open('a').read() + open('b/c').read()"
    replies = say(
        real,
        [start(code, files=2), piece("a", b"1", last=False), piece("a", b"2"), piece("b/c", b"3")],
    )
    assert replies[-1].result.value == b'"123"'


# Tools, one by one.


def test_tools_are_answered_one_by_one(client: Client) -> None:
    tools = [Tool("ask", "(question: str) -> str", ("question",))]
    seen = []
    with client.converse("[ask('a'), ask(question='b')]", tools=tools) as conversation:
        for event in conversation:
            if isinstance(event, ToolCall):
                seen.append((event.name, event.args, event.kwargs))
                event.reply(event.args or event.kwargs)
    assert seen == [("ask", ["a"], {}), ("ask", [], {"question": "b"})]
    assert isinstance(event, Result)
    assert event.value == [["a"], {"question": "b"}]
    assert event.usage.tool_calls == 2


def test_a_call_that_took_too_long_is_taken_back(client: Client) -> None:
    with client.converse(
        "try:\n    ask()\nexcept Exception as error:\n    text = type(error).__name__ + ': ' + str(error)\ntext",
        tools=[Tool("ask")],
        limits=Limits(tool_seconds=0.1),
    ) as conversation:
        events = list(conversation)
    assert [type(event) for event in events] == [ToolCall, ToolCallCancelled, Result]
    assert isinstance(events[0], ToolCall)
    assert isinstance(events[-1], Result)
    assert events[-1].value == ("ToolLimitError: the call took longer than 0.1 s; raise limits.tool_seconds")
    events[0].reply("too late")


def test_the_same_call_answered_twice_counts_once(client: Client) -> None:
    with client.converse("[ask(), ask()]", tools=[Tool("ask")]) as conversation:
        answers = iter(range(10))
        for event in conversation:
            if isinstance(event, ToolCall):
                event.reply(next(answers))
                event.reply(next(answers))
    assert isinstance(event, Result)
    assert event.value == [0, 2]


def test_tools_fail_when_the_client_has_ended_its_side(real: Real, client: Client) -> None:
    (reply,) = [
        reply.result
        for reply in say(real, [start("import time; time.sleep(0.2); ask()", tools=TOOLS)])
        if reply.HasField("result")
    ]
    assert reply.status == pb.STATUS_ERROR
    assert reply.error.message == "nobody answers calls of tools any more"
