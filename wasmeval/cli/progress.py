"""Compiling the images for this machine, with its progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from wasmeval.wasm.cache import CompileProgress

_BAR_WIDTH = 30
# Often enough to see that it lives, seldom enough for a log.
_SECONDS_BETWEEN_LINES = 3.0


def compile_images(cache_folder: Path | None = None) -> None:
    """Compile each installed image that is not in the cache yet, and say so on standard error meanwhile."""
    from wasmeval.runtimes import Catalogue
    from wasmeval.wasm.cache import Cache

    with shown(sys.stderr) as show:
        Cache(cache_folder).prepare(Catalogue.installed(), show)


@contextmanager
def shown(stream: TextIO) -> Iterator[Callable[[CompileProgress], None]]:
    """A callback that shows progress on `stream`: a bar on a terminal, else a line every few seconds."""
    renderer = _Bar(stream) if stream.isatty() else _Lines(stream)
    try:
        yield renderer.show
    finally:
        renderer.close()


class _Bar:
    """One line a runtime, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._runtime = ""
        self._covered = 0

    def show(self, progress: CompileProgress) -> None:
        if self._runtime not in {"", progress.runtime}:
            self._stream.write("\n")
        self._runtime = progress.runtime
        if progress.waiting:
            self._stream.write(f"\r{_waiting(progress)}")
            self._stream.flush()
            self._covered = len(_waiting(progress))
            return
        filled = _BAR_WIDTH * progress.done // max(progress.total, 1)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        self._stream.write(f"\r{' ' * self._covered}\r" if self._covered else "\r")
        self._covered = 0
        self._stream.write(
            f"compiling {progress.runtime:<12} [{bar}] {_percent(progress):3d} %  {progress.seconds:.0f} s"
        )
        self._stream.flush()

    def close(self) -> None:
        if self._runtime:
            self._stream.write("\n")
            self._stream.flush()


class _Lines:
    """A line when a runtime starts and ends, and one every few seconds between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._runtime = ""
        self._waited = False
        self._shown_at = 0.0

    def show(self, progress: CompileProgress) -> None:
        started = progress.runtime != self._runtime or progress.waiting != self._waited
        ended = progress.done >= progress.total
        if not started and not ended and progress.seconds - self._shown_at < _SECONDS_BETWEEN_LINES:
            return
        self._runtime, self._waited, self._shown_at = progress.runtime, progress.waiting, progress.seconds
        line = f"compiling {progress.runtime}: {_percent(progress)} %, {progress.seconds:.0f} s"
        self._stream.write((_waiting(progress) if progress.waiting else line) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing: every line is whole."""


def _waiting(progress: CompileProgress) -> str:
    return f"waiting for another process that compiles {progress.runtime}: {progress.seconds:.0f} s"


def _percent(progress: CompileProgress) -> int:
    return 100 * progress.done // max(progress.total, 1)
