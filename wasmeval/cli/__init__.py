"""The command line: `wasmeval run | serve | runtimes | doctor`.

Exit codes: 0 all is well, 1 the snippet failed, 2 wrong usage, 3 a limit was reached, 4 the service or this
installation failed, 130 stopped by Ctrl-C. Start-up time counts here: a command's module is loaded when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from wasmeval.cli.arguments import parser_of_all
from wasmeval.cli.codes import INTERRUPTED, PIPE_CLOSED, SERVICE_FAILED, WRONG_USAGE

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: this process's own) and return its exit code."""
    # gRPC's core writes what it met straight to standard error; what matters of it arrives as an exception too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    arguments = parser_of_all().parse_args(_join_code(sys.argv[1:] if argv is None else argv))
    try:
        code = _run(arguments.command, arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away. The interpreter flushes once more at exit, to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _run(command: str, arguments: object) -> int:
    """Dispatch to the command's module, and turn what this package raises into a message and an exit code."""
    from importlib import import_module

    from wasmeval.errors import InvalidArgument, WasmevalError

    try:
        return int(import_module(f"wasmeval.cli.{command}").run(arguments))
    except InvalidArgument as error:
        print(f"wasmeval: {error}", file=sys.stderr)
        return WRONG_USAGE
    except WasmevalError as error:
        print(f"wasmeval: {error}", file=sys.stderr)
        return SERVICE_FAILED


def _join_code(argv: Sequence[str]) -> list[str]:
    """`-c CODE` as one word, so that code may start with a dash."""
    joined = list(argv)
    for index in range(len(joined) - 1):
        if joined[index] in {"-c", "--code"}:
            joined[index : index + 2] = [f"--code={joined[index + 1]}"]
            break
    return joined
