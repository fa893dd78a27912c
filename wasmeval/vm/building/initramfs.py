"""The initramfs: what the guest's kernel starts from. Written by us, because the guest's files change more often
than the image, and nothing else of an image has to be made anew then."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from wasmeval.errors import SetupError
from wasmeval.vm.images import VmImage

_DIRECTORIES = ("bin", "dev", "guest", "modules", "new", "proc", "sys")
_ALIGNMENT = 4


class Entry(NamedTuple):
    """One file of a cpio archive; `device` is (major, minor) of a device, and (0, 0) of everything else."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def make(image: VmImage, guest: Mapping[str, bytes]) -> bytes:
    """The initramfs of `image` with the files of `guest`, made in milliseconds: nothing is compressed.

    `init` among them becomes `/init`, the others `/guest/NAME`. Raises SetupError when the image lacks a part.
    """
    archive = io.BytesIO()
    try:
        write_cpio(entries(image.initramfs, guest), archive)
    except OSError as error:
        raise SetupError(f"cannot make the initramfs of the VM image {image.name!r}: {error}") from error
    return archive.getvalue()


def entries(parts: Path, guest: Mapping[str, bytes]) -> Iterator[Entry]:
    """What the initramfs holds, in order: a directory comes before what lies in it."""
    for name in _DIRECTORIES:
        yield Entry(name, stat.S_IFDIR | 0o755)
    # The kernel opens it for /init before anything is mounted.
    yield Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    yield Entry("bin/busybox", stat.S_IFREG | 0o755, (parts / "busybox").read_bytes())
    for path in sorted((parts / "modules").iterdir()):
        yield Entry(f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes())
    for name, content in sorted(guest.items()):
        if name == "init":
            yield Entry("init", stat.S_IFREG | 0o755, content)
        else:
            yield Entry(f"guest/{name}", stat.S_IFREG | 0o644, content)


def write_cpio(files: Iterator[Entry], out: BinaryIO) -> None:
    """Write `files` as a cpio archive of the format `newc`, all of root's, at time 0.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
    """
    number = 0
    for number, file in enumerate(files, 1):
        _write_entry(out, file, number)
    _write_entry(out, Entry("TRAILER!!!", 0), number + 1)


def _write_entry(out: BinaryIO, file: Entry, number: int) -> None:
    name = os.fsencode(file.name) + b"\0"
    links = 2 if stat.S_ISDIR(file.mode) else 1
    # Inode, mode, uid, gid, links, time, size, device (2), device it is (2), length of the name, no checksum.
    fields = (number, file.mode, 0, 0, links, 0, len(file.data), 0, 0, *file.device, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    for part in (header + name, file.data):
        out.write(part)
        out.write(bytes(-len(part) % _ALIGNMENT))
