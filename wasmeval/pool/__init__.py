"""The parent's side of the workers: start, check out, kill, replace. One state machine, two ways to drive it.

`AsyncPool` is for the server (asyncio), `BlockingPool` for the embedded evaluator (threads). Both share
`PoolSettings`.
"""

from wasmeval.pool.blocking import BlockingPool
from wasmeval.pool.core import PoolStats
from wasmeval.pool.driven import AsyncPool
from wasmeval.pool.observer import Observer
from wasmeval.pool.settings import PoolSettings
from wasmeval.pool.ticket import Partner, Ticket

__all__ = ["AsyncPool", "BlockingPool", "Observer", "Partner", "PoolSettings", "PoolStats", "Ticket"]
