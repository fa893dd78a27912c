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
from wasmeval.wasm.pages import PAGE_BYTES, Pagemap, Run, populate
from wasmeval.wasm.saved import Saved

_PIECE_BYTES = 1 << 20
_MAP_NORESERVE = 0x4000
"""Of mman.h; Python's module has no name for it."""


_ZEROS = ctypes.create_string_buffer(PAGE_BYTES)
_ZEROS_AT = ctypes.addressof(_ZEROS)
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t


def _is_zero(address: int) -> bool:
    """Whether a page is one of zeros."""
    return not _memcmp(address, _ZEROS_AT, PAGE_BYTES)


class Space:
    """Pages at the same place as in the guest's memory; what the guest never wrote takes no memory here either.

    `holders` counts the mirrors that have it; one that has it with others does not write to it.
    """

    def __init__(self) -> None:
        self.holders = 1
        # Address space, not memory: as much as a guest can ever have, whatever the operator's ceiling is.
        self._memory = mmap.mmap(
            -1, MOST_MEMORY_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        )
        # Few pages here and there: a huge page for each would take hundreds of times the memory, and time to clear.
        with contextlib.suppress(OSError):  # A kernel without huge pages.
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def address(self, first: int) -> int:
        """Of a page."""
        return self._base + first * PAGE_BYTES

    def view(self, first: int, count: int) -> memoryview:
        """Some pages."""
        return memoryview(self._memory)[first * PAGE_BYTES : (first + count) * PAGE_BYTES]

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


class Packed:
    """The pages of some runs, one after the other, as they came in a state. Nobody writes to it."""

    def __init__(self, data: bytearray, at: int, runs: list[Run]) -> None:
        self.holders = 1
        self._data = data
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(data)) if data else 0
        self._places: dict[int, int] = {}
        for first, count in runs:
            self._places[first] = at
            at += count * PAGE_BYTES

    def address(self, first: int) -> int:
        """Of the first page of a run."""
        return self._start + self._places[first]

    def view(self, first: int, count: int) -> memoryview:
        """A run."""
        at = self._places[first]
        return memoryview(self._data)[at : at + count * PAGE_BYTES]

    def close(self) -> None:
        """Let go of the state."""
        self._data = bytearray()


class Mirror:
    """What an instance was. Twins have their pages in common until one of them is brought up to date."""

    def __init__(self) -> None:
        self._memory: Space | Packed | None = None
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
        rest, base = instance.rest(), instance.base
        runs = pagemap.own(base, rest.memory_bytes)
        memory = self._memory
        if not isinstance(memory, Space) or memory.holders > 1:
            memory = Space()
            self._let_go()
            self._memory = memory
            populate((memory.address(first), count * PAGE_BYTES) for first, count in runs)
        shift = memory.address(0)
        for first, count in runs:
            at = first * PAGE_BYTES
            capi.write(shift + at, base + at, count * PAGE_BYTES)
        self._files = self._link.save(instance.wasi)
        self._runs, self._rest = runs, rest

    def instance(self, image: Image) -> Instance:
        """A new instance that is what was taken. Raises Trapped."""
        instance = Instance(image, self.rest)
        base, memory = instance.base, self._memory
        assert memory is not None
        populate((base + first * PAGE_BYTES, count * PAGE_BYTES) for first, count in self._runs)
        for first, count in self._runs:
            capi.write(base + first * PAGE_BYTES, memory.address(first), count * PAGE_BYTES)
        self._link = saved.Link()
        if self._files is not None:
            self._link.give(self._files, instance.wasi)
        return instance

    def twin(self) -> Mirror:
        """Another one of the same."""
        twin = Mirror()
        assert self._memory is not None
        self._memory.holders += 1
        twin._memory = self._memory
        twin._runs, twin._rest, twin._files = self._runs, self._rest, self._files
        return twin

    @property
    def runs(self) -> list[Run]:
        """Its pages, ascending."""
        return self._runs

    def written(self, image_bytes: int) -> list[Run]:
        """Its pages, but for those of zeros beyond the image's `image_bytes`: those a new instance has by itself.
        What is left is the guest's doing, and not the kernel's, which may give it more pages than it has asked
        for."""
        assert self._memory is not None
        beyond = image_bytes // PAGE_BYTES
        told: list[Run] = []
        for first, count in self._runs:
            if first + count <= beyond:
                told.append((first, count))
                continue
            start = self._memory.address(first)
            begun = first
            for page in range(max(first, beyond), first + count):
                if _is_zero(start + (page - first) * PAGE_BYTES):
                    if page > begun:
                        told.append((begun, page - begun))
                    begun = page + 1
            if begun < first + count:
                told.append((begun, first + count - begun))
        return told

    def pages(self, runs: list[Run]) -> Iterator[memoryview]:
        """The bytes of such runs, one after the other, in pieces of at most 1 MiB; good until it changes."""
        owned = iter(self._runs)
        first = count = 0
        for at_page, pages in runs:
            assert self._memory is not None
            while first + count <= at_page:
                first, count = next(owned)
            run = self._memory.view(first, count)[(at_page - first) * PAGE_BYTES :][: pages * PAGE_BYTES]
            for at in range(0, len(run), _PIECE_BYTES):
                yield run[at : at + _PIECE_BYTES]

    def put(self, rest: Rest, files: Saved | None, runs: list[Run], state: bytearray, at: int) -> None:
        """Be this rest, these files and these runs, whose bytes are in `state` from `at` on; it is kept.

        Runs are within the memory, and go up.
        """
        self._let_go()
        self._memory = Packed(state, at, runs)
        self._runs, self._rest, self._files = runs, rest, files

    def close(self) -> None:
        """Give its memory back, unless a twin has it as well."""
        self._let_go()

    def _let_go(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.holders -= 1
            if not memory.holders:
                memory.close()
