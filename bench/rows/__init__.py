"""The rows of the table, by the name they are asked for on the command line.

A row is a function that takes the settings and yields lines of the table as soon as they are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bench.report import Row
from bench.rows import (
    arrays,
    batches,
    cpu,
    embedded,
    fairness,
    files,
    grpc,
    http,
    memory,
    repetition,
    sessions,
    starting,
    tools,
    typescript,
    vm,
    waiting,
    workloads,
)
from bench.settings import Settings

ROWS: Mapping[str, Callable[[Settings], Iterator[Row]]] = {
    "grpc": grpc.rows,
    "embedded": embedded.rows,
    "cpu": cpu.rows,
    "batches": batches.rows,
    "python": workloads.python,
    "javascript": workloads.javascript,
    "loops": fairness.loops,
    "sleepers": fairness.sleepers,
    "tools": tools.rows,
    "waiting": waiting.rows,
    "files": files.rows,
    "http": http.rows,
    "typescript": typescript.rows,
    "sessions": sessions.rows,
    "repetition": repetition.rows,
    "numpy": arrays.rows,
    "memory": memory.rows,
    "vm": vm.rows,
    "run": starting.run,
    "serve": starting.serve,
}
