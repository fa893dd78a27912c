"""`wasmeval run`: evaluate one snippet and print what it printed, then its value."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from wasmeval.cli import codes
from wasmeval.cli.arguments import language_of
from wasmeval.errors import Internal, InvalidArgument
from wasmeval.grants import Folder, HttpPolicy, HttpRule
from wasmeval.limits import Limits
from wasmeval.model import Result, Status
from wasmeval.paths import check_files

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
    given = {
        "language": language_of(arguments.language, arguments.file),
        "inputs": _collect(arguments.inputs),
        "limits": Limits(
            fuel=arguments.fuel,
            deadline_seconds=arguments.deadline,
            memory_bytes=arguments.memory,
            cpu_seconds=arguments.cpu,
            processes=arguments.processes,
        ),
        "files": dict(map(_file, arguments.files)),
        "outputs": arguments.outputs,
        "mounts": _mounts(arguments.mounts, arguments.server is None),
        "http": HttpPolicy(tuple(map(HttpRule, arguments.hosts))) if arguments.hosts else None,
        # Whoever reads the code from standard input has no other input for it.
        "stdin": b"" if arguments.file == "-" else _Stdin(),
        "deterministic": _deterministic(arguments),
        "cache": arguments.cache,
        "tier": arguments.tier,
    }
    if arguments.cache:
        given["stdin"] = None
    printer = _Printer()
    if not arguments.json:
        given["on_output"] = printer.show
    result = _evaluate(code, given, arguments.server)
    _save(result, Path(arguments.output_dir))
    if arguments.receipt is not None:
        _keep_receipt(result, arguments.receipt)
    if arguments.json:
        from wasmeval.cli.output import result_json

        _write(sys.stdout, result_json(result) + "\n")
    else:
        _print(result, printer)
    return _EXIT_CODES[result.status]


def _evaluate(code: str, given: dict[str, Any], server: str | None) -> Result:
    """The Result, from the service at `server` or from a worker of our own."""
    if server is not None:
        from wasmeval.client import Client

        with Client(server) as client:
            return client.evaluate(code, **given)
    from wasmeval.cli.evaluators import evaluator

    with evaluator(is_known=bool(given["deterministic"])) as own:
        return own.evaluate(code, **given)


def _deterministic(arguments: argparse.Namespace) -> Any:
    """What `--deterministic` and the options that imply it ask for."""
    is_asked = arguments.deterministic or arguments.cache or arguments.receipt is not None
    given = {
        name: value
        for name, value in (("seed", arguments.seed), ("start_time", arguments.start_time))
        if value is not None
    }
    if not given:
        return is_asked
    from wasmeval.determinism import Deterministic

    return Deterministic(**given)


def _keep_receipt(result: Result, path: str) -> None:
    if result.recording is None:
        _write(
            sys.stderr, f"wasmeval: there is no receipt: {result.unrepeatable or 'the service makes none'}\n"
        )
        return
    try:
        result.recording.save(path)
    except OSError as error:
        raise InvalidArgument("receipt", f"cannot write {path}: {error.strerror or error}") from None


class _Stdin:
    """Our standard input, read when the snippet asks for it and not before: what it does not want stays for others."""

    def read1(self, size: int) -> bytes:
        return os.read(0, size)


class _Printer:
    """Prints what the snippet prints, as it comes; nothing that went out is printed again."""

    def __init__(self) -> None:
        self.shown = {"stdout": 0, "stderr": 0}
        """How many bytes of each went out, as UTF-8."""
        self.last = "\n"
        """The last character on stdout."""

    def show(self, stream: str, text: str) -> None:
        self.shown[stream] += len(text.encode("utf-8", "replace"))
        if stream == "stdout" and text:
            self.last = text[-1]
        _write(sys.stdout if stream == "stdout" else sys.stderr, text)


def _file(text: str) -> tuple[str, bytes]:
    """`[NAME=]PATH`: the name in the workspace, and the content."""
    name, equals, path = text.partition("=")
    if not equals:
        name, path = Path(text).name, text
    try:
        return name, Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument("file", f"cannot read {path}: {error.strerror or error}") from None


def _mounts(texts: list[str], is_local: bool) -> Any:
    """`NAME` for a service, `NAME=DIR[:rw]` for a worker of our own."""
    if not is_local:
        if wrong := [text for text in texts if "=" in text]:
            raise InvalidArgument(
                "mount", f"{wrong[0]!r}: a service mounts folders that its operator named; give the name"
            )
        return texts
    folders = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals:
            raise InvalidArgument("mount", f"{text!r} is not NAME=DIR or NAME=DIR:rw")
        writable = path.endswith(":rw")
        folders[name] = Folder(Path(path.removesuffix(":rw")), read_only=not writable)
    return folders


def _save(result: Result, folder: Path) -> None:
    """Put the files that came back below `folder`. Raises Internal for names that would lead elsewhere.

    A service is not trusted: nothing is written before all names are checked.
    """
    try:
        check_files("files", result.files)
    except InvalidArgument as error:
        raise Internal(f"the service sent a file that cannot be: {error.description}") from None
    for name, file in result.files.items():
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.data)
        except OSError as error:
            raise InvalidArgument("output-dir", f"cannot write {target}: {error.strerror or error}") from None


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


def _print(result: Result, printer: _Printer) -> None:
    """What is left of the guest's output, then the value as JSON, then why it did not end well.

    Output beyond its limit was not sent while the snippet ran: its tail is in the result.
    """
    for stream, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        truncated = result.stdout_truncated if stream == "stdout" else result.stderr_truncated
        if truncated:
            printer.show(stream, _unseen(text, printer.shown[stream], result.limits.output_bytes or 0))
    if result.value_json not in {b"", b"null"}:
        separator = "" if printer.last == "\n" else "\n"
        _write(sys.stdout, separator + result.value_json.decode("utf-8", "replace") + "\n")
    sys.stdout.flush()
    if result.moved:
        _write(sys.stderr, f"wasmeval: ran in a microVM: {result.moved.splitlines()[0]}\n")
    if result.error is None:
        return
    if result.error.traceback:
        _write(sys.stderr, result.error.traceback.rstrip("\n") + "\n")
    if result.status is not Status.ERROR or not result.error.traceback:
        _write(sys.stderr, f"wasmeval: {_reason(result)}\n")


def _unseen(text: str, shown: int, limit: int) -> str:
    """What of truncated output goes on after the first `shown` bytes: a notice of what is left out, and the tail.

    `text` is the first half of `limit` bytes, a notice of how many were left out, and the last half. The head ends up
    to 3 bytes early, before a character that was cut, and is longer where U+FFFD stands for one byte that was no UTF-8.
    """
    data = text.encode("utf-8", "replace")
    match = _NOTICE.search(data, max(limit // 2 - 3, 0))
    if match is None:
        return text  # Not as this version writes it.
    head, left_out, tail = data[: match.start()], int(match[1]), data[match.end() :]
    # Replaced bytes count as more here than they were; of what was sent live, no more than the limit.
    seen = min(shown, limit) - min(len(head), limit // 2) - left_out
    if seen < 0:
        return f"\n[... {-seen} bytes left out ...]\n" + tail.decode()
    return tail[seen:].decode("utf-8", "ignore")


_NOTICE = re.compile(rb"\n\[\.\.\. (\d{1,20}) bytes left out \.\.\.\]\n")


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
