"""Evaluators for commands that need no service."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasmeval.embedded import Evaluator


@contextlib.contextmanager
def evaluator(*, is_known: bool) -> Iterator[Evaluator]:
    """An evaluator with one worker. With `is_known` it has this user's store and key: others of his can go on with
    what it seals."""
    from wasmeval.cli.progress import shown
    from wasmeval.embedded import Evaluator

    with contextlib.ExitStack() as stack:
        store = key = None
        if is_known:
            from wasmeval.storing import own_store

            store, key = own_store(os.environ)
            stack.enter_context(store)
        with shown(sys.stderr) as show:
            own = Evaluator(workers=1, store=store, snapshot_key=key, progress=show)
        yield stack.enter_context(own)
