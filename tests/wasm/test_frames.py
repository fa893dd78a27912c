"""Frames from a worker are decoded from hostile bytes: a value within the job's limits, or MalformedFrame."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import Limits, Status
from wasmeval.arrays import Array
from wasmeval.grants import Grants, HttpPolicy, Mount, Tool
from wasmeval.limits import DEFAULTS, Usage
from wasmeval.model import ErrorInfo, Job, Result
from wasmeval.pool.place import Asked, Place
from wasmeval.wasm.calls import Operation, Outcome
from wasmeval.worker import exchanges, frames, orders, residents
from wasmeval.worker.frames import Kind, MalformedFrame

JOB = Job("python", b"1", b"", Limits(1000, 1.0, 1 << 20, 100))
_RESULT = struct.Struct("<QBBIIQdQIQ7I")

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_STATUS = st.sampled_from(list(Status))
_U32, _U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


# As small as the value leaves room for.
_ARRAYS = st.sampled_from([Array("|b1", (), b"\1"), Array("<M8[ns]", (0, 3), b""), Array("|S1", (2,), b"ab")])


@st.composite
def results(draw: st.DrawFn) -> Result:
    status = draw(_STATUS)
    line = draw(st.none() | st.integers(1, 2**32 - 1))
    error = draw(st.none() | st.builds(ErrorInfo, _TEXT, _TEXT, _TEXT, st.just(line), st.none()))
    return Result(
        status,
        draw(st.binary(min_size=1, max_size=98)) if status is Status.OK else b"",
        draw(st.booleans()),
        draw(_TEXT),
        draw(_TEXT),
        draw(st.booleans()),
        draw(st.booleans()),
        error,
        Usage(draw(_U64), draw(st.floats(0, 1e9)), draw(_U64), draw(_U32)),
        JOB.limits,
        "wasm",
        "python",
        array=draw(st.none() | _ARRAYS) if status is Status.OK else None,
    )


@given(st.lists(st.sampled_from([b"", b"a", bytes(1 << 16)]), max_size=6))
def test_pieces_are_all_there_is_and_none_is_empty_at_the_end(parts: list[bytes]) -> None:
    pieces = list(frames.in_pieces(b"head", *parts))
    assert b"".join(pieces) == b"head" + b"".join(parts)
    assert pieces[-1]
    assert all(any(piece is part for part in parts) for piece in pieces if len(piece) >= 1 << 16)


@given(_U64, results())
def test_a_result_survives_the_way(number: int, result: Result) -> None:
    ((kind, body),) = frames.Decoder().feed(frames.encode_result(number, result))
    assert kind == Kind.RESULT
    assert frames.result_number(body) == number
    assert frames.decode_result(body, JOB) == result


def check(body: bytes) -> None:
    try:
        result = frames.decode_result(body, JOB)
    except MalformedFrame:
        return
    assert len(result.value_json) + (0 if result.array is None else len(result.array.data)) <= 100
    assert result.array is None or result.status is Status.OK
    assert bool(result.value_json) == (result.status is Status.OK)
    assert len(result.stdout.encode()) <= 3 * (3 * 100 + 128)
    assert len(result.stderr.encode()) <= 3 * (3 * 100 + 128)
    assert math.isfinite(result.usage.wall_seconds)
    assert result.usage.wall_seconds >= 0
    assert (result.limits, result.runtime) == (JOB.limits, "python")


@given(st.binary(max_size=300))
def test_any_result_body(body: bytes) -> None:
    check(body)


_LENGTH = st.one_of(st.integers(0, 5), st.integers(90, 110), st.integers(0, 1000), _U32)


@given(
    st.integers(0, 255), st.integers(0, 255), _U32, _U32, _U64, st.floats(), _U64, _U32,
    st.lists(_LENGTH, min_size=7, max_size=7), st.booleans(), st.binary(max_size=60),
)  # fmt: skip
def test_any_result_header(
    status: int,
    flags: int,
    line: int,
    column: int,
    fuel: int,
    wall: float,
    peak: int,
    calls: int,
    lengths: list[int],
    fits: bool,
    rest: bytes,
) -> None:
    if fits and sum(lengths) < 4000:
        rest = (rest or b"\xff") * 4000
        rest = rest[: sum(lengths)]
    check(_RESULT.pack(1, status, flags, line, column, fuel, wall, peak, calls, 0, *lengths) + rest)


@given(results(), st.data())
def test_a_changed_byte(result: Result, data: st.DataObject) -> None:
    body = bytearray(frames.encode_result(1, result)[5:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(body))
    check(bytes(body[: data.draw(st.integers(0, len(body)))]))


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50)), max_size=8), st.data())
def test_a_stream_is_cut_into_frames_wherever_it_breaks(
    parts: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(struct.pack("<IB", len(body), kind) + body for kind, body in parts)
    decoder, found, position = frames.Decoder(), [], 0
    while position < len(stream):
        size = data.draw(st.integers(1, 40))
        found += decoder.feed(stream[position : position + size])
        position += size
    assert found == parts
    assert list(decoder.feed(b"")) == []


_LARGE = [
    (Kind.SESSION_STATE, bytes(range(256)) * 1000),
    (Kind.RESULT, b"r" * 5),
    (Kind.RESULT, b"result" * 100_000),
    (Kind.STATE, b"s" * 65536),
    (Kind.OUTPUT_FILE, b"f" * (3 << 20)),
    (Kind.STATE, b"x"),
]


@pytest.mark.parametrize("size", [1000, 65535, 65541, 262_144, 8 << 20])
@pytest.mark.parametrize("in_place", [False, True])
def test_large_frames_arrive_whole(size: int, in_place: bool) -> None:
    stream = b"".join(struct.pack("<IB", len(body), kind) + body for kind, body in _LARGE)
    decoder, found, position = frames.Decoder(), [], 0
    while position < len(stream):
        piece = stream[position : position + size]
        if in_place and decoder.room:
            piece = piece[: len(decoder.room)]
            decoder.room[: len(piece)] = piece
            found += decoder.filled(len(piece))
        else:
            found += decoder.feed(piece)
        position += len(piece)
    assert found == _LARGE
    assert all(type(body) is bytes for kind, body in found if kind == Kind.OUTPUT_FILE)
    assert not any(type(body) is bytearray for _, body in found)


def test_a_frame_under_way_survives_whoever_is_interrupted() -> None:
    stream = b"".join(struct.pack("<IB", len(body), kind) + body for kind, body in _LARGE)
    decoder = frames.Decoder()
    assert list(decoder.feed(stream[:100_000])) == []
    arrived = decoder.feed(stream[100_000:])
    assert next(arrived) == _LARGE[0]
    arrived.close()
    assert list(decoder.feed(b"")) == _LARGE[1:]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_stream(chunks: list[bytes]) -> None:
    decoder = frames.Decoder()
    try:
        for chunk in chunks:
            for kind, body in decoder.feed(chunk):
                assert 0 <= kind <= 255
                assert len(body) <= frames.LARGEST_FRAME
    except MalformedFrame:
        pass


def test_a_frame_that_is_too_large_is_refused_before_it_arrives() -> None:
    with pytest.raises(MalformedFrame, match="a frame of 4294967295 bytes"):
        list(frames.Decoder().feed(b"\xff" * 5))
    assert list(frames.Decoder().feed(struct.pack("<IB", frames.LARGEST_FRAME, 6))) == []


_GRANTS = st.builds(
    Grants,
    files=st.dictionaries(_TEXT.filter(bool), st.binary(max_size=40), max_size=3),
    outputs=st.lists(_TEXT, max_size=3).map(tuple),
    mounts=st.lists(st.builds(Mount, _TEXT, st.booleans()), max_size=3).map(tuple),
    tools=st.lists(
        st.builds(Tool, _TEXT, _TEXT, st.lists(_TEXT, max_size=3).map(tuple), _TEXT), max_size=3
    ).map(tuple),
    http=st.none() | st.builds(HttpPolicy, st.just(()), request_bytes=st.integers(1, 2**40)),
    live=st.booleans(),
    stdin=st.booleans(),
    tool_time_counts=st.booleans(),
)


@given(
    _U64, st.integers(0, 3), st.none() | st.integers(0, 3), st.binary(max_size=60), st.binary(max_size=60),
    st.none() | _GRANTS, st.integers(1, 2**63 - 1), st.floats(1e-9, 1e9), st.integers(1, 2**63 - 1),
)  # fmt: skip
def test_an_order_survives_the_way(
    number: int,
    runtime: int,
    translator: int | None,
    code: bytes,
    inputs: bytes,
    grants: Grants | None,
    fuel: int,
    seconds: float,
    memory: int,
) -> None:
    names = ["a", "b", "c", "d"]
    limits = Limits(fuel, seconds, memory).within(DEFAULTS, Limits())
    job = Job(names[runtime], code, inputs, limits, grants)
    files: dict[str, bytearray] = {}
    decoder = frames.Decoder()
    for frame in orders.encode_files(number, job):
        ((kind, body),) = decoder.feed(frame)
        assert kind == Kind.FILE
        told, path, piece = orders.decode_file(body)
        assert told == number
        files.setdefault(path, bytearray()).extend(piece)
    assert files == (dict(grants.files) if grants else {})
    ((kind, body),) = decoder.feed(b"".join(orders.encode_order(number, runtime, translator, job)))
    assert kind == Kind.EVALUATE
    order = orders.decode_order(body, names)
    assert (order.number, order.runtime, order.code, order.inputs) == (number, names[runtime], code, inputs)
    assert order.translator == ("" if translator is None else names[translator])
    assert order.grants == (grants and replace(grants, files={}))
    assert order.limits.fuel == limits.fuel
    assert order.limits.workspace_bytes == limits.workspace_bytes
    if grants:
        assert order.limits == limits


@given(st.binary(max_size=120))
def test_any_call_answer_input_output_and_file(body: bytes) -> None:
    for decode in (
        exchanges.decode_call,
        exchanges.decode_input,
        exchanges.decode_output,
        exchanges.decode_output_file,
        orders.decode_file,
    ):
        try:
            number, *_, last = decode(body)
        except (MalformedFrame, UnicodeDecodeError):
            continue
        assert 0 <= number < 2**64
        assert not isinstance(last, bytes) or len(last) <= len(body)


@given(
    _U64, st.integers(1, 2**32 - 1), st.sampled_from([Operation.CALL, Operation.DROP]), st.binary(max_size=40)
)
def test_a_call_survives_the_way(number: int, call: int, operation: Operation, body: bytes) -> None:
    ((kind, frame),) = frames.Decoder().feed(exchanges.encode_call(number, call, operation, body))
    assert kind == Kind.CALL
    assert exchanges.decode_call(frame) == (number, call, operation, body)
    ((kind, frame),) = frames.Decoder().feed(exchanges.encode_answer(number, call, Outcome.LIMIT, body))
    assert kind == Kind.ANSWER
    assert exchanges.decode_answer(frame) == (number, call, Outcome.LIMIT, body)


@pytest.mark.parametrize("operation", [Operation.CONTEXT, Operation.WAIT, 6, 255])
def test_a_call_that_is_the_workers_own_business_is_refused(operation: int) -> None:
    ((_, frame),) = frames.Decoder().feed(exchanges.encode_call(1, 1, operation, b""))
    with pytest.raises(MalformedFrame):
        exchanges.decode_call(frame)


@given(_U64)
def test_a_number_survives_the_way(number: int) -> None:
    ((_, body),) = frames.Decoder().feed(frames.encode_number(Kind.CANCEL, number))
    assert frames.decode_number(body) == number


@given(st.binary(max_size=20).filter(lambda body: len(body) != 8))
def test_no_number(body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        frames.decode_number(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.sampled_from(["jail", "x"]), children, max_size=3)
    ),
)


@given(_JSON)
def test_any_jail(value: object) -> None:
    try:
        layers = frames.decode_jail(json.dumps(value).encode())
    except MalformedFrame:
        return
    for name, holds, detail in layers:
        assert (type(name), type(holds), type(detail)) == (str, bool, str)


@given(st.binary(max_size=60))
def test_any_jail_bytes(body: bytes) -> None:
    try:
        frames.decode_jail(body)
    except MalformedFrame:
        pass


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"jail":' * 50_000, b"\xff\xfe", b"", b'{"jail": [1]}', b'{"jail": ["abc"]}']
)
def test_nasty_jails(body: bytes) -> None:
    try:
        layers = frames.decode_jail(body)
    except MalformedFrame:
        return
    assert layers == [["a", True, "c"]]


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"small"],
        [b"x" * 3, memoryview(b"y" * (1 << 20)), b"z"],
        [b"%d" % number for number in range(2000)],
        [bytes(1 << 20)] * 3,
    ],
)
def test_a_state_survives_the_way(pieces: list[bytes | memoryview]) -> None:
    decoder, told = frames.Decoder(), []
    for parts in residents.encode_state(7, pieces):
        ((kind, body),) = decoder.feed(b"".join(parts))
        assert kind == Kind.SESSION_STATE
        assert len(body) <= (1 << 20) + 9
        told.append(residents.decode_state(body))
    assert b"".join(piece for _, piece, _ in told) == b"".join(pieces)
    assert [number for number, _, _ in told] == [7] * len(told)
    assert [is_last for _, _, is_last in told] == [False] * (len(told) - 1) + [True]


def test_a_state_that_comes_in_crumbs_takes_little_more_than_its_bytes() -> None:
    asked = Asked(Place(1, "python", None), lambda state: None, 1 << 20, 0.0)
    for number in range(100_000):
        asked.add(b"%d" % (number % 10))
    asked.add(b"x" * 100_000)
    asked.add(b"y")
    assert len(asked.pieces) == 4
    assert b"".join(asked.pieces) == b"0123456789" * 10_000 + b"x" * 100_000 + b"y"
    with pytest.raises(MalformedFrame, match="larger than it can be"):
        asked.add(bytes(1 << 20))
