"""Inputs: Python values become JSON text and nothing is bent; JSON text is checked and then left alone."""

from __future__ import annotations

import contextlib
import enum
import gc
import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import InvalidArgument
from wasmeval.inputs import (
    MAX_CONTAINERS,
    MAX_INPUTS,
    MAX_INPUTS_BYTES,
    MAX_NESTING,
    _brackets,
    compose_inputs,
    encode_inputs,
    shorten,
)
from wasmeval.model import decode_value

surrogates = st.text(st.characters(categories=None))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | surrogates,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(surrogates, inner, max_size=5),
    max_leaves=10,
)
names = st.from_regex(r"[a-z]{1,9}[0-9]", fullmatch=True)


@given(st.dictionaries(names, values, max_size=4))
def test_what_is_encoded_arrives_equal(inputs: dict[str, object]) -> None:
    text = compose_inputs("python", encode_inputs(inputs))
    assert (decode_value(text) if text else {}) == inputs


@given(st.dictionaries(names, st.binary()))
def test_only_json_is_composed(inputs: dict[str, bytes]) -> None:
    with contextlib.suppress(InvalidArgument):
        text = compose_inputs("python", inputs)
        assert set(decode_value(text) if text else {}) == set(inputs)


def nested(depth: int, core: object = 1) -> object:
    for _ in range(depth):
        core = [core]
    return core


@pytest.mark.parametrize("core", [1, math.nan, "]" * 300])
def test_nesting_is_bounded_alike_on_both_sides(core: object) -> None:
    deepest = nested(MAX_NESTING, core)
    text = encode_inputs({"x": deepest})["x"]
    assert compose_inputs("python", {"x": text}) == b'{"x":' + text + b"}"
    with pytest.raises(InvalidArgument, match=r"^inputs\.x: nested deeper than 256"):
        encode_inputs({"x": [deepest]})
    with pytest.raises(InvalidArgument, match=r"^inputs\.x: nested deeper than 256"):
        compose_inputs("python", {"x": b"[" + text + b"]"})


def test_many_shallow_brackets_are_not_deep() -> None:
    for value in ([[]] * 1000, [{"a": [1]}] * 1000, "[{" * 1000, ['"[[\\"[['] * 1000):
        text = encode_inputs({"x": value})["x"]
        assert json.loads(compose_inputs("python", {"x": text})) == {"x": value}


def test_a_value_inside_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InvalidArgument, match="nested deeper than 256"):
        encode_inputs({"x": loop})


@pytest.mark.parametrize("bits", [12_999, 13_000, 13_001, 40_000, 200_000])
def test_an_integer_has_any_size(bits: int) -> None:
    value = 3 ** (bits * 100 // 158)
    inputs = {"x": [value, -value, {"y": value + 1}, "text", 1.5, None]}
    assert decode_value(compose_inputs("python", encode_inputs(inputs))) == inputs


@pytest.mark.parametrize(
    "value", [object(), b"x", {1, 2}, {1: 2}, {None: 1}, [{True: 1}], {"a": {1.5: 1}}, 1j, iter([]), range(3)]
)
def test_what_json_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^inputs\.x: (JSON has no|a key must be a string)"):
        encode_inputs({"x": value})


def test_subclasses_count_as_what_they_are() -> None:
    class Colour(enum.IntEnum):
        RED = 3

    assert encode_inputs({"x": [Colour.RED, (1, 2)]}) == {"x": b"[3,[1,2]]"}


def test_the_size_is_bounded_with_names_and_values_together() -> None:
    half = b'"' + b"x" * (MAX_INPUTS_BYTES // 2 - 3) + b'"'
    assert compose_inputs("python", {"a": half, "b": half})
    with pytest.raises(InvalidArgument, match=r"^inputs: more than 8388608 bytes together"):
        compose_inputs("python", {"a": half, "b": half, "c": b"1"})


def test_too_much_is_refused_before_it_is_parsed() -> None:
    text = b"[" + b"[]," * MAX_INPUTS_BYTES + b"[]]"
    tracemalloc.start()
    with pytest.raises(InvalidArgument):
        compose_inputs("python", {"x": text})
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["x", "_", "_x", "__x", "é", "x1", "match", "type", "変数"])
def test_python_takes_its_identifiers(name: str) -> None:
    assert compose_inputs("python", {name: b"1"})


@pytest.mark.parametrize("name", ["$", "$1", "_", "é", "of", "async", "x\u200d", "変数"])
def test_javascript_takes_its_identifiers(name: str) -> None:
    assert compose_inputs("javascript", {name: b"1"})


@pytest.mark.parametrize(
    "name", ["", "1", "a b", "a.b", "a\n", "None", "async", "__name__", "ｘ", "\ud800", 'a"']
)
def test_python_refuses_other_names(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^inputs\."):
        compose_inputs("python", {name: b"1"})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1",
        "a b",
        "a-b",
        "a\n",
        "null",
        "let",
        "arguments",
        "undefined",
        "NaN",
        "__proto__",
        "\ud800",
        'a"',
    ],
)
def test_javascript_refuses_other_names(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^inputs\."):
        compose_inputs("javascript", {name: b"1"})


@given(surrogates)
def test_shortened_text_is_printable_and_short(text: str) -> None:
    short = shorten(text)
    assert len(short) <= 43
    assert short.isprintable()
    short.encode()


@pytest.mark.parametrize(
    ("text", "containers"),
    [
        (b"[" * 300 + b"]" * 300, 300),
        (b'["' + b"[" * 300 + b'"]', 1),
        (b'["\\"' + b"[" * 300 + b'\\\\",[]]', 2),
        (b'["a","[","]","",{"[":"\\\\"},"' + b"[" * 300 + b'"]', 2),
        (b'"' + b"[" * 300, 0),
    ],
)
def test_brackets_in_strings_are_none(text: bytes, containers: int) -> None:
    assert _brackets(text).count(b"\1") == containers


json_values = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('[]{}"\\ab\n')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('[]{}"\\ab')), inner),
)


@given(json_values)
def test_every_array_and_object_is_counted(value: Any) -> None:
    def containers(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + sum(map(containers, inner))

    steps = _brackets(json.dumps(value).encode())
    assert steps.count(b"\1") == containers(value) == steps.count(b"\xff")


def test_as_many_arrays_and_objects_as_there_may_be() -> None:
    most = b"[" + b"{}," * (MAX_CONTAINERS - 2) + b"[]]"
    assert compose_inputs("python", {"x": most})
    for inputs in (
        {"x": most, "y": b"[" * 257},
        {"x": b"[" + most + b"]"},
        {"x": b"[" * (MAX_CONTAINERS + 1)},
    ):
        with pytest.raises(InvalidArgument, match=r"^inputs: more than 262144 arrays and objects together"):
            compose_inputs("python", inputs)


def test_as_many_names_as_there_may_be() -> None:
    names = {f"x{number}": b"1" for number in range(MAX_INPUTS)}
    assert compose_inputs("python", names)
    with pytest.raises(InvalidArgument, match=r"^inputs: more than 4096 names; pass one object"):
        compose_inputs("python", {**names, "y": b"1"})


def test_the_collector_stays_as_it_was() -> None:
    large = {"x": b"[" + b"[]," * 1000 + b"0]"}
    for text in (large, {"x": large["x"][:-1]}):
        with contextlib.suppress(InvalidArgument):
            compose_inputs("python", text)
        assert gc.isenabled()
    gc.disable()
    try:
        compose_inputs("python", large)
        assert not gc.isenabled()
    finally:
        gc.enable()
