"""Layers of an OCI image are anybody's: what they may do to the root they are applied to, and to nothing else."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.vm.making_images import folder, hard_link, layer, link, oci_archive
from wasmeval.errors import SetupError
from wasmeval.vm.building import tools, unpacking
from wasmeval.vm.building.layers import Layer, Refused
from wasmeval.vm.building.oci import Archive
from wasmeval.vm.building.removing import remove_tree
from wasmeval.vm.building.running import Runner

sandboxed = pytest.mark.skipif(not tools.find("bwrap"), reason="bubblewrap is not installed")


def apply(root: Path, *layers: bytes) -> Layer:
    for data in layers:
        applied = Layer(str(root))
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
            applied.apply(archive)
    return applied


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_files_keep_content_permissions_and_time(tmp_path: Path) -> None:
    apply(
        tmp_path,
        layer(folder("bin", mode=0o711, mtime=5), ("bin/sh", {"mode": 0o4755, "mtime": 7}), content=b"code"),
    )
    assert (tmp_path / "bin/sh").read_bytes() == b"code"
    assert stat.S_IMODE((tmp_path / "bin/sh").stat().st_mode) == 0o4755
    assert stat.S_IMODE((tmp_path / "bin").stat().st_mode) == 0o711
    assert (tmp_path / "bin/sh").stat().st_mtime == 7
    assert (tmp_path / "bin").stat().st_mtime == 5


def test_what_ran_as_another_user_does_not_run_as_root(tmp_path: Path) -> None:
    apply(tmp_path, layer(("game", {"mode": 0o4755, "uid": 5}), ("mail", {"mode": 0o2755, "gid": 8})))
    for name in ("game", "mail"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o755


def test_links_are_kept(tmp_path: Path) -> None:
    apply(tmp_path, layer("a", link("b", "a"), hard_link("c", "a"), link("out", "/etc/passwd")))
    assert os.readlink(tmp_path / "b") == "a"
    assert os.readlink(tmp_path / "out") == "/etc/passwd"
    assert (tmp_path / "c").stat().st_ino == (tmp_path / "a").stat().st_ino


def test_a_later_layer_replaces_and_hides(tmp_path: Path) -> None:
    lower = layer("a/kept", "a/hidden", "a/deep/file", "b", "c", content=b"old")
    upper = layer("a/.wh.hidden", "a/.wh.deep", folder("b"), "b/new", "c", content=b"new")
    apply(tmp_path, lower, upper)
    assert tree(tmp_path) == ["a", "a/kept", "b", "b/new", "c"]
    assert (tmp_path / "a/kept").read_bytes() == b"old"
    assert (tmp_path / "c").read_bytes() == b"new"


@pytest.mark.parametrize(
    "upper",
    [("a/.wh..wh..opq", "a/new", "a/deep/new"), ("a/new", "a/deep/new", "a/.wh..wh..opq")],
    ids=["before", "after"],
)
def test_an_opaque_folder_hides_lower_layers_only_wherever_it_says_so(
    upper: tuple[str, ...], tmp_path: Path
) -> None:
    apply(tmp_path, layer("a/old", "a/deep/old", "b"), layer(*upper))
    assert tree(tmp_path) == ["a", "a/deep", "a/deep/new", "a/new", "b"]


def test_a_folder_takes_the_place_of_a_link_and_a_link_that_of_a_folder(tmp_path: Path) -> None:
    apply(tmp_path, layer("a/x", link("b", "a")), layer(folder("b"), "b/y", link("a", "b")))
    assert not (tmp_path / "b").is_symlink()
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "b/y").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "a/..", "x" * 5000])
def test_a_name_that_goes_up_is_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(Refused):
        apply(root, layer(name))
    assert os.listdir(tmp_path) == ["root"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..."])
def test_hiding_the_folder_itself_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="hides"):
        apply(tmp_path, layer(name))


def test_an_absolute_name_is_one_from_the_root(tmp_path: Path) -> None:
    apply(tmp_path, layer("/etc/passwd", "./etc/group", "//a//b"))
    assert tree(tmp_path) == ["a", "a/b", "etc", "etc/group", "etc/passwd"]


def test_a_file_replaces_a_link_and_does_not_write_through_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_text("mine")
    apply(root, layer(link("a", str(outside)), "a"))
    assert outside.read_text() == "mine"
    assert (root / "a").read_bytes() == b"x"


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    device = ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})
    applied = apply(tmp_path, layer(device, ("pipe", {"type": tarfile.FIFOTYPE}), "a"))
    assert tree(tmp_path) == ["a"]
    assert applied.skipped == 2


def test_more_entries_or_bytes_than_allowed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasmeval.vm.building.layers.MOST_ENTRIES", 2)
    with pytest.raises(Refused, match="more than 2 entries"):
        apply(tmp_path, layer("a", "b", "c"))
    monkeypatch.setattr("wasmeval.vm.building.layers.MOST_BYTES", 2)
    with pytest.raises(Refused, match="GiB"):
        apply(tmp_path, layer("d", content=b"xxx"))


def unpack(archive: Path, tmp_path: Path) -> Path:
    """The layers of `archive` applied as a build does: each in the sandbox."""
    root = tmp_path / "root"
    root.mkdir()
    runner = Runner(tmp_path / "log")
    with Archive(archive) as image:
        for one in image.layers():
            unpacking._apply(image, one, root, runner)
    return root


@sandboxed
def test_links_that_lead_outside_lead_to_the_image_s_own_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("mine")
    hostile = layer(
        link("absolute", str(secret)),
        link("relative", "../../../../../../../../" + str(secret).lstrip("/")),
        link("program", "/program"),
        "absolute/written",
        hard_link("taken", "absolute/key"),
    )
    with pytest.raises(SetupError, match=r"puts files into 'absolute'|No such file"):
        unpack(oci_archive(tmp_path / "a.tar", hostile), tmp_path)
    assert os.listdir(secret) == ["key"]
    remove_tree(tmp_path / "root")
    inside = layer(folder(str(secret).lstrip("/")), link("absolute", str(secret)), "absolute/written")
    root = unpack(oci_archive(tmp_path / "b.tar", inside), tmp_path)
    assert os.listdir(secret) == ["key"]
    assert (root / str(secret).lstrip("/") / "written").read_bytes() == b"x"


@sandboxed
def test_whiteouts_through_links_remove_nothing_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("mine")
    lower = layer(link("absolute", str(secret)), "a")
    upper = layer("absolute/.wh.key", "absolute/.wh..wh..opq", ".wh.a")
    root = unpack(oci_archive(tmp_path / "a.tar", lower, upper), tmp_path)
    assert (secret / "key").read_text() == "mine"
    assert os.listdir(root) == ["absolute"]


@sandboxed
def test_finishing_follows_no_link_out_of_the_root(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    hostile = layer(
        link("etc", str(outside)),
        link("tmp", str(outside)),
        link("home", str(outside)),
        link("workspace", str(outside / "file")),
    )
    root = unpack(oci_archive(tmp_path / "a.tar", hostile), tmp_path)
    Runner(tmp_path / "log").follow(unpacking._sandboxed(root, "finish"), lambda line: None)
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == "mine"
    assert (root / "workspace").is_dir()
    assert (root / "home/user").is_dir()
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert "user:x:1000:1000::/home/user:/bin/bash\n" in (root / "etc/passwd").read_text()


@sandboxed
def test_finishing_gives_the_user_its_number_whoever_had_it(tmp_path: Path) -> None:
    given = layer("etc/passwd", content=b"root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n")
    root = unpack(oci_archive(tmp_path / "a.tar", given), tmp_path)
    Runner(tmp_path / "log").follow(unpacking._sandboxed(root, "finish"), lambda line: None)
    lines = (root / "etc/passwd").read_text().splitlines()
    assert lines == ["root:x:0:0::/root:/bin/sh", "user:x:1000:1000::/home/user:/bin/bash"]
