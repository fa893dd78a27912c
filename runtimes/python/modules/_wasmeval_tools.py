"""Tools: functions of the snippet's that the host answers, made from their signatures.

Each is a real function with an empty body. Calling it checks the arguments as any function's (`tools.c`) and then comes
to `call`, or for its `aio` form to `begin`. No frame of this file is seen in a traceback.
"""

import ast
import asyncio
import builtins
import collections.abc
import inspect
import warnings

import _wasmeval
import _wasmeval_calls as calls
from _wasmeval_signatures import Signature

from wasmeval import ToolError, ToolLimitError

_UNKNOWN = "(*args, **kwargs)"
_DEEPEST = 256

# An exception of a tool's is raised as itself when it is one of these: made from one message, and of no meaning to the
# interpreter or to the evaluation's outcome.
_PLAIN = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(
        kind, (UnicodeError, BaseExceptionGroup, StopIteration, StopAsyncIteration, MemoryError)
    )
}


# ---- making them -------------------------------------------------------------------------------------------------


def offer(names):
    """Asks for the context and puts its tools into `names`, the snippet's globals. Called once, before the snippet."""
    calls.context = _wasmeval.decode(_wasmeval.call_host(calls.CONTEXT))
    for tool in calls.context["tools"]:
        names[tool["name"]] = _make(tool["name"], tool["signature"], tool["doc"], names)


def _make(name, signature, doc, names):
    try:
        parsed = Signature(signature or _UNKNOWN)
    except (SyntaxError, ValueError, RecursionError):
        parsed = Signature(_UNKNOWN)
    function = parsed.function(name, name, names, name)
    function.__doc__ = doc or None
    function.aio = parsed.function("aio", f"{name}.aio", names, name)
    function.aio.__doc__ = f"{name}() to be awaited: several run at once.\n\n{doc}".rstrip()
    _wasmeval.make_tool(function, False)
    _wasmeval.make_tool(inspect.markcoroutinefunction(function.aio), True)
    return function


# ---- calling them ------------------------------------------------------------------------------------------------


def call(function, positional, named):
    """A tool was called: begins the call and blocks until it has ended."""
    return _result(*calls.outcome(_begin(_request(function, positional, named))))


def begin(function, positional, named):
    """A tool's `aio` was called: what it returns begins the call when it is awaited."""
    return Call(function.__qualname__, _request(function, positional, named))


class Call(collections.abc.Coroutine):
    """A call of a tool as a coroutine. Cancelling the task that awaits it tells the host to drop it."""

    __slots__ = ("__qualname__", "__weakref__", "_request", "_steps")

    def __init__(self, qualified, request):
        self.__qualname__ = qualified
        self._request = request
        self._steps = None

    @property
    def __name__(self):
        return "aio"

    def __repr__(self):
        return f"<coroutine object {self.__qualname__} at {id(self):#x}>"

    def send(self, value):
        if self._steps is None:
            self._steps = _future(self._request).__await__()
        return self._steps.send(value)

    def throw(self, *error):
        if self._steps is None:
            self._steps = iter(())
        if not hasattr(self._steps, "throw"):
            raise error[0] if isinstance(error[0], BaseException) else error[0](*error[1:2])
        return self._steps.throw(*error)

    def close(self):
        if self._steps is None:
            self._steps = iter(())
        elif hasattr(self._steps, "close"):
            self._steps.close()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def __del__(self):
        if self._steps is None:
            text = f"coroutine '{self.__qualname__}' was never awaited"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


for _name in ("send", "throw", "close", "__await__", "__iter__", "__next__"):
    _wasmeval.hide(Call.__dict__[_name])


def _future(request):
    """A future of the running loop, settled when the host has answered."""
    future = asyncio.get_running_loop().create_future()
    number = _begin(request)

    def settle(kind, outcome):
        if future.done() or future.get_loop().is_closed():
            return
        try:
            future.set_result(_result(kind, outcome))
        except BaseException as error:
            future.set_exception(error.with_traceback(None))

    def forget(_):
        if calls.pending.pop(number, None) is not None:
            calls.drop(number)

    calls.pending[number] = settle
    future.add_done_callback(forget)
    return future


def _begin(request):
    try:
        return calls.begin(calls.CALL, request)
    except NotImplementedError:
        pass
    text = f"the arguments are {len(request)} bytes of JSON, more than the host takes; send less"
    raise ToolLimitError(text, "tool_call_bytes")


# ---- arguments and results ---------------------------------------------------------------------------------------


def _request(function, positional, named):
    """The body of a `call`. Each argument is encoded on its own, so that a wrong one can be named."""
    code = function.__code__
    known = code.co_varnames[: code.co_argcount]
    labels = [repr(known[i]) if i < len(known) else str(i + 1) for i in range(len(positional))]
    args = b", ".join(
        [_json(function, label, value) for label, value in zip(labels, positional, strict=True)]
    )
    kwargs = b", ".join(
        [_wasmeval.encode(name) + b": " + _json(function, repr(name), value) for name, value in named.items()]
    )
    name = _wasmeval.encode(code.co_name)
    return b'{"name": %b, "args": [%b], "kwargs": {%b}}' % (name, args, kwargs)


def _json(function, label, value):
    encoded = _wasmeval.encode(value)
    if encoded is None:
        raise TypeError(f"{function.__qualname__}() argument {label} is not JSON: {_culprit(value)}")
    return encoded


def _culprit(value):
    """What in `value` is not JSON."""
    for depth in range(_DEEPEST + 1):
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    return f"a key is of type {type(key).__name__}"
                if _wasmeval.encode(item) is None:
                    value = item
                    break
            else:
                break
        elif isinstance(value, (list, tuple)):
            value = next((item for item in value if _wasmeval.encode(item) is None), None)
        else:
            return (
                f"it is of type {type(value).__name__}"
                if depth == 0
                else f"in it is a value of type {type(value).__name__}"
            )
    return f"it is nested more than {_DEEPEST} deep"


def _result(kind, outcome):
    """The value of a call that has ended, or its exception raised."""
    told = _wasmeval.decode(outcome)
    if kind == calls.DONE:
        return told
    if kind == calls.RAISED:
        raise _raised(told["type"], told["message"])
    if kind == calls.LIMIT:
        raise ToolLimitError(told["message"], told["limit"])
    raise ToolError(told["message"], told.get("type", ""))


def _raised(name, message):
    kind = _PLAIN.get(name)
    if kind is None:
        return ToolError(message or name, name)
    if kind is KeyError:
        # Its text is the repr of the key, which would be quoted twice.
        try:
            return KeyError(ast.literal_eval(message))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return KeyError(message)
    return kind(message) if message else kind()


_wasmeval.set_tool_handlers(call, begin)
