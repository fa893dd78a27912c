"""Conversations with workers of one's own: what is left when they end, when they are closed, and when all is."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep

import pytest

from wasmeval import (
    Evaluation,
    Evaluator,
    FailedPrecondition,
    Folder,
    HttpCeiling,
    HttpPolicy,
    HttpRule,
    InputWanted,
    InvalidArgument,
    Limits,
    Result,
    ServiceError,
    Status,
    Tool,
    ToolCall,
)
from wasmeval.tools import in_thread

MIB = 1 << 20


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("wasmeval")}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Slow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "slow" in self.path:
            self.server.release.wait(30)  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> object:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.release = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.release.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def allowing(place: str) -> tuple[HttpCeiling, HttpPolicy]:
    rules = (HttpRule(place, schemes=("http",)),)
    return HttpCeiling(rules=rules, private_networks=("127.0.0.0/8",)), HttpPolicy(rules)


def test_nothing_is_left_when_all_is_closed(site: str, tmp_path: Path) -> None:
    ceiling, policy = allowing(site)
    (tmp_path / "a").write_text("here")
    before, open_before = threads(), descriptors()
    for _ in range(2):
        with Evaluator(workers=1, http=ceiling, folders={"here": tmp_path}) as evaluator:
            code = f"import urllib.request as u; u.urlopen('http://{site}/').status"
            assert evaluator.evaluate(code, http=policy).value == 204
            assert evaluator.evaluate("open('/mnt/here/a').read()", mounts=["here"]).value == "here"
            # Mounted, and never looked at.
            assert evaluator.evaluate("1", mounts=["here"]).value == 1
            assert evaluator.evaluate("2", tools={"tool": print}).value == 2
    end = monotonic() + 10
    while (left := {name for name in threads() - before if "folders" not in name}) and monotonic() < end:
        sleep(0.01)  # Those that look up names are told to end, and not waited for.
    assert left == set()
    assert descriptors() <= open_before + 1


def test_closing_ends_what_waits(site: str) -> None:
    ceiling, policy = allowing(site)
    evaluator = Evaluator(workers=1, http=ceiling)
    before = threads()
    code = f"import urllib.request as u; u.urlopen('http://{site}/slow').status"
    outcomes: list[object] = []

    def evaluate() -> None:
        try:
            outcomes.append(evaluator.evaluate(code, http=policy, timeout=60))
        except ServiceError as error:
            outcomes.append(error)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(evaluate) for _ in range(4)]
        while evaluator._pool.stats().running < 4:
            pass
        evaluator.close()
        for each in waiting:
            each.result(30)
    for outcome in outcomes:
        assert not isinstance(outcome, Result) or outcome.status is Status.CANCELLED
    assert len(outcomes) == 4
    assert not {name for name in threads() - before if "backstage" in name}
    with pytest.raises(ServiceError):
        evaluator.evaluate("1", tools={"tool": print})


def test_batches_may_be_granted_something(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("20")
    with Evaluator(workers=1, folders={"here": tmp_path}) as evaluator:
        results = evaluator.evaluate_batch(
            [
                Evaluation("int(open('/mnt/here/n').read()) + 1", mounts=["here"]),
                Evaluation("open('out', 'w').write(open('in').read())", files={"in": b"x"}, outputs=["out"]),
                Evaluation("3"),
            ]
        )
    assert [result.value for result in results] == [21, 1, 3]
    assert results[1].files["out"].data == b"x"


def test_input_keeps_its_rules() -> None:
    with Evaluator(workers=1) as evaluator:
        with evaluator.converse("1") as conversation:
            for speak in (conversation.end_input, lambda: conversation.send_input("x")):
                with pytest.raises(FailedPrecondition):
                    speak()
            assert [type(event) for event in conversation] == [Result]
        limits = Limits(workspace_bytes=MIB)
        with evaluator.converse(
            "import sys; len(sys.stdin.read())", stdin=True, limits=limits
        ) as conversation:
            conversation.send_input(b"")
            conversation.send_input(b"x" * 1000)
            with pytest.raises(InvalidArgument, match=r"limits\.workspace_bytes"):
                conversation.send_input(b"x" * MIB)
            conversation.end_input()
            *events, result = conversation
        assert all(isinstance(event, InputWanted) for event in events)
        assert isinstance(result, Result)
        assert result.value == 1000
        assert evaluator._pool.stats().restarts == 0


def test_answers_keep_their_rules() -> None:
    with (
        Evaluator(workers=1) as evaluator,
        evaluator.converse("[größe(), größe()]", tools=[Tool("größe")]) as conversation,
    ):
        for event in conversation:
            if isinstance(event, ToolCall):
                event.reply(event.id)
                event.reply("again")
        assert isinstance(event, Result)
        assert event.value == [1, 2]


def test_closing_a_conversation_elsewhere_ends_its_events() -> None:
    limits = Limits(deadline_seconds=300)
    with (
        Evaluator(workers=1) as evaluator,
        evaluator.converse("wait()", tools=[Tool("wait")], limits=limits) as conversation,
    ):
        assert isinstance(next(conversation), ToolCall)
        read = in_thread(list, conversation)
        sleep(0.05)
        conversation.close()
        assert read.result(30) == []


def test_a_tool_may_evaluate_itself() -> None:
    with Evaluator(workers=1) as evaluator:

        def nested(code: str) -> object:
            return evaluator.evaluate(code).value

        assert evaluator.evaluate("nested('6 * 7')", tools={"nested": nested}).value == 42


@pytest.mark.parametrize("folder", ["/nowhere/at/all", __file__])
def test_a_folder_that_is_none_is_refused(folder: str) -> None:
    with pytest.raises(InvalidArgument, match="is no folder"):
        Evaluator(workers=1, folders={"x": Folder(folder)})  # type: ignore[arg-type]
