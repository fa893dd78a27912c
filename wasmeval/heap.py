"""Heap: what this process's C library does with memory that was given back."""

from __future__ import annotations

import ctypes
import sys

from wasmeval.limits import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Use memory again that was freed, up to some megabytes, before the system is asked for new: a megabyte of new
    pages takes half a millisecond, and each array is a message, a frame and a result. For processes of our own."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, 4 * MIB)
        mallopt(_M_TRIM_THRESHOLD, 16 * MIB)
