"""Which images there are, and which are refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm.making_images import MANIFEST, put_image
from wasmeval.errors import InvalidArgument, SetupError
from wasmeval.vm import images
from wasmeval.vm.images import Manifest, VmImage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "vm"
    found.mkdir(mode=0o700)
    return found


def test_an_image_is_found_by_its_name(folder: Path) -> None:
    put_image(folder, "data-science")
    image = images.find("data-science", folder)
    assert image.name == "data-science"
    assert image.manifest == MANIFEST
    assert image.root == folder / "data-science" / "root.erofs"
    assert image.size_bytes > 4096


def test_one_that_is_missing_says_how_to_get_it(folder: Path) -> None:
    with pytest.raises(SetupError, match=r"no VM image 'default' in .*; `wasmeval vm build` makes it"):
        images.find("default", folder)
    with pytest.raises(SetupError, match="`wasmeval vm build other` makes it"):
        images.find("other", folder)
    with pytest.raises(SetupError, match="`wasmeval vm build` makes it"):
        images.find("default", folder / "not-there")


def test_the_list_has_whole_images_and_says_what_is_wrong_with_others(folder: Path) -> None:
    for name in ("b", "a", "damaged"):
        put_image(folder, name)
    (folder / "damaged" / "root.erofs").write_bytes(b"short")
    (folder / ".new-c-1234").mkdir()
    (folder / "default.log").write_text("")
    found, wrong = images.list_images(folder)
    assert [image.name for image in found] == ["a", "b"]
    assert len(wrong) == 1
    assert (
        "has 5 bytes and should have 4096; remove it and build it again: wasmeval vm build damaged"
        in wrong[0]
    )
    assert images.list_images(folder / "not-there") == ([], [])


def test_removing_leaves_nothing_and_needs_no_whole_image(folder: Path) -> None:
    put_image(folder, "a")
    (folder / "a" / "manifest.json").write_text("{")
    images.remove("a", folder)
    assert os.listdir(folder) == []
    with pytest.raises(SetupError, match="there is no VM image 'a'"):
        images.remove("a", folder)


def test_removing_a_link_leaves_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    put_image(tmp_path, "elsewhere")
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    images.remove("a", folder)
    assert os.listdir(folder) == []
    assert (tmp_path / "elsewhere" / "root.erofs").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "A", ".new-x", "a" * 65, "a\n", "-a", "a-"])
def test_what_is_no_name_reaches_no_folder(name: str, folder: Path) -> None:
    for call in (images.find, images.remove):
        with pytest.raises(InvalidArgument, match="is no name of an image"):
            call(name, folder)


@pytest.mark.parametrize("part", ["", "root.erofs", "vmlinux", "initramfs", "initramfs/busybox"])
def test_what_others_could_write_is_refused(part: str, folder: Path) -> None:
    path = put_image(folder) / part
    path.chmod(path.stat().st_mode | 0o020)
    with pytest.raises(SetupError, match="could be written by others"):
        images.find("default", folder)


def test_a_folder_of_images_that_others_could_write_is_refused(folder: Path) -> None:
    put_image(folder)
    folder.chmod(0o777)
    with pytest.raises(SetupError, match="could be written by others"):
        images.find("default", folder)
    found, wrong = images.list_images(folder)
    assert not found
    assert "could be written by others" in wrong[0]


def test_a_link_is_no_image(folder: Path, tmp_path: Path) -> None:
    put_image(tmp_path, "elsewhere")
    (folder / "default").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="is a symbolic link"):
        images.find("default", folder)


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WASMEVAL_VM_IMAGES_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert images.default_folder() == Path("/home/somebody/.local/share/wasmeval/vm")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert images.default_folder() == Path("/data/wasmeval/vm")
    monkeypatch.setenv("WASMEVAL_VM_IMAGES_DIR", "/images")
    assert images.default_folder() == Path("/images")


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.decode(MANIFEST.encode().encode()) == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "its format is not 1"),
        ({"root": {"sha256": "z" * 64, "bytes": 1}}, "root.sha256 is no SHA-256"),
        ({"root": {"sha256": "a" * 64, "bytes": -1}}, "root.bytes is no number of bytes"),
        ({"root": {"sha256": "a" * 64, "bytes": True}}, "root.bytes is no number of bytes"),
        ({"root": []}, "root is no object"),
        ({"memory_bytes": 1 << 60}, "memory_bytes is no number of bytes"),
        ({"languages": {"bash": "5"}}, "languages has no python"),
        ({"languages": {"python": "3", "perl": "5"}}, "languages has 'perl'"),
        ({"languages": {"python": ""}}, "languages.python is no text"),
        ({"source": "\x1b[2J"}, "source is no text"),
        ({"created": "x" * 1001}, "created is no text"),
        ({"packages": {}}, "packages is no list"),
        ({"packages": [{"kind": "debian", "name": "a", "version": 1}]}, r"packages\[0\].version is no text"),
    ],
)
def test_a_manifest_is_not_believed(change: dict[str, Any], message: str) -> None:
    text = json.dumps({**json.loads(MANIFEST.encode()), **change}).encode()
    with pytest.raises(ValueError, match=message):
        Manifest.decode(text)


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b"1", b"null", b'{"format": 1}']))
def test_no_bytes_of_a_manifest_do_more_than_be_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whichever)
        Manifest.decode(text)


def test_a_manifest_without_end_is_refused(folder: Path) -> None:
    path = put_image(folder) / "manifest.json"
    with open(path, "wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(SetupError, match="it has more than 8388608 bytes"):
        VmImage.load(path.parent)


def test_an_image_of_another_size_is_told(folder: Path) -> None:
    put_image(folder, manifest=dataclasses.replace(MANIFEST, root_bytes=4097))
    with pytest.raises(SetupError, match="has 4096 bytes and should have 4097"):
        images.find("default", folder)
