"""`wasmeval doctor`: print what works on this machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from wasmeval.cli import codes
from wasmeval.cli.progress import compile_images
from wasmeval.doctor import Check, examine
from wasmeval.errors import WasmevalError


def run(arguments: argparse.Namespace) -> int:
    """Print each check as it is done; 0 when all that is needed works."""
    checks: list[Check] = []
    for check in examine(before_evaluating=_compile):
        checks.append(check)
        if not arguments.json:
            print(f"{_mark(check):<5} {check.name:<20} {check.detail}", flush=True)
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    healthy = all(check.ok for check in checks if check.needed)
    if not arguments.json:
        print(
            "\nEverything needed works."
            if healthy
            else "\nSomething that is needed does not work: see `FAIL` above."
        )
    return codes.OK if healthy else codes.SERVICE_FAILED


def _compile() -> None:
    """Compile with progress; a failure shows in the checks that follow."""
    try:
        compile_images()
    except (WasmevalError, OSError, ImportError):
        return


def _mark(check: Check) -> str:
    if check.ok:
        return "ok"
    return "FAIL" if check.needed else "note"
