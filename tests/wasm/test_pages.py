"""The kernel tells which pages of a guest are its own, in both ways of asking it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import pytest

from wasmeval.wasm.pages import PAGE_BYTES, Pagemap


@pytest.fixture(params=["scanned", "read"])
def pagemap(request: pytest.FixtureRequest) -> Iterator[Pagemap]:
    pagemap = Pagemap()
    pagemap._scans = request.param == "scanned"
    yield pagemap
    assert pagemap._scans == (request.param == "scanned"), "this kernel has no PAGEMAP_SCAN"
    pagemap.close()


def test_pages_that_were_written_are_a_guests_own(pagemap: Pagemap) -> None:
    descriptor = os.memfd_create("image")
    os.ftruncate(descriptor, 64 * PAGE_BYTES)
    os.pwrite(descriptor, b"image" * 1000, 0)
    memory = mmap.mmap(descriptor, 64 * PAGE_BYTES, flags=mmap.MAP_PRIVATE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert pagemap.own(address, len(memory)) == []
    assert memory[5 * PAGE_BYTES] == 0, "reading copies nothing"
    for page in (0, 1, 2, 9, 62, 63):
        memory[page * PAGE_BYTES + 17] = 1
    assert pagemap.own(address, len(memory)) == [(0, 3), (9, 1), (62, 2)]
    assert pagemap.own(address + 2 * PAGE_BYTES, 8 * PAGE_BYTES) == [(0, 1), (7, 1)]
    memory.close()
    os.close(descriptor)


def test_more_runs_than_one_answer_holds(pagemap: Pagemap) -> None:
    memory = mmap.mmap(-1, 20_000 * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in range(0, 20_000, 2):
        memory[page * PAGE_BYTES] = 1
    assert pagemap.own(address, len(memory)) == [(page, 1) for page in range(0, 20_000, 2)]
    memory.close()
