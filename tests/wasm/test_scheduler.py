"""The scheduler of one worker: everything submitted is delivered once, new ones first, long ones in turn."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tests.wasm.conftest import ECHO, HOARDER, LIMITS, LOOP, RESTLESS, SLEEPER, MakeImage
from wasmeval import Limits, Status
from wasmeval.limits import MIB
from wasmeval.model import Result
from wasmeval.wasm.order import Order
from wasmeval.wasm.pages import Pagemap
from wasmeval.wasm.progress import Progress
from wasmeval.wasm.scheduler import ROTATION, Scheduler, SchedulerSettings

FOREVER = Limits(fuel=10**15, deadline_seconds=100.0).within(LIMITS, Limits())


class Bench:
    """A scheduler, what it delivered, and a loop as a worker has it."""

    def __init__(self, make_image: MakeImage, pagemap: Pagemap | None = None, **settings: object) -> None:
        modules = {"echo": ECHO, "sleeper": SLEEPER, "loop": LOOP, "hoarder": HOARDER, "restless": RESTLESS}
        self.images = {name: make_image(name, module) for name, module in modules.items()}
        self.results: dict[int, Result] = {}
        self.order: list[int] = []
        self.progress = Progress()
        self.scheduler = Scheduler(
            self.images,
            self,
            SchedulerSettings(**settings),
            self.progress,  # type: ignore[arg-type]
            pagemap,
        )
        self._number = 0

    def result(self, number: int, result: Result) -> None:
        assert number not in self.results, "delivered twice"
        self.results[number] = result
        self.order.append(number)

    def call(self, number: int, call: int, operation: int, body: bytes) -> None:
        raise AssertionError("nothing was granted")

    def output(self, number: int, stream: int, data: bytes) -> None:
        raise AssertionError("nobody listens")

    def file(self, number: int, path: str, data: bytes, is_last: bool) -> None:
        raise AssertionError("nobody asked for files")

    def submit(self, runtime: str, code: bytes = b"1", limits: Limits = LIMITS) -> int:
        self._number += 1
        self.scheduler.submit(Order(self._number, runtime, code, b"", limits))
        return self._number

    def sleep(self, seconds: float, limits: Limits = LIMITS) -> int:
        return self.submit("sleeper", struct.pack("<Q", int(seconds * 1e9)), limits)

    def run(self, until: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not until():
            assert time.monotonic() < end, "it never happened"
            timeout = self.scheduler.timeout()
            if timeout:
                time.sleep(min(timeout, 0.01))
            self.scheduler.step()

    @property
    def is_idle(self) -> bool:
        """Nothing to do now; the timers of what is over may still be there."""
        return self.scheduler.timeout() != 0

    def status(self, number: int) -> Status:
        return self.results[number].status


@pytest.fixture
def bench(make_image: MakeImage) -> Iterator[Bench]:
    bench = Bench(make_image, ready=2)
    yield bench
    assert bench.progress.number == 0
    bench.scheduler.close()


def test_each_is_delivered_once(bench: Bench) -> None:
    numbers = [bench.submit("echo", str(i).encode()) for i in range(50)]
    bench.run(lambda: len(bench.results) == 50)
    assert bench.order == numbers
    assert [bench.results[number].value for number in numbers] == list(range(50))


def test_idle_it_wants_nothing_more(bench: Bench) -> None:
    bench.submit("echo")
    bench.run(lambda: bench.scheduler.timeout() is None)
    assert len(bench.results) == 1
    bench.sleep(5)
    bench.run(lambda: bench.scheduler.timeout())
    assert 0 < (bench.scheduler.timeout() or 0) <= 5


def test_new_ones_go_before_long_ones(bench: Bench) -> None:
    for _ in range(20):
        bench.submit("loop", limits=FOREVER)
    bench.run(lambda: len(bench.scheduler._rotation) >= ROTATION)
    for _ in range(30):
        small = bench.submit("echo")
        steps = 0
        while small not in bench.results:
            bench.scheduler.step()
            steps += 1
        # The other long ones that still wait for their first slice, and one of the rotation for every eight of them.
        assert steps <= 40
    small = bench.submit("echo")
    for _ in range(3):
        bench.scheduler.step()
    assert small in bench.results


def test_those_that_wake_all_the_time_do_not_keep_new_ones_out(bench: Bench) -> None:
    for _ in range(5):
        bench.submit("restless", limits=FOREVER)
    for _ in range(50):
        bench.scheduler.step()
    for _ in range(20):
        small = bench.submit("echo")
        steps = 0
        while small not in bench.results:
            bench.scheduler.step()
            steps += 1
            assert steps < 100, "it never gets its turn"


def test_a_long_one_is_not_starved_by_a_flood(bench: Bench) -> None:
    long = bench.submit("loop", limits=Limits(fuel=3_000_000).within(FOREVER, Limits()))
    steps = 0
    while long not in bench.results:
        bench.submit("echo")
        bench.scheduler.step()
        steps += 1
        assert steps < 2000
    assert bench.status(long) is Status.FUEL_EXHAUSTED


def test_only_so_many_take_turns(bench: Bench) -> None:
    """A parked one's clock stands still: each ends by its fuel, none by its deadline."""
    limits = Limits(fuel=20_000_000, deadline_seconds=2.0).within(LIMITS, Limits())
    numbers = [bench.submit("loop", limits=limits) for _ in range(40)]
    bench.run(lambda: len(bench.results) == 40)
    assert {bench.status(number) for number in numbers} == {Status.FUEL_EXHAUSTED}
    assert {bench.results[number].usage.fuel for number in numbers} == {20_000_000}


def test_a_sleep_ends_at_the_deadline(bench: Bench) -> None:
    numbers = [bench.sleep(1000, Limits(deadline_seconds=0.05).within(LIMITS, Limits())) for _ in range(10)]
    numbers += [bench.sleep(2**64 / 1e9 - 1, Limits(deadline_seconds=0.05).within(LIMITS, Limits()))]
    bench.run(lambda: len(bench.results) == 11)
    assert {bench.status(number) for number in numbers} == {Status.DEADLINE_EXCEEDED}
    assert all(result.usage.wall_seconds >= 0.05 for result in bench.results.values())


def test_sleepers_wake_in_the_order_of_their_times(bench: Bench) -> None:
    slow, fast, middle = bench.sleep(0.3), bench.sleep(0.02), bench.sleep(0.15)
    bench.run(lambda: len(bench.results) == 3)
    assert bench.order == [fast, middle, slow]
    assert {result.status for result in bench.results.values()} == {Status.OK}


def test_cancelled_wherever_it_is(bench: Bench) -> None:
    waiting = bench.submit("echo")
    bench.scheduler.cancel(waiting)
    assert bench.status(waiting) is Status.CANCELLED
    sleeping = bench.sleep(100)
    loops = [bench.submit("loop", limits=FOREVER) for _ in range(ROTATION + 4)]
    bench.run(lambda: bench.scheduler._parked and bench.results[waiting])
    bench.scheduler.cancel(sleeping)
    for number in loops:
        bench.scheduler.cancel(number)
        bench.scheduler.cancel(number)
    bench.scheduler.cancel(12345)
    assert len(bench.results) == ROTATION + 6
    assert {result.status for result in bench.results.values()} == {Status.CANCELLED}
    assert bench.results[sleeping].error
    assert bench.results[sleeping].error.message == "the evaluation was cancelled by its caller"
    bench.submit("echo")
    bench.run(lambda: len(bench.results) == ROTATION + 7 and bench.is_idle)


def test_it_says_which_guest_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from wasmeval.wasm.instance import Instance

    seen: list[tuple[int, int]] = []
    real = Instance.poll

    def poll(self: Instance, slice_end: float = 0.0) -> bool:
        seen.append((bench.progress.number, bench.progress.deadline_ns))
        return real(self, slice_end)

    number = bench.submit("echo")
    bench.run(lambda: bench.is_idle)
    monkeypatch.setattr(Instance, "poll", poll)
    number = bench.submit("echo")
    bench.run(lambda: number in bench.results)
    assert [each for each, _ in seen] == [number]
    assert 0 < seen[0][1] / 1e9 - time.monotonic() <= 60
    assert bench.progress.number == 0


def test_the_largest_goes_when_memory_is_short(make_image: MakeImage) -> None:
    bench = Bench(make_image, ready=0, memory_bytes=20 * MIB)
    small = [bench.submit("hoarder", struct.pack("<I", 40), FOREVER) for _ in range(3)]
    large = bench.submit("hoarder", struct.pack("<I", 220), FOREVER)
    bench.run(lambda: bench.results)
    assert list(bench.results) == [large] or not set(bench.results) - {large}
    assert bench.status(large) is Status.MEMORY_EXCEEDED
    for number in small:
        bench.scheduler.cancel(number)
    assert bench.scheduler._grown_bytes == 0
    bench.scheduler.close()


def test_nothing_is_counted_when_all_is_over(bench: Bench) -> None:
    for _ in range(10):
        bench.submit("hoarder", struct.pack("<I", 50))
        bench.sleep(0.01)
        bench.submit("echo")
    bench.run(lambda: len(bench.results) == 30 and bench.is_idle)
    assert bench.scheduler._grown_bytes == 0
    assert bench.scheduler._tasks == {}


def test_closing_in_the_middle(bench: Bench) -> None:
    for _ in range(5):
        bench.submit("loop", limits=FOREVER)
        bench.sleep(100)
        bench.submit("echo")
    for _ in range(9):
        bench.scheduler.step()


def step(bench: Bench, session: int, code: bytes = b"1") -> Result:
    """What a step of that session gives, once it is kept."""
    bench._number += 1
    number = bench._number
    bench.scheduler.submit(Order(number, "echo", code, b"", LIMITS, session=session))
    while number not in bench.results or bench.scheduler._unkept:
        bench.scheduler.step()
    return bench.results[number]


@pytest.fixture
def sessions(make_image: MakeImage) -> Iterator[Bench]:
    """A bench whose scheduler takes sessions, with all instances prepared."""
    pagemap = Pagemap()
    bench = Bench(make_image, ready=4, pagemap=pagemap)
    bench.run(lambda: bench.scheduler.timeout() is None)
    yield bench
    bench.scheduler.close()
    pagemap.close()


def test_between_steps_instances_are_not_prepared_as_long_as_there_are_some(
    sessions: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasmeval.wasm.scheduler.REST_SECONDS", 60.0)
    scheduler = sessions.scheduler
    for session in (1, 2, 3, 4):
        scheduler.open_session(session, "echo")
        assert step(sessions, session).status is Status.OK
        assert (scheduler.timeout() == 0.0) is (session == 4)
    assert step(sessions, 3).status is Status.OK
    scheduler.close_session(3)
    assert scheduler.timeout() == 0.0
    sessions.run(lambda: scheduler.timeout() is None)
    assert step(sessions, 4).status is Status.OK


def test_a_session_that_was_not_marked_cannot_go_back_and_harms_nobody(sessions: Bench) -> None:
    scheduler = sessions.scheduler
    scheduler.open_session(1, "echo", bytearray(b"no state"))
    scheduler.mark_session(1)
    scheduler.revert_session(1, 2)
    scheduler.open_session(3, "echo")
    scheduler.mark_session(3)
    scheduler.revert_session(3, 4)
    assert [step(sessions, number).status for number in (1, 2, 4)] == [Status.CRASHED] * 3
    assert step(sessions, 3).status is Status.OK


def test_a_session_goes_back_to_where_it_was_marked_as_often_as_it_likes(sessions: Bench) -> None:
    scheduler = sessions.scheduler
    scheduler.open_session(1, "echo")
    assert step(sessions, 1, b"one").status is Status.OK
    scheduler.mark_session(1)
    for number in range(2, 6):
        assert step(sessions, number - 1, b"two").status is Status.OK
        scheduler.revert_session(number - 1, number)
        scheduler.close_session(number - 1)
        assert step(sessions, number, b"three").status is Status.OK
        sessions.run(lambda: scheduler.timeout() is None)
    scheduler.close_session(5)
    sessions.run(lambda: scheduler.timeout() is None)
    assert scheduler._sessions == {}
