"""Make the virtual environment `.venv`, on a machine that has Python 3.11 or newer and nothing else.

    python3 tools/make_venv.py .venv

Debian splits `ensurepip` off its python3 package. Without it the environment is made empty, and pip comes into it
as a wheel from the package index, whose digest is written below. Standard library only: nothing is installed yet.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import venv
from pathlib import Path

PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
TIMEOUT_SECONDS = 60


def main(folder: Path) -> int:
    """Make the environment at `folder`, unless one whose pip works is there."""
    if pip_works(folder):
        return 0
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    venv.create(folder, clear=True, symlinks=True, with_pip=False)
    attempts = [from_ensurepip] if has_ensurepip else []
    for attempt in [*attempts, from_index]:
        try:
            attempt(folder)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            print(f"{attempt.__name__}: {error}", file=sys.stderr)
        if pip_works(folder):
            return 0
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(
        "No pip could be put into the new environment: this Python has no ensurepip and the package index was not "
        f"reachable.\nEither let this machine reach it, or: sudo apt-get install python{version}-venv",
        file=sys.stderr,
    )
    return 1


def python_of(folder: Path) -> str:
    """The interpreter of the environment at `folder`."""
    return str(folder / "bin" / "python")


def pip_works(folder: Path) -> bool:
    """Whether the environment at `folder` is there and its pip answers."""
    try:
        command = [python_of(folder), "-m", "pip", "--version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def from_ensurepip(folder: Path) -> None:
    """Put the pip that comes with Python into the environment."""
    subprocess.run([python_of(folder), "-m", "ensurepip", "--default-pip"], check=True, capture_output=True)


def from_index(folder: Path) -> None:
    """Put pip into the environment from its wheel, which can run itself. Raises ValueError for another digest."""
    index = os.environ.get("PIP_INDEX_URL", "").rstrip("/") + "/pip/"
    page = download(index).decode()
    links = [link for link in re.findall(r'href="([^"]+)"', page) if PIP_WHEEL in link]
    if not links:
        raise ValueError(f"{index} has no {PIP_WHEEL}")
    wheel = download(urllib.parse.urljoin(index, links[0]).partition("#")[0])
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != PIP_SHA256:
        raise ValueError(f"{PIP_WHEEL} has sha256 {digest}, not {PIP_SHA256}")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PIP_WHEEL
        path.write_bytes(wheel)
        command = [python_of(folder), f"{path}/pip", "install", "--quiet", "--no-index", str(path)]
        subprocess.run(command, check=True)


def download(url: str) -> bytes:
    """The bytes at `url`. A machine without any certificates still gets them: the digest above is what is trusted."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            return bytes(response.read())
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLCertVerificationError):
            raise
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS, context=context) as response:
        return bytes(response.read())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
