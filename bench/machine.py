"""The machine at hand: what it is, and what its processes spend."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> str:
    """Processor, CPUs we may use, kernel, Python."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cpus = len(os.sched_getaffinity(0))
    return f"{model}, {cpus} CPUs, Linux {platform.release()}, CPython {platform.python_version()}"


def commit() -> str:
    """The commit of the working tree, with `-dirty` when it has more than that; `unknown` outside of git."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def load() -> float:
    """Processes that wanted a CPU in the last minute, on average: above zero before we start, the figures are noisy."""
    return os.getloadavg()[0]


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that live."""
    found: list[int] = []
    for task in _tasks(pid):
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that the processes have spent so far, in all their threads."""
    return sum(map(_cpu_seconds, pids))


def _cpu_seconds(pid: int) -> float:
    try:
        # Nanoseconds; /proc/PID/stat counts in hundredths of a second.
        return sum(int((task / "schedstat").read_text().split()[0]) for task in _tasks(pid)) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def private_dirty_bytes(pid: int | str = "self") -> int:
    """Memory that is the process's alone and that it has written to."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    return 0


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
