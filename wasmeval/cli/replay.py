"""`wasmeval replay`: run a recorded evaluation again, and say what differs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from wasmeval.cli import codes
from wasmeval.errors import InvalidArgument
from wasmeval.recording import Recording

if TYPE_CHECKING:
    from wasmeval.recording import Replay


def run(arguments: argparse.Namespace) -> int:
    """Repeat what the files hold, and print in one line that it is the same, or each difference in one."""
    replay = _replay([_load(path) for path in arguments.recordings], arguments.server)
    if arguments.json:
        receipt = replay.result.receipt
        told = {
            "same": replay.is_same,
            "sealed": replay.is_sealed,
            "differences": list(replay.differences),
            "receipt": receipt.told() if receipt else None,
        }
        print(json.dumps(told))
    elif replay.is_same:
        usage = replay.result.usage
        seal = "sealed by this key" if replay.is_sealed else "not sealed by this key"
        print(f"the same: {replay.result.status.value}, {usage.fuel:,} fuel, {seal}")
    else:
        for difference in replay.differences:
            print(difference)
    return codes.OK if replay.is_same else codes.SNIPPET_FAILED


def _load(path: str) -> Recording:
    try:
        return Recording.load(path)
    except OSError as error:
        raise InvalidArgument("recording", f"cannot read {path}: {error.strerror or error}") from None


def _replay(recordings: list[Recording], server: str | None) -> Replay:
    if server is not None:
        from wasmeval.client import Client

        with Client(server) as client:
            return client.replay(*recordings)
    from wasmeval.cli.evaluators import evaluator

    with evaluator(is_known=True) as own:
        return own.replay(*recordings)
