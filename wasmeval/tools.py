"""Toolbox: functions of the caller's that a snippet may call: described for it, and called for it.

A snippet is not trusted: its arguments are plain JSON values, bound to the function's own signature; of what a function
raises it learns class and message, never the traceback.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from wasmeval.errors import InvalidArgument
from wasmeval.grants import Tool
from wasmeval.inputs import encode_value
from wasmeval.model import decode_value

Function = Callable[..., Any]
Outcome = tuple[bytes, tuple[str, str] | None]
"""JSON of what a function returned, or the class and message of what it raised."""


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

    def run(self, name: str, arguments: bytes) -> Outcome:
        """Call a function, here and now; an async one on an event loop of its own."""
        try:
            value = self._call(name, arguments)
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
            return encode_value("value", value), None
        except Exception as error:
            return b"", told(error)

    async def run_async(self, name: str, arguments: bytes) -> Outcome:
        """The same on this event loop: an async function here, any other one in a thread."""
        try:
            function = self._functions.get(name)
            if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
                getattr(function, "__call__", None)  # noqa: B004
            ):
                value = self._call(name, arguments)
            else:
                value = await asyncio.to_thread(self._call, name, arguments)
            if inspect.isawaitable(value):
                value = await value
            return encode_value("value", value), None
        except Exception as error:
            return b"", told(error)

    def _call(self, name: str, arguments: bytes) -> Any:
        function = self._functions[name]
        positional, named = decode_arguments(arguments)
        return function(*positional, **named)


def decode_arguments(arguments: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The values in a call's JSON. Raises ValueError for what is none."""
    call = decode_value(arguments)
    positional, named = call.get("args", []), call.get("kwargs", {})
    if not isinstance(positional, list) or not isinstance(named, dict):
        raise ValueError("the call's arguments are not a list and an object")
    return positional, named


def told(error: BaseException) -> tuple[str, str]:
    """Class and message of an exception, for the snippet."""
    if isinstance(error, InvalidArgument) and error.field == "value":
        return "TypeError", f"the tool's answer is no JSON value: {error.description}"
    if isinstance(error, KeyError) and len(error.args) == 1:
        return type(error).__name__, str(error.args[0])
    return type(error).__name__, str(error)


def describe(function: Function, name: str) -> Tool:
    """What a snippet is told of `function`: its signature, docstring, and which parameters have names."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return Tool(name, doc=inspect.getdoc(function) or "")
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = tuple(each.name for each in signature.parameters.values() if each.kind in named)
    return Tool(name, _written(signature), parameters, inspect.getdoc(function) or "")


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
    try:
        ast.parse(f"def f({parameter.replace(default=inspect.Parameter.empty)}): pass")
    except SyntaxError:
        return False
    return True


async def _awaited(value: Any) -> Any:
    return await value
