"""Settings: what a run was asked for."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """`quick`: a few samples of each, to see that it works; `workers`: of every service and evaluator; the paths are
    those of peers, None for those found by themselves."""

    quick: bool = False
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    native: Path | None = None
    plain_javascript: Path | None = None
    wasi_python: Path | None = None

    def of(self, full: T, quick: T) -> T:
        """`quick` in a quick run, else `full`."""
        return quick if self.quick else full


def say(text: str) -> None:
    """Tell whoever waits what is going on."""
    print(text, file=sys.stderr, flush=True)
