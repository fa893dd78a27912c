"""Cleaning up after a build takes nothing that others have, whatever is mounted where it worked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wasmeval.vm.building import debian
from wasmeval.vm.building.removing import mounts_below, remove_tree
from wasmeval.vm.building.running import Runner

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def test_a_folder_is_removed_though_its_directories_forbid_it(tmp_path: Path) -> None:
    deep = tmp_path / "root" / "closed"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    deep.chmod(0)
    assert remove_tree(tmp_path / "root")
    assert os.listdir(tmp_path) == []
    assert remove_tree(tmp_path / "not-there")


def test_a_link_in_it_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir(mode=0o755)
    (tmp_path / "others/file").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "others")
    assert remove_tree(tmp_path / "root")
    assert os.listdir(tmp_path / "others") == ["file"]
    assert (tmp_path / "others").stat().st_mode & 0o777 == 0o755


def test_mounts_are_found_below_and_not_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "mountinfo"
    places = [f"{tmp_path}/a\\040b/shm", f"{tmp_path}/a\\040bc/shm", "/proc", f"{tmp_path}/a\\040b"]
    listing.write_text("".join(f"21 2 0:39 / {place} rw - tmpfs none rw\n" for place in places))
    monkeypatch.setattr("wasmeval.vm.building.removing._MOUNTS", listing)
    assert mounts_below(tmp_path / "a b") == [f"{tmp_path}/a b/shm", f"{tmp_path}/a b"]
    assert mounts_below(tmp_path / "other") == []


@only_root
def test_what_is_mounted_below_is_left_alone(tmp_path: Path) -> None:
    """In a mount namespace of its own, so that this machine keeps its mounts."""
    code = (
        "import subprocess, sys; from pathlib import Path; from wasmeval.vm.building.removing import remove_tree;"
        "others, root = map(Path, sys.argv[1:]);"
        "subprocess.run(['mount', '--bind', others, root / 'dev/shm'], check=True); print(remove_tree(root))"
    )
    (tmp_path / "others").mkdir()
    (tmp_path / "others/file").write_text("mine")
    (tmp_path / "root/dev/shm").mkdir(parents=True)
    (tmp_path / "root/kept").touch()
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", code]
    done = subprocess.run(
        [*command, tmp_path / "others", tmp_path / "root"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert (tmp_path / "others/file").read_text() == "mine"
    assert (tmp_path / "root/kept").exists()


@only_root
def test_what_a_build_mounts_is_not_seen_outside(tmp_path: Path) -> None:
    """The same words that mmdebstrap is started with, before a program that mounts and is killed."""
    (tmp_path / "others").mkdir()
    (tmp_path / "others/file").touch()
    (tmp_path / "root").mkdir()
    script = 'mount --bind "$1" "$2" && ls "$2" && kill -9 $$'
    heard: list[str] = []
    with pytest.raises(Exception, match=r"sh was killed by signal 9|sh failed with status 137"):
        Runner(tmp_path / "log").follow(
            [
                *debian._own_mounts(),
                "sh",
                "-c",
                script,
                "-",
                str(tmp_path / "others"),
                str(tmp_path / "root"),
            ],
            heard.append,
        )
    assert heard == ["file"]
    assert mounts_below(tmp_path / "root") == []
    assert os.listdir(tmp_path / "root") == []
