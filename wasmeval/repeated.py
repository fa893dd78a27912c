"""Repeated: what an evaluator does for deterministic evaluations beside running them: receipts, recordings, answers
that are known. Loaded with the first of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from wasmeval.model import Job, Request, Result
from wasmeval.receipts import Notary
from wasmeval.recording import recorded
from wasmeval.stores import Store

if TYPE_CHECKING:
    from wasmeval.answers import Answers


class Repeated:
    """For one evaluator, whose `store` and `key` these are; `images` maps a runtime's name to its image's digest,
    `engine` is Wasmtime's version. Threads may share it."""

    def __init__(self, store: Store, key: bytes, images: Mapping[str, str], engine: str) -> None:
        self.notary = Notary(key, images, engine)
        self._store = store
        self._key = key
        self._opening = threading.Lock()
        self._answers: Answers | None = None

    def attested(self, request: Request, job: Job, result: Result) -> Result:
        """What `job` gave, with its receipt and its recording."""
        return recorded(self.notary.attest(job, result), request)

    def perform(self, request: Request, job: Job, perform: Callable[[], Result]) -> Result:
        """What is known of `job`, or what `perform` gives."""
        (result,) = self.perform_all([request], [job], lambda _: [perform()])
        return result

    def perform_all(
        self,
        requests: Sequence[Request],
        jobs: Sequence[Job],
        perform: Callable[[Sequence[Job]], Sequence[Result]],
    ) -> list[Result]:
        """What is known of `jobs`, and what `perform` gives for the others, in their order."""
        known = {
            index: answer
            for index, job in enumerate(jobs)
            if job.cache and (answer := self._open_answers().find(job)) is not None
        }
        left = [index for index in range(len(jobs)) if index not in known]
        performed = perform([jobs[index] for index in left]) if left else ()
        for index, result in zip(left, performed, strict=True):
            known[index] = self.notary.attest(jobs[index], result)
            if jobs[index].cache:
                self._open_answers().keep(jobs[index], known[index])
        return [recorded(known[index], request) for index, request in enumerate(requests)]

    def _open_answers(self) -> Answers:
        with self._opening:
            if self._answers is None:
                # Most ask for none; they take protobuf.
                from wasmeval.answers import Answers
                from wasmeval.sessions import Sealer

                self._answers = Answers(self._store, Sealer(self._key), self.notary)
            return self._answers
