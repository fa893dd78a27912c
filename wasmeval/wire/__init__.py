"""Wire: what passes between client and server, between the protobuf messages and the model's values."""

from wasmeval.wire.names import (
    CONVERSE,
    EVALUATE,
    EVALUATE_BATCH,
    FILE_PIECE_BYTES,
    LIST_RUNTIMES,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    MAX_UNARY_FILES_BYTES,
    SERVICE,
)
from wasmeval.wire.replies import (
    decode_batch_reply,
    decode_reply,
    decode_result,
    decode_runtimes,
    encode_batch_reply,
    encode_reply,
    encode_runtimes,
)
from wasmeval.wire.requests import (
    decode_batch,
    decode_list_runtimes,
    decode_request,
    encode_batch,
    encode_request,
)
from wasmeval.wire.statuses import decode_error, encode_error

__all__ = [
    "CONVERSE",
    "EVALUATE",
    "EVALUATE_BATCH",
    "FILE_PIECE_BYTES",
    "LIST_RUNTIMES",
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "MAX_UNARY_FILES_BYTES",
    "SERVICE",
    "decode_batch",
    "decode_batch_reply",
    "decode_error",
    "decode_list_runtimes",
    "decode_reply",
    "decode_request",
    "decode_result",
    "decode_runtimes",
    "encode_batch",
    "encode_batch_reply",
    "encode_error",
    "encode_reply",
    "encode_request",
    "encode_runtimes",
]
