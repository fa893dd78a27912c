"""The guest's kernel: from Debian's package of it to what boots, an uncompressed ELF file and the modules it needs."""

from __future__ import annotations

import lzma
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import zstandard

from wasmeval.errors import SetupError
from wasmeval.vm.building import lz4
from wasmeval.vm.building.apt import Downloads

# Small, and made for virtual machines; the package that has the files is named for its version.
PACKAGE = "linux-image-cloud-amd64"
_VERSIONED = r"linux-image-\d.*-cloud-amd64"
BUSYBOX_PACKAGE = "busybox-static"

# The transport, the disk, the channels, entropy, the root's and the scratch disk's file systems, and its quota.
_MODULES = (
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "erofs",
    "ext4",
    "quota_v2",
)

# What the boot protocol calls these: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
_SETUP_SECTS, _MAGIC, _VERSION, _PAYLOAD = 0x1F1, 0x202, 0x206, 0x248
_LARGEST_KERNEL = 1 << 28
_LARGEST_MODULE = 1 << 26


def fetch(downloads: Downloads, work: Path, out: Path) -> dict[str, str]:
    """Put `vmlinux`, `initramfs/busybox` and `initramfs/modules` into `out`; the versions of the packages they are of.

    `work` takes what is unpacked on the way. Raises SetupError when the sources have no such packages, or the kernel
    lacks something that the guest needs.
    """
    package = downloads.dependency(PACKAGE, _VERSIONED)
    versions = downloads.unpack([package, BUSYBOX_PACKAGE], work)
    (image,) = sorted((work / "boot").glob("vmlinuz-*")) or _missing(package, "/boot/vmlinuz")
    (out / "vmlinux").write_bytes(vmlinux(image.read_bytes()))
    (modules,) = sorted((work / "lib/modules").glob("*")) or sorted((work / "usr/lib/modules").glob("*"))
    parts = out / "initramfs"
    (parts / "modules").mkdir(parents=True)
    collect_modules(modules, parts / "modules")
    busybox = next(
        (path for path in (work / "bin/busybox", work / "usr/bin/busybox") if path.is_file()), None
    )
    if busybox is None:
        _missing(BUSYBOX_PACKAGE, "/bin/busybox")
    else:
        (parts / "busybox").write_bytes(busybox.read_bytes())
        (parts / "busybox").chmod(0o755)
    return versions


def _missing(package: str, name: str) -> list[Path]:
    raise SetupError(f"the package {package} of this machine's apt sources has no {name}")


def vmlinux(image: bytes) -> bytes:
    """The kernel's ELF file, which the bzImage `image` carries compressed. Raises SetupError when there is none.

    qemu starts it by its PVH note: nothing has to be unpacked in the guest, where that takes a second.
    """
    if len(image) < 0x250 or image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise SetupError("the kernel package's vmlinuz is no bzImage")
    (version,) = struct.unpack_from("<H", image, _VERSION)
    if version < 0x208:
        raise SetupError(f"the kernel's boot protocol {version >> 8}.{version & 255:02} is older than 2.08")
    start, length = struct.unpack_from("<II", image, _PAYLOAD)
    begin = (image[_SETUP_SECTS] + 1) * 512 + start
    payload = image[begin : begin + length]
    data = _unpacked(payload, _LARGEST_KERNEL)
    if data[:4] != b"\x7fELF":
        raise SetupError(
            f"the kernel's payload begins with {payload[:6].hex()}: neither gzip, xz, zstd nor LZ4"
        )
    return data


def _unpacked(data: bytes, most: int) -> bytes:
    """`data` decompressed, whatever follows it left aside; as it is when nothing known."""
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(data, most)
    if data.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data, most)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if data.startswith(lz4.MAGIC):
        return lz4.decompress(data, most)
    return data


def collect_modules(folder: Path, out: Path) -> list[str]:
    """Put the modules that the guest needs from `folder` (`/lib/modules/VERSION`) into `out`, and their `order`.

    Raises SetupError when one is neither there nor built in.
    """
    files = {_module_name(path.name): path for path in folder.rglob("*.ko*") if path.is_file()}
    builtin = folder / "modules.builtin"
    built_in = {_module_name(line) for line in builtin.read_text().split()} if builtin.exists() else set()
    order: list[str] = []
    contents: dict[str, bytes] = {}

    def need(name: str, *, softly: bool) -> None:
        if name in contents or name in built_in:
            return
        if name not in files:
            if not softly:
                raise SetupError(f"the kernel {folder.name} has no module {name}, which the guest needs")
            return
        contents[name] = _unpacked(files[name].read_bytes(), _LARGEST_MODULE)
        for other in _listed(contents[name], b"depends"):
            need(other, softly=False)
        for other in _before(contents[name]):
            need(other, softly=True)
        order.append(name)

    for name in _MODULES:
        need(name, softly=False)
    for name, content in contents.items():
        (out / f"{name}.ko").write_bytes(content)
    (out / "order").write_text("".join(f"{name}.ko\n" for name in order))
    return order


def _module_name(path: str) -> str:
    """As modules call each other: without ending, with underscores."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _listed(module: bytes, key: bytes) -> list[str]:
    """The names, divided by commas, that `key` has in the module's `.modinfo`."""
    found = re.search(rb"\0" + key + rb"=([^\0]*)\0", module)
    names = found[1].decode("ascii", "replace") if found else ""
    return [_module_name(name) for name in names.split(",") if name]


def _before(module: bytes) -> Iterable[str]:
    """What the module wants loaded before it but does without: an algorithm that may be built in."""
    for found in re.findall(rb"\0softdep=pre: ([^\0]*)\0", module):
        for name in found.decode("ascii", "replace").split():
            yield _module_name(name)
            yield f"{_module_name(name)}_generic"
