"""A golden machine that was kept is found whole or not at all, and what its agent says of it is not believed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from wasmeval.limits import MIB
from wasmeval.vm import golden, qemu
from wasmeval.vm.golden import Golden, Interpreter, Source

HARDWARE = qemu.Hardware(MIB, MIB)
TOLD: dict[str, Any] = {"languages": {"python": ["3.11.2", 1000], "bash": ["5.2.15", 0]}}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(qemu, "version", lambda: "7.2")
    root = tmp_path / "root"
    root.write_bytes(b"root")
    return Source(root, b"kernel", b"initramfs", "digest")


@pytest.fixture
def folder(tmp_path: Path, source: Source) -> Path:
    """Where one is kept."""
    kept = tmp_path / "golden" / golden._key(source, HARDWARE)
    kept.mkdir(parents=True)
    (kept / "golden.json").write_text(json.dumps(TOLD))
    (kept / "state").write_bytes(b"state")
    (kept / "disk").write_bytes(b"disk" + bytes(1000))
    with open(kept / "memory", "wb") as memory:
        memory.write(b"memory")
        memory.truncate(MIB)
    return kept.parent


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_was_kept_is_found_and_makes_disks(source: Source, folder: Path) -> None:
    before = descriptors()
    found = golden.find(source, HARDWARE, folder)
    assert isinstance(found, Golden)
    assert found.languages == {"python": Interpreter("3.11.2", 1000), "bash": Interpreter("5.2.15", 0)}
    assert os.pread(found.memory, 7, 0) == b"memory\0"
    assert os.pread(found.state, 99, 0) == b"state"
    disk = found._new_disk()
    assert os.fstat(disk).st_size == MIB
    assert os.pread(disk, 5, 0) == b"disk\0"
    os.close(disk)
    found.close()
    assert descriptors() == before
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("part", ["golden.json", "memory", "disk", "state"])
def test_one_that_lacks_a_part_is_none_and_leaves_nothing(source: Source, folder: Path, part: str) -> None:
    (kept,) = folder.iterdir()
    (kept / part).unlink()
    before = descriptors()
    assert golden.find(source, HARDWARE, folder) is None
    assert descriptors() == before


def test_one_that_is_replaced_meanwhile_is_not_mixed_with_the_other(
    source: Source, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept,) = folder.iterdir()
    sealed = golden._sealed

    def replaced(memory: int, size: int) -> int:
        shutil.rmtree(kept)
        kept.mkdir()
        (kept / "state").write_bytes(b"of the other")
        return sealed(memory, size)

    monkeypatch.setattr(golden, "_sealed", replaced)
    found = golden.find(source, HARDWARE, folder)
    assert found is not None
    assert os.pread(found.state, 99, 0) == b"state"
    found.close()


def test_a_folder_that_cannot_be_written_has_its_disks_elsewhere(
    source: Source, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = golden.find(source, HARDWARE, folder)
    assert found is not None
    assert found.folder != folder
    os.close(found._new_disk())
    found.close()


@pytest.mark.parametrize(
    "told",
    [
        {"languages": {"perl": ["5", 0]}},
        {"languages": {"python": ["3\x1b[2J", 0]}},
        {"languages": {"python": ["3" * 1001, 0]}},
        {"languages": {"python": ["3", -1]}},
        {"languages": {"python": ["3", 1 << 70]}},
        {"languages": {"python": "3"}},
        {"languages": []},
        {},
        [],
    ],
)
def test_what_no_agent_can_say_is_refused(source: Source, folder: Path, told: object) -> None:
    (kept,) = folder.iterdir()
    (kept / "golden.json").write_text(json.dumps(told))
    assert golden.find(source, HARDWARE, folder) is None
