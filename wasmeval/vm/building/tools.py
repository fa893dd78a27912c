"""The host's programs that a build needs, and how to get those that are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping

from wasmeval.errors import SetupError

# Debian keeps mke2fs there, and an ordinary user's PATH does not.
SEARCHED = os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin"])

PACKAGES: Mapping[str, str] = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "apt-config": "apt",
    "bwrap": "bubblewrap",
    "chroot": "coreutils",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "mkfs.erofs": "erofs-utils",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "qemu-system-x86_64": "qemu-system-x86",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}


def find(program: str) -> str:
    """The path of `program`; "" when this machine does not have it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), SEARCHED])
    return shutil.which(program, path=path) or ""


def require(programs: Iterable[str]) -> None:
    """Raise SetupError that names each of `programs` that is missing, and the line that installs them."""
    missing = [program for program in programs if not find(program)]
    if not missing:
        return
    packages = sorted({PACKAGES.get(program, program) for program in missing})
    raise SetupError(
        f"building a VM image needs {', '.join(missing)}, which this machine does not have; "
        f"sudo apt-get install {' '.join(packages)}"
    )


def environment() -> dict[str, str]:
    """This process's environment for a build's children: the system's programs found, in no language but C."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), SEARCHED])
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
