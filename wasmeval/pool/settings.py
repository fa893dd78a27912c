"""PoolSettings: how many workers, and how much each may take."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from wasmeval.limits import CEILINGS, MIB


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`concurrency`: evaluations inside one worker at once, most of them waiting; `queue_size`: how many more
    may wait outside; `sessions`: live sessions inside one worker; `ready`: prepared instances a worker keeps of each
    runtime; `slice_seconds`: how long one guest runs before the next; `worker_memory_bytes`: what a worker's guests
    together may grow by;
    `max_memory_bytes`: the most one guest may have; `held_bytes`: code and inputs of all evaluations that wait or run,
    together; `grace_seconds`: how long past its deadline an evaluation
    may stay unanswered before its worker is killed; `require_jail`: refuse to start when a layer of the jail is
    missing.
    """

    workers: int = field(default_factory=available_cpus)
    concurrency: int = 1024
    queue_size: int = 4096
    sessions: int = 256
    held_bytes: int = 512 * MIB
    ready: int = 4
    slice_seconds: float = 0.001
    worker_memory_bytes: int = 2048 * MIB
    max_memory_bytes: int = CEILINGS.memory_bytes or 1024 * MIB
    grace_seconds: float = 1.0
    start_seconds: float = 60.0
    require_jail: bool = False
    cache_dir: Path | None = None
