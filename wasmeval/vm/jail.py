"""Jail: what a virtual machine's own process is held in, should a guest ever break out of it.

Another user than the service's when that is root, namespaces of its own without a network (bubblewrap), no file but the
programs and libraries of the machine, resource limits, and the seccomp filter that qemu sets for itself. All that it
may talk to are the descriptors that it is given.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wasmeval.limits import MIB

_FIRST_USER = 2_000_000_000
_USERS = 100_000
"""Users that nobody has: each machine is one of them, so that none could signal another."""

_MOST_OTHER_BYTES = 3 << 30
"""Address space beside the guest's memory: code that was translated, libraries, stacks."""
_MOST_FILES = 64


@dataclass(frozen=True, slots=True)
class Layer:
    """A part of the jail, and whether this machine has it."""

    name: str
    ok: bool
    detail: str


def report() -> list[Layer]:
    """The layers, as they are to be had here."""
    bubblewrap = shutil.which("bwrap")
    layers = [
        Layer(
            "namespaces",
            bubblewrap is not None,
            "bubblewrap" if bubblewrap else "bubblewrap is not installed; apt-get install bubblewrap",
        )
    ]
    prlimit = shutil.which("prlimit")
    detail = "address space, file size, descriptors" if prlimit else "prlimit (util-linux) is not installed"
    layers.append(Layer("limits", prlimit is not None, detail))
    if os.getuid() == 0:
        setpriv = shutil.which("setpriv")
        detail = "a user of its own for each" if setpriv else "setpriv (util-linux) is not installed"
        layers.append(Layer("user", setpriv is not None, detail))
    else:
        layers.append(Layer("user", True, "this service's own, without any privilege"))
    return layers


def command(
    program: Sequence[str],
    number: int,
    devices: Sequence[Path] = (),
    told: int | None = None,
    *,
    memory_bytes: int,
    disk_bytes: int,
) -> list[str]:
    """`program` in the jail, of a guest with that memory and disk. `number` makes its user; `told` is a descriptor that
    gets its process's number, as JSON {"child-pid": ...}."""
    limits = _within_limits(memory_bytes, disk_bytes)
    return [*limits, *_as_user(number), *_in_namespaces(devices, told), *program]


def _within_limits(memory_bytes: int, disk_bytes: int) -> list[str]:
    """What it may take beside the guest's memory and disk. Before all else: later it is another user's process, whose
    limits cannot be set, or has begun what they are for."""
    if shutil.which("prlimit") is None:
        return []
    size = max(disk_bytes, memory_bytes) + MIB
    return ["prlimit", f"--as={memory_bytes + _MOST_OTHER_BYTES}", f"--fsize={size}", f"--nofile={_MOST_FILES}",
            "--core=0", "--msgqueue=0"]  # fmt: skip


def _as_user(number: int) -> list[str]:
    if os.getuid() != 0:
        return []
    user = _FIRST_USER + number % _USERS
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
            "--inh-caps=-all"]  # fmt: skip


def _in_namespaces(devices: Sequence[Path], told: int | None) -> list[str]:
    jail = ["bwrap", "--unshare-all", "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv",
            # A thread's own heap would be megabytes that nobody needs.
            "--setenv", "MALLOC_ARENA_MAX", "1", "--cap-drop",
            "ALL", "--proc", "/proc", "--dev", "/dev", "--chdir", "/"]  # fmt: skip
    jail += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in ("/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            jail += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            jail += ["--ro-bind", folder, folder]
    for device in devices:
        jail += ["--dev-bind", str(device), str(device)]
    # What it could write there would be the host's memory.
    jail += ["--remount-ro", "/dev", "--remount-ro", "/"]
    if told is not None:
        jail += ["--info-fd", str(told)]
    return [*jail, "--"]
