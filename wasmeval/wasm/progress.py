"""Progress: which evaluation a scheduler runs right now, on a page that whoever watches the process shares with it."""

from __future__ import annotations

import ctypes


class Progress(ctypes.Structure):
    """Written before and after every slice; read when the process died or seems to hang.

    `number` is the running evaluation's, 0 between slices; `deadline_ns` is when it has to be over, by the monotonic
    clock, which all processes share. To a reader in another process both are a hint: a guest that broke out could
    write here.
    """

    _fields_ = (("number", ctypes.c_uint64), ("deadline_ns", ctypes.c_uint64))

    number: int
    deadline_ns: int
