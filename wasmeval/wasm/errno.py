"""Errno: WASI preview 1's error numbers, as far as we answer them."""

from __future__ import annotations

SUCCESS, ACCES, BADF, BUSY, EXIST, FAULT, FBIG, ILSEQ, INVAL, IO, ISDIR, LOOP, MFILE = (
    0, 2, 8, 10, 20, 21, 22, 25, 28, 29, 31, 32, 33
)  # fmt: skip
NAMETOOLONG, NOENT, NOSPC, NOSYS, NOTDIR, NOTEMPTY, NOTSOCK, NOTSUP, OVERFLOW, PERM, ROFS, SPIPE, XDEV, NOTCAPABLE = (
    37, 44, 51, 52, 54, 55, 57, 58, 61, 63, 69, 70, 75, 76
)  # fmt: skip


class Errno(Exception):
    """A WASI errno for the guest."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
