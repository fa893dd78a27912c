"""Dialogue: the server's side of one Converse call: what the client says in order, what its guest says as it comes.

One task reads, one writes, one evaluates; all on the event loop. Between them stand the guest's `Link`, which is there
once the evaluation was accepted, and a queue of events that the limits on output and calls keep short.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from itertools import groupby

from wasmeval.attendant import GONE, Link
from wasmeval.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from wasmeval.events import Answer, Called, Cancel, Dropped, Input, Opening, Piece, Printed, Said, Wanted
from wasmeval.grants import Grants
from wasmeval.inputs import check_json
from wasmeval.model import Request, Result
from wasmeval.offer import NODE_BYTES
from wasmeval.paths import check_path
from wasmeval.service import Service
from wasmeval.tools import raised
from wasmeval.wasm.calls import Outcome
from wasmeval.wire.conversations import decode_said, encode_ending, encode_event

STALLED_SECONDS = 60.0
"""For so long a client may leave us waiting: for what it said that it would send, or for it to read."""

_VANISHING_SECONDS = 0.05
"""A client that is gone looks at first like one that has ended its side. Measured: the cancellation comes 0.3 ms later,
12 ms with another thread at full load."""

_MERGED_BYTES = 1 << 20
_MOST_EVENTS = 1024
"""With more to send, what is printed on each stream is put together."""

Read = Callable[[], Awaitable[bytes | None]]
"""The client's next message; None when it has ended its side."""
Write = Callable[[bytes], Awaitable[None]]
_Event = Printed | Called | Dropped | Wanted


class Dialogue:
    """One conversation, and its `Talk`; with `is_step` it is a session's next step. Call `run` once; cancelling it
    stops the guest."""

    def __init__(
        self,
        service: Service,
        read: Read,
        write: Write,
        carrier: Mapping[str, str] | None,
        *,
        is_step: bool = False,
    ) -> None:
        self._service = service
        self._is_step = is_step
        self._read = read
        self._write = write
        self._carrier = carrier
        self._events: deque[_Event] = deque()
        self._changed = asyncio.Event()
        self._link: Link | None = None
        self._early: list[Input | Cancel] = []
        """Said before the evaluation was accepted."""
        self._open: set[int] = set()
        self._most_answer_bytes = 0
        self._last_call = 0
        self._input_over = False
        self._client_over = False

    async def run(self) -> None:
        """Raises what the caller did wrong, and what the service cannot do."""
        opening = await self._receive_opening()
        request = opening.request
        evaluating = asyncio.ensure_future(self._evaluate(opening))
        listening = asyncio.ensure_future(self._listen(request))
        for task in (evaluating, listening):
            task.add_done_callback(lambda _: self._changed.set())
        try:
            while not evaluating.done() or self._events:
                await self._send_events()
                if listening.done() and listening.exception():
                    await listening
                if not evaluating.done():
                    await self._changed.wait()
                    self._changed.clear()
            for message in encode_ending(await evaluating):
                await self._send(message)
        finally:
            for task in (evaluating, listening):
                task.cancel()
            # Whatever becomes of this: it may be cancelled a second time while it waits here.
            evaluating.add_done_callback(self._release)
            await asyncio.gather(evaluating, listening, return_exceptions=True)

    async def _evaluate(self, opening: Opening) -> Result:
        if not self._is_step:
            return await self._service.converse(opening.request, self, self._carrier)
        return await self._service.step_converse(
            opening.session_id, opening.request, self, self._carrier, waits=opening.waits
        )

    def _release(self, evaluating: asyncio.Task[Result]) -> None:
        if not evaluating.cancelled() and evaluating.exception() is None:
            self._service.release(evaluating.result())

    # --- Talk ----------------------------------------------------------------------------------------------------

    def begins(self, link: Link) -> None:
        """See attendant.Talk."""
        self._link = link
        for said in self._early:
            self._pass_on(said)
        self._early.clear()

    def called(self, call: int, name: str, arguments: bytes) -> None:
        """See attendant.Talk."""
        self._last_call = max(call, self._last_call)
        if self._client_over:
            self._answer(call, Outcome.FAILED, GONE)
            return
        self._open.add(call)
        self._put(Called(call, name, arguments))

    def dropped(self, call: int) -> None:
        """See attendant.Talk."""
        if call in self._open:
            self._open.discard(call)
            self._put(Dropped(call))

    def printed(self, stream: int, data: bytes) -> None:
        """See attendant.Talk."""
        self._put(Printed(stream, data))

    def wants_input(self) -> None:
        """See attendant.Talk."""
        self._put(Wanted())

    # --- what the client says ------------------------------------------------------------------------------------

    async def _receive_opening(self) -> Opening:
        opening = await self._next_in_time()
        if not isinstance(opening, Opening):
            what = "ended its side" if opening is None else f"sent {_name(opening)}"
            raise FailedPrecondition(f"the client {what}; the first message must be start")
        if bool(opening.session_id) is not self._is_step:
            what = (
                "not set; say of which session this is a step"
                if self._is_step
                else "is for Sessions.Converse"
            )
            raise InvalidArgument("start.session_id", what)
        if self._is_step:
            opening = opening._replace(request=self._service.in_tier(opening.session_id, opening.request))
        request, files = opening.request, opening.files
        grants = request.grants or Grants()
        if files == 0:
            return opening
        if not self._is_step:
            # What is wrong anyway is said before its files are sent.
            self._service.check(request)
        whole = await self._receive_files(request, files)
        grants = replace(grants, files={**grants.files, **whole})
        return opening._replace(request=request._replace(grants=grants))

    async def _receive_files(self, request: Request, count: int) -> dict[str, bytes]:
        given = request.grants.files if request.grants else {}
        coming: dict[str, bytearray] = {}
        whole: dict[str, bytes] = {}
        with self._service.hold() as hold:
            while len(whole) < count:
                piece = await self._next_in_time()
                if not isinstance(piece, Piece):
                    what = "ended its side" if piece is None else f"sent {_name(piece)}"
                    raise FailedPrecondition(
                        f"the client {what}; {count - len(whole)} of the files it announced are to come first"
                    )
                if piece.path not in coming:
                    check_path("file.path", piece.path)
                    if piece.path in given or piece.path in whole:
                        raise FailedPrecondition("a piece of a file came that was whole already")
                    if len(coming) + len(whole) == count:
                        raise FailedPrecondition(
                            f"a piece of a file came that is none of the {count} announced"
                        )
                    hold(request, NODE_BYTES)
                    coming[piece.path] = bytearray()
                hold(request, len(piece.data))
                coming[piece.path] += piece.data
                if piece.is_last:
                    whole[piece.path] = bytes(coming.pop(piece.path))
        return whole

    async def _listen(self, request: Request) -> None:
        self._most_answer_bytes = self._service.limits(request).tool_call_bytes or 0
        self._input_over = not (request.grants and request.grants.stdin)
        with self._service.hold() as hold:
            while (said := await self._next()) is not None:
                match said:
                    case Answer():
                        self._take_answer(said)
                    case Input():
                        self._check_input()
                        hold(request, len(said.data))
                        self._input_over = said.is_last
                        self._pass_on(said)
                    case Cancel():
                        self._pass_on(said)
                    case Opening():
                        raise FailedPrecondition(
                            "start came a second time; a conversation has one evaluation"
                        )
                    case Piece():
                        raise FailedPrecondition(
                            "a piece of a file came, and all that start announced are here"
                        )
            if self._is_step:
                # Until it is known which: a step that nobody waits for has not been, and must not end well because its
                # calls fail. In two parts, for the cancellation may be waiting where this wakes.
                for _ in range(2):
                    await asyncio.sleep(_VANISHING_SECONDS / 2)
            self._end_of_client()

    async def _next(self) -> Said | None:
        data = await self._read()
        return None if data is None else decode_said(data)

    async def _next_in_time(self) -> Said | None:
        """The next message, while nothing runs yet that has a deadline."""
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                return await self._next()
        except TimeoutError:
            raise DeadlineExceeded(f"the client has sent nothing for {STALLED_SECONDS:g} s") from None

    def _take_answer(self, answer: Answer) -> None:
        if answer.call not in self._open:
            if not 0 < answer.call <= self._last_call:
                raise InvalidArgument("tool_result.call_id", f"no call has the number {answer.call}")
            return  # It came too late, or a second time.
        if answer.error is None:
            # A longer one is not looked at, here or there: it ends as the limit that it is.
            if len(answer.value) <= self._most_answer_bytes:
                check_json("tool_result.value", answer.value)
            self._answer(answer.call, Outcome.DONE, answer.value)
        else:
            kind, text = answer.error
            self._answer(answer.call, Outcome.RAISED, raised(kind, text))
        self._open.discard(answer.call)

    def _check_input(self) -> None:
        if self._input_over:
            raise FailedPrecondition("input came after its end; start.input says whether there is any")

    def _end_of_client(self) -> None:
        self._client_over = True
        if not self._input_over:
            self._pass_on(Input(b"", True))
        for call in self._open:
            self._answer(call, Outcome.FAILED, GONE)
        self._open.clear()

    def _pass_on(self, said: Input | Cancel) -> None:
        if self._link is None:
            self._early.append(said)
        elif isinstance(said, Input):
            self._link.feed(said.data, said.is_last)
        else:
            self._link.stop()

    # --- what the guest says -------------------------------------------------------------------------------------

    def _answer(self, call: int, outcome: Outcome, payload: bytes) -> None:
        if self._link is not None:
            self._link.answer(call, outcome, payload)

    def _put(self, event: _Event) -> None:
        last = self._events[-1] if self._events else None
        if (
            isinstance(event, Printed)
            and isinstance(last, Printed)
            and last.stream == event.stream
            and len(last.data) + len(event.data) <= _MERGED_BYTES
        ):
            # The client is slower than its guest: fewer, larger pieces.
            self._events[-1] = Printed(last.stream, last.data + event.data)
        else:
            self._events.append(event)
            if len(self._events) > _MOST_EVENTS:
                self._events = _fewer(self._events)
        self._changed.set()

    async def _send_events(self) -> None:
        while self._events:
            await self._send(encode_event(self._events.popleft()))

    async def _send(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await self._write(message)
        except TimeoutError:
            raise DeadlineExceeded(f"the client has read nothing for {STALLED_SECONDS:g} s") from None


def _fewer(events: Iterable[_Event]) -> deque[_Event]:
    """The same events; of those printed in a row there is one for each stream."""
    fewer: deque[_Event] = deque()
    for is_printed, run in groupby(events, lambda event: isinstance(event, Printed)):
        if not is_printed:
            fewer.extend(run)
            continue
        printed: dict[int, bytearray] = {}
        for event in run:
            assert isinstance(event, Printed)
            printed.setdefault(event.stream, bytearray()).extend(event.data)
        fewer.extend(Printed(stream, bytes(data)) for stream, data in printed.items())
    return fewer


def _name(said: object) -> str:
    return {Piece: "file", Answer: "tool_result", Input: "input", Cancel: "cancel", Opening: "start"}[
        type(said)
    ]
