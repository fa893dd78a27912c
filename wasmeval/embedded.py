"""Evaluator: snippets run in worker processes of this program's own, without any service."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from wasmeval.errors import InvalidArgument
from wasmeval.inputs import encode_inputs
from wasmeval.limits import CEILINGS, DEFAULTS, Limits
from wasmeval.model import Evaluation, Job, Request, Result, RuntimeInfo, checked, evaluation_of
from wasmeval.pool import BlockingPool, PoolSettings
from wasmeval.runtimes import Catalogue
from wasmeval.service import Policy, prepare, runtime_infos
from wasmeval.wasm.cache import CompileProgress


class Evaluator:
    """The same methods as `Client`, over workers of its own; threads may share it.

    Making one starts `workers` processes (one for each CPU by default), which takes about 0.2 s; the very first
    one on a machine compiles the runtimes, which takes about 15 s and is told to `progress`. `defaults` and
    `ceilings` are the limits that apply where a call sets none, and that no call gets past. With `require_jail`
    it refuses to start where the kernel lacks a layer of the workers' jail. Close it, or use it as a context
    manager; it does not survive a fork.

    Raises SetupError when this machine cannot run guests, InvalidArgument for a default above its ceiling.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        defaults: Limits | None = None,
        ceilings: Limits | None = None,
        require_jail: bool = False,
        cache_dir: Path | None = None,
        progress: Callable[[CompileProgress], None] | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise InvalidArgument("workers", f"must be 1 or more, not {workers}")
        ceilings = (ceilings or Limits()).within(CEILINGS, Limits())
        # Lower ceilings lower what is built in; what the caller asks for above them, the policy refuses.
        built_in = DEFAULTS.within(Limits(), ceilings)
        self._policy = Policy((defaults or Limits()).within(built_in, Limits()), ceilings)
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
        self._pool = BlockingPool(settings, self._catalogue)
        self._pool.start(progress)

    def evaluate(
        self,
        code: str,
        *,
        language: str = "python",
        inputs: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Runs `code` with `inputs` as its variables. The snippet's own failures are in the Result.

        `timeout` bounds the whole call in seconds, queueing included; the guest is stopped when it passes. Raises
        InvalidArgument, DeadlineExceeded (that time-out) or Unavailable (closed).
        """
        job = self._prepare(evaluation_of(code, language, inputs, limits))
        return self._pool.evaluate_many([job], timeout)[0]

    def evaluate_batch(
        self, evaluations: Iterable[Evaluation], *, timeout: float | None = None
    ) -> list[Result]:
        """Runs many evaluations, each in its own fresh instance; results in their order. See `evaluate`."""
        jobs = []
        for index, evaluation in enumerate(evaluations):
            try:
                jobs.append(self._prepare(evaluation))
            except InvalidArgument as error:
                raise InvalidArgument(f"evaluations[{index}].{error.field}", error.description) from None
        return self._pool.evaluate_many(jobs, timeout)

    def runtimes(self) -> tuple[RuntimeInfo, ...]:
        """What is installed."""
        return runtime_infos(self._catalogue)

    def jail(self) -> list[list[Any]]:
        """The layers of the workers' jail as they found them: [name, holds, detail]."""
        return self._pool.jail()

    def close(self) -> None:
        """Ends the workers; evaluations that other threads wait for end as `cancelled`."""
        self._pool.close()

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, evaluation: Evaluation) -> Job:
        checked(evaluation)
        request = Request(
            evaluation.code, evaluation.language, encode_inputs(evaluation.inputs), evaluation.limits
        )
        return prepare(request, self._catalogue, self._policy)


_shared: tuple[int, Evaluator] | None = None
_starting = threading.Lock()


def evaluate(
    code: str,
    *,
    language: str = "python",
    inputs: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    timeout: float | None = None,
) -> Result:
    """Runs one snippet as `Evaluator.evaluate`, on an evaluator that is started at first use and shared by this
    process."""
    return _evaluator().evaluate(code, language=language, inputs=inputs, limits=limits, timeout=timeout)


def _evaluator() -> Evaluator:
    global _shared
    with _starting:
        # After a fork the child makes its own: the parent's workers answer only the parent.
        if _shared is None or _shared[0] != os.getpid():
            _shared = (os.getpid(), Evaluator())
            atexit.register(_shared[1].close)
        return _shared[1]
