"""The Python harness of a microVM: one warm interpreter, waiting on descriptor 3 for what it shall evaluate.

    python3 python.py         # descriptor 3: a SOCK_STREAM unix socket; 0, 1, 2: pipes

It keeps the guest ABI's frames and the Python image's rules (`docs/python.md`): the snippet is parsed once, its last
statement is changed in the syntax tree so that its value is kept, and errors are told by the image's own report. What
the image does in C (`runtimes/python/reactor.c`) is done here in Python, for whatever interpreter the guest has, from
3.9 on.
"""

from __future__ import annotations

import ast
import atexit
import fcntl
import gc
import importlib
import io
import linecache
import os
import re
import signal
import site
import struct
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent

CHANNEL_DESCRIPTOR = 3
# Out of the way: the first file that a snippet opens has descriptor 3, as in any script.
_OWN_DESCRIPTOR = 240

VALUE, RAISED, TOO_LARGE, UNSUPPORTED, MEMORY = range(5)
NOT_JSON, HAS_ARRAY = 1, 2
HAS_CONTEXT, IS_STEP, RENEWS_ENTROPY, HAS_ARRAYS = 1, 2, 4, 8
_REQUEST, _REPLY = struct.Struct("<HHIII"), struct.Struct("<8I")
_TYPE_BYTES = 256

# Freed when memory ran out, so that the failure can still be told.
_RESERVE_BYTES = 384 << 10

# A name no snippet can spell, for the value of a last expression.
_VALUE_NAME = "<value>"

PROXY_NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
NO_PROXY_NAMES = ("no_proxy", "NO_PROXY")
_LOCAL = "localhost,127.0.0.1,::1"


# ---- the image's own modules -------------------------------------------------------------------------------------


def _mark_coroutine_function(function: Any) -> Any:
    """`inspect.markcoroutinefunction` is new in 3.12; before it, only asyncio can be told."""
    import asyncio

    function._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", True)
    return function


def _zip(*iterables: Any, strict: bool = False) -> Any:
    """`strict` is new in 3.10, and only a check."""
    return zip(*iterables)


def _load(name: str, **names: Any) -> Any:
    """Loads a module that lies beside this one, with `names` as globals of its own.

    The image's modules are written for its own CPython 3.13. What older interpreters lack of it they get in this way,
    and not by changing the modules, from which images are made.
    """
    path = HERE / f"{name}.py"
    module: Any = types.ModuleType(name)
    module.__file__ = str(path)
    module.__dict__.update(names)
    sys.modules[name] = module
    code = compile(path.read_bytes(), str(path), "exec", annotations.compiler_flag, dont_inherit=True)
    exec(code, module.__dict__)
    return module


_lacking: dict[str, Any] = {}
if sys.version_info < (3, 11):
    _lacking["BaseExceptionGroup"] = ()
if sys.version_info < (3, 10):
    _lacking["zip"] = _zip

arrays = _load("_wasmeval_arrays")
_wasmeval = _load("_wasmeval")
calls = _load("_wasmeval_calls")
renewal = _load("_wasmeval_renewal")
common = _load("_wasmeval_common")
tracebacks = _load("_wasmeval_tracebacks")
_load("wasmeval")
_signatures = _load("_wasmeval_signatures", **_lacking)
if sys.version_info < (3, 11):

    class _OlderSignature(_signatures.Signature):  # type: ignore[misc,name-defined]
        """Code objects have no qualified name yet."""

        def function(self, name: str, qualified: str, names: dict[str, Any], code_name: str) -> Any:
            function = types.FunctionType(self._code.replace(co_name=code_name), names, name, self._defaults)
            function.__qualname__ = qualified
            function.__kwdefaults__ = self._named_defaults
            function.__annotations__ = dict(self._annotations)
            return function

    _signatures.Signature = _OlderSignature
_tools = _load("_wasmeval_tools", **_lacking)
if sys.version_info < (3, 12):
    _tools.inspect = types.SimpleNamespace(markcoroutinefunction=_mark_coroutine_function)
_report = _load("_wasmeval_report", **_lacking)
# Nothing is lacking here: a module that is not installed is an error like any other.
_report._need = lambda error: None
if sys.version_info < (3, 11):
    _report._column = lambda step, name: 0
if (3, 10) <= sys.version_info < (3, 12):
    _image_traceback = _report._traceback
    _report._traceback = lambda error, name: tracebacks.with_suggestion(error, _image_traceback(error, name))


# ---- one evaluation ----------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """A request frame of `abi.md`."""

    flags: int
    value_limit: int
    code: str
    inputs: bytes
    arrays: memoryview = memoryview(b"")

    @classmethod
    def read(cls, frame: bytes) -> Request:
        """ValueError when it is not a frame of version 1."""
        if len(frame) < _REQUEST.size:
            raise ValueError("too short")
        version, flags, value_limit, code_length, inputs_length = _REQUEST.unpack_from(frame)
        end = _REQUEST.size + code_length
        rest = end + inputs_length
        start = rest + -rest % arrays.ALIGNMENT if flags & HAS_ARRAYS else len(frame)
        if version != 1 or len(frame) < start or (len(frame) != rest and not flags & HAS_ARRAYS):
            raise ValueError("not of version 1, or its lengths do not add up")
        code, inputs = frame[_REQUEST.size : end].decode(), frame[end:rest]
        return cls(flags, value_limit, code, inputs, memoryview(frame)[start:])


class Ending(NamedTuple):
    """What a reply frame of `abi.md` says."""

    outcome: int
    flags: int = 0
    value: bytes = b""
    type: bytes = b""
    message: bytes = b""
    traceback: bytes = b""
    line: int = 0
    column: int = 0
    array: tuple[bytes, bytes] = (b"", b"")
    """A record's part before its elements, and these."""

    def frame(self) -> bytes:
        parts = (self.value, self.type, self.message, self.traceback)
        header = _REPLY.pack(self.outcome, self.flags, *map(len, parts), self.line, self.column)
        return b"".join((header, *parts, *self.array, bytes(-len(self.array[1]) % arrays.ALIGNMENT)))


class Interpreter:
    """What evaluations of this process share: a session's globals, the count of its steps, memory to fail with."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.steps = 0
        self.streams = sys.stdout, sys.stderr
        self.proxy = os.environ.pop("WASMEVAL_PROXY", "http://127.0.0.1:3128")
        self._session: dict[str, Any] | None = None
        self._reserve: Any = None
        self._interrupt: Any = signal.default_int_handler
        self._input = sys.stdin
        signal.signal(signal.SIGINT, _ignore_interrupt)

    def evaluate(self, request: Request) -> Ending:
        """Runs the snippet and says how it ended. In a child that the snippet forked, raises SystemExit instead."""
        self._reserve = self._reserve or bytearray(_RESERVE_BYTES)
        name = "<snippet>"
        try:
            signal.signal(signal.SIGINT, self._interrupt)
            try:
                is_step = bool(request.flags & IS_STEP)
                names = self._names(is_step)
                self._give(request, names)
                if is_step:
                    self._renew_input()
                    self.steps += 1
                    name = f"<step {self.steps}>"
                ending = _describe_value(_run(request.code, name, names), request.value_limit)
            finally:
                self._interrupt = signal.getsignal(signal.SIGINT)
                signal.signal(signal.SIGINT, _ignore_interrupt)
        except BaseException as error:
            self._end_child(error)
            return self._describe_error(error, name)
        self._end_child(None)
        return ending

    def _names(self, is_step: bool) -> dict[str, Any]:
        """The globals of a script's `__main__`; a session's, once it has begun."""
        if is_step and self._session is not None:
            return self._session
        module = types.ModuleType("__main__")
        module.__dict__["__builtins__"] = sys.modules["builtins"]
        sys.modules["__main__"] = module
        if is_step:
            self._session = module.__dict__
        return module.__dict__

    def _renew_input(self) -> None:
        """Input is each step's own: what the one before has read ahead, or its end, is not this one's."""
        if self.steps and sys.stdin is self._input:
            try:
                reader = open(0, "rb", closefd=False)  # noqa: SIM115
            except OSError:
                return  # the snippet has closed it
            self._input = io.TextIOWrapper(reader, encoding="utf-8", errors="strict")
            sys.stdin = self._input

    def _give(self, request: Request, names: dict[str, Any]) -> None:
        """Tools, then inputs, which may hide them; and the way to the network, when there is one."""
        calls.context = None
        if request.flags & HAS_CONTEXT:
            _tools.offer(names)
        self._set_proxy(calls.allows_http())
        if request.inputs:
            names.update(_wasmeval.decode(request.inputs))
        if request.arrays:
            arrays.give(names, request.arrays)

    def _set_proxy(self, allowed: bool) -> None:
        """Only our own settings are taken back: a session's snippet may have made others."""
        for names, value in ((PROXY_NAMES, self.proxy), (NO_PROXY_NAMES, _LOCAL)):
            for name in names:
                if allowed:
                    os.environ.setdefault(name, value)
                elif os.environ.get(name) == value:
                    del os.environ[name]

    def _describe_error(self, error: BaseException, name: str) -> Ending:
        if isinstance(error, MemoryError):
            self._reserve = None
        try:
            tracebacks.leave_out_our_frames(error)
            outcome, *told = _report.report(error, name)
        except BaseException:
            memory = isinstance(error, MemoryError)
            kind = type(error).__name__.encode("utf-8", "replace")[:_TYPE_BYTES]
            message = b"memory ran out" if memory else b""
            return Ending(MEMORY if memory else RAISED, type=kind, message=message)
        value = b"null" if outcome == VALUE else b""
        return Ending(outcome, 0, value, *told)

    def _end_child(self, error: BaseException | None) -> None:
        """A child that comes to the snippet's end ends as a script's would: it has nothing to tell the host."""
        if os.getpid() == self.process:
            return
        if error is None:
            raise SystemExit(0)
        tracebacks.leave_out_our_frames(error)
        if isinstance(error, SystemExit):
            raise SystemExit(error.code)
        sys.excepthook(type(error), error, error.__traceback__)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1)


def _ignore_interrupt(number: int, frame: Any) -> None:
    """Not SIG_IGN, which the snippet's own processes would inherit."""


def _run(code: str, name: str, names: dict[str, Any]) -> Any:
    """The value of the snippet. Its lines stay known to `linecache`, and so to tracebacks and `inspect`."""
    _wasmeval.sources[name] = code
    linecache.cache[name] = (len(code), None, [line + "\n" for line in code.split("\n")], name)
    tree: Any = compile(code, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    kept = _keep_last_value(tree)
    exec(compile(tree, name, "exec", dont_inherit=True), names)
    if kept == _VALUE_NAME:
        return names.pop(kept, None)
    return names.get(kept) if kept is not None else None


def _keep_last_value(tree: Any) -> str | None:
    """Changes the last statement so that its value is kept. The name that will hold it; None when there is none."""
    last = tree.body[-1] if tree.body else None
    target: Any = None
    if isinstance(last, ast.Expr):
        value = last.value
        target = ast.copy_location(ast.Name(_VALUE_NAME, ast.Store()), value)
        tree.body[-1] = ast.copy_location(ast.Assign([target], value), last)
    elif isinstance(last, ast.Assign):
        target = last.targets[0] if len(last.targets) == 1 else None
    elif isinstance(last, ast.AugAssign) or (isinstance(last, ast.AnnAssign) and last.value is not None):
        target = last.target
    return target.id if isinstance(target, ast.Name) else None


def _describe_value(value: Any, limit: int) -> Ending:
    try:
        try:
            ending = Ending(VALUE, 0, _wasmeval.encode_within(value, limit))
        except (_wasmeval.NotJson, RecursionError):
            ending = Ending(VALUE, NOT_JSON, _wasmeval.encode_repr(value, limit))
        return _with_array(ending, value, limit)
    except _wasmeval.TooLarge:
        message = f"the value is larger than output_bytes ({limit})"
        return Ending(TOO_LARGE, type=b"ValueTooLarge", message=message.encode())
    except MemoryError:
        message = "memory ran out while the value was encoded"
        return Ending(MEMORY, type=b"MemoryError", message=message.encode())


def _with_array(ending: Ending, value: Any, limit: int) -> Ending:
    """The ending with the value as an array, when it is one. TooLarge, MemoryError."""
    record = arrays.record(value)
    if record is None:
        return ending
    if len(ending.value) + len(record[1]) > limit:
        raise _wasmeval.TooLarge
    return ending._replace(flags=ending.flags | HAS_ARRAY, array=record)


# ---- the end of an evaluation ------------------------------------------------------------------------------------


def _flush(*streams: Any) -> None:
    for stream in streams:
        try:
            stream.flush()
        except BaseException:
            pass  # closed, None, or an object of the snippet's that fails


def _finish(interpreter: Interpreter, is_step: bool) -> None:
    """What an interpreter does as it ends: threads, exit functions, streams. A session's step is no end."""
    if not is_step:
        for end in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
            try:
                end()
            except BaseException:
                pass
    _flush(sys.stdout, sys.stderr, *interpreter.streams)


def serve(interpreter: Interpreter, channel: Any) -> None:
    """Says that this process can be snapshotted, then evaluates one snippet, or a session's steps one by one."""
    _wasmeval.channel = channel
    channel.lock.acquire()
    channel.send(_wasmeval.READY, b"")
    first = True
    while True:
        try:
            frame = channel.request()
        except _wasmeval.ChannelClosed:
            os._exit(0)
        try:
            request = Request.read(frame)
        except ValueError:
            channel.send(_wasmeval.REPLY, _unreadable())
            continue
        if first or request.flags & RENEWS_ENTROPY:
            renewal.renew()
        first = False
        is_step = bool(request.flags & IS_STEP)
        # Between two steps nobody asks the host: threads that a step left wait here for the next one.
        channel.lock.release()
        ending = interpreter.evaluate(request)
        _finish(interpreter, is_step)
        reply = ending.frame()
        channel.lock.acquire()
        channel.send(_wasmeval.REPLY, reply)
        if not is_step:
            # Objects are not torn down, and threads that nobody waits for end here.
            os._exit(0)


def _unreadable() -> bytes:
    message = b"the request is not a frame of ABI version 1"
    return Ending(RAISED, type=b"ProtocolError", message=message).frame()


# ---- the warm-up -------------------------------------------------------------------------------------------------


def warm_up(interpreter: Interpreter) -> None:
    """Imports what is common, takes some snippets along the way of every snippet, and forgets what they left."""
    filters = list(warnings.filters)
    common.import_common()
    real, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), *(_nowhere(), _nowhere())
    environment = dict(os.environ)
    try:
        renewal.renew()
        _warm_up_tools()
        interpreter.evaluate(
            Request(0, 1 << 20, "a + len(b)", b'{"a": 1, "b": [1.5, "two", null, {"k": false}]}')
        )
        for code in common.SNIPPETS * 3 + common.FAILING * 2 + ("1+1",) * 100:
            ending = interpreter.evaluate(Request(0, 1 << 20, code, b""))
            ending.frame()
    finally:
        sys.stdout, sys.stderr = real
    os.environ.clear()
    os.environ.update(environment)
    _forget(filters)


def practise(interpreter: Interpreter) -> None:
    """Takes a snippet along the way of every snippet once more, in a clone that has time: emulation is quicker then."""
    filters = list(warnings.filters)
    real, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), *(_nowhere(), _nowhere())
    try:
        for code in ("x = [1]\nprint(x, sum(x))\n{'x': x}", "1 / 0"):
            interpreter.evaluate(Request(0, 1 << 20, code, b"")).frame()
    finally:
        sys.stdout, sys.stderr = real
    _forget(filters)


def _nowhere() -> Any:
    return io.TextIOWrapper(open(os.devnull, "wb"), encoding="utf-8", line_buffering=True)


def _warm_up_tools() -> None:
    """The way of a tool up to its call, for which there is no host yet."""
    for signature in ("(query: str, limit: int = 10) -> list", "(*, tags: list[str] | None = None)", ""):
        tool = _tools._make("tool", signature, "What it does.", {})
        try:
            tool("x", limit=3)
        except Exception:
            pass


def _forget(filters: list[Any]) -> None:
    sys.modules["__main__"] = types.ModuleType("__main__")
    _wasmeval.sources.clear()
    linecache.clearcache()
    re.purge()
    warnings.filters[:] = filters  # type: ignore[index]
    getattr(warnings, "onceregistry", {}).clear()
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)
    importlib.invalidate_caches()


# ---- the process -------------------------------------------------------------------------------------------------


def _take_channel() -> Any:
    """The channel, on a descriptor that no program the snippet starts inherits, and that no child keeps."""
    try:
        descriptor = fcntl.fcntl(CHANNEL_DESCRIPTOR, fcntl.F_DUPFD_CLOEXEC, _OWN_DESCRIPTOR)
    except ValueError:
        descriptor = fcntl.fcntl(CHANNEL_DESCRIPTOR, fcntl.F_DUPFD_CLOEXEC, CHANNEL_DESCRIPTOR + 1)
    os.close(CHANNEL_DESCRIPTOR)
    channel = _wasmeval.Channel(descriptor)
    os.register_at_fork(after_in_child=channel.close)
    return channel


def _set_up_streams() -> None:
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", errors="strict")  # type: ignore[union-attr]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _set_up_paths() -> None:
    """A script's folder comes first, and last what the user may yet install. Ours is not among them."""
    here = (str(HERE), os.path.dirname(os.path.abspath(__file__)))
    user = site.getusersitepackages()
    try:
        os.makedirs(user, exist_ok=True)
    except OSError:
        pass  # no home, or one that cannot be written to
    kept = [path for path in sys.path if path not in (*here, "", user)]
    at = next(
        (i for i, path in enumerate(kept) if path.endswith(("site-packages", "dist-packages"))), len(kept)
    )
    sys.path[:] = [os.getcwd(), *kept[:at], user, *kept[at:]]
    sys.argv[:] = [""]


def prepare() -> Interpreter:
    """Sets this process up as a script's, warms it, and makes what it holds the least work to share."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    # It was for this process: those that the snippet starts draw their own.
    os.environ.pop("PYTHONHASHSEED", None)
    _set_up_streams()
    _set_up_paths()
    interpreter = Interpreter()
    warm_up(interpreter)
    renewal.remember_generators()
    gc.collect()
    gc.freeze()
    return interpreter


def main() -> None:
    """Warm up, say so, and serve."""
    # First, so that no process of the warm-up has it.
    channel = _take_channel()
    interpreter = prepare()
    channel.practise = lambda: practise(interpreter)
    serve(interpreter, channel)


if __name__ == "__main__":
    main()
