"""Every wrong request gets INVALID_ARGUMENT that names the field, and never reaches the pool."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from tests.grpc.conftest import WAIT_SECONDS, Running, serve_scripted
from wasmeval import AsyncClient, Client, Evaluation, InvalidArgument, Limits, wire
from wasmeval.v1 import wasmeval_pb2 as pb

MIB = 1 << 20


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One service for all rows: each proves that the one before did no harm."""
    with serve_scripted() as server:
        yield server


def refuse(server: Running, method: str, data: bytes) -> tuple[str, str]:
    """Field and description of the answer, which must be INVALID_ARGUMENT; afterwards the service works."""
    before = len(server.pool.jobs)
    with grpc.insecure_channel(server.target, [("grpc.max_send_message_length", -1)]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(data, timeout=WAIT_SECONDS)
        call: Any = caught.value
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, call
        trailing = dict(call.trailing_metadata())
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        bad = error_details_pb2.BadRequest()
        assert status.details[0].Unpack(bad)
        assert len(server.pool.jobs) == before
        channel.unary_unary(wire.EVALUATE)(request().SerializeToString(), timeout=WAIT_SECONDS)
    [violation] = bad.field_violations
    assert call.details() == f"{violation.field}: {violation.description}" == status.message
    return violation.field, violation.description


def request(code: str = "1", language: str = "python", **fields: Any) -> pb.EvaluateRequest:
    return pb.EvaluateRequest(code=code, language=language, **fields)


def array(dtype: str = "<f8", shape: Sequence[int] = (1,), data: bytes = bytes(8)) -> pb.Array:
    return pb.Array(dtype=dtype, shape=shape, data=data)


BAD = [
    (request(language="cobol"), "language", "unknown language 'cobol'; known: javascript, js, py, python"),
    (request(language=""), "language", "unknown language ''"),
    (request(language="x" * 100_000), "language", "unknown language 'xxx"),
    (request(code=""), "code", "empty"),
    (request(code="#" * (MIB + 1)), "code", "1048577 bytes, more than 1048576"),
    (request(code="a\0b"), "code", "a NUL character at byte 1"),
    (request(inputs={"a b": b"1"}), "inputs.a b", "not an identifier of python"),
    (request(inputs={"": b"1"}), "inputs.", "not an identifier of python"),
    (request(inputs={"1st": b"1"}), "inputs.1st", "not an identifier of python"),
    (request(inputs={"$x": b"1"}), "inputs.$x", "not an identifier of python"),
    (request(inputs={"\ufb01": b"1"}), "inputs.\ufb01", "not an identifier of python"),
    (request(inputs={"lambda": b"1"}), "inputs.lambda", "a reserved word of python"),
    (request(inputs={"__builtins__": b"{}"}), "inputs.__builtins__", "the interpreter's"),
    (request(language="javascript", inputs={"await": b"1"}), "inputs.await", "a reserved word of javascript"),
    (request(language="javascript", inputs={"a-b": b"1"}), "inputs.a-b", "not an identifier of javascript"),
    (request(language="javascript", inputs={"__proto__": b"1"}), "inputs.__proto__", "the interpreter's"),
    (request(inputs={"x" * 5000 + " ": b"1"}), "inputs." + "x" * 40 + "...", "not an identifier"),
    (request(inputs={"x": b""}), "inputs.x", "not valid JSON at line 1, column 1"),
    (request(inputs={"x": b"1 2"}), "inputs.x", "not valid JSON at line 1, column 3"),
    (request(inputs={"x": b'1,"y":2'}), "inputs.x", "not valid JSON at line 1, column 2"),
    (request(inputs={"x": b"{'a': 1}"}), "inputs.x", "not valid JSON"),
    (request(inputs={"x": b'"\xff"'}), "inputs.x", "not valid UTF-8 at byte 1"),
    (request(inputs={"x": b"[" * 100_000 + b"]" * 100_000}), "inputs.x", "nested deeper than 256"),
    (request(inputs={"x": b'{"a":' * 100_000 + b"1" + b"}" * 100_000}), "inputs.x", "nested deeper than 256"),
    (request(inputs={"x": b"[" * 257 + b"NaN" + b"]" * 257}), "inputs.x", "nested deeper than 256"),
    (request(inputs={"x": b"[" * 100_000}), "inputs.x", "nested deeper than 256"),
    (
        request(inputs={"x": b'"%b"' % (b"x" * 5 * MIB), "y": b'"%b"' % (b"y" * 5 * MIB)}),
        "inputs",
        "more than 8388608",
    ),
    (request(limits=pb.Limits(fuel=0)), "limits.fuel", "must be between 1 and 2**63 - 1, not 0"),
    (request(limits=pb.Limits(fuel=2**64 - 1)), "limits.fuel", "must be between 1 and 2**63 - 1"),
    (request(limits=pb.Limits(deadline_seconds=math.nan)), "limits.deadline_seconds", "not nan"),
    (request(limits=pb.Limits(deadline_seconds=math.inf)), "limits.deadline_seconds", "not inf"),
    (request(limits=pb.Limits(deadline_seconds=0)), "limits.deadline_seconds", "not 0.0"),
    (request(limits=pb.Limits(deadline_seconds=-1)), "limits.deadline_seconds", "not -1.0"),
    (request(limits=pb.Limits(memory_bytes=0)), "limits.memory_bytes", "not 0"),
    (
        request(limits=pb.Limits(memory_bytes=MIB)),
        "limits.memory_bytes",
        "1048576 is less than python needs; ask for 25165824",
    ),
    (request(limits=pb.Limits(output_bytes=0)), "limits.output_bytes", "not 0"),
    (request(tier=9), "tier", "9 is none; send AUTO, WASM or VM"),
    (request(tier=pb.TIER_WASM, language="bash"), "tier", "bash runs in a VM alone"),
    (request(tier=pb.TIER_VM, mounts=["data"]), "mounts", "a VM mounts no folders"),
    (request(tier=pb.TIER_VM, cache=True), "cache", "a VM has none"),
    (
        request(tier=pb.TIER_VM, deterministic=pb.Deterministic()),
        "deterministic",
        "a VM repeats nothing exactly",
    ),
    (request(command=["ls"]), "code", "a command runs in place of code"),
    (request(code="", command=["ls"]), "language", "a command has none"),
    (request(code="", language="", command=["ls", "a\0"]), "command[1]", "a NUL character"),
    (request(language="bash", inputs={"a-b": b"1"}), "inputs.a-b", "no name of an environment variable"),
    (request(limits=pb.Limits(processes=0)), "limits.processes", "not 0"),
    (request(arrays={"x": array(dtype="float64")}), "arrays.x.dtype", "'float64' is not carried"),
    (request(arrays={"x": array(dtype="|O")}), "arrays.x.dtype", "'|O' is not carried"),
    (request(arrays={"x": array(dtype="<f16", data=bytes(16))}), "arrays.x.dtype", "'<f16' is not carried"),
    (request(arrays={"x": array(dtype="|f8")}), "arrays.x.dtype", "'|f8' is not carried"),
    (request(arrays={"x": array(dtype="x" * 5000)}), "arrays.x.dtype", "is not carried"),
    (request(arrays={"x": array(shape=[3])}), "arrays.x.data", "8 bytes, and dtype and shape say 24"),
    (request(arrays={"x": array(shape=[0])}), "arrays.x.data", "8 bytes, and dtype and shape say 0"),
    (request(arrays={"x": array(shape=[1] * 65)}), "arrays.x.shape", "65 axes; there are at most 64"),
    (
        request(arrays={"x": array(shape=[0, 2**63, 2**63], data=b"")}),
        "arrays.x.shape",
        "more than 2147483647",
    ),
    (request(arrays={"a b": array()}), "arrays.a b", "not an identifier of python"),
    (request(arrays={"lambda": array()}), "arrays.lambda", "a reserved word of python"),
    (request(arrays={"x": array()}, inputs={"x": b"1"}), "arrays.x", "the name of another input too"),
    (
        request(language="javascript", arrays={"x": array()}),
        "arrays.x",
        "javascript has no arrays of NumPy's",
    ),
    (request(language="bash", arrays={"x": array()}), "arrays.x", "a shell has no arrays of NumPy's"),
    (
        request(arrays={"x": array(shape=[MIB], data=bytes(8 * MIB))}),
        "arrays",
        "more than 8388608 bytes together with inputs",
    ),
    (request(arrays={"x": array(shape=[1] * 70_000)}), "arrays[0].value.shape", "more than 640; send fewer"),
    (request(arrays={f"x{n}": array() for n in range(4097)}), "arrays", "more than 4096 names"),
]


@pytest.mark.parametrize(
    ("message", "field", "words"), BAD, ids=[f"{row[1][:30]}-{row[2][:30]}" for row in BAD]
)
def test_a_wrong_request_names_its_field(
    shared: Running, message: pb.EvaluateRequest, field: str, words: str
) -> None:
    found, description = refuse(shared, wire.EVALUATE, message.SerializeToString())
    assert found == field
    assert words in description
    assert len(description) < 300


@pytest.mark.parametrize(("message", "field", "words"), BAD[:1] + BAD[3:4] + BAD[-2:])
def test_one_wrong_evaluation_refuses_its_batch(
    shared: Running, message: pb.EvaluateRequest, field: str, words: str
) -> None:
    batch = pb.EvaluateBatchRequest(evaluations=[request(), request(), message])
    found, description = refuse(shared, wire.EVALUATE_BATCH, batch.SerializeToString())
    assert found == f"evaluations[2].{field}"
    assert words in description


@pytest.mark.parametrize(("number", "count"), [(0, "0"), (1025, "more than 1024")])
def test_a_batch_is_neither_empty_nor_too_long(shared: Running, number: int, count: str) -> None:
    batch = pb.EvaluateBatchRequest(evaluations=[request()] * number)
    assert refuse(shared, wire.EVALUATE_BATCH, batch.SerializeToString()) == (
        "evaluations",
        f"{count} in one batch; send between 1 and 1024",
    )


# On the wire: a field's number times 8, plus 2 for bytes that follow their length.
CODE, LANGUAGE, INPUTS, LIMITS, UNKNOWN = (bytes([number * 8 + 2]) for number in (1, 2, 3, 4, 14))


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (CODE + b"\x02\xff\xfe" + LANGUAGE + b"\x02py", "code", "not valid UTF-8"),
        (CODE + b"\x01\x31" + LANGUAGE + b"\x02\xc3\x28", "language", "not valid UTF-8"),
        (INPUTS + b"\x03\x0a\x01\xff", "inputs", "not valid UTF-8"),
        (b"not a message", "request", "not a wasmeval.v1.EvaluateRequest message"),
        (CODE + b"\x7f\x31", "request", "not a wasmeval.v1.EvaluateRequest message"),
        (CODE + b"\x01\x31" + UNKNOWN + b"\x01x", "14", "EvaluateRequest has no field 14"),
        (CODE + b"\x01\x31" + LIMITS + b"\x02\x78\x01", "limits.15", "wasmeval.v1.Limits has no field 15"),
        (bytes([1 * 8]) + b"\x05", "1", "EvaluateRequest has no field 1 of this type"),
    ],
)
def test_bytes_that_are_no_request_are_named(shared: Running, data: bytes, field: str, words: str) -> None:
    found, description = refuse(shared, wire.EVALUATE, data)
    assert found == field
    assert words in description


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"\x0a\x00\x0a\x03\x0a\x01\xff", "evaluations[1].code"),
        (b"\x0a\x00\x0a\x03\x72\x01x", "evaluations[1].14"),
        (b"\x4a\x01x", "9"),
    ],
)
def test_bytes_that_are_no_batch_are_named(shared: Running, data: bytes, field: str) -> None:
    assert refuse(shared, wire.EVALUATE_BATCH, data)[0] == field


def test_listing_runtimes_takes_no_fields(shared: Running) -> None:
    assert refuse(shared, wire.LIST_RUNTIMES, b"\x4a\x01x")[0] == "9"


def test_an_oversize_request_is_refused_by_both_sides(shared: Running) -> None:
    message = request(inputs={"x": b'"%b"' % (b"x" * 16 * MIB)}).SerializeToString()
    with grpc.insecure_channel(shared.target, [("grpc.max_send_message_length", -1)]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(wire.EVALUATE)(message, timeout=WAIT_SECONDS)
        call: Any = caught.value
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with Client(shared.target) as client:
        with pytest.raises(InvalidArgument, match=r"^request: .*larger than max.*; send less in one call"):
            client.evaluate("1", inputs={"x": "x" * 16 * MIB})
        assert client.evaluate("1").ok


def test_the_client_raises_what_the_service_says(shared: Running) -> None:
    with Client(shared.target) as client:
        with pytest.raises(InvalidArgument) as caught:
            client.evaluate("1", language="cobol")
        assert (caught.value.field, caught.value.description) == (
            "language",
            "unknown language 'cobol'; known: javascript, js, py, python",
        )
        with pytest.raises(InvalidArgument) as caught:
            client.evaluate_batch([Evaluation("1"), Evaluation("")])
        assert caught.value.field == "evaluations[1].code"
        assert client.evaluate("1").ok


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"code": "\ud800"}, "code"),
        ({"code": "1", "language": "\ud800"}, "language"),
        ({"code": "1", "inputs": {"\ud800": 1}}, "inputs"),
        ({"code": "1", "inputs": {1: 1}}, "inputs"),
        ({"code": "1", "inputs": {"x": object()}}, "inputs.x"),
        ({"code": "1", "inputs": {"x": {1: 1}}}, "inputs.x"),
        ({"code": "1", "timeout": 0}, "timeout"),
        ({"code": "1", "timeout": math.nan}, "timeout"),
        ({"code": "1", "timeout": "5"}, "timeout"),
        ({"code": "1", "timeout": True}, "timeout"),
        ({"code": 5}, "code"),
        ({"code": None}, "code"),
        ({"code": "1", "language": None}, "language"),
        ({"code": "1", "inputs": []}, "inputs"),
        ({"code": "1", "inputs": [("x", 1)]}, "inputs"),
        ({"code": "1", "limits": {}}, "limits"),
        ({"code": "1", "limits": {"fuel": 1}}, "limits"),
    ],
)
def test_what_cannot_be_sent_is_named_by_the_client(
    shared: Running, arguments: dict[str, Any], field: str
) -> None:
    with Client(shared.target) as client:
        with pytest.raises(InvalidArgument) as caught:
            client.evaluate(**arguments)
        assert caught.value.field == field
        assert client.evaluate("1").ok


@pytest.mark.parametrize(
    ("evaluations", "field"),
    [
        (5, "evaluations"),
        ("1", "evaluations[0].evaluation"),
        ([Evaluation("1"), None], "evaluations[1].evaluation"),
        ([Evaluation("1"), Evaluation(5)], "evaluations[1].code"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_evaluation_is_named_by_the_client(shared: Running, evaluations: Any, field: str) -> None:
    with Client(shared.target) as client:
        with pytest.raises(InvalidArgument) as caught:
            client.evaluate_batch(evaluations)
        assert caught.value.field == field
        assert client.evaluate("1").ok


@pytest.mark.parametrize("timeout", [math.inf, 1e12, 10**400, 1e8, 99_999_999])
def test_any_time_is_a_time_out(shared: Running, timeout: float) -> None:
    async def main() -> bool:
        async with AsyncClient(shared.target) as client:
            return (await client.evaluate("1", timeout=timeout)).ok

    with Client(shared.target) as client:
        assert client.evaluate("1", timeout=timeout).ok
        assert client.evaluate_batch([Evaluation("1")], timeout=timeout)[0].ok
        assert client.runtimes(timeout=timeout)
    assert asyncio.run(main())


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "1", math.nan])
def test_limits_that_are_none_never_leave_the_client(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^limits\.fuel: "):
        Limits(fuel=value)


def test_errors_quote_no_code_and_no_inputs(shared: Running) -> None:
    for message in (
        request(code="SECRET\0"),
        request(inputs={"x": b"SECRET"}),
        request(inputs={"x": b'{"SECRET"'}),
    ):
        assert "SECRET" not in refuse(shared, wire.EVALUATE, message.SerializeToString())[1]
