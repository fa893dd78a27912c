"""Conversations: the messages of Converse, between protobuf and plain values; the same for client and server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from wasmeval.errors import InvalidArgument
from wasmeval.events import (
    Answer,
    Called,
    Cancel,
    Dropped,
    Event,
    Input,
    Opening,
    Piece,
    Printed,
    Said,
    Wanted,
)
from wasmeval.grants import Grants, Tool
from wasmeval.model import Request, Result
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wire.bounds import check_bounds
from wasmeval.wire.faults import parse
from wasmeval.wire.names import FILE_PIECE_BYTES
from wasmeval.wire.replies import decode_result, parse_reply, write_result
from wasmeval.wire.requests import encode_request, request_of

# From client to server.


def encode_start(request: Request, files: int, session_id: str = "", waits: bool = True) -> bytes:
    """Raises InvalidArgument for what no message can carry. `files` follow in pieces. With `session_id`: see
    Opening."""
    grants = request.grants or Grants()
    start = pb.Start(
        evaluation=encode_request(request),
        live_output=grants.live,
        input=grants.stdin,
        files=files,
        tool_time_counts=grants.tool_time_counts,
        session_id=session_id,
        refuse_to_wait=not waits,
    )
    for index, tool in enumerate(grants.tools):
        try:
            start.tools.add(
                name=tool.name, signature=tool.signature, parameters=tool.parameters, doc=tool.doc
            )
        except (UnicodeError, ValueError):
            raise InvalidArgument(
                f"tools[{index}]", "not valid Unicode: it cannot be written as UTF-8"
            ) from None
    return pb.ConverseRequest(start=start).SerializeToString()


def encode_pieces(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """The messages that carry `files` to the server."""
    for path, content in files.items():
        for data, is_last in pieces(content):
            piece = pb.FilePiece(path=path, data=data, last=is_last)
            yield pb.ConverseRequest(file=piece).SerializeToString()


def encode_answer(answer: Answer) -> bytes:
    """One whole ConverseRequest with a ToolResult."""
    result = pb.ToolResult(call_id=answer.call)
    if answer.error is None:
        result.value = answer.value
    else:
        kind, text = answer.error
        # A message of the caller's own exception may hold lone surrogates.
        result.error.type, result.error.message = kind, text.encode("utf-8", "replace").decode()
    return pb.ConverseRequest(tool_result=result).SerializeToString()


def encode_input(data: bytes, *, is_last: bool) -> bytes:
    """One whole ConverseRequest with standard input."""
    return pb.ConverseRequest(input=pb.Input(data=data, last=is_last)).SerializeToString()


CANCEL = pb.ConverseRequest(cancel=pb.Cancel()).SerializeToString()


def decode_said(data: bytes) -> Said:
    """Raises InvalidArgument for what is no such message, and for an empty one."""
    check_bounds(pb.ConverseRequest, data)
    message = parse(pb.ConverseRequest, data)
    match message.WhichOneof("message"):
        case "start":
            return _opening(message.start)
        case "file":
            return Piece(message.file.path, message.file.data, message.file.last)
        case "tool_result":
            return _answer(message.tool_result)
        case "input":
            return Input(message.input.data, message.input.last)
        case "cancel":
            return Cancel()
    raise InvalidArgument("message", "not set; send start, file, tool_result, input or cancel")


def _opening(start: pb.Start) -> Opening:
    if not start.HasField("evaluation"):
        raise InvalidArgument("start.evaluation", "not set; say what to run")
    request = request_of(start.evaluation, "start.evaluation.")
    tools = tuple(Tool(tool.name, tool.signature, tuple(tool.parameters), tool.doc) for tool in start.tools)
    grants = replace(
        request.grants or Grants(),
        tools=tools,
        live=start.live_output,
        stdin=start.input,
        tool_time_counts=start.tool_time_counts if start.HasField("tool_time_counts") else True,
    )
    return Opening(request._replace(grants=grants), start.files, start.session_id, not start.refuse_to_wait)


def _answer(result: pb.ToolResult) -> Answer:
    match result.WhichOneof("outcome"):
        case "value":
            return Answer(result.call_id, result.value, None)
        case "error":
            return Answer(result.call_id, b"", (result.error.type, result.error.message))
    raise InvalidArgument("tool_result.outcome", "not set; send value or error")


# From server to client.


def encode_event(event: Printed | Called | Dropped | Wanted) -> bytes:
    """One whole ConverseResponse."""
    if isinstance(event, Wanted):
        return _INPUT_WANTED
    if isinstance(event, Called):
        call = pb.ToolCall(call_id=event.call, name=event.name, arguments=event.arguments)
        return pb.ConverseResponse(tool_call=call).SerializeToString()
    if isinstance(event, Printed):
        output = pb.Output(stream=event.stream, data=event.data)
        return pb.ConverseResponse(output=output).SerializeToString()
    cancelled = pb.ToolCallCancelled(call_id=event.call)
    return pb.ConverseResponse(tool_call_cancelled=cancelled).SerializeToString()


_INPUT_WANTED = pb.ConverseResponse(input_wanted=pb.InputWanted()).SerializeToString()


def encode_ending(result: Result) -> Iterator[bytes]:
    """The messages that end a conversation: the files in pieces, then the result."""
    for path, file in result.files.items():
        for data, is_last in pieces(file.data):
            piece = pb.FilePiece(path=path, data=data, last=is_last)
            yield pb.ConverseResponse(file=piece).SerializeToString()
    reply = pb.ConverseResponse()
    write_result(reply.result, result, with_files=False)
    yield reply.SerializeToString()


def decode_event(data: bytes) -> Event | None:
    """None for an event that this version does not know. Raises Internal for what is no such message."""
    message = parse_reply(pb.ConverseResponse, data)
    match message.WhichOneof("event"):
        case "output":
            return Printed(message.output.stream, message.output.data)
        case "tool_call":
            call = message.tool_call
            return Called(call.call_id, call.name, call.arguments)
        case "tool_call_cancelled":
            return Dropped(message.tool_call_cancelled.call_id)
        case "file":
            return Piece(message.file.path, message.file.data, message.file.last)
        case "input_wanted":
            return Wanted()
        case "result":
            return decode_result(message.result)
    return None


def pieces(content: bytes) -> Iterator[tuple[bytes, bool]]:
    """`content` in pieces of at most FILE_PIECE_BYTES, each with whether it is the last; at least one."""
    view = memoryview(content)
    for start in range(0, max(len(view), 1), FILE_PIECE_BYTES):
        end = start + FILE_PIECE_BYTES
        yield bytes(view[start:end]), end >= len(view)
