"""Share: how much of an event loop's time one guest may take by what it sends."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

SHARE = 0.125
"""Of the time that passes, in the long run. A guest that gives back files at full speed takes about as much."""
FREE_SECONDS = 0.1
"""At once: what comes in a burst is taken as it comes."""


class Share:
    """One guest's. What it takes is told by `took`; `pause` says how long it must not be heard.

    Frames cost the same however short they are, and so does every waking: without this a guest that sends single bytes
    would have the loop for itself, whatever its limits on bytes are.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._debt = 0.0
        self._counted = clock()

    def took(self, seconds: float) -> None:
        """It has had the loop for so long, until now."""
        now = self._clock()
        self._debt = max(0.0, self._debt - (now - self._counted) * SHARE) + seconds
        self._counted = now

    @property
    def pause(self) -> float:
        """In seconds; 0 for none."""
        return max(0.0, self._debt - FREE_SECONDS) / SHARE
