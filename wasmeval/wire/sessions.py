"""Sessions: the messages about them, between protobuf and the model's values; the same for client and server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from wasmeval.errors import Internal, InvalidArgument
from wasmeval.model import Request
from wasmeval.session import Checkpoint, Durability, SessionInfo, SessionOptions
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wire.bounds import check_bounds
from wasmeval.wire.faults import parse
from wasmeval.wire.replies import parse_reply
from wasmeval.wire.requests import (
    decode_deterministic,
    decode_limits,
    decode_tier,
    encode_request,
    encode_tier,
    request_of,
    write_deterministic,
    write_limits,
)

_DURABILITIES = {Durability.NONE: pb.DURABILITY_NONE, Durability.STEP: pb.DURABILITY_STEP}
_DURABILITY_OF = {number: durability for durability, number in _DURABILITIES.items()} | {
    pb.DURABILITY_UNSPECIFIED: Durability.NONE
}
_OPTIONS = ("total_fuel", "idle_seconds", "life_seconds")


class Step(NamedTuple):
    """A StepRequest: the next step of which session, and whether it waits for its turn."""

    session_id: str
    request: Request
    waits: bool


# From client to server.


def encode_create(language: str, options: SessionOptions) -> bytes:
    """One whole CreateSessionRequest."""
    return _options_message(language, options).SerializeToString()


def decode_create(data: bytes) -> tuple[str, SessionOptions]:
    """(language, options). Raises InvalidArgument for what is no such message."""
    check_bounds(pb.CreateSessionRequest, data)
    return _options_of(parse(pb.CreateSessionRequest, data))


def encode_session_request(session_id: str) -> bytes:
    """One whole SessionRequest."""
    return pb.SessionRequest(session_id=session_id).SerializeToString()


def decode_session_request(data: bytes) -> str:
    """The session's id. Raises InvalidArgument for what is no such message."""
    check_bounds(pb.SessionRequest, data)
    return parse(pb.SessionRequest, data).session_id


def encode_step(session_id: str, request: Request, *, waits: bool) -> bytes:
    """One whole StepRequest. Raises InvalidArgument for what no message can carry."""
    return pb.StepRequest(
        session_id=session_id, evaluation=encode_request(request), refuse_to_wait=not waits
    ).SerializeToString()


def decode_step(data: bytes) -> Step:
    """Raises InvalidArgument for what is no such message, and for a step that says what only its session does."""
    check_bounds(pb.StepRequest, data)
    message = parse(pb.StepRequest, data)
    if not message.HasField("evaluation"):
        raise InvalidArgument("evaluation", "not set; say what to run")
    return Step(message.session_id, request_of(message.evaluation, "evaluation."), not message.refuse_to_wait)


def encode_restore(session_id: str, checkpoint_id: str) -> bytes:
    """One whole RestoreRequest."""
    return pb.RestoreRequest(session_id=session_id, checkpoint_id=checkpoint_id).SerializeToString()


def decode_restore(data: bytes) -> tuple[str, str]:
    """(session's id, checkpoint's id). Raises InvalidArgument for what is no such message."""
    check_bounds(pb.RestoreRequest, data)
    message = parse(pb.RestoreRequest, data)
    return message.session_id, message.checkpoint_id


def encode_list(page_token: str) -> bytes:
    """One whole ListSessionsRequest."""
    return pb.ListSessionsRequest(page_token=page_token).SerializeToString()


def decode_list(data: bytes) -> tuple[int, str]:
    """(size of a page or 0, token). Raises InvalidArgument for what is no such message."""
    check_bounds(pb.ListSessionsRequest, data)
    message = parse(pb.ListSessionsRequest, data)
    return message.page_size, message.page_token


# From server to client.


def encode_session(info: SessionInfo) -> bytes:
    """One whole Session."""
    return _session_message(info).SerializeToString()


def decode_session(data: bytes) -> SessionInfo:
    """Raises Internal for what is no such message."""
    return _info_of(parse_reply(pb.Session, data))


def encode_sessions(infos: Iterable[SessionInfo], next_page_token: str) -> bytes:
    """One whole ListSessionsResponse."""
    return pb.ListSessionsResponse(
        sessions=map(_session_message, infos), next_page_token=next_page_token
    ).SerializeToString()


def decode_sessions(data: bytes) -> tuple[list[SessionInfo], str]:
    """(sessions, token of the next page). Raises Internal for what is no such message."""
    message = parse_reply(pb.ListSessionsResponse, data)
    return list(map(_info_of, message.sessions)), message.next_page_token


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """One whole Checkpoint."""
    return _checkpoint_message(checkpoint).SerializeToString()


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Raises Internal for what is no such message."""
    return _checkpoint_of(parse_reply(pb.Checkpoint, data))


def encode_checkpoints(checkpoints: Iterable[Checkpoint]) -> bytes:
    """One whole ListCheckpointsResponse."""
    return pb.ListCheckpointsResponse(checkpoints=map(_checkpoint_message, checkpoints)).SerializeToString()


def decode_checkpoints(data: bytes) -> tuple[Checkpoint, ...]:
    """Raises Internal for what is no such message."""
    return tuple(map(_checkpoint_of, parse_reply(pb.ListCheckpointsResponse, data).checkpoints))


# Parts.


def _options_message(language: str, options: SessionOptions) -> pb.CreateSessionRequest:
    message = pb.CreateSessionRequest(language=language, durability=_DURABILITIES[options.durability])
    message.limits.SetInParent()
    write_limits(message.limits, options.limits)
    for name in _OPTIONS:
        if (value := getattr(options, name)) is not None:
            setattr(message, name, value)
    message.tier = encode_tier(options.tier)
    if options.deterministic is not None:
        message.deterministic.SetInParent()
        write_deterministic(message.deterministic, options.deterministic)
    return message


def _options_of(message: pb.CreateSessionRequest) -> tuple[str, SessionOptions]:
    durability = _DURABILITY_OF.get(message.durability)
    if durability is None:
        raise InvalidArgument("durability", f"{message.durability} is none; send NONE or STEP")
    given: dict[str, Any] = {name: getattr(message, name) for name in _OPTIONS if message.HasField(name)}
    if message.HasField("deterministic"):
        given["deterministic"] = decode_deterministic(message.deterministic)
    return message.language, SessionOptions(
        limits=decode_limits(message.limits), durability=durability, tier=decode_tier(message.tier), **given
    )


def _session_message(info: SessionInfo) -> pb.Session:
    return pb.Session(
        id=info.id,
        language=info.language,
        runtime=info.runtime,
        live=info.is_live,
        steps=info.steps,
        fuel=info.fuel,
        created=info.created,
        used=info.used,
        expires=info.expires,
        options=_options_message(info.language, info.options),
    )


def _info_of(message: pb.Session) -> SessionInfo:
    try:
        _, options = _options_of(message.options)
    except InvalidArgument as error:
        raise Internal(f"the service sent a session that cannot be: {error}") from None
    return SessionInfo(
        message.id, message.language, message.runtime, message.live, message.steps, message.fuel, message.created,
        message.used, message.expires, options,
    )  # fmt: skip


def _checkpoint_message(checkpoint: Checkpoint) -> pb.Checkpoint:
    return pb.Checkpoint(
        id=checkpoint.id,
        session_id=checkpoint.session_id,
        step=checkpoint.step,
        created=checkpoint.created,
        digest=checkpoint.digest,
    )


def _checkpoint_of(message: pb.Checkpoint) -> Checkpoint:
    return Checkpoint(message.id, message.session_id, message.step, message.created, message.digest)
