"""Removing what a build made, and nothing that is only mounted there.

A root that is being built has this machine's own /dev/shm mounted below it for a while. Removed with such a mount, the
files of other programs would be gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")


def remove_tree(path: Path) -> bool:
    """Remove the folder `path`, also where its own directories forbid it. False when something is left of it.

    With anything mounted at or below it, nothing of it is touched: unmount that first.
    """
    if not os.path.lexists(path):
        return True
    if mounts_below(path):
        return False
    if not path.is_symlink():
        # Opened before it is listed.
        os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):
            for name in names:
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    with contextlib.suppress(OSError):
                        os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def mounts_below(path: Path) -> list[str]:
    """What is mounted at `path` or below. Raises OSError when the kernel does not tell."""
    inner = os.path.realpath(path)
    found = []
    for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        # Spaces and the like stand there as \040.
        place = re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), line.split(" ")[4])
        if place == inner or place.startswith(f"{inner}/"):
            found.append(place)
    return found
