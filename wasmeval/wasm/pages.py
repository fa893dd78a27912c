"""Pages: which pages of a guest's memory are its own by now, told by the kernel, which copied them when they were
written.

A fresh instance's memory is its image, mapped copy-on-write: a page that was written is anonymous, one that was not
belongs to the image's file, or is not there at all.

Source: https://docs.kernel.org/admin-guide/mm/pagemap.html (PAGEMAP_SCAN is in Linux 6.7 and newer)
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable

PAGE_BYTES = 4096
_ENTRY_BYTES = 8

Run = tuple[int, int]
"""The first of some adjacent pages, counted from the start of the memory, and their number."""

PAGEMAP_SCAN = 0xC0606610
"""The ioctl's number: `_IOWR('f', 16, struct pm_scan_arg)`."""
_IS_FILE, _IS_PRESENT, _IS_SWAPPED, _IS_ZERO = 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MOST_RUNS = 4096

# Of an entry's highest byte: bit 7 present, bit 6 swapped, bit 5 of a file or shared.
_OWN = bytes(bool(byte & 0xC0) and not byte & 0x20 for byte in range(256))
_RUN = re.compile(b"\x01+")

_LARGE_BYTES = 1 << 16
_MADV_POPULATE_WRITE = 23

_libc = ctypes.CDLL(None, use_errno=True)


def populate(runs: Iterable[tuple[int, int]]) -> None:
    """Have pages of their own for the (address, size) of `runs`, which are about to be written. For a large one that
    takes half as long as a fault for each page; where the kernel cannot do it (Linux before 5.14) they are faulted in.
    """
    for address, size in runs:
        if size >= _LARGE_BYTES:
            _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), _MADV_POPULATE_WRITE)


class _ScanArgument(ctypes.Structure):
    """`struct pm_scan_arg`."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages",
            "category_inverted", "category_mask", "category_anyof_mask", "return_mask",
        )
    ]  # fmt: skip


class Pagemap:
    """This process's page map. To be made before the jail, in which no file can be opened."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._regions = (ctypes.c_uint64 * (3 * _MOST_RUNS))()
        self._told = memoryview(self._regions).cast("B").cast("Q")
        self._argument = _ScanArgument(
            size=ctypes.sizeof(_ScanArgument),
            vec=ctypes.addressof(self._regions),
            vec_len=_MOST_RUNS,
            category_inverted=_IS_FILE | _IS_ZERO,
            category_mask=_IS_FILE | _IS_ZERO,
            category_anyof_mask=_IS_PRESENT | _IS_SWAPPED,
            return_mask=_IS_FILE,
        )
        self._scans = True

    def own(self, address: int, size: int) -> list[Run]:
        """The pages among the `size` bytes at `address`, which is a page's, that are anonymous."""
        if self._scans:
            try:
                return self._scan(address, size)
            except OSError:
                self._scans = False  # An older kernel, which has no such ioctl.
        return self._read(address, size)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _scan(self, address: int, size: int) -> list[Run]:
        runs: list[Run] = []
        argument = self._argument
        argument.start, argument.end = address, address + size
        count = _MOST_RUNS
        # An answer that is not full is the last one; where the walk then ended is not told reliably (Linux 6.18).
        while count == _MOST_RUNS and argument.start < argument.end:
            count = _libc.ioctl(self._file, ctypes.c_ulong(PAGEMAP_SCAN), ctypes.byref(argument))
            if count < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            # Start, end and categories each; the kernel puts adjacent ones together, but not over the end of an answer.
            told = self._told[: 3 * count].tolist()
            found = [
                ((start - address) // PAGE_BYTES, (end - start) // PAGE_BYTES)
                for start, end in zip(told[::3], told[1::3], strict=True)
            ]
            if runs and found and sum(runs[-1]) == found[0][0]:
                found[0] = runs[-1][0], runs.pop()[1] + found[0][1]
            runs += found
            if count:
                argument.start = max(argument.walk_end, told[-2])
        return runs

    def _read(self, address: int, size: int) -> list[Run]:
        os.lseek(self._file, address // PAGE_BYTES * _ENTRY_BYTES, os.SEEK_SET)
        wanted, entries = size // PAGE_BYTES * _ENTRY_BYTES, bytearray()
        while len(entries) < wanted:
            piece = os.read(self._file, wanted - len(entries))
            if not piece:
                raise OSError("the page map ends early")
            entries += piece
        highest = entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_OWN)
        return [(match.start(), match.end() - match.start()) for match in _RUN.finditer(highest)]
