"""Mirror: a session's instance as it was after its last good step: its own pages, its files, what it is beside them.

It is kept while the next step runs, so that one which ends badly leaves no trace: a new instance then takes the place
of the one that is lost. It is also what a fork begins with, and what a snapshot is made of.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator

from wasmeval.limits import MOST_MEMORY_BYTES
from wasmeval.wasm import capi, saved
from wasmeval.wasm.instance import Image, Instance, Rest
from wasmeval.wasm.pages import PAGE_BYTES, Pagemap, Run
from wasmeval.wasm.saved import Saved

_PIECE_BYTES = 1 << 20
_MAP_NORESERVE = 0x4000
"""Of mman.h; Python's module has no name for it."""


class Mirror:
    """Pages stand at the same place as in the guest's memory; what the guest never wrote takes no memory here
    either."""

    def __init__(self) -> None:
        # Address space, not memory: as much as a guest can ever have, whatever the operator's ceiling is.
        self._memory = mmap.mmap(
            -1, MOST_MEMORY_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        )
        # Few pages here and there: a huge page for each would take hundreds of times the memory, and time to clear.
        with contextlib.suppress(OSError):  # A kernel without huge pages.
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._runs: list[Run] = []
        self._rest: Rest | None = None
        self._files: Saved | None = None
        self._link = saved.Link()

    @property
    def rest(self) -> Rest:
        """Of the instance, when it was last taken."""
        assert self._rest is not None
        return self._rest

    @property
    def files(self) -> Saved | None:
        """Its files; None when it never had looked at one."""
        return self._files

    def take(self, instance: Instance, pagemap: Pagemap) -> None:
        """Be what `instance`, which rests, is now."""
        rest = instance.rest()
        runs = pagemap.own(instance.base, rest.memory_bytes)
        for first, count in runs:
            capi.write(
                self._base + first * PAGE_BYTES, instance.base + first * PAGE_BYTES, count * PAGE_BYTES
            )
        self._files = self._link.save(instance.wasi)
        self._runs, self._rest = runs, rest

    def instance(self, image: Image) -> Instance:
        """A new instance that is what was taken. Raises Trapped."""
        instance = Instance(image, self.rest)
        for first, count in self._runs:
            capi.write(
                instance.base + first * PAGE_BYTES, self._base + first * PAGE_BYTES, count * PAGE_BYTES
            )
        self._link = saved.Link()
        if self._files is not None:
            self._link.give(self._files, instance.wasi)
        return instance

    def twin(self) -> Mirror:
        """Another one of the same."""
        twin = Mirror()
        for first, count in self._runs:
            capi.write(twin._base + first * PAGE_BYTES, self._base + first * PAGE_BYTES, count * PAGE_BYTES)
        twin._runs, twin._rest, twin._files = self._runs, self._rest, self._files
        return twin

    @property
    def runs(self) -> list[Run]:
        """Its pages, ascending."""
        return self._runs

    def pages(self) -> Iterator[memoryview]:
        """The bytes of its runs, one after the other, in pieces of at most 1 MiB; good until it changes."""
        for first, count in self._runs:
            end = (first + count) * PAGE_BYTES
            for at in range(first * PAGE_BYTES, end, _PIECE_BYTES):
                yield memoryview(self._memory)[at : min(at + _PIECE_BYTES, end)]

    def put(self, rest: Rest, files: Saved | None, runs: list[Run], pages: memoryview) -> None:
        """Be this rest, these files and these runs, whose bytes `pages` are. Runs are within the memory, and go up."""
        with memoryview(self._memory) as memory:
            at = 0
            for first, count in runs:
                size = count * PAGE_BYTES
                memory[first * PAGE_BYTES : first * PAGE_BYTES + size] = pages[at : at + size]
                at += size
        self._runs, self._rest, self._files = runs, rest, files

    def close(self) -> None:
        """Give its memory back."""
        self._memory.close()
