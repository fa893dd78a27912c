"""The plan of a call: when the client tries again, for how long, and how soon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import Internal, InvalidArgument, ResourceExhausted, Unavailable, WasmevalError
from wasmeval.plans import Send, call


class Clock:
    """Time that only passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def play(
    error: WasmevalError, timeout: float | None, chance: float = 1.0
) -> tuple[list[float], list[float | None]]:
    """The delays and the time-outs of a call that always fails with `error`."""
    clock = Clock()
    plan = call("/m", b"data", bytes.decode, timeout, clock, lambda: chance)
    delays, timeouts = [], []
    step = next(plan)
    try:
        while True:
            if isinstance(step, Send):
                timeouts.append(step.timeout)
                step = plan.send(error)
            else:
                delays.append(step)
                clock.now += step
                step = plan.send(None)
    except WasmevalError as raised:
        assert raised is error  # noqa: PT017
    return delays, timeouts


def test_delays_double_up_to_two_seconds() -> None:
    delays, timeouts = play(Unavailable("away"), None)
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert timeouts == [None] * 10


@given(st.floats(0, 1))
def test_a_random_half_keeps_clients_apart(chance: float) -> None:
    delays, _ = play(Unavailable("away"), 1.0, chance)
    assert delays[0] == 0.05 * (0.5 + chance / 2)


def test_the_service_s_wish_is_the_least() -> None:
    delays, _ = play(ResourceExhausted("full", 0.3), 1.0)
    assert delays == [0.3, 0.3, 0.3]


@given(
    st.floats(0.001, 100), st.floats(0, 1), st.sampled_from([Unavailable("a"), ResourceExhausted("b", 0.1)])
)
def test_retries_end_within_the_call_s_time(timeout: float, chance: float, error: WasmevalError) -> None:
    delays, timeouts = play(error, timeout, chance)
    assert sum(delays) <= timeout  # equal only by rounding
    assert timeouts[0] == pytest.approx(timeout)
    assert all(left is not None and 0 <= left <= timeout + 1e-9 for left in timeouts)


@pytest.mark.parametrize("error", [Internal("bug"), InvalidArgument("code", "empty")])
def test_other_errors_are_final(error: WasmevalError) -> None:
    assert play(error, 10.0) == ([], [10.0])
