"""Client and AsyncClient: a wasmeval service, as Python calls.

Both run the same plans; the two classes only differ in how they send and sleep.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from wasmeval import plans, wire
from wasmeval.address import resolve, split
from wasmeval.conversation import Conversation, OnOutput, Stdin, check_callbacks, drive
from wasmeval.determinism import Deterministic
from wasmeval.errors import InvalidArgument, ServiceError, SetupError, Unavailable, WasmevalError
from wasmeval.grants import HttpPolicy, Tool
from wasmeval.limits import MIB, Limits, call_timeout
from wasmeval.model import Evaluation, Request, Result, RuntimeInfo, command_of, evaluation_of
from wasmeval.plans import Failed, Hold, Outcome, Plan, Send, Step
from wasmeval.recording import Recording, Replay, loaded, replay_of, session_limits
from wasmeval.requests import request_of
from wasmeval.service_session import AsyncServiceSession, ServiceSession
from wasmeval.session import SessionInfo, options_of
from wasmeval.streams import AsyncConversation, ServiceConversation, drive_async
from wasmeval.tools import Function
from wasmeval.wire import sessions as messages

T = TypeVar("T")

_LARGE_BYTES = 1 << 17
"""From here on the GNU C library takes a block from the system and gives it back, each time anew."""
_OPTIONS = (
    ("grpc.max_send_message_length", wire.MAX_REQUEST_BYTES),
    ("grpc.max_receive_message_length", wire.MAX_REPLY_BYTES),
    # By itself gRPC waits from one second up to two minutes between attempts to connect; calls fail meanwhile.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Client:
    """A service at `target` (HOST:PORT, [IPV6]:PORT or unix:PATH); threads may share it.

    `UNAVAILABLE` and `RESOURCE_EXHAUSTED` are retried with growing, random delays for as long as a call's `timeout`
    lasts, and for 10 s when it has none. An evaluation that may have an effect elsewhere (`http`, `mounts`, tools,
    and all else that is a conversation) only when surely nothing ran: the service was full or shutting down, or there
    was no connection to it. Close it, or use it as a context manager. gRPC does not survive a fork: a client made
    before one refuses to work in the child.

    `api_key` goes with every call, and only to this machine as long as there is no encryption.
    """

    def __init__(self, target: str, *, api_key: str | None = None) -> None:
        self._target, options = connection(target, api_key)
        self._metadata = _metadata(api_key)
        self._process = os.getpid()
        self._closed = False
        self._channel = grpc.insecure_channel(self._target, options)
        self._calls: dict[str, Any] = {method: self._channel.unary_unary(method) for method in _METHODS}
        # Of a program that ends without closing it, while gRPC's threads still run: they die holding its locks.
        weakref.finalize(self, _close, self._channel, self._process)

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
        deterministic: Deterministic | bool = False,
        cache: bool = False,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> Result:
        """Runs `code` with `inputs` as its variables. The snippet's own failures are in the Result.

        `files`, `outputs`, `mounts` and `http`: see `Evaluation`. `tools` are plain or async functions that the
        snippet may call by their names; each call runs in a thread of its own here. `on_output(stream, text)` is
        called with what the snippet prints, while it runs, in this thread. `stdin` is text, bytes, a file or an
        iterable of them; what either raises ends the evaluation and is raised. With `tool_time_counts=False` the
        deadline's clock stands still while the snippet waits for tools alone. `deterministic` makes the evaluation
        repeatable, `cache` lets its answer be one that was given before: see docs/determinism.md. `tier` is where it
        runs, "wasm" or "vm": "auto" runs it in Wasm, and once more in a microVM if it turns out to need one and had no
        effect outside yet; "bash" as `language` runs in a VM alone. `timeout` bounds the whole call in seconds,
        queueing and retries included; the guest is stopped when it passes. Raises InvalidArgument or a ServiceError.
        """
        evaluation = evaluation_of(
            code, language, inputs, limits, files, outputs, mounts, http, deterministic, cache, tier
        )
        check_callbacks(on_output, stdin)
        return self._run(plans.evaluate(evaluation, tools, on_output, stdin, tool_time_counts, timeout))

    def run_command(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        http: HttpPolicy | None = None,
        on_output: OnOutput | None = None,
        stdin: Stdin | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Runs a program in a microVM of its own, in `/workspace`, with `env` beside the usual variables.

        `argv` is the program and its arguments: no shell reads them. `Result.exit_status` is what it exited with; other
        than 0, the status is `error`. The rest is as in `evaluate`. Where there are no VMs it ends `unsupported`, and
        `error` says what is missing.
        """
        evaluation = command_of(argv, env, limits, files, outputs, http)
        check_callbacks(on_output, stdin)
        return self._run(plans.evaluate(evaluation, None, on_output, stdin, True, timeout))

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
        deterministic: Deterministic | bool = False,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> Conversation:
        """Begins what `evaluate` does, for those who want the events: `Output`, `ToolCall` (to be answered by whoever
        gets it, whatever `tools` are), `ToolCallCancelled`, and last the Result. Use it as a context manager.

        `stdin`: whether `send_input` and `end_input` will be called. Nothing is retried. The iteration raises as
        `evaluate` does.
        """
        evaluation = evaluation_of(
            code, language, inputs, limits, files, outputs, mounts, http, deterministic, tier=tier
        )
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        return self._converse(request, timeout)

    def evaluate_batch(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[Result]:
        """Runs many evaluations, each in its own fresh instance; results in their order. See `evaluate`.

        More than 1024 are sent as several batches, one after the other: when one is refused, those before have
        run. None at all need no service.
        """
        return self._run(plans.evaluate_batch(evaluations, timeout))

    def replay(self, *recordings: Recording | str | Path, timeout: float | None = None) -> Replay:
        """Repeats an evaluation from its recording, or the file that holds it; or the steps of a session, the first
        one first.

        `timeout` is of each. Raises InvalidArgument for what is no recording, and as `evaluate`.
        """
        steps = loaded(recordings)
        first = steps[0]
        if not first.receipt.step:
            return replay_of(steps, [self._run(plans.repeat(first.repetition, timeout))])
        with self.session(
            first.request.language,
            limits=session_limits(steps),
            deterministic=first.beginning,
            timeout=timeout,
        ) as session:
            plan = [plans.repeat(step.repetition, timeout, session.id) for step in steps]
            return replay_of(steps, list(map(self._run, plan)))

    def runtimes(self, *, timeout: float | None = None) -> tuple[RuntimeInfo, ...]:
        """What is installed at the service."""
        return self._run(plans.runtimes(timeout))

    def session(
        self,
        language: str = "python",
        *,
        limits: Limits | None = None,
        total_fuel: int | None = None,
        idle_seconds: float | None = None,
        life_seconds: float | None = None,
        durability: str | None = None,
        deterministic: Deterministic | bool | None = None,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> ServiceSession:
        """Begins a session: snippets that share their variables, their imports and their files. See `SessionOptions`.

        Close it, or use it as a context manager: what is not closed sleeps at the service until its life ends.
        """
        options = options_of(
            limits=limits, total_fuel=total_fuel, idle_seconds=idle_seconds, life_seconds=life_seconds,
            durability=durability, deterministic=deterministic, tier=tier,
        )  # fmt: skip
        info = self._run(plans.create_session(language, options, timeout))
        return ServiceSession(self, info)

    def attach(self, session_id: str, *, timeout: float | None = None) -> ServiceSession:
        """The session of that id. Raises NotFound."""
        plan = plans.session_call(wire.GET_SESSION, session_id, messages.decode_session, timeout)
        return ServiceSession(self, self._run(plan))

    def sessions(self, *, timeout: float | None = None) -> list[SessionInfo]:
        """All sessions of this client's at the service."""
        return self._run(plans.list_sessions(timeout))

    def close(self) -> None:
        """Ends the connection; calls under way raise Unavailable and their guests are stopped, as do later ones."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, plan: Plan[T]) -> T:
        _check_process(self._process)
        outcome: Outcome = None
        while True:
            try:
                step = plan.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = self._take(step)

    def _converse(
        self,
        request: Request,
        timeout: float | None,
        session_id: str = "",
        waits: bool = True,
        language: str = "",
    ) -> ServiceConversation:
        _check_process(self._process)
        return self._open(request, call_timeout(timeout), session_id, waits, language)

    def _open(
        self,
        request: Request,
        timeout: float | None,
        session_id: str = "",
        waits: bool = True,
        language: str = "",
    ) -> ServiceConversation:
        try:
            call: Any = self._channel.stream_stream(wire.STEP_CONVERSE if session_id else wire.CONVERSE)
            metadata = _about(session_id, self._metadata)
            return ServiceConversation(
                lambda messages: call(messages, timeout=timeout, metadata=metadata),
                self._explain,
                request,
                session_id,
                waits,
                language,
            )
        except ValueError as error:
            # gRPC says ValueError when the channel is closed; ours are of the request.
            if isinstance(error, InvalidArgument) or not self._closed:
                raise
            raise Unavailable(_CLOSED) from error

    def _explain(self, error: BaseException) -> WasmevalError:
        return Unavailable(_WAS_CLOSED) if self._closed else _error(error)

    def _hold(self, step: Hold) -> Result | Failed:
        conversation = self._open(step.request, step.timeout, step.session_id, step.waits, step.language)
        try:
            return drive(conversation, step.toolbox, step.on_output, step.stdin)
        except ServiceError as error:
            if self._closed:
                raise
            return Failed(error, conversation.heard)

    def _take(self, step: Step) -> Outcome:
        if isinstance(step, Hold):
            return self._hold(step)
        if not isinstance(step, Send):
            time.sleep(step)
            return None
        if self._closed:
            raise Unavailable(_CLOSED)
        _expect_more_like(step.data)
        try:
            reply: bytes = self._calls[step.method](
                step.data, timeout=step.timeout, metadata=_about(step.session_id, self._metadata)
            )
        except (grpc.RpcError, ValueError) as error:
            # gRPC says ValueError when the channel was closed just before.
            if self._closed:
                raise Unavailable(_WAS_CLOSED) from error
            if isinstance(error, ValueError):
                raise
            return _error(error)
        _expect_more_like(reply)
        return reply


class AsyncClient:
    """The same as `Client`, awaited, in one event loop. Cancelling a call stops its guest."""

    def __init__(self, target: str, *, api_key: str | None = None) -> None:
        self._target, self._options = connection(target, api_key)
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
        deterministic: Deterministic | bool = False,
        cache: bool = False,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> Result:
        """As `Client.evaluate`; async tools run on this event loop, others in threads. `on_output` may be async."""
        evaluation = evaluation_of(
            code, language, inputs, limits, files, outputs, mounts, http, deterministic, cache, tier
        )
        check_callbacks(on_output, stdin, can_await=True)
        return await self._run(plans.evaluate(evaluation, tools, on_output, stdin, tool_time_counts, timeout))

    async def run_command(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        http: HttpPolicy | None = None,
        on_output: OnOutput | None = None,
        stdin: Stdin | None = None,
        timeout: float | None = None,
    ) -> Result:
        """As `Client.run_command`."""
        evaluation = command_of(argv, env, limits, files, outputs, http)
        check_callbacks(on_output, stdin, can_await=True)
        return await self._run(plans.evaluate(evaluation, None, on_output, stdin, True, timeout))

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
        deterministic: Deterministic | bool = False,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> AsyncConversation:
        """As `Client.converse`: `async for event in client.converse(...)`, best inside `async with`."""
        evaluation = evaluation_of(
            code, language, inputs, limits, files, outputs, mounts, http, deterministic, tier=tier
        )
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        return self._converse(request, timeout)

    async def evaluate_batch(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[Result]:
        """As `Client.evaluate_batch`."""
        return await self._run(plans.evaluate_batch(evaluations, timeout))

    async def replay(self, *recordings: Recording | str | Path, timeout: float | None = None) -> Replay:
        """As `Client.replay`."""
        steps = loaded(recordings)
        first = steps[0]
        if not first.receipt.step:
            return replay_of(steps, [await self._run(plans.repeat(first.repetition, timeout))])
        session = await self.session(
            first.request.language,
            limits=session_limits(steps),
            deterministic=first.beginning,
            timeout=timeout,
        )
        async with session:
            plan = [plans.repeat(step.repetition, timeout, session.id) for step in steps]
            return replay_of(steps, [await self._run(each) for each in plan])

    async def runtimes(self, *, timeout: float | None = None) -> tuple[RuntimeInfo, ...]:
        """As `Client.runtimes`."""
        return await self._run(plans.runtimes(timeout))

    async def session(
        self,
        language: str = "python",
        *,
        limits: Limits | None = None,
        total_fuel: int | None = None,
        idle_seconds: float | None = None,
        life_seconds: float | None = None,
        durability: str | None = None,
        deterministic: Deterministic | bool | None = None,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> AsyncServiceSession:
        """Begins a session: snippets that share their variables, their imports and their files. See `SessionOptions`.

        Close it, or use it as a context manager: what is not closed sleeps at the service until its life ends.
        """
        options = options_of(
            limits=limits, total_fuel=total_fuel, idle_seconds=idle_seconds, life_seconds=life_seconds,
            durability=durability, deterministic=deterministic, tier=tier,
        )  # fmt: skip
        info = await self._run(plans.create_session(language, options, timeout))
        return AsyncServiceSession(self, info)

    async def attach(self, session_id: str, *, timeout: float | None = None) -> AsyncServiceSession:
        """The session of that id. Raises NotFound."""
        plan = plans.session_call(wire.GET_SESSION, session_id, messages.decode_session, timeout)
        return AsyncServiceSession(self, await self._run(plan))

    async def sessions(self, *, timeout: float | None = None) -> list[SessionInfo]:
        """All sessions of this client's at the service."""
        return await self._run(plans.list_sessions(timeout))

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

    async def _run(self, plan: Plan[T]) -> T:
        _check_process(self._process)
        outcome: Outcome = None
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

    def _converse(
        self,
        request: Request,
        timeout: float | None,
        session_id: str = "",
        waits: bool = True,
        language: str = "",
    ) -> AsyncConversation:
        _check_process(self._process)
        return self._open(request, call_timeout(timeout), session_id, waits, language)

    def _open(
        self,
        request: Request,
        timeout: float | None,
        session_id: str = "",
        waits: bool = True,
        language: str = "",
    ) -> AsyncConversation:
        call: Any = self._connect().stream_stream(wire.STEP_CONVERSE if session_id else wire.CONVERSE)
        metadata = _about(session_id, self._metadata)
        return AsyncConversation(
            lambda messages: call(messages, timeout=timeout, metadata=metadata),
            self._explain,
            request,
            lambda: self._closed,
            session_id,
            waits,
            language,
        )

    def _explain(self, error: BaseException) -> WasmevalError:
        return Unavailable(_WAS_CLOSED) if self._closed else _error(error)

    async def _hold(self, step: Hold) -> Result | Failed:
        conversation = self._open(step.request, step.timeout, step.session_id, step.waits, step.language)
        try:
            return await drive_async(conversation, step.toolbox, step.on_output, step.stdin)
        except ServiceError as error:
            if self._closed:
                raise
            return Failed(error, conversation.heard)

    async def _take(self, step: Step) -> Outcome:
        if isinstance(step, Hold):
            return await self._hold(step)
        if not isinstance(step, Send):
            await asyncio.sleep(step)
            return None
        self._connect()
        _expect_more_like(step.data)
        try:
            reply: bytes = await self._calls[step.method](
                step.data, timeout=step.timeout, metadata=_about(step.session_id, self._metadata)
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
        _expect_more_like(reply)
        return reply


_WAS_CLOSED = "this client was closed during the call; its guest was stopped"
_CLOSED = "this client is closed; make a new one"
_METHODS = (
    wire.EVALUATE,
    wire.EVALUATE_BATCH,
    wire.LIST_RUNTIMES,
    wire.CREATE_SESSION,
    wire.STEP,
    wire.FORK_SESSION,
    wire.HIBERNATE_SESSION,
    wire.CLOSE_SESSION,
    wire.GET_SESSION,
    wire.LIST_SESSIONS,
    wire.MAKE_CHECKPOINT,
    wire.LIST_CHECKPOINTS,
    wire.RESTORE_SESSION,
)


def _expect_more_like(message: bytes) -> None:
    """A large message has a successor, and each takes several blocks of its size, here and in gRPC."""
    if len(message) >= _LARGE_BYTES:
        _expect_megabytes()


@functools.cache
def _expect_megabytes() -> None:
    """Have freed memory used again in this process, whose settings are not ours: the GNU C library does so up to the
    size of the largest block that it has given back to the system, and keeps twice as much. This one is never touched.

    Source: mallopt(3), M_MMAP_THRESHOLD, on the dynamic threshold.
    """
    bytes(8 * MIB)


def _error(error: BaseException) -> WasmevalError:
    # Both kinds of RpcError are also a Call, which the type does not say.
    call: Any = error
    return wire.decode_error(call.code(), call.details() or "", call.trailing_metadata() or ())


def connection(target: str, api_key: str | None) -> tuple[str, tuple[tuple[str, int], ...]]:
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


_Metadata = tuple[tuple[str, str], ...]


def _about(session_id: str, metadata: _Metadata) -> _Metadata:
    """The metadata of a call about that session. A proxy that reads no messages sends all of a session's calls to one
    replica by it; what is no id is left for the service to refuse."""
    if not (session_id.isascii() and session_id.isalnum()):
        return metadata
    return (*metadata, (wire.SESSION_KEY, session_id))


def _metadata(api_key: str | None) -> _Metadata:
    if api_key is None:
        return ()
    if not api_key or not (api_key.isascii() and api_key.isprintable()):
        raise InvalidArgument("api_key", "must be printable ASCII text")
    return (("authorization", f"Bearer {api_key}"),)


def _close(channel: grpc.Channel, process: int) -> None:
    if process == os.getpid():
        channel.close()


def _check_process(process: int) -> None:
    if process != os.getpid():
        raise SetupError(
            "this client was made before a fork, which gRPC does not survive; make one in this process"
        )
