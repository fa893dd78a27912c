"""Heap: what this process's C library does with memory that was given back."""

from __future__ import annotations

import ctypes
import sys

from wasmeval.limits import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_new_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new_bytearray.restype, _new_bytearray.argtypes = ctypes.py_object, (ctypes.c_char_p, ctypes.c_ssize_t)


def unfilled(size: int) -> bytearray:
    """So many bytes, which are whatever stood there before: for who overwrites them all. Zeros would take half as long
    as that does."""
    made: bytearray = _new_bytearray(None, size)
    return made


def keep_freed_memory() -> None:
    """Use memory again that was freed, up to some megabytes, before the system is asked for new: a megabyte of new
    pages takes half a millisecond, and each array is a message, a frame and a result. For processes of our own."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, 4 * MIB)
        mallopt(_M_TRIM_THRESHOLD, 16 * MIB)
