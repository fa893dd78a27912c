"""Client and AsyncClient: a wasmeval service, as Python calls.

Both run the same plans: generators that say what to send and how long to wait, and decide on retries. The two
classes only differ in how they send and sleep.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import grpc

from wasmeval import wire
from wasmeval.address import resolve, split
from wasmeval.conversation import Conversation, OnOutput, Stdin, drive
from wasmeval.errors import (
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    SetupError,
    Unavailable,
    WasmevalError,
)
from wasmeval.grants import HttpPolicy, Tool
from wasmeval.limits import MAX_BATCH, Limits, call_timeout
from wasmeval.model import Evaluation, Request, Result, RuntimeInfo, evaluation_of
from wasmeval.requests import converses, request_of
from wasmeval.streams import AsyncConversation, ServiceConversation, drive_async
from wasmeval.tools import Function, Toolbox

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""For how long a call without a time-out of its own is retried."""

_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 2.0
_SHORTEST_SECONDS = 0.001

_OPTIONS = (
    ("grpc.max_send_message_length", wire.MAX_REQUEST_BYTES),
    ("grpc.max_receive_message_length", wire.MAX_REPLY_BYTES),
    # By itself gRPC waits from one second up to two minutes between attempts to connect; calls fail meanwhile.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True)
class _Send:
    """A step of a plan: send `data` and come back with the reply or the error."""

    method: str
    data: bytes
    timeout: float | None


@dataclass(frozen=True, slots=True)
class _Converse:
    """A step of a plan: hold the conversation and come back with its Result or the error."""

    request: Request
    toolbox: Toolbox
    on_output: OnOutput | None
    stdin: Stdin | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class _Failed:
    """A conversation that failed, and whether the service had said anything by then."""

    error: WasmevalError
    heard: bool


# A plan yields what to do next: a message to send, a conversation to hold, or the seconds to sleep.
_Step = _Send | _Converse | float
_Outcome = bytes | Result | WasmevalError | _Failed | None
_Plan = Generator[_Step, _Outcome, T]


class Client:
    """A service at `target` (HOST:PORT, [IPV6]:PORT or unix:PATH); threads may share it.

    `UNAVAILABLE` and `RESOURCE_EXHAUSTED`, after which nothing has run, are retried with growing, random
    delays for as long as a call's `timeout` lasts, and for 10 s when it has none. Close it, or use it as a
    context manager. gRPC does not survive a fork: a client made before one refuses to work in the child.

    `api_key` goes with every call, and only to this machine as long as there is no encryption.
    """

    def __init__(self, target: str, *, api_key: str | None = None) -> None:
        self._target, options = _connection(target, api_key)
        self._metadata = _metadata(api_key)
        self._process = os.getpid()
        self._closed = False
        self._channel = grpc.insecure_channel(self._target, options)
        self._calls: dict[str, Any] = {method: self._channel.unary_unary(method) for method in _METHODS}

    def evaluate(
        self,
        code: str,
        *,
        language: str = "python",
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Sequence[str] = (),
        http: HttpPolicy | None = None,
        tools: Mapping[str, Function] | None = None,
        on_output: OnOutput | None = None,
        stdin: Stdin | None = None,
        tool_time_counts: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Runs `code` with `inputs` as its variables. The snippet's own failures are in the Result.

        `files`, `outputs`, `mounts` and `http`: see `Evaluation`. `tools` are plain or async functions that the snippet
        may call by their names; each call runs in a thread of its own here. `on_output(stream, text)` is called with
        what the snippet prints, while it runs, in this thread. `stdin` is text, bytes, a file or an iterable of bytes.
        With `tool_time_counts=False` the deadline's clock stands still while the snippet waits for tools alone.
        `timeout` bounds the whole call in seconds, queueing and retries included; the guest is stopped when
        it passes. Raises InvalidArgument or a ServiceError.
        """
        evaluation = evaluation_of(code, language, inputs, limits, files, outputs, mounts, http)
        if not converses(evaluation, tools, on_output, stdin):
            return self._run(_evaluate(evaluation, timeout))
        toolbox = Toolbox(tools or {})
        request = request_of(
            evaluation, toolbox.describe(), live=on_output is not None, stdin=stdin is not None,
            tool_time_counts=tool_time_counts,
        )  # fmt: skip
        return self._run(_converse(request, toolbox, on_output, stdin, timeout))

    def converse(
        self,
        code: str,
        *,
        language: str = "python",
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Sequence[str] = (),
        http: HttpPolicy | None = None,
        tools: Iterable[Tool] | Mapping[str, Function] = (),
        stdin: bool = False,
        tool_time_counts: bool = True,
        timeout: float | None = None,
    ) -> Conversation:
        """Begins what `evaluate` does, for those who want the events: `Output`, `ToolCall` (to be answered by whoever
        gets it, whatever `tools` are), `ToolCallCancelled`, and last the Result. Use it as a context manager.

        `stdin`: whether `send_input` and `end_input` will be called. Nothing is retried. The iteration raises as
        `evaluate` does.
        """
        evaluation = evaluation_of(code, language, inputs, limits, files, outputs, mounts, http)
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        _check_process(self._process)
        return self._open(request, call_timeout(timeout))

    def evaluate_batch(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[Result]:
        """Runs many evaluations, each in its own fresh instance; results in their order. See `evaluate`.

        More than 1024 are sent as several batches, one after the other: when one is refused, those before have
        run. None at all need no service.
        """
        return self._run(_evaluate_batch(evaluations, timeout))

    def runtimes(self, *, timeout: float | None = None) -> tuple[RuntimeInfo, ...]:
        """What is installed at the service."""
        return self._run(_runtimes(timeout))

    def close(self) -> None:
        """Ends the connection; calls under way raise Unavailable and their guests are stopped, as do later ones."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, plan: _Plan[T]) -> T:
        _check_process(self._process)
        outcome: _Outcome = None
        while True:
            try:
                step = plan.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = self._take(step)

    def _open(self, request: Request, timeout: float | None) -> ServiceConversation:
        if self._closed:
            raise Unavailable(_CLOSED)
        call: Any = self._channel.stream_stream(wire.CONVERSE)
        return ServiceConversation(
            lambda messages: call(messages, timeout=timeout, metadata=self._metadata), self._explain, request
        )

    def _explain(self, error: Exception) -> WasmevalError:
        return Unavailable(_WAS_CLOSED) if self._closed else _error(error)

    def _hold(self, step: _Converse) -> Result | _Failed:
        conversation = self._open(step.request, step.timeout)
        try:
            return drive(conversation, step.toolbox, step.on_output, step.stdin)
        except ServiceError as error:
            return _Failed(error, conversation.heard)

    def _take(self, step: _Step) -> _Outcome:
        if isinstance(step, _Converse):
            return self._hold(step)
        if not isinstance(step, _Send):
            time.sleep(step)
            return None
        if self._closed:
            raise Unavailable(_CLOSED)
        try:
            reply: bytes = self._calls[step.method](step.data, timeout=step.timeout, metadata=self._metadata)
        except (grpc.RpcError, ValueError) as error:
            # gRPC says ValueError when the channel was closed just before.
            if self._closed:
                raise Unavailable(_WAS_CLOSED) from error
            if isinstance(error, ValueError):
                raise
            return _error(error)
        return reply


class AsyncClient:
    """The same as `Client`, awaited, in one event loop. Cancelling a call stops its guest."""

    def __init__(self, target: str, *, api_key: str | None = None) -> None:
        self._target, self._options = _connection(target, api_key)
        self._metadata = _metadata(api_key)
        self._process = os.getpid()
        self._closed = False
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}

    async def evaluate(
        self,
        code: str,
        *,
        language: str = "python",
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Sequence[str] = (),
        http: HttpPolicy | None = None,
        tools: Mapping[str, Function] | None = None,
        on_output: OnOutput | None = None,
        stdin: Stdin | None = None,
        tool_time_counts: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """As `Client.evaluate`; async tools run on this event loop, others in threads."""
        evaluation = evaluation_of(code, language, inputs, limits, files, outputs, mounts, http)
        if not converses(evaluation, tools, on_output, stdin):
            return await self._run(_evaluate(evaluation, timeout))
        toolbox = Toolbox(tools or {})
        request = request_of(
            evaluation, toolbox.describe(), live=on_output is not None, stdin=stdin is not None,
            tool_time_counts=tool_time_counts,
        )  # fmt: skip
        return await self._run(_converse(request, toolbox, on_output, stdin, timeout))

    def converse(
        self,
        code: str,
        *,
        language: str = "python",
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Sequence[str] = (),
        http: HttpPolicy | None = None,
        tools: Iterable[Tool] | Mapping[str, Function] = (),
        stdin: bool = False,
        tool_time_counts: bool = True,
        timeout: float | None = None,
    ) -> AsyncConversation:
        """As `Client.converse`: `async for event in client.converse(...)`, best inside `async with`."""
        evaluation = evaluation_of(code, language, inputs, limits, files, outputs, mounts, http)
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        _check_process(self._process)
        return self._open(request, call_timeout(timeout))

    async def evaluate_batch(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[Result]:
        """As `Client.evaluate_batch`."""
        return await self._run(_evaluate_batch(evaluations, timeout))

    async def runtimes(self, *, timeout: float | None = None) -> tuple[RuntimeInfo, ...]:
        """As `Client.runtimes`."""
        return await self._run(_runtimes(timeout))

    async def close(self) -> None:
        """As `Client.close`."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, plan: _Plan[T]) -> T:
        _check_process(self._process)
        outcome: _Outcome = None
        while True:
            try:
                step = plan.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = await self._take(step)

    def _connect(self) -> grpc.aio.Channel:
        if self._closed:
            raise Unavailable(_CLOSED)
        if self._channel is None:
            # Not before: a channel belongs to the event loop that it is made in.
            self._channel = grpc.aio.insecure_channel(self._target, self._options)
            self._calls = {method: self._channel.unary_unary(method) for method in _METHODS}
        return self._channel

    def _open(self, request: Request, timeout: float | None) -> AsyncConversation:
        call: Any = self._connect().stream_stream(wire.CONVERSE)
        return AsyncConversation(
            lambda messages: call(messages, timeout=timeout, metadata=self._metadata), self._explain, request
        )

    def _explain(self, error: Exception) -> WasmevalError:
        return Unavailable(_WAS_CLOSED) if self._closed else _error(error)

    async def _hold(self, step: _Converse) -> Result | _Failed:
        conversation = self._open(step.request, step.timeout)
        try:
            return await drive_async(conversation, step.toolbox, step.on_output, step.stdin)
        except ServiceError as error:
            return _Failed(error, conversation.heard)

    async def _take(self, step: _Step) -> _Outcome:
        if isinstance(step, _Converse):
            return await self._hold(step)
        if not isinstance(step, _Send):
            await asyncio.sleep(step)
            return None
        self._connect()
        try:
            reply: bytes = await self._calls[step.method](
                step.data, timeout=step.timeout, metadata=self._metadata
            )
        except asyncio.CancelledError as error:
            # Closing the channel cancels its calls, from within; cancelling a task comes from without.
            task = asyncio.current_task()
            if not (task and task.cancelling()) and self._closed:
                raise Unavailable(_WAS_CLOSED) from error
            raise
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            if self._closed:
                raise Unavailable(_WAS_CLOSED) from error
            if isinstance(error, grpc.aio.UsageError):
                raise
            return _error(error)
        return reply


_WAS_CLOSED = "this client was closed during the call; its guest was stopped"
_CLOSED = "this client is closed; make a new one"
_METHODS = wire.EVALUATE, wire.EVALUATE_BATCH, wire.LIST_RUNTIMES


def _evaluate(evaluation: Evaluation, timeout: float | None) -> _Plan[Result]:
    message = wire.encode_request(request_of(evaluation))
    return _call(wire.EVALUATE, message.SerializeToString(), wire.decode_reply, timeout)


def _evaluate_batch(evaluations: Iterable[Evaluation], timeout: float | None) -> _Plan[list[Result]]:
    if not isinstance(evaluations, Iterable):
        raise InvalidArgument("evaluations", f"must be iterable, not {type(evaluations).__name__}")
    requests = []
    for index, evaluation in enumerate(evaluations):
        try:
            requests.append(request_of(evaluation))
        except InvalidArgument as error:
            raise wire.at_index(index, error) from None
    return _batches(requests, call_timeout(timeout))


def _batches(requests: list[Request], timeout: float | None) -> _Plan[list[Result]]:
    end = None if timeout is None else time.monotonic() + timeout
    starts = range(0, len(requests), MAX_BATCH)
    # All of them before the first is sent: what no message can carry is then refused, and nothing has run.
    messages = [_batch(requests, start) for start in starts]
    results: list[Result] = []
    for start, data in zip(starts, messages, strict=True):
        # Even with no time left the service is asked: it is gRPC that says DEADLINE_EXCEEDED.
        left = None if end is None else max(end - time.monotonic(), _SHORTEST_SECONDS)
        try:
            results += yield from _call(wire.EVALUATE_BATCH, data, wire.decode_batch_reply, left)
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


def _runtimes(timeout: float | None) -> _Plan[tuple[RuntimeInfo, ...]]:
    return _call(wire.LIST_RUNTIMES, b"", wire.decode_runtimes, timeout)


def _converse(
    request: Request, toolbox: Toolbox, on_output: OnOutput | None, stdin: Stdin | None, timeout: float | None
) -> _Plan[Result]:
    """A conversation is begun again only if the service has not said a word, and nothing was read from a file."""
    timeout = call_timeout(timeout)
    end = time.monotonic() + (RETRY_SECONDS if timeout is None else timeout)
    again = stdin is None or isinstance(stdin, str | bytes)
    attempt = 0
    while True:
        left = None if timeout is None else max(end - time.monotonic(), _SHORTEST_SECONDS)
        outcome = yield _Converse(request, toolbox, on_output, stdin, left)
        if isinstance(outcome, Result):
            return outcome
        assert isinstance(outcome, _Failed)
        delay = _delay(outcome.error, attempt, random.random())
        if delay is None or outcome.heard or not again or time.monotonic() + delay >= end:
            raise outcome.error
        yield delay
        attempt += 1


def _call(
    method: str,
    data: bytes,
    decode: Callable[[bytes], T],
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
    chance: Callable[[], float] = random.random,
) -> _Plan[T]:
    """The plan of one call: send, and again after a delay, while a retry is safe and there is time for it."""
    timeout = call_timeout(timeout)
    end = clock() + (RETRY_SECONDS if timeout is None else timeout)
    attempt = 0
    while True:
        outcome = yield _Send(method, data, None if timeout is None else max(end - clock(), 0.0))
        if isinstance(outcome, bytes):
            return decode(outcome)
        assert isinstance(outcome, WasmevalError)
        delay = _delay(outcome, attempt, chance())
        if delay is None or clock() + delay >= end:
            raise outcome
        yield delay
        attempt += 1


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


def _error(error: Exception) -> WasmevalError:
    # Both kinds of RpcError are also a Call, which the type does not say.
    call: Any = error
    return wire.decode_error(call.code(), call.details() or "", call.trailing_metadata() or ())


def _connection(target: str, api_key: str | None) -> tuple[str, tuple[tuple[str, int], ...]]:
    """What gRPC is given: the target and the channel's options."""
    name = split("target", target)[0]
    if api_key is not None:
        address = resolve("target", target)
        if not address.is_local:
            raise InvalidArgument(
                "api_key",
                f"would go to {target!r} unencrypted; connect to this machine, or through a tunnel that ends here",
            )
        # The address that was checked, whatever the name means next time.
        target = address.target
    # gRPC would take even a call to this machine through $http_proxy.
    local = api_key is not None or name in ("", "localhost", "::1") or name.startswith("127.")
    return target, (*_OPTIONS, ("grpc.enable_http_proxy", 0)) if local else _OPTIONS


def _metadata(api_key: str | None) -> tuple[tuple[str, str], ...] | None:
    if api_key is None:
        return None
    if not api_key or not (api_key.isascii() and api_key.isprintable()):
        raise InvalidArgument("api_key", "must be printable ASCII text")
    return (("authorization", f"Bearer {api_key}"),)


def _check_process(process: int) -> None:
    if process != os.getpid():
        raise SetupError(
            "this client was made before a fork, which gRPC does not survive; make one in this process"
        )
