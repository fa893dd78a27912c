"""Statuses: the service's own failures, between gRPC's status codes and our exceptions. `_CODES` is read both ways."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from wasmeval.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SessionLost,
    SnapshotRefused,
    StoreDamaged,
    StoreUnavailable,
    Unavailable,
    WasmevalError,
)
from wasmeval.wire.names import NOTHING_RAN, REFUSED_KEY

_CODES: dict[type[WasmevalError], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ABORTED,
    SessionLost: grpc.StatusCode.DATA_LOSS,
    Internal: grpc.StatusCode.INTERNAL,
}
_SENT_AS = {SnapshotRefused: SessionLost, StoreUnavailable: Unavailable, StoreDamaged: SessionLost}
"""What a client need not tell apart from something else."""
_ERROR_OF = {code: error for error, code in _CODES.items()}
_DETAILS_KEY = "grpc-status-details-bin"


def encode_error(error: WasmevalError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """Status code, message and trailing metadata."""
    kind = type(error)
    code = _CODES.get(_SENT_AS.get(kind, kind), grpc.StatusCode.INTERNAL)
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
        # For proxies, which do not read messages: the others that are UNAVAILABLE may have run.
        refused = isinstance(error, Unavailable) and NOTHING_RAN in message
        return code, message, ((REFUSED_KEY, "1"),) if refused else ()
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
    if kind is Internal and "RST_STREAM" in message:
        # gRPC's own words when a proxy in between lost the service in the middle of a call.
        return Unavailable(f"the service was lost in the middle of the call: {message}")
    if kind is not None:
        return kind(message)
    return Internal(f"{code.name}: {message}")


def _unpack(status: status_pb2.Status, message: Message) -> bool:
    return any(detail.Unpack(message) for detail in status.details)
