"""`python -m bench`: measure, print the table, then the figures as JSON lines."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path

from bench import machine, report
from bench.report import Row
from bench.settings import Settings, say

_NOISY_LOAD = 0.3


def main() -> int:
    """Measure the rows that were asked for; 1 when one of them could not be, 130 after Ctrl-C."""
    arguments = _arguments()
    # A stop from outside ends the processes we started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.rows == ["profile"]:
        from bench import profile

        profile.run(arguments.settings)
        return 0
    if machine.load() > _NOISY_LOAD:
        say(f"the machine is not quiet (load {machine.load():.2f}): expect noise")
    measured: list[Row] = []
    failed = False
    try:
        for name in arguments.rows:
            failed |= not _measure(name, arguments.settings, measured)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    common: dict[str, str | int | float] = {"machine": machine.describe(), "commit": machine.commit()}
    print(report.table(measured), flush=True)
    lines = report.json_lines(measured, common)
    if arguments.json:
        arguments.json.write_text(lines)
    else:
        print(f"\n{lines}", end="", flush=True)
    if arguments.update_readme:
        command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
        report.update_readme(measured, command, common)
    return int(failed)


def _measure(name: str, settings: Settings, measured: list[Row]) -> bool:
    from bench.rows import ROWS

    start = time.monotonic()
    say(f"{name} ...")
    try:
        with contextlib.closing(ROWS[name](settings)) as rows:  # type: ignore[type-var]
            for row in rows:
                measured.append(row)
                say(f"  {row.what}: {row.measured}")
    except Exception as error:
        traceback.print_exc()
        measured.append(Row(name, f"could not be measured: {type(error).__name__}: {error}"))
        return False
    say(f"  {time.monotonic() - start:.0f} s")
    return True


def _arguments() -> argparse.Namespace:
    from bench.rows import ROWS

    parser = argparse.ArgumentParser(
        "python -m bench", description="Measure wasmeval on this machine, beside its peers."
    )
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help=f"{', '.join(ROWS)}; all of them when none is named; or `profile` alone",
    )
    parser.add_argument("--quick", action="store_true", help="few samples, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON lines there")
    parser.add_argument("--update-readme", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--workers", type=int, metavar="N", help="workers of each service; one for each CPU")
    parser.add_argument("--native", type=Path, metavar="PATH", help="the native CPython 3.13 to compare with")
    parser.add_argument(
        "--plain-javascript",
        type=Path,
        metavar="PATH",
        help="a QuickJS image built without limits or profile",
    )
    parser.add_argument("--wasi-python", type=Path, metavar="PATH", help="a CPython command module for WASI")
    arguments = parser.parse_args()
    chosen = {} if arguments.workers is None else {"workers": arguments.workers}
    arguments.settings = Settings(
        quick=arguments.quick,
        native=arguments.native,
        plain_javascript=arguments.plain_javascript,
        wasi_python=arguments.wasi_python,
        **chosen,
    )
    arguments.rows = arguments.rows or list(ROWS)
    if arguments.rows != ["profile"] and (unknown := {*arguments.rows} - {*ROWS}):
        parser.error(
            f"no row is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}; profile stands alone"
        )
    return arguments


if __name__ == "__main__":
    sys.exit(main())
