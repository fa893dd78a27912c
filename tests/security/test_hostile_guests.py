"""An interpreter that was taken over, or never meant well, harms its own evaluation only: the worker lives on.

Each guest here is written in WebAssembly text and breaks the ABI, or the machine, in its own way.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests import LIMITS, PAGE, REQUEST, guest, job, pool_of, worker_pids, write_image
from wasmeval import Internal, Limits, SetupError, Status
from wasmeval.arrays import check
from wasmeval.model import Result
from wasmeval.pool import BlockingPool

WASI = "wasi_snapshot_preview1"
FOREVER = "(loop $l (br $l)) (i64.const 0)"
MALFORMED = "the interpreter's reply is malformed: "
TRAP = "the instance ended by a trap: "
STACK = "the interpreter's native stack overflowed; recurse less deeply"


def replying(*header: int, value: bytes = b"") -> str:
    """A guest whose reply has this header of eight words and then `value`."""
    stores = " ".join(
        f"(i32.store (i32.const {4096 + 4 * at}) (i32.const {word}))" for at, word in enumerate(header)
    )
    data = "".join(f"\\{byte:02x}" for byte in value)
    return guest(
        f"{stores} (memory.copy (i32.const 4128) (i32.const 512) (i32.const {len(value)}))"
        f" (call $at (i32.const 4096) (i32.const {32 + len(value)}))",
        functions=f'(data (i32.const 512) "{data}")',
    )


def array(size: int, *, dtype: bytes = b"<f8", name: bytes = b"", elements: bytes = b"") -> bytes:
    """The record of an array of one axis, in which eight bytes are one element, and that says it has `size` of them."""
    extent = 1 if size <= 16 else size // 8
    head = struct.pack("<4IQ", len(name), len(dtype), 1, size, extent) + name + dtype
    return head + bytes(-len(head) % 16) + (elements or bytes(size + -size % 16))


# name: (module, status, message)
ENDINGS: dict[str, tuple[str, Status, str]] = {
    "no-reply": (guest("(i64.const 0)"), Status.CRASHED, MALFORMED + "0 bytes are no reply"),
    "reply-outside": (
        guest("(call $at (i32.const -16) (i32.const 64))"),
        Status.CRASHED,
        MALFORMED + "the reply is outside of memory",
    ),
    "reply-over-the-end": (
        guest(f"(call $at (i32.const {24 * PAGE - 32}) (i32.const 33))"),
        Status.CRASHED,
        MALFORMED + "the reply is outside of memory",
    ),
    "reply-huge": (
        guest("(call $at (i32.const 0) (i32.const -1))"),
        Status.CRASHED,
        MALFORMED + "4294967295 bytes are more than any reply",
    ),
    "reply-short": (
        guest("(call $at (i32.const 4096) (i32.const 31))"),
        Status.CRASHED,
        MALFORMED + "31 bytes are no reply",
    ),
    "reply-all-zero": (
        guest("(call $at (i32.const 4096) (i32.const 32))"),
        Status.CRASHED,
        MALFORMED + "a value where none may be, none where one must be, or one over the limit",
    ),
    "lengths": (
        replying(0, 0, 5, 0, 0, 0, 0, 0, value=b"null"),
        Status.CRASHED,
        MALFORMED + "the lengths do not add up",
    ),
    "lengths-wrap": (
        replying(0, 0, 4, -4, 4, 0, 0, 0, value=b"null"),
        Status.CRASHED,
        MALFORMED + "the lengths do not add up",
    ),
    "outcome": (
        replying(5, 0, 4, 0, 0, 0, 0, 0, value=b"null"),
        Status.CRASHED,
        MALFORMED + "unknown outcome 5 or flags 0",
    ),
    "flags": (
        replying(0, 8, 4, 0, 0, 0, 0, 0, value=b"null"),
        Status.CRASHED,
        MALFORMED + "unknown outcome 0 or flags 8",
    ),
    "array-where-none-may-be": (
        replying(1, 2, 0, 0, 0, 0, 0, 0, value=array(8)),
        Status.CRASHED,
        MALFORMED + "an array where none may be",
    ),
    "array-nowhere": (
        replying(0, 4, 4, 0, 0, 0, 0, 0, value=b"null"),
        Status.CRASHED,
        MALFORMED + "unknown outcome 0 or flags 4",
    ),
    "array-cut": (
        replying(0, 2, 4, 0, 0, 0, 0, 0, value=b"null" + array(8)[:15]),
        Status.CRASHED,
        MALFORMED + "an array that is none: a record that is cut",
    ),
    "array-of-other-bytes": (
        replying(0, 2, 4, 0, 0, 0, 0, 0, value=b"null" + array(16)),
        Status.CRASHED,
        MALFORMED + "an array that is none: data: 16 bytes, and dtype and shape say 8",
    ),
    "array-of-objects": (
        replying(0, 2, 4, 0, 0, 0, 0, 0, value=b"null" + array(8, dtype=b"|O8")),
        Status.CRASHED,
        MALFORMED + f"an array that is none: {check('|O8', (1,), 8)}",
    ),
    "array-with-axes-beyond-all": (
        replying(0, 2, 4, 0, 0, 0, 0, 0, value=b"null" + struct.pack("<4I", 0, 3, 2**32 - 1, 8)),
        Status.CRASHED,
        MALFORMED + "an array that is none: a dtype or a shape that is too long",
    ),
    "array-over-the-limit": (
        replying(0, 6, 4, 0, 0, 0, 0, 0, value=b"null" + array(2**31 - 8, elements=bytes(4))),
        Status.CRASHED,
        MALFORMED + "an array with a name, or over the limit",
    ),
    "array-outside": (
        replying(0, 6, 4, 0, 0, 0, 0, 0, value=b"null" + array(8, elements=struct.pack("<I", 2**32 - 4))),
        Status.CRASHED,
        MALFORMED + "an array outside of memory",
    ),
    "array-without-address": (
        replying(0, 6, 4, 0, 0, 0, 0, 0, value=b"null" + array(8, elements=b"abc")),
        Status.CRASHED,
        MALFORMED + "an array without an address",
    ),
    "array-and-more": (
        replying(0, 2, 4, 0, 0, 0, 0, 0, value=b"null" + array(8) + b"x"),
        Status.CRASHED,
        MALFORMED + "the lengths do not add up",
    ),
    "array-with-a-name": (
        replying(0, 2, 4, 0, 0, 0, 0, 0, value=b"null" + array(8, name=b"x")),
        Status.CRASHED,
        MALFORMED + "an array with a name, or over the limit",
    ),
    "error-with-value": (
        replying(1, 0, 4, 0, 0, 0, 0, 0, value=b"null"),
        Status.CRASHED,
        MALFORMED + "a value where none may be, none where one must be, or one over the limit",
    ),
    "error-text-too-long": (
        replying(1, 0, 0, 257, 0, 0, 0, 0, value=b"x" * 257),
        Status.CRASHED,
        MALFORMED + "an error text is too long",
    ),
    "error-text-invalid": (
        replying(1, 0, 0, 1, 2, 0, -1, -1, value=b"\xffa\xc3"),
        Status.ERROR,
        "a\N{REPLACEMENT CHARACTER}",
    ),
    "unreachable": (guest("unreachable"), Status.CRASHED, TRAP + "unreachable executed"),
    "division": (
        guest("(i64.div_u (i64.const 1) (i64.const 0))"),
        Status.CRASHED,
        TRAP + "integer divide by zero",
    ),
    "load-outside": (
        guest("(i64.load (i32.const -8))"),
        Status.CRASHED,
        TRAP + "out of bounds memory access",
    ),
    "fill-outside": (
        guest("(memory.fill (i32.const 0) (i32.const 1) (i32.const -1)) (i64.const 0)"),
        Status.CRASHED,
        TRAP + "out of bounds memory access",
    ),
    "indirect": (
        guest("(call_indirect (result i64) (i32.const 9))", functions="(table 10 funcref)"),
        Status.CRASHED,
        TRAP + "uninitialized table element",
    ),
    "recursion": (guest("(call $r)", functions="(func $r (result i64) (call $r))"), Status.CRASHED, STACK),
    "recursion-wide": (
        guest(
            "(call $r (i64.const 1) (f64.const 1) (i64.const 3))",
            functions="(func $r (param i64 f64 i64) (result i64)"
            " (i64.add (call $r (local.get 2) (local.get 1) (local.get 0)) (local.get 2)))",
        ),
        Status.CRASHED,
        STACK,
    ),
    "recursion-with-host-calls": (
        guest(
            "(call $r)",
            imports=f'(import "{WASI}" "sched_yield" (func $y (result i32)))',
            functions="(func $r (result i64) (drop (call $y)) (i64.add (call $r) (i64.const 1)))",
        ),
        Status.CRASHED,
        STACK,
    ),
    "loop": (
        guest(FOREVER),
        Status.FUEL_EXHAUSTED,
        "all fuel was used (20000000); raise limits.fuel or do less",
    ),
    "exit": (
        guest(
            "(call $e (i32.const 7)) (i64.const 0)",
            imports=f'(import "{WASI}" "proc_exit" (func $e (param i32)))',
        ),
        Status.ERROR,
        "7",
    ),
}

# Harmless ends, however much they try: name: module
HARMLESS = {
    "good": guest("(call $null)"),
    "memory-to-the-limit": guest(
        "(drop (memory.grow (i32.const 65535))) (drop (memory.grow (i32.const -1)))"
        " (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (call $null)"
    ),
    "table-to-the-limit": guest(
        "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 999)) (i32.const -1))))"
        " (drop (table.grow $t (ref.null func) (i32.const -1))) (call $null)",
        functions="(table $t 1 funcref)",
    ),
    "exit-zero": guest(
        "(call $e (i32.const 0)) (i64.const 0)",
        imports=f'(import "{WASI}" "proc_exit" (func $e (param i32)))',
    ),
}

FILLING = guest(
    # Ten megabytes at a time: a bulk instruction ends only by itself.
    "(drop (memory.grow (i32.const 200)))"
    " (loop $l (memory.fill (i32.const 131072) (i32.const 7) (i32.const 10000000)) (br $l)) (i64.const 0)"
)
FLOODING = guest(
    FOREVER.replace("(br $l)", "(drop (call $h (i32.const 0) (i32.const 0))) (br $l)"),
    imports='(import "wasmeval" "host_call" (func $h (param i32 i32) (result i32)))',
)
CLOCK_FLOODING = guest(
    FOREVER.replace("(br $l)", "(drop (call $h (i32.const 0) (i64.const 0) (i32.const 0))) (br $l)"),
    imports=f'(import "{WASI}" "clock_time_get" (func $h (param i32 i64 i32) (result i32)))',
)
# Fills all memory it can get, keeps its table and a global dirty, and replies null when all of it was clean before.
DIRTY = guest(
    """(drop (memory.grow (i32.const 100)))
       (if (i32.or (i32.ne (i32.load (i32.const 131072)) (i32.const 0))
                   (i32.ne (i32.load (i32.const 8126460)) (i32.const 0))) (then unreachable))
       (local.set $len (i32.const 131072))
       (loop $l
         (if (i64.ne (i64.load (local.get $len)) (i64.const 0)) (then unreachable))
         (br_if $l (i32.lt_u (local.tee $len (i32.add (local.get $len) (i32.const 8))) (i32.const 8126464))))
       (if (i32.eqz (ref.is_null (table.get $t (i32.const 1)))) (then unreachable))
       (if (i32.ne (global.get $g) (i32.const 5)) (then unreachable))
       (global.set $g (i32.const 6))
       (table.set $t (i32.const 1) (ref.func $f))
       (memory.fill (i32.const 131072) (i32.const 255) (i32.const 7995392))
       (call $null)""",
    functions="(table $t 4 funcref) (global $g (mut i32) (i32.const 5)) (func $f) (elem declare func $f)",
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingPool]:
    modules = {
        **{name: module for name, (module, _, _) in ENDINGS.items()},
        **HARMLESS,
        "filling": FILLING,
        "flooding": FLOODING,
        "clock-flooding": CLOCK_FLOODING,
        "dirty": DIRTY,
        "not-json": replying(0, 0, 8, 0, 0, 0, 0, 0, value=b"[[\x00\xff\n{}}"),
    }
    with pool_of(tmp_path_factory.mktemp("hostile"), modules) as pool:
        yield pool


def run(pool: BlockingPool, name: str, limits: Limits = LIMITS) -> Result:
    (result,) = pool.evaluate_many([job(name, b"1", limits)], timeout=120)
    return result


def assert_healthy(pool: BlockingPool, pids: list[int]) -> None:
    after = run(pool, "good")
    assert (after.status, after.value) == (Status.OK, None)
    assert worker_pids(pool) == pids
    assert pool.stats().restarts == 0


@pytest.mark.parametrize("name", ENDINGS)
def test_a_broken_guest_ends_alone(pool: BlockingPool, name: str) -> None:
    _, status, message = ENDINGS[name]
    pids = worker_pids(pool)
    result = run(pool, name, Limits(fuel=20_000_000))
    assert result.error
    assert (result.status, result.error.message) == (status, message)
    assert result.value_json == b""
    assert_healthy(pool, pids)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_greedy_guest_gets_no_more_than_its_limit(pool: BlockingPool, name: str) -> None:
    pids = worker_pids(pool)
    result = run(pool, name)
    assert (result.status, result.value) == (Status.OK, None)
    assert result.usage.peak_memory_bytes <= (LIMITS.memory_bytes or 0)
    assert_healthy(pool, pids)


@pytest.mark.parametrize("name", ["filling", "flooding", "clock-flooding", "loop"])
def test_a_guest_that_never_ends_meets_its_deadline(pool: BlockingPool, name: str) -> None:
    pids = worker_pids(pool)
    result = run(pool, name, Limits(fuel=10**15, deadline_seconds=0.1))
    assert result.error
    assert result.status is Status.DEADLINE_EXCEEDED
    assert result.error.message == "the deadline of 0.1 s passed; raise limits.deadline_seconds or do less"
    assert_healthy(pool, pids)


@pytest.mark.parametrize("name", ["filling", "flooding", "clock-flooding", "loop"])
def test_a_guest_that_never_ends_leaves_turns_to_others(pool: BlockingPool, name: str) -> None:
    """All on one worker: the small ones are answered while the endless one still runs."""
    jobs = [
        job(name, b"1", Limits(fuel=10**15, deadline_seconds=3.0)),
        *[job("good", b"1") for _ in range(50)],
    ]
    ends: list[int] = []
    assert pool._pool
    tickets = [
        pool._pool.submit(each, lambda _, index=index: ends.append(index))  # type: ignore[misc]
        for index, each in enumerate(jobs)
    ]
    pool._wait(lambda: len(ends) >= 50, timeout=60)
    assert 0 not in ends
    pool._pool.cancel(tickets[0])
    assert_healthy(pool, worker_pids(pool))


def test_nothing_is_left_of_the_guest_before(pool: BlockingPool) -> None:
    """Memory, tables and globals are those of the image, whichever slot an instance gets."""
    pids = worker_pids(pool)
    for _ in range(40):
        result = run(pool, "dirty")
        assert (result.status, result.error) == (Status.OK, None)
    together = pool.evaluate_many([job("dirty", b"1") for _ in range(40)], timeout=120)
    assert {result.status for result in together} == {Status.OK}
    assert_healthy(pool, pids)


def test_a_value_that_is_no_json_is_said_to_be_none(pool: BlockingPool) -> None:
    pids = worker_pids(pool)
    result = run(pool, "not-json")
    assert result.status is Status.OK
    with pytest.raises(Internal, match="the value is not JSON: its guest broke the interpreter it ran in"):
        _ = result.value
    assert_healthy(pool, pids)


def test_memory_is_counted_for_all_guests_of_a_worker_together(tmp_path: Path) -> None:
    """Guests that grow and then wait may not hold more than the worker's budget; the largest ends."""
    hoard = guest(
        """(drop (memory.grow (i32.const 200)))
           (i64.store (i32.const 640) (i64.const 9223372036854775807))
           (drop (call $p (i32.const 616) (i32.const 700) (i32.const 1) (i32.const 800)))
           (call $null)""",
        imports=f'(import "{WASI}" "poll_oneoff" (func $p (param i32 i32 i32 i32) (result i32)))',
        functions='(data (i32.const 632) "\\01")',
    )
    with pool_of(tmp_path, {"hoard": hoard, "good": HARMLESS["good"]}, worker_memory_bytes=64 << 20) as pool:
        results = pool.evaluate_many(
            [job("hoard", b"1", Limits(deadline_seconds=1.0)) for _ in range(10)], timeout=60
        )
        ended = [result.status for result in results]
        assert set(ended) == {Status.MEMORY_EXCEEDED, Status.DEADLINE_EXCEEDED}
        # Each grew by 200 pages; 64 MiB hold five of them.
        assert ended.count(Status.DEADLINE_EXCEEDED) == 5
        evicted = next(result for result in results if result.status is Status.MEMORY_EXCEEDED)
        assert evicted.error
        assert evicted.error.message == (
            "the worker's guests together used more than 67108864 bytes, and this one most of it; "
            "use less, or have the operator raise worker_memory_bytes"
        )
        assert_healthy(pool, worker_pids(pool))


# What is wrong before the first request is the image's fault: the service does not start, and says so.
UNFIT = {
    "reserve-traps": guest("(call $null)", reserve="unreachable"),
    "reserve-loops": guest("(call $null)", reserve="(loop $l (br $l)) (i32.const 0)"),
    "reserve-zero": guest("(call $null)", reserve="(i32.const 0)"),
    "reserve-outside": guest("(call $null)", reserve="(i32.const -1)"),
    "warm-up-exits": guest(
        "(call $null)",
        imports=f'(import "{WASI}" "proc_exit" (func $e (param i32)))',
        reserve="(call $e (i32.const 0)) (i32.const 0)",
    ),
    "start-function-traps": guest("(call $null)", functions="(func $s unreachable) (start $s)"),
    "start-function-writes-early": guest(
        "(call $null)",
        imports=f'(import "{WASI}" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))',
        functions="(func $s"
        " (if (i32.ne (i32.const 21) (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)))"
        " (then (return))) unreachable) (start $s)",
    ),
    "unknown-import": guest("(call $null)", imports='(import "env" "system" (func (param i32)))'),
    "no-memory": '(module (func (export "wasmeval_reserve") (param i32) (result i32) (i32.const 0)))',
    "memory-is-a-function": '(module (func (export "memory"))'
    ' (func (export "wasmeval_reserve") (param i32) (result i32)'
    ' (i32.const 0)) (func (export "wasmeval_evaluate") (param i32) (result i64) (i64.const 0)))',
    "evaluate-is-a-memory": '(module (memory (export "memory") 4) (export "wasmeval_evaluate" (memory 0))'
    ' (func (export "wasmeval_reserve") (param i32) (result i32) (i32.const 65536)))',
    "reserve-of-another-type": '(module (memory (export "memory") 4) (func (export "wasmeval_evaluate") (param i32)'
    ' (result i64) (i64.const 0)) (func (export "wasmeval_reserve") (param f64) (result f64) (f64.const 1)))',
    "memory-too-large": guest("(call $null)", pages=65536),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_image_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(SetupError), pool_of(tmp_path, {name: UNFIT[name]}, start_seconds=20.0):
        pass
    assert time.monotonic() - started < 120


def test_an_image_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    folder = write_image(tmp_path / "images", "altered", guest("(call $null)"))
    (folder / "image.wasm.xz").write_bytes((folder / "image.wasm.xz").read_bytes()[:-12])
    with pytest.raises(SetupError, match=r"cannot be read|is damaged"), pool_of(tmp_path, {}):
        pass


def test_the_request_is_where_the_guest_reserved_it() -> None:
    assert REQUEST % PAGE == 0
