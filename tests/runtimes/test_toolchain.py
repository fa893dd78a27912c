"""The promises of the tool chain: nothing is used that is not what the lock file pins."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from runtimes import toolchain
from runtimes.toolchain import Source, ToolchainError


def source(**files: str) -> Source:
    return Source("thing", "1", "made-up", "source", "MIT", files)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetcher(content: bytes, calls: list[str]) -> dict[str, object]:
    def fetch(wanted: Source, into: Path) -> None:
        calls.append(wanted.name)
        for name in wanted.files:
            (into / name).write_bytes(content)

    return {"made-up": fetch}


def test_every_entry_of_the_lock_file_is_pinned_by_version_and_digest() -> None:
    lock = toolchain.load_lock()
    assert {"quickjs-ng", "ziglang", "binaryen"} <= lock.keys()
    for entry in lock.values():
        assert entry.version
        assert entry.licence
        assert entry.role in ("source", "tool")
        assert entry.files
        assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in entry.files.values())


def test_the_lock_file_names_no_host() -> None:
    assert "://" not in toolchain.LOCK.read_text()


def test_a_right_archive_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(toolchain, "_FETCHERS", fetcher(b"right", calls))
    wanted = source(**{"thing.tar": digest(b"right")})
    assert toolchain.fetch(wanted, tmp_path) == toolchain.fetch(wanted, tmp_path) == [tmp_path / "thing.tar"]
    assert calls == ["thing"]


def test_another_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_FETCHERS", fetcher(b"wrong", []))
    with pytest.raises(ToolchainError, match="has another SHA-256"):
        toolchain.fetch(source(**{"thing.tar": digest(b"right")}), tmp_path)
    assert not (tmp_path / "thing.tar").exists()


def test_an_archive_that_was_changed_in_the_cache_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(toolchain, "_FETCHERS", fetcher(b"right", calls))
    (tmp_path / "thing.tar").write_bytes(b"changed")
    assert toolchain.fetch(source(**{"thing.tar": digest(b"right")}), tmp_path)[0].read_bytes() == b"right"
    assert calls == ["thing"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_with_one_top_folder_unpacks_to_it(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "archive"
    if kind == "tar":
        with tarfile.open(archive, "w") as tar:
            entry = tarfile.TarInfo("top/file")
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"ok"))
    else:
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr("top/file", "ok")
    top = toolchain.unpack(archive, tmp_path / "into")
    assert top == tmp_path / "into" / "top"
    assert (top / "file").read_text() == "ok"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", "deb [signed-by=/key] http://mirror.example/debian bookworm main\n"),
        ("sources.list.d/a.sources", "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n"),
    ],
)
def test_the_mirror_is_that_of_the_machine(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "0-other.list").write_text("deb http://other.example/things stable main\n")
    (tmp_path / name).write_text(text)
    assert toolchain.debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_a_machine_without_a_mirror_is_told(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no Debian mirror"):
        toolchain.debian_mirror(tmp_path)


def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(ToolchainError, match=r"ended with 3:\nlast words"):
        toolchain.run(["sh", "-c", "echo last words; exit 3"])
