"""EmbeddedSession: a session of an Evaluator's, which makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wasmeval.conversation import Conversation, OnOutput, Stdin, check_callbacks
from wasmeval.errors import DeadlineExceeded
from wasmeval.grants import Folder, HttpPolicy, Tool
from wasmeval.limits import Limits, call_timeout
from wasmeval.model import Evaluation, Job, Request, Result, evaluation_of
from wasmeval.requests import called_back, request_of
from wasmeval.tools import Function, Toolbox

if TYPE_CHECKING:
    from wasmeval.backstage import Begins
    from wasmeval.embedded import Evaluator
    from wasmeval.retained import Held
    from wasmeval.session import Checkpoint, SessionInfo
    from wasmeval.vms import HeldInVm

Mounts = Sequence[str] | Mapping[str, Folder | str | Path]
"""Names that the evaluator was given folders for, or names with folders of this machine; a bare path is read-only."""

NO_TOOLS = Toolbox({})


def names_of(mounts: Mounts) -> Sequence[str]:
    """The names alone; what is no mapping is checked with the rest of the evaluation."""
    return tuple(mounts) if isinstance(mounts, Mapping) else mounts


class EmbeddedSession:
    """A session of an Evaluator; the same methods as `ServiceSession`. Threads may share it: its steps run one at a
    time, in the order in which they came."""

    def __init__(self, evaluator: Evaluator, held: Held | HeldInVm) -> None:
        self._evaluator = evaluator
        self._held = held

    @property
    def id(self) -> str:
        """For `attach`. Nobody can guess it; whoever knows it can use the session."""
        return self._held.id

    @property
    def info(self) -> SessionInfo:
        """What it is and has spent."""
        return self._held.info

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The moments it can go back to, the oldest first."""
        return self._held.checkpoints

    def evaluate(
        self,
        code: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Mounts = (),
        http: HttpPolicy | None = None,
        tools: Mapping[str, Function] | None = None,
        on_output: OnOutput | None = None,
        stdin: Stdin | None = None,
        tool_time_counts: bool = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Runs the session's next step, as `Evaluator.evaluate` runs a snippet: it sees what the steps before it left.

        A step that raises leaves what it did until then. One that ends by fuel, deadline, memory, `timeout` or a crash
        leaves the session as it was before it, and `Result.rolled_back` says so; one in a VM does not go back: see
        docs/sessions.md. While another step runs this one waits, or, with `wait=False`, raises ResourceExhausted.
        Raises SessionLost when the session's worker died.
        """
        if on_output is not None or stdin is not None:
            check_callbacks(on_output, stdin)
        evaluation = self._evaluation(code, inputs, limits, files, outputs, mounts, http)
        toolbox = Toolbox(tools) if tools else NO_TOOLS
        request = called_back(evaluation, toolbox, on_output, stdin, tool_time_counts)
        evaluator = self._evaluator
        offer = evaluator._offered(request, mounts)
        job = evaluator._prepare(request, offer)
        timeout, start = call_timeout(timeout), monotonic()

        def perform(job: Job) -> Result:
            left = None if timeout is None else max(timeout - (monotonic() - start), 1e-9)
            return evaluator._perform(job, offer, toolbox, on_output, stdin, left)

        try:
            result = self._held.step(job, perform, wait=wait, timeout=timeout)
        except DeadlineExceeded:
            raise DeadlineExceeded(
                f"the time-out of {timeout:g} s passed before the result arrived"
            ) from None
        return self._recorded(request, result)

    def converse(
        self,
        code: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Mounts = (),
        http: HttpPolicy | None = None,
        tools: Iterable[Tool] | Mapping[str, Function] = (),
        stdin: bool = False,
        tool_time_counts: bool = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Conversation:
        """Begins what `evaluate` does, for those who want the events; see `Client.converse`. Waits for its turn.

        It has the session's turn until it ends or is closed, read or not. Closed before its end, it leaves the session
        as it was before it, as does one that `evaluate` would roll back.
        """
        from wasmeval.followed import Guest, StepConversation

        evaluation = self._evaluation(code, inputs, limits, files, outputs, mounts, http)
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        evaluator, timeout = self._evaluator, call_timeout(timeout)
        offer = evaluator._offered(request, mounts)
        job = evaluator._prepare(request, offer)
        begins: Begins = evaluator._open_tiers()[1] if job.tier == "vm" else evaluator._pool
        return StepConversation(
            lambda run: self._recorded(request, self._held.step(job, run, wait=wait, timeout=timeout)),
            lambda job, left: Guest(begins, evaluator._backstage, offer, job, left),
            timeout,
        )

    def _recorded(self, request: Request, result: Result) -> Result:
        """The result of a deterministic session's step, with its recording."""
        if result.receipt is None:
            return result
        from wasmeval.recording import recorded

        return recorded(result, request)

    def _repeat(self, request: Request, timeout: float | None) -> Result:
        """The next step, from its recording."""
        evaluator = self._evaluator
        job = evaluator._prepare(request, evaluator._offer)
        return self._held.step(
            job, lambda job: evaluator._perform(job, evaluator._offer, NO_TOOLS, None, None, timeout)
        )

    def fork(self) -> EmbeddedSession:
        """Another session that goes on from here; each then goes its own way."""
        return EmbeddedSession(self._evaluator, self._held.fork())

    def checkpoint(self) -> Checkpoint:
        """A moment to go back to: now."""
        return self._held.checkpoint()

    def restore(self, checkpoint: Checkpoint | str) -> None:
        """Goes back to a checkpoint, files included. Raises NotFound when it is none of this session's."""
        self._held.restore(checkpoint if isinstance(checkpoint, str) else checkpoint.id)

    def hibernate(self) -> None:
        """Puts it to sleep in the store, where it takes no worker. The next step wakes it."""
        self._held.hibernate()

    def close(self) -> None:
        """Ends it, with its checkpoints. Safe to call twice."""
        self._held.close()

    def __enter__(self) -> EmbeddedSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _evaluation(
        self,
        code: str,
        inputs: Mapping[str, Any] | None,
        limits: Limits | None,
        files: Mapping[str, bytes] | None,
        outputs: Sequence[str],
        mounts: Mounts,
        http: HttpPolicy | None,
    ) -> Evaluation:
        """The next step, in the session's language and within its limits."""
        options = self._held.options
        most, deterministic = options.limits, options.deterministic
        limits = most if limits is None else limits.within(most, most)
        return evaluation_of(
            code,
            self._held.language,
            inputs,
            limits,
            files,
            outputs,
            names_of(mounts),
            http,
            deterministic or False,
            # One in Wasm says why its steps do not move.
            tier="vm" if options.tier == "vm" else "auto",
        )
