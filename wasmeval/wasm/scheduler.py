"""Scheduler: the fibers of one worker. New evaluations first, then the long ones in turn, a slice each.

One thread, no locks: `submit`, `cancel`, `answer` and `feed` note what is wanted or has come, `step` runs one guest
for one slice or does one piece of idle work, and whatever an evaluation says goes to the `Outlet`. A guest is in
exactly one of four places: `_first` (not yet started, or just woken), `_rotation` (used up a slice and wants another),
`_parked` (the same, while the rotation is full), or waiting (in `_timers` only, until its wake, its deadline, or what
it waits for). One that is over may have files to send: they go a piece a step, between the slices of others.

The rotation is short so that many long evaluations end one after the other, each within its deadline, and not all
together past it: a parked one's clock stands still.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic, monotonic_ns
from typing import NamedTuple

from wasmeval.limits import MIB, MOST_MEMORY_BYTES
from wasmeval.model import TOO_LONG, Result, Status
from wasmeval.wasm.calls import FOREVER, Outcome
from wasmeval.wasm.delivery import Delivery
from wasmeval.wasm.instance import Image, Instance, Trapped
from wasmeval.wasm.order import FILE_PIECE_BYTES, Order
from wasmeval.wasm.pages import Pagemap
from wasmeval.wasm.progress import Progress
from wasmeval.wasm.results import Ending
from wasmeval.wasm.session import Session
from wasmeval.wasm.state import MalformedState
from wasmeval.wasm.state import decode as decode_state
from wasmeval.wasm.state import encode as encode_state
from wasmeval.wasm.task import Outlet, Task

ROTATION = 8
"""How many evaluations that need more than a slice take turns; the others of that kind are parked."""

LOW_STOCK = 1
REST_SECONDS = 0.002
"""Instances are prepared when so few are left, or after so long without an end. Measured: see bench, `grpc`."""

FIRST_IN_A_ROW = 8
"""How many new evaluations go before one that is already running, so that a flood of small ones cannot starve it."""

_MOST_SPENT = 16
"""So much that is done with waits for a rest."""

_LARGE_BYTES = 16 * MIB
"""What grew by more is dropped at once, and not when there is time."""

_BAD_ENDS = {Status.CRASHED, Status.MEMORY_EXCEEDED}
"""Replies after which a session goes back to where it was before the step."""

_NEVER = float("inf")

_LARGE_ANSWER_BYTES = 65536
"""Answers up to this size are accounted for with the guest's next slice."""


class SchedulerSettings(NamedTuple):
    """`slice_seconds`: how long one guest runs before the next; `ready`: prepared instances kept for each runtime;
    `memory_bytes`: what all guests together may have grown by before the largest of them is ended."""

    slice_seconds: float = 0.001
    ready: int = 4
    memory_bytes: int = 2048 * MIB


class Scheduler:
    """Runs evaluations on the images it is given; `outlet` gets one result for each that was submitted."""

    def __init__(
        self,
        images: Mapping[str, Image],
        outlet: Outlet,
        settings: SchedulerSettings | None = None,
        progress: Progress | None = None,
        pagemap: Pagemap | None = None,
    ) -> None:
        self._images = images
        self._progress = Progress() if progress is None else progress
        self._outlet = outlet
        self._settings = settings or SchedulerSettings()
        self._tasks: dict[int, Task] = {}
        self._first: deque[Task] = deque()
        self._rotation: deque[Task] = deque()
        self._parked: deque[Task] = deque()
        self._timers: list[tuple[float, int, Task]] = []
        self._ready: dict[str, list[Instance]] = {name: [] for name in images}
        self._wanted = list(images)
        self._spent: list[Instance | Session] = []
        self._deliveries: dict[int, Delivery] = {}
        self._pagemap = pagemap
        self._sessions: dict[int, Session] = {}
        self._delivering: dict[int, Session] = {}
        """Whose steps have ended well and whose files are still to be sent, by the number of the step."""
        self._unkept: deque[Session] = deque()
        """Sessions whose last step is still to be kept."""
        self._stepped: Session | None = None
        """The session whose step ended last, if that was the last end: its next step may be about to come."""
        self._first_in_a_row = 0
        self._sequence = 0
        self._grown_bytes = 0
        self._ended = 0.0
        self._tidying = True

    # --- asking --------------------------------------------------------------------------------------------------

    def submit(self, order: Order) -> None:
        """Queue an evaluation under its number, which must not be in use. Its deadline counts from its start."""
        session = self._sessions[order.session] if order.session else None
        task = Task(order, self._images[order.translator or order.runtime], self._outlet, session)
        self._tasks[order.number] = task
        self._first.append(task)
        if order.grants is not None or order.world is not None:
            self._account(task)

    def cancel(self, number: int) -> None:
        """End an evaluation now, wherever it is; unknown numbers are those that ended meanwhile."""
        task, delivery = self._tasks.get(number), self._deliveries.pop(number, None)
        if task:
            self._end(task, self._ending(task).cancelled(), gives_files=False)
        elif delivery:
            self._grown_bytes -= delivery.held_bytes
            session = self._delivering.pop(number, None)
            delivery.cancel(rolled_back=session is not None)
            if session and (instance := self._leave(session, is_good=False)):
                self._drop(instance)

    def answer(self, number: int, call: int, outcome: Outcome, payload: bytes) -> None:
        """A call of an evaluation has ended; one that is over by now does not need it."""
        task = self._tasks.get(number)
        if task is None:
            return
        if task.answer(call, outcome, payload):
            self._wake(task)
        if len(payload) > _LARGE_ANSWER_BYTES:
            self._account(task)

    def feed(self, number: int, data: bytes, ended: bool) -> None:
        """Input of an evaluation has come, or its end."""
        task = self._tasks.get(number)
        if task is None:
            return
        if task.feed(data, ended):
            self._wake(task)
        self._account(task)

    # --- sessions ------------------------------------------------------------------------------------------------

    def open_session(self, number: int, runtime: str, state: bytearray | None = None) -> None:
        """Begin a session, or go on with one that `state` is the bytes of. A state that is none leaves a session whose
        steps crash."""
        assert self._pagemap is not None
        image = self._images[runtime]
        mirror, broken = None, ""
        try:
            mirror = decode_state(state, image, MOST_MEMORY_BYTES) if state else None
        except MalformedState as error:
            broken = str(error)
        self._sessions[number] = Session(image, self._pagemap, mirror, broken)

    def fork_session(self, number: int, other: int) -> None:
        """Begin session `other` with what session `number` was after its last good step."""
        self._sessions[other] = self._sessions[number].fork()

    def mark_session(self, number: int) -> None:
        """Remember what a session was after its last good step, in place of what was remembered of it."""
        self._sessions[number].mark()

    def revert_session(self, number: int, other: int) -> None:
        """Begin session `other` with what session `number` was when it was marked. It is marked itself."""
        self._sessions[other] = self._sessions[number].revert()

    def tell_state(self, number: int, asked: int) -> None:
        """Send the bytes of what a session was after its last good step, none before its first; see Outlet."""
        session = self._sessions[number]
        mirror, image = session.mirror(), session.image.runtime
        pieces = encode_state(mirror, image.initial_memory_bytes) if mirror is not None else ()
        self._outlet.state(asked, pieces)

    def close_session(self, number: int) -> None:
        """Drop a session; a step of it that still runs is cancelled."""
        session = self._sessions.pop(number)
        running = [task.number for task in self._tasks.values() if task.session is session]
        for number in running + [number for number, each in self._delivering.items() if each is session]:
            self.cancel(number)
        if session in self._unkept:
            self._unkept.remove(session)
        if self._stepped is session:
            self._stepped = None
        if session.grown_bytes > _LARGE_BYTES or len(self._spent) >= _MOST_SPENT:
            session.close()
        else:
            self._spent.append(session)

    @property
    def pressing(self) -> bool:
        """Whether an evaluation waits for its first slice, or to go on after a wait."""
        return bool(self._first)

    def timeout(self) -> float | None:
        """Seconds until there is something to do; None when only a new evaluation could bring it."""
        if self._first or self._rotation or self._parked or self._deliveries:
            return 0.0
        # poll(2) takes no more than 24 days.
        if self._unkept:
            return 0.0
        due = [min(max(0.0, self._timers[0][0] - monotonic()), 3600.0)] if self._timers else []
        if self._spent or self._wanted:
            due.append(self._chores_in())
        return min(due, default=None)

    # --- doing ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Run the guest whose turn it is for one slice, or, when none wants to run, prepare for the next."""
        if self._timers:
            self._expire(monotonic())
        if self._parked and len(self._rotation) < ROTATION:
            self._unpark(self._parked.popleft())
        if self._first and not (self._rotation and self._is_anothers_turn(self._first[0])):
            self._first_in_a_row += 1
            task = self._first.popleft()
            if task.instance:
                self._slice(task)
            else:
                self._start(task)
        elif self._rotation:
            self._first_in_a_row = 0
            self._slice(self._rotation.popleft())
            # Where somebody always wants to run there is no idle time, and instances still have to be prepared.
            self._prepare_one()
        elif self._unkept:
            self._unkept.popleft().keep()
        elif self._chores_in() == 0.0:
            self._prepare_one()
        if self._deliveries:
            self._deliver()

    def close(self) -> None:
        """Drop every instance; evaluations under way are not delivered."""
        for task in self._tasks.values():
            if task.instance:
                task.instance.close()
        for instances in self._ready.values():
            for instance in instances:
                instance.close()
        for session in self._sessions.values():
            session.close()
        self._drop_spent()

    # --- inside --------------------------------------------------------------------------------------------------

    def _is_anothers_turn(self, task: Task) -> bool:
        """Whether one of the rotation goes before `task`, which is first in `_first`."""
        if self._first_in_a_row >= FIRST_IN_A_ROW:
            return True
        # Those that run already hold much memory: let them end before a further one begins.
        return task.instance is None and 2 * self._grown_bytes > self._settings.memory_bytes

    def _chores_in(self) -> float:
        """Seconds until dropping and preparing instances should begin, or go on.

        At once while instances are short; otherwise when nothing ended for a while. Whoever waits for the answer, and
        what comes next, then has the CPU for itself, and chores done together find the caches warm. Between the steps
        of a session, which need none, instances are short when there is none.
        """
        if (self._tidying and self._stepped is None) or len(self._spent) >= _MOST_SPENT:
            return 0.0
        enough = LOW_STOCK if self._stepped is None else 0
        if any(len(self._ready[name]) <= enough for name in self._wanted):
            return 0.0
        return max(0.0, self._ended + REST_SECONDS - monotonic())

    def _start(self, task: Task) -> None:
        if task.over:
            return
        task.started = monotonic()
        assert task.limits.deadline_seconds
        task.deadline = task.started + task.limits.deadline_seconds
        self._enter(task)

    def _enter(self, task: Task) -> None:
        """Give the task an instance of its image, and run it for the first time."""
        session = None if task.order.translator else task.session
        try:
            if session is not None:
                task.instance = session.enter(lambda: self._fresh(task.image))
            else:
                task.instance = self._fresh(task.image)
            task.start()
        except Trapped as trap:
            self._end(task, self._ending(task).trapped(trap))
            return
        self._slice(task)

    def _fresh(self, image: Image) -> Instance:
        """A prepared instance. Raises Trapped."""
        name = image.runtime.name
        stock = self._ready[name]
        if stock:
            instance = stock.pop()
        else:
            self._drop_spent()
            instance = Instance(image)
        if name not in self._wanted:
            self._wanted.append(name)
        return instance

    def _slice(self, task: Task) -> None:
        if task.over:
            return
        instance = task.instance
        assert instance is not None
        now = monotonic()
        if task.deadline <= now:
            self._end(task, self._ending(task).deadline())
            return
        self._progress.deadline_ns = int(task.deadline * 1e9)
        self._progress.number = task.number
        try:
            done = instance.poll(now + 2 * self._settings.slice_seconds)
        except Trapped as trap:
            self._end(task, self._ending(task).trapped(trap))
            return
        finally:
            self._progress.number = 0
        if done:
            self._finish(task)
            return
        task.flush()
        if instance.wake is None:
            self._again(task)
        else:
            self._rest(task)
        # Its first slice was not enough: from now on its deadline has a timer.
        self._arm(task)
        self._account(task)

    def _finish(self, task: Task) -> None:
        """The guest has replied: that is the result, or the code that another one is to run."""
        if task.order.translator:
            translated = task.take_translation()
            if translated is not None:
                self._spent.append(translated)
                task.image = self._images[task.order.runtime]
                self._enter(task)
                return
        result = self._ending(task).replied()
        self._end(task, result, is_good=result.status not in _BAD_ENDS)

    def _rest(self, task: Task) -> None:
        """The guest waits: see to it that it goes on when it can."""
        instance, calls = task.instance, task.calls
        assert instance is not None
        assert instance.wake is not None
        asked, instance.asked = instance.asked, None
        if asked is not None and asked.request is not None:
            assert calls is not None
            task.asked = calls.ask(asked.request)
        elif asked is not None:
            assert calls is not None
            task.awaits_input = True
            calls.want_input()
        if (
            calls is not None
            and not task.paused
            and not task.order.tool_time_counts
            and calls.waits_for_tools
        ):
            task.paused = monotonic()

    def _wake(self, task: Task) -> None:
        """What the guest waits for is there: it goes on, behind those that are new."""
        assert task.instance is not None
        if task.paused:
            self._shift(task, monotonic() - task.paused)
            task.paused = 0.0
        task.instance.resume()
        self._first.append(task)

    def _shift(self, task: Task, seconds: float) -> None:
        """The task's clock stood still for so long."""
        task.started += seconds
        task.deadline += seconds

    def _again(self, task: Task) -> None:
        """It wants another slice: into the rotation, or parked until there is room."""
        if len(self._rotation) < ROTATION:
            self._rotation.append(task)
        else:
            task.parked = monotonic()
            self._parked.append(task)

    def _unpark(self, task: Task) -> None:
        if task.over:
            return
        stood_still, task.parked = monotonic() - task.parked, 0.0
        self._shift(task, stood_still)
        self._arm(task)
        self._rotation.append(task)

    def _expire(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            when, _, task = heapq.heappop(self._timers)
            if when == task.armed:
                task.armed = _NEVER
            if task.over or task.parked:
                continue
            if task.deadline <= now and not task.paused:
                self._end(task, self._ending(task).deadline())
            elif task.instance and task.instance.wake is not None:
                self._look_after(task, now)
            else:
                self._arm(task)

    def _look_after(self, task: Task, now: float) -> None:
        """A timer of a task that waits has gone off; it may be an older one."""
        instance, calls = task.instance, task.calls
        assert instance is not None
        assert instance.wake is not None
        if calls is not None:
            calls.expire(now)
            if calls.is_satisfied:
                self._wake(task)
                return
        if instance.wake <= monotonic_ns():
            # Behind the new ones: who wakes all the time must not keep them out.
            self._wake(task)
        else:
            self._arm(task)

    def _arm(self, task: Task) -> None:
        """See to it that a timer goes off no later than the task has to be looked after.

        One that goes off too early costs a look; so a task that waits again and again has few, however often.
        """
        instance, calls = task.instance, task.calls
        when = _NEVER if task.paused else task.deadline
        if instance is not None and instance.wake is not None:
            if instance.wake != FOREVER:
                when = min(when, instance.wake / 1e9)
            if calls is not None and (due := calls.next_due) is not None:
                when = min(when, due)
        if when < task.armed:
            task.armed = when
            self._at(when, task)

    def _at(self, when: float, task: Task) -> None:
        if len(self._timers) > 64 + 4 * len(self._tasks):
            # Those of evaluations that are over, or that have an earlier one, would stay until they go off.
            self._timers = [
                timer for timer in self._timers if timer[2].armed == timer[0] and not timer[2].over
            ]
            heapq.heapify(self._timers)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, task))

    def _account(self, task: Task) -> None:
        """Keep count of what all guests grew by; over the budget the largest one ends."""
        grown = task.held_bytes()
        self._grown_bytes += grown - task.grown_bytes
        task.grown_bytes = grown
        if self._grown_bytes > self._settings.memory_bytes:
            largest = max(self._tasks.values(), key=lambda each: each.grown_bytes)
            self._end(largest, self._ending(largest).evicted(self._settings.memory_bytes), gives_files=False)

    def _ending(self, task: Task) -> Ending:
        # While it is paused its clock stands still.
        seconds = (task.paused or monotonic()) - task.started if task.started else 0.0
        return Ending(
            task.instance,
            task.limits,
            seconds,
            task.order.runtime,
            task.tool_calls,
            task.spent_fuel,
            task.lines,
            task.world.elapsed_ns() if task.world and task.instance else 0,
            task.order.world is not None,
        )

    def _end(self, task: Task, result: Result, *, gives_files: bool = True, is_good: bool = False) -> None:
        """It is over. `gives_files`: it may keep its files until they are sent, and its result waits for that.
        `is_good`: a session whose step it was goes on with its instance."""
        session = task.session
        if session is not None and not is_good:
            result = replace(result, rolled_back=True)
        task.over = True
        self._ended = monotonic()
        self._stepped = session
        del self._tasks[task.number]
        self._grown_bytes -= task.grown_bytes
        task.flush()
        result = self._told(task, result)
        found = task.found_files() if gives_files else None
        task.let_go()
        if found is None:
            self._outlet.result(task.number, result)
        else:
            assert task.instance is not None
            if result.array is not None:
                result.array.freeze()
            held = task.instance.wasi.workspace_bytes
            self._grown_bytes += held
            self._deliveries[task.number] = Delivery(task.number, self._outlet, result, found, held)
            if session is not None and session.runs and is_good:
                # Until they are sent the step can still be cancelled, and has then not been.
                self._delivering[task.number] = session
                task.instance = None
                return
        instance, task.instance = task.instance, None
        if session is not None and session.runs:
            instance = self._leave(session, is_good)
        if instance is not None:
            self._drop(instance)

    def _told(self, task: Task, result: Result) -> Result:
        """The result, once the transcript of a deterministic evaluation is on its way."""
        recorder = task.recorder
        if recorder is None:
            return result
        if recorder.is_too_long:
            return replace(result, unrepeatable=TOO_LONG)
        data = recorder.data
        for start in range(0, len(data), FILE_PIECE_BYTES):
            self._outlet.transcript(task.number, data[start : start + FILE_PIECE_BYTES])
        return result

    def _leave(self, session: Session, is_good: bool) -> Instance | None:
        """The session's step is over; after a bad one its instance is given back, to be dropped."""
        if is_good:
            self._unkept.append(session)
        return session.leave(is_good)

    def _drop(self, instance: Instance) -> None:
        if instance.memory_bytes() - instance.image.runtime.initial_memory_bytes > _LARGE_BYTES:
            instance.close()
        else:
            self._spent.append(instance)

    def _deliver(self) -> None:
        """Send a piece of the files whose turn it is, of an evaluation that is over."""
        number = next(iter(self._deliveries))
        delivery = self._deliveries.pop(number)
        if delivery.go_on():
            self._grown_bytes -= delivery.held_bytes
            if session := self._delivering.pop(number, None):
                self._leave(session, is_good=True)
        else:
            self._deliveries[number] = delivery

    def _prepare_one(self) -> None:
        """Drop what is spent, or prepare one instance of a runtime that was used, if there is such a thing to do."""
        self._tidying = True
        if self._spent:
            self._drop_spent()
        elif self._wanted:
            name = self._wanted[0]
            stock = self._ready[name]
            if len(stock) < self._settings.ready:
                stock.append(Instance(self._images[name]))
            if len(stock) >= self._settings.ready:
                self._wanted.pop(0)
        self._tidying = bool(self._spent or self._wanted)

    def _drop_spent(self) -> None:
        for each in self._spent:
            each.close()
        self._spent.clear()
