"""Processes of machines, as the kernel of their host sees them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 20.0


def parents() -> dict[int, tuple[int, str, str]]:
    """Parent, state and name of every process."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                head, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
                state, parent = rest.split()[:2]
                found[int(entry)] = (int(parent), state, head.partition("(")[2])
    return found


def descendants(process: int) -> set[int]:
    """All below `process` that live."""
    family, found = parents(), {process}
    while more := {each for each, (parent, _, _) in family.items() if parent in found} - found:
        found |= more
    return {each for each in found - {process} if family[each][1] != "Z"}


def machines(process: int) -> dict[int, str]:
    """Those of machines below `process`, by number: bubblewrap's and qemu's own."""
    family = parents()
    names = {each: family[each][2] for each in descendants(process) if each in family}
    return {
        each: name for each, name in names.items() if name.startswith(("qemu", "bwrap", "setpriv", "prlimit"))
    }


def is_alive(process: int) -> bool:
    """Whether it runs, or could."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def gone(processes: set[int] | dict[int, str]) -> bool:
    """Whether all of them end, soon."""
    return soon(lambda: not any(map(is_alive, processes)))


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def files_below(folder: Path) -> Iterator[str]:
    """All that there is, sorted."""
    return iter(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))


def status(process: int | str) -> dict[str, str]:
    """What /proc says of it, or of one of its threads."""
    text = Path(f"/proc/{process}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def private_bytes(process: int) -> int:
    """Memory that it shares with nobody."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_"))
