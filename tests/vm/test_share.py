"""One guest gets its share of the loop's time, and a burst beyond it."""

from __future__ import annotations

from wasmeval.vm.share import FREE_SECONDS, SHARE, Share


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_taken_as_it_comes() -> None:
    share = Share(Clock())
    share.took(FREE_SECONDS)
    assert share.pause == 0


def test_whoever_goes_on_gets_his_share_in_the_long_run() -> None:
    clock = Clock()
    share = Share(clock)
    taken = 0.0
    while taken < 10:
        clock.now += 0.01
        taken += 0.01
        share.took(0.01)
        clock.now += share.pause
    assert taken / (clock.now - 100) < SHARE * 1.2


def test_silence_is_forgiven() -> None:
    clock = Clock()
    share = Share(clock)
    share.took(5)
    clock.now += 1000
    share.took(0)
    assert share.pause == 0
    share.took(FREE_SECONDS / 2)
    assert share.pause == 0
