"""Tools: whatever a function does, its call is answered, and nothing that it answers can break the conversation."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from wasmeval import InvalidArgument, Tool, ToolCall
from wasmeval.conversation import Feeder, input_chunks
from wasmeval.events import Answer
from wasmeval.inputs import MAX_CONTAINERS
from wasmeval.tools import MOST_MESSAGE_CHARACTERS, Toolbox, ToolThread, describe, in_thread

WAIT_SECONDS = 60


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise LookupError("no message")


def raising(error: BaseException) -> Callable[[], Any]:
    def function() -> None:
        raise error

    return function


def raising_async(error: BaseException) -> Callable[[], Any]:
    async def function() -> None:
        raise error

    return function


Outcome = tuple[bytes, tuple[str, str] | None]


def in_a_thread(function: Callable[..., Any]) -> Outcome:
    """The answer when each call has a thread."""
    told: list[Outcome] = []
    answered = threading.Event()

    def reply(value: bytes, error: tuple[str, str] | None) -> None:
        told.append((value, error))
        answered.set()

    ToolThread(Toolbox({"f": function}), "f", [], {}, reply)
    assert answered.wait(WAIT_SECONDS)
    return told[0]


def on_a_loop(function: Callable[..., Any]) -> Outcome:
    """The answer when async functions run on the caller's loop."""
    told: list[Outcome] = []
    work = Toolbox({"f": function}).run("f", [], {}, lambda value, error: told.append((value, error)))
    asyncio.run(asyncio.wait_for(work, WAIT_SECONDS))
    return told[0]


ways = pytest.mark.parametrize("answer_of", [in_a_thread, on_a_loop])


@ways
@pytest.mark.parametrize("make", [raising, raising_async])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(3), ("SystemExit", "3")),
        (asyncio.CancelledError("gone"), ("CancelledError", "gone")),
        (GeneratorExit(), ("GeneratorExit", "")),
        (KeyError("k"), ("KeyError", "k")),
        (ValueError("\ud800"), ("ValueError", "?")),
        (Unspeakable(), ("Unspeakable", "its message cannot be shown")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_tool_raises_is_answered(
    answer_of: Callable[[Callable[..., Any]], Outcome],
    make: Callable[[BaseException], Callable[[], Any]],
    error: BaseException,
    told: tuple[str, str],
) -> None:
    assert answer_of(make(error)) == (b"", told)


@ways
def test_a_tool_that_raises_stop_iteration_is_answered(
    answer_of: Callable[[Callable[..., Any]], Outcome],
) -> None:
    assert answer_of(raising(StopIteration("end"))) == (b"", ("StopIteration", "end"))


@ways
def test_a_long_message_is_cut(answer_of: Callable[[Callable[..., Any]], Outcome]) -> None:
    _, error = answer_of(raising(ValueError("x" * 100_000)))
    assert error is not None
    assert len(error[1]) == MOST_MESSAGE_CHARACTERS
    assert error[1].endswith("x...")


@ways
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * (8 << 20), f"{(8 << 20) + 2} bytes of JSON, more than {8 << 20}; return less"),
        ([[]] * MAX_CONTAINERS, f"more than {MAX_CONTAINERS} arrays and objects together"),
        ({1, 2}, "JSON has no set"),
    ],
    ids=["bytes", "containers", "set"],
)
def test_an_answer_that_no_service_takes_is_an_error_in_the_snippet(
    answer_of: Callable[[Callable[..., Any]], Outcome], value: Any, reason: str
) -> None:
    text, error = answer_of(lambda: value)
    assert text == b""
    assert error is not None
    assert error[0] == "TypeError"
    assert reason in error[1]
    call = ToolCall(1, "f", [], {}, lambda answer: pytest.fail(f"sent {answer}"))
    with pytest.raises(InvalidArgument) as refused:
        call.reply(value)
    assert refused.value.field == "value"
    assert reason in refused.value.description


@ways
def test_the_largest_answers_are_sent(answer_of: Callable[[Callable[..., Any]], Outcome]) -> None:
    text, error = answer_of(lambda: "x" * ((8 << 20) - 2))
    assert (len(text), error) == (8 << 20, None)
    # Brackets in a string are no containers.
    text, error = answer_of(lambda: ["[" * (MAX_CONTAINERS + 1)])
    assert (len(text), error) == (MAX_CONTAINERS + 5, None)


def test_fail_cuts_and_cleans_what_it_is_told() -> None:
    answers: list[Answer] = []
    call = ToolCall(7, "f", [], {}, answers.append)
    call.fail("y" * 10_000)
    call.fail(Unspeakable())
    assert [answer.error for answer in answers] == [
        ("RuntimeError", "y" * (MOST_MESSAGE_CHARACTERS - 3) + "..."),
        ("Unspeakable", "its message cannot be shown"),
    ]


def test_an_async_function_in_a_thread_is_cancelled() -> None:
    started, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.sleep(WAIT_SECONDS)
        except asyncio.CancelledError:
            ended.set()
            raise

    answers: list[object] = []
    call = ToolThread(Toolbox({"f": wait}), "f", [], {}, lambda *outcome: answers.append(outcome))
    assert started.wait(WAIT_SECONDS)
    call.cancel()
    assert ended.wait(WAIT_SECONDS)
    call.cancel()
    assert answers == []


def test_each_call_sees_the_variables_of_its_caller() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("mine")
    assert in_a_thread(variable.get) == (b'"mine"', None)
    assert on_a_loop(variable.get) == (b'"mine"', None)
    assert in_thread(variable.get).result(WAIT_SECONDS) == "mine"


def test_a_hung_tool_lets_the_program_end() -> None:
    code = (
        "import threading, time\nfrom wasmeval.tools import Toolbox, ToolThread\n"
        "started = threading.Event()\n"
        "def hang(): started.set(); threading.Event().wait()\n"
        "ToolThread(Toolbox({'f': hang}), 'f', [], {}, print)\n"
        "started.wait(); print('end')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=WAIT_SECONDS, check=True)
    assert done.stdout == b"end\n"


class Scripted:
    """What a Feeder sends."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.said = threading.Event()

    def _say(self, what: object) -> None:
        self.sent.append(what)
        self.said.set()

    def send_input(self, data: bytes | str) -> None:
        self._say(data)

    def end_input(self) -> None:
        self._say("end")

    def cancel(self) -> None:
        self._say("cancel")


def feed(stdin: object, times: int) -> tuple[list[object], Feeder]:
    conversation = Scripted()
    feeder = Feeder(conversation, stdin)
    for _ in range(times):
        conversation.said.clear()
        feeder.wanted()
        assert conversation.said.wait(WAIT_SECONDS)
    return conversation.sent, feeder


def test_empty_chunks_are_skipped() -> None:
    assert feed([b"", b"a", "", b"", "ä", b""], 3)[0] == [b"a", "ä".encode(), "end"]


def test_what_an_iterator_raises_is_raised() -> None:
    def chunks() -> Any:
        yield b"a"
        raise LookupError("lost")

    sent, feeder = feed(chunks(), 2)
    assert sent == [b"a", "cancel"]
    with pytest.raises(LookupError, match="lost"), feeder.raising():
        pass


@pytest.mark.parametrize("chunk", [5, None, ["x"], "\ud800"])
def test_an_iterator_that_gives_something_else_is_refused(chunk: object) -> None:
    sent, feeder = feed([chunk], 1)
    assert sent == ["cancel"]
    with pytest.raises(InvalidArgument, match=r"^stdin: "), feeder.raising():
        pass


def test_a_file_that_cannot_be_read_is_an_end() -> None:
    with open("/dev/null", "wb") as file:
        assert feed(file, 1)[0] == ["end"]
    assert list(input_chunks(None)) == []


# --- descriptions ------------------------------------------------------------------------------------------------


def look_up(word: str, most: int = 10, *, exact: bool = False) -> list[str]:
    """Looks a word up."""
    return [word][:most] if exact else []


LOOK_UP = Tool(
    "f",
    "(word: 'str', most: 'int' = 10, *, exact: 'bool' = False) -> 'list[str]'",
    ("word", "most", "exact"),
    "Looks a word up.",
)


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The functions whose signatures are taken from now on."""
    taken: list[object] = []
    signature = inspect.signature

    def counted(function: Callable[..., Any]) -> inspect.Signature:
        taken.append(function)
        return signature(function)

    monkeypatch.setattr(inspect, "signature", counted)
    return taken


def fresh() -> Callable[..., Any]:
    """A function like `look_up` that no test has changed."""

    def function(word: str, most: int = 10, *, exact: bool = False) -> list[str]:
        """Looks a word up."""
        return [word][:most] if exact else []

    return function


def test_a_function_is_described_once_under_whatever_names(signed: list[object]) -> None:
    function = fresh()
    for name in ("f", "f", "g"):
        (tool,) = Toolbox({name: function}).describe()
        assert tool == Tool(name, LOOK_UP.signature, LOOK_UP.parameters, LOOK_UP.doc)
    assert signed == [function]


def test_two_functions_of_the_same_code_have_each_their_own_description() -> None:
    def made(default: object, doc: str) -> Callable[..., Any]:
        def function(value: Any = default) -> Any:
            return value

        function.__doc__ = doc
        return function

    one, other = made(1, "One."), made(True, "Other.")
    for _ in range(2):
        assert describe(one, "f") == Tool("f", "(value: 'Any' = 1) -> 'Any'", ("value",), "One.")
        assert describe(other, "f") == Tool("f", "(value: 'Any' = True) -> 'Any'", ("value",), "Other.")


def test_a_description_keeps_no_function_alive() -> None:
    class Owner:
        def method(self, other: Any = None) -> None:
            """Does nothing."""

    function: Any = fresh()
    # Both are in what they are described by.
    function.__annotations__["word"] = function
    Owner.method.__annotations__["other"] = Owner
    Owner.method.__defaults__ = (Owner,)
    living = [weakref.ref(function), weakref.ref(Owner)]
    describe(function, "f")
    describe(Owner.method, "g")
    del function, Owner
    gc.collect()
    assert [reference() for reference in living] == [None, None]


def recode(function: Any) -> None:
    def other(word: str, /, least: int) -> None: ...

    function.__code__ = other.__code__


def rewrap(function: Any) -> None:
    def other(wrapped: int) -> None: ...

    function.__wrapped__ = other


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: setattr(f, "__doc__", "Another."), {"doc": "Another."}),
        (lambda f: setattr(f, "__doc__", None), {"doc": ""}),
        (
            lambda f: setattr(f, "__defaults__", (11,)),
            {"signature": LOOK_UP.signature.replace("10", "11")},
        ),
        (
            lambda f: setattr(f, "__defaults__", (True,)),
            {"signature": LOOK_UP.signature.replace("10", "True")},
        ),
        (
            lambda f: setattr(f, "__defaults__", None),
            {"signature": LOOK_UP.signature.replace(" = 10", "")},
        ),
        (
            lambda f: setattr(f, "__kwdefaults__", {"exact": 1}),
            {"signature": LOOK_UP.signature.replace("False", "1")},
        ),
        (
            lambda f: f.__kwdefaults__.update(exact=0),
            {"signature": LOOK_UP.signature.replace("False", "0")},
        ),
        (
            lambda f: f.__annotations__.update(most="float"),
            {"signature": LOOK_UP.signature.replace("'int'", "'float'")},
        ),
        (
            lambda f: f.__annotations__.update(most=int),
            {"signature": LOOK_UP.signature.replace("'int'", "int")},
        ),
        (
            lambda f: setattr(f, "__annotations__", {}),
            {"signature": "(word, most=10, *, exact=False)"},
        ),
        (
            lambda f: setattr(f, "__signature__", inspect.Signature()),
            {"signature": "()", "parameters": ()},
        ),
        (rewrap, {"signature": "(wrapped: 'int') -> 'None'", "parameters": ("wrapped",)}),
        (
            recode,
            {
                "signature": "(word: 'str', /, least=10) -> 'list[str]'",
                "parameters": ("least",),
                "doc": LOOK_UP.doc,
            },
        ),
    ],
)
def test_a_function_that_was_changed_is_described_as_it_is_now(
    change: Callable[[Any], None], expected: dict[str, Any]
) -> None:
    function = fresh()
    assert describe(function, "f") == LOOK_UP
    change(function)
    fields = {"signature": LOOK_UP.signature, "parameters": LOOK_UP.parameters, "doc": LOOK_UP.doc}
    assert describe(function, "f") == Tool("f", **{**fields, **expected})


def test_a_default_that_changes_in_place_is_described_as_it_is_now() -> None:
    def collect(item: Any, into: list[Any] = []) -> None:  # noqa: B006
        into.append(item)

    assert describe(collect, "f").signature == "(item: 'Any', into: 'list[Any]' = []) -> 'None'"
    collect(1)
    assert describe(collect, "f").signature == "(item: 'Any', into: 'list[Any]' = [1]) -> 'None'"


def test_what_a_wrapper_shows_changes_with_what_it_wraps() -> None:
    inner: Any = fresh()

    @functools.wraps(inner)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    assert describe(wrapper, "f") == LOOK_UP
    inner.__defaults__ = (11,)
    assert describe(wrapper, "f").signature == LOOK_UP.signature.replace("10", "11")


def test_a_docstring_that_is_inherited_changes_with_its_class() -> None:
    assert describe(Derived.method, "f").doc == "The base's."
    Base.method.__doc__ = "Another."
    try:
        assert describe(Derived.method, "f").doc == "Another."
    finally:
        Base.method.__doc__ = "The base's."


class Base:
    def method(self) -> None:
        """The base's."""


class Derived(Base):
    def method(self) -> None: ...


class Slotted:
    """Neither hashable, by its `__eq__`, nor to be referred to weakly."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    def __call__(self, value: int) -> int:
        return value

    def method(self, value: int = 2) -> int:
        """A method."""
        return value


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (Slotted(), "(value: 'int') -> 'int'"),
        (Slotted().method, "(value: 'int' = 2) -> 'int'"),
        (functools.partial(look_up, "x"), "(most: 'int' = 10, *, exact: 'bool' = False) -> 'list[str]'"),
        (len, "(obj, /)"),
        (dict.get, "(self, key, default=None, /)"),
        (Slotted, "()"),
    ],
    ids=repr,
)
def test_what_is_no_plain_function_is_described_each_time(
    function: Callable[..., Any], signature: str, signed: list[object]
) -> None:
    assert describe(function, "f").signature == signature
    assert describe(function, "f").signature == signature
    assert len(signed) == 2
