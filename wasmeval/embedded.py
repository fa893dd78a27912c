"""Evaluator: snippets run in worker processes of this program's own, without any service."""

from __future__ import annotations

import atexit
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_bytes, token_hex
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wasmeval.backstage import Backstage, Begins, EmbeddedConversation
from wasmeval.conversation import Conversation, OnOutput, Stdin, check_callbacks, drive, known_output
from wasmeval.determinism import Deterministic
from wasmeval.embedded_session import NO_TOOLS, EmbeddedSession, Mounts, names_of
from wasmeval.errors import DeadlineExceeded, InvalidArgument, at_index
from wasmeval.grants import Folder, Grants, HttpPolicy, Tool
from wasmeval.limits import CEILINGS, DEFAULTS, VM_CEILINGS, VM_DEFAULTS, Limits, call_timeout
from wasmeval.model import (
    Evaluation,
    Job,
    Request,
    Result,
    RuntimeInfo,
    Status,
    command_of,
    evaluation_of,
)
from wasmeval.offer import Offer
from wasmeval.policy import BASH, Policy, prepare, runtime_infos
from wasmeval.pool import BlockingPool, PoolSettings
from wasmeval.requests import called_back, request_of
from wasmeval.runtimes import Catalogue
from wasmeval.tools import Function, Toolbox
from wasmeval.wasm.cache import CompileProgress
from wasmeval.wasm.installation import VERSION

if TYPE_CHECKING:
    from wasmeval.egress import Credential, HttpCeiling
    from wasmeval.recording import Recording, Replay
    from wasmeval.repeated import Repeated
    from wasmeval.retained import Retained
    from wasmeval.stores import Store
    from wasmeval.vm import VmSettings
    from wasmeval.vms import BothTiers, Vms


class Evaluator:
    """The same methods as `Client`, over workers of its own; threads may share it.

    Making one starts `workers` processes (one for each CPU by default), which takes about 0.2 s; the very first
    one on a machine compiles the runtimes, which takes about 25 s and is told to `progress`. `defaults` and
    `ceilings` are the limits that apply where a call sets none, and that no call gets past. With `require_jail`
    it refuses to start where the kernel lacks a layer of the workers' jail. `folders` may be mounted by name in every
    call; `http` is the most that any call's policy can allow, HttpCeiling.ANY_PUBLIC by default, and `credentials` are
    what its rules may name. Sessions sleep in `store`, by default in this process's memory, as snapshots that are
    sealed with `snapshot_key`; who gives a store gives the key as well, or nobody else can go on with them.

    What needs a whole operating system runs in microVMs where this machine can have them: `vm` says how (`VmSettings`),
    that there must be some (True), or that there are none (False); the first one is started when it is needed. Limits
    that both tiers have apply in both. Close the evaluator, or use it as a context manager; it does not survive a fork.

    Raises SetupError when this machine cannot run guests, InvalidArgument for a default above its ceiling.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        defaults: Limits | None = None,
        ceilings: Limits | None = None,
        folders: Mapping[str, Folder | str | Path] | None = None,
        http: HttpCeiling | None = None,
        credentials: Mapping[str, Credential] | None = None,
        store: Store | None = None,
        snapshot_key: bytes | None = None,
        vm: VmSettings | bool | None = None,
        require_jail: bool = False,
        cache_dir: Path | None = None,
        progress: Callable[[CompileProgress], None] | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise InvalidArgument("workers", f"must be 1 or more, not {workers}")
        in_vm = _policy(defaults, ceilings, VM_DEFAULTS, VM_CEILINGS, "vm", None)
        self._policy = _policy(defaults, ceilings, DEFAULTS, CEILINGS, "wasm", in_vm)
        ceilings = self._policy.ceilings
        self._catalogue = Catalogue.installed()
        self._policy.check(self._catalogue)
        assert ceilings.memory_bytes
        settings = PoolSettings(
            **({} if workers is None else {"workers": workers}),
            # Whoever calls waits for his own evaluations; there is nobody else to be fair to.
            queue_size=1 << 30,
            held_bytes=1 << 62,
            max_memory_bytes=ceilings.memory_bytes,
            require_jail=require_jail,
            cache_dir=cache_dir,
        )
        self._offer = Offer(None, _folders(folders or {}))
        self._ceiling = http
        self._credentials = dict(credentials or {})
        self._opening = threading.Lock()
        if self._ceiling is not None or self._credentials:
            # What is wrong with them is said now.
            self._open_egress()
        self._store, self._snapshot_key = store, snapshot_key or token_bytes(32)
        self._sessions: Retained | None = None
        self._repetition: Repeated | None = None
        self._backstage = Backstage()
        self._vm, self._require_jail = vm, require_jail
        self._tiers: tuple[Vms, BothTiers] | None = None
        self._pool = BlockingPool(settings, self._catalogue)
        if vm is not None and vm is not False:
            self._open_tiers()[0].require()
        self._pool.start(progress)

    def evaluate(
        self,
        code: str,
        *,
        language: str = "python",
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
        deterministic: Deterministic | bool = False,
        cache: bool = False,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> Result:
        """Runs `code` with `inputs` as its variables. The snippet's own failures are in the Result.

        As `Client.evaluate`; `mounts` may name folders of this machine as well. `timeout` bounds the whole call in
        seconds, queueing included; the guest is stopped when it passes. Raises InvalidArgument, DeadlineExceeded
        (that time-out) or Unavailable (closed).
        """
        if on_output is not None or stdin is not None:
            check_callbacks(on_output, stdin)
        evaluation = evaluation_of(
            code, language, inputs, limits, files, outputs, names_of(mounts), http, deterministic, cache, tier
        )
        toolbox = Toolbox(tools) if tools else NO_TOOLS
        request = called_back(evaluation, toolbox, on_output, stdin, tool_time_counts)
        offer = self._offered(request, mounts)
        job = self._prepare(request, offer)

        def perform() -> Result:
            return self._perform(job, offer, toolbox, on_output, stdin, timeout)

        if job.deterministic is None:
            return perform()
        result = self._repeated().perform(request, job, perform)
        if result.cached and on_output is not None:
            for output in known_output(result):
                on_output(output.stream, output.text)
        return result

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
        """Runs a program in a microVM, in `/workspace`; see `Client.run_command`."""
        if on_output is not None or stdin is not None:
            check_callbacks(on_output, stdin)
        request = called_back(
            command_of(argv, env, limits, files, outputs, http), NO_TOOLS, on_output, stdin, True
        )
        offer = self._offered(request)
        return self._perform(self._prepare(request, offer), offer, NO_TOOLS, on_output, stdin, timeout)

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
    ) -> EmbeddedSession:
        """Begins a session: snippets that share their variables, their imports and their files. See `SessionOptions`.

        Close it, or use it as a context manager.
        """
        from wasmeval.session import options_of

        options = options_of(
            limits=limits, total_fuel=total_fuel, idle_seconds=idle_seconds, life_seconds=life_seconds,
            durability=durability, deterministic=deterministic, tier=tier,
        )  # fmt: skip
        if tier == "vm" or language == BASH:
            return EmbeddedSession(self, self._open_tiers()[0].create_session(language, options))
        runtime = self._catalogue.for_language(language)
        held = self._retained().create(language, runtime.translates_to or runtime.name, options)
        return EmbeddedSession(self, held)

    def attach(self, session_id: str) -> EmbeddedSession:
        """The session of that id: one of this evaluator's, or one that sleeps in its store. Raises NotFound."""
        in_vm = self._tiers[0].find_session(session_id) if self._tiers is not None else None
        return EmbeddedSession(self, in_vm or self._retained().find(session_id))

    def converse(
        self,
        code: str,
        *,
        language: str = "python",
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        mounts: Mounts = (),
        http: HttpPolicy | None = None,
        tools: Iterable[Tool] | Mapping[str, Function] = (),
        stdin: bool = False,
        tool_time_counts: bool = True,
        deterministic: Deterministic | bool = False,
        tier: str = "auto",
        timeout: float | None = None,
    ) -> Conversation:
        """Begins what `evaluate` does, for those who want the events; see `Client.converse`."""
        evaluation = evaluation_of(
            code, language, inputs, limits, files, outputs, names_of(mounts), http, deterministic, tier=tier
        )
        request = request_of(evaluation, tools, live=True, stdin=stdin, tool_time_counts=tool_time_counts)
        offer = self._offered(request, mounts)
        job = self._prepare(request, offer)
        finish = None if job.deterministic is None else partial(self._repeated().attested, request, job)
        return self._begin(job, offer, call_timeout(timeout), finish)

    def evaluate_batch(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[Result]:
        """Runs many evaluations, each in its own fresh instance; results in their order. See `evaluate`."""
        requests, jobs = [], []
        for index, evaluation in enumerate(evaluations):
            try:
                requests.append(request_of(evaluation))
                jobs.append(self._prepare(requests[-1], self._offered(requests[-1])))
            except InvalidArgument as error:
                raise at_index(index, error) from None
        if not any(job.deterministic for job in jobs):
            return self._perform_all(jobs, timeout)
        return self._repeated().perform_all(requests, jobs, lambda left: self._perform_all(left, timeout))

    def replay(self, *recordings: Recording | str | Path, timeout: float | None = None) -> Replay:
        """Repeats an evaluation from its recording, or the file that holds it; or the steps of a session, the first
        one first.

        `timeout` is of each. Raises InvalidArgument for what is no recording, and as `evaluate`.
        """
        from wasmeval.recording import loaded, replay_of, session_limits

        steps = loaded(recordings)
        first = steps[0]
        if not first.receipt.step:
            request = first.repetition
            job = self._prepare(request, self._offer)
            result = self._perform(job, self._offer, NO_TOOLS, None, None, timeout)
            return replay_of(steps, [self._repeated().notary.attest(job, result)])
        with self.session(
            first.request.language,
            limits=session_limits(steps),
            deterministic=first.beginning,
        ) as session:
            return replay_of(steps, [session._repeat(step.repetition, timeout) for step in steps])

    def runtimes(self) -> tuple[RuntimeInfo, ...]:
        """What is installed."""
        return runtime_infos(self._catalogue) + self._open_tiers()[0].runtimes

    def jail(self) -> list[list[Any]]:
        """The layers of the workers' jail as they found them: [name, holds, detail]."""
        return self._pool.jail()

    def close(self) -> None:
        """Ends the workers; evaluations that other threads wait for end as `cancelled`."""
        self._pool.close()
        self._backstage.close(self._end)

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _end(self) -> None:
        try:
            if self._tiers is not None:
                await self._tiers[0].aclose()
        finally:
            await self._offer.aclose()

    def _open_tiers(self) -> tuple[Vms, BothTiers]:
        with self._opening:
            if self._tiers is None:
                # Not before something needs a VM, or talks while it runs and may move to one.
                from wasmeval.vms import BothTiers, Vms

                vms = Vms(
                    self._backstage, self._catalogue, self._policy, self._vm, require_jail=self._require_jail
                )
                self._tiers = vms, BothTiers(self._pool, vms)
            return self._tiers

    def _begin(
        self,
        job: Job,
        offer: Offer,
        timeout: float | None,
        finish: Callable[[Result], Result] | None = None,
    ) -> EmbeddedConversation:
        tiers: Begins = self._pool if job.tier == "wasm" else self._open_tiers()[1]
        return EmbeddedConversation(tiers, self._backstage, offer, _granted(job), timeout, finish)

    def _again(
        self, jobs: Sequence[Job], firsts: list[Result], timeout: float | None, begun: float
    ) -> list[Result]:
        """The results of `jobs`, whose runs in workers ended `firsts`: those that need a VM run there, all at once."""
        both, left = self._open_tiers()[1], _left(timeout, begun)
        with ExitStack() as stack:
            crossing = {
                index: stack.enter_context(
                    EmbeddedConversation(
                        both.after(firsts[index]), self._backstage, self._offer, _granted(job), left
                    )
                )
                for index, job in enumerate(jobs)
                if _may_move(job, firsts[index])
            }
            try:
                for index, conversation in crossing.items():
                    firsts[index] = drive(conversation, NO_TOOLS, None, None)
            except DeadlineExceeded:
                text = f"the time-out of {timeout:g} s passed before the result arrived"
                raise DeadlineExceeded(text) from None
        return firsts

    def _retained(self) -> Retained:
        repeated = self._repeated()
        with self._opening:
            if self._sessions is None:
                # Not before there is a session: they take their time to load.
                from wasmeval.retained import Retained
                from wasmeval.sessions import Keeper, Sealer

                keeper = Keeper(
                    self._own_store(),
                    Sealer(self._snapshot_key),
                    self._images(),
                    notary=repeated.notary,
                    # Of several evaluators over one store, one at a time has a session.
                    owner=f"{os.getpid()}-{token_hex(8)}",
                )
                self._sessions = Retained(self._pool, keeper)
            return self._sessions

    def _repeated(self) -> Repeated:
        with self._opening:
            if self._repetition is None:
                from wasmeval.repeated import Repeated

                self._repetition = Repeated(self._own_store(), self._snapshot_key, self._images(), VERSION)
            return self._repetition

    def _own_store(self) -> Store:
        if self._store is None:
            from wasmeval.stores import open_store

            self._store = open_store("memory:")
        return self._store

    def _images(self) -> dict[str, str]:
        return {runtime.name: runtime.image_sha256 for runtime in self._catalogue.runtimes}

    def _perform_all(self, jobs: Sequence[Job], timeout: float | None) -> list[Result]:
        if any(job.grants or job.tier == "vm" for job in jobs):
            return self._converse_all(jobs, call_timeout(timeout))
        begun = monotonic()
        results = self._pool.evaluate_many(jobs, timeout)
        if any(map(_may_move, jobs, results)):
            return self._again(jobs, results, timeout, begun)
        return results

    def _perform(
        self,
        job: Job,
        offer: Offer,
        toolbox: Toolbox,
        on_output: OnOutput | None,
        stdin: Stdin | None,
        timeout: float | None,
    ) -> Result:
        if job.grants is not None or job.tier == "vm":
            return drive(self._begin(job, offer, call_timeout(timeout)), toolbox, on_output, stdin)
        begun = monotonic()
        result = self._pool.evaluate_many([job], timeout)[0]
        if _may_move(job, result):
            return self._again([job], [result], timeout, begun)[0]
        return result

    def _prepare(self, request: Request, offer: Offer) -> Job:
        return prepare(request, self._catalogue, self._policy, offer)

    def _offered(self, request: Request, mounts: Mounts = ()) -> Offer:
        is_replay = request.deterministic is not None and request.deterministic.transcript is not None
        if request.grants is not None and request.grants.http is not None and not is_replay:
            self._open_egress()
        if not isinstance(mounts, Mapping):
            return self._offer
        return replace(self._offer, folders={**self._offer.folders, **_folders(mounts)})

    def _open_egress(self) -> None:
        """Offer HTTP from now on, by one Egress for all. What sends requests is loaded for those who want some."""
        from wasmeval.egress import Egress, HttpCeiling

        with self._opening:
            if self._offer.egress is None:
                egress = Egress(self._ceiling or HttpCeiling.ANY_PUBLIC, self._credentials)
                self._offer = replace(self._offer, egress=egress)

    def _converse_all(self, jobs: Sequence[Job], timeout: float | None) -> list[Result]:
        """Those that were granted something answer their guests' calls meanwhile; all run at once."""
        with ExitStack() as stack:
            conversations = []
            for job in jobs:
                conversations.append(self._begin(job, self._offer, timeout))
                stack.enter_context(conversations[-1])
            results = []
            for conversation in conversations:
                results.append(drive(conversation, NO_TOOLS, None, None))
                if results[-1].moved:
                    # It took its time; others that have to move are sent on their way together.
                    for other in conversations:
                        other.look()
            return results


def _policy(
    defaults: Limits | None,
    ceilings: Limits | None,
    built_in: Limits,
    most: Limits,
    tier: str,
    in_vm: Policy | None,
) -> Policy:
    ceilings = (ceilings or Limits()).within(most, Limits())
    # Lower ceilings lower what is built in; what the caller asks for above them, the policy refuses.
    built_in = built_in.within(Limits(), ceilings)
    return Policy((defaults or Limits()).within(built_in, Limits()), ceilings, in_vm, tier)


_NOTHING_GRANTED = Grants()


def _granted(job: Job) -> Job:
    return job if job.grants is not None else replace(job, grants=_NOTHING_GRANTED)


def _may_move(job: Job, result: Result) -> bool:
    return result.status is Status.UNSUPPORTED and job.tier == "auto"


def _left(timeout: float | None, begun: float) -> float | None:
    seconds = call_timeout(timeout)
    return None if seconds is None else max(seconds - (monotonic() - begun), 1e-9)


def _folders(folders: Mapping[str, Folder | str | Path]) -> dict[str, Folder]:
    """Raises InvalidArgument for a name that can be no folder's, and for a path that is none."""
    found = {}
    for name, folder in folders.items():
        field = f"mounts.{name}"
        if not _FOLDER_NAME.fullmatch(name):
            raise InvalidArgument(
                field, "a name has letters, digits, '-', '_' and '.', and begins with a letter or digit"
            )
        found[name] = folder if isinstance(folder, Folder) else Folder(Path(folder))
        if not found[name].path.is_dir():
            raise InvalidArgument(field, f"{found[name].path} is no folder")
    return found


_FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)

_shared: tuple[int, Evaluator] | None = None
_starting = threading.Lock()


def evaluate(
    code: str,
    *,
    language: str = "python",
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
    deterministic: Deterministic | bool = False,
    cache: bool = False,
    tier: str = "auto",
    timeout: float | None = None,
) -> Result:
    """Runs one snippet as `Evaluator.evaluate`, on an evaluator that is started at first use and shared by this
    process."""
    return _evaluator().evaluate(
        code, language=language, inputs=inputs, limits=limits, files=files, outputs=outputs, mounts=mounts, http=http,
        tools=tools, on_output=on_output, stdin=stdin, tool_time_counts=tool_time_counts,
        deterministic=deterministic, cache=cache, tier=tier, timeout=timeout,
    )  # fmt: skip


def replay(*recordings: Recording | str | Path, timeout: float | None = None) -> Replay:
    """Repeats what was recorded as `Evaluator.replay`, on the evaluator of `evaluate`."""
    return _evaluator().replay(*recordings, timeout=timeout)


def _evaluator() -> Evaluator:
    global _shared
    with _starting:
        # After a fork the child makes its own: the parent's workers answer only the parent.
        if _shared is None or _shared[0] != os.getpid():
            _shared = (os.getpid(), Evaluator())
            atexit.register(_shared[1].close)
        return _shared[1]
