"""Self-check of the TypeScript image: what the guest ABI promises, under plain wasmtime-py.

The last stage of the build, and `python -m runtimes.typescript.selfcheck` at any time. What the translations then do is
the matter of tests/guest/typescript.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import wasmtime

from runtimes.javascript import selfcheck as javascript
from runtimes.javascript.selfcheck import CheckError, Host, Image, Reply, expect, request, sha256
from runtimes.snapshot import ABI_EXPORTS, check_copy_on_write

IMAGES = Path(__file__).resolve().parents[2] / "wasmeval" / "images" / "typescript"
WARM_UP = Path(__file__).parent / "training"
INSTANCE_WARM_UP = "const x: number = 1; x + 1"

__all__ = ["IMAGES", "INSTANCE_WARM_UP", "check", "decode", "request", "sha256"]


def decode(frame: bytes) -> Reply:
    return javascript.decode(frame, Host(), 0, 0)


def check(wasm: bytes, *, max_wasm_stack: int) -> None:
    check_copy_on_write(wasm)
