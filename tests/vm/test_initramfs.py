"""What a guest starts from: the archive with its files, and the kernel and modules out of their packages."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.vm.making_images import put_image
from wasmeval.errors import SetupError
from wasmeval.vm import images
from wasmeval.vm.building import initramfs, kernel, lz4
from wasmeval.vm.building.initramfs import Entry
from wasmeval.vm.guest import guest_files

ELF = b"\x7fELF" + bytes(range(256)) * 40


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name, read by the format's description."""
    found = {}
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * index : place + 14 + 8 * index], 16) for index in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[place + 110 : place + 110 + length - 1].decode()
        place = (place + 110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[place : place + size])
        place = (place + size + 3) // 4 * 4


def test_the_archive_holds_the_image_s_parts_and_the_guest_s_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    put_image(tmp_path)
    guest = {"init": b"#!/bin/busybox sh\n", "agent.py": b"print()\n"}
    found = read_cpio(initramfs.make(images.find("default", tmp_path), guest))
    assert found["init"] == (stat.S_IFREG | 0o755, b"#!/bin/busybox sh\n")
    assert found["guest/agent.py"] == (stat.S_IFREG | 0o644, b"print()\n")
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, b"#!")
    assert found["modules/order"][1] == b"virtio.ko\n"
    assert found["dev/console"][0] == stat.S_IFCHR | 0o600
    names = list(found)
    assert names.index("modules") < names.index("modules/order")


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    put_image(tmp_path)
    image = images.find("default", tmp_path)
    assert initramfs.make(image, guest_files()) == initramfs.make(image, guest_files())


def test_an_image_without_its_parts_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    put_image(tmp_path)
    image = images.find("default", tmp_path)
    shutil.rmtree(image.initramfs)
    with pytest.raises(SetupError, match="cannot make the initramfs of the VM image 'default'"):
        initramfs.make(image, guest_files())


@pytest.mark.skipif(not shutil.which("cpio"), reason="cpio is not installed")
def test_another_program_reads_the_archive(tmp_path: Path) -> None:
    out = io.BytesIO()
    initramfs.write_cpio(
        iter([Entry("a", stat.S_IFDIR | 0o755), Entry("a/b", stat.S_IFREG | 0o600, b"12345")]), out
    )
    done = subprocess.run(
        ["cpio", "-i", "--quiet"], input=out.getvalue(), cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "a/b").read_bytes() == b"12345"


@given(st.lists(st.binary(max_size=9), max_size=4))
def test_whatever_length_files_have_they_are_aligned(contents: list[bytes]) -> None:
    out = io.BytesIO()
    initramfs.write_cpio((Entry(f"f{n}", stat.S_IFREG, data) for n, data in enumerate(contents)), out)
    assert [data for _, data in read_cpio(out.getvalue()).values()] == contents


def bz_image(payload: bytes) -> bytes:
    """As the kernel's build lays it out: one sector of boot code, `setup_sects` more, then the payload."""
    head = bytearray(0x400)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + b"trailer"


def legacy_lz4(data: bytes) -> bytes:
    """Literals alone, in one block."""
    length = len(data)
    more = b"" if length < 15 else b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])
    block = bytes([min(length, 15) << 4]) + more + data
    return lz4.MAGIC + struct.pack("<I", len(block)) + block


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress, legacy_lz4, bytes])
def test_the_kernel_is_found_however_it_is_packed(pack: object) -> None:
    payload = pack(ELF) + struct.pack("<I", len(ELF))  # type: ignore[operator]
    assert kernel.vmlinux(bz_image(payload))[: len(ELF)] == ELF


def test_what_is_no_kernel_is_told() -> None:
    with pytest.raises(SetupError, match="is no bzImage"):
        kernel.vmlinux(bytes(4096))
    with pytest.raises(SetupError, match="neither gzip, xz, zstd nor LZ4"):
        kernel.vmlinux(bz_image(b"whatever"))


def test_lz4_repeats_what_it_refers_to() -> None:
    # "abc", then 9 bytes from 3 before, then nothing more to copy but the end's literals "!".
    block = bytes([0x35]) + b"abc" + b"\x03\x00" + bytes([0x10]) + b"!"
    assert lz4.decompress(lz4.MAGIC + struct.pack("<I", len(block)) + block, 100) == b"abcabcabcabc!"


@pytest.mark.parametrize(
    "block", [b"\x10a\x05\x00", b"\x10a\x00\x00", b"\xf0\xff", b"\x1fa\x01\x00" + b"\xff" * 40_000]
)
def test_damaged_lz4_is_told(block: bytes) -> None:
    with pytest.raises(ValueError, match="block"):
        lz4.decompress(lz4.MAGIC + struct.pack("<I", len(block)) + block, 1 << 30)


@given(st.binary(max_size=64))
def test_no_bytes_of_lz4_do_more_than_be_refused(block: bytes) -> None:
    try:
        lz4.decompress(lz4.MAGIC + struct.pack("<I", len(block)) + block, 1 << 20)
    except ValueError:
        pass


def put_modules(folder: Path, builtin: str = "") -> Path:
    needs = {
        "virtio_ring": "",
        "virtio": "virtio_ring",
        "virtio_mmio": "virtio,virtio_ring",
        "virtio-blk": "virtio",
        "virtio_console": "virtio",
        "virtio-rng": "virtio",
        "erofs": "libcrc32c",
        "libcrc32c": "",
        "ext4": "",
        "quota_tree": "",
        "quota_v2": "quota_tree",
    }
    (folder / "kernel").mkdir(parents=True)
    for number, (name, depends) in enumerate(needs.items()):
        data = b"\x7fELF\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"
        path = folder / "kernel" / f"{name}.ko"
        if number % 2:
            path.with_suffix(".ko.xz").write_bytes(lzma.compress(data))
        else:
            path.write_bytes(data)
    (folder / "modules.builtin").write_text(builtin)
    return folder


def test_modules_come_after_those_they_need(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    order = kernel.collect_modules(put_modules(tmp_path / "6.1"), out)
    for before, after in (("virtio_ring", "virtio"), ("libcrc32c", "erofs"), ("quota_tree", "quota_v2")):
        assert order.index(before) < order.index(after)
    assert (out / "order").read_text().split() == [f"{name}.ko" for name in order]
    assert all((out / f"{name}.ko").read_bytes().startswith(b"\x7fELF") for name in order)


def test_what_the_kernel_has_built_in_needs_no_module(tmp_path: Path) -> None:
    modules = put_modules(tmp_path / "6.1", builtin="kernel/fs/ext4/ext4.ko\n")
    (modules / "kernel/ext4.ko").unlink()
    out = tmp_path / "out"
    out.mkdir()
    assert "ext4" not in kernel.collect_modules(modules, out)


def test_a_kernel_that_lacks_a_module_is_told(tmp_path: Path) -> None:
    modules = put_modules(tmp_path / "6.1")
    (modules / "kernel/erofs.ko").unlink()
    with pytest.raises(SetupError, match=r"the kernel 6\.1 has no module erofs, which the guest needs"):
        kernel.collect_modules(modules, tmp_path)
