"""`wasmeval serve` with one more call, `/bench.Empty/Call`: bytes in, no bytes out, nothing done. The RPC's own floor.

    python -m bench.companions.serving WORKERS

Ends when its standard input does, or by SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from functools import partial
from typing import Any

import grpc

from wasmeval import server
from wasmeval.config import load

EMPTY = "/bench.Empty/Call"


class _Server(server.Server):
    """The server as it is, and the empty call on the same listener, event loop and process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        handler: Any = grpc.unary_unary_rpc_method_handler(_empty)
        generic = grpc.method_handlers_generic_handler(EMPTY.split("/")[1], {EMPTY.split("/")[2]: handler})
        self._grpc.add_generic_rpc_handlers((generic,))


async def _empty(_data: bytes, _context: Any) -> bytes:
    return b""


def _end_with_input() -> None:
    # Not through sys.stdin, whose lock a thread must not hold when the interpreter ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # `serve` makes its Server by this name; there is no other way in, and none is wanted but here.
    server.Server = _Server  # type: ignore[misc]
    threading.Thread(target=_end_with_input, daemon=True).start()
    config = load(overrides={"listen": "127.0.0.1:0", "workers": sys.argv[1]})
    asyncio.run(server.serve(config, announce=partial(print, flush=True)))
