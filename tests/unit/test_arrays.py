"""Arrays: what is one, what is carried, and that none is changed on its way through records and messages."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import math
import pickle
import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import Array, Evaluation, Internal, InvalidArgument, Result, Status, wire
from wasmeval.arrays import compose, is_array, is_scalar, item_bytes, read_record, record_parts
from wasmeval.inputs import split_inputs
from wasmeval.model import Request
from wasmeval.requests import request_of
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wire import arrays as arrays_on_the_wire
from wasmeval.wire.arrays import _varint, split_reply, split_request
from wasmeval.wire.requests import request_of as request_of_message

_DTYPES = st.sampled_from(
    ["|b1", "|i1", "<u2", ">i4", "<f2", "<f8", ">c16", "<M8[ns]", "<m8[25s]", "|S3", "<U2"]
)


@st.composite
def _arrays(draw: st.DrawFn) -> Array:
    dtype = draw(_DTYPES)
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = item_bytes(dtype) * math.prod(shape)
    return Array(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


class Duck:
    """An array by NumPy's protocol."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, typestr: str, shape: tuple[int, ...], data: bytes) -> None:
        self._told = {"typestr": typestr, "shape": shape, "data": data, "version": 3}

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._told

    def tobytes(self) -> bytes:
        return bytes(self._told["data"])


class Masked(Duck):
    """One that is masked."""

    mask = True


class Scalar(Duck):
    """A scalar has the same protocol, and can be hashed."""

    def __init__(self, typestr: str, value: object) -> None:
        super().__init__(typestr, (), b"")
        self._value = value

    def __hash__(self) -> int:
        return hash(self._value)

    def item(self) -> object:
        return self._value


# ---- the value ---------------------------------------------------------------------------------------------------


def test_an_array_says_what_it_is() -> None:
    array = Array("float64", (2, 3), struct.pack("<6d", *range(6)))
    assert (array.dtype, array.shape, len(array), repr(array)) == (
        "<f8",
        (2, 3),
        2,
        "Array('<f8', (2, 3), 48 bytes)",
    )
    assert array.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert array == Array("<f8", (2, 3), array.data) != Array("<f8", (3, 2), array.data)
    assert array != array.tolist()
    assert {array: 1}[copy.copy(array)] == 1
    assert pickle.loads(pickle.dumps(Array.over("<f8", (1,), memoryview(bytes(8))))) == Array(
        "<f8", (1,), bytes(8)
    )


def test_it_stands_for_something_even_when_it_is_empty() -> None:
    assert Array("<i4", (0,), b"")
    assert Array("<i4", (), bytes(4))
    with pytest.raises(TypeError, match="without axes"):
        len(Array("<i4", (), bytes(4)))


def test_what_it_lies_over_becomes_bytes_when_they_are_asked_for() -> None:
    array = Array.over("|u1", (3,), memoryview(b"abcdef")[2:5])
    assert isinstance(array.elements, memoryview)
    assert (array.data, array.tolist()) == (b"cde", [99, 100, 101])


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "items"),
    [
        ("bool", (2,), b"\0\1", [False, True]),
        ("int8", (2,), b"\xff\1", [-1, 1]),
        (">u2", (2,), b"\0\1\1\0", [1, 256]),
        ("float16", (1,), struct.pack("<e", 1.5), [1.5]),
        ("complex64", (1,), struct.pack("<2f", 1, -2), [1 - 2j]),
        ("complex128", (), struct.pack("<2d", 1, -2), 1 - 2j),
        ("<M8[D]", (1,), struct.pack("<q", 7), [7]),
        ("|S3", (2,), b"ab\0abc", [b"ab", b"abc"]),
        ("<U2", (2,), "a\0é!".encode("utf-32-le"), ["a", "é!"]),
        (">U1", (1,), "é".encode("utf-32-be"), ["é"]),
        ("|i1", (2, 0), b"", [[], []]),
        ("|i1", (0, 2), b"", []),
        ("|i1", (2, 1, 2), b"\1\2\3\4", [[[1, 2]], [[3, 4]]]),
    ],
)
def test_lists(dtype: str, shape: tuple[int, ...], data: bytes, items: object) -> None:
    assert Array(dtype, shape, data).tolist() == items


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "field"),
    [
        ("|O", (1,), bytes(8), "dtype"),
        ("<f16", (1,), bytes(16), "dtype"),
        ("<c32", (1,), bytes(32), "dtype"),
        ("=f8", (1,), bytes(8), "dtype"),
        ("f8", (1,), bytes(8), "dtype"),
        ("|f8", (1,), bytes(8), "dtype"),
        ("<i1", (1,), b"a", "dtype"),
        ("<S2", (1,), b"ab", "dtype"),
        ("|S0", (1,), b"", "dtype"),
        ("|V2", (1,), b"ab", "dtype"),
        ("<M8[weeks]", (1,), bytes(8), "dtype"),
        ("<i8\n", (1,), bytes(8), "dtype"),
        ("", (), b"", "dtype"),
        (3, (1,), b"", "dtype"),
        ("<f8", (1,), 8, "data"),
        ("<U1", (1,), "a", "data"),
        ("<f8", (2,), bytes(8), "data"),
        ("<f8", (-1,), b"", "shape"),
        ("<f8", 1, bytes(8), "shape"),
        ("<f8", (1.0,), bytes(8), "shape"),
        ("<f8", (True,), bytes(8), "shape"),
        ("<f8", (1,) * 65, bytes(8), "shape"),
        ("<f8", (0, 2**40), b"", "shape"),
    ],
)
def test_what_is_no_array_is_refused(dtype: Any, shape: Any, data: bytes, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Array(dtype, shape, data)
    assert caught.value.field == field


# ---- from callers ------------------------------------------------------------------------------------------------


def test_whole_inputs_may_be_arrays() -> None:
    given = Array("int8", (2,), b"ab")
    texts, arrays = split_inputs({"a": given, "b": Duck("<i4", (1,), bytes(4)), "c": [1]})
    assert texts == {"c": b"[1]"}
    assert arrays == {"a": given, "b": Array("int32", (1,), bytes(4))}


@pytest.mark.parametrize("inside", [[Array("int8", (1,), b"a")], {"k": (Duck("|i1", (1,), b"a"),)}])
def test_an_array_inside_a_value_is_refused(inside: object) -> None:
    with pytest.raises(InvalidArgument, match=r"inputs.x: only a whole input may be an array") as caught:
        split_inputs({"x": inside})
    assert ".tolist()" in str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (Duck("|O", (1,), bytes(8)), r"inputs.x: an array of \|O is not carried.*astype.*tolist"),
        (Duck("|V8", (1,), bytes(8)), "is not carried"),
        (Duck("<f16", (1,), bytes(16)), "is not carried"),
        (Masked("<f8", (1,), bytes(8)), "masked array is not carried; pass .filled"),
        (Duck("<f8", (2,), bytes(8)), "inputs.x: data: 8 bytes, and dtype and shape say 16"),
    ],
)
def test_what_is_not_carried_is_refused_with_what_to_do(array: Duck, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        split_inputs({"x": array})


def test_a_scalar_is_its_number() -> None:
    texts, arrays = split_inputs(
        {"x": Scalar("<i8", 5), "y": [Scalar("|b1", True), {"k": Scalar("<f4", 0.5)}]}
    )
    assert (texts, arrays) == ({"x": b"5", "y": b'[true,{"k":0.5}]'}, {})
    for scalar in (Scalar("<M8[ns]", 5), Scalar("<c16", 1j), Scalar("<f16", object())):
        with pytest.raises(InvalidArgument, match="JSON has no Scalar"):
            split_inputs({"x": scalar})


def test_who_has_the_protocol_is_an_array_whether_or_not_it_can_be_hashed() -> None:
    class Hashed(Duck):
        __hash__ = object.__hash__  # type: ignore[assignment]

    assert split_inputs({"x": Hashed("|i1", (2,), b"ab")})[1] == {"x": Array("int8", (2,), b"ab")}
    with pytest.raises(InvalidArgument, match="JSON has no type"):
        split_inputs({"x": Duck})


def test_elements_that_are_not_in_c_order_take_tobytes() -> None:
    class Bare:
        def __init__(self, **told: Any) -> None:
            self.__array_interface__ = {"typestr": "|u1", "shape": (4,)} | told

    held = ctypes.create_string_buffer(b"abcd", 4)
    there = (ctypes.addressof(held), True)
    assert split_inputs({"x": Bare(data=there)})[1]["x"].data == b"abcd"
    for wrong in (Bare(data=there, strides=(2,)), Bare(data=b"abcd")):
        with pytest.raises(InvalidArgument, match=r"inputs.x: .*not in C order"):
            split_inputs({"x": wrong})


def test_a_recording_keeps_what_was_given() -> None:
    held = bytearray(b"ab")
    for deterministic, kept in ((False, b"xb"), (True, b"ab")):
        held[:] = b"ab"
        array = Array.over("|u1", (2,), memoryview(held))
        request = request_of(Evaluation("x", inputs={"x": array}, deterministic=deterministic))
        held[0] = ord("x")
        assert bytes(request.arrays["x"].elements) == kept


def test_arrays_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    table = numpy.arange(24, dtype=">i2").reshape(2, 3, 4)
    for array in (table, table[:, ::-1, ::2], table.T, table[0, 0, 0], numpy.float32([1]), numpy.array(1j)):
        array = numpy.asarray(array)
        _, arrays = split_inputs({"x": array})
        again = numpy.asarray(arrays["x"])
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.tobytes() == array.tobytes()
        assert arrays["x"].tolist() == array.tolist()
    times = numpy.array(["2020-01-01", "NaT"], dtype="M8[s]")
    assert (numpy.asarray(split_inputs({"x": times})[1]["x"])[:1] == times[:1]).all()
    assert split_inputs({"x": numpy.int64(3), "y": numpy.float64(2)})[0] == {"x": b"3", "y": b"2.0"}
    for wrong in (numpy.array([object()]), numpy.zeros(1, "i4,f8"), numpy.longdouble([1])):
        with pytest.raises(InvalidArgument, match="is not carried"):
            split_inputs({"x": wrong})


# ---- records and messages ----------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), _arrays(), max_size=3))
def test_records_are_read_as_they_were_written(arrays: dict[str, Array]) -> None:
    data = b"".join(compose(arrays))
    found, at = {}, 0
    while at < len(data):
        name, found[name], at = read_record(data, at)
        assert at % 16 == 0
    assert found == arrays


@given(st.binary(max_size=100), _arrays())
def test_any_bytes_are_a_record_or_none(data: bytes, array: Array) -> None:
    whole = b"".join(compose({"": array}))
    for each in (data, whole[: len(data)], bytes(a ^ b for a, b in zip(whole, data, strict=False)) + whole):
        with contextlib.suppress(ValueError):
            read_record(each)


def _parsed(data: bytes) -> Request:
    return request_of_message(pb.EvaluateRequest.FromString(data))


def _plain(request: Request) -> Request:
    return request._replace(inputs=dict(request.inputs), arrays=dict(request.arrays))


_LARGE = Array("|u1", (70_000,), bytes(range(250)) * 280)
_NAMES = st.text(st.characters(codec="utf-8"), max_size=5)


@given(st.dictionaries(_NAMES, _arrays(), max_size=3), st.booleans(), st.text("ab", max_size=3))
def test_a_request_is_the_message_that_protobuf_makes(
    arrays: dict[str, Array], large: bool, code: str
) -> None:
    request = Request(code, "python", arrays=arrays | ({"large": _LARGE} if large else {}))
    data = wire.serialize_request(request)
    assert _plain(_parsed(data)) == _plain(wire.decode_request(data)) == request
    assert wire.encode_request(request).SerializeToString(
        deterministic=True
    ) == pb.EvaluateRequest.FromString(data).SerializeToString(deterministic=True)


@given(st.lists(st.tuples(st.integers(0, 70_100), st.integers(0, 255)), max_size=3), st.integers(0, 40))
def test_a_request_that_was_damaged_is_read_as_protobuf_reads_it(
    edits: list[tuple[int, int]], cut: int
) -> None:
    arrays = {"a": _LARGE, "b": Array("<f8", (1,), bytes(8))}
    data = bytearray(wire.serialize_request(Request("x", "python", {"c": b"1"}, arrays=arrays)))
    for at, byte in edits:
        # Half of them where something else than an element is.
        data[at if at < len(data) and at % 2 else (at // 2) % 60] = byte
    damaged = bytes(data[: len(data) - cut])
    try:
        rest, found = split_request(damaged)
        if not found:
            return
        message = pb.EvaluateRequest.FromString(rest)
    except (InvalidArgument, DecodeError):
        # Refused, as it is without the short way.
        with pytest.raises((InvalidArgument, DecodeError)):
            _parsed(damaged)
        return
    assert request_of_message(message)._replace(arrays=found) == _parsed(damaged)


def test_what_is_unusual_is_left_to_protobuf() -> None:
    data = wire.serialize_request(Request("x", "python", arrays={"a": _LARGE}))
    assert split_request(data)[1] == {"a": _LARGE}
    start = data.index(b"j")  # the entry's tag
    unusual = {
        "twice": data + data[start:],
        "a field of the entry's too many": data[:start] + b"j\4\x0a\0\x18\1" + data[start:],
        "no value": data + b"j\3\x0a\1b",
        "a group": data + b"\x7b\x7c",
    }
    for what, message in unusual.items():
        assert split_request(message) == (message, {}), what


@given(_arrays(), st.booleans(), st.text("ab", max_size=3))
def test_a_reply_is_the_message_that_protobuf_makes(array: Array, large: bool, text: str) -> None:
    result = Result(Status.OK, b"null", stdout=text, array=_LARGE if large else array)
    data = wire.encode_reply(result)
    message = pb.EvaluateResponse.FromString(data)
    assert wire.decode_result(message.result) == wire.decode_reply(data)
    assert wire.decode_reply(data).array == result.array
    assert (split_reply(data) is not None) == large


def test_a_service_that_sends_no_array_is_told_so() -> None:
    for size in (9, 70_000):
        reply = pb.EvaluateResponse(
            result=pb.Result(status=pb.STATUS_OK, array=pb.Array(dtype="<f8", shape=[1], data=bytes(size)))
        )
        with pytest.raises(Internal, match=r"what is no array: array\.data"):
            wire.decode_reply(reply.SerializeToString())


def test_packed_or_not_a_shape_is_the_same() -> None:
    array = b"\x0a\3|u1" + b"\x10\2" + b"\x12\2\xb8\x17" + b"\x10\x0c" + b"\x1a"
    array += _varint(72_000) + bytes(72_000)
    data = b"\x0a\1x\x12\6python" + b"j" + _varint(3 + 1 + len(_varint(len(array))) + len(array))
    data += b"\x0a\1a" + b"\x12" + _varint(len(array)) + array
    assert wire.decode_request(data).arrays["a"].shape == (2, 3000, 12) == _parsed(data).arrays["a"].shape


def test_an_evaluation_with_an_array() -> None:
    request = request_of(Evaluation("x", inputs={"x": _LARGE, "y": 1}))
    assert (request.inputs, request.arrays) == ({"y": b"1"}, {"x": _LARGE})


def test_an_array_over_memory_of_others_cannot_be_written_to() -> None:
    under = bytearray(struct.pack("<2d", 1, 2))
    array = Array.over("<f8", (2,), memoryview(under))
    view = pytest.importorskip("numpy").asarray(array)
    assert not view.flags.writeable
    _, read, _ = read_record(bytearray(b"".join(record_parts("x", array))))
    assert isinstance(read.elements, memoryview)
    assert read.elements.readonly


@pytest.mark.parametrize("dtype", ["|S1000000000", "<M8[2147483647s]"])
def test_a_width_of_ten_digits_is_a_width(dtype: str) -> None:
    assert Array(dtype, (0,), b"").dtype == dtype


def test_digits_are_those_of_ascii() -> None:
    with pytest.raises(InvalidArgument, match="dtype"):
        Array("|S1\u0663", (0,), b"")


@pytest.mark.parametrize(
    "interface", [None, {}, {"typestr": 1, "shape": ()}, {"typestr": "<f8", "shape": [1]}]
)
def test_what_has_no_real_protocol_is_no_array(interface: object) -> None:
    class Odd:
        __array_interface__ = interface

    assert not is_array(Odd())
    assert not is_scalar(Odd())


UNKNOWN = {
    "at the top": b"\xc0\x3e\x00" + b"\x78\x00" * 500_000,
    "in an entry": b"\x6a\xc0\x84\x3d" + b"\x78\x00" * 500_000,
    "in a shape": b"\xc0\x3e\x00\x6a\x8b\xa4\x01\x0a\x01x\x12\x84\xa4\x01\x12\x80\xa4\x01" + b"\x01" * 20_992,
}


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN)
def test_a_message_of_very_many_fields_is_left_to_protobuf_at_once(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    whole = arrays_on_the_wire._number

    def counted(message: memoryview, position: int) -> tuple[int, int]:
        nonlocal read
        read += 1
        return whole(message, position)

    monkeypatch.setattr(arrays_on_the_wire, "_number", counted)
    padded = data + bytes(max(0, (1 << 16) + 1 - len(data)))
    assert split_request(padded) == (padded, {})
    assert 0 < read < 20_000


def test_millions_of_empty_lists_are_refused() -> None:
    assert Array("<f8", (3, 0), b"").tolist() == [[], [], []]
    with pytest.raises(ValueError, match="empty lists"):
        Array("|i1", (2**31 - 1, 0), b"").tolist()
