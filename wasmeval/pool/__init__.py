"""The parent's side of the workers: start, check out, kill, replace. One state machine, two ways to drive it.

`BlockingPool` is for the embedded evaluator (threads), `AsyncPool` for the server (asyncio); it is not loaded with the
rest, because asyncio would be most of that. Both share `PoolSettings`.
"""

from wasmeval.pool.blocking import BlockingPool
from wasmeval.pool.core import PoolStats
from wasmeval.pool.observer import Observer
from wasmeval.pool.settings import PoolSettings
from wasmeval.pool.ticket import Partner, Ticket

__all__ = ["BlockingPool", "Observer", "Partner", "PoolSettings", "PoolStats", "Ticket"]
