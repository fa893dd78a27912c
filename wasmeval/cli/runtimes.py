"""`wasmeval runtimes`: list the installed runtimes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from wasmeval.cli import codes
from wasmeval.cli.output import table
from wasmeval.cli.progress import compile_images
from wasmeval.model import RuntimeInfo
from wasmeval.policy import runtime_infos
from wasmeval.runtimes import Catalogue
from wasmeval.wasm.cache import Cache

_SHORT_DIGEST = 12


def run(arguments: argparse.Namespace) -> int:
    """Print name, tier, version, languages, image digest, and whether each is compiled for this machine."""
    if arguments.compile:
        compile_images()
    rows = describe()
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return codes.OK
    heads = ("NAME", "TIER", "VERSION", "LANGUAGES", "IMAGE", "COMPILED")
    print(table(heads, [_cells(row) for row in rows]))
    return codes.OK


def describe() -> list[dict[str, Any]]:
    """The installed runtimes, as JSON has them; those of VMs where there can be some. `compiled` is None for what
    needs no compiling."""
    cache, catalogue = Cache(), Catalogue.installed()
    compiled = {runtime.name: cache.find(runtime) is not None for runtime in catalogue}
    return [
        {**asdict(info), "languages": list(info.languages), "compiled": compiled.get(info.name)}
        for info in (*runtime_infos(catalogue), *_in_vms())
    ]


def _in_vms() -> tuple[RuntimeInfo, ...]:
    from wasmeval.vm import VmTier

    tier = VmTier()
    return () if tier.missing else tier.runtimes


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    compiled = {True: "yes", False: "no", None: ""}[row["compiled"]]
    return (
        row["name"],
        row["tier"],
        row["version"],
        ", ".join(row["languages"]),
        row["image_sha256"][:_SHORT_DIGEST],
        compiled,
    )
