"""Runs inside the root of an image that is being built, by itself: it imports nothing of wasmeval.

`finish` makes of any root one that the guest's init and its jobs can use, whoever made it; `facts` tells what is in it.
"""

import json
import os
import re
import shutil
import subprocess
import sys

UID = 1000
DIRECTORIES = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "home/user": 0o755,
    "mnt": 0o755,
    "proc": 0o555,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
    "workspace": 0o755,
}
HOSTS = "127.0.0.1\tlocalhost wasmeval\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def finish() -> None:
    """Give the root at / its directories, its user and its host name. Existing files of these names are replaced."""
    for name, mode in DIRECTORIES.items():
        path = f"/{name}"
        if os.path.lexists(path) and not os.path.isdir(path):
            os.unlink(path)
        os.makedirs(path, exist_ok=True)
        # What the kernel has mounted there meanwhile may refuse a change.
        if os.stat(path).st_mode & 0o7777 != mode:
            os.chmod(path, mode)
    for name in ("tmp", "var/tmp", "run"):
        _empty(f"/{name}")
    _replace("/etc/hosts", HOSTS)
    _replace("/etc/hostname", "wasmeval\n")
    _replace("/etc/resolv.conf", "# Names are resolved outside.\n")
    _replace("/etc/machine-id", "")
    _add_user()
    _find_python()


def _find_python() -> None:
    """The agent is started as /usr/bin/python3, wherever the image has its interpreter."""
    if os.path.exists("/usr/bin/python3"):
        return
    for path in ("/usr/local/bin/python3", "/opt/python/bin/python3", "/opt/venv/bin/python3"):
        if os.path.exists(path):
            os.makedirs("/usr/bin", exist_ok=True)
            if os.path.lexists("/usr/bin/python3"):
                os.unlink("/usr/bin/python3")
            os.symlink(path, "/usr/bin/python3")
            return


def _add_user() -> None:
    """`user` with uid and gid 1000; whoever else had the name or a number is gone."""
    lines = {
        "/etc/passwd": f"user:x:{UID}:{UID}::/home/user:/bin/bash",
        "/etc/group": f"user:x:{UID}:",
        "/etc/shadow": "user:*:19000:0:99999:7:::",
        "/etc/gshadow": "user:!::",
    }
    for path, line in lines.items():
        if path.endswith("shadow") and not os.path.isfile(path):
            continue
        kept = [old for old in _lines(path) if old and not _is_same_user(path, old.split(":"))]
        if path in {"/etc/passwd", "/etc/group"} and not any(old.startswith("root:") for old in kept):
            kept.insert(0, "root:x:0:0:root:/root:/bin/sh" if path == "/etc/passwd" else "root:x:0:")
        mode = 0o640 if path.endswith("shadow") else 0o644
        _replace(path, "".join(f"{text}\n" for text in [*kept, line]), mode)


def _is_same_user(path: str, fields: list[str]) -> bool:
    if fields[0] == "user":
        return True
    return path in {"/etc/passwd", "/etc/group"} and len(fields) > 2 and fields[2] == str(UID)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20).splitlines()
    except OSError:
        return []


def _replace(path: str, text: str, mode: int = 0o644) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
    with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.chmod(path, mode)


def _empty(path: str) -> None:
    for name in os.listdir(path):
        inner = os.path.join(path, name)
        if os.path.isdir(inner) and not os.path.islink(inner):
            shutil.rmtree(inner)
        else:
            os.unlink(inner)


def facts() -> dict[str, object]:
    """The languages of this image with their versions, and its packages."""
    languages = {"python": ".".join(map(str, sys.version_info[:3]))}
    for language, command, pattern in (
        ("javascript", ["node", "--version"], r"v(\d[\w.]*)"),
        ("bash", ["bash", "--version"], r"version (\d[\w.]*)"),
    ):
        if found := re.search(pattern, _said(command)):
            languages[language] = found[1]
    return {"languages": languages, "packages": _debian_packages() + _python_packages()}


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def _debian_packages() -> list[dict[str, str]]:
    found = []
    name = version = status = ""
    # The database itself: an image may have lost dpkg-query.
    for line in [*_lines_of_any_length("/var/lib/dpkg/status"), ""]:
        if line.startswith("Package: "):
            name = line[9:].strip()
        elif line.startswith("Version: "):
            version = line[9:].strip()
        elif line.startswith("Status: "):
            status = line[8:].strip()
        elif not line.strip():
            if name and status.endswith(" installed"):
                found.append(
                    {"kind": "debian", "name": name, "version": version, "licence": _debian_licence(name)}
                )
            name = version = status = ""
    return found


def _lines_of_any_length(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _debian_licence(name: str) -> str:
    """The short names that the package's copyright file has, where it is one that machines can read."""
    names = []
    for line in _lines(f"/usr/share/doc/{name}/copyright"):
        if line.startswith("License: ") and (short := line[9:].strip()) not in names:
            names.append(short)
    return ", ".join(names)[:500]


def _python_packages() -> list[dict[str, str]]:
    from importlib import metadata

    found = {}
    for distribution in metadata.distributions():
        fields = distribution.metadata
        name = fields["Name"]
        where = str(distribution.locate_file(""))
        if not name or not ("dist-packages" in where or "site-packages" in where):
            continue
        licence = fields["License-Expression"] or fields["License"] or ""
        if not licence or "\n" in licence or len(licence) > 100:
            kinds = [text for text in fields.get_all("Classifier") or [] if text.startswith("License ::")]
            licence = ", ".join(text.rpartition(" :: ")[2] for text in kinds) or licence.partition("\n")[0]
        found[name] = {
            "kind": "python",
            "name": name,
            "version": fields["Version"] or "",
            "licence": licence[:500],
        }
    return [found[name] for name in sorted(found, key=str.lower)]


if __name__ == "__main__":
    if sys.argv[1:] == ["finish"]:
        finish()
    else:
        json.dump(facts(), sys.stdout)
