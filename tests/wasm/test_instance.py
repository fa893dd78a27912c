"""One instance: prepared, evaluated once, dropped in any state."""

from __future__ import annotations

import ctypes
import struct

import pytest

from tests.guests import PAGE, guest
from tests.wasm.conftest import ECHO, LIMITS, LOOP, SLEEPER, MakeImage
from wasmeval import Array, Limits
from wasmeval.arrays import compose
from wasmeval.limits import MIB
from wasmeval.wasm import abi, capi
from wasmeval.wasm.instance import REQUEST_BYTES, Instance, NoRoom, Trapped


def test_a_reply(make_image: MakeImage) -> None:
    instance = Instance(make_image("echo", ECHO))
    instance.start(b'"hello"', b"", LIMITS)
    assert instance.poll()
    assert instance.reply().value == b'"hello"'
    assert 0 < instance.fuel_used() < 1000
    assert instance.memory_bytes() == 24 * PAGE
    instance.close()
    instance.close()


REPLIES_WITH_ITS_CODE = guest("(call $at (call $code) (call $code_len))")


def with_array(address: int) -> bytes:
    """A reply whose value is null, and an array of eight bytes at `address` of the guest's memory."""
    is_elsewhere = struct.pack("<I", address)
    return struct.pack("<8I", 0, 6, 4, 0, 0, 0, 0, 0) + b"null" + compose({"": EIGHT_BYTES})[0] + is_elsewhere


EIGHT_BYTES = Array("|i1", (8,), bytes(8))


def test_an_array_is_read_where_it_lies(make_image: MakeImage) -> None:
    instance = Instance(make_image("echo", REPLIES_WITH_ITS_CODE))
    instance.start(with_array(16), b"", LIMITS)
    assert instance.poll()
    array = instance.reply().array
    assert array == Array("|i1", (8,), b"null\0\0\0\0")
    instance.write(16, b"more")
    assert array is not None
    assert bytes(array.elements[:4]) == b"more"
    array.freeze()
    instance.close()
    assert array.data == b"more\0\0\0\0"


@pytest.mark.parametrize("address", [24 * PAGE - 7, 24 * PAGE, 2**32 - 8])
def test_an_array_outside_of_memory_is_none(make_image: MakeImage, address: int) -> None:
    instance = Instance(make_image("echo", REPLIES_WITH_ITS_CODE))
    instance.start(with_array(address), b"", LIMITS)
    assert instance.poll()
    with pytest.raises(abi.MalformedReply, match="an array outside of memory"):
        instance.reply()
    instance.close()


def test_no_length_of_an_array_leaves_a_trace() -> None:
    memory = bytearray(70_000)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    types = len(ctypes.Array.__subclasses__())
    for length in range(69_000, 69_100):
        capi.write_view(address, b"x" * length)
    assert memory[69_098:69_100] == b"x\0"
    assert len(ctypes.Array.__subclasses__()) == types


def test_a_slice_at_a_time(make_image: MakeImage) -> None:
    instance = Instance(make_image("loop", LOOP))
    limits = Limits(fuel=10_500_000).within(LIMITS, Limits())
    instance.start(b"1", b"", limits)
    # The manifest says a million a millisecond, and a slice is one.
    assert [instance.poll() for _ in range(10)] == [False] * 10
    with pytest.raises(Trapped) as trapped:
        instance.poll()
    assert trapped.value.code == capi.OUT_OF_FUEL
    assert instance.fuel_used() == 10_500_000
    instance.close()


@pytest.mark.parametrize("polls", [0, 1, 5])
def test_dropped_in_the_middle(make_image: MakeImage, polls: int) -> None:
    loop, sleeper = make_image("loop", LOOP), make_image("sleeper", SLEEPER)
    for image, code in ((loop, b"1"), (sleeper, struct.pack("<Q", 10**12))):
        for _ in range(70):  # more than there are slots
            instance = Instance(image)
            instance.start(code, b"", LIMITS)
            for _ in range(polls):
                assert not instance.poll()
            instance.close()


def test_dropped_in_any_order(make_image: MakeImage) -> None:
    image = make_image("sleeper", SLEEPER)
    instances = [Instance(image) for _ in range(30)]
    for instance in instances:
        instance.start(struct.pack("<Q", 10**12), b"", LIMITS)
        assert not instance.poll()
        assert instance.wake
    for instance in [*instances[::2], *reversed(instances[1::2])]:
        instance.close()


def test_a_sleeper_is_resumed(make_image: MakeImage) -> None:
    instance = Instance(make_image("sleeper", SLEEPER))
    instance.start(struct.pack("<Q", 10**12), b"", LIMITS)
    for _ in range(3):
        assert not instance.poll()  # asked too early, it sleeps on
    instance.resume()
    assert instance.poll()
    assert instance.reply().value == b"null"
    instance.close()


def test_slots_run_out_and_come_back(make_image: MakeImage) -> None:
    image = make_image("echo", ECHO)
    instances = [Instance(image) for _ in range(64)]
    with pytest.raises(Trapped):
        Instance(image)
    for instance in instances:
        instance.close()
    Instance(image).close()


def test_a_larger_request_reserves_its_own(make_image: MakeImage) -> None:
    instance = Instance(make_image("echo", ECHO))
    code = b'"' + b"x" * REQUEST_BYTES + b'"'
    instance.start(code, b"", Limits(output_bytes=MIB).within(LIMITS, Limits()))
    assert instance.poll()
    assert instance.reply().value == code
    instance.close()


def test_a_request_that_does_not_fit(make_image: MakeImage) -> None:
    small = guest(
        "(call $null)",
        reserve="(if (i32.gt_u (local.get $len) (i32.const 70000)) (then (return (i32.const 0)))) (i32.const 65536)",
    )
    wild = guest(
        "(call $null)",
        reserve="(if (i32.gt_u (local.get $len) (i32.const 70000)) (then (return (i32.const -9)))) (i32.const 65536)",
    )
    for name, module in (("small", small), ("wild", wild)):
        instance = Instance(make_image(name, module))
        with pytest.raises(NoRoom):
            instance.start(b"x" * 100_000, b"", LIMITS)
        instance.close()


def test_a_reply_is_distrusted(make_image: MakeImage) -> None:
    instance = Instance(make_image("huge", guest("(call $at (i32.const 0) (i32.const -1))")))
    instance.start(b"1", b"", LIMITS)
    assert instance.poll()
    with pytest.raises(abi.MalformedReply):
        instance.reply()
    instance.close()


def test_dropping_frees_it_without_a_collector(make_image: MakeImage) -> None:
    """Workers run without Python's garbage collector: an instance must not be part of a cycle."""
    import gc

    exits = guest(
        "(call $e (i32.const 3)) (i64.const 0)",
        imports='(import "wasi_snapshot_preview1" "proc_exit" (func $e (param i32)))',
    )
    images = [make_image("echo", ECHO), make_image("exits", exits), make_image("loop", LOOP)]
    gc.collect()
    gc.disable()
    try:
        for image in images:
            instance = Instance(image)
            instance.start(b"1", b"", Limits(fuel=100_000).within(LIMITS, Limits()))
            try:
                while not instance.poll():
                    pass
            except Trapped:
                pass
            instance.close()
            del instance
            assert not [each for each in gc.get_objects() if isinstance(each, Instance)]
    finally:
        gc.enable()
