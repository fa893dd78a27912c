"""A library shows its guests each file of its archive, whole and in its place; what is no such archive is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from wasmeval.wasm.library import Library, LibraryFile
from wasmeval.wasm.nodes import Folder

FILES = {
    "top.txt": b"top",
    "deep/er/one.py": b"1\n" * 3000,
    "deep/two.py": b"",
    "deep/er/three.py": b"3",
    "\N{LATIN SMALL LETTER E WITH ACUTE}/x": b"accents",
}


def archive(path: Path, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as content:
        content.writestr("empty/", b"")
        for name, data in FILES.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = method
            # An extra field, whose length is elsewhere than that of the local header's own.
            entry.extra = b"\xfe\xca\x04\0abcd"
            content.writestr(entry, data)
    return path


def files_below(folder: Folder, path: str = "") -> dict[str, bytes]:
    found = {}
    for name, node in folder.names.items():
        here = f"{path}{name.decode()}"
        if isinstance(node, Folder):
            found.update(files_below(node, f"{here}/"))
        else:
            assert isinstance(node, LibraryFile)
            found[here] = node.read(0, node.size + 10)
    return found


@pytest.mark.parametrize("mount", ["/", "/usr/lib"])
def test_every_file_is_there_with_its_content(tmp_path: Path, mount: str) -> None:
    library = Library(archive(tmp_path / "a.zip"), mount)
    above = f"{mount.strip('/')}/".lstrip("/")
    assert files_below(library.root) == {f"{above}{name}": data for name, data in FILES.items()}


def test_a_part_of_a_file_ends_with_it(tmp_path: Path) -> None:
    library = Library(archive(tmp_path / "a.zip"))
    file = library.root.names[b"top.txt"]
    assert isinstance(file, LibraryFile)
    assert [file.read(1, 1), file.read(1, 100), file.read(3, 1), file.read(100, 1)] == [b"o", b"op", b"", b""]


def test_an_empty_folder_is_there(tmp_path: Path) -> None:
    assert isinstance(Library(archive(tmp_path / "a.zip")).root.names[b"empty"], Folder)


def test_compressed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not stored"):
        Library(archive(tmp_path / "a.zip", zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("end", [b"x", b"x" * 22])
def test_what_is_no_zip_is_refused(tmp_path: Path, end: bytes) -> None:
    for content in (end, archive(tmp_path / "a.zip").read_bytes() + end):
        (tmp_path / "b.zip").write_bytes(content)
        with pytest.raises(ValueError, match="is no zip"):
            Library(tmp_path / "b.zip")
