"""Operations, and what they gave in NumPy for the machine at hand.

    python -m venv nat && nat/bin/pip install numpy==2.4.6 && nat/bin/python tests/numerics/reference.py

writes reference.json again. The version is that of the image.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
DESCRIBING = (_HERE / "describing.py").read_text()
_REFERENCE = _HERE / "reference.json"


@dataclass(frozen=True, slots=True)
class Operation:
    """`is_exact`: the same to the last bit everywhere."""

    code: str
    section: str
    is_exact: bool


def operations() -> list[Operation]:
    found: list[Operation] = []
    section, is_exact = "", True
    for line in (_HERE / "operations.txt").read_text().splitlines():
        if heading := re.fullmatch(r"\[([a-z ]+?)( ~)?\]", line):
            section, is_exact = heading[1], heading[2] is None
        elif line and not line.startswith("#"):
            found.append(Operation(line, section, is_exact))
    return found


def differences() -> dict[str, str]:
    """Operations that are known to differ, each with the reason."""
    found: dict[str, str] = {}
    reason = ""
    for line in (_HERE / "differences.txt").read_text().splitlines():
        if line.startswith("# "):
            reason = line.removeprefix("# ")
        elif line:
            found[line] = reason
    return found


def reference() -> dict[str, Any]:
    """`numpy`, its version, and `answers` by operation."""
    loaded: dict[str, Any] = json.loads(_REFERENCE.read_text())
    return loaded


def _write() -> None:
    import numpy

    codes = [operation.code for operation in operations()]
    names: dict[str, Any] = {"operations": codes}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(DESCRIBING, names)
        os.chdir(_HERE)
    lines = [
        f"{json.dumps(code)}: {json.dumps(answer)}"
        for code, answer in zip(codes, names["answers"], strict=True)
    ]
    text = ",\n".join(lines)
    _REFERENCE.write_text(f'{{"numpy": "{numpy.__version__}", "answers": {{\n{text}\n}}}}\n')


if __name__ == "__main__":
    _write()
