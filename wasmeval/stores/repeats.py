"""Repeats: trying again what is safe to do twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Short: a caller waits, and a server that is gone for longer is for its caller to judge. Unmeasured.
PAUSES_SECONDS = (0.05, 0.25)


def repeated(
    call: Callable[[], T], is_worth: Callable[[Exception], bool], sleep: Callable[[float], None] = time.sleep
) -> T:
    """What `call` returns: at most three tries, while it raises what `is_worth` another. The last one's is raised."""
    for pause in PAUSES_SECONDS:
        try:
            return call()
        except Exception as error:
            if not is_worth(error):
                raise
        sleep(pause)
    return call()
