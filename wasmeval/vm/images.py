"""Images: what a VM can be started from, each in a folder of its own with a manifest that describes it.

The kernel and the root of an image run with a VM's rights only, yet whoever can exchange them decides what everybody's
jobs run on: a folder that others could write is refused, as the cache of compiled code is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wasmeval.errors import InvalidArgument, SetupError

DEFAULT = "default"
FORMAT = 1
LANGUAGES = ("python", "javascript", "bash")

ROOT_NAME, KERNEL_NAME, INITRAMFS_NAME, MANIFEST_NAME = "root.erofs", "vmlinux", "initramfs", "manifest.json"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_MANIFEST = 8 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """One package in an image: `kind` is "debian" or "python"; `licence` is what it says itself, "" when nothing."""

    kind: str
    name: str
    version: str
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an image says of itself.

    `languages` are those it can run, with the version of the interpreter; `memory_bytes` and `disk_bytes` what its VMs
    have; `source` where it comes from, as a sentence part ("Debian bookworm", "OCI archive app.tar"); `created` the
    time in ISO 8601; `kernel` the version of the kernel's package.
    """

    created: str
    source: str
    root_sha256: str
    root_bytes: int
    kernel_sha256: str
    kernel: str
    memory_bytes: int
    disk_bytes: int
    languages: Mapping[str, str]
    packages: tuple[Package, ...] = field(repr=False)

    def encode(self) -> str:
        """As the text of `manifest.json`."""
        document = {
            "format": FORMAT,
            "created": self.created,
            "source": self.source,
            "root": {"sha256": self.root_sha256, "bytes": self.root_bytes},
            "kernel": {"sha256": self.kernel_sha256, "version": self.kernel},
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "languages": dict(self.languages),
            "packages": [
                {"kind": one.kind, "name": one.name, "version": one.version, "licence": one.licence}
                for one in self.packages
            ],
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def decode(cls, text: bytes) -> Manifest:
        """The manifest that `text` is. Raises ValueError that says what is wrong with it."""
        try:
            document = json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if _dict(document, "it").get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        root, kernel = _dict(document.get("root"), "root"), _dict(document.get("kernel"), "kernel")
        return cls(
            created=_text(document.get("created"), "created"),
            source=_text(document.get("source"), "source"),
            root_sha256=_digest(root.get("sha256"), "root.sha256"),
            root_bytes=_size(root.get("bytes"), "root.bytes"),
            kernel_sha256=_digest(kernel.get("sha256"), "kernel.sha256"),
            kernel=_text(kernel.get("version"), "kernel.version"),
            memory_bytes=_size(document.get("memory_bytes"), "memory_bytes"),
            disk_bytes=_size(document.get("disk_bytes"), "disk_bytes"),
            languages=languages_of(document.get("languages")),
            packages=packages_of(document.get("packages")),
        )


@dataclass(frozen=True, slots=True)
class VmImage:
    """One image that is whole: its name, its folder, and what its manifest says."""

    name: str
    folder: Path
    manifest: Manifest

    @property
    def root(self) -> Path:
        """The root file system, erofs, which every VM of this image has read-only."""
        return self.folder / ROOT_NAME

    @property
    def kernel(self) -> Path:
        """The guest's kernel: an uncompressed ELF file."""
        return self.folder / KERNEL_NAME

    @property
    def initramfs(self) -> Path:
        """The folder of what an initramfs is made of, but for wasmeval's own files: `busybox` and `modules/`."""
        return self.folder / INITRAMFS_NAME

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, a snapshot of its VM included."""
        files = (path.lstat() for path in self.folder.rglob("*"))
        return sum(512 * status.st_blocks for status in files if stat.S_ISREG(status.st_mode))

    @classmethod
    def load(cls, folder: Path) -> VmImage:
        """The image in `folder`. Raises SetupError when it is damaged, of another format or could be others' work."""
        remedy = f"remove it and build it again: wasmeval vm build {folder.name}"
        try:
            check_owner(folder)
            path = folder / MANIFEST_NAME
            with open(path, "rb") as file:
                text = file.read(_LARGEST_MANIFEST + 1)
            if len(text) > _LARGEST_MANIFEST:
                raise ValueError(f"it has more than {_LARGEST_MANIFEST} bytes")
            manifest = Manifest.decode(text)
            image = cls(folder.name, folder, manifest)
            for part in (image.root, image.kernel, image.initramfs, image.initramfs / "busybox"):
                check_owner(part)
            actual = image.root.stat().st_size
        except (OSError, ValueError) as error:
            raise SetupError(f"{folder} is no usable VM image: {error}; {remedy}") from error
        if actual != manifest.root_bytes:
            raise SetupError(
                f"{image.root} has {actual} bytes and should have {manifest.root_bytes}; {remedy}"
            )
        return image


def default_folder() -> Path:
    """`$WASMEVAL_VM_IMAGES_DIR`, else `wasmeval/vm` below `$XDG_DATA_HOME` or `~/.local/share`."""
    if chosen := os.environ.get("WASMEVAL_VM_IMAGES_DIR"):
        return Path(chosen).absolute()
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data).absolute() / "wasmeval" / "vm"
    try:
        return Path.home() / ".local" / "share" / "wasmeval" / "vm"
    except RuntimeError as error:
        raise SetupError(
            f"this user (uid {os.geteuid()}) has no home folder for VM images; set WASMEVAL_VM_IMAGES_DIR"
        ) from error


def check_name(name: str) -> None:
    """Raise InvalidArgument for what is no name of an image."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            "name",
            f"{name[:80]!r} is no name of an image: up to 64 of a-z, 0-9, and between them also . _ -",
        )


def list_images(images: Path | None = None) -> tuple[list[VmImage], list[str]]:
    """The images below `images` (default: `default_folder()`) by name, and what is wrong with each that is not whole.

    A folder that is not there holds none.
    """
    images = images or default_folder()
    found: list[VmImage] = []
    wrong: list[str] = []
    try:
        names = sorted(os.listdir(images))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"cannot list the VM images in {images}: {error.strerror}"]
    try:
        check_owner(images)
    except (OSError, ValueError) as error:
        return [], [f"{images}: {error}"]
    for name in names:
        if not _NAME.fullmatch(name) or not (images / name).is_dir():
            continue
        try:
            found.append(VmImage.load(images / name))
        except SetupError as error:
            wrong.append(str(error))
    return found, wrong


def find(name: str = DEFAULT, images: Path | None = None) -> VmImage:
    """The image `name`. Raises SetupError that says how to get one when it is not there, InvalidArgument for a name
    that none can have."""
    check_name(name)
    images = images or default_folder()
    folder = images / name
    if not os.path.lexists(folder):
        command = "wasmeval vm build" if name == DEFAULT else f"wasmeval vm build {name}"
        raise SetupError(f"there is no VM image {name!r} in {images}; `{command}` makes it")
    try:
        check_owner(images)
    except (OSError, ValueError) as error:
        raise SetupError(f"{images}: {error}; set WASMEVAL_VM_IMAGES_DIR") from error
    return VmImage.load(folder)


def remove(name: str, images: Path | None = None) -> None:
    """Remove the image `name` with its snapshot, whole or damaged. VMs that run of it go on: they have it open.

    Raises SetupError when it is not there or cannot be removed.
    """
    check_name(name)
    images = images or default_folder()
    folder = images / name
    # Renamed first: an image is there or not, never half.
    away = images / f".removed-{name}-{os.getpid()}"
    try:
        os.rename(folder, away)
        if away.is_symlink():
            away.unlink()
        else:
            shutil.rmtree(away)
    except FileNotFoundError:
        raise SetupError(f"there is no VM image {name!r} in {images}") from None
    except OSError as error:
        raise SetupError(f"cannot remove the VM image {folder}: {error.strerror}") from error


def check_owner(path: Path) -> None:
    """Raise ValueError when someone beside this user and root could write what is at `path`, or exchange it.

    OSError when it cannot be looked at.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ValueError(f"{path} is a symbolic link, whose target others could exchange")
    if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o022:
        raise ValueError(f"{path} could be written by others, and jobs would run on what they wrote")


def languages_of(value: object) -> dict[str, str]:
    """The languages of an image with their versions, from JSON. Raises ValueError."""
    found = _dict(value, "languages")
    if unknown := sorted(set(found) - set(LANGUAGES)):
        raise ValueError(f"languages has {unknown[0][:40]!r}; known: {', '.join(LANGUAGES)}")
    if "python" not in found:
        raise ValueError("languages has no python, on which the guest's agent runs")
    return {name: _text(version, f"languages.{name}") for name, version in found.items()}


def packages_of(value: object) -> tuple[Package, ...]:
    """The packages of an image, from JSON. Raises ValueError."""
    if not isinstance(value, list) or len(value) > 50_000:
        raise ValueError("packages is no list of at most 50,000")
    found = []
    for index, entry in enumerate(value):
        package = _dict(entry, f"packages[{index}]")
        kind, name, version, licence = (
            _text(package.get(key), f"packages[{index}].{key}", empty=True)
            for key in ("kind", "name", "version", "licence")
        )
        found.append(Package(kind, name, version, licence))
    return tuple(found)


def _dict(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def _text(value: object, name: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or len(value) > 1000 or (not value and not empty) or not _printable(value):
        raise ValueError(f"{name} is no text of up to 1,000 printable characters")
    return value


def _printable(value: str) -> bool:
    """Whether a terminal shows it as it is: an image's own words must not move the cursor."""
    return value.isprintable()


def _digest(value: object, name: str) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{name} is no SHA-256")
    return value


def _size(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 50:
        raise ValueError(f"{name} is no number of bytes")
    return value
