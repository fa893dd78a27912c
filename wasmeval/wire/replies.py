"""Replies: what the service gives, between the messages and the model's values. `_STATUSES` is read both ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from wasmeval.arrays import Array
from wasmeval.determinism import RECEIPT_VERSION, Receipt
from wasmeval.errors import Internal, InvalidArgument
from wasmeval.grants import HttpUse
from wasmeval.limits import Usage
from wasmeval.model import ErrorInfo, OutputFile, Result, RuntimeInfo, Status
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wire.arrays import decode_array, reply_parts, split_reply, write_array
from wasmeval.wire.requests import decode_limits, write_limits

_M = TypeVar("_M", bound=Message)

_STATUSES = {
    Status.OK: pb.STATUS_OK,
    Status.ERROR: pb.STATUS_ERROR,
    Status.FUEL_EXHAUSTED: pb.STATUS_FUEL_EXHAUSTED,
    Status.DEADLINE_EXCEEDED: pb.STATUS_DEADLINE_EXCEEDED,
    Status.MEMORY_EXCEEDED: pb.STATUS_MEMORY_EXCEEDED,
    Status.OUTPUT_EXCEEDED: pb.STATUS_OUTPUT_EXCEEDED,
    Status.CANCELLED: pb.STATUS_CANCELLED,
    Status.CRASHED: pb.STATUS_CRASHED,
    Status.UNSUPPORTED: pb.STATUS_UNSUPPORTED,
}
_STATUS_OF = {number: status for status, number in _STATUSES.items()}


def encode_reply(result: Result) -> bytes:
    """One whole EvaluateResponse."""
    if result.array is not None:
        rest = pb.Result()
        write_result(rest, result, with_array=False)
        return b"".join(reply_parts(rest.SerializeToString(), result.array))
    reply = pb.EvaluateResponse()
    write_result(reply.result, result)
    return reply.SerializeToString()


def decode_reply(data: bytes) -> Result:
    """Raises Internal for what is no such message."""
    try:
        split = split_reply(data)
    except InvalidArgument as error:
        raise _no_array(error) from None
    if split is not None:
        rest, array = split
        return decode_result(parse_reply(pb.Result, rest), array)
    return decode_result(parse_reply(pb.EvaluateResponse, data).result)


def encode_batch_reply(results: Iterable[Result]) -> bytes:
    """One whole EvaluateBatchResponse."""
    reply = pb.EvaluateBatchResponse()
    for result in results:
        write_result(reply.results.add(), result)
    return reply.SerializeToString()


def decode_batch_reply(data: bytes) -> list[Result]:
    """Raises Internal for what is no such message."""
    return [decode_result(message) for message in parse_reply(pb.EvaluateBatchResponse, data).results]


def decode_result(message: pb.Result, array: Array | None = None) -> Result:
    """The Result, with the array where that came beside it. Raises Internal for a status this version does not know."""
    status = _STATUS_OF.get(message.status)
    if status is None:
        raise Internal(
            f"the service sent status {message.status}, which this client does not know; update it"
        )
    usage = message.usage
    return Result(
        status=status,
        value_json=message.value,
        value_is_json=not message.value_is_repr,
        stdout=message.stdout,
        stderr=message.stderr,
        stdout_truncated=message.stdout_truncated,
        stderr_truncated=message.stderr_truncated,
        error=_decode_error_info(message.error) if message.HasField("error") else None,
        usage=Usage(
            usage.fuel,
            usage.wall_seconds,
            usage.peak_memory_bytes,
            usage.tool_calls,
            usage.virtual_ns,
            usage.cpu_seconds,
        ),
        limits=decode_limits(message.limits),
        tier=message.tier,
        runtime=message.runtime,
        files={file.path: OutputFile(file.data, file.media_type) for file in message.files},
        http=tuple(HttpUse(**{name: getattr(use, name) for name in _USE}) for use in message.http),
        rolled_back=message.rolled_back,
        receipt=_decode_receipt(message.receipt) if message.HasField("receipt") else None,
        unrepeatable=message.unrepeatable,
        transcript=message.transcript,
        seal_holds=message.seal_holds,
        cached=message.cached,
        tier_detail=message.tier_detail,
        moved=message.moved,
        exit_status=message.exit_status if message.HasField("exit_status") else None,
        array=_decode_array(message.array) if message.HasField("array") else array,
    )


def _decode_array(message: pb.Array) -> Array:
    try:
        return decode_array("array", message)
    except InvalidArgument as error:
        raise _no_array(error) from None


def _no_array(error: InvalidArgument) -> Internal:
    return Internal(f"the service sent what is no array: {error}")


_USE = tuple(field.name for field in fields(HttpUse))


def encode_runtimes(runtimes: Iterable[RuntimeInfo]) -> bytes:
    """One whole ListRuntimesResponse."""
    return pb.ListRuntimesResponse(
        runtimes=[
            pb.Runtime(
                name=runtime.name,
                version=runtime.version,
                interpreter=runtime.interpreter,
                languages=runtime.languages,
                image_sha256=runtime.image_sha256,
                initial_memory_bytes=runtime.initial_memory_bytes,
                minimum_memory_bytes=runtime.minimum_memory_bytes,
                tier=runtime.tier,
            )
            for runtime in runtimes
        ]
    ).SerializeToString()


def decode_runtimes(data: bytes) -> tuple[RuntimeInfo, ...]:
    """Raises Internal for what is no such message."""
    return tuple(
        RuntimeInfo(
            name=message.name,
            version=message.version,
            interpreter=message.interpreter,
            languages=tuple(message.languages),
            image_sha256=message.image_sha256,
            initial_memory_bytes=message.initial_memory_bytes,
            minimum_memory_bytes=message.minimum_memory_bytes,
            # A service of before there were others does not say.
            tier=message.tier or "wasm",
        )
        for message in parse_reply(pb.ListRuntimesResponse, data).runtimes
    )


def parse_reply(kind: type[_M], data: bytes) -> _M:
    """Raises Internal for what is no such message."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Internal(f"the service sent what is no {kind.DESCRIPTOR.full_name}; is it wasmeval?") from None


# A message that is written in place costs a third of one built from parts, which are copied.


def write_result(
    message: pb.Result, result: Result, *, with_files: bool = True, with_array: bool = True
) -> None:
    """Fills `message`; without their data the files of a conversation, which has come in pieces."""
    message.status = _STATUSES[result.status]
    message.value = result.value_json
    message.value_is_repr = not result.value_is_json
    message.tier = result.tier
    message.runtime = result.runtime
    if result.stdout:
        message.stdout = result.stdout
    if result.stderr:
        message.stderr = result.stderr
    message.stdout_truncated = result.stdout_truncated
    message.stderr_truncated = result.stderr_truncated
    if result.error is not None:
        _write_error(message.error, result.error)
    usage = message.usage
    usage.fuel = result.usage.fuel
    usage.wall_seconds = result.usage.wall_seconds
    usage.peak_memory_bytes = result.usage.peak_memory_bytes
    write_limits(message.limits, result.limits)
    if result.usage.tool_calls:
        usage.tool_calls = result.usage.tool_calls
    for path, file in result.files.items():
        data = file.data if with_files else b""
        message.files.add(path=path, data=data, size=file.size, media_type=file.media_type)
    if result.rolled_back:
        message.rolled_back = True
    if result.usage.virtual_ns:
        usage.virtual_ns = result.usage.virtual_ns
    if result.receipt is not None:
        _write_receipt(message.receipt, result.receipt)
    if result.unrepeatable:
        message.unrepeatable = result.unrepeatable
    if result.transcript:
        message.transcript = result.transcript
    if result.seal_holds:
        message.seal_holds = True
    if result.cached:
        message.cached = True
    if result.tier_detail:
        message.tier_detail = result.tier_detail
    if result.moved:
        message.moved = result.moved
    if result.exit_status is not None:
        message.exit_status = result.exit_status
    if result.array is not None and with_array:
        write_array(message.array, result.array)
    if result.usage.cpu_seconds:
        usage.cpu_seconds = result.usage.cpu_seconds
    for use in result.http:
        message.http.add(**{name: getattr(use, name) for name in _USE})


_RECEIPT = tuple(field.name for field in fields(Receipt) if field.name not in ("limits", "status"))


def _write_receipt(message: pb.Receipt, receipt: Receipt) -> None:
    for name in _RECEIPT:
        setattr(message, name, getattr(receipt, name))
    message.status = _STATUSES[Status(receipt.status)]
    write_limits(message.limits, receipt.limits)


def _decode_receipt(message: pb.Receipt) -> Receipt:
    status = _STATUS_OF.get(message.status)
    if message.version != RECEIPT_VERSION or status is None:
        raise Internal(
            f"the service sent a receipt of version {message.version}, which this client does not know; update it"
        )
    return Receipt(
        **{name: getattr(message, name) for name in _RECEIPT},
        limits=decode_limits(message.limits),
        status=status.value,
    )


def _write_error(message: pb.ErrorInfo, error: ErrorInfo) -> None:
    message.SetInParent()
    message.type = error.type
    message.message = error.message
    message.traceback = error.traceback
    if error.line is not None:
        message.line = error.line
    if error.column is not None:
        message.column = error.column


def _decode_error_info(message: pb.ErrorInfo) -> ErrorInfo:
    return ErrorInfo(
        message.type,
        message.message,
        message.traceback,
        message.line if message.HasField("line") else None,
        message.column if message.HasField("column") else None,
    )
