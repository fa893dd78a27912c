"""The promises of a snapshot: same state, same bytes, only the ABI's exports, and copy-on-write."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from runtimes import snapshot
from runtimes.snapshot import COPY_ON_WRITE_BYTES, HOST_PAGE_BYTES, Guest, Reader, SnapshotError, bake

KEEP = ("memory", "get")

COUNTER = """
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (table 2 funcref)
  (elem (i32.const 0) $get)
  (global $small (mut i32) (i32.const -1))
  (global $large (mut i64) (i64.const 1))
  (global $single (mut f32) (f32.const 0))
  (global $double (mut f64) (f64.const 0))
  (global $fixed i32 (i32.const 7))
  (global (export "shown") i32 (global.get $fixed))
  (func (export "init")
    (global.set $small (i32.const -2147483648))
    (global.set $large (i64.const -9000000000000000000))
    (global.set $single (f32.const 1.5))
    (global.set $double (f64.const -0.1))
    (i32.store (i32.const 70000) (i32.const 42))
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 16)))
    (drop (call $random (i32.const 32) (i32.const 40))))
  (func (export "grow") (drop (memory.grow (i32.const 3))))
  (func (export "disturb") (table.set (i32.const 1) (ref.func $get)))
  (func $get (export "get") (param i32) (result i64)
    (if (result i64) (i32.eqz (local.get 0)) (then (i64.extend_i32_s (global.get $small)))
    (else (if (result i64) (i32.eq (local.get 0) (i32.const 1)) (then (global.get $large))
    (else (if (result i64) (i32.eq (local.get 0) (i32.const 2)) (then (i64.reinterpret_f64 (global.get $double)))
    (else (if (result i64) (i32.eq (local.get 0) (i32.const 3))
      (then (i64.extend_i32_u (i32.reinterpret_f32 (global.get $single))))
      (else (i64.extend_i32_s (i32.load (local.get 0))))))))))))
)
"""


@pytest.fixture(scope="module")
def counter() -> bytes:
    return bytes(wasmtime.wat2wasm(COUNTER))


def initialised(wasm: bytes, *calls: str, keep: tuple[str, ...] = KEEP) -> bytes:
    with Guest(wasm) as guest:
        for name in calls or ("init",):
            guest.call(name)
        return bake(wasm, guest.capture(), keep=keep)


def getter(wasm: bytes) -> Callable[[int], int]:
    """The `get` of a fresh instance, without any WASI."""
    engine = wasmtime.Engine()
    module, store, linker = wasmtime.Module(engine, wasm), wasmtime.Store(engine), wasmtime.Linker(engine)
    linker.define_unknown_imports_as_traps(module)
    get = linker.instantiate(store, module).exports(store)["get"]
    assert isinstance(get, wasmtime.Func)
    function = get
    return lambda index: int(function(store, index))


def exports_of(wasm: bytes) -> list[str]:
    return [export.name for export in wasmtime.Module(wasmtime.Engine(), wasm).exports]


def data_of(wasm: bytes) -> list[tuple[int, int]]:
    """Start and length of every data segment."""
    reader = Reader(dict(snapshot.read_sections(wasm))[11])
    found = []
    for _ in range(reader.unsigned()):
        assert reader.unsigned() == 0
        start = Reader(reader.constant()[1:]).signed()
        found.append((start, len(reader.take(reader.unsigned()))))
    return found


# ---- state


def test_an_instance_of_the_snapshot_starts_in_the_captured_state(counter: bytes) -> None:
    get = getter(initialised(counter))
    assert get(0) == -2147483648
    assert get(1) == -9000000000000000000
    assert struct.unpack("<d", struct.pack("<q", get(2))) == (-0.1,)
    assert struct.unpack("<f", struct.pack("<i", get(3))) == (1.5,)
    assert get(70000) == 42


def test_a_module_that_was_not_initialised_keeps_its_own_values(counter: bytes) -> None:
    with Guest(counter) as guest:
        get = getter(bake(counter, guest.capture(), keep=KEEP))
    assert get(0) == -1
    assert get(1) == 1
    assert get(70000) == 0


def test_grown_memory_is_the_initial_memory_of_the_snapshot(counter: bytes) -> None:
    wasm = initialised(counter, "init", "grow")
    body = Reader(dict(snapshot.read_sections(wasm))[5])
    assert body.unsigned() == 1
    assert body.limits() == (0, 5, None)
    assert getter(wasm)(5 * 65_536 - 4) == 0


def test_a_maximum_of_memory_can_be_set(counter: bytes) -> None:
    with Guest(counter) as guest:
        wasm = bake(counter, guest.capture(), keep=KEEP, memory_pages=9)
    body = Reader(dict(snapshot.read_sections(wasm))[5])
    assert body.unsigned() == 1
    assert body.limits() == (1, 2, 9)


# ---- repeatability


def test_clock_and_entropy_are_the_same_in_every_build(counter: bytes) -> None:
    first, second = initialised(counter), initialised(counter)
    assert first == second
    assert getter(first)(16) == struct.unpack("<i", struct.pack("<Q", snapshot.BUILD_CLOCK_NS)[:4])[0]
    assert getter(first)(32) != 0


def test_a_snapshot_of_a_snapshot_is_the_same(counter: bytes) -> None:
    once = initialised(counter)
    with Guest(once) as guest:
        assert bake(once, guest.capture(), keep=KEEP) == once


# ---- what stays and what goes


def test_only_the_kept_exports_remain(counter: bytes) -> None:
    assert exports_of(initialised(counter)) == ["get", "memory"]


def test_custom_sections_and_the_start_function_go() -> None:
    text = (
        '(module (memory (export "memory") 1) (func $go (i32.store (i32.const 0) (i32.const 5))) (start $go))'
    )
    wasm = bytes(wasmtime.wat2wasm(text)) + b"\0\x05\x04note"
    with Guest(wasm) as guest:
        baked = bake(wasm, guest.capture(), keep=("memory",))
    assert {section for section, _ in snapshot.read_sections(baked)} & {0, 8} == set()
    assert data_of(baked) == [(0, HOST_PAGE_BYTES)]


def test_a_missing_export_is_named(counter: bytes) -> None:
    with Guest(counter) as guest, pytest.raises(SnapshotError, match="does not export wasmeval_evaluate"):
        bake(counter, guest.capture(), keep=("memory", "wasmeval_evaluate"))


def test_a_changed_table_is_refused(counter: bytes) -> None:
    with Guest(counter) as guest:
        guest.call("disturb")
        with pytest.raises(SnapshotError, match="changed a table"):
            guest.capture()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('(module (import "a" "m" (memory 1)) (export "memory" (memory 0)))', "memory a.m is imported"),
        (
            '(module (import "a" "g" (global (mut i32))) (memory (export "memory") 1))',
            "mutable global a.g is imported",
        ),
    ],
)
def test_state_that_lies_outside_the_module_is_refused(text: str, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        snapshot.export_state(bytes(wasmtime.wat2wasm(text)))


def test_passive_data_is_refused() -> None:
    wasm = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (data "abc"))'))
    with Guest(wasm) as guest, pytest.raises(SnapshotError, match="passive data"):
        bake(wasm, guest.capture(), keep=("memory",))


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(SnapshotError, match="not a core WebAssembly module"):
        snapshot.read_sections(b"\0asm\x0d\0\1\0")


# ---- segments and copy-on-write


def pages(*numbers: int, total: int) -> bytes:
    memory = bytearray(total * HOST_PAGE_BYTES)
    for number in numbers:
        memory[number * HOST_PAGE_BYTES + 5] = 1
    return bytes(memory)


def shape(memory: bytes) -> list[tuple[int, int]]:
    return [
        (start // HOST_PAGE_BYTES, len(content) // HOST_PAGE_BYTES)
        for start, content in snapshot.segments(memory)
    ]


def test_pages_of_zeros_are_left_out_and_neighbours_are_one_segment() -> None:
    assert shape(pages(1, 2, 5, total=16)) == [(1, 2), (5, 1)]


def test_empty_memory_has_no_segment() -> None:
    assert shape(bytes(4 * HOST_PAGE_BYTES)) == []


def test_a_large_sparse_memory_is_filled_until_half_of_it_is_data() -> None:
    total = COPY_ON_WRITE_BYTES // HOST_PAGE_BYTES * 2
    memory = pages(0, 1, 4, total - 1, total=total)
    found = snapshot.segments(memory)
    assert sum(len(content) for _, content in found) * 2 >= len(memory)
    rebuilt = bytearray(len(memory))
    for start, content in found:
        rebuilt[start : start + len(content)] = content
    assert rebuilt == memory


@given(st.sets(st.integers(0, 63)), st.integers(64, 80))
def test_segments_restore_the_memory_and_do_not_overlap(numbers: set[int], total: int) -> None:
    memory = pages(*numbers, total=total)
    rebuilt, end = bytearray(len(memory)), -1
    for start, content in snapshot.segments(memory):
        assert start > end
        rebuilt[start : start + len(content)] = content
        end = start + len(content) - 1
    assert rebuilt == memory


def test_a_mapped_image_passes_the_check(counter: bytes) -> None:
    assert snapshot.check_copy_on_write(initialised(counter)) < 0.001


def test_an_image_that_wasmtime_would_copy_fails_the_check() -> None:
    far = COPY_ON_WRITE_BYTES + (1 << 20)
    text = f'(module (memory (export "memory") 400) (data (i32.const 0) "a") (data (i32.const {far}) "b"))'
    with pytest.raises(SnapshotError, match="Wasmtime would copy the image"):
        snapshot.check_copy_on_write(bytes(wasmtime.wat2wasm(text)))


def test_a_slow_instance_fails_the_check(counter: bytes) -> None:
    with pytest.raises(SnapshotError, match="at most"):
        snapshot.check_copy_on_write(initialised(counter), limit_seconds=0.0)


# ---- numbers of the binary format


@given(st.integers(0, 2**64 - 1))
def test_unsigned_numbers_are_read_as_they_were_written(value: int) -> None:
    assert Reader(snapshot.unsigned_leb(value)).unsigned() == value


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers_are_read_as_they_were_written(value: int) -> None:
    assert Reader(snapshot.signed_leb(value)).signed() == value
