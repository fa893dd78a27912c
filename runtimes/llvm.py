"""What LLVM's instrumentation leaves in a module's memory, as far as both recipes read it alike."""

from __future__ import annotations

import hashlib
import zlib

from runtimes.snapshot import Reader


def function_names(section: bytes) -> dict[int, bytes]:
    """Function names by the first eight bytes of their MD5, which is how the records name them.

    `section` is the content of `__llvm_prf_names`: blocks of names, compressed or not, with zeros between.
    """
    names: dict[int, bytes] = {}
    reader = Reader(section)
    while reader.at < len(section):
        plain, packed = reader.unsigned(), reader.unsigned()
        block = zlib.decompress(reader.take(packed)) if packed else reader.take(plain)
        for name in block.split(b"\1"):
            names[int.from_bytes(hashlib.md5(name, usedforsecurity=False).digest()[:8], "little")] = name
        while reader.at < len(section) and section[reader.at] == 0:
            reader.at += 1
    return names
