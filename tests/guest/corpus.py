"""Case: one snippet of the corpus, and how the topic files that hold it are read.

A topic file, `<language>/<topic>.txt`, holds many cases. `### case: name` starts one; then come, if needed,
`### inputs: <JSON object>` and `### differs: <fields> | <reason>`; all that follows up to the next case is the code.
`differs` names the fields in which our interpreter may legitimately leave the real one, and why; they are not compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LANGUAGES = ("python", "javascript")

_MARK = "### "


@dataclass(frozen=True, slots=True)
class Case:
    """A snippet with a name that is unique in its language, `topic/name`."""

    language: str
    name: str
    code: str
    inputs: dict[str, Any] = field(default_factory=dict)
    differs: frozenset[str] = frozenset()


def load_cases(language: str) -> list[Case]:
    """Every case of `language`, in the order of the files; raises ValueError when two share a name."""
    paths = sorted((HERE / language).glob("*.txt"))
    cases = [case for path in paths for case in _read_topic(language, path)]
    names = [case.name for case in cases]
    doubles = {name for name in names if names.count(name) > 1}
    if doubles:
        raise ValueError(f"case names are used twice: {sorted(doubles)}")
    return cases


def load_expected(language: str) -> dict[str, Any]:
    """What the real interpreter gave, by case name, and under `interpreter` which one it was."""
    expected: dict[str, Any] = json.loads(expected_path(language).read_text("utf-8"))
    return expected


def expected_path(language: str) -> Path:
    """The file that `generate.py` writes for `language`."""
    return HERE / "expected" / f"{language}.json"


def comparable(result: dict[str, Any], differs: frozenset[str] = frozenset()) -> dict[str, Any]:
    """`result` without what no two interpreters share: addresses, frames of libraries, the fields in `differs`."""
    fields = {key: _plain(value) for key, value in result.items() if key not in differs}
    if error := fields.get("error"):
        error = {key: _plain(value) for key, value in error.items() if key not in differs}
        if "traceback" in error:
            error["traceback"] = _LIBRARY_FRAME.sub("", error["traceback"])
        fields["error"] = error
    return fields


# A frame of a file that is not `<snippet>` or another text in angle brackets, with the source lines under it.
_LIBRARY_FRAME = re.compile(r'^([ |]*)  File "(?!<(?!frozen)).*\n(?:\1    .*\n)*', re.MULTILINE)
_ADDRESS = re.compile(r"\b0x[0-9a-f]{5,16}\b")


def _plain(value: Any) -> Any:
    return _ADDRESS.sub("0x...", value) if isinstance(value, str) else value


def _read_topic(language: str, path: Path) -> Iterator[Case]:
    _, *blocks = ("\n" + path.read_text("utf-8")).split(f"\n{_MARK}case: ")
    for block in blocks:
        name, *lines = block.split("\n")
        headers: dict[str, str] = {}
        while lines and lines[0].startswith(_MARK):
            key, _, text = lines.pop(0).removeprefix(_MARK).partition(": ")
            headers[key] = text
        fields, _, reason = headers.pop("differs", "").partition(" | ")
        inputs = json.loads(headers.pop("inputs", "{}"))
        if headers or bool(fields) != bool(reason):
            raise ValueError(f"{path.name}: case {name!r} has a header that is unknown or without a reason")
        code = "\n".join(lines).rstrip("\n")
        yield Case(language, f"{path.stem}/{name}", code, inputs, frozenset(fields.split()))
