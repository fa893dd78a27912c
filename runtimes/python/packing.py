"""Packing: an image and its library compressed, with the manifest and the licences beside them."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtimes.python import library as tree
from runtimes.snapshot import initial_memory_bytes

# What a snippet needs beyond the image's own memory: one step of the heap's growth.
LEAST_ROOM_BYTES = 1 << 20


def pack(
    folder: Path,
    *,
    image: Path,
    library: Path,
    version: str,
    max_wasm_stack: int,
    fuel_per_millisecond: int,
    sources: Sequence[dict[str, str]],
    toolchain: Sequence[dict[str, str]],
    licences: Sequence[tuple[str, Path]],
) -> None:
    """Writes the runtime's folder. Each file appears whole: readers may be about."""
    folder.mkdir(parents=True, exist_ok=True)
    initial = initial_memory_bytes(image.read_bytes())
    manifest = {
        "abi": 1,
        "name": "python",
        "version": version,
        "languages": ["python", "python3", "py"],
        "interpreter": f"CPython {version}",
        "image": _compress(image, folder / "image.wasm.xz"),
        "library": _compress(library, folder / "library.zip.xz") | {"mount": tree.MOUNT},
        "memory": {"initial_bytes": initial, "minimum_bytes": initial + LEAST_ROOM_BYTES},
        "max_wasm_stack": max_wasm_stack,
        "fuel_per_millisecond": fuel_per_millisecond,
        "warm_up": "1+1",
        "sources": list(sources),
        "toolchain": list(toolchain),
    }
    rule = "=" * 100
    texts = [
        f"{rule}\n{name}\n{rule}\n\n{path.read_text(errors='replace').strip()}\n" for name, path in licences
    ]
    _write(folder / "LICENSES", "\n\n".join(texts).encode())
    _write(folder / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")


def _compress(path: Path, target: Path) -> dict[str, Any]:
    """Compresses `path` and returns the manifest's words of it. The same bytes in, the same bytes out."""
    content = path.read_bytes()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 32 << 20}]
    _write(target, lzma.compress(content, check=lzma.CHECK_SHA256, filters=filters))
    return {"file": target.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _write(target: Path, content: bytes) -> None:
    temporary = target.with_name(target.name + ".new")
    temporary.write_bytes(content)
    os.replace(temporary, target)
