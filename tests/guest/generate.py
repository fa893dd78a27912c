"""Takes the expected results of the corpus from the real interpreters.

    python -m tests.guest.generate --python /path/to/python3.13 --node node          # writes expected/*.json
    python -m tests.guest.generate --python /path/to/python3.13 --node node --check  # compares with them instead

Every case runs twice, each time in a fresh process; one that gives two different results is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.guest.corpus import HERE, LANGUAGES, Case, comparable, expected_path, load_cases

TIMEOUT_SECONDS = 30


def main() -> int:
    """The process's exit status: 1 when --check found a difference or a case is not deterministic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", default="python3.13", help="a CPython of the runtime's minor version")
    parser.add_argument("--node", default="node", help="node 20 or newer")
    parser.add_argument("--language", choices=LANGUAGES, action="append", help="only this language")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    commands = {
        "python": [options.python, "-I", "-B", "-X", "utf8", str(HERE / "harness_python.py")],
        "javascript": [options.node, "--expose-internals", str(HERE / "harness_node.js")],
    }
    failed = False
    for language in options.language or LANGUAGES:
        failed |= not run_language(language, commands[language], check=options.check)
    return int(failed)


def run_language(language: str, command: list[str], *, check: bool) -> bool:
    """Run every case of `language`; whether all were deterministic and, with `check`, as expected."""
    cases = load_cases(language)
    with ThreadPoolExecutor(2) as executor:
        pairs = list(executor.map(lambda case: (run(command, case), run(command, case)), cases))
    unsteady = [case.name for case, (first, second) in zip(cases, pairs, strict=True) if first != second]
    for name in unsteady:
        print(f"{language}/{name}: not deterministic", file=sys.stderr)
    results = {case.name: first for case, (first, _) in zip(cases, pairs, strict=True)}
    expected = {"interpreter": version_of(command[0]), "cases": results}
    text = json.dumps(expected, indent=1, ensure_ascii=True) + "\n"
    path = expected_path(language)
    if check:
        same = path.read_text("utf-8") == text
        print(f"{language}: {len(cases)} cases {'as expected' if same else 'DIFFER from ' + str(path)}")
        return same and not unsteady
    if not unsteady:
        path.write_text(text, "utf-8")
        print(f"{language}: {len(cases)} cases by {expected['interpreter']}")
    return not unsteady


def run(command: list[str], case: Case) -> dict[str, Any]:
    """What the real interpreter makes of `case`; RuntimeError when the harness itself failed."""
    with tempfile.TemporaryDirectory() as folder:
        request, reply = Path(folder, "request.json"), Path(folder, "reply.json")
        request.write_text(json.dumps({"code": case.code, "inputs": case.inputs}), "utf-8")
        process = subprocess.Popen(
            [*command, str(request), str(reply)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={"PATH": os.defpath, "TZ": "UTC"},
        )
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
        if not reply.exists():
            raise RuntimeError(f"{case.language}/{case.name}: no reply: {stderr.decode(errors='replace')}")
        result: dict[str, Any] = json.loads(reply.read_text("utf-8"))
    result |= {"stdout": stdout.decode(), "stderr": stderr.decode()}
    return comparable(result, case.differs)


def version_of(interpreter: str) -> str:
    """`Python 3.13.5`, `v20.20.2`: the interpreter in its own words."""
    return subprocess.run(
        [interpreter, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
