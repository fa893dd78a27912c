"""World: the time and the chance that a guest sees: as they are, or a function of a seed, a start time, and its fuel.

Nothing of it holds the guest: a worker collects no cycles.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from typing import Protocol

from wasmeval.determinism import World
from wasmeval.wasm import capi

FUEL_PER_NS = 20
"""About what a second of CPython spends in a nanosecond."""

_REALTIME = 0
# A guest's monotonic clock does not tell how long the machine has been up.
_MONOTONIC_BASE_NS = time.monotonic_ns() - 10**9
_MONOTONIC_START_NS = 10**9


class PastDeadline(Exception):
    """The guest slept past its deadline, by its own clock."""


class Sight(Protocol):
    """What a guest sees of time and chance."""

    def now_ns(self) -> int:
        """The wall clock, in nanoseconds since 1970."""

    def clock_ns(self, clock: int) -> int:
        """WASI's clock: the wall clock for 0, a monotonic one for the rest."""

    def entropy(self, length: int) -> bytes:
        """So many random bytes."""

    def wait(self, pause: int, is_awaited: bool) -> int:
        """The guest sleeps `pause` nanoseconds; `is_awaited`: something is under way for it. When it goes on, in
        monotonic nanoseconds of this machine; 0 for at once."""


class ActualWorld:
    """The world as it is."""

    __slots__ = ()

    def now_ns(self) -> int:
        """See Sight."""
        return time.time_ns()

    def clock_ns(self, clock: int) -> int:
        """See Sight."""
        return time.time_ns() if clock == _REALTIME else time.monotonic_ns() - _MONOTONIC_BASE_NS

    def entropy(self, length: int) -> bytes:
        """See Sight."""
        return os.urandom(length)

    def wait(self, pause: int, is_awaited: bool) -> int:
        """See Sight."""
        return time.monotonic_ns() + pause


ACTUAL = ActualWorld()


class FixedWorld:
    """A function of `world` and of what the guest, whose store has this `context`, has spent of `fuel`.

    Its clock may go `deadline_ns` far by sleeping; then wait raises PastDeadline.
    """

    __slots__ = (
        "_before_ns",
        "_context",
        "_deadline_ns",
        "_drawn",
        "_entropy",
        "_fuel",
        "_left",
        "_slept_ns",
        "_start_ns",
    )

    def __init__(self, world: World, context: int, fuel: int, deadline_ns: int) -> None:
        self._entropy = world.entropy
        self._start_ns = world.start_ns
        self._before_ns = world.before_ns
        self._context = context
        self._fuel = fuel
        self._left = ctypes.c_uint64()
        self._deadline_ns = deadline_ns
        self._slept_ns = 0
        self._drawn = 0

    def elapsed_ns(self) -> int:
        """How far its clock has gone. While the guest has its instance."""
        capi.context_get_fuel(self._context, ctypes.addressof(self._left))
        return self._slept_ns + max(0, self._fuel - self._left.value) // FUEL_PER_NS

    def now_ns(self) -> int:
        """See Sight."""
        return self._start_ns + self._before_ns + self.elapsed_ns()

    def clock_ns(self, clock: int) -> int:
        """See Sight."""
        start = self._start_ns if clock == _REALTIME else _MONOTONIC_START_NS
        return start + self._before_ns + self.elapsed_ns()

    def entropy(self, length: int) -> bytes:
        """See Sight."""
        self._drawn += 1
        return hashlib.shake_256(self._entropy + self._drawn.to_bytes(8, "little")).digest(length)

    def wait(self, pause: int, is_awaited: bool) -> int:
        """See Sight: at once, unless something is under way."""
        self.pass_time(pause)
        return time.monotonic_ns() + pause if is_awaited else 0

    def pass_time(self, pause: int) -> None:
        """Set its clock forward. Raises PastDeadline."""
        self._slept_ns += min(pause, self._deadline_ns + 1)
        if self.elapsed_ns() > self._deadline_ns:
            raise PastDeadline
