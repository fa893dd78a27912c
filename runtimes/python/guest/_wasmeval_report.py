"""How an evaluation that failed is told: outcome, type, message, traceback, line and column for the reply.

Runs only when a snippet has raised. Everything is bounded here as `abi.md` says; what fails here (an exception in an
exception's own `__str__`, memory that is short) leaves a plainer text, never no reply.
"""

import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

RAISED, UNSUPPORTED, MEMORY = 1, 3, 4
VALUE = 0

TYPE_BYTES = 256
MESSAGE_BYTES = 8192
TRACEBACK_BYTES = 32768

# A deeper stack than a recursion error's at the usual limit is told by its two ends alone: the rest would be cut from
# the text anyway, and a million frames cost more fuel to tell than they did to make.
MOST_FRAMES = 1100
FRAMES_EACH_END = 100

# How many errors behind one another are looked at for what is lacking.
MOST_BEHIND = 8

# Modules of the standard library, or below it, that this runtime cannot have, and what they would need.
ABSENT_MODULES = {
    "_ctypes": "foreign functions (ctypes)",
    "_curses": "a terminal (curses)",
    "_curses_panel": "a terminal (curses)",
    "_dbm": "a database file (dbm)",
    "_gdbm": "a database file (dbm)",
    "_multiprocessing": "processes (multiprocessing)",
    "_overlapped": "Windows",
    "_posixshmem": "shared memory between processes",
    "_posixsubprocess": "processes (subprocess)",
    "_scproxy": "macOS",
    "_ssl": "sockets (ssl)",
    "_tkinter": "a display (tkinter)",
    "_winapi": "Windows",
    "ensurepip": "package installation (ensurepip)",
    "fcntl": "file descriptors (fcntl)",
    "grp": "a user database (grp)",
    "idlelib": "a display (idlelib)",
    "mmap": "mapped files (mmap)",
    "msvcrt": "Windows",
    "nt": "Windows",
    "pip": "package installation (pip)",
    "pwd": "a user database (pwd)",
    "readline": "a terminal (readline)",
    "resource": "processes (resource)",
    "syslog": "a system log (syslog)",
    "termios": "a terminal (termios)",
    "tkinter": "a display (tkinter)",
    "turtle": "a display (turtle)",
    "winreg": "Windows",
    "winsound": "Windows",
}

# Names that `from os import ...` asks for in vain; `_wasmeval_boot` says the same of `os.fork`.
PROCESS_NAMES = frozenset(
    "fork forkpty posix_spawn posix_spawnp system kill killpg wait waitpid execv execve pipe2 setsid".split()
)


def report(error: BaseException, name: str) -> tuple[int, bytes, bytes, bytes, int, int]:
    """What the reply says of `error`, which ended the snippet called `name`."""
    if isinstance(error, SystemExit):
        return _exit(error, name)
    line, column = _place(error, name)
    message, need = _message(error), _need(error)
    outcome = RAISED
    if need is not None:
        outcome = UNSUPPORTED
        # A need that gives its own reason is all there is to say.
        alone = not message or ": " in need or isinstance(error, ModuleNotFoundError)
        message = f"needs {need}" if alone else f"needs {need}: {message}"
    elif isinstance(error, MemoryError) and not message.startswith("Parser stack overflowed"):
        outcome = MEMORY
        message = message or "memory ran out"
    return (
        outcome,
        _bytes(type(error).__name__, TYPE_BYTES),
        _bytes(message, MESSAGE_BYTES),
        _bytes(_traceback(error, name), TRACEBACK_BYTES),
        line,
        column,
    )


def _exit(error: SystemExit, name: str) -> tuple[int, bytes, bytes, bytes, int, int]:
    """`sys.exit()` and `sys.exit(0)` end well; a text goes to stderr, as the interpreter does it."""
    code = error.code
    if code is None or (isinstance(code, int) and code == 0):
        return VALUE, b"", b"", b"", 0, 0
    text = _text(code)
    if not isinstance(code, int) and sys.stderr is not None:
        try:
            print(text, file=sys.stderr)
        except Exception:
            pass
    line, column = _place(error, name)
    return RAISED, b"SystemExit", _bytes(text, MESSAGE_BYTES), b"", line, column


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return "<exception str() failed>"


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and isinstance(error.msg, str):
        return error.msg
    return _text(error)


def _need(error: BaseException) -> str | None:
    """What `error` shows this runtime to lack, if it does."""
    for each in _behind(error):
        need = getattr(each, "_wasmeval_need", None)
        if isinstance(need, str):
            return need
    if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str):
        name = error.name
        if name in ABSENT_MODULES:
            return ABSENT_MODULES[name]
        if "." not in name and name not in sys.modules:
            return f"the package '{name}', which this runtime does not have"
    elif isinstance(error, ImportError) and error.name == "os":
        if getattr(error, "name_from", None) in PROCESS_NAMES:
            return "processes"
    return None


def _behind(error: BaseException) -> Iterator[BaseException]:
    """`error` and those that it stands for, as `URLError` and the errors of `requests` do: what they lacked, it lacks."""
    waiting, seen = [error], 0
    while waiting and seen < MOST_BEHIND:
        each = waiting.pop(0)
        seen += 1
        yield each
        others = (getattr(each, "reason", None), each.__cause__, *BaseException.args.__get__(each)[:1])
        waiting += [other for other in others if isinstance(other, BaseException)]


def _place(error: BaseException, name: str) -> tuple[int, int]:
    """Line and column, from 1, of the innermost frame that is the snippet's own; zeros when there is none."""
    if isinstance(error, SyntaxError) and error.filename == name:
        return max(error.lineno or 0, 0), max(error.offset or 0, 0)
    last: TracebackType | None = None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == name:
            last = step
        step = step.tb_next
    if last is None:
        return 0, 0
    return last.tb_lineno or 0, _column(last, name)


def _column(step: TracebackType, name: str) -> int:
    """The column in characters: the compiler counts bytes of UTF-8."""
    import _wasmeval
    from itertools import islice

    positions = next(islice(step.tb_frame.f_code.co_positions(), step.tb_lasti // 2, None), None)
    if positions is None or positions[0] is None or positions[2] is None:
        return 0
    lines = _wasmeval.source(name).split("\n")
    if positions[0] > len(lines):
        return 0
    before = lines[positions[0] - 1].encode("utf-8", "replace")[: positions[2]]
    return len(before.decode("utf-8", "replace")) + 1


def _traceback(error: BaseException, name: str) -> str:
    try:
        _shorten(error)
        _quote(error, name)
        told = traceback.TracebackException(type(error), error, error.__traceback__)
        return "".join(told.format())
    except Exception:
        return "".join(traceback.format_exception_only(type(error), error))


def _quote(error: BaseException, name: str) -> None:
    """Gives a syntax error of the snippet its line. The compiler looks for it in a file, where the snippet never was."""
    import _wasmeval

    if not (isinstance(error, SyntaxError) and error.filename == name and error.text is None and error.lineno):
        return
    lines = _wasmeval.source(name).split("\n")
    if error.lineno <= len(lines):
        error.text = lines[error.lineno - 1] + "\n"


def _shorten(error: BaseException) -> None:
    """Takes the middle out of tracebacks that are far beyond what can be told, here and in all that led here."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        steps = []
        step = one.__traceback__
        while step is not None:
            steps.append(step)
            step = step.tb_next
        if len(steps) > MOST_FRAMES:
            steps[FRAMES_EACH_END - 1].tb_next = steps[-FRAMES_EACH_END]
        waiting += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _bytes(text: str, limit: int) -> bytes:
    """UTF-8 of at most `limit` bytes, cut in the middle."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= limit:
        return encoded
    mark = b"\n[...]\n" if limit > 1024 else b"..."
    head = (limit - len(mark)) // 2
    tail = limit - len(mark) - head
    start = encoded[:head].decode("utf-8", "ignore").encode()
    end = encoded[-tail:].decode("utf-8", "ignore").encode()
    return start + mark + end
