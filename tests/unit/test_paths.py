"""What paths of files in a workspace may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest_files import GuestFiles
from wasmeval.errors import InvalidArgument
from wasmeval.paths import MOST_FOLDERS, check_files, check_path, check_pattern

WRONG = {
    "": "'' has an empty name in it; write the path without",
    "/a": "'/a' must be relative; it is taken below /workspace",
    "a//b": "'a//b' has an empty name in it; write the path without",
    "a/": "'a/' has an empty name in it; write the path without",
    "./a": "'./a' has the name '.' in it; write the path without",
    "a/../b": "'a/../b' has the name '..' in it; write the path without",
    "a\0b": "'a\\x00b' has a NUL in it",
    "\ud800": "'\\ud800' cannot be written as UTF-8",
    "ä" * 128: f"{'ä' * 77 + '...'!r} has a name of 256 bytes, more than 255",
    "a/" * 2048 + "a": "a path of 4097 bytes, more than 4096",
}


@pytest.mark.parametrize(("path", "message"), WRONG.items())
def test_what_cannot_be_a_path_is_refused(path: str, message: str) -> None:
    for check in (check_path, check_pattern):
        with pytest.raises(InvalidArgument) as caught:
            check("files", path)
        assert (caught.value.field, caught.value.description) == ("files", message)


@pytest.mark.parametrize(
    "path", ["a", "data/in.csv", ".hidden", "...", "a\\b", "C:", "ä ö", "~", "a\nb", "x" * 255]
)
def test_everything_else_is_a_path(path: str) -> None:
    check_path("files", path)


def test_folders_are_only_so_deep() -> None:
    check_path("files", "d/" * MOST_FOLDERS + "file")
    with pytest.raises(InvalidArgument, match="is in 65 folders, more than 64"):
        check_path("files", "d/" * (MOST_FOLDERS + 1) + "file")


def test_patterns_have_as_many_parts_as_paths() -> None:
    check_pattern("outputs[0]", "**/" * MOST_FOLDERS + "*")
    with pytest.raises(InvalidArgument) as caught:
        check_pattern("outputs[0]", "**/" * (MOST_FOLDERS + 1) + "*")
    text = f"{'**/' * 25 + '**...'!r} has 66 parts, more than 65"
    assert (caught.value.field, caught.value.description) == ("outputs[0]", text)


@pytest.mark.parametrize("paths", [["a/b/c", "a/b"], ["a/b", "a/b/c"], ["a/b", "a/b/c/d"]])
def test_nothing_is_a_file_and_a_folder(paths: list[str]) -> None:
    with pytest.raises(
        InvalidArgument, match="'a/b' is a file and also a folder of another file; rename one"
    ):
        check_files("files", paths)


def test_files_and_their_folders_are_counted() -> None:
    assert check_files("files", []) == 0
    assert check_files("files", ["a/b", "a/c", "ab", "a/d/e"]) == 6


def test_too_many_are_refused_before_all_are_looked_at() -> None:
    looked_at = 0

    def endless() -> Iterator[str]:
        nonlocal looked_at
        while True:
            looked_at += 1
            yield f"{looked_at}/a"

    with pytest.raises(InvalidArgument) as caught:
        check_files("files", endless(), 10)
    text = "at least 12 files and folders, more than limits.workspace_files (10); raise it"
    assert (caught.value.description, looked_at) == (text, 6)


@given(st.sets(st.text(alphabet="ab/.\\\0ä", max_size=8), max_size=6))
def test_what_is_let_through_can_be_put_into_a_workspace(paths: set[str]) -> None:
    files = {path: path.encode() for path in paths}
    try:
        check_files("files", files)
    except InvalidArgument:
        return
    guest = GuestFiles(files=files)
    for path, content in files.items():
        assert guest.get(f"workspace/{path}") == content
