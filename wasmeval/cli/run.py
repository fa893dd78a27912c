"""`wasmeval run`: evaluate one snippet and print what it printed, then its value."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from wasmeval.cli import codes
from wasmeval.cli.arguments import language_of
from wasmeval.errors import InvalidArgument
from wasmeval.limits import Limits
from wasmeval.model import Result, Status

_EXIT_CODES = {
    Status.OK: codes.OK,
    Status.ERROR: codes.SNIPPET_FAILED,
    Status.UNSUPPORTED: codes.SNIPPET_FAILED,
    Status.FUEL_EXHAUSTED: codes.LIMIT_REACHED,
    Status.DEADLINE_EXCEEDED: codes.LIMIT_REACHED,
    Status.MEMORY_EXCEEDED: codes.LIMIT_REACHED,
    Status.OUTPUT_EXCEEDED: codes.LIMIT_REACHED,
    Status.CRASHED: codes.SERVICE_FAILED,
    # By the service, which stops; Ctrl-C here is a KeyboardInterrupt.
    Status.CANCELLED: codes.SERVICE_FAILED,
}

# Longer code is refused anyway; this only keeps `wasmeval run /dev/zero` from filling the memory.
_MOST_CODE_BYTES = 4 << 20


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print, and give the exit code that the status stands for."""
    code = arguments.code if arguments.code is not None else _read(arguments.file)
    language = language_of(arguments.language, arguments.file)
    limits = Limits(fuel=arguments.fuel, deadline_seconds=arguments.deadline, memory_bytes=arguments.memory)
    result = _evaluate(code, language, _collect(arguments.inputs), limits, arguments.server)
    if arguments.json:
        from wasmeval.cli.output import result_json

        _write(sys.stdout, result_json(result) + "\n")
    else:
        _print(result)
    return _EXIT_CODES[result.status]


def _evaluate(code: str, language: str, inputs: dict[str, Any], limits: Limits, server: str | None) -> Result:
    """The Result, from the service at `server` or from a worker of our own."""
    if server is not None:
        from wasmeval.client import Client

        with Client(server) as client:
            return client.evaluate(code, language=language, inputs=inputs, limits=limits)
    from wasmeval.cli.progress import shown
    from wasmeval.embedded import Evaluator

    with shown(sys.stderr) as show:
        evaluator = Evaluator(workers=1, progress=show)
    with evaluator:
        return evaluator.evaluate(code, language=language, inputs=inputs, limits=limits)


def _read(path: str) -> str:
    """The snippet in the file at `path`, or on standard input for `-`."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_MOST_CODE_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_MOST_CODE_BYTES + 1)
        if len(data) > _MOST_CODE_BYTES:
            raise InvalidArgument(
                "code", f"{path} is larger than {_MOST_CODE_BYTES >> 20} MiB; pass data as inputs"
            )
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidArgument("code", f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument("code", f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


def _collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for name, value in pairs:
        if name in inputs:
            raise InvalidArgument(f"inputs.{name}", "is given twice")
        inputs[name] = value
    return inputs


def _print(result: Result) -> None:
    """The guest's output as it is, then the value as JSON, then why it did not end well."""
    _write(sys.stdout, result.stdout)
    _write(sys.stderr, result.stderr)
    if result.value_json not in {b"", b"null"}:
        separator = "" if result.stdout.endswith("\n") or not result.stdout else "\n"
        _write(sys.stdout, separator + result.value_json.decode("utf-8", "replace") + "\n")
    sys.stdout.flush()
    if result.error is None:
        return
    if result.error.traceback:
        _write(sys.stderr, result.error.traceback.rstrip("\n") + "\n")
    if result.status is not Status.ERROR or not result.error.traceback:
        _write(sys.stderr, f"wasmeval: {_reason(result)}\n")


def _reason(result: Result) -> str:
    """One line on why there is no value."""
    error = result.error
    assert error is not None
    if result.status is Status.ERROR:
        return f"{error.type}: {error.message}"
    return f"{result.status.value}: {error.message}"


def _write(stream: Any, text: str) -> None:
    """UTF-8 whatever the locale says: it is the guest's text, and no terminal setting of ours may fail it."""
    stream.flush()
    stream.buffer.write(text.encode("utf-8", "replace"))
    stream.buffer.flush()
