"""The native interpreter: runs a snippet in a fresh namespace and times it. Stands alone: any CPython 3.11 will do."""

from __future__ import annotations

import ast
import gc
import json
import os
import re
import sys
import time
from typing import Any


def run(code: str) -> tuple[float, Any]:
    """Seconds and value: compiling included, as in a guest."""
    re.purge()
    gc.collect()
    start = time.perf_counter()
    tree = ast.parse(code)
    last = tree.body.pop()
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(tree, "<snippet>", "exec"), names)
    assert isinstance(last, ast.Expr)
    value = eval(compile(ast.Expression(last.value), "<snippet>", "eval"), names)
    return time.perf_counter() - start, value


def main() -> None:
    """Answer every line: see bench/companion.py."""
    # As a worker does, so that whatever else runs here disturbs both alike.
    os.nice(5)
    for line in sys.stdin:
        question = json.loads(line)
        if "code" not in question:
            print(json.dumps({"version": sys.version.split()[0]}), flush=True)
            continue
        runs = [run(question["code"]) for _ in range(question["count"])]
        print(json.dumps({"seconds": [seconds for seconds, _ in runs], "value": runs[-1][1]}), flush=True)


main()
