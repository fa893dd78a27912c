"""OCI archives: which image is meant, and that no damaged or foreign byte gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.vm import making_images
from tests.vm.making_images import configuration, descriptor, layer, oci_archive, sha256, write_tar
from wasmeval.errors import SetupError
from wasmeval.vm.building.oci import Archive

ONE, TWO = layer("a", "b"), layer("c")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(autouse=True)
def _on_a_pc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def contents(path: Path) -> list[bytes]:
    with Archive(path) as archive:
        return [b"".join(archive.unpacked(one)) for one in archive.layers()]


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_layers_come_in_order(packed: bool, tmp_path: Path) -> None:
    assert contents(oci_archive(tmp_path / "a.tar", ONE, TWO, packed=packed)) == [ONE, TWO]


def test_layers_of_zstd_are_read(tmp_path: Path) -> None:
    blob = zstandard.compress(ONE)
    config = configuration((ONE,))
    manifest = {"config": descriptor(config, "c"), "layers": [descriptor(blob, "tar+zstd")]}
    assert contents(indexed(tmp_path, [manifest_entry(manifest)], blob, config, manifest)) == [ONE]


def manifest_entry(manifest: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return descriptor(json.dumps(manifest).encode(), MANIFEST, **fields)


def indexed(tmp_path: Path, entries: list[dict[str, Any]], *blobs: bytes | dict[str, Any]) -> Path:
    data = [blob if isinstance(blob, bytes) else json.dumps(blob).encode() for blob in blobs]
    files = {"index.json": json.dumps({"manifests": entries}).encode()}
    return write_tar(tmp_path / "i.tar", {**files, **{f"blobs/sha256/{sha256(one)}": one for one in data}})


def simple(*layers: bytes, architecture: str = "amd64") -> tuple[dict[str, Any], bytes]:
    config = configuration(layers, architecture)
    return {"config": descriptor(config, "c"), "layers": [descriptor(one, "tar") for one in layers]}, config


def test_of_several_systems_this_machine_s_is_taken(tmp_path: Path) -> None:
    mine, mine_config = simple(ONE)
    other, other_config = simple(TWO, architecture="arm64")
    entries = [
        manifest_entry(other, platform={"os": "linux", "architecture": "arm64"}),
        manifest_entry(mine, platform={"os": "linux", "architecture": "amd64"}),
        manifest_entry(other, platform={"os": "unknown", "architecture": "unknown"}),
    ]
    path = indexed(tmp_path, entries, mine, other, mine_config, other_config, ONE, TWO)
    assert contents(path) == [ONE]


def test_an_index_in_an_index_is_followed_but_not_for_ever(tmp_path: Path) -> None:
    mine, config = simple(ONE)
    index: dict[str, Any] = {"manifests": [manifest_entry(mine)]}
    blobs = [mine, config, ONE]
    for depth in range(6):
        entry = descriptor(json.dumps(index).encode(), "application/vnd.oci.image.index.v1+json")
        blobs.append(index)
        path = indexed(tmp_path, [entry], *blobs)
        if depth < 4:
            assert contents(path) == [ONE]
        else:
            with pytest.raises(SetupError, match="indexes in indexes"):
                contents(path)
        index = {"manifests": [entry]}


def test_several_images_are_not_chosen_between(tmp_path: Path) -> None:
    one, first = simple(ONE)
    two, second = simple(TWO)
    path = indexed(tmp_path, [manifest_entry(one), manifest_entry(two)], one, two, first, second, ONE, TWO)
    with pytest.raises(SetupError, match="has 2 images, and which is meant is not said"):
        contents(path)


def test_an_image_for_another_machine_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is an image for linux/arm64; this machine runs linux/amd64"):
        contents(oci_archive(tmp_path / "a.tar", ONE, architecture="arm64"))
    other, config = simple(ONE, architecture="arm64")
    entry = manifest_entry(other, platform={"os": "linux", "architecture": "arm64"})
    with pytest.raises(SetupError, match="has no image for linux/amd64; it has linux/arm64"):
        contents(indexed(tmp_path, [entry], other, config, ONE))


def test_what_docker_saves_is_read(tmp_path: Path) -> None:
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["x/layer.tar", "y/layer.tar"]}]
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "c.json": configuration((ONE, TWO)),
        "x/layer.tar": ONE,
        "y/layer.tar": TWO,
    }
    assert contents(write_tar(tmp_path / "d.tar", files)) == [ONE, TWO]
    files["y/layer.tar"] = ONE
    with pytest.raises(SetupError, match="is damaged"):
        contents(write_tar(tmp_path / "d.tar", files))


@pytest.mark.parametrize("change", ["layer", "size", "config", "manifest", "diff_id"])
def test_a_byte_that_is_another_is_found(change: str, tmp_path: Path) -> None:
    manifest, config = simple(ONE)
    files = {f"blobs/sha256/{sha256(one)}": one for one in (ONE, config, json.dumps(manifest).encode())}
    if change == "size":
        manifest["layers"][0]["size"] += 1
    if change == "diff_id":
        config = configuration((TWO,))
        manifest["config"] = descriptor(config, "c")
        files[f"blobs/sha256/{sha256(config)}"] = config
    text = json.dumps(manifest).encode()
    files[f"blobs/sha256/{sha256(text)}"] = text
    changed = {"layer": ONE, "config": config, "manifest": text}.get(change)
    if changed is not None:
        files[f"blobs/sha256/{sha256(changed)}"] = changed[:-1] + b" "
    index = {"manifests": [descriptor(text, MANIFEST)]}
    with pytest.raises(SetupError, match="is damaged"):
        contents(write_tar(tmp_path / "a.tar", {"index.json": json.dumps(index).encode(), **files}))


def test_a_layer_cut_short_is_told(tmp_path: Path) -> None:
    path = oci_archive(tmp_path / "a.tar", ONE)
    import gzip

    whole = gzip.compress(ONE, 1)
    manifest, config = simple(ONE)
    manifest["layers"] = [descriptor(whole[:-12], "gzip")]
    path = indexed(tmp_path, [manifest_entry(manifest)], manifest, config, whole[:-12])
    with pytest.raises(SetupError, match="is cut short"):
        contents(path)


def test_a_layer_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasmeval.vm.building.oci._LARGEST_LAYER", 1 << 20)
    with pytest.raises(SetupError, match="has a layer of more than"):
        contents(oci_archive(tmp_path / "a.tar", layer("zeros", content=bytes(2 << 20))))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": b""}, "neither an index.json .* nor a manifest.json"),
        ({"index.json": b"{"}, "has a index.json that is no JSON"),
        ({"index.json": b"[]"}, "of another form"),
        ({"index.json": b"{}"}, "no usable `manifests`"),
        ({"index.json": b'{"manifests": [1]}'}, "a descriptor without a SHA-256"),
        ({"index.json": b'{"manifests": []}'}, "has no image for linux/amd64"),
        ({"index.json": b"[" * 100_000}, "no JSON"),
        ({"index.json": b" " * (9 << 20)}, "of more than 8 MiB"),
        (
            {"index.json": json.dumps({"manifests": [descriptor(b"x", MANIFEST)]}).encode()},
            "lacks blobs/sha256/",
        ),
        ({"manifest.json": b"[1, 2]"}, "has 2 images; save one alone"),
        ({"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}, "lacks ../../etc/passwd"),
    ],
)
def test_what_is_no_image_is_told(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=message):
        contents(write_tar(tmp_path / "a.tar", files))


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"something else")
    with pytest.raises(SetupError, match="cannot be read as an OCI archive"):
        contents(tmp_path / "a.tar")
    with pytest.raises(SetupError, match="cannot be read as an OCI archive"):
        contents(tmp_path / "none.tar")


def test_a_digest_is_no_path(tmp_path: Path) -> None:
    entry = {"digest": "sha256:../../../../etc/passwd", "size": 1}
    path = making_images.write_tar(
        tmp_path / "a.tar", {"index.json": json.dumps({"manifests": [entry]}).encode()}
    )
    with pytest.raises(SetupError, match="a descriptor without a SHA-256"):
        contents(path)
