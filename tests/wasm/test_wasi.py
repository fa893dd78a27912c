"""The WASI functions against a memory that is just bytes: every address checked, every answer an errno."""

from __future__ import annotations

import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmeval.wasm import errno, wasi
from wasmeval.wasm.library import Library

SIZE = 1 << 17


class Memory:
    """A guest's memory."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def read(self, address: int, length: int) -> bytes:
        if address + length > SIZE:
            raise wasi.Errno(wasi.FAULT)
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        if address + len(data) > SIZE:
            raise wasi.Errno(wasi.FAULT)
        self.data[address : address + len(data)] = data


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    archive = tmp_path_factory.mktemp("library") / "library.zip"
    with zipfile.ZipFile(archive, "w") as entries:
        entries.writestr("a.txt", b"hello")
        entries.writestr("sub/b.txt", b"world" * 100)
        entries.writestr("sub/deep/empty", b"")
    return Library(archive, "/usr/lib")


@pytest.fixture
def guest(library: Library) -> wasi.Wasi:
    return wasi.Wasi(Memory(), library)


def call(guest: wasi.Wasi, name: str, *arguments: int) -> int:
    try:
        wasi.FUNCTIONS[name][1](guest, *arguments)
    except wasi.Errno as error:
        return error.code
    return wasi.SUCCESS


def put(guest: wasi.Wasi, address: int, data: bytes) -> tuple[int, int]:
    guest.memory.write(address, data)
    return address, len(data)


def open_file(guest: wasi.Wasi, path: bytes, how: int = 0, rights: int = 2, fd: int = 3) -> tuple[int, int]:
    address, length = put(guest, 4096, path)
    code = call(guest, "path_open", fd, 0, address, length, how, rights, 0, 0, 64)
    return code, int.from_bytes(guest.memory.read(64, 4), "little")


def read_all(guest: wasi.Wasi, fd: int, size: int = 1000) -> bytes:
    guest.memory.write(128, struct.pack("<II", 8192, size))
    assert call(guest, "fd_read", fd, 128, 1, 256) == wasi.SUCCESS
    return guest.memory.read(8192, int.from_bytes(guest.memory.read(256, 4), "little"))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"usr/lib/a.txt", wasi.SUCCESS),
        (b"/usr/lib/a.txt", wasi.SUCCESS),
        (b"usr//lib/./sub/../a.txt", wasi.SUCCESS),
        (b"../../usr/lib/a.txt", wasi.SUCCESS),
        (b"usr/lib/a.txt/", errno.NOTDIR),
        (b"usr/lib/a.txt/x", errno.NOTDIR),
        (b"usr/lib/a.txt/..", errno.NOTDIR),
        (b"usr/lib/none", errno.NOENT),
        (b"etc/passwd", errno.NOENT),
        (b"../etc/passwd", errno.NOENT),
        (b"", errno.NOENT),
        (b"usr\0", errno.INVAL),
        (b"\xff\xfe", errno.ILSEQ),
        (b"a/" * 2049, errno.NAMETOOLONG),
    ],
)
def test_paths(guest: wasi.Wasi, path: bytes, code: int) -> None:
    found, fd = open_file(guest, path)
    assert found == code
    if code == wasi.SUCCESS:
        assert read_all(guest, fd) == b"hello"
        assert read_all(guest, fd) == b""


def test_a_folder_does_not_lead_out_of_itself(guest: wasi.Wasi) -> None:
    code, sub = open_file(guest, b"usr/lib/sub", how=2)
    assert code == wasi.SUCCESS
    assert open_file(guest, b"b.txt", fd=sub)[0] == wasi.SUCCESS
    assert open_file(guest, b"../a.txt", fd=sub)[0] == errno.PERM
    assert open_file(guest, b"/usr/lib/a.txt", fd=sub)[0] == errno.PERM


@pytest.mark.parametrize("how", [1, 4, 8, 1 | 4, 9])
def test_nothing_is_opened_to_be_changed(guest: wasi.Wasi, how: int) -> None:
    assert open_file(guest, b"usr/lib/new", how)[0] in (errno.ROFS, errno.NOENT)
    code, _ = open_file(guest, b"usr/lib/a.txt", how, rights=64)
    assert code in (errno.ROFS, errno.EXIST)
    assert open_file(guest, b"usr/lib/a.txt", 0, rights=64)[0] == errno.ROFS
    assert open_file(guest, b"usr/lib", 0, rights=64)[0] == errno.ISDIR


def test_closing_everything(guest: wasi.Wasi) -> None:
    for fd in range(300):
        call(guest, "fd_close", fd)
    assert open_file(guest, b"usr")[0] == errno.BADF
    guest.memory.write(128, struct.pack("<II", 8192, 3))
    guest.memory.write(8192, b"abc")
    assert call(guest, "fd_write", 1, 128, 1, 256) == wasi.SUCCESS
    assert guest.stdout.written == 3


def test_a_sleep_is_told_when_it_ends(guest: wasi.Wasi) -> None:
    subscription = struct.Struct("<QB7xI4xQQH6x")
    for timeout, flags, clock in (
        (10**9, 0, 1),
        (2**64 - 1, 0, 1),
        (0, 0, 1),
        (5, 1, 0),
        (2**64 - 1, 1, 0),
        (2**63, 1, 9),
    ):
        guest.memory.write(1024, subscription.pack(77, 0, clock, timeout, 0, flags))
        pause = guest.sleep(1024, 2048, 1, 64)
        assert pause >= 0
        if not flags:
            assert pause == timeout
        userdata, errno = struct.unpack("<QH", guest.memory.read(2048, 10))
        assert (userdata, errno) == (77, 0)
        assert guest.memory.read(64, 4) == b"\1\0\0\0"


def test_the_earliest_subscription_counts(guest: wasi.Wasi) -> None:
    subscription = struct.Struct("<QB7xI4xQQH6x")
    many = b"".join(subscription.pack(i, 0, 1, 10**9 * (10 - i), 0, 0) for i in range(10))
    guest.memory.write(1024, many)
    assert guest.sleep(1024, 8192, 10, 64) == 10**9
    assert struct.unpack("<Q", guest.memory.read(8192, 8)) == (9,)
    for count in (0, 257, 2**32 - 1):
        with pytest.raises(wasi.Errno):
            guest.sleep(1024, 8192, count, 64)


_ARGUMENT = st.one_of(
    st.integers(0, 20), st.integers(SIZE - 20, SIZE + 20), st.integers(0, SIZE), st.integers(2**32 - 20, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(sorted(wasi.FUNCTIONS)), st.lists(_ARGUMENT, min_size=9, max_size=9)),
        max_size=12,
    ),
    data=st.binary(max_size=200),
)
def test_any_arguments(library: Library, calls: list[tuple[str, list[int]]], data: bytes) -> None:
    """Nothing but an errno comes back: every other exception would cost the guest its life."""
    guest = wasi.Wasi(Memory(), library)
    guest.memory.write(0, data)
    for name, arguments in calls:
        parameters = wasi.FUNCTIONS[name][0]
        values = [a % 2**32 if p == "i" else a for p, a in zip(parameters, arguments, strict=False)]
        assert 0 <= call(guest, name, *values) < 100
    assert len(guest._descriptors) <= 256


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 5))
def test_any_path(library: Library, path: bytes, how: int) -> None:
    guest = wasi.Wasi(Memory(), library)
    code, fd = open_file(guest, path, how)
    assert code in (
        wasi.SUCCESS, errno.NOENT, errno.NOTDIR, errno.INVAL, errno.ROFS, errno.EXIST, errno.ISDIR, errno.ILSEQ,
        errno.NOSPC,
    )  # fmt: skip
    if code == wasi.SUCCESS:
        assert fd >= 4


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000), st.integers(0, 2**32 - 1))
def test_any_cookie(library: Library, cookie: int, length: int, out: int) -> None:
    guest = wasi.Wasi(Memory(), library)
    code, fd = open_file(guest, b"usr/lib", how=2)
    assert code == wasi.SUCCESS
    code = call(guest, "fd_readdir", fd, out, length, cookie, 64)
    assert code in (wasi.SUCCESS, wasi.FAULT)
    if code == wasi.SUCCESS:
        assert int.from_bytes(guest.memory.read(64, 4), "little") <= length or 61 <= out + 4 <= 72
