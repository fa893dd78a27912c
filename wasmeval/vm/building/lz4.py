"""LZ4's legacy frames, as Linux packs a kernel with them, decompressed: no library of ours has them.

Source: lz4_Block_format.md and "Legacy frame" of lz4_Frame_format.md. A kernel of 45 MB takes two or three seconds.
"""

from __future__ import annotations

import struct

MAGIC = b"\x02\x21\x4c\x18"
_BLOCK_BYTES = 8 << 20


def decompress(data: bytes, most: int) -> bytes:
    """What the legacy frame `data` holds; what follows its last block is left aside.

    Raises ValueError for one that is damaged, or holds more than `most` bytes.
    """
    if not data.startswith(MAGIC):
        raise ValueError("no legacy frame of LZ4")
    out = bytearray()
    position, end = len(MAGIC), len(data)
    while end - position >= 4:
        (size,) = struct.unpack_from("<I", data, position)
        position += 4
        if size == 0 or size > end - position:
            # The kernel's build appends the unpacked size.
            break
        out += _block(data[position : position + size])
        position += size
        if len(out) > most:
            raise ValueError(f"it holds more than {most} bytes")
    return bytes(out)


def _block(block: bytes) -> bytearray:
    out = bytearray()
    position, end = 0, len(block)
    try:
        while position < end:
            token = block[position]
            position += 1
            length = token >> 4
            if length == 15:
                while True:
                    more = block[position]
                    position += 1
                    length += more
                    if more != 255:
                        break
            out += block[position : position + length]
            position += length
            if position >= end:
                break
            offset = block[position] | block[position + 1] << 8
            position += 2
            length = (token & 15) + 4
            if length == 19:
                while True:
                    more = block[position]
                    position += 1
                    length += more
                    if more != 255:
                        break
            start = len(out) - offset
            if offset == 0 or start < 0:
                raise ValueError("a block refers to what is not there")
            if offset >= length:
                out += out[start : start + length]
            else:
                # It repeats itself.
                out += (out[start:] * (length // offset + 1))[:length]
            if len(out) > _BLOCK_BYTES:
                raise ValueError("a block holds more than it may")
    except IndexError:
        raise ValueError("a block is cut short") from None
    return out
