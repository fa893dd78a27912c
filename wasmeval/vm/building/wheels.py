"""Python packages for an image, fetched outside of it, as this machine's own pip is set up to fetch them.

An index or a folder that pip here knows need not be reachable from inside the image, so pip inside only installs.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from wasmeval.errors import SetupError
from wasmeval.vm.building import tools
from wasmeval.vm.building.running import Runner


def fetch(
    arguments: Sequence[str], python: tuple[int, int], glibc: tuple[int, int], folder: Path, runner: Runner
) -> None:
    """Put wheels of what pip's `arguments` ask for, and all they need, into `folder`, for that Python and C library.

    Raises SetupError: no pip here, or no wheel there is of a package. Nothing is compiled.
    """
    version = ".".join(map(str, python))
    command = [
        *pip(runner),
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={version}",
        *(f"--platform={name}" for name in platforms(glibc, platform.machine())),
        f"--dest={folder}",
        *arguments,
    ]
    runner.output(command, environment={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"})
    for wheel in folder.iterdir():
        wheel.chmod(0o644)


def pip(runner: Runner) -> list[str]:
    """How pip is called here. Raises SetupError where there is none."""
    for candidate in ([sys.executable, "-m", "pip"], ["pip3"], ["python3", "-m", "pip"]):
        if not tools.find(candidate[0]):
            continue
        try:
            runner.output([*candidate, "--version"])
        except SetupError:
            continue
        return candidate
    raise SetupError(
        "the image's Python packages are fetched by pip, which this machine does not have; "
        "sudo apt-get install python3-pip"
    )


def platforms(glibc: tuple[int, int], machine: str) -> list[str]:
    """The platform tags whose wheels run there, the newest first. Source: PEP 600."""
    major, minor = glibc
    tags = [f"manylinux_{major}_{number}_{machine}" for number in range(minor, 16, -1)]
    return [*tags, f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
