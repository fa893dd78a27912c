"""Recipe: what an image is to be made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from wasmeval.errors import InvalidArgument

_MEBIBYTE = 1 << 20

# What jobs ask for first, and what the guest's agent, its harnesses and its network need.
DEBIAN_PACKAGES = (
    "bash",
    "bzip2",
    "ca-certificates",
    "curl",
    "file",
    "git",
    "less",
    "nodejs",
    "openssh-client",
    "procps",
    "python3",
    "python3-pip",
    "python3-venv",
    "unzip",
    "xz-utils",
    "zip",
)
BUILD_PACKAGES = ("build-essential", "pkg-config", "python3-dev")
PYTHON_PACKAGES = ("numpy", "pandas", "matplotlib", "pytest")

SMALLEST_MEMORY, LARGEST_MEMORY = 256 * _MEBIBYTE, 65_536 * _MEBIBYTE
SMALLEST_DISK, LARGEST_DISK = 64 * _MEBIBYTE, 1_048_576 * _MEBIBYTE

# As Debian's policy has names and versions, and apt a release or a package not wanted: `gcc`, `gcc=4:12`, `gcc/stable`.
_DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:[=/][A-Za-z0-9.+:~-]+)?")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build: from Debian's packages, or from the OCI archive `oci` as it is.

    `packages` are Debian's, beside DEBIAN_PACKAGES; `python_packages` are requirements for pip, and `requirements` a
    file of such; with neither of the two, PYTHON_PACKAGES. `memory_bytes` and `disk_bytes` are what its VMs have: no
    job of the image gets more. Raises InvalidArgument.
    """

    packages: tuple[str, ...] = ()
    python_packages: tuple[str, ...] = ()
    requirements: Path | None = None
    build_essential: bool = False
    oci: Path | None = None
    memory_bytes: int = 1024 * _MEBIBYTE
    disk_bytes: int = 1024 * _MEBIBYTE

    def __post_init__(self) -> None:
        for package in self.packages:
            if not _DEBIAN_PACKAGE.fullmatch(package):
                raise InvalidArgument("packages", f"{package[:80]!r} is no name of a Debian package")
        for package in self.python_packages:
            if not package.strip() or package.startswith("-") or not package.isprintable():
                raise InvalidArgument("pip_package", f"{package[:80]!r} is no requirement for pip")
        if self.requirements is not None and not self.requirements.is_file():
            raise InvalidArgument("pip", f"there is no file {self.requirements}")
        if self.oci is not None:
            self._check_oci(self.oci)
        _check_size("memory", self.memory_bytes, SMALLEST_MEMORY, LARGEST_MEMORY)
        _check_size("disk", self.disk_bytes, SMALLEST_DISK, LARGEST_DISK)

    def _check_oci(self, oci: Path) -> None:
        if self.packages or self.python_packages or self.requirements or self.build_essential:
            raise InvalidArgument(
                "oci", "an OCI image is taken as it is: add packages where it is built, not here"
            )
        if not oci.exists():
            raise InvalidArgument("oci", f"there is no file {oci}")

    @property
    def debian_packages(self) -> tuple[str, ...]:
        """All packages of Debian to install."""
        extra = BUILD_PACKAGES if self.build_essential else ()
        return (*DEBIAN_PACKAGES, *extra, *self.packages)

    @property
    def pip_arguments(self) -> tuple[str, ...]:
        """What pip is to install, as its arguments."""
        wanted = self.python_packages
        if self.requirements is None:
            return wanted or PYTHON_PACKAGES
        return (*wanted, "--requirement", str(self.requirements.absolute()))


def _check_size(field: str, size: int, least: int, most: int) -> None:
    if not least <= size <= most:
        raise InvalidArgument(
            field,
            f"{size / _MEBIBYTE:.12g} MiB is not between {least // _MEBIBYTE} and {most // _MEBIBYTE} MiB",
        )
