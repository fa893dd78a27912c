"""Generates wasmeval/v1 from the .proto files beside this script; with --check only says whether it would
differ.

    python proto/generate.py [--check]

Needs grpcio-tools of exactly the version below, because another protoc writes other text.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = "1.85.1"
PROTO = Path(__file__).resolve().parent
ROOT = PROTO.parent
PACKAGE = Path("wasmeval/v1")


def generate(destination: Path) -> list[Path]:
    """Writes the modules and their stubs below `destination`; gives their paths relative to it."""
    sources = sorted(str(path.relative_to(PROTO)) for path in (PROTO / PACKAGE).glob("*.proto"))
    out = f"--python_out={destination}", f"--pyi_out={destination}"
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *out, *sources], check=True)
    return sorted(path.relative_to(destination) for path in (destination / PACKAGE).glob("*_pb2.py*"))


def main(arguments: list[str]) -> int:
    """0 when the generated code is up to date, 1 when it differs or cannot be made, 2 for wrong usage."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        installed = importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        installed = "none"
    if installed != TOOLS:
        print(
            f"needs grpcio-tools {TOOLS}, found {installed}: pip install grpcio-tools=={TOOLS}",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory() as folder:
        made = {path: (Path(folder) / path).read_bytes() for path in generate(Path(folder))}
    stale = {path.relative_to(ROOT) for path in (ROOT / PACKAGE).glob("*_pb2*.py*")} - made.keys()
    differing = [path for path, text in made.items() if _read(ROOT / path) != text]
    if arguments:
        for path in sorted([*differing, *stale]):
            print(f"{path} differs from the .proto files: run python proto/generate.py", file=sys.stderr)
        return 1 if differing or stale else 0
    for path in differing:
        (ROOT / path).write_bytes(made[path])
    for path in stale:
        (ROOT / path).unlink()
    print(f"{len(differing)} written, {len(stale)} removed, {len(made) - len(differing)} up to date")
    return 0


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
