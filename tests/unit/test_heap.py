"""Memory that is used again, in a process that has no other settings, and memory that nobody has filled."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from wasmeval.heap import unfilled

_MEGABYTES = """
import resource
from wasmeval.client import _expect_megabytes
from wasmeval.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        message = b"".join((bytes(1 << 20), b"more"))
        reply = message + b"more"
        del message, reply
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20

faults()
before = faults()
{call}()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")
@pytest.mark.parametrize("call", ["_expect_megabytes", "keep_freed_memory"])
def test_megabytes_are_used_again_once_they_are_expected(call: str) -> None:
    command = [sys.executable, "-c", _MEGABYTES.format(call=call)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout
    before, after = map(int, said.split())
    assert before > 256
    assert after < 64


def test_what_is_unfilled_is_as_long_as_it_should_be() -> None:
    for size in (0, 1, 1 << 16, 1 << 20):
        made = unfilled(size)
        memoryview(made)[:] = b"x" * size
        assert made == bytearray(b"x" * size)
