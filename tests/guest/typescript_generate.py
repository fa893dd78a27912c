"""Takes the expected results of the TypeScript corpus from the real compiler and node.

    python -m tests.guest.typescript_generate --typescript node_modules/typescript --node node

The compiler makes JavaScript of each case, node runs it (harness_node.js), and the compiler's own source map says which
line an error comes from. Of an error of syntax the line alone is taken: no two compilers share its text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.guest.corpus import HERE, Case, load_cases
from tests.guest.generate import run, version_of

EXPECTED = HERE / "typescript" / "expected.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--typescript", type=Path, required=True, help="the folder of npm's typescript")
    parser.add_argument("--node", default="node", help="node 20 or newer")
    options = parser.parse_args()
    package = options.typescript.resolve()
    compiler = f"TypeScript {json.loads((package / 'package.json').read_text())['version']}"
    cases = {case.name: expected(case, options.node, package) for case in load_cases("typescript")}
    whole = {"interpreter": f"{compiler}, node {version_of(options.node)}", "cases": cases}
    EXPECTED.write_text(json.dumps(whole, indent=1, ensure_ascii=True) + "\n")
    print(f"{len(cases)} cases by {whole['interpreter']}")


def expected(case: Case, node: str, package: Path) -> dict[str, Any]:
    """What a Result has to say of `case`."""
    compiled = compile_case(case, node, package)
    if "error" in compiled:
        return {"status": "error", "error": {"type": "SyntaxError", "line": compiled["error"]}}
    command = [node, "--expose-internals", str(HERE / "harness_node.js")]
    result = run(command, replace(case, code=compiled["code"]))
    if line := result.get("error", {}).get("line"):
        result["error"]["line"] = original_line(compiled, line, result["error"].pop("column", None))
    return result


def compile_case(case: Case, node: str, package: Path) -> dict[str, Any]:
    command = [node, str(HERE / "typescript_compile.js"), str(package)]
    done = subprocess.run(command, input=case.code, capture_output=True, text=True, check=True)
    compiled: dict[str, Any] = json.loads(done.stdout)
    return compiled


def original_line(compiled: dict[str, Any], line: int, column: int | None) -> int:
    """The line of the snippet; node gives the column of the error as well."""
    places = compiled["lines"][line - 1]
    at = len(compiled["code"].split("\n")[line - 1]) - len(compiled["code"].split("\n")[line - 1].lstrip())
    place: int = places[min(column - 1 if column else at, len(places) - 1)]
    return place


if __name__ == "__main__":
    main()
