"""The command line: `wasmeval run | replay | repl | serve | runtimes | vm | doctor`.

Exit codes: 0 all is well, 1 the snippet failed, 2 wrong usage, 3 a limit was reached, 4 the service, this
installation or this machine failed, 130 stopped by Ctrl-C. Start-up time counts here: a command's module is loaded
when it runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from wasmeval.cli.arguments import parser_of_all
from wasmeval.cli.codes import INTERRUPTED, PIPE_CLOSED, SERVICE_FAILED, WRONG_USAGE

__all__ = ["main"]

# A cache that cannot be written raises SetupError; what else is written is the output.
_WRITE_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: this process's own) and return its exit code."""
    # gRPC's core writes what it met straight to standard error; what matters of it arrives as an exception too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    has_output = sys.stdout is not None
    _open_standard_streams()
    arguments = parser_of_all().parse_args(_join_code(sys.argv[1:] if argv is None else argv))
    # A service's clients need none of what it prints.
    if not has_output and arguments.command != "serve":
        _say("standard output is closed")
        return SERVICE_FAILED
    try:
        code = _run(arguments.command, arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away.
        _flush_or_abandon(sys.stdout)
        return PIPE_CLOSED
    except OSError as error:
        _say(_explain(error))
        for stream in (sys.stdout, sys.stderr):
            _flush_or_abandon(stream)
        return SERVICE_FAILED


def _explain(error: OSError) -> str:
    """What the machine refused, in one line."""
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"cannot write the output: {error.strerror}" if error.errno in _WRITE_FAILURES else str(error)


def _open_standard_streams() -> None:
    """Put /dev/null where the shell closed a standard stream: the next file opened would take its descriptor."""
    if None not in {sys.stdin, sys.stdout, sys.stderr}:
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _flush_or_abandon(stream: TextIO) -> None:
    """Flush `stream`; one that takes nothing leads nowhere from now on, because the interpreter flushes at exit."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(message: object) -> None:
    """One line on standard error, if that can be written."""
    with contextlib.suppress(OSError):
        print(f"wasmeval: {message}", file=sys.stderr, flush=True)


def _run(command: str, arguments: object) -> int:
    """Dispatch to the command's module, and turn what this package raises into a message and an exit code."""
    from importlib import import_module

    from wasmeval.errors import InvalidArgument, WasmevalError

    try:
        return int(import_module(f"wasmeval.cli.{command}").run(arguments))
    except InvalidArgument as error:
        _say(error)
        return WRONG_USAGE
    except WasmevalError as error:
        _say(error)
        return SERVICE_FAILED


def _join_code(argv: Sequence[str]) -> list[str]:
    """`-c CODE` as one word, so that code may start with a dash."""
    joined = list(argv)
    for index in range(len(joined) - 1):
        if joined[index] in {"-c", "--code"}:
            joined[index : index + 2] = [f"--code={joined[index + 1]}"]
            break
    return joined
