"""`wasmeval serve` with three more calls that do nothing, the floor of any RPC: `/bench.Empty/Call`, bytes in and none
out, `/bench.Empty/Return`, whose message comes back, and `/bench.Empty/Echo`, a stream whose every message does.

    python -m bench.companions.serving WORKERS [HOST:PORT]

HOST:PORT is where guests may be allowed to send HTTP requests.

Ends when its standard input does, or by SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
from functools import partial
from typing import Any

import grpc

from wasmeval import server
from wasmeval.config import load
from wasmeval.heap import keep_freed_memory

EMPTY = "/bench.Empty/Call"
RETURN = "/bench.Empty/Return"
ECHO = "/bench.Empty/Echo"


class _Server(server.Server):
    """The server as it is, and the empty calls on the same listener, event loop and process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        handlers: dict[str, Any] = {
            EMPTY.split("/")[2]: grpc.unary_unary_rpc_method_handler(_empty),
            RETURN.split("/")[2]: grpc.unary_unary_rpc_method_handler(_return),
            ECHO.split("/")[2]: grpc.stream_stream_rpc_method_handler(_echo),
        }
        generic = grpc.method_handlers_generic_handler(EMPTY.split("/")[1], handlers)
        self._grpc.add_generic_rpc_handlers((generic,))


async def _empty(_data: bytes, _context: Any) -> bytes:
    return b""


async def _return(data: bytes, _context: Any) -> bytes:
    return data


async def _echo(_messages: object, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


def _end_with_input() -> None:
    # Not through sys.stdin, whose lock a thread must not hold when the interpreter ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # `serve` makes its Server by this name; there is no other way in, and none is wanted but here.
    server.Server = _Server  # type: ignore[misc]
    threading.Thread(target=_end_with_input, daemon=True).start()
    overrides: dict[str, Any] = {"listen": "127.0.0.1:0", "workers": sys.argv[1]}
    if sys.argv[2:]:
        overrides["http.rules"] = ({"host": sys.argv[2], "schemes": ("http",)},)
        overrides["http.private_networks"] = ("127.0.0.0/8",)
    with tempfile.TemporaryDirectory() as folder:
        # Sessions of a run end with it.
        os.environ["XDG_STATE_HOME"] = folder
        config = load(overrides=overrides)
        keep_freed_memory()
        asyncio.run(server.serve(config, announce=partial(print, flush=True)))
