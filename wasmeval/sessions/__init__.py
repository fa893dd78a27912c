"""Sessions: state that lives between evaluations, sleeps in a store, and can be copied.

The plans in keeper.py say what is to be done, in which order; whoever has the workers does it, in threads or in an
event loop. Nothing here touches a worker, a socket or a clock of its own.
"""

from wasmeval.sessions.effects import Closing, Do, Effect, Fork, Hear, Mark, Open, Plan, Revert, State
from wasmeval.sessions.keeper import Keeper, new_id, no_such
from wasmeval.sessions.live import Live
from wasmeval.sessions.settings import SessionSettings
from wasmeval.sessions.snapshot import Bound, Sealer

__all__ = [
    "Bound",
    "Closing",
    "Do",
    "Effect",
    "Fork",
    "Hear",
    "Keeper",
    "Live",
    "Mark",
    "Open",
    "Plan",
    "Revert",
    "Sealer",
    "SessionSettings",
    "State",
    "new_id",
    "no_such",
]
