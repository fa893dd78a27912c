"""Messages made to be dear: refused for a hundredth of what they would cost, and the service goes on."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from tests.grpc.conftest import Running
from tests.grpc.test_bad_input import refuse
from wasmeval import InvalidArgument, wire
from wasmeval.wire import conversations

MIB = 1 << 20

# On the wire, two bytes each: an empty `code`, `inputs`, `evaluations`; field 1 and 9 as numbers.
EMPTY_CODE, EMPTY_INPUT, EMPTY_EVALUATION = b"\x0a\x00", b"\x1a\x00", b"\x0a\x00"
NUMBER_1, NUMBER_9 = b"\x08\x00", b"\x48\x00"
EMPTY_FIELD_2, EMPTY_FIELD_6 = b"\x12\x00", b"\x32\x00"


def inside(tag: int, content: bytes) -> bytes:
    """`content` as one field that is a message."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([tag << 3 | 2, *length, size]) + content


FLOODS = [
    (wire.decode_request, NUMBER_1 * (8 * MIB), "1"),
    (wire.decode_request, EMPTY_CODE * 5000 + NUMBER_9 * MIB, "9"),
    (wire.decode_request, EMPTY_CODE * (8 * MIB), "code"),
    (wire.decode_request, EMPTY_INPUT * (8 * MIB), "inputs"),
    (wire.decode_request, EMPTY_CODE * (8 * MIB - 2) + b"\x0a\x01\xff", "code"),
    (wire.decode_request, EMPTY_CODE * 20_000 + NUMBER_9, "request"),
    (wire.decode_request, EMPTY_CODE * 20_000 + b"\x0a\x01\xff", "request"),
    (wire.decode_batch, EMPTY_EVALUATION * (2 * MIB), "evaluations"),
    (wire.decode_batch, NUMBER_9 * (8 * MIB), "9"),
    (wire.decode_batch, b"\x0a\xfe\xff\xff\x07" + NUMBER_9 * (8 * MIB - 1), "evaluations[0].9"),
    (conversations.decode_said, inside(1, EMPTY_FIELD_2 * (4 * MIB)), "start.tools"),
    (conversations.decode_said, inside(1, inside(1, EMPTY_FIELD_6 * (4 * MIB))), "start.evaluation.outputs"),
    (conversations.decode_said, inside(1, inside(2, b"\x1a\x00" * MIB)), "start.tools[0].parameters"),
    (wire.decode_request, inside(8, EMPTY_CODE * MIB), "http.rules"),
    (wire.decode_batch, inside(1, inside(8, EMPTY_CODE * MIB)), "evaluations[0].http.rules"),
    (wire.decode_list_runtimes, NUMBER_9 * (8 * MIB), "9"),
]


@pytest.mark.parametrize(("decode", "data", "field"), FLOODS, ids=[str(n) for n in range(len(FLOODS))])
def test_a_flood_of_fields_is_refused_before_it_is_built(
    decode: Callable[[bytes], object], data: bytes, field: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument) as caught:
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.field == field
    # A copy of the message at most; as objects the fields take hundreds of MiB.
    assert peak < len(data) + 4 * MIB


@pytest.mark.parametrize(
    ("method", "data", "field"),
    [
        (wire.EVALUATE_BATCH, EMPTY_EVALUATION * (2 * MIB), "evaluations"),
        (wire.EVALUATE, NUMBER_1 * (8 * MIB - 1), "1"),
        (wire.EVALUATE, EMPTY_CODE * (8 * MIB - 3) + b"\x0a\x01\xff", "code"),
    ],
)
def test_the_service_outlasts_a_flood(running: Running, method: str, data: bytes, field: str) -> None:
    assert refuse(running, method, data)[0] == field
