"""Test files, or parts of them, in instances: one each, and one more where a test has ended its instance."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from wasmeval import Evaluator, Limits, Result, Status
from wasmeval.limits import MIB

LIMITS = Limits(
    fuel=20_000_000_000_000,
    deadline_seconds=1800.0,
    memory_bytes=3072 * MIB,
    output_bytes=8 * MIB,
    workspace_bytes=1024 * MIB,
    workspace_files=65_536,
)
MEMORY = "1 GB"
"""What a test that asks may take of it."""

PARTS = {
    "numpy/_core/tests/test_multiarray.py": 4,
    "numpy/_core/tests/test_umath.py": 3,
    "numpy/_core/tests/test_ufunc.py": 2,
    "numpy/_core/tests/test_numeric.py": 2,
    "numpy/_core/tests/test_casting_unittests.py": 2,
    "numpy/_core/tests/test_nditer.py": 2,
    "numpy/lib/tests/test_function_base.py": 2,
    "numpy/ma/tests/test_core.py": 2,
    "numpy/_core/tests/test_mem_overlap.py": 2,
    "numpy/linalg/tests/test_regression.py": 1,
    "numpy/_core/tests/test_extint128.py": 1,
}
"""The files that take long, and in how many instances each runs."""

_GUEST = Path(__file__).with_name("guest.py").read_text()
_EVENT = re.compile(r"\x1e(.*)\n")
_BEGUN = '\x1e["begun", '
_PYTEST_ENDS_WELL = (0, 1, 5)
"""All passed, some failed, none were there."""


class Stopped(Exception):
    """The evaluator was closed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A test file, or a part of it."""

    file: str
    number: int = 0
    of: int = 1

    def __str__(self) -> str:
        return self.file if self.of == 1 else f"{self.file} ({self.number + 1} of {self.of})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a test: `passed`, `failed`, `skipped`, `known to NumPy` (to fail), `left out` or `ended`.

    `ended`: the instance came to its end in the test, or never told of it. No test is expected to do that. Of a file
    when it is not known which test it was.
    """

    test: str
    outcome: str
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A part that has run, in how much time and memory. `collected`: how many tests pytest found in the whole file."""

    part: Part
    outcomes: list[Outcome]
    collected: int
    seconds: float
    memory_bytes: int


def parts_of(files: list[str], sizes: dict[str, int]) -> list[Part]:
    """The parts of the files, those that may take longest first."""
    parts = [Part(file, number, PARTS.get(file, 1)) for file in files for number in range(PARTS.get(file, 1))]
    return sorted(parts, key=lambda part: (part.file not in PARTS, -sizes[part.file] / part.of))


class Suite:
    """Runs parts on an evaluator that has the tests' folder as `suite`."""

    def __init__(self, evaluator: Evaluator, packages: bytes, left_out: list[str]) -> None:
        self._evaluator = evaluator
        self._packages = packages
        self._left_out = left_out
        self.running: dict[Part, int] = {}
        """How many tests each part that runs has behind it."""

    def run_all(self, parts: list[Part], at_once: int) -> Iterator[Ran | None]:
        """Each as it comes to its end, None every half minute.

        What ends the iteration, Ctrl-C too, ends the instances.
        """
        with ThreadPoolExecutor(at_once) as pool:
            futures = {pool.submit(self.run, part) for part in parts}
            try:
                while futures:
                    done, futures = wait(futures, timeout=30.0, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                    if not done:
                        yield None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._evaluator.close()
                raise

    def run(self, part: Part) -> Ran:
        """Raises Stopped."""
        outcomes: list[Outcome] = []
        seconds, memory, collected = 0.0, 0, 0
        is_complete = False
        while not is_complete:
            result = self._evaluate(part, [outcome.test for outcome in outcomes])
            if result.status is Status.CANCELLED:
                raise Stopped
            told = told_by(part, result)
            outcomes += told.outcomes
            is_complete = told.is_complete
            collected = max(collected, told.collected)
            seconds += result.usage.wall_seconds
            memory = max(memory, result.usage.peak_memory_bytes)
        del self.running[part]
        return Ran(part, outcomes, collected, seconds, memory)

    def _evaluate(self, part: Part, done: list[str]) -> Result:
        self.running[part] = len(done)

        def count(stream: str, text: str) -> None:
            self.running[part] += text.count(_BEGUN)

        return self._evaluator.evaluate(
            _GUEST,
            inputs={
                "root": "/mnt/suite",
                "file": part.file,
                "part": part.number,
                "parts": part.of,
                "left_out": [node for node in self._left_out if node.startswith(part.file)],
                "done": done,
                "memory": MEMORY,
            },
            files={"packages.zip": self._packages},
            mounts=["suite"],
            limits=LIMITS,
            on_output=count,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What one instance told: outcomes, how many tests pytest found in the file, whether that was all."""

    outcomes: list[Outcome]
    collected: int = 0
    is_complete: bool = True


def told_by(part: Part, result: Result) -> Told:
    if result.stdout_truncated:
        return Told([Outcome(part.file, "ended", "stdout was too long: what came of tests is lost")])
    outcomes: list[Outcome] = []
    collected, chosen = 0, list[str]()
    running, status = "", None
    for event, *what in map(json.loads, _EVENT.findall(result.stdout)):
        if event == "collected":
            collected, chosen = what
        elif event == "begun":
            (running,) = what
        elif event == "complete":
            (status,) = what
        else:
            outcomes.append(Outcome(what[0], event, *what[1:]))
            running = ""
    if status is None:
        outcomes.append(Outcome(running or part.file, "ended", _end_of(result)))
        return Told(outcomes, collected, is_complete=not running)
    if status not in _PYTEST_ENDS_WELL:
        outcomes.append(Outcome(part.file, "ended", f"pytest ended with {status}: {result.stderr[-1000:]}"))
    if not result.ok:
        outcomes.append(Outcome(part.file, "ended", _end_of(result)))
    return Told(outcomes + _untold(chosen, outcomes), collected)


def _end_of(result: Result) -> str:
    message = result.error.message if result.error else result.stderr[-300:]
    return f"the instance ended: {result.status.value}: {message}"


def _untold(chosen: list[str], outcomes: list[Outcome]) -> list[Outcome]:
    told = {outcome.test for outcome in outcomes}
    return [Outcome(test, "ended", "its outcome was not told") for test in chosen if test not in told]
