"""The arguments of every command: their names, types and help."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

from wasmeval import __version__

_EPILOG = """\
examples:
  wasmeval run -c 'sum(range(10))'
  wasmeval run -c 'price * (1 + rate)' --input price=100 --input rate=0.2
  wasmeval run -l javascript -c '[3, 1, 2].toSorted()' --json
  wasmeval run script.py --deadline 2 --memory 128
  wasmeval run chart.py --file data.csv --output '*.svg' <more.txt
  wasmeval run -l bash -c 'git --version | tr a-z A-Z'
  wasmeval run -c 'import random; random.random()' --receipt receipt.json
  wasmeval replay receipt.json
  wasmeval repl
  wasmeval serve --listen 127.0.0.1:50051
  wasmeval vm build

exit codes:
  0 all is well, 1 the snippet failed, 2 wrong usage, 3 a limit was reached,
  4 the service or this machine failed, 130 stopped by Ctrl-C
"""


def parser_of_all() -> argparse.ArgumentParser:
    """The parser of `wasmeval` and its commands; `command` names the one that was chosen."""
    parser = argparse.ArgumentParser(
        prog="wasmeval",
        description="Evaluate Python and JavaScript snippets, each in a fresh, isolated WebAssembly instance, or in a "
        "microVM of its own when it needs a whole operating system.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wasmeval {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(_command(commands, "run", "evaluate one snippet; needs no service"))
    _add_replay(_command(commands, "replay", "repeat a recorded evaluation and say what differs"))
    _add_repl(_command(commands, "repl", "evaluate step after step in a session that goes on"))
    _add_serve(_command(commands, "serve", "run the gRPC service"))
    _add_runtimes(_command(commands, "runtimes", "list the languages that can be evaluated"))
    _add_vm(_command(commands, "vm", "build, list and remove the images of the VM tier"))
    _add_doctor(_command(commands, "doctor", "check what works on this machine"))
    return parser


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    return command


def _add_run(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-c", "--code", metavar="CODE", help="the snippet itself")
    source.add_argument("file", nargs="?", metavar="FILE", help="a file that holds it; - for standard input")
    parser.add_argument(
        "-l",
        "--language",
        metavar="LANG",
        help="default: from FILE's ending (.py, .js, .mjs, .ts, .sh), else python",
    )
    parser.add_argument(
        "--tier",
        choices=("auto", "wasm", "vm"),
        default="auto",
        help="where it runs: in Wasm, in a microVM, or (auto) in Wasm and again in a microVM if it needs one",
    )
    parser.add_argument(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        type=named_input,
        metavar="NAME=JSON",
        help="a variable of the snippet; may be given several times",
    )
    parser.add_argument(
        "--fuel", type=fuel, metavar="N", help="instructions it may execute, such as 5_000_000 or 1e9"
    )
    parser.add_argument("--deadline", type=seconds, metavar="SECONDS", help="wall clock it may take")
    parser.add_argument(
        "--memory", type=mebibytes, metavar="MIB", help="memory it may use, its interpreter included"
    )
    parser.add_argument("--cpu", type=seconds, metavar="SECONDS", help="in a microVM: CPU time it may take")
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="in a microVM: processes and threads it may have at a time",
    )
    parser.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="a file that the snippet finds below /workspace, by NAME; may be given several times",
    )
    parser.add_argument(
        "--output",
        dest="outputs",
        action="append",
        default=[],
        metavar="PATTERN",
        help="files of the snippet's that come back, such as 'out/*.png'; may be given several times",
    )
    parser.add_argument(
        "--output-dir", default=".", metavar="DIR", help="where they are put; default: the current folder"
    )
    parser.add_argument(
        "--mount",
        dest="mounts",
        action="append",
        default=[],
        metavar="NAME[=DIR[:rw]]",
        help="a folder that the snippet finds at /mnt/NAME: DIR, read-only unless :rw, or one that --server has named",
    )
    parser.add_argument(
        "--allow-http",
        dest="hosts",
        action="append",
        default=[],
        metavar="HOST",
        help="a host that the snippet may send HTTPS requests to, such as '*.example.com'; may be given several times",
    )
    _add_determinism(parser)
    parser.add_argument("--json", action="store_true", help="print the whole result as one JSON object")
    parser.add_argument(
        "--server", metavar="TARGET", help="evaluate there, such as localhost:50051; default: here"
    )


def _add_determinism(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "repetition", "Each of these makes the evaluation repeatable; see docs/determinism.md."
    )
    group.add_argument(
        "--deterministic", action="store_true", help="clocks and randomness follow from seed and start time"
    )
    group.add_argument("--seed", type=fuel, metavar="N", help="of all that is random; default 0")
    group.add_argument(
        "--start-time",
        type=moment,
        metavar="TIME",
        help="when its clock begins: seconds since 1970, or such as 2030-01-31T12:00Z; default 2000-01-01",
    )
    group.add_argument("--receipt", metavar="FILE", help="write the recording there, for `wasmeval replay`")
    group.add_argument(
        "--cache",
        action="store_true",
        help="the answer may be one that was given before; without standard input",
    )


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings", nargs="+", metavar="FILE", help="what --receipt wrote; of a session its steps in order"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--server", metavar="TARGET", help="repeat it there, such as localhost:50051; default: here"
    )


def _add_repl(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-l", "--language", metavar="LANG", default="python", help="default: python")
    parser.add_argument(
        "--session", metavar="ID", help="go on with a session that sleeps; default: begin one"
    )
    parser.add_argument(
        "--server", metavar="TARGET", help="a session there, such as localhost:50051; default: here"
    )
    parser.add_argument("--fuel", type=fuel, metavar="N", help="instructions a step may execute")
    parser.add_argument("--deadline", type=seconds, metavar="SECONDS", help="wall clock a step may take")
    parser.add_argument("--memory", type=mebibytes, metavar="MIB", help="memory the session may use")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="default 127.0.0.1:50051; port 0 takes a free one"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="worker processes; default one a CPU")
    parser.add_argument("--config", metavar="FILE", help="a TOML file, see docs/configuration.md")
    parser.add_argument(
        "--require-jail",
        action="store_true",
        help="refuse to start where a part of the workers' jail is missing",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="listen beyond this machine, without TLS and without keys"
    )


def _add_runtimes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--compile", action="store_true", help="compile the images for this machine first")
    parser.add_argument("--json", action="store_true", help="print them as a JSON array")


def _add_vm(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="vm_command", metavar="COMMAND", required=True)
    _add_vm_build(_command(commands, "build", "build an image from this machine's Debian packages"))
    listing = _command(commands, "list", "list the images")
    listing.add_argument("--json", action="store_true", help="print them as a JSON array")
    removing = _command(commands, "remove", "remove images")
    removing.add_argument("names", nargs="+", metavar="NAME")


def _add_vm_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="default", metavar="NAME", help="default: default")
    parser.add_argument(
        "--packages",
        nargs="+",
        action="extend",
        default=[],
        metavar="PACKAGE",
        help="Debian packages beside those that every image has",
    )
    parser.add_argument("--build-essential", action="store_true", help="compilers and Python's headers too")
    parser.add_argument(
        "--pip",
        type=Path,
        metavar="FILE",
        help="a requirements.txt for pip; default: numpy, pandas, matplotlib, pytest",
    )
    parser.add_argument(
        "--pip-package",
        dest="pip_packages",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        help="a Python package, such as 'scipy>=1.15'; may be given several times",
    )
    parser.add_argument(
        "--oci",
        type=Path,
        metavar="FILE",
        help="take the root from an OCI archive, or from what docker save wrote",
    )
    parser.add_argument(
        "--memory",
        dest="memory_bytes",
        type=mebibytes,
        metavar="MIB",
        help="memory of each of its VMs; default: 1024",
    )
    parser.add_argument(
        "--disk",
        dest="disk_bytes",
        type=mebibytes,
        metavar="MIB",
        help="disk of each of its VMs; default: 1024",
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the checks as a JSON array")


def named_input(text: str) -> tuple[str, Any]:
    """`NAME=JSON` as a name and its value."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{_short(text)} is not NAME=JSON")
    try:
        return name, _decode(value)
    except RecursionError:
        raise argparse.ArgumentTypeError(f"the JSON of {name!r} is nested too deeply") from None
    except ValueError as error:
        hint = f"; for a string, write {name}='\"...\"'" if value[:1].isalpha() else ""
        raise argparse.ArgumentTypeError(f"the value of {name!r} is not JSON: {error}{hint}") from None


def _decode(text: str) -> Any:
    """JSON as Python has it. Bytes that the locale could not decode arrive as surrogates and are refused."""
    from wasmeval.model import decode_value

    try:
        return decode_value(text.encode())
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None


def fuel(text: str) -> int:
    """A whole number, also as 5_000_000 or 1e9."""
    try:
        return int(text)
    except ValueError:
        pass
    number = _number(text)
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a whole number")
    return _bounded(number, text)


def seconds(text: str) -> float:
    """A number of seconds, as `Limits` takes it."""
    return _number(text)


def moment(text: str) -> float:
    """Seconds since 1970, as a number or as a date; one without a zone is UTC."""
    try:
        return float(text)
    except ValueError:
        pass
    from datetime import UTC, datetime

    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is neither a number of seconds nor a date such as 2030-01-31T12:00Z"
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def mebibytes(text: str) -> int:
    """A number of MiB, in bytes."""
    return _bounded(_number(text) * (1 << 20), text)


def positive(text: str) -> int:
    """A whole number above zero."""
    number = fuel(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a number")
    return number


def _bounded(number: float, text: str) -> int:
    """`number` without its fraction; no message names one of 300 digits."""
    if abs(number) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{_short(text)} is too large")
    return int(number)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


LANGUAGES_BY_ENDING = {
    ".py": "python",
    ".js": "javascript",
    ".mjs": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".sh": "bash",
    ".bash": "bash",
}


def language_of(language: str | None, path: str | None) -> str:
    """The language that was asked for, else the one that the file's ending tells, else python."""
    if language is not None:
        return language
    return LANGUAGES_BY_ENDING.get(os.path.splitext(path or "")[1].lower(), "python")
