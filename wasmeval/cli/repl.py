"""`wasmeval repl`: a session at the prompt: history, multi-line input, completion; Ctrl-C ends the step alone."""

from __future__ import annotations

import argparse
import ast
import codeop
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasmeval.cli import codes
from wasmeval.errors import WasmevalError
from wasmeval.limits import Limits
from wasmeval.model import Result, Status

if TYPE_CHECKING:
    from wasmeval.embedded_session import EmbeddedSession
    from wasmeval.service_session import ServiceSession

    Session = ServiceSession | EmbeddedSession

_PROMPT, _MORE = ">>> ", "... "
_HISTORY_LINES = 5000
_COMPLETING = Limits(deadline_seconds=1.0)
_DECLARES = re.compile(
    r"\s*(let|const|var|function|class|async\s+function|import|if|for|while|type|interface)\b"
)
_QUOTED = re.compile(
    r"'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|//[^\n]*|/\*.*?\*/|`(?:\\.|[^`\\])*`", re.DOTALL
)


def run(arguments: argparse.Namespace) -> int:
    """Read, evaluate, print, until the input ends. The session sleeps then, and `--session` comes back to it."""
    with _session(arguments) as (session, language):
        _Prompt(session, language, arguments).loop()
    return codes.OK


@contextlib.contextmanager
def _session(arguments: argparse.Namespace) -> Iterator[tuple[Session, str]]:
    """The session, which is put to sleep in the end, or closed when nothing was evaluated."""
    session: Session
    if arguments.server is not None:
        from wasmeval.client import Client

        with Client(arguments.server) as client:
            session = (
                client.attach(arguments.session) if arguments.session else client.session(arguments.language)
            )
            yield from _kept(
                session, session.language, arguments, lambda: client.attach(session.id).info().steps
            )
        return
    from wasmeval.cli.evaluators import evaluator

    with evaluator(is_known=True) as own:
        found = own.attach(arguments.session) if arguments.session else own.session(arguments.language)
        yield from _kept(found, found.info.language, arguments, lambda: found.info.steps)


def _kept(
    session: Session, language: str, arguments: argparse.Namespace, steps: Callable[[], int]
) -> Iterator[tuple[Session, str]]:
    yield session, language
    if steps() == 0:
        session.close()
        return
    session.hibernate()
    where = f" --server {arguments.server}" if arguments.server else ""
    print(f"the session sleeps; go on with: wasmeval repl{where} --session {session.id}", file=sys.stderr)


class _Prompt:
    """One session at the prompt."""

    def __init__(self, session: Session, language: str, arguments: argparse.Namespace) -> None:
        self._session = session
        self._is_python = language in ("python", "py")
        self._limits = Limits(
            fuel=arguments.fuel, deadline_seconds=arguments.deadline, memory_bytes=arguments.memory
        )
        self._interactive = sys.stdin.isatty()
        self._found: list[str] = []
        """What completes the word at hand."""

    def loop(self) -> None:
        """Until the input ends."""
        with self._history():
            while (code := self._read()) is not None:
                if code.strip():
                    self._step(code)

    def _read(self) -> str | None:
        """The next snippet, however many lines it has; None at the end of input."""
        lines: list[str] = []
        while True:
            try:
                lines.append(self._line(_MORE if lines else _PROMPT))
            except EOFError:
                if self._interactive:
                    print()
                return "\n".join(lines) if lines else None
            except KeyboardInterrupt:
                print("\nKeyboardInterrupt")
                lines.clear()
                continue
            code = "\n".join(lines)
            if not (_is_open_python(code) if self._is_python else _is_open_script(code)):
                return code

    def _line(self, prompt: str) -> str:
        if self._interactive:
            return input(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def _step(self, code: str) -> None:
        try:
            result = self._session.evaluate(code, limits=self._limits, on_output=_show)
        except KeyboardInterrupt:
            print("\nKeyboardInterrupt: the step was stopped, and the session is as it was before it")
            return
        except WasmevalError as error:
            print(f"wasmeval: {error}", file=sys.stderr)
            return
        self._tell(code, result)

    def _tell(self, code: str, result: Result) -> None:
        error = result.error
        if error is not None and error.traceback:
            print(error.traceback.rstrip("\n"), file=sys.stderr)
        if error is not None and (result.status is not Status.ERROR or not error.traceback):
            print(f"{result.status.value}: {error.message}", file=sys.stderr)
        if result.rolled_back:
            print("the session is as it was before this step", file=sys.stderr)
        if result.ok and (text := self._shown(code, result)) is not None:
            print(text)

    def _shown(self, code: str, result: Result) -> str | None:
        """The value as the language's own prompt would show it; None for what it would not show."""
        if not self._is_python:
            declares = _DECLARES.match(code) and ";" not in _QUOTED.sub("", code).rstrip("; \n")
            if declares or result.value_json == b"null":
                return None
            return str(result.value["repr"]) if not result.value_is_json else result.value_json.decode()
        if not _ends_in_expression(code):
            return None
        value = result.value
        if not result.value_is_json:
            return str(value["repr"])
        return None if value is None else repr(value)

    @contextlib.contextmanager
    def _history(self) -> Iterator[None]:
        """Of a terminal: what was typed before, and completion."""
        if not self._interactive:
            yield
            return
        try:
            import readline
        except ImportError:
            yield
            return
        file = Path(os.path.expanduser("~")) / ".wasmeval_history"
        with contextlib.suppress(OSError):
            readline.read_history_file(file)
        readline.set_history_length(_HISTORY_LINES)
        if self._is_python:
            readline.set_completer(self._complete)
            readline.set_completer_delims(" \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/?")
            readline.parse_and_bind("tab: complete")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                readline.write_history_file(file)

    def _complete(self, text: str, state: int) -> str | None:
        """readline's completer: the session itself knows its names."""
        if state == 0:
            self._found = self._ask(text)
        return self._found[state] if state < len(self._found) else None

    def _ask(self, text: str) -> list[str]:
        if not text:
            return ["    "]
        code = _COMPLETER.replace("TEXT", repr(text))
        try:
            result = self._session.evaluate(code, limits=_COMPLETING)
        except WasmevalError:
            return []
        found: Any = result.value if result.ok and result.value_is_json else []
        return [str(each) for each in found] if isinstance(found, list) else []


_COMPLETER = """\
(lambda c: [m for m in iter(lambda it=iter(range(200)): c.complete(TEXT, next(it)), None)])(
    __import__('rlcompleter').Completer(globals()))"""


def _is_open_python(code: str) -> bool:
    """Whether more lines are to come: a block that has begun ends with an empty line."""
    try:
        compiled = codeop.compile_command(code, "<step>", "exec")
    except (SyntaxError, ValueError, OverflowError):
        return False  # The guest says what is wrong with it; it may be of a newer Python.
    if compiled is None:
        return True
    lines = code.split("\n")
    return len(lines) > 1 and lines[-1].strip() != "" and lines[-1][:1] in (" ", "\t")


def _is_open_script(code: str) -> bool:
    """Whether brackets, or a template, are still open."""
    rest = _QUOTED.sub("", code)
    if "`" in rest or "/*" in rest:
        return True
    depth = sum(rest.count(opening) for opening in "([{") - sum(rest.count(closing) for closing in ")]}")
    return depth > 0


def _ends_in_expression(code: str) -> bool:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return bool(body) and isinstance(body[-1], ast.Expr)


def _show(stream: str, text: str) -> None:
    """What a step prints, as it comes."""
    out = sys.stdout if stream == "stdout" else sys.stderr
    out.flush()
    out.buffer.write(text.encode("utf-8", "replace"))
    out.buffer.flush()
