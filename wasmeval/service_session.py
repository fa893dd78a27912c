"""ServiceSession and AsyncServiceSession: a session at a service, as Python calls. Clients make them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from wasmeval import plans, wire
from wasmeval.conversation import Conversation, OnOutput, Stdin, check_callbacks
from wasmeval.errors import NotFound
from wasmeval.grants import HttpPolicy, Tool
from wasmeval.limits import Limits
from wasmeval.model import Result, evaluation_of
from wasmeval.requests import request_of
from wasmeval.session import Checkpoint, SessionInfo
from wasmeval.streams import AsyncConversation
from wasmeval.tools import Function
from wasmeval.wire import sessions as messages

if TYPE_CHECKING:
    from wasmeval.client import AsyncClient, Client

T = TypeVar("T")


class ServiceSession:
    """A session at a service; the same methods as `EmbeddedSession`. Threads may share it."""

    def __init__(self, client: Client, info: SessionInfo) -> None:
        self._client = client
        self._info = info

    @property
    def id(self) -> str:
        """For `attach`. Nobody can guess it; whoever knows it can use the session."""
        return self._info.id

    @property
    def language(self) -> str:
        """What it was begun with."""
        return self._info.language

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """What it is by now, and has spent."""
        return self._call(wire.GET_SESSION, messages.decode_session, timeout)

    def checkpoints(self, *, timeout: float | None = None) -> tuple[Checkpoint, ...]:
        """The moments it can go back to, the oldest first."""
        return self._call(wire.LIST_CHECKPOINTS, messages.decode_checkpoints, timeout)

    def evaluate(
        self,
        code: str,
        *,
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
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Runs the session's next step, as `Client.evaluate` runs a snippet: it sees what steps before it left.

        A step that raises leaves what it did until then. One that ends by fuel, deadline, memory, `timeout` or a crash
        leaves the session as it was before it, and `Result.rolled_back` says so; one in a VM does not go back: see
        docs/sessions.md. While another step runs this one waits, or, with `wait=False`, raises ResourceExhausted.
        Raises NotFound, SessionLost and Conflict as well.
        """
        evaluation = evaluation_of(code, "", inputs, limits, files, outputs, mounts, http)
        check_callbacks(on_output, stdin)
        return self._client._run(
            plans.step(
                self.id, evaluation, tools, on_output, stdin, tool_time_counts, wait, timeout, self.language
            )
        )

    def converse(
        self,
        code: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Sequence[str] = (),
        http: HttpPolicy | None = None,
        tools: Iterable[Tool] | Mapping[str, Function] = (),
        stdin: bool = False,
        tool_time_counts: bool = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Conversation:
        """Begins what `evaluate` does, for those who want the events; see `Client.converse`.

        It has the session's turn until it ends or is closed, read or not. Closed before its end, it leaves the session
        as it was before it, as does one that `evaluate` would roll back.
        """
        evaluation = evaluation_of(code, "", inputs, limits, files, outputs, mounts, http)
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        return self._client._converse(request, timeout, self.id, wait, self.language)

    def fork(self, *, timeout: float | None = None) -> ServiceSession:
        """Another session that goes on from here; each then goes its own way."""
        return ServiceSession(self._client, self._call(wire.FORK_SESSION, messages.decode_session, timeout))

    def checkpoint(self, *, timeout: float | None = None) -> Checkpoint:
        """A moment to go back to: now."""
        return self._call(wire.MAKE_CHECKPOINT, messages.decode_checkpoint, timeout)

    def restore(self, checkpoint: Checkpoint | str, *, timeout: float | None = None) -> None:
        """Goes back to a checkpoint, files included. Raises NotFound when it is none of this session's."""
        name = checkpoint if isinstance(checkpoint, str) else checkpoint.id
        self._client._run(plans.restore_session(self.id, name, timeout))

    def hibernate(self, *, timeout: float | None = None) -> None:
        """Puts it to sleep, where it takes no worker. The next step wakes it."""
        self._call(wire.HIBERNATE_SESSION, messages.decode_session, timeout)

    def close(self, *, timeout: float | None = None) -> None:
        """Ends it, with its checkpoints. Safe to call twice."""
        with contextlib.suppress(NotFound):
            self._call(wire.CLOSE_SESSION, bytes, timeout)

    def __enter__(self) -> ServiceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, decode: Callable[[bytes], T], timeout: float | None) -> T:
        return self._client._run(plans.session_call(method, self.id, decode, timeout))


class AsyncServiceSession:
    """A session at a service, as `ServiceSession`, awaited."""

    def __init__(self, client: AsyncClient, info: SessionInfo) -> None:
        self._client = client
        self._info = info

    @property
    def id(self) -> str:
        """For `attach`. Nobody can guess it; whoever knows it can use the session."""
        return self._info.id

    @property
    def language(self) -> str:
        """What it was begun with."""
        return self._info.language

    async def info(self, *, timeout: float | None = None) -> SessionInfo:
        """What it is by now, and has spent."""
        return await self._call(wire.GET_SESSION, messages.decode_session, timeout)

    async def checkpoints(self, *, timeout: float | None = None) -> tuple[Checkpoint, ...]:
        """The moments it can go back to, the oldest first."""
        return await self._call(wire.LIST_CHECKPOINTS, messages.decode_checkpoints, timeout)

    async def evaluate(
        self,
        code: str,
        *,
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
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Runs the session's next step, as `AsyncClient.evaluate` runs a snippet: it sees what steps before it left.

        A step that raises leaves what it did until then. One that ends by fuel, deadline, memory, `timeout` or a crash
        leaves the session as it was before it, and `Result.rolled_back` says so; one in a VM does not go back: see
        docs/sessions.md. While another step runs this one waits, or, with `wait=False`, raises ResourceExhausted.
        Raises NotFound, SessionLost and Conflict as well.
        """
        evaluation = evaluation_of(code, "", inputs, limits, files, outputs, mounts, http)
        check_callbacks(on_output, stdin, can_await=True)
        return await self._client._run(
            plans.step(
                self.id, evaluation, tools, on_output, stdin, tool_time_counts, wait, timeout, self.language
            )
        )

    def converse(
        self,
        code: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Sequence[str] = (),
        http: HttpPolicy | None = None,
        tools: Iterable[Tool] | Mapping[str, Function] = (),
        stdin: bool = False,
        tool_time_counts: bool = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> AsyncConversation:
        """Begins what `evaluate` does, for those who want the events; see `AsyncClient.converse`.

        As `ServiceSession.converse`.
        """
        evaluation = evaluation_of(code, "", inputs, limits, files, outputs, mounts, http)
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        return self._client._converse(request, timeout, self.id, wait, self.language)

    async def fork(self, *, timeout: float | None = None) -> AsyncServiceSession:
        """Another session that goes on from here; each then goes its own way."""
        return AsyncServiceSession(
            self._client, await self._call(wire.FORK_SESSION, messages.decode_session, timeout)
        )

    async def checkpoint(self, *, timeout: float | None = None) -> Checkpoint:
        """A moment to go back to: now."""
        return await self._call(wire.MAKE_CHECKPOINT, messages.decode_checkpoint, timeout)

    async def restore(self, checkpoint: Checkpoint | str, *, timeout: float | None = None) -> None:
        """Goes back to a checkpoint, files included. Raises NotFound when it is none of this session's."""
        name = checkpoint if isinstance(checkpoint, str) else checkpoint.id
        await self._client._run(plans.restore_session(self.id, name, timeout))

    async def hibernate(self, *, timeout: float | None = None) -> None:
        """Puts it to sleep, where it takes no worker. The next step wakes it."""
        await self._call(wire.HIBERNATE_SESSION, messages.decode_session, timeout)

    async def close(self, *, timeout: float | None = None) -> None:
        """Ends it, with its checkpoints. Safe to call twice."""
        with contextlib.suppress(NotFound):
            await self._call(wire.CLOSE_SESSION, bytes, timeout)

    async def __aenter__(self) -> AsyncServiceSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, method: str, decode: Callable[[bytes], T], timeout: float | None) -> T:
        return await self._client._run(plans.session_call(method, self.id, decode, timeout))
