"""What a proxy can go by that reads no messages: which session a call is about, and that a refused call never ran."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.grpc.conftest import WAIT_SECONDS, Serving
from wasmeval import AsyncClient, Client, Internal, InvalidArgument, Unavailable, WasmevalError, wire
from wasmeval.model import Job
from wasmeval.service_session import AsyncServiceSession, ServiceSession
from wasmeval.session import SessionInfo
from wasmeval.testing import Answer, succeed
from wasmeval.v1 import wasmeval_pb2 as pb

ID = "abcdefghijklmnopqrstuvwxyz234567"
INFO = SessionInfo(ID, "python", "python", False, 0, 0, 0.0, 0.0, 0.0)

ABOUT_A_SESSION: list[tuple[str, Callable[[Any], Any]]] = [
    (wire.GET_SESSION, lambda session: session.info()),
    (wire.LIST_CHECKPOINTS, lambda session: session.checkpoints()),
    (wire.STEP, lambda session: session.evaluate("1")),
    (wire.STEP_CONVERSE, lambda session: session.evaluate("1", stdin="x")),
    (wire.FORK_SESSION, lambda session: session.fork()),
    (wire.MAKE_CHECKPOINT, lambda session: session.checkpoint()),
    (wire.RESTORE_SESSION, lambda session: session.restore("1")),
    (wire.HIBERNATE_SESSION, lambda session: session.hibernate()),
    (wire.CLOSE_SESSION, lambda session: session.close()),
]
OTHERS: list[tuple[str, Callable[[Any], Any]]] = [
    (wire.EVALUATE, lambda client: client.evaluate("1")),
    (wire.CONVERSE, lambda client: client.evaluate("1", stdin="x")),
    (wire.CREATE_SESSION, lambda client: client.session()),
    (wire.LIST_SESSIONS, lambda client: client.sessions()),
]


class Proxy(grpc.GenericRpcHandler):
    """Sees what a proxy sees of each call, and has no service to pass it on to."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | bytes | None]] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        metadata = dict(handler_call_details.invocation_metadata or ())
        self.seen.append((handler_call_details.method, metadata.get("wasmeval-session")))


@pytest.fixture
def proxy() -> Iterator[tuple[Proxy, str]]:
    handler = Proxy()
    server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait(WAIT_SECONDS)


def test_each_call_about_a_session_names_it_in_its_metadata(proxy: tuple[Proxy, str]) -> None:
    handler, target = proxy
    with Client(target) as client:
        for _, call in ABOUT_A_SESSION:
            with pytest.raises(Internal):
                call(ServiceSession(client, INFO))
        with pytest.raises(Internal):
            client.attach(ID)
        for _, call in OTHERS:
            with pytest.raises(Internal):
                call(client)
    named = [(method, ID) for method, _ in ABOUT_A_SESSION] + [(wire.GET_SESSION, ID)]
    assert handler.seen == named + [(method, None) for method, _ in OTHERS]


def test_the_same_awaited(proxy: tuple[Proxy, str]) -> None:
    handler, target = proxy

    async def main() -> None:
        async with AsyncClient(target, api_key="of-the-caller") as client:
            for _, call in ABOUT_A_SESSION:
                with pytest.raises(Internal):
                    await call(AsyncServiceSession(client, INFO))
            for _, call in OTHERS:
                with pytest.raises(Internal):
                    await call(client)

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))
    assert handler.seen == [(method, ID) for method, _ in ABOUT_A_SESSION] + [
        (method, None) for method, _ in OTHERS
    ]


@pytest.mark.parametrize("text", ["", "../etc", "a b", "\n", "é", "\N{SNOWMAN}"])
def test_what_is_no_id_is_not_sent_as_metadata(proxy: tuple[Proxy, str], text: str) -> None:
    """gRPC would refuse some of it with an error of its own; the service has the better one."""
    handler, target = proxy
    with Client(target) as client, pytest.raises(Internal):
        client.attach(text)
    assert handler.seen == [(wire.GET_SESSION, None)]


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (Unavailable("shutting down; nothing ran, try elsewhere"), True),
        (Unavailable("no worker can be started"), False),
        (InvalidArgument("code", "wrong; nothing ran"), False),
    ],
)
def test_a_refusal_says_so_in_its_metadata(serving: Serving, error: WasmevalError, refused: bool) -> None:
    def script(job: Job) -> Answer:
        return error if job.code == b"refuse" else succeed(job)

    def trailing(call: grpc.Call) -> bool:
        return ("wasmeval-refused", "1") in (call.trailing_metadata() or ())

    with serving(script) as server, grpc.insecure_channel(server.target) as channel:
        evaluate: Any = channel.unary_unary(wire.EVALUATE)
        request = pb.EvaluateRequest(code="refuse", language="python")
        with pytest.raises(grpc.RpcError) as caught:
            evaluate(request.SerializeToString(), timeout=WAIT_SECONDS)
        assert trailing(caught.value) is refused  # type: ignore[arg-type]
        converse: Any = channel.stream_stream(wire.CONVERSE)
        start = pb.ConverseRequest(start=pb.Start(evaluation=request))
        with pytest.raises(grpc.RpcError) as caught:
            list(converse(iter([start.SerializeToString()]), timeout=WAIT_SECONDS))
        assert trailing(caught.value) is refused  # type: ignore[arg-type]
        request = pb.EvaluateRequest(code="1", language="python")
        _, call = evaluate.with_call(request.SerializeToString(), timeout=WAIT_SECONDS)
        assert not trailing(call)
