"""The plan of a call: when the client tries again, for how long, and how soon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import Internal, InvalidArgument, ResourceExhausted, Unavailable, WasmevalError
from wasmeval.plans import Send, call, is_refusal
from wasmeval.service import _DRAINING


class Clock:
    """Time that only passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def play(
    error: WasmevalError, timeout: float | None, chance: float = 1.0, *, has_effects: bool = False
) -> tuple[list[float], list[float | None]]:
    """The delays and the time-outs of a call that always fails with `error`."""
    clock = Clock()
    plan = call("/m", b"data", bytes.decode, timeout, clock, lambda: chance, has_effects=has_effects)
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


REFUSALS = [
    ResourceExhausted("full", 0.1),
    Unavailable(_DRAINING),
    Unavailable("failed to connect to all addresses; last error: UNKNOWN: Connection refused"),
]
LOST = [
    Unavailable("Socket closed"),
    Unavailable("recvmsg:Connection reset by peer"),
    Unavailable("GOAWAY received"),
    Unavailable("upstream connect error or disconnect/reset before headers"),
]


@pytest.mark.parametrize("error", REFUSALS)
def test_what_has_effects_is_repeated_after_a_refusal(error: WasmevalError) -> None:
    assert is_refusal(error)
    assert play(error, 1.0, has_effects=True) == play(error, 1.0)
    assert len(play(error, 1.0)[0]) > 1


@pytest.mark.parametrize("error", LOST)
def test_what_has_effects_is_not_repeated_when_it_was_lost(error: WasmevalError) -> None:
    assert not is_refusal(error)
    assert play(error, 1.0, has_effects=True) == ([], [1.0])
    assert len(play(error, 1.0)[0]) > 1
