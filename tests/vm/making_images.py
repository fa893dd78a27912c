"""Small images and OCI archives for tests, made without building anything."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from wasmeval.vm.images import Manifest, Package

MANIFEST = Manifest(
    created="2030-01-31T12:00:00+00:00",
    source="Debian bookworm",
    root_sha256="a" * 64,
    root_bytes=4096,
    kernel_sha256="b" * 64,
    kernel="linux-image-6.1.0-1-cloud-amd64 6.1.1-1",
    memory_bytes=1 << 30,
    disk_bytes=1 << 30,
    languages={"python": "3.11.2", "bash": "5.2.15"},
    packages=(Package("debian", "bash", "5.2.15-2", "GPL-3+"), Package("python", "numpy", "2.4.0")),
)


def put_image(images: Path, name: str = "default", manifest: Manifest = MANIFEST) -> Path:
    """A whole image of nothing, below `images`."""
    folder = images / name
    (folder / "initramfs" / "modules").mkdir(parents=True)
    folder.chmod(0o700)
    (folder / "root.erofs").write_bytes(bytes(4096))
    (folder / "vmlinux").write_bytes(b"\x7fELF")
    (folder / "initramfs" / "busybox").write_bytes(b"#!")
    (folder / "initramfs" / "modules" / "order").write_text("virtio.ko\n")
    (folder / "initramfs" / "modules" / "virtio.ko").write_bytes(b"module")
    (folder / "manifest.json").write_text(manifest.encode())
    return folder


def layer(*entries: tuple[str, dict[str, Any]] | str, content: bytes = b"x") -> bytes:
    """A tar file of `entries`: a name alone is a file with `content`, else name and fields of its TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            name, fields = (entry, {}) if isinstance(entry, str) else entry
            information = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(information, key, value)
            data = content if information.isreg() else b""
            information.size = len(data)
            archive.addfile(information, io.BytesIO(data))
    return out.getvalue()


def folder(name: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **fields}


def link(name: str, target: str) -> tuple[str, dict[str, Any]]:
    return name, {"type": tarfile.SYMTYPE, "linkname": target}


def hard_link(name: str, target: str) -> tuple[str, dict[str, Any]]:
    return name, {"type": tarfile.LNKTYPE, "linkname": target}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def descriptor(data: bytes, media_type: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data), **fields}


def oci_archive(path: Path, *layers: bytes, architecture: str = "amd64", packed: bool = True) -> Path:
    """An OCI image layout of one image with `layers`, in the tar file `path`."""
    blobs = [gzip.compress(one, 1) if packed else one for one in layers]
    config = configuration(layers, architecture)
    manifest = {
        "schemaVersion": 2,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(blob, "application/vnd.oci.image.layer.v1.tar+gzip") for blob in blobs],
    }
    text = json.dumps(manifest).encode()
    index = {"manifests": [descriptor(text, "application/vnd.oci.image.manifest.v1+json")]}
    files = {f"blobs/sha256/{sha256(blob)}": blob for blob in (*blobs, config, text)}
    return write_tar(path, {"oci-layout": b"{}", "index.json": json.dumps(index).encode(), **files})


def configuration(layers: tuple[bytes, ...], architecture: str = "amd64") -> bytes:
    diff_ids = [f"sha256:{sha256(one)}" for one in layers]
    document = {
        "os": "linux",
        "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(document).encode()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            information = tarfile.TarInfo(name)
            information.size = len(data)
            archive.addfile(information, io.BytesIO(data))
    return path
