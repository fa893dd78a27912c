"""`wasmeval runtimes`: list the installed runtimes."""

from __future__ import annotations

import argparse
import json
from typing import Any

from wasmeval.cli import codes
from wasmeval.cli.output import table
from wasmeval.cli.progress import compile_images
from wasmeval.runtimes import Catalogue
from wasmeval.wasm.cache import Cache

_SHORT_DIGEST = 12


def run(arguments: argparse.Namespace) -> int:
    """Print name, version, languages, image digest, and whether each is compiled for this machine."""
    if arguments.compile:
        compile_images()
    rows = describe()
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return codes.OK
    heads = ("NAME", "VERSION", "LANGUAGES", "IMAGE", "COMPILED")
    print(table(heads, [_cells(row) for row in rows]))
    return codes.OK


def describe() -> list[dict[str, Any]]:
    """The installed runtimes, as JSON has them."""
    cache = Cache()
    return [
        {
            "name": runtime.name,
            "version": runtime.version,
            "interpreter": runtime.interpreter,
            "languages": list(runtime.languages),
            "image_sha256": runtime.image_sha256,
            "initial_memory_bytes": runtime.initial_memory_bytes,
            "minimum_memory_bytes": runtime.minimum_memory_bytes,
            "compiled": cache.find(runtime) is not None,
        }
        for runtime in Catalogue.installed()
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    compiled = "yes" if row["compiled"] else "no"
    return (
        row["name"],
        row["version"],
        ", ".join(row["languages"]),
        row["image_sha256"][:_SHORT_DIGEST],
        compiled,
    )
