"""VmSettings: how an embedding program, or a service, has virtual machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wasmeval.errors import InvalidArgument

_ACCELERATORS = ("auto", "kvm", "tcg")


@dataclass(frozen=True, slots=True)
class VmSettings:
    """What machines are booted from, and how many there are.

    `image` is one of `wasmeval vm list`, below `images_dir` or this user's own folder. `ready` machines wait for a job,
    at most `most` are there at a time, and `queue_size` jobs wait for one. Sessions have at most `most_sessions` of
    them, and never the last. `accelerator` is "kvm" (the processor's
    virtualisation), "tcg" (software emulation), or "auto" for the first that works. With `require_jail` none starts
    where a part of its jail is lacking. Raises InvalidArgument.
    """

    image: str = "default"
    images_dir: Path | None = None
    ready: int = 2
    most: int = 16
    queue_size: int = 256
    most_sessions: int = 8
    accelerator: str = "auto"
    require_jail: bool = False

    def __post_init__(self) -> None:
        for name, least in (("ready", 0), ("most", 1), ("queue_size", 1), ("most_sessions", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgument(
                    f"vm.{name}", f"must be a whole number of at least {least}, not {value!r}"
                )
        if self.accelerator not in _ACCELERATORS:
            raise InvalidArgument(
                "vm.accelerator", f"must be one of {_ACCELERATORS}, not {self.accelerator!r}"
            )
