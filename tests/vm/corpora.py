"""The corpus of tests/guest against a harness: its results in the shape of those that the real interpreters gave."""

from __future__ import annotations

from typing import Any

from tests.guest.corpus import Case, comparable
from tests.guest.test_corpus import _decoded, _restricted
from tests.vm.harnesses import Evaluated
from wasmeval.wasm.abi import Outcome


def differences(case: Case, evaluated: Evaluated, expected: dict[str, Any], *, texts: bool = True) -> Any:
    """What `evaluated` gives otherwise than `expected`, as a pair of mappings that are equal when nothing does.

    Without `texts` the words of errors, their columns and tracebacks are not looked at: another version has others.
    """
    given, wanted = _restricted(described(case, evaluated), expected), _decoded(expected)
    if not texts:
        for fields in (given, wanted):
            fields.pop("stderr", None)
            for name in ("message", "traceback", "column"):
                fields.get("error", {}).pop(name, None)
    return given, wanted


def described(case: Case, evaluated: Evaluated) -> dict[str, Any]:
    """A reply as `tests.guest` writes results down."""
    reply = evaluated.reply
    fields: dict[str, Any] = {"stdout": evaluated.stdout, "stderr": evaluated.stderr}
    if reply.outcome == Outcome.VALUE:
        fields |= {"status": "ok", "value": reply.value.decode(), "value_is_json": reply.value_is_json}
    else:
        fields["status"] = "error"
        fields["error"] = {
            "type": reply.type,
            "message": reply.message,
            "traceback": reply.traceback,
            "line": reply.line or None,
            "column": reply.column or None,
        }
    return comparable(fields, case.differs)
