"""expected.toml: what is left out, and what fails."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("expected.toml")


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of the tree of tests, each with the reason why it stands there."""

    reasons: dict[str, str]

    def reason(self, test: str) -> str | None:
        """That of the nearest node which the test is, or is below; or that of the start that it has."""
        for start, reason in self.reasons.items():
            if start.endswith("*") and test.startswith(start[:-1]):
                return reason
        node = test
        while node:
            if node in self.reasons:
                return self.reasons[node]
            node = _parent(node)
        return None


def _parent(node: str) -> str:
    for separator in ("[", "::", "/"):
        if separator in node:
            return node.partition(separator)[0] if separator == "[" else node.rpartition(separator)[0]
    return ""


def read() -> tuple[Nodes, Nodes]:
    """What is left out, and what is expected to fail. Raises ValueError for a test that stands there twice."""
    lists = tomllib.loads(FILE.read_text())
    return _nodes(lists.get("left_out", [])), _nodes(lists.get("fails", []))


def _nodes(groups: list[dict[str, object]]) -> Nodes:
    reasons: dict[str, str] = {}
    for group in groups:
        tests = group["tests"]
        assert isinstance(tests, list)
        for test in tests:
            if test in reasons:
                raise ValueError(f"{FILE.name} names {test} twice")
            reasons[test] = str(group["reason"])
    return Nodes(reasons)
