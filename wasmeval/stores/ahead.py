"""Ahead: threads for what may be done before anybody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Ahead:
    """At most so many `threads`, which end with the block. Where none can be started, as while the interpreter ends,
    what they would do is done at once."""

    def __init__(self, threads: int) -> None:
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have `call` done; by a single thread in the order of submission."""
        if self._threads is not None:
            try:
                return self._threads.submit(call, *arguments)
            except RuntimeError:
                # What was submitted before comes first.
                self._end()
        done: Future[T] = Future()
        try:
            done.set_result(call(*arguments))
        except BaseException as error:
            done.set_exception(error)
        return done

    def _end(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
