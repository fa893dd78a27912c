"""NumPy's own test-suite in instances of the Python image: `make test-numpy`, or `python -m tests.numpy_suite`.

The tests are those of the pinned source distribution. Each file, or part of a long one, runs under pytest in a fresh
instance of its own, on all CPUs, by way of the Evaluator that users have; NumPy's pytest.ini holds, under which a
warning is an error. expected.toml says what is left out, as it does not apply (threads, processes, compilers), and
what fails. What fails and is not listed makes the exit status 1, and so does what ends its instance, listed or not, and
a test that was found and of which nothing was told. A test that is listed and passes is told, so that the list can
shrink.

    make test-numpy ARGS="numpy/fft numpy/lib/tests/test_io.py"     some of it
    make test-numpy ARGS="--outcomes outcomes.jsonl"                what came of each test, as JSON lines
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict

from tests.numpy_suite import lists
from tests.numpy_suite.folder import files_of_tests, folder_of_tests
from tests.numpy_suite.running import LIMITS, Outcome, Ran, Suite, parts_of
from wasmeval import Evaluator


class Tally:
    """Counts outcomes, against what is expected to fail, and tests, against what pytest found."""

    def __init__(self, fails: lists.Nodes) -> None:
        self._fails = fails
        self._found: dict[str, int] = {}
        self._tests: dict[str, set[str]] = {}
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.unexpected: list[Outcome] = []
        self.passes: list[str] = []

    def add(self, ran: Ran) -> None:
        file = ran.part.file
        self._found[file] = max(ran.collected, self._found.get(file, 0))
        for outcome in ran.outcomes:
            self._tests.setdefault(file, set()).add(outcome.test)
            self._count(outcome)

    def compare_with_what_was_found(self) -> None:
        """To be called when all parts of all files have run: a test without an outcome is not overlooked."""
        for file, found in self._found.items():
            told = self._tests.get(file, set())
            tests = len([test for test in told if "::" in test])
            if tests != found or not told:
                self._count(Outcome(file, "ended", f"{found} tests were found, {tests} have an outcome"))

    def _count(self, outcome: Outcome) -> None:
        kind = self._kind(outcome)
        self.counts[kind] += 1
        if kind in ("failed", "ended"):
            self.unexpected.append(outcome)
        elif kind == "passed unexpectedly":
            self.passes.append(outcome.test)

    def _kind(self, outcome: Outcome) -> str:
        reason = self._fails.reason(outcome.test)
        if reason is None or outcome.outcome not in ("passed", "failed"):
            return outcome.outcome
        if outcome.outcome == "passed":
            return "passed unexpectedly"
        self.reasons[reason] += 1
        return "failed as expected"

    @property
    def collected(self) -> int:
        return self.counts.total() - self.counts["left out"]

    @property
    def passed(self) -> int:
        return self.counts["passed"] + self.counts["passed unexpectedly"]


def main() -> int:
    """Run what was asked for.

    1 when a test failed that should not, ended its instance or was lost; 130 after Ctrl-C.
    """
    arguments = _arguments()
    # A stop from outside ends the instances, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    left_out, fails = lists.read()
    tally = Tally(fails)
    try:
        left_out_files = _run(arguments, left_out, tally)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    _summarize(tally, left_out_files, time.monotonic() - started)
    return int(bool(tally.unexpected))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.numpy_suite")
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="folders and files such as numpy/fft; all by default"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="instances at a time: CPUs by default"
    )
    parser.add_argument(
        "--outcomes",
        type=argparse.FileType("w"),
        default=os.devnull,
        metavar="FILE",
        help="write each test's outcome there, as JSON lines",
    )
    return parser.parse_args()


def _run(arguments: argparse.Namespace, left_out: lists.Nodes, tally: Tally) -> list[str]:
    """Runs all that is wanted; the files that are left out."""
    with Evaluator(workers=1, ceilings=LIMITS, defaults=LIMITS, vm=False) as preparing:
        home = folder_of_tests(preparing)
    files = [file for file in files_of_tests(home) if _is_wanted(file, arguments.paths)]
    applicable = [file for file in files if left_out.reason(file) is None]
    sizes = {file: (home / "site" / file).stat().st_size for file in applicable}
    parts = parts_of(applicable, sizes)
    with Evaluator(
        workers=arguments.workers, ceilings=LIMITS, defaults=LIMITS, folders={"suite": home}, vm=False
    ) as evaluator:
        suite = Suite(evaluator, (home / "packages.zip").read_bytes(), sorted(left_out.reasons))
        ended = 0
        for ran in suite.run_all(parts, arguments.workers):
            if ran is None:
                print(f"          running: {_running(suite)}", flush=True)
                continue
            ended += 1
            print(f"[{ended:3}/{len(parts)}] {_line(ran)}", flush=True)
            tally.add(ran)
            for outcome in ran.outcomes:
                print(json.dumps(asdict(outcome)), file=arguments.outcomes, flush=True)
    tally.compare_with_what_was_found()
    return [file for file in files if file not in applicable]


def _is_wanted(file: str, paths: list[str]) -> bool:
    return not paths or any(
        file == path.rstrip("/") or file.startswith(path.rstrip("/") + "/") for path in paths
    )


def _running(suite: Suite) -> str:
    return ", ".join(f"{part} at test {count}" for part, count in list(suite.running.items()))


def _line(ran: Ran) -> str:
    counts = Counter(outcome.outcome for outcome in ran.outcomes)
    what = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    return f"{ran.part}: {what or 'no tests'} ({ran.seconds:.1f} s, {ran.memory_bytes >> 20} MiB)"


def _summarize(tally: Tally, left_out_files: list[str], seconds: float) -> None:
    for reason, count in tally.reasons.most_common():
        print(f"expected: {count} failed: {reason}")
    for test in tally.passes:
        print(f"passed, though {lists.FILE.name} says that it fails: {test}")
    for outcome in tally.unexpected:
        print(f"{outcome.outcome.upper()} {outcome.test}\n       {outcome.message}")
    print(f"\n{_counts(tally)}")
    print(
        f"not applicable: {len(left_out_files)} files and {tally.counts['left out']} tests; {seconds:.0f} s"
    )


def _counts(tally: Tally) -> str:
    counts = tally.counts
    share = 100 * tally.passed / max(tally.collected - counts["skipped"], 1)
    return (
        f"{tally.collected} collected: {tally.passed} passed ({share:.2f} % of those not skipped), "
        f"{counts['skipped']} skipped, {counts['known to NumPy']} fail everywhere as NumPy knows, "
        f"{counts['failed as expected']} failed as expected, {counts['failed']} failed unexpectedly, "
        f"{counts['ended']} ended their instance or were lost, "
        f"{counts['passed unexpectedly']} passed unexpectedly"
    )


if __name__ == "__main__":
    sys.exit(main())
