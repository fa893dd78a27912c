"""Keys and frames, for any text and any bytes."""

from __future__ import annotations

import re
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmeval.errors import InvalidArgument
from wasmeval.stores.directory import DirectoryStore, _file_of, _key_of
from wasmeval.stores.frames import MalformedFrame, header_of, parted
from wasmeval.stores.store import check_key, new_version

PART = st.from_regex(r"[a-z0-9_.-]{1,40}", fullmatch=True).filter(lambda part: part not in (".", ".."))
KEYS = st.lists(PART, min_size=1, max_size=4).map("/".join)
NEARLY = st.text(alphabet="a0_-./A =\n\0é", max_size=12)


@given(KEYS)
def test_every_key_that_can_be_is_taken_and_has_a_file_of_its_own(key: str) -> None:
    assert check_key(key) == key
    name = _file_of(key)
    assert "/" not in name and name not in (".", "..") and len(name) <= 200
    assert _key_of(name) == key


@given(NEARLY | st.text())
def test_a_key_is_taken_exactly_when_it_can_be(text: str) -> None:
    can_be = (
        1 <= len(text) <= 200
        and re.fullmatch(r"[a-z0-9_./-]+", text) is not None
        and all(part not in ("", ".", "..") for part in text.split("/"))
    )
    if can_be:
        assert check_key(text) == text
        return
    with pytest.raises(InvalidArgument, match=r"^key: "):
        check_key(text)


@given(st.text(alphabet="a=.A\n", max_size=12))
def test_two_files_never_have_one_key(name: str) -> None:
    assert _file_of(_key_of(name)) == name


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(KEYS, st.binary(max_size=40), max_size=6), st.text(alphabet="a0_-./", max_size=3))
def test_a_folder_keeps_any_keys_apart(records: dict[str, bytes], prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder, DirectoryStore(f"{folder}/store") as store:
        for key, data in records.items():
            store.create(key, data)
            store.put_blob(key, data)
        assert list(store.keys(prefix)) == sorted(key for key in records if key.startswith(prefix))
        for key, data in records.items():
            record = store.get(key)
            assert record is not None and record.data == data == store.get_blob(key)


@given(st.binary(max_size=200))
def test_a_frame_comes_apart_as_it_was_put_together(data: bytes) -> None:
    version = new_version()
    assert parted(header_of(version, data) + data) == (version, data)


@given(st.binary(max_size=60), st.data())
def test_a_frame_that_was_cut_or_changed_is_none(data: bytes, draw: st.DataObject) -> None:
    frame = header_of(new_version(), data) + data
    with pytest.raises(MalformedFrame):
        parted(frame[: draw.draw(st.integers(0, len(frame) - 1))])
    position = draw.draw(st.integers(0, len(frame) - 1))
    changed = bytearray(frame)
    changed[position] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(MalformedFrame):
        parted(bytes(changed))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_frame_or_said_to_be_none(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        parted(data)
