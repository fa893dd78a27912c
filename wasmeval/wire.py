"""Wire: what passes between client and server, between the protobuf messages and the model's values.

Both sides read the same tables: `_CODES` for the errors, `_STATUSES` for how a snippet ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from wasmeval.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    WasmevalError,
)
from wasmeval.inputs import MAX_INPUTS, TOO_MANY_INPUTS
from wasmeval.limits import MAX_BATCH, Limits, Usage
from wasmeval.model import ErrorInfo, Request, Result, RuntimeInfo, Status
from wasmeval.v1 import wasmeval_pb2 as pb

SERVICE = "wasmeval.v1.Evaluator"
EVALUATE = f"/{SERVICE}/Evaluate"
EVALUATE_BATCH = f"/{SERVICE}/EvaluateBatch"
LIST_RUNTIMES = f"/{SERVICE}/ListRuntimes"

MAX_REQUEST_BYTES = 16 << 20
"""One request message: the largest legal evaluation is 9 MiB."""

MAX_REPLY_BYTES = 64 << 20
"""One reply message. The largest is 56 MiB: 8 of value, and twice 8 that were not UTF-8, three bytes each."""

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

_CODES: dict[type[WasmevalError], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Internal: grpc.StatusCode.INTERNAL,
}
_ERROR_OF = {code: error for error, code in _CODES.items()}
# A message up to this size holds too few fields to be a burden.
_SMALL_BYTES = 1 << 16

_DETAILS_KEY = "grpc-status-details-bin"

_M = TypeVar("_M", bound=Message)


# Requests.


def encode_request(request: Request) -> pb.EvaluateRequest:
    """Raises InvalidArgument for what no message can carry: text that is not Unicode."""
    try:
        message = pb.EvaluateRequest(
            code=request.code if isinstance(request.code, str) else request.code.decode(),
            language=request.language,
            inputs=request.inputs,
        )
        if request.limits is not None:
            message.limits.SetInParent()
            _write_limits(message.limits, request.limits)
        return message
    except (UnicodeError, ValueError):
        for field, text in (("code", request.code), ("language", request.language)):
            if not _is_unicode(text):
                raise InvalidArgument(field, "not valid Unicode: it cannot be written as UTF-8") from None
        raise InvalidArgument(
            "inputs", "a name is not valid Unicode: it cannot be written as UTF-8"
        ) from None


def decode_request(data: bytes) -> Request:
    """Raises InvalidArgument for what is no such message, and for fields this version does not know."""
    if len(data) > _SMALL_BYTES and _has_more_fields(data, MAX_INPUTS + 3):
        raise _too_many(pb.EvaluateRequest, data, InvalidArgument("inputs", TOO_MANY_INPUTS))
    return _request(_parse(pb.EvaluateRequest, data), "")


def encode_batch(requests: Iterable[Request]) -> bytes:
    """Raises InvalidArgument that names the evaluation."""
    batch = pb.EvaluateBatchRequest()
    for index, request in enumerate(requests):
        try:
            batch.evaluations.append(encode_request(request))
        except InvalidArgument as error:
            raise at_index(index, error) from None
    return batch.SerializeToString()


def decode_batch(data: bytes) -> list[Request]:
    """Raises InvalidArgument as `decode_request`, naming the evaluation, and for none or more than MAX_BATCH."""
    if _has_more_fields(data, MAX_BATCH):
        # Not worth parsing: two bytes on the wire are an object here.
        raise _too_many(pb.EvaluateBatchRequest, data, _wrong_count(f"more than {MAX_BATCH}"))
    batch = _parse(pb.EvaluateBatchRequest, data)
    if not batch.evaluations:
        raise _wrong_count("0")
    return [_request(message, f"evaluations[{index}].") for index, message in enumerate(batch.evaluations)]


def decode_list_runtimes(data: bytes) -> None:
    """Raises InvalidArgument for a request that is not empty."""
    if data:
        _parse(pb.ListRuntimesRequest, data)


def at_index(index: int, error: InvalidArgument) -> InvalidArgument:
    """The same error, of one evaluation of a batch."""
    return InvalidArgument(f"evaluations[{index}].{error.field}", error.description)


def _wrong_count(count: str) -> InvalidArgument:
    return InvalidArgument("evaluations", f"{count} in one batch; send between 1 and {MAX_BATCH}")


def _request(message: pb.EvaluateRequest, prefix: str) -> Request:
    limits = None
    if message.HasField("limits"):
        try:
            limits = _decode_limits(message.limits)
        except InvalidArgument as error:
            raise InvalidArgument(prefix + error.field, error.description) from None
    return Request(message.code, message.language, message.inputs, limits)


def _parse(kind: type[_M], data: bytes) -> _M:
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise _malformed(kind, data) from None
    # Unknown fields at any depth are part of the size. (As an UnknownFieldSet each of them would become an object.)
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise _unknown(kind, data)
    return message


def _too_many(kind: type[Message], data: bytes, error: InvalidArgument) -> InvalidArgument:
    return _unknown(kind, data) if _find(kind.DESCRIPTOR, data, _is_unknown) else error


def _unknown(kind: type[Message], data: bytes) -> InvalidArgument:
    path, name = _find(kind.DESCRIPTOR, data, _is_unknown) or ("request", kind.DESCRIPTOR.full_name)
    what = "such field" if path == "request" else f"field {path.rpartition('.')[2]} of this type"
    return InvalidArgument(path, f"{name} has no {what} in this version; leave it out or update the service")


def _malformed(kind: type[Message], data: bytes) -> InvalidArgument:
    found = _find(kind.DESCRIPTOR, data, _is_garbled)
    if found:
        return InvalidArgument(found[0], "not valid UTF-8; send text in UTF-8")
    return InvalidArgument("request", f"not a {kind.DESCRIPTOR.full_name} message")


# What is wrong in a message that was refused, found by hand: protobuf only says that something is.

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 10_000
"""Looked at for the path to what is wrong; a message with more before it gets a vaguer answer."""

# A field's wire type and content, and what its descriptor says, None when there is none of its number.
_Fault = Callable[[int, memoryview, Any], bool]


def _find(descriptor: Any, data: bytes, fault: _Fault) -> tuple[str, str] | None:
    """The path of the first field with `fault`, and the name of its message."""
    return _find_in(descriptor, memoryview(data), "", fault, iter(range(_MOST_FIELDS)))


def _find_in(
    descriptor: Any, data: memoryview, prefix: str, fault: _Fault, left: Iterator[int]
) -> tuple[str, str] | None:
    seen: dict[str, int] = {}
    for number, wire_type, content in _fields(data):
        if next(left, None) is None:
            return None
        field = descriptor.fields_by_number.get(number)
        if fault(wire_type, content, field):
            return f"{prefix}{field.name if field and fault is _is_garbled else number}", descriptor.full_name
        if field is None or field.type != FieldDescriptor.TYPE_MESSAGE or wire_type != _BYTES:
            continue
        path = f"{prefix}{field.name}"
        index = seen[path] = seen.get(path, -1) + 1
        is_map = field.message_type.GetOptions().map_entry
        if is_map and fault is _is_unknown:
            # Parsing drops them.
            continue
        inside = f"{path}[{index}]." if field.is_repeated else f"{path}."
        found = _find_in(field.message_type, content, inside, fault, left)
        if found:
            return (path, descriptor.full_name) if is_map else found
    return None


def _is_unknown(wire_type: int, _: memoryview, field: Any) -> bool:
    if field is None:
        return True
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE):
        return wire_type != _BYTES
    return wire_type != (_FIXED64 if field.type == FieldDescriptor.TYPE_DOUBLE else _VARINT)


def _is_garbled(wire_type: int, content: memoryview, field: Any) -> bool:
    is_text = field is not None and field.type == FieldDescriptor.TYPE_STRING
    return is_text and wire_type == _BYTES and not _is_unicode(bytes(content))


def _has_more_fields(data: bytes, most: int) -> bool:
    return next(islice(_fields(memoryview(data)), most, None), None) is not None


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and content of each field in turn, as far as they are well-formed.

    Source: protobuf.dev/programming-guides/encoding. Groups have no content here: what is in them follows.
    """
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        wire_type = tag & 7
        start = position
        if wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _BYTES:
            length, start = _varint(data, position)
            position = start + length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        if position > end:
            return
        yield tag >> 3, wire_type, data[start:position]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends; beyond the data when it does not end."""
    value = shift = 0
    for byte in data[position : position + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:
            return value, position
    return value, len(data) + 1


def _is_unicode(text: str | bytes) -> bool:
    try:
        text.encode() if isinstance(text, str) else text.decode()
    except UnicodeError:
        return False
    return True


def _decode_limits(message: pb.Limits) -> Limits:
    return Limits(
        message.fuel if message.HasField("fuel") else None,
        message.deadline_seconds if message.HasField("deadline_seconds") else None,
        message.memory_bytes if message.HasField("memory_bytes") else None,
        message.output_bytes if message.HasField("output_bytes") else None,
    )


# Replies.


def encode_reply(result: Result) -> bytes:
    """One whole EvaluateResponse."""
    reply = pb.EvaluateResponse()
    _write_result(reply.result, result)
    return reply.SerializeToString()


def decode_reply(data: bytes) -> Result:
    """Raises Internal for what is no such message."""
    return decode_result(_parse_reply(pb.EvaluateResponse, data).result)


def encode_batch_reply(results: Iterable[Result]) -> bytes:
    """One whole EvaluateBatchResponse."""
    reply = pb.EvaluateBatchResponse()
    for result in results:
        _write_result(reply.results.add(), result)
    return reply.SerializeToString()


def decode_batch_reply(data: bytes) -> list[Result]:
    """Raises Internal for what is no such message."""
    return [decode_result(message) for message in _parse_reply(pb.EvaluateBatchResponse, data).results]


def decode_result(message: pb.Result) -> Result:
    """Raises Internal for a status this version does not know."""
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
        usage=Usage(usage.fuel, usage.wall_seconds, usage.peak_memory_bytes),
        limits=_decode_limits(message.limits),
        tier=message.tier,
        runtime=message.runtime,
    )


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
        )
        for message in _parse_reply(pb.ListRuntimesResponse, data).runtimes
    )


def _parse_reply(kind: type[_M], data: bytes) -> _M:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Internal(f"the service sent what is no {kind.DESCRIPTOR.full_name}; is it wasmeval?") from None


# A message that is written in place costs a third of one built from parts, which are copied.


def _write_result(message: pb.Result, result: Result) -> None:
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
    _write_limits(message.limits, result.limits)


def _write_limits(message: pb.Limits, limits: Limits) -> None:
    if limits.fuel is not None:
        message.fuel = limits.fuel
    if limits.deadline_seconds is not None:
        message.deadline_seconds = limits.deadline_seconds
    if limits.memory_bytes is not None:
        message.memory_bytes = limits.memory_bytes
    if limits.output_bytes is not None:
        message.output_bytes = limits.output_bytes


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


# Errors.


def encode_error(error: WasmevalError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Status code, message and trailing metadata."""
    code = _CODES.get(type(error), grpc.StatusCode.INTERNAL)
    message = str(error)
    details: Message | None = None
    if isinstance(error, InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.description
        )
        details = error_details_pb2.BadRequest(field_violations=[violation])
    elif isinstance(error, ResourceExhausted):
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        details = error_details_pb2.RetryInfo(retry_delay=delay)
    if details is None:
        return code, message, ()
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(details)
    return code, message, ((_DETAILS_KEY, status.SerializeToString()),)


def decode_error(
    code: grpc.StatusCode, message: str, trailing: Iterable[tuple[str, str | bytes]]
) -> WasmevalError:
    """The exception that stands for a status; one this package does not send becomes Internal."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(next(value for key, value in trailing if key == _DETAILS_KEY))
    except (StopIteration, DecodeError, TypeError):
        status.Clear()
    kind = _ERROR_OF.get(code)
    if kind is InvalidArgument:
        bad = error_details_pb2.BadRequest()
        if _unpack(status, bad) and bad.field_violations:
            return InvalidArgument(bad.field_violations[0].field, bad.field_violations[0].description)
        return InvalidArgument("request", message)
    if kind is ResourceExhausted:
        if "larger than max" in message:
            # gRPC's own words for a message over the limit of either side: trying again cannot help.
            return InvalidArgument("request", f"{message}; send less in one call")
        retry = error_details_pb2.RetryInfo()
        if _unpack(status, retry):
            return ResourceExhausted(message, retry.retry_delay.ToNanoseconds() / 1e9)
        return ResourceExhausted(message)
    if kind is not None and issubclass(kind, ServiceError):
        return kind(message)
    return Internal(f"{code.name}: {message}")


def _unpack(status: status_pb2.Status, message: Message) -> bool:
    return any(detail.Unpack(message) for detail in status.details)
