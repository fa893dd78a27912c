"""Runs one snippet in the real CPython and reports what a Result has to say of it.

Usage: harness_python.py REQUEST REPLY, two files of JSON: {code, inputs} and the fields of a reply of
`runtimes/abi.md`. What the snippet prints goes to this process's own stdout and stderr. One process runs one snippet,
in an empty folder.
"""

from __future__ import annotations

import ast
import json
import linecache
import sys
import traceback
import types
import warnings
from pathlib import Path
from typing import Any

FILE = "<snippet>"
MAX_DEPTH = 256

# A name no snippet can spell, for the value of a last expression.
_LAST = "<last>"


class NotJson(Exception):
    """The value has something in it that JSON cannot say."""


def main() -> None:
    """Evaluate the request and write the reply."""
    request_path, reply_path = map(Path, sys.argv[1:])
    request = json.loads(request_path.read_text("utf-8"))
    sys.argv[:] = [""]
    sys.stdout.reconfigure(errors="strict")  # type: ignore[union-attr]  # as it is wherever a locale is set
    try:
        reply = evaluate(request["code"], request["inputs"])
    except SystemExit as error:
        reply = describe_exit(error)
    except BaseException as error:
        reply = describe_error(error)
    sys.stdout.flush()
    reply_path.write_text(json.dumps(reply), "utf-8")


def evaluate(code: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run `code` as the main module; its value as the fields of a reply."""
    linecache.cache[FILE] = (len(code), None, code.splitlines(keepends=True), FILE)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    module.__dict__.update(inputs)
    compiled, name = compile_snippet(code)
    exec(compiled, module.__dict__)
    return describe_value(module.__dict__.pop(name, None) if name else None)


def compile_snippet(code: str) -> tuple[types.CodeType, str | None]:
    """The code object, and the name that holds the snippet's value after it ran."""
    # For SyntaxErrors exactly as CPython gives them: some fetch their line from the file.
    Path(FILE).write_text(code, "utf-8")
    with warnings.catch_warnings(action="ignore"):
        compile(code, FILE, "exec", dont_inherit=True)
    Path(FILE).unlink()
    tree = ast.parse(code, FILE)
    last = tree.body[-1] if tree.body else None
    name = None
    if isinstance(last, ast.Expr):
        name = _LAST
        target = ast.copy_location(ast.Name(name, ast.Store()), last)
        tree.body[-1] = ast.copy_location(ast.Assign([target], last.value), last)
    elif isinstance(last, ast.Assign | ast.AnnAssign | ast.AugAssign) and last.value:
        targets = last.targets if isinstance(last, ast.Assign) else [last.target]
        name = targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None
    return compile(tree, FILE, "exec", dont_inherit=True), name


def describe_value(value: object) -> dict[str, Any]:
    """`value` as JSON text, or its repr and type as JSON text when JSON cannot say it."""
    sys.set_int_max_str_digits(0)
    try:
        return {"status": "ok", "value": to_json(value, 1), "value_is_json": True}
    except NotJson:
        text = json.dumps({"repr": repr(value), "type": type(value).__name__})
        return {"status": "ok", "value": text, "value_is_json": False}


def to_json(value: object, depth: int) -> str:
    """JSON text as `json.dumps` gives it, but strict on keys; raises NotJson."""
    if value is None or isinstance(value, (bool, str, int, float)):
        return json.dumps(value)
    if depth > MAX_DEPTH:
        raise NotJson
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(to_json(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        members = (f"{json.dumps(key)}: {to_json(item, depth + 1)}" for key, item in value.items())
        return "{" + ", ".join(members) + "}"
    raise NotJson


def describe_error(error: BaseException) -> dict[str, Any]:
    """The error as the snippet's caller sees it, without this file's frames."""
    message = text_of(error)
    line = column = None
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    if isinstance(error, SyntaxError) and error.filename == FILE and frames is None:
        line, column = error.lineno, error.offset
    error = error.with_traceback(frames)
    text = "".join(traceback.format_exception(error))
    while frames:
        if frames.tb_frame.f_code.co_filename == FILE:
            line, column = frames.tb_lineno, column_of(frames)
        frames = frames.tb_next
    described = {"type": type(error).__name__, "message": message, "traceback": text}
    return {"status": "error", "error": described | {"line": line, "column": column}}


def describe_exit(error: SystemExit) -> dict[str, Any]:
    """What an exit means: success without a code, else an error without a traceback, as CPython prints none."""
    if error.code in (None, 0):
        return describe_value(None)
    if not isinstance(error.code, int):
        print(error.code, file=sys.stderr)
    described = describe_error(error)
    described["error"]["traceback"] = ""
    return described


def text_of(error: BaseException) -> str:
    """The text as a traceback has it: of a SyntaxError without its place."""
    try:
        return error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:
        return "<exception str() failed>"


def column_of(frame: types.TracebackType) -> int | None:
    """The 1-based column, in characters, of what `frame` was executing."""
    positions = list(frame.tb_frame.f_code.co_positions())
    line, _, offset, _ = positions[frame.tb_lasti // 2]
    if line is None or offset is None:
        return None
    text = linecache.getline(FILE, line).encode()
    return len(text[:offset].decode(errors="replace")) + 1


if __name__ == "__main__":
    main()
