"""Whatever a guest passes to a host function, the worker survives and the guest gets an errno.

The guest here is made for the purpose: its snippet is a list of host calls with the arguments as they stand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guests import CALL_BYTES, PAGE, caller, host_functions, job, pool_of, worker_pids
from wasmeval import Limits, Status
from wasmeval.pool import BlockingPool

MEMORY = 24 * PAGE
FUNCTIONS = host_functions()
INDEX = {name: index for index, (_, name, _, _) in enumerate(FUNCTIONS)}

# Near the borders of the memory, of 32 bits and of zero; and anywhere.
_ADDRESS = st.one_of(
    st.integers(0, 64),
    st.integers(MEMORY - 64, MEMORY + 64),
    st.integers(2**31 - 8, 2**31 + 8),
    st.integers(2**32 - 64, 2**32 - 1),
    st.integers(0, MEMORY),
)
_ARGUMENT = st.one_of(_ADDRESS, st.integers(0, 5), st.integers(0, 2**64 - 1))
_CALL = st.tuples(st.integers(0, len(FUNCTIONS) - 1), st.lists(_ARGUMENT, min_size=9, max_size=9))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingPool]:
    with pool_of(tmp_path_factory.mktemp("caller"), {"caller": caller()}) as pool:
        yield pool


def encode(name_or_index: str | int, *arguments: int) -> bytes:
    index = INDEX[name_or_index] if isinstance(name_or_index, str) else name_or_index
    padded = [*arguments, *[0] * (9 - len(arguments))]
    call = struct.pack("<I9Q", index, *(argument % 2**64 for argument in padded))
    assert len(call) == CALL_BYTES
    return call


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(_CALL, min_size=1, max_size=20))
def test_wild_arguments_to_every_host_function(
    pool: BlockingPool, calls: list[tuple[int, list[int]]]
) -> None:
    before = worker_pids(pool)
    code = b"".join(encode(index, *arguments) for index, arguments in calls)
    limits = Limits(deadline_seconds=0.02)  # a wild sleep is a long one
    (result,) = pool.evaluate_many([job("caller", code, limits)], timeout=60)
    # proc_exit ends it by `ok` or `error`; a sleep by `deadline_exceeded`.
    assert result.status in (Status.OK, Status.ERROR, Status.DEADLINE_EXCEEDED, Status.OUTPUT_EXCEEDED), (
        result
    )
    assert worker_pids(pool) == before
    assert pool.stats().restarts == 0


@pytest.mark.parametrize("name", [name for _, name, _, _ in FUNCTIONS])
def test_each_host_function_at_the_edges(pool: BlockingPool, name: str) -> None:
    before = worker_pids(pool)
    parameters = next(parameters for _, each, parameters, _ in FUNCTIONS if each == name)
    edges = (0, 1, 3, MEMORY - 1, MEMORY, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
    for edge in edges:
        for position in range(max(1, len(parameters))):
            arguments = [3, 256, 8, 512, 8, 1024, 0, 0, 2048]
            arguments[position] = edge
            code = encode(name, *arguments) + encode(name, *[edge] * 9)
            (result,) = pool.evaluate_many([job("caller", code, Limits(deadline_seconds=0.02))], timeout=60)
            assert result.status in (Status.OK, Status.ERROR, Status.DEADLINE_EXCEEDED), (
                name,
                arguments,
                result,
            )
    (after,) = pool.evaluate_many([job("caller", encode("sched_yield"))], timeout=60)
    assert after.status is Status.OK
    assert worker_pids(pool) == before


def test_a_sleep_without_end_ends_at_the_deadline(pool: BlockingPool) -> None:
    # One subscription to the clock, 2**64 - 1 nanoseconds away; memory is zero elsewhere.
    code = encode("poll_oneoff", 65536 + 16 + CALL_BYTES, 512, 1, 600)
    subscription = struct.pack("<QB7xI4xQQH6x", 7, 0, 1, 2**64 - 1, 0, 0)
    data = (subscription + bytes(CALL_BYTES))[:CALL_BYTES]
    (result,) = pool.evaluate_many([job("caller", code + data, Limits(deadline_seconds=0.05))], timeout=60)
    assert result.status is Status.DEADLINE_EXCEEDED
    assert result.error
    assert result.error.message == "the deadline of 0.05 s passed; raise limits.deadline_seconds or do less"


def test_host_call_offers_nothing(pool: BlockingPool) -> None:
    code = encode("host_call", 0, 2**32 - 1) + encode("host_read", 2**32 - 1)
    (result,) = pool.evaluate_many([job("caller", code)], timeout=60)
    assert (result.status, result.value) == (Status.OK, None)
