"""The Python harness of a microVM: one warm interpreter, waiting on descriptor 3 for what it shall evaluate.

    python3 python.py         # descriptor 3: a SOCK_STREAM unix socket; 0, 1, 2: pipes

It keeps the guest ABI's frames and the Python image's rules (`docs/python.md`): the snippet is parsed once, its last
statement is changed in the syntax tree so that its value is kept, and errors are told by the image's own report. What the
image does in C (`runtimes/python/reactor.c`) is done here in Python, for whatever interpreter the guest has, from 3.9 on.
"""

from __future__ import annotations

import __future__
import ast
import atexit
import fcntl
import gc
import importlib
import io
import json
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
NOT_JSON = 1
HAS_CONTEXT, IS_STEP, RENEWS_ENTROPY = 1, 2, 4
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

    The image's modules are written for its own CPython 3.13. What older interpreters lack of it they get in this way, and
    not by changing the modules, from which images are made.
    """
    path = HERE / f"{name}.py"
    module: Any = types.ModuleType(name)
    module.__file__ = str(path)
    module.__dict__.update(names)
    sys.modules[name] = module
    code = compile(
        path.read_bytes(), str(path), "exec", __future__.annotations.compiler_flag, dont_inherit=True
    )
    exec(code, module.__dict__)
    return module


_lacking: dict[str, Any] = {}
if sys.version_info < (3, 11):
    _lacking["BaseExceptionGroup"] = ()
if sys.version_info < (3, 10):
    _lacking["zip"] = _zip

_wasmeval = _load("_wasmeval")
calls = _load("_wasmeval_calls")
renewal = _load("_wasmeval_renewal")
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

_image_traceback = _report._traceback


def _with_suggestion(error: BaseException, name: str) -> str:
    """Before 3.12 `traceback` knows no "Did you mean"; the interpreter does, when it prints an error itself."""
    text: str = _image_traceback(error, name)
    if not isinstance(error, (NameError, AttributeError)):
        return text
    printed, sys.stderr = sys.stderr, io.StringIO()
    try:
        sys.__excepthook__(type(error), error, error.__traceback__)
        hint = sys.stderr.getvalue().rstrip("\n").rpartition("\n")[2]
    finally:
        sys.stderr = printed
    plain = text.rstrip("\n").rpartition("\n")[2]
    return text[: -len(plain) - 1] + hint + "\n" if hint.startswith(plain) else text


if (3, 10) <= sys.version_info < (3, 12):
    _report._traceback = _with_suggestion

_OUR_FILES = frozenset([_wasmeval.TOOL_FILE, __file__, *map(str, HERE.glob("*.py"))])


# ---- one evaluation ----------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """A request frame of `abi.md`."""

    flags: int
    value_limit: int
    code: str
    inputs: bytes

    @classmethod
    def read(cls, frame: bytes) -> Request:
        """ValueError when it is not a frame of version 1."""
        if len(frame) < _REQUEST.size:
            raise ValueError("too short")
        version, flags, value_limit, code_length, inputs_length = _REQUEST.unpack_from(frame)
        end = _REQUEST.size + code_length
        if version != 1 or len(frame) != end + inputs_length:
            raise ValueError("not of version 1, or its lengths do not add up")
        return cls(flags, value_limit, frame[_REQUEST.size : end].decode(), frame[end:])


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

    def frame(self) -> bytes:
        parts = (self.value, self.type, self.message, self.traceback)
        header = _REPLY.pack(self.outcome, self.flags, *map(len, parts), self.line, self.column)
        return header + b"".join(parts)


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
            sys.stdin = sys.__stdin__ = self._input = io.TextIOWrapper(
                reader, encoding="utf-8", errors="strict"
            )  # type: ignore[misc]

    def _give(self, request: Request, names: dict[str, Any]) -> None:
        """Tools, then inputs, which may hide them; and the way to the network, when there is one."""
        calls.context = None
        if request.flags & HAS_CONTEXT:
            _tools.offer(names)
        self._set_proxy(calls.allows_http())
        if request.inputs:
            names.update(_wasmeval.decode(request.inputs))

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
            _leave_out_our_frames(error)
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
        _leave_out_our_frames(error)
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
    tree = compile(code, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
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
            return Ending(VALUE, 0, _wasmeval.encode_within(value, limit))
        except (_wasmeval.NotJson, RecursionError):
            return Ending(VALUE, NOT_JSON, _wasmeval.encode_repr(value, limit))
    except _wasmeval.TooLarge:
        message = f"the value is larger than output_bytes ({limit})"
        return Ending(TOO_LARGE, type=b"ValueTooLarge", message=message.encode())
    except MemoryError:
        message = "memory ran out while the value was encoded"
        return Ending(MEMORY, type=b"MemoryError", message=message.encode())


# ---- tracebacks --------------------------------------------------------------------------------------------------


def _leave_out_our_frames(error: BaseException) -> None:
    """Takes the harness's frames out of the tracebacks of `error` and of all that led to it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without_our_frames(one.__traceback__)
        waiting += (one.__cause__, one.__context__, *getattr(one, "exceptions", ()))


def _without_our_frames(step: Any) -> Any:
    first = last = None
    while step is not None:
        following = step.tb_next
        if step.tb_frame.f_code.co_filename not in _OUR_FILES:
            if last is None:
                first = step
            elif last.tb_next is not step:
                last.tb_next = step
            last = step
        step = following
    if last is not None and last.tb_next is not None:
        last.tb_next = None
    return first


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
    """Says that this process can be snapshotted, then evaluates one snippet, or a session's steps one after the other."""
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

# What snippets commonly import. Loaded before the snapshot, it costs a look-up.
COMMON = """abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections.abc concurrent.futures
concurrent.futures.process concurrent.futures.thread configparser contextlib contextvars copy csv ctypes dataclasses datetime
decimal difflib dis email.message encodings.ascii encodings.idna encodings.latin_1 encodings.utf_8 enum fractions functools getpass
glob graphlib gzip hashlib heapq hmac html html.parser http.client http.server importlib.metadata importlib.resources inspect io
ipaddress itertools json keyword linecache locale logging lzma math mimetypes mmap multiprocessing multiprocessing.connection
multiprocessing.pool numbers operator os pathlib pickle platform pprint queue random re resource sched secrets select selectors
shlex shutil signal site socket socketserver sqlite3 ssl statistics string struct subprocess sys tarfile tempfile textwrap
threading time timeit tokenize traceback types typing unicodedata unittest urllib.parse urllib.request uuid warnings weakref
xml.etree.ElementTree zipfile zlib zoneinfo _strptime""".split()
PACKAGES = """numpy numpy.linalg numpy.fft numpy.random numpy.ma numpy.polynomial numpy.testing pandas matplotlib
matplotlib.pyplot matplotlib.backends.backend_agg requests yaml PIL.Image scipy.stats scipy.optimize sympy""".split()

SNIPPETS = (
    "1+1",
    "x = 3\ny = x * 2\nprint(x, y)\ny",
    'import json\njson.dumps(json.loads(\'{"a": [1, 2.5, null, true, "t"]}\'), indent=2)',
    "def double(n):\n    return n * 2\n\n[double(i) for i in range(9) if i % 2]",
    "import re\n[m.group(1) for m in re.finditer(r'(\\w+)@(\\w+)', 'a@b c@d')]",
    "class Point:\n    def __init__(self, x):\n        self.x = x\nPoint(1)",
    "from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int\n    b: str = ''\n[Pair(1), Pair(2, 'z')]",
    "import datetime\ndatetime.datetime.strptime('2024-05-06', '%Y-%m-%d').isoformat()",
    "import math, statistics\n{'mean': statistics.mean([1, 2, 3.5]), 'root': math.sqrt(2), 'set': sorted({3, 1})}",
    "from collections import Counter\nCounter('mississippi').most_common(2)",
    "import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n\nasyncio.run(f(1))",
    "import csv, io\nlist(csv.DictReader(io.StringIO('a,b\\n1,2\\n')))",
    "import hashlib, base64\n[hashlib.sha256(b'x').hexdigest(), base64.b64encode(b'y').decode()]",
    "import sys\nprint('to stderr', file=sys.stderr)\nNone",
    "import subprocess\nsubprocess.run(['true'], capture_output=True).returncode",
    "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()",
    "import numpy as np\na = np.arange(12.0).reshape(3, 4)\n(a @ a.T).sum() + np.linalg.norm(a)\na",
    "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2, 1], 'b': [3.0, 4, 5]})\ndf.groupby('a').sum().to_string()",
)
FAILING = (
    "def f(n):\n    return 1 / n\n\nf(0)",
    "undefined_name",
    "def broken(:\n    pass",
    "try:\n    int('x')\nexcept ValueError as e:\n    raise RuntimeError('chained') from e",
    "import a_package_that_is_not_there",
)


def warm_up(interpreter: Interpreter) -> None:
    """Imports what is common, takes some snippets along the way of every snippet, and forgets what they left."""
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in COMMON + PACKAGES:
            try:
                importlib.import_module(name)
            except Exception:
                pass  # not installed, or broken: the snippet that asks for it will hear why
    real, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), *(_nowhere(), _nowhere())
    environment = dict(os.environ)
    try:
        _warm_up_tools()
        interpreter.evaluate(
            Request(0, 1 << 20, "a + len(b)", b'{"a": 1, "b": [1.5, "two", null, {"k": false}]}')
        )
        for code in SNIPPETS * 3 + FAILING * 2 + ("1+1",) * 100:
            ending = interpreter.evaluate(Request(0, 1 << 20, code, b""))
            ending.frame()
    finally:
        sys.stdout, sys.stderr = real
    os.environ.clear()
    os.environ.update(environment)
    _forget(filters)


def practise(interpreter: Interpreter) -> None:
    """Takes a snippet along the way of every snippet once more, in a clone that has time: an emulated CPU is quicker then."""
    filters = list(warnings.filters)
    real, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), *(_nowhere(), _nowhere())
    try:
        for code in ("x = [1]\nprint(x, sum(x))\n{'x': x}", "1 / 0"):
            interpreter.evaluate(Request(0, 1 << 20, code, b"")).frame()
    finally:
        sys.stdout, sys.stderr = real
    _forget(filters)


def _nowhere() -> Any:
    return io.TextIOWrapper(open(os.devnull, "wb"), encoding="utf-8", line_buffering=True)  # noqa: SIM115


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
