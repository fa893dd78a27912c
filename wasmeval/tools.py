"""Toolbox: functions of the caller's that a snippet may call: described for it, and called for it.

A snippet is not trusted: its arguments are plain JSON values, bound to the function's own signature; of what a function
raises it learns class and message, never the traceback. Neither is a function: it may raise anything, or never return.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from wasmeval.errors import InvalidArgument, WasmevalError
from wasmeval.grants import Tool
from wasmeval.inputs import MAX_CONTAINERS, check_json, encode_value
from wasmeval.limits import CEILINGS
from wasmeval.model import decode_value

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

# asyncio and concurrent.futures are loaded when a tool is called, or input is read: they would be a fifth of the start
# of a `wasmeval run` that needs neither.

T = TypeVar("T")

Function = Callable[..., Any]
Outcome = tuple[bytes, tuple[str, str] | None]
"""JSON of what a function returned, or the class and message of what it raised."""

Reply = Callable[[bytes, tuple[str, str] | None], None]
"""Takes an Outcome's two parts to the snippet."""

MOST_MESSAGE_CHARACTERS = 8192
"""Of an exception's message."""

NO_SUCH_TOOL = ("LookupError", "no such tool was offered to this evaluation")

# The name is the first member of a call's JSON object; the rest is for whoever runs the tool to read.
_NAME = re.compile(rb'\s*\{\s*"name"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.){1,4096}")\s*[,}]')


class Toolbox:
    """`functions` by the names that the snippet has for them. Raises InvalidArgument for what cannot be called."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        checked: object = functions
        if not isinstance(checked, Mapping):
            raise InvalidArgument(
                "tools", f"must be a mapping from names to functions, not {type(functions).__name__}"
            )
        for name, function in checked.items():
            if not isinstance(name, str) or not callable(function):
                raise InvalidArgument("tools", f"must map str to functions, not {name!r} to {function!r}")
        self._functions = dict(functions)

    def describe(self) -> tuple[Tool, ...]:
        """What the snippet is told of each."""
        return tuple(describe(function, name) for name, function in self._functions.items())

    def call(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Outcome | Awaitable[Any]:
        """What a function gives, here and now; of an async one, what is to be awaited and told by `settle`.

        Whatever a function raises is its outcome, `SystemExit` too: the snippet waits for an answer.
        """
        try:
            value = self._functions[name](*args, **kwargs)
        except BaseException as error:
            return b"", told(error)
        return value if inspect.isawaitable(value) else outcome_of(value)

    async def run(self, name: str, args: list[Any], kwargs: dict[str, Any], reply: Reply) -> None:
        """Call a function and reply: an async one on this event loop, any other one in a thread."""
        import asyncio

        try:
            if is_async(self._functions.get(name)):
                given = self.call(name, args, kwargs)
            else:
                given = await asyncio.wrap_future(in_thread(self.call, name, args, kwargs))
        except RuntimeError as error:
            given = b"", told(error)  # No thread could be started.
        if isinstance(given, tuple):
            _send(reply, given)
        else:
            await settle(given, reply)


class ToolThread:
    """A call of a tool in a daemon thread of its own; an async function has an event loop of its own there."""

    def __init__(
        self, toolbox: Toolbox, name: str, args: list[Any], kwargs: dict[str, Any], reply: Reply
    ) -> None:
        self._reply = reply
        # Guards the three below: a task is cancelled only while its loop runs, and `cancel` may come before it does.
        self._lock = threading.Lock()
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        try:
            in_thread(self._run, toolbox, name, args, kwargs)
        except RuntimeError as error:
            _send(reply, (b"", told(error)))  # No thread could be started.

    def cancel(self) -> None:
        """Cancel an async function; any other one goes on, and its answer is not heard."""
        with self._lock:
            self._cancelled = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self, toolbox: Toolbox, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        import asyncio

        given = toolbox.call(name, args, kwargs)
        if isinstance(given, tuple):
            _send(self._reply, given)
        else:
            try:
                asyncio.run(self._settle(given))
            except OSError as error:
                _send(self._reply, (b"", told(error)))  # No event loop could be made.

    async def _settle(self, given: Awaitable[Any]) -> None:
        import asyncio

        task = asyncio.current_task()
        assert task
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), task
            if self._cancelled:
                task.cancel()
        try:
            await settle(given, self._reply)
        finally:
            with self._lock:
                self._loop = self._task = None


async def settle(given: Awaitable[Any], reply: Reply) -> None:
    """Await what an async function gave and reply; not when this task is cancelled, for then nobody waits."""
    import asyncio

    try:
        outcome = outcome_of(await given)
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
            raise
        _send(reply, (b"", told(error)))
        if isinstance(error, KeyboardInterrupt):
            raise
    else:
        _send(reply, outcome)


def in_thread(function: Callable[..., T], *arguments: object) -> Future[T]:
    """What `function` gives, in a daemon thread that sees this context's variables: a program ends while it hangs.

    Raises RuntimeError when there can be no more threads.
    """
    from concurrent.futures import Future

    future: Future[T] = Future()
    # From now on it cannot be cancelled: whoever waits goes, and the function goes on.
    future.set_running_or_notify_cancel()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function, *arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="wasmeval-caller", daemon=True).start()
    return future


def is_async(function: object) -> bool:
    """Whether a call of `function` gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )


def outcome_of(value: Any) -> Outcome:
    """The answer with `value`, or, for what cannot be one, with the error that says why."""
    try:
        return encode_answer(value), None
    except Exception as error:
        # A mapping or sequence of the caller's own may raise anything.
        return b"", told(error)


def encode_answer(value: Any) -> bytes:
    """A tool's answer as JSON text. Raises InvalidArgument for `value`: for what JSON does not have, and for what no
    service takes, more than the ceiling of `tool_call_bytes` or MAX_CONTAINERS arrays and objects."""
    text = encode_value("value", value)
    most = CEILINGS.tool_call_bytes
    assert most
    if len(text) > most:
        raise InvalidArgument("value", f"{len(text)} bytes of JSON, more than {most}; return less")
    # All else that is checked there holds for what was encoded here.
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        try:
            check_json("value", text)
        except InvalidArgument as error:
            raise InvalidArgument("value", error.description) from None
    return text


def _send(reply: Reply, outcome: Outcome) -> None:
    # The conversation may be over by now.
    with contextlib.suppress(WasmevalError):
        reply(*outcome)


def decode_arguments(arguments: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The values in a call's JSON. Raises ValueError for what is none."""
    call = decode_value(arguments)
    positional, named = call.get("args", []), call.get("kwargs", {})
    if not isinstance(positional, list) or not isinstance(named, dict):
        raise ValueError("the call's arguments are not a list and an object")
    return positional, named


def raised(kind: str, message: str) -> bytes:
    """The outcome of a call whose tool raised."""
    return json.dumps({"type": kind, "message": message}).encode()


def tool_name(body: bytes) -> str:
    """The name in the body of a `call` operation; empty when it has none."""
    match = _NAME.match(body)
    try:
        return str(json.loads(match[1])) if match else ""
    except ValueError:
        return ""


def told(error: BaseException | str) -> tuple[str, str]:
    """Class and message of an exception, for the snippet; a RuntimeError for a message alone."""
    if isinstance(error, str):
        return "RuntimeError", _plain(error)
    if isinstance(error, InvalidArgument) and error.field == "value":
        return "TypeError", _plain(f"the tool's answer is not a JSON value that fits: {error.description}")
    try:
        text = str(error.args[0] if isinstance(error, KeyError) and len(error.args) == 1 else error)
    except Exception:
        text = "its message cannot be shown"
    return _plain(type(error).__name__), _plain(text)


def _plain(text: str) -> str:
    """`text` in bounds and without lone surrogates, which no message can carry."""
    if len(text) > MOST_MESSAGE_CHARACTERS:
        text = text[: MOST_MESSAGE_CHARACTERS - 3] + "..."
    return text.encode("utf-8", "replace").decode()


_Description = tuple[str, tuple[str, ...], str]
"""Signature, parameters and doc, as Tool has them."""

# Of plain functions, each with what its description follows from. It goes when its function does: nothing in here
# refers to one.
_known: WeakKeyDictionary[FunctionType, tuple[object, _Description]] = WeakKeyDictionary()


def describe(function: Function, name: str) -> Tool:
    """What a snippet is told of `function`: its signature, docstring, and which parameters have names.

    For a plain function it is found out once, and again when anything that it follows from has changed.
    """
    if type(function) is not FunctionType or not vars(function).keys().isdisjoint(_ELSEWHERE):
        return Tool(name, *_description(function))
    source = _source(function)
    known = _known.get(function)
    if known is None or known[0] != source:
        known = _known[function] = source, _description(function)
    return Tool(name, *known[1])


# Attributes by which inspect takes the signature from something else.
_ELSEWHERE = frozenset({"__signature__", "__wrapped__", "_partialmethod", "__partialmethod__"})


def _source(function: FunctionType) -> object:
    """All that a plain function's description follows from. Defaults and annotations are taken as the texts that
    inspect makes of them: they may change in place, and may refer to the function."""
    annotations, named = function.__annotations__, function.__kwdefaults__
    # Without a docstring a method has the one that its class inherits.
    doc = function.__doc__ if type(function.__doc__) is str else inspect.getdoc(function)
    return (
        function.__code__,
        doc,
        tuple(map(repr, function.__defaults__ or ())),
        [(key, repr(value)) for key, value in named.items()] if named else None,
        [
            (key, value if type(value) is str else (inspect.formatannotation(value),))
            for key, value in annotations.items()
        ],
    )


def _description(function: Function) -> _Description:
    doc = inspect.getdoc(function) or ""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return "", (), doc
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = tuple(each.name for each in signature.parameters.values() if each.kind in named)
    return _written(signature), parameters, doc


def _written(signature: inspect.Signature) -> str:
    """The signature as source; a default that has no literal stands as `...`, an annotation without one is left out."""
    parameters = [
        each.replace(
            default=each.default if _is_literal(each.default) else ...,
            annotation=each.annotation if _is_expression(each) else inspect.Parameter.empty,
        )
        for each in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=parameters)).replace("Ellipsis", "...")
    for attempt in (
        text,
        str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)),
    ):
        try:
            ast.parse(f"def f{attempt}: pass")
            return attempt
        except SyntaxError:
            continue
    return ""


def _is_literal(default: Any) -> bool:
    if default is inspect.Parameter.empty:
        return True
    try:
        ast.literal_eval(repr(default))
    except (ValueError, SyntaxError):
        return False
    return True


def _is_expression(parameter: inspect.Parameter) -> bool:
    if parameter.annotation is inspect.Parameter.empty:
        return True
    try:
        ast.parse(f"def f({parameter.replace(default=inspect.Parameter.empty)}): pass")
    except SyntaxError:
        return False
    return True
