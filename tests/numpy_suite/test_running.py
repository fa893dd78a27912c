"""What is made of what an instance told: no test is lost, and none may end its instance."""

from __future__ import annotations

import json
from typing import Any

from tests.numpy_suite.__main__ import Tally
from tests.numpy_suite.lists import Nodes
from tests.numpy_suite.running import Outcome, Part, Ran, Told, told_by
from wasmeval import Result, Status
from wasmeval.model import ErrorInfo

PART = Part("a.py")
ONE, TWO = "a.py::one", "a.py::two"


def _told(*events: Any, **fields: Any) -> Told:
    stdout = "".join(f"printed\x1e{json.dumps(event)}\n" for event in events)
    return told_by(PART, Result(**{"status": Status.OK, "stdout": stdout, **fields}))


def _tally(*outcomes: Outcome, found: int, fails: str = "") -> Tally:
    tally = Tally(Nodes({fails: "known"} if fails else {}))
    tally.add(Ran(PART, list(outcomes), found, 1.0, 0))
    tally.compare_with_what_was_found()
    return tally


def test_a_part_that_told_all_is_complete() -> None:
    told = _told(["collected", 2, [ONE]], ["begun", ONE], ["passed", ONE, "", 0.5], ["complete", 0])
    assert told == Told([Outcome(ONE, "passed", "", 0.5)], 2, is_complete=True)


def test_a_test_in_which_the_instance_ends_is_named_and_others_are_still_to_run() -> None:
    error = ErrorInfo("Trap", "out of bounds")
    told = _told(["collected", 2, [ONE, TWO]], ["begun", ONE], status=Status.CRASHED, error=error)
    (outcome,) = told.outcomes
    assert outcome == Outcome(ONE, "ended", "the instance ended: crashed: out of bounds")
    assert not told.is_complete


def test_a_test_of_which_nothing_was_told_is_named() -> None:
    told = _told(["collected", 2, [ONE, TWO]], ["passed", ONE, "", 0.5], ["complete", 0])
    assert told.outcomes[1:] == [Outcome(TWO, "ended", "its outcome was not told")]


def test_an_end_of_pytest_or_of_the_instance_after_the_tests_is_told_of_the_file() -> None:
    told = _told(["collected", 0, []], ["complete", 3], status=Status.CRASHED)
    assert [(outcome.test, outcome.outcome) for outcome in told.outcomes] == [("a.py", "ended")] * 2


def test_output_that_was_cut_is_no_outcome() -> None:
    (outcome,) = _told(["passed", ONE, "", 0.5], ["complete", 0], stdout_truncated=True).outcomes
    assert (outcome.test, outcome.outcome) == ("a.py", "ended")


def test_what_ends_its_instance_is_never_expected() -> None:
    for fails in ("", "a.py", ONE):
        tally = _tally(Outcome(ONE, "ended", "trap"), found=1, fails=fails)
        assert tally.unexpected == [Outcome(ONE, "ended", "trap")]


def test_what_is_listed_fails_as_expected() -> None:
    tally = _tally(Outcome(ONE, "failed"), found=1, fails=ONE)
    assert not tally.unexpected
    assert tally.counts == {"failed as expected": 1}


def test_a_file_with_more_tests_than_outcomes_is_named() -> None:
    for outcomes, found in (([Outcome(ONE, "passed")], 2), ([], 0)):
        (missing,) = _tally(*outcomes, found=found).unexpected
        assert missing.message == f"{found} tests were found, {len(outcomes)} have an outcome"
