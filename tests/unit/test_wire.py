"""Wire: decoding undoes encoding, and no bytes do more than raise InvalidArgument or Internal."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_limits import limits
from wasmeval import (
    Array,
    DeadlineExceeded,
    ErrorInfo,
    HttpUse,
    Internal,
    InvalidArgument,
    OutputFile,
    ResourceExhausted,
    Result,
    Status,
    Tier,
    Unavailable,
    Usage,
    WasmevalError,
    wire,
)
from wasmeval.determinism import Deterministic, Receipt
from wasmeval.events import Answer, Called, Dropped, Opening, Printed, Wanted
from wasmeval.grants import Grants, HttpPolicy, HttpRule, Mount, Tool
from wasmeval.model import Request, RuntimeInfo
from wasmeval.session import SessionOptions
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wire import conversations, sessions

text = st.text(st.characters(codec="utf-8"), max_size=20)
counts = st.integers(0, 2**64 - 1)
places = st.none() | st.integers(0, 2**32 - 1)
numbers = st.integers(0, 2**32 - 1)
rules = st.builds(
    HttpRule,
    text,
    st.lists(text).map(tuple),
    text.filter(bool),
    st.lists(text, min_size=1).map(tuple),
    text,
)
policies = st.builds(
    HttpPolicy, st.lists(rules, max_size=2).map(tuple), numbers, counts, counts, st.floats(0, 1e9), numbers
)
grants = st.builds(
    Grants,
    files=st.dictionaries(text, st.binary(max_size=20), max_size=2),
    outputs=st.lists(text, max_size=2).map(tuple),
    mounts=st.lists(st.builds(Mount, text), max_size=2).map(tuple),
    http=st.none() | policies,
).filter(lambda given: given != Grants())
deterministic = st.builds(Deterministic, counts, st.floats(0, 2**32), st.none() | st.binary(max_size=20))
arrays = st.sampled_from(
    [Array("<f8", (2, 1), bytes(16)), Array("|b1", (), b"\1"), Array("<M8[ns]", (0, 3), b"")]
)
requests = st.builds(
    Request,
    text,
    text,
    st.dictionaries(text, st.binary(max_size=20)),
    st.none() | limits,
    st.none() | grants,
    st.none() | deterministic,
    st.booleans(),
    st.sampled_from(list(map(str, Tier))),
    st.lists(text, max_size=3).map(tuple),
    st.dictionaries(text, arrays, max_size=2),
)
receipts = st.builds(
    Receipt,
    **dict.fromkeys(
        (
            "runtime",
            "image",
            "translator",
            "engine",
            "code",
            "inputs",
            "grants",
            "previous",
            "transcript",
            "output",
            "seal",
        ),
        text,
    ),
    **dict.fromkeys(("seed", "step", "fuel", "virtual_ns"), counts),
    limits=limits,
    start_time=st.floats(0, 2**32),
    forked=st.booleans(),
    status=st.sampled_from(Status).map(lambda status: status.value),
    version=st.just(1),
)
results = st.builds(
    Result,
    st.sampled_from(Status),
    st.binary(max_size=20),
    st.booleans(),
    text,
    text,
    st.booleans(),
    st.booleans(),
    st.none() | st.builds(ErrorInfo, text, text, text, places, places),
    st.builds(Usage, counts, st.floats(0, 1e9), counts, st.integers(0, 2**32 - 1), counts, st.floats(0, 1e9)),
    limits,
    text,
    text,
    st.dictionaries(text, st.builds(OutputFile, st.binary(max_size=20), text), max_size=2),
    st.lists(
        st.builds(
            HttpUse,
            text,
            text,
            text,
            st.integers(0, 999),
            counts,
            counts,
            st.floats(0, 1e9),
            st.booleans(),
            text,
        ),
        max_size=2,
    ).map(tuple),
    receipt=st.none() | receipts,
    unrepeatable=text,
    transcript=st.binary(max_size=20),
    cached=st.booleans(),
    tier_detail=text,
    moved=text,
    exit_status=st.none() | st.integers(-64, 255),
    recording=st.none(),
    array=st.none() | arrays,
)
said = st.one_of(
    st.builds(Answer, numbers, st.binary(max_size=20), st.none()),
    st.builds(Answer, numbers, st.just(b""), st.tuples(text, text)),
)
tiers = st.sampled_from(["wasm", "vm"])
runtimes = st.builds(RuntimeInfo, text, text, text, st.lists(text).map(tuple), text, counts, counts, tiers)


def plain(request: Request) -> Request:
    return request._replace(inputs=dict(request.inputs), arrays=dict(request.arrays))


@given(requests)
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    assert plain(wire.decode_request(wire.encode_request(request).SerializeToString())) == request


@given(st.lists(requests, min_size=1, max_size=4))
def test_a_batch_arrives_as_it_was_sent(batch: list[Request]) -> None:
    assert list(map(plain, wire.decode_batch(wire.encode_batch(batch)))) == batch


@given(results)
def test_a_result_arrives_as_it_was_sent(result: Result) -> None:
    assert wire.decode_reply(wire.encode_reply(result)) == result


@given(st.lists(results, max_size=4))
def test_a_batch_of_results_arrives_as_it_was_sent(batch: list[Result]) -> None:
    assert wire.decode_batch_reply(wire.encode_batch_reply(batch)) == batch


@given(
    requests,
    st.lists(st.builds(Tool, text, text, st.lists(text).map(tuple), text), max_size=2).map(tuple),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    numbers,
)
def test_a_start_arrives_as_it_was_sent(
    request: Request, tools: tuple[Tool, ...], live: bool, stdin: bool, counts: bool, files: int
) -> None:
    given = replace(request.grants or Grants(), tools=tools, live=live, stdin=stdin, tool_time_counts=counts)
    request = request._replace(grants=given)
    opening = conversations.decode_said(conversations.encode_start(request, files))
    assert isinstance(opening, Opening)
    assert (plain(opening.request), opening.files) == (request, files)


@given(said)
def test_what_a_client_says_arrives(message: Answer) -> None:
    assert conversations.decode_said(conversations.encode_answer(message)) == message


@given(
    st.one_of(
        st.builds(Called, numbers, text, st.binary(max_size=20)),
        st.builds(Dropped, numbers),
        st.builds(Printed, numbers, st.binary(max_size=20)),
        st.just(Wanted()),
    )
)
def test_an_event_arrives_as_it_was_sent(event: Called | Dropped | Printed | Wanted) -> None:
    assert conversations.decode_event(conversations.encode_event(event)) == event


@given(st.binary(max_size=200))
def test_any_bytes_are_part_of_a_conversation_or_wrong(data: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        conversations.decode_said(data)
    with contextlib.suppress(Internal, InvalidArgument):
        conversations.decode_event(data)


@given(st.lists(runtimes, max_size=4).map(tuple))
def test_runtimes_arrive_as_they_were_sent(listed: tuple[RuntimeInfo, ...]) -> None:
    assert wire.decode_runtimes(wire.encode_runtimes(listed)) == listed


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_invalid(data: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_batch, wire.decode_list_runtimes):
        with contextlib.suppress(InvalidArgument):
            decode(data)


@given(requests, st.data())
def test_a_damaged_request_is_a_request_or_invalid(request: Request, data: st.DataObject) -> None:
    message = bytearray(wire.encode_request(request).SerializeToString() or b"\0")
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidArgument):
        wire.decode_request(bytes(message))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_internal(data: bytes) -> None:
    for decode in (wire.decode_reply, wire.decode_batch_reply, wire.decode_runtimes):
        with contextlib.suppress(Internal, InvalidArgument):
            decode(data)


def test_what_is_no_tier_is_refused() -> None:
    for decode, message in (
        (wire.decode_request, pb.EvaluateRequest(tier=7)),  # type: ignore[arg-type]
        (sessions.decode_create, pb.CreateSessionRequest(tier=7)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgument, match=r"^tier: 7 is none; send AUTO, WASM or VM$"):
            decode(message.SerializeToString())
    batch = pb.EvaluateBatchRequest(evaluations=[pb.EvaluateRequest(tier=7)])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"^evaluations\[0\]\.tier: 7 is none"):
        wire.decode_batch(batch.SerializeToString())


def test_a_request_for_any_tier_is_one_that_older_services_take() -> None:
    for request in (Request("1", "python"), Request("1", "python", tier=Tier.AUTO)):
        assert not wire.encode_request(request).tier
    assert pb.CreateSessionRequest.FromString(sessions.encode_create("python", SessionOptions())).tier == 0


@pytest.mark.parametrize("tier", list(Tier))
def test_a_session_s_tier_arrives(tier: str) -> None:
    options = SessionOptions(tier=tier)
    assert sessions.decode_create(sessions.encode_create("python", options)) == ("python", options)


def test_every_tier_of_the_model_has_its_number_and_no_other() -> None:
    assert {f"TIER_{tier.name}" for tier in Tier} == set(pb.Tier.keys()) - {"TIER_UNSPECIFIED"}


def test_a_long_command_arrives() -> None:
    request = Request("", "", command=("x" * 100,) * 4096)
    assert plain(wire.decode_request(wire.encode_request(request).SerializeToString())) == request
    too_long = request._replace(command=("x" * 100,) * 4097)
    with pytest.raises(InvalidArgument, match=r"^command: more than 4096; send fewer$"):
        wire.decode_request(wire.encode_request(too_long).SerializeToString())
    with pytest.raises(InvalidArgument, match=r"^command: not valid Unicode"):
        wire.encode_request(Request("", "", command=("\ud800",)))


def test_a_status_from_the_future_is_internal() -> None:
    for number in (0, 77):
        data = pb.EvaluateResponse(result=pb.Result(status=number)).SerializeToString()
        with pytest.raises(Internal, match=f"status {number}"):
            wire.decode_reply(data)


def test_every_status_of_the_model_has_its_number_and_no_other() -> None:
    assert {f"STATUS_{status.name}" for status in Status} == set(pb.Status.keys()) - {"STATUS_UNSPECIFIED"}
    for status in Status:
        reply = pb.EvaluateResponse.FromString(wire.encode_reply(Result(status)))
        assert reply.result.status == pb.Status.Value(f"STATUS_{status.name}")


ERRORS: list[tuple[WasmevalError, grpc.StatusCode]] = [
    (InvalidArgument("inputs.x", "wrong \N{SNOWMAN}"), grpc.StatusCode.INVALID_ARGUMENT),
    (ResourceExhausted("full", 0.25), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable("away"), grpc.StatusCode.UNAVAILABLE),
    (DeadlineExceeded("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
    (Internal("bug"), grpc.StatusCode.INTERNAL),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_an_error_arrives_as_it_was_raised(error: WasmevalError, code: grpc.StatusCode) -> None:
    got, message, trailing = wire.encode_error(error)
    assert got is code
    again = wire.decode_error(got, message, trailing)
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize("code", list(grpc.StatusCode))
@pytest.mark.parametrize("details", [b"", b"\xff\xff", b"\x0a\x01\xff", "text"])
def test_any_status_becomes_an_error(code: grpc.StatusCode, details: bytes | str) -> None:
    error = wire.decode_error(code, "message", [("other", "x"), ("grpc-status-details-bin", details)])
    assert "message" in str(error)


def test_a_stream_that_a_proxy_gave_up_is_a_lost_connection() -> None:
    said = "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))"
    error = wire.decode_error(grpc.StatusCode.INTERNAL, said, ())
    assert isinstance(error, Unavailable)
    assert "nothing ran" not in str(error)


def test_an_oversize_message_is_no_reason_to_try_again() -> None:
    error = wire.decode_error(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max (9 vs. 8)", ()
    )
    assert isinstance(error, InvalidArgument)
