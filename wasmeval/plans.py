"""Plans: what a client sends for a call, how long it waits, and when it tries again.

A plan is a generator without any effect of its own: `Client` and `AsyncClient` take its steps.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from wasmeval import wire
from wasmeval.conversation import OnOutput, Stdin
from wasmeval.errors import InvalidArgument, ResourceExhausted, Unavailable, WasmevalError, at_index
from wasmeval.limits import MAX_BATCH, call_timeout
from wasmeval.model import Evaluation, Request, Result, RuntimeInfo
from wasmeval.recording import recorded
from wasmeval.requests import called_back, converses, request_of
from wasmeval.session import SessionInfo, SessionOptions
from wasmeval.tools import Function, Toolbox
from wasmeval.wire import sessions as messages

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""For how long a call without a time-out of its own is retried."""

_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 2.0
_SHORTEST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Send:
    """A step of a plan: send `data` and come back with the reply or the error. `session_id`: of the session that it is
    about, for whoever stands between and has to choose a replica."""

    method: str
    data: bytes
    timeout: float | None
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """A step of a plan: hold the conversation and come back with its Result or the error. With `session_id` it is the
    next step of that session, which `waits` for its turn or is refused."""

    request: Request
    toolbox: Toolbox
    on_output: OnOutput | None
    stdin: Stdin | None
    timeout: float | None
    session_id: str = ""
    waits: bool = True
    language: str = ""
    """The session's, for its recording."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A conversation that failed, and whether the service had said anything by then."""

    error: WasmevalError
    heard: bool


# A plan yields what to do next: a message to send, a conversation to hold, or the seconds to sleep.
Step = Send | Hold | float
Outcome = bytes | Result | WasmevalError | Failed | None
Plan = Generator[Step, Outcome, T]


def evaluate(
    evaluation: Evaluation,
    tools: Mapping[str, Function] | None,
    on_output: OnOutput | None,
    stdin: Stdin | None,
    tool_time_counts: bool,
    timeout: float | None,
) -> Plan[Result]:
    """One evaluation: in one message when it has nothing to say meanwhile, else in a conversation."""
    toolbox = Toolbox(tools or {})
    request = called_back(evaluation, toolbox, on_output, stdin, tool_time_counts)
    if converses(request):
        return _converse(request, toolbox, on_output, stdin, timeout)
    plan = _evaluate(request, timeout)
    return plan if request.deterministic is None else _with_recording(request, plan)


def _evaluate(request: Request, timeout: float | None) -> Plan[Result]:
    data = wire.serialize_request(request)
    return call(wire.EVALUATE, data, wire.decode_reply, timeout, has_effects=_has_effects(request))


def _with_recording(request: Request, plan: Plan[Result], language: str = "") -> Plan[Result]:
    return recorded((yield from plan), request, language)


def step(
    session_id: str,
    evaluation: Evaluation,
    tools: Mapping[str, Function] | None,
    on_output: OnOutput | None,
    stdin: Stdin | None,
    tool_time_counts: bool,
    waits: bool,
    timeout: float | None,
    language: str,
) -> Plan[Result]:
    """A session's next step, in its `language`. It changes the session, so it is sent again only if surely nothing
    ran."""
    toolbox = Toolbox(tools or {})
    request = called_back(evaluation, toolbox, on_output, stdin, tool_time_counts)
    if converses(request):
        return _converse(request, toolbox, on_output, stdin, timeout, session_id, waits, language)
    return _with_recording(request, _step(session_id, request, waits, timeout), language)


def _step(session_id: str, request: Request, waits: bool, timeout: float | None) -> Plan[Result]:
    data = messages.encode_step(session_id, request, waits=waits)
    return call(
        wire.STEP, data, wire.decode_reply, timeout, session_id=session_id, has_effects=True, waits=waits
    )


def repeat(request: Request, timeout: float | None, session_id: str = "") -> Plan[Result]:
    """An evaluation from its recording; with `session_id` it is that session's next step."""
    if session_id:
        request = request._replace(language="")
    if converses(request):
        return _converse(request, Toolbox({}), None, None, timeout, session_id)
    if session_id:
        return _step(session_id, request, True, timeout)
    return _evaluate(request, timeout)


def create_session(language: str, options: SessionOptions, timeout: float | None) -> Plan[SessionInfo]:
    """A new session."""
    data = messages.encode_create(language, options)
    return call(wire.CREATE_SESSION, data, messages.decode_session, timeout, has_effects=True)


def session_call(
    method: str, session_id: str, decode: Callable[[bytes], T], timeout: float | None
) -> Plan[T]:
    """A call about one session."""
    data = messages.encode_session_request(session_id)
    return call(method, data, decode, timeout, session_id=session_id, has_effects=method not in _READING)


def restore_session(session_id: str, checkpoint_id: str, timeout: float | None) -> Plan[SessionInfo]:
    """A session goes back to a checkpoint."""
    data = messages.encode_restore(session_id, checkpoint_id)
    return call(
        wire.RESTORE_SESSION, data, messages.decode_session, timeout, session_id=session_id, has_effects=True
    )


def list_sessions(timeout: float | None) -> Plan[list[SessionInfo]]:
    """All sessions, page by page."""
    infos: list[SessionInfo] = []
    token = ""
    while True:
        page, token = yield from call(
            wire.LIST_SESSIONS, messages.encode_list(token), messages.decode_sessions, timeout
        )
        infos += page
        if not token:
            return infos


_READING = {wire.GET_SESSION, wire.LIST_CHECKPOINTS}


def evaluate_batch(evaluations: Iterable[Evaluation], timeout: float | None) -> Plan[list[Result]]:
    """Many, in messages of at most MAX_BATCH."""
    if not isinstance(evaluations, Iterable):
        raise InvalidArgument("evaluations", f"must be iterable, not {type(evaluations).__name__}")
    requests = []
    for index, evaluation in enumerate(evaluations):
        try:
            requests.append(request_of(evaluation))
        except InvalidArgument as error:
            raise at_index(index, error) from None
    return _batches(requests, call_timeout(timeout))


def _batches(requests: list[Request], timeout: float | None) -> Plan[list[Result]]:
    end = None if timeout is None else time.monotonic() + timeout
    starts = range(0, len(requests), MAX_BATCH)
    # All of them before the first is sent: what no message can carry is then refused, and nothing has run.
    messages = [_batch(requests, start) for start in starts]
    results: list[Result] = []
    for start, data in zip(starts, messages, strict=True):
        # Even with no time left the service is asked: it is gRPC that says DEADLINE_EXCEEDED.
        left = None if end is None else max(end - time.monotonic(), _SHORTEST_SECONDS)
        try:
            asked = requests[start : start + MAX_BATCH]
            given = yield from call(
                wire.EVALUATE_BATCH,
                data,
                wire.decode_batch_reply,
                left,
                has_effects=any(map(_has_effects, asked)),
            )
            results += map(recorded, given, asked)
        except InvalidArgument as error:
            raise _moved(error, start) from None
    return results


def _batch(requests: list[Request], start: int) -> bytes:
    try:
        return wire.encode_batch(requests[start : start + MAX_BATCH])
    except InvalidArgument as error:
        raise _moved(error, start) from None


def _moved(error: InvalidArgument, start: int) -> InvalidArgument:
    """The error of one batch, with the evaluation's place among all of them."""
    match = re.match(r"evaluations\[(\d+)\]", error.field)
    if not match or not start:
        return error
    field = f"evaluations[{start + int(match[1])}]{error.field[match.end() :]}"
    return InvalidArgument(field, error.description)


def runtimes(timeout: float | None) -> Plan[tuple[RuntimeInfo, ...]]:
    """The list of what is installed."""
    return call(wire.LIST_RUNTIMES, b"", wire.decode_runtimes, timeout)


def _converse(
    request: Request,
    toolbox: Toolbox,
    on_output: OnOutput | None,
    stdin: Stdin | None,
    timeout: float | None,
    session_id: str = "",
    waits: bool = True,
    language: str = "",
) -> Plan[Result]:
    """A conversation, begun again only if surely nothing ran, nothing was heard, and nothing was read from a file."""
    timeout = call_timeout(timeout)
    end = time.monotonic() + (RETRY_SECONDS if timeout is None else timeout)
    again = stdin is None or isinstance(stdin, str | bytes)
    attempt = 0
    while True:
        left = None if timeout is None else max(end - time.monotonic(), _SHORTEST_SECONDS)
        outcome = yield Hold(request, toolbox, on_output, stdin, left, session_id, waits, language)
        if isinstance(outcome, Result):
            return outcome
        assert isinstance(outcome, Failed)
        delay = _delay(outcome.error, attempt, random.random())
        if (
            delay is None
            or outcome.heard
            or not again
            or not is_refusal(outcome.error)
            or not waits
            or time.monotonic() + delay >= end
        ):
            raise outcome.error
        yield delay
        attempt += 1


def call(
    method: str,
    data: bytes,
    decode: Callable[[bytes], T],
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
    chance: Callable[[], float] = random.random,
    *,
    session_id: str = "",
    has_effects: bool = False,
    waits: bool = True,
) -> Plan[T]:
    """The plan of one call: send, and again after a delay, while a retry is safe and there is time for it.

    `has_effects`: what runs may change something outside, so a retry is safe only after a refusal. Without `waits`
    nothing is tried again.
    """
    timeout = call_timeout(timeout)
    end = clock() + (RETRY_SECONDS if timeout is None else timeout)
    attempt = 0
    while True:
        left = None if timeout is None else max(end - clock(), 0.0)
        outcome = yield Send(method, data, left, session_id)
        if isinstance(outcome, bytes):
            return decode(outcome)
        assert isinstance(outcome, WasmevalError)
        delay = _delay(outcome, attempt, chance())
        refused = not has_effects or is_refusal(outcome)
        if delay is None or clock() + delay >= end or not refused or not waits:
            raise outcome
        yield delay
        attempt += 1


def is_refusal(error: WasmevalError) -> bool:
    """Whether an error says for sure that nothing ran. A connection that was lost does not."""
    if isinstance(error, ResourceExhausted):
        return True
    return isinstance(error, Unavailable) and any(sign in str(error) for sign in _SIGNS)


# Said by a service that is shutting down, and by gRPC when it could not connect at all.
# Source: gRPC's src/core/load_balancing/pick_first/pick_first.cc.
_SIGNS = (wire.NOTHING_RAN, "failed to connect to all addresses")


def _has_effects(request: Request) -> bool:
    return request.grants is not None and bool(request.grants.http or request.grants.mounts)


def _delay(error: WasmevalError, attempt: int, chance: float) -> float | None:
    """How long to wait before the next attempt; None when there must be none.

    Grows twofold from 50 ms to 2 s; a random half of it keeps many clients from coming back at once. What the
    service asks for is the least.
    """
    if not isinstance(error, Unavailable | ResourceExhausted):
        return None
    delay = min(_FIRST_DELAY_SECONDS * 2.0 ** min(attempt, 16), _LONGEST_DELAY_SECONDS)
    jittered = delay * (0.5 + chance / 2)
    return max(jittered, error.retry_after_seconds) if isinstance(error, ResourceExhausted) else jittered
