"""Progress of a build: which stage it is in, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class Stage(NamedTuple):
    """One stage of a build. While it runs `done` is False, and `seconds` is how long it has run so far."""

    name: str
    seconds: float
    done: bool


StageCallback = Callable[[Stage], None]


class Stages:
    """Turns the begin of each stage into reports: a stage ends when the next one begins, or at `end`.

    `clock` is a parameter for tests. Reports come one at a time, from whichever thread began the stage.
    """

    def __init__(self, report: StageCallback, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._name = ""
        self._began = 0.0

    def begin(self, name: str) -> None:
        """The stage `name` begins; the same name again is the same stage."""
        with self._lock:
            if name == self._name:
                return
            self._finish()
            self._name, self._began = name, self._clock()
            self._report(Stage(name, 0.0, done=False))

    def tick(self) -> None:
        """Report the seconds of the running stage, if there is one."""
        with self._lock:
            if self._name:
                self._report(Stage(self._name, self._clock() - self._began, done=False))

    def end(self) -> None:
        """The running stage is done, and no other follows."""
        with self._lock:
            self._finish()

    def _finish(self) -> None:
        if self._name:
            self._report(Stage(self._name, self._clock() - self._began, done=True))
        self._name = ""
