"""Make the virtual environment `.venv`, on a machine that has Python 3.11 to 3.13 and nothing else.

    python3 tools/make_venv.py .venv

Debian splits `ensurepip` off its python3 package. Without it root installs it with apt; else the environment is made
empty, and pip comes into it as a wheel, whose digest is written below, from the package index that pip's configuration
names. Standard library only: nothing is installed yet.
"""

from __future__ import annotations

import configparser
import hashlib
import http.client
import importlib.util
import os
import re
import shutil
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
APT_TIMEOUT_SECONDS = 600
_HOME = Path(os.environ.get("HOME") or "/")
CONFIGURATIONS = [
    Path("/etc/xdg/pip/pip.conf"),
    Path("/etc/pip.conf"),
    _HOME / ".pip" / "pip.conf",
    Path(os.environ.get("XDG_CONFIG_HOME") or _HOME / ".config") / "pip" / "pip.conf",
]
"""Where pip looks for its configuration; a later file has the last word."""


def main(folder: Path) -> int:
    """Make the environment at `folder`, unless one whose pip works is there."""
    if pip_works(folder):
        return 0
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    venv.create(folder, clear=True, symlinks=True, with_pip=False)
    for attempt in [from_ensurepip if has_ensurepip else from_apt, from_index]:
        try:
            attempt(folder)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"{attempt.__name__}: {error}", file=sys.stderr)
        if pip_works(folder):
            return 0
    print(
        f"No pip could be put into the new environment. Run: sudo apt-get install {venv_package()}",
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


def venv_package() -> str:
    """Debian's package with the ensurepip of this very Python; python3-venv is that of the default one."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}-venv"


def from_apt(folder: Path) -> None:
    """Install Debian's ensurepip, then use it. Raises ValueError unless this is root and the system's Python."""
    if os.geteuid() != 0 or not shutil.which("apt-get") or sys.base_prefix != "/usr":
        raise ValueError("this Python has no ensurepip, and only root can install it for the system's Python")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def apt_get(*arguments: str) -> None:
        subprocess.run(["apt-get", *arguments], env=environment, check=True, timeout=APT_TIMEOUT_SECONDS)

    install = ["install", "-y", "--no-install-recommends", venv_package()]
    try:
        apt_get(*install)
    except subprocess.CalledProcessError:
        # A container often has no package lists.
        apt_get("update")
        apt_get(*install)
    from_ensurepip(folder)


def configured_indexes() -> list[str]:
    """The package indexes that pip's environment, else its configuration files, name; the main one first."""
    environment = [os.environ.get("PIP_INDEX_URL", ""), os.environ.get("PIP_EXTRA_INDEX_URL", "")]
    if found := " ".join(environment).split():
        return found
    files = [*CONFIGURATIONS, Path(os.environ.get("PIP_CONFIG_FILE") or os.devnull)]
    parser = configparser.RawConfigParser()
    try:
        parser.read(files)
    except configparser.Error as error:
        raise ValueError(f"pip's configuration cannot be read: {error}") from None
    values = [
        parser.get(section, name, fallback="")
        for name in ("index-url", "extra-index-url")
        for section in ("install", "global")
    ]
    return " ".join(values).split()


def from_index(folder: Path) -> None:
    """Put pip into the environment from the first configured index that has it. Raises ValueError for none."""
    indexes = configured_indexes()
    if not indexes:
        raise ValueError("pip's configuration names no package index (PIP_INDEX_URL is not set)")
    failures = []
    for index in indexes:
        if urllib.parse.urlsplit(index).username:
            failures.append("an index that wants a password is not asked")
            continue
        try:
            return install_wheel(folder, fetch_wheel(index.rstrip("/") + "/pip/"))
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(str(error))
    raise ValueError("; ".join(failures))


def fetch_wheel(index: str) -> bytes:
    """Pip's wheel, as the page `index` links it. Raises ValueError when it does not or it has another digest."""
    # A folder has no page but the one that pip looks for in it.
    page = download(index + ("index.html" if index.startswith("file:") else "")).decode()
    links = [link for link in re.findall(r'href="([^"]+)"', page) if PIP_WHEEL in link]
    if not links:
        raise ValueError(f"{index} has no {PIP_WHEEL}")
    wheel = download(urllib.parse.urljoin(index, links[0]).partition("#")[0])
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != PIP_SHA256:
        raise ValueError(f"{PIP_WHEEL} has sha256 {digest}, not {PIP_SHA256}")
    return wheel


def install_wheel(folder: Path, wheel: bytes) -> None:
    """Put the pip in `wheel` into the environment: a wheel of pip can run itself."""
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
