"""Renewal: what a warm interpreter must draw anew when it wakes in one of many copies of its memory.

The agent has given the kernel new entropy before; everything here draws on that. What asks the kernel each time
(`os.urandom`, `secrets`, `uuid.uuid4`, `numpy.random.default_rng`, `random.SystemRandom`) needs no renewal. The hash
seed of strings stays that of the snapshot, as in the Wasm image.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import struct
import sys
import tempfile
import time
import uuid
from typing import Any

_generators: list[random.Random] = []


def remember_generators() -> None:
    """Finds every generator that a loaded module holds. Called once, before the snapshot."""
    found = [each for each in gc.get_objects() if isinstance(each, random.Random)]
    _generators[:] = [each for each in found if not isinstance(each, random.SystemRandom)]


def renew() -> None:
    """Draws anew whatever was drawn before the snapshot, and lets clocks that began in it begin now."""
    for generator in _generators:
        generator.seed()
    tempfile._name_sequence = None  # type: ignore[attr-defined]
    uuid._node = uuid._last_timestamp = None  # type: ignore[attr-defined]
    _renew_openssl()
    _renew_numpy()
    _renew_multiprocessing()
    # Python 3.13 counts it in nanoseconds.
    now: Any = time.time_ns() if isinstance(logging._startTime, int) else time.time()  # type: ignore[attr-defined]
    logging._startTime = now  # type: ignore[attr-defined]


def _renew_openssl() -> None:
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(64), 64.0)


def _renew_numpy() -> None:
    """The one state that `numpy.random.rand` and its like share."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # Not from nothing, which takes it ten times as long.
        numpy_random.seed(struct.unpack("<16I", os.urandom(64)))


def _renew_multiprocessing() -> None:
    """The key with which processes of one program know each other."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process().authkey = os.urandom(32)
