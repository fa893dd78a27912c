"""Guest: what runs inside a microVM. Carried in as files: nothing here imports wasmeval, nothing imports it.

The interpreters' harnesses share with the Wasm images what those have in their own language: how errors are told, what
tools are. Those files have one home, below `runtimes/` in a checkout; a wheel carries copies in `shared/`
(pyproject.toml). The harnesses give them the names that they expect of an image, and never change them: a changed file
is another image.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parents[2]

SHARED = {
    "wasmeval.py": "runtimes/python/modules/wasmeval.py",
    "_wasmeval_signatures.py": "runtimes/python/modules/_wasmeval_signatures.py",
    "_wasmeval_tools.py": "runtimes/python/modules/_wasmeval_tools.py",
    "_wasmeval_report.py": "runtimes/python/guest/_wasmeval_report.py",
    "primordials.js": "runtimes/javascript/boot/primordials.js",
    "report.js": "runtimes/javascript/boot/report.js",
    "calls.js": "runtimes/javascript/boot/calls.js",
}
"""Name in the guest -> the file's home in a checkout."""

_INIT = "init"
_SUFFIXES = (".py", ".cjs")


def guest_files() -> dict[str, bytes]:
    """The content of every file that the guest gets, by name: `init`, and what it puts into one folder."""
    own = [
        path
        for path in _HERE.iterdir()
        if path.name == _INIT or (path.suffix in _SUFFIXES and path.name != "__init__.py")
    ]
    files = {path.name: path.read_bytes() for path in sorted(own)}
    return files | {name: _shared(name, home).read_bytes() for name, home in SHARED.items()}


def _shared(name: str, home: str) -> Path:
    carried = _HERE / "shared" / name
    return carried if carried.exists() else _CHECKOUT / home
