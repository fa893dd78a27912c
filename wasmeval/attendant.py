"""Attendant: answers what one guest asks its host for, on an event loop of the trusted process.

HTTP and mounted folders are served here; calls of tools go to the evaluation's `Talk`, the conversation with whoever
started it. Everything that comes from a guest is passed on as the untrusted bytes it is.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Protocol

from wasmeval.egress import Exchange, HttpFailure
from wasmeval.errors import Internal, SetupError
from wasmeval.grants import Grants, HttpUse
from wasmeval.offer import Offer
from wasmeval.tools import NO_SUCH_TOOL, raised, tool_name
from wasmeval.wasm import errno
from wasmeval.wasm.calls import Operation, Outcome

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from wasmeval.preopens import OpenFolders

_READ = struct.Struct("<II")
GONE = raised("gone", "nobody answers calls of tools any more")
_BROKEN = raised("gone", "the service could not answer; its log says why")
_BROKEN_FILES = bytes((errno.IO,))
"""An answer about files begins with a WASI errno; see wasm/mounts.py."""


class Link(Protocol):
    """The way back into an evaluation; see pool.Pool."""

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None:
        """How a call of the guest ended."""

    def feed(self, data: bytes, ended: bool) -> None:
        """Standard input for the guest."""

    def stop(self) -> None:
        """End the guest; its Result, with the status `cancelled`, still comes."""


class Talk(Protocol):
    """Whoever started an evaluation and converses with it. Neither blocks nor raises."""

    def begins(self, link: Link) -> None:
        """The evaluation was accepted; `link` is the way into it."""

    def called(self, call: int, name: str, arguments: bytes) -> None:
        """The snippet calls a tool. `arguments` are JSON, unchecked: `{"args": [...], "kwargs": {...}}`."""

    def dropped(self, call: int) -> None:
        """The answer to that call is not needed any more."""

    def printed(self, stream: int, data: bytes) -> None:
        """The snippet wrote to stdout (1) or stderr (2)."""

    def wants_input(self) -> None:
        """The snippet waits for standard input."""


_FOLDER_THREADS = 4
"""Disks that stall hold up evaluations that mount folders, and nothing else of this process."""


@cache
def _folder_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_FOLDER_THREADS, thread_name_prefix="wasmeval-folders")


class Attendant:
    """One evaluation's; a `pool.Partner` on the loop it was made in. Close it when the evaluation is over."""

    def __init__(self, grants: Grants, offer: Offer, link: Link, talk: Talk | None) -> None:
        self._names = frozenset(tool.name for tool in grants.tools)
        self._link = link
        self._talk = talk
        self._folders: OpenFolders | None = None
        if grants.mounts:
            # Few evaluations mount folders; for the others this is not loaded.
            from wasmeval.preopens import OpenFolders

            try:
                self._folders = OpenFolders(offer.folders_for(grants))
            except SetupError as error:
                # Where the folder is, is the operator's business.
                logger.error("a folder cannot be mounted: %s", error)
                raise Internal(
                    "a folder that this evaluation mounts cannot be opened; tell its operator"
                ) from None
        # Last: nothing after it fails, so it is closed with this.
        self._exchange: Exchange | None = None
        if grants.http is not None and offer.egress is not None:
            self._exchange = offer.egress.open(grants.http)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def uses(self) -> tuple[HttpUse, ...]:
        """The HTTP requests so far."""
        return tuple(self._exchange.uses) if self._exchange else ()

    @property
    def gateway(self) -> Exchange | None:
        """What answers the connections of a guest that has a network of its own; on this attendant's loop. None when
        the evaluation may send no HTTP requests."""
        return self._exchange

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """See pool.Partner."""
        if operation is Operation.CALL:
            self._call_tool(call, body)
        elif operation is Operation.DROP:
            self._drop(call)
        elif operation is Operation.INPUT:
            if self._talk:
                self._talk.wants_input()
        else:
            task = asyncio.get_running_loop().create_task(self._serve(call, operation, body))
            self._tasks[call] = task
            task.add_done_callback(lambda _: self._tasks.pop(call, None))

    def printed(self, stream: int, data: bytes) -> None:
        """See pool.Partner."""
        if self._talk:
            self._talk.printed(stream, data)

    async def aclose(self) -> None:
        """Ends what is under way and closes what is open."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        # Cancelled at any of these, it still goes through them all.
        try:
            if tasks:
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            try:
                if self._exchange:
                    await self._exchange.aclose()
            finally:
                if self._folders:
                    self._folders.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _call_tool(self, call: int, body: bytes) -> None:
        name = tool_name(body)
        if name not in self._names:
            self._link.answer(call, Outcome.RAISED, raised(*NO_SUCH_TOOL))
        elif self._talk is None:
            self._link.answer(call, Outcome.FAILED, GONE)
        else:
            self._talk.called(call, name, body)

    def _drop(self, number: int) -> None:
        task = self._tasks.get(number)
        if task:
            task.cancel()
        elif self._exchange:
            self._exchange.drop(number)
        if self._talk:
            self._talk.dropped(number)

    async def _serve(self, call: int, operation: Operation, body: bytes) -> None:
        outcome, payload = Outcome.FAILED, _BROKEN_FILES if operation is Operation.FILES else _BROKEN
        try:
            payload = await self._handle(operation, body)
            outcome = Outcome.DONE
        except HttpFailure as failure:
            outcome, payload = Outcome(failure.kind), failure.payload
        except Exception as error:
            # A bug of ours must not leave the guest waiting. Its message may quote the guest; its class does not.
            logger.error("internal error while answering %s: %s", operation.name, type(error).__name__)
        finally:
            self._link.answer(call, outcome, payload)

    async def _handle(self, operation: Operation, body: bytes) -> bytes:
        if operation is Operation.FILES:
            assert self._folders is not None
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_folder_threads(), self._folders.handle, body)
        assert self._exchange is not None
        if operation is Operation.HTTP:
            return await self._exchange.request(body)
        return await self._exchange.read(*_READ.unpack(body))
