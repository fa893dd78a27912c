"""Inputs: the variables a snippet is given, from Python values to the JSON text that a guest reads."""

from __future__ import annotations

import gc
import json
import keyword
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import Any

from wasmeval.arrays import Array, array_of, compose, is_array, is_scalar
from wasmeval.errors import InvalidArgument

MAX_INPUTS_BYTES = 8 << 20
"""Names and values of one evaluation together."""

MAX_INPUTS = 4096
"""Names of one evaluation; each is checked by itself, while others wait."""

MAX_CONTAINERS = 1 << 18
"""Arrays and objects of one evaluation together: to build as many takes some 20 ms, while others wait."""

MAX_NESTING = 256
"""Arrays and objects inside each other in one value; deeper ones overflow the stack of some interpreter."""

MAX_VARIABLE_BYTES = 1 << 17
"""An environment variable with its name, and an argument of a program. Source: Linux, MAX_ARG_STRLEN."""

MAX_PROGRAM_BYTES = 1 << 20
"""Arguments and environment of a program together. Source: execve(2): a quarter of the stack's limit, 2 MiB."""

TOO_MANY_INPUTS = f"more than {MAX_INPUTS} names; pass one object that holds them"

# Longer ones take quadratic time in int.__repr__, which Python therefore refuses (CVE-2020-10735).
_PLAIN_BITS = 13_000

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHITE = " \t\n\r"
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_JAVASCRIPT_IDENTIFIER = re.compile(r"(?:[^\W\d]|\$)[\w$\u200c\u200d]*")
# Reserved words, those of strict code and modules included, and names that cannot be rebound.
# Source: ECMA-262, 12.7.2 and 13.1.
_JAVASCRIPT_RESERVED = frozenset(
    """
    arguments await break case catch class const continue debugger default delete do else enum eval
    export extends false finally for function globalThis if implements import in Infinity instanceof
    interface let NaN new null package private protected public return static super switch this throw
    true try typeof undefined var void while with yield
    """.split()
)


def split_inputs(inputs: Mapping[str, Any]) -> tuple[dict[str, bytes], dict[str, Array]]:
    """Each value as JSON text, or as an array. Raises InvalidArgument as `encode_inputs`, and for arrays that are not
    carried."""
    arrays = {
        str(name): array_of(_field(str(name)), value) for name, value in inputs.items() if is_array(value)
    }
    if arrays:
        inputs = {name: value for name, value in inputs.items() if name not in arrays}
    return encode_inputs(inputs), arrays


def encode_inputs(inputs: Mapping[str, Any]) -> dict[str, bytes]:
    """Each value as JSON text. What JSON does not have is refused, not converted: other keys than str, objects.

    Integers have any size and floats may be NaN or infinite; tuples become arrays. Raises InvalidArgument for
    `inputs.NAME`.
    """
    encoded = {}
    for name, value in inputs.items():
        if not isinstance(name, str):
            raise InvalidArgument("inputs", f"a name must be a string, not {type(name).__name__}")
        encoded[name] = _encode(_field(name), value)
    return encoded


def encode_value(field: str, value: Any) -> bytes:
    """One value as JSON text, by the rules of `encode_inputs`. Raises InvalidArgument for `field`."""
    return _encode(field, value)


def check_json(field: str, text: bytes) -> None:
    """Raises InvalidArgument for `field` unless `text` is JSON as `compose_inputs` takes it."""
    _check_json(field, text, MAX_CONTAINERS)


def compose_inputs(runtime: str, inputs: Mapping[str, bytes]) -> bytes:
    """One JSON object of `inputs`, whose values are JSON text already; empty when there are none.

    Raises InvalidArgument for a name that is no variable of the runtime's language, a value that is not JSON
    or nests too deep, and for more in all than MAX_INPUTS, MAX_INPUTS_BYTES or MAX_CONTAINERS.
    """
    if not inputs:
        return b""
    if len(inputs) > MAX_INPUTS:
        raise InvalidArgument("inputs", TOO_MANY_INPUTS)
    members = []
    size = containers = 0
    for name, text in inputs.items():
        check_name(_field(name), runtime, name)
        encoded = name.encode()
        size += len(encoded) + len(text)
        if size > MAX_INPUTS_BYTES:
            raise InvalidArgument(
                "inputs", f"more than {MAX_INPUTS_BYTES} bytes together; pass less, or split the evaluation"
            )
        containers += _check_json(_field(name), text, MAX_CONTAINERS - containers)
        members.append(b'"%b":%b' % (encoded, text))
    return b"{%b}" % b",".join(members)


def compose_arrays(
    runtime: str, inputs: Mapping[str, bytes], arrays: Mapping[str, Array]
) -> tuple[bytes | memoryview, ...]:
    """The records of `arrays`, which stand beside `inputs`, in pieces; empty when there are none.

    Raises InvalidArgument for a runtime that has none, a name that is no variable or stands among `inputs`, and for
    more in all than `inputs` alone may be.
    """
    if not arrays:
        return ()
    if len(inputs) + len(arrays) > MAX_INPUTS:
        raise InvalidArgument("arrays", TOO_MANY_INPUTS)
    size = sum(len(name.encode()) + len(text) for name, text in inputs.items())
    for name, array in arrays.items():
        field = f"arrays.{shorten(name)}"
        if runtime != "python":
            raise InvalidArgument(field, f"{runtime or 'a shell'} has no arrays of NumPy's; pass a list")
        check_name(field, runtime, name)
        if name in inputs:
            raise InvalidArgument(field, f"{name!r} is the name of another input too; rename one")
        size += len(name.encode()) + len(array.elements)
    if size > MAX_INPUTS_BYTES:
        raise InvalidArgument(
            "arrays", f"more than {MAX_INPUTS_BYTES} bytes together with inputs; pass less, or a file"
        )
    return compose(arrays)


def compose_environment(inputs: Mapping[str, bytes], room: int) -> bytes:
    """One JSON object of strings: the environment variables that `inputs`, whose values are JSON text, mean. Empty when
    there are none.

    A string is the variable's value, any other value is as its JSON text. Raises InvalidArgument as `compose_inputs`,
    and for what no environment can hold: a name that is no shell's, NUL, text that is not Unicode, more than
    MAX_VARIABLE_BYTES in one, or than `room` in all.
    """
    if not inputs:
        return b""
    if len(inputs) > MAX_INPUTS:
        raise InvalidArgument("inputs", TOO_MANY_INPUTS)
    environment = {}
    containers = 0
    for name, text in inputs.items():
        field = _field(name)
        if len(text) > 6 * MAX_VARIABLE_BYTES:  # What is escaped is longer than what it stands for.
            raise _too_long(field)
        containers += _check_json(field, text, MAX_CONTAINERS - containers)
        if not _VARIABLE.fullmatch(name):
            raise InvalidArgument(
                field, f"{shorten(name)!r} is no name of an environment variable; use letters, digits and '_'"
            )
        value = text.decode()
        if value.lstrip(_WHITE)[:1] == '"':
            value = json.loads(value)
        environment[name] = value
        try:
            size = len(name) + len(value.encode()) + 2
        except UnicodeEncodeError:
            raise InvalidArgument(field, "not valid Unicode: no environment can hold it") from None
        if "\0" in value:
            raise InvalidArgument(field, "a NUL character, which no environment can hold; remove it")
        if size > MAX_VARIABLE_BYTES:
            raise _too_long(field)
        room -= size
        if room < 0:
            raise InvalidArgument("inputs", "more than a program's environment holds; send a file instead")
    return json.dumps(environment, ensure_ascii=False, separators=(",", ":")).encode()


def _too_long(field: str) -> InvalidArgument:
    return InvalidArgument(field, f"more than {MAX_VARIABLE_BYTES} bytes; send it as a file")


def _field(name: str) -> str:
    return f"inputs.{shorten(name)}"


def shorten(text: str, length: int = 40) -> str:
    """`text` fit for a message: at most `length` characters, none of them unprintable."""
    printable = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:length]
    )
    return printable if len(text) <= length else printable + "..."


def check_name(field: str, runtime: str, name: str) -> None:
    """Raises InvalidArgument for `field` unless `name` can be a variable in the runtime's language."""
    if runtime == "python":
        fits = name.isidentifier() and (name.isascii() or unicodedata.normalize("NFKC", name) == name)
        reserved = keyword.iskeyword(name)
    elif runtime == "javascript":
        fits = _JAVASCRIPT_IDENTIFIER.fullmatch(name) is not None
        reserved = name in _JAVASCRIPT_RESERVED
    else:
        fits = _IDENTIFIER.fullmatch(name) is not None
        reserved = False
    if not fits:
        raise InvalidArgument(field, f"{shorten(name)!r} is not an identifier of {runtime}; rename it")
    if reserved:
        raise InvalidArgument(field, f"{name!r} is a reserved word of {runtime}; rename it")
    if name.startswith("__") and name.endswith("__"):
        raise InvalidArgument(field, "names that begin and end with '__' are the interpreter's; rename it")


def _check_json(field: str, text: bytes, most: int) -> int:
    """How many arrays and objects are in `text` (or 0 when too few to matter). More than `most` are refused."""
    count = 0
    # No text with this few brackets is too deep or too much; all others are looked at before anything is built.
    if text.count(b"[") + text.count(b"{") > min(MAX_NESTING, most):
        brackets = _brackets(text)
        count = brackets.count(_OPEN)
        if count > most:
            raise InvalidArgument(
                "inputs",
                f"more than {MAX_CONTAINERS} arrays and objects together; pass some as a string to parse",
            )
        if any(depth > MAX_NESTING for depth in accumulate(memoryview(brackets).cast("b"))):
            raise _too_deep(field)
    with _no_collection() if count else nullcontext():
        _parse_json(field, text)
    return count


@contextmanager
def _no_collection() -> Iterator[None]:
    """Meanwhile the collector does not walk, again and again, through what is only built to be dropped."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse_json(field: str, text: bytes) -> None:
    import orjson

    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        _check_json_slowly(field, text)


def _check_json_slowly(field: str, text: bytes) -> None:
    """Accepts what the fast parser refuses and Python's own does not: NaN, Infinity, escaped lone surrogates."""
    try:
        json.loads(text.decode(), parse_int=_ignore, parse_float=_ignore)
    except RecursionError:
        raise _too_deep(field) from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            field, f"not valid UTF-8 at byte {error.start}; send JSON text in UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            field, f"not valid JSON at line {error.lineno}, column {error.colno}; send JSON text"
        ) from None


def _ignore(_: str) -> None:
    return None


def _too_deep(field: str) -> InvalidArgument:
    return InvalidArgument(
        field, f"nested deeper than {MAX_NESTING}; flatten the value, or pass it as a string to parse"
    )


_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else byte for byte in range(256))
_FLAT = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_OPEN = b"\1"


def _brackets(text: bytes) -> bytes:
    """A step up or down for each bracket that is not in a string, in linear time whatever `text` is.

    Where quotes that are not escaped are all there is between brackets, every other piece is inside a string; a
    pair of them with nothing between changes that for no other.
    """
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    text = text.translate(_STEPS, _FLAT).replace(b'""', b"")
    return b"".join(text.split(b'"')[::2])


def _encode(field: str, value: Any) -> bytes:
    encode = _encode_slowly if _needs_slow_encoding(field, value) else _encode_fast
    text = encode(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but JSON can escape it.
        return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _encode_fast(value: Any) -> str:
    return json.dumps(
        value, ensure_ascii=False, check_circular=False, separators=(",", ":"), default=_item_of
    )


def _needs_slow_encoding(field: str, value: Any) -> bool:
    """Whether a huge integer is in `value`. Raises InvalidArgument for all that JSON does not have."""
    huge = False
    level: list[Any] = [value]
    for _ in range(MAX_NESTING + 1):
        deeper: list[Any] = []
        for item in level:
            if item is None or isinstance(item, str | float):
                continue
            if isinstance(item, int):
                huge = huge or item.bit_length() > _PLAIN_BITS
            elif isinstance(item, dict):
                _check_keys(field, item)
                deeper.extend(item.values())
            elif isinstance(item, list | tuple):
                deeper.extend(item)
            elif is_scalar(item):
                _check_scalar(field, item)
            elif is_array(item):
                raise InvalidArgument(
                    field,
                    f"only a whole input may be an array, and this is one with a {type(item).__name__} inside; "
                    "pass it by a name of its own, or as .tolist()",
                )
            else:
                raise InvalidArgument(
                    field,
                    f"JSON has no {type(item).__name__}; pass str, int, float, bool, None, list or dict",
                )
        if not deeper:
            return huge
        level = deeper
    raise _too_deep(field)


def _check_scalar(field: str, scalar: Any) -> None:
    """Raises InvalidArgument for a scalar of NumPy's that is no number, truth or text."""
    if scalar.__array_interface__["typestr"][1] not in "biufU" or not isinstance(
        scalar.item(), bool | int | float | str
    ):
        raise InvalidArgument(
            field, f"JSON has no {type(scalar).__name__}; pass str, int, float, bool, None, list or dict"
        )


def _item_of(scalar: Any) -> Any:
    return scalar.item()


def _check_keys(field: str, keys: Iterable[object]) -> None:
    for key in keys:
        if not isinstance(key, str):
            raise InvalidArgument(field, f"a key must be a string, not {type(key).__name__}; convert it")


def _encode_slowly(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{_encode_fast(key)}:{_encode_slowly(item)}" for key, item in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_encode_slowly, value)) + "]"
    if isinstance(value, int) and value.bit_length() > _PLAIN_BITS:
        return f"-{_digits(-value)}" if value < 0 else _digits(value)
    return _encode_fast(value)


def _digits(value: int) -> str:
    """Decimal digits of a positive integer of any size, in less than quadratic time."""
    if value.bit_length() <= _PLAIN_BITS:
        return str(value)
    half = value.bit_length() * 3 // 20  # log10(2) / 2, rounded down
    head, tail = divmod(value, 10**half)
    return _digits(head) + _digits(tail).zfill(half)
