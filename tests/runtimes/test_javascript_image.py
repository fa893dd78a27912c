"""The JavaScript image in the package keeps the promises of the guest ABI, under plain wasmtime-py."""

from __future__ import annotations

import json
import lzma

import pytest

from runtimes.javascript import selfcheck
from runtimes.javascript.selfcheck import Host, Image


@pytest.fixture(scope="module")
def image() -> Image:
    manifest = json.loads((selfcheck.IMAGES / "manifest.json").read_text())
    wasm = lzma.decompress((selfcheck.IMAGES / manifest["image"]["file"]).read_bytes())
    assert selfcheck.sha256(wasm) == manifest["image"]["sha256"]
    assert len(wasm) == manifest["image"]["bytes"]
    # only the recursion check needs the manifest's stack, and a thread to have it in
    return Image(wasm, max_wasm_stack=1 << 20, warm_up=manifest["warm_up"])


def test_exports_and_imports_are_those_of_the_abi(image: Image) -> None:
    selfcheck.check_interface(image)


def test_values_inputs_and_output(image: Image) -> None:
    selfcheck.check_values(image)


def test_failures_have_their_outcome_type_and_line(image: Image) -> None:
    selfcheck.check_failures(image)


def test_two_instances_share_no_randomness_and_see_the_clock(image: Image) -> None:
    selfcheck.check_freshness(image)


def test_fuel_is_the_same_each_time(image: Image) -> None:
    selfcheck.check_determinism(image)


def test_a_value_of_exactly_the_limit_passes_and_one_byte_more_does_not(image: Image) -> None:
    assert image.evaluate("'x'.repeat(98)", value_limit=100).value == "x" * 98
    assert image.evaluate("'x'.repeat(99)", value_limit=100).outcome == 2


def test_texts_of_an_error_are_cut_to_the_limits_of_the_frame(image: Image) -> None:
    reply = image.evaluate("const e = new Error('é'.repeat(1e5)); e.name = 'N'.repeat(1e4); throw e")
    assert reply.outcome == 1
    assert len(reply.type.encode()) <= 256
    assert len(reply.message.encode()) <= 8_192
    assert len(reply.traceback.encode()) <= 32_768
    assert reply.traceback.startswith("<snippet>:1\n")


def test_what_is_no_request_is_answered_as_an_error(image: Image) -> None:
    instance = image.instance(Host())
    store, memory, exports = instance["store"], instance["memory"], instance["exports"]
    for frame in (b"", b"\1\0\0\0" * 3, b"\2" + bytes(15), b"\1\0\0\0\0\1\0\0" + b"\xff" * 8):
        address = exports["wasmeval_reserve"](store, len(frame)) & 0xFFFFFFFF
        memory.write(store, frame, address)
        packed = exports["wasmeval_evaluate"](store, len(frame)) & 0xFFFFFFFFFFFFFFFF
        start, length = packed >> 32, packed & 0xFFFFFFFF
        reply = selfcheck.decode(bytes(memory.read(store, start, start + length)), Host(), 0, 0.0)
        assert (reply.outcome, reply.message) == (1, "malformed request frame")


@pytest.mark.parametrize("inputs", ["{", "[]", '{"a": }', '{"a": 1,}', '{"a" 1}', '{"a": ' + "[" * 100_000])
def test_inputs_that_are_no_json_are_an_error(image: Image, inputs: str) -> None:
    reply = image.evaluate("1", inputs)
    assert (reply.outcome, reply.type) == (1, "SyntaxError")


@pytest.mark.slow
def test_everything_that_the_build_checks_holds_for_the_package() -> None:
    selfcheck.main()
