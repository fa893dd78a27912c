"""The pool's state machine: which evaluation is where, and what happens when a worker dies.

No I/O of its own beyond the workers' sockets and no clock of its own: a driver calls `readable`, `writable` and
`tick`, one call at a time, and watches the workers it is told of. Every submitted ticket is settled exactly
once.

What survives a worker: everything else. The evaluation that ran when it died is at fault and ends; of the others
it held those that had no effect outside run again elsewhere, unseen, at most `_MOST_ATTEMPTS` times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from wasmeval.errors import ResourceExhausted, SessionLost, SetupError, Unavailable
from wasmeval.model import ErrorInfo, Job, Result, Status, why_unrepeatable
from wasmeval.pool.observer import Observer
from wasmeval.pool.place import Asked, Place
from wasmeval.pool.process import State, WorkerProcess
from wasmeval.pool.settings import PoolSettings
from wasmeval.pool.ticket import Ticket
from wasmeval.session import StatePieces
from wasmeval.wasm.cache import CompiledRuntime
from wasmeval.wasm.calls import Outcome
from wasmeval.worker import exchanges, frames, orders, residents
from wasmeval.worker.frames import Kind

TICK_SECONDS = 0.1
REST_SECONDS = 0.003
"""After so long without work a worker has prepared all the instances it keeps; see wasm/scheduler.py."""
_MISSED_SECONDS = 5 * TICK_SECONDS
_MOST_ATTEMPTS = 3
_MOST_FAILED_STARTS = 3
_EARLY_SECONDS = 1.0
_MOST_EARLY_DEATHS = 8


MOST_STATE_BYTES_BEYOND_MEMORY = 2 << 30
"""What a session's files and their description may take in its state, beside its memory."""
STATE_SECONDS = 30.0
"""For so long a worker that was asked for a session's state may say nothing of it. A GiB takes about one."""
_LOST = "the session's worker died, and what was not stored of the session is lost"


class Watcher(Protocol):
    """What the state machine wants of its driver."""

    def watch(self, worker: WorkerProcess) -> None:
        """Call `readable(worker)` whenever its socket is."""

    def watch_writes(self, worker: WorkerProcess, wanted: bool) -> None:
        """Call `writable(worker)` whenever its socket is, or no longer."""

    def unwatch(self, worker: WorkerProcess) -> None:
        """Forget the worker; its socket is about to close."""

    def changed(self) -> None:
        """A worker became ready, the pool failed, or the last evaluation ended."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """`running` evaluations are with a worker (most may be asleep), `queued` ones wait for a place with one."""

    workers: int
    ready: int
    running: int
    queued: int
    restarts: int


class Pool:
    """The state machine. Not thread-safe; its driver serialises all calls."""

    def __init__(
        self,
        settings: PoolSettings,
        runtimes: Iterable[CompiledRuntime],
        watcher: Watcher,
        observer: Observer,
    ) -> None:
        self._settings = settings
        self._runtimes = list(runtimes)
        self._index = {compiled.runtime.name: index for index, compiled in enumerate(self._runtimes)}
        self._watcher = watcher
        self._observer = observer
        self._workers: list[WorkerProcess] = []
        self._holding: dict[WorkerProcess, dict[int, Ticket]] = {}
        self._living: dict[WorkerProcess, set[Place]] = {}
        self._asked: dict[int, Asked] = {}
        self._dead: list[WorkerProcess] = []
        self._queue: deque[Ticket] = deque()
        self._last_number = 0
        self._held_bytes = 0
        self._restarts = 0
        self._failed_starts = 0
        self._early_deaths = 0
        self._restart_at = 0.0
        self._ticked = monotonic()
        self._accepting = True
        self.failure: SetupError | None = None
        """Why no worker can be started; set while they failed several times in a row."""

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers; `is_ready` tells when they are."""
        while len(self._workers) < self._settings.workers and self._spawn():
            pass

    @property
    def is_ready(self) -> bool:
        """Whether every worker takes evaluations."""
        return bool(self._workers) and all(worker.state is State.READY for worker in self._workers)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is running or queued."""
        return not self._queue and not any(self._holding.values())

    @property
    def takes_sessions(self) -> bool:
        """Whether `open_session` has a worker, or never will: there is nothing to wait for."""
        if self.failure or not self._accepting:
            return True
        return any(worker.state is State.READY for worker in self._workers)

    def jail(self) -> list[list[Any]]:
        """The layers of the jail as a worker found them: [name, holds, detail]; empty before one is ready."""
        return next((worker.jail for worker in self._workers if worker.jail), [])

    def stats(self) -> PoolStats:
        """Counts of now, and restarts since the start."""
        ready = sum(worker.state is State.READY for worker in self._workers)
        running = sum(len(tickets) for tickets in self._holding.values())
        return PoolStats(len(self._workers), ready, running, len(self._queue), self._restarts)

    def refuse(self) -> None:
        """Accept nothing more; what was accepted goes on."""
        self._accepting = False

    def cancel_all(self) -> None:
        """End everything that is queued or running as `cancelled`, and settle it so."""
        error = ErrorInfo("Cancelled", "the evaluation was stopped: its pool is closing")
        tickets = [*self._queue, *(ticket for held in self._holding.values() for ticket in held.values())]
        for ticket in tickets:
            if ticket.job.session and ticket.worker:
                # Whoever asks for the session's state from now on gets what it was before this step.
                self._give_up(ticket)
                self._tell(ticket.worker, frames.encode_number(Kind.CANCEL, ticket.number))
            self._end(ticket, Status.CANCELLED, error)
        self._queue.clear()

    def close(self) -> None:
        """Kill every worker. What was not settled never is: call `cancel_all` first."""
        self._accepting = False
        for worker in self._workers:
            self._watcher.unwatch(worker)
            worker.kill()
        for worker in [*self._workers, *self._dead]:
            worker.process.wait()
        self._workers.clear()
        self._holding.clear()
        for places in self._living.values():
            for place in places:
                place.worker = None
                self._give_up_asked(place)
        self._living.clear()
        self._dead.clear()

    # --- evaluations ---------------------------------------------------------------------------------------------

    def submit(self, job: Job, settle: Callable[[Result | Exception], None]) -> Ticket:
        """Run `job`, or queue it; what its guest says goes to the ticket's `partner`. Raises ResourceExhausted when the
        queue is full, Unavailable when nothing is accepted."""
        if self.failure:
            raise Unavailable(f"no worker can be started: {self.failure}")
        if not self._accepting:
            raise Unavailable("nothing new is accepted: the pool is closing or closed")
        size = job.size
        if self._held_bytes and self._held_bytes + size > self._settings.held_bytes:
            raise ResourceExhausted(
                f"evaluations that wait or run hold {self._held_bytes} bytes of code, inputs and files, of "
                f"{self._settings.held_bytes}; retry later, or send less"
            )
        ticket = Ticket(self._next(), job, settle, monotonic(), size)
        place: Place | None = job.session
        if place is not None and place.worker is None:
            raise SessionLost(_LOST)
        worker = place.worker if place else None if self._queue else self._free_worker()
        if worker:
            self._send(ticket, worker)
        elif len(self._queue) >= self._settings.queue_size:
            raise ResourceExhausted(
                f"the queue is full ({self._settings.queue_size} waiting); retry later, or raise queue_size or workers",
                retry_after_seconds=0.05 + 0.001 * len(self._queue),
            )
        else:
            self._queue.append(ticket)
        self._held_bytes += size
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """The caller is gone: stop the guest. The ticket is never settled."""
        if ticket.worker:
            self._give_up(ticket)
            self._tell(ticket.worker, frames.encode_number(Kind.CANCEL, ticket.number))
        elif ticket in self._queue:
            self._queue.remove(ticket)
            self._release(ticket)
        ticket.settle = None

    def stop(self, ticket: Ticket) -> None:
        """The caller wants no more of it: its ticket is settled with what it came to, as `cancelled`."""
        if ticket.worker:
            self._tell(ticket.worker, frames.encode_number(Kind.CANCEL, ticket.number))
        elif ticket in self._queue:
            self._queue.remove(ticket)
            error = ErrorInfo("Cancelled", "the evaluation was cancelled by its caller before it began")
            self._end(ticket, Status.CANCELLED, error)

    def answer(self, ticket: Ticket, call: int, outcome: Outcome, payload: bytes) -> None:
        """How a call of the guest ended. One that is no longer waited for is of no interest."""
        if ticket.worker and ticket.answered(call):
            ticket.active = monotonic()
            self._tell(ticket.worker, exchanges.encode_answer(ticket.number, call, outcome, payload))

    def feed(self, ticket: Ticket, data: bytes, ended: bool) -> None:
        """Standard input for the guest."""
        if ticket.worker:
            ticket.fed()
            self._tell(ticket.worker, exchanges.encode_input(ticket.number, data, ended))
        elif ticket.settle:
            ticket.input.append((data, ended))

    # --- sessions ------------------------------------------------------------------------------------------------

    def open_session(self, runtime: str, state: StatePieces = ()) -> Place:
        """A place for a session of `runtime`, with `state` or anew. Raises ResourceExhausted when all workers have as
        many as they may, Unavailable when none is ready."""
        if not self._accepting:
            raise Unavailable("nothing new is accepted: the pool is closing or closed")
        ready = [worker for worker in self._workers if worker.state is State.READY]
        if not ready:
            raise Unavailable("no worker is ready; nothing ran, try again")
        worker = min(ready, key=lambda worker: len(self._living[worker]))
        place = self._settle_in(runtime, worker)
        for frame in residents.encode_open(place.number, self._index[runtime], state):
            self._tell(worker, frame)
        return place

    def fork_session(self, place: Place) -> Place:
        """A place for a copy of that session, beside it. Raises SessionLost, ResourceExhausted."""
        worker = _worker_of(place)
        other = self._settle_in(place.runtime, worker)
        self._tell(worker, residents.encode_fork(place.number, other.number))
        return other

    def mark_session(self, place: Place) -> None:
        """Have its worker remember what that session was after its last good step, for `revert_session`. Nothing when
        it is lost."""
        if place.worker is not None:
            self._tell(place.worker, residents.encode_mark(place.number))

    def revert_session(self, place: Place) -> Place:
        """A place for a session that goes on from what that one was when it was last marked, after a step; it is marked
        so itself. Raises SessionLost, ResourceExhausted."""
        worker = _worker_of(place)
        other = self._settle_in(place.runtime, worker)
        self._tell(worker, residents.encode_revert(place.number, other.number))
        return other

    def ask_state(self, place: Place, settle: Callable[[StatePieces | Exception], None]) -> None:
        """`settle` is called with what that session was after its last good step. Raises SessionLost."""
        worker = _worker_of(place)
        number = self._next()
        most = self._settings.max_memory_bytes + MOST_STATE_BYTES_BEYOND_MEMORY
        self._asked[number] = Asked(place, settle, most, monotonic())
        self._tell(worker, residents.encode_tell(place.number, number))

    def close_session(self, place: Place) -> None:
        """End it; a step that still runs is stopped. Safe to call twice."""
        worker, place.worker = place.worker, None
        if worker is None:
            return
        self._living[worker].discard(place)
        self._tell(worker, residents.encode_close(place.number))
        self._give_up_asked(place)

    def _settle_in(self, runtime: str, worker: WorkerProcess) -> Place:
        if len(self._living[worker]) >= self._settings.sessions:
            raise ResourceExhausted(
                f"the workers have as many live sessions as they may ({self._settings.sessions} each); hibernate or "
                "close some, or raise sessions or workers"
            )
        place = Place(self._next(), runtime, worker)
        self._living[worker].add(place)
        return place

    def _give_up_asked(self, place: Place) -> None:
        for number in [number for number, asked in self._asked.items() if asked.place is place]:
            self._asked.pop(number).settle(SessionLost(_LOST))

    def _next(self) -> int:
        self._last_number += 1
        return self._last_number

    # --- what the driver saw -------------------------------------------------------------------------------------

    def readable(self, worker: WorkerProcess) -> None:
        """The worker's socket has something, or is at its end."""
        if worker.state is State.GONE:
            return
        try:
            for kind, body in worker.receive():
                self._handle(worker, kind, body)
                if worker not in self._holding:
                    return  # It said that it failed; whatever else it said is of no interest.
        except EOFError:
            self._lost(worker, "died")
        except frames.MalformedFrame:
            self._lost(worker, "malformed_frame")

    def writable(self, worker: WorkerProcess) -> None:
        """The worker's socket takes more."""
        if worker.state is not State.GONE:
            worker.flush()
            if not worker.wants_write:
                self._watcher.watch_writes(worker, False)

    def tick(self) -> None:
        """Time passed: kill what hangs, replace what died, bury the dead. Call it every TICK_SECONDS while there is
        work."""
        now = monotonic()
        # Time in which this process did not run (a suspended machine, a debugger) is not the workers' fault.
        missed, self._ticked = now - self._ticked, now
        for worker in list(self._workers):
            if missed > _MISSED_SECONDS:
                worker.heard = max(worker.heard, now)
                for asked in self._asked.values():
                    asked.heard = now
            elif worker.state is State.STARTING:
                if now - worker.started > self._settings.start_seconds:
                    self._lost(worker, "start_failed")
            elif self._hangs(worker, now):
                self._lost(worker, "hung")
        self._dead = [worker for worker in self._dead if not worker.reaped()]
        if self._accepting and now >= self._restart_at:
            self.start()

    # --- inside --------------------------------------------------------------------------------------------------

    def _hangs(self, worker: WorkerProcess, now: float) -> bool:
        """Whether the worker's guest is past its deadline and still runs.

        The worker itself says which guest runs and until when. Should it lie, or not run at all: of all that it holds
        something has to end within the longest deadline.
        """
        if any(
            asked.place.worker is worker and now - asked.heard > STATE_SECONDS
            for asked in self._asked.values()
        ):
            return True
        held = self._holding[worker]
        if not held:
            return False
        grace = self._settings.grace_seconds
        if worker.overdue_seconds(now) > grace:
            return True
        active = [ticket for ticket in held.values() if not ticket.stands_still]
        if not active:
            return False
        silent = now - max(worker.heard, min(ticket.active for ticket in active)) - grace
        return silent > 0 and silent > max(ticket.job.limits.deadline_seconds or 0 for ticket in active)

    def _handle(self, worker: WorkerProcess, kind: int, body: bytes) -> None:
        if kind == Kind.RESULT and worker.state is State.READY:
            number = frames.result_number(body)
            ticket = self._holding[worker].get(number)
            if ticket is None:
                raise frames.MalformedFrame("a result nobody waits for")
            result = frames.decode_result(body, ticket.job)
            del self._holding[worker][number]
            worker.answered = worker.heard = monotonic()
            result = ticket.complete(result)
            if place := ticket.job.session:
                self._hear_step(ticket, place, result)
            self._settle(ticket, result)
            if self._queue:
                self._dispatch()
            elif not self._accepting and self.is_idle:
                self._watcher.changed()
        elif kind == Kind.CALL and worker.state is State.READY:
            number, call, operation, body = exchanges.decode_call(body)
            self._held(worker, number).called(call, operation, body)
            worker.heard = monotonic()
        elif kind == Kind.OUTPUT and worker.state is State.READY:
            number, stream, body = exchanges.decode_output(body)
            self._held(worker, number).printed(stream, body)
        elif kind == Kind.OUTPUT_FILE and worker.state is State.READY:
            number, path, body, _ = exchanges.decode_output_file(body)
            self._keep_file(self._held(worker, number), path, body)
            worker.heard = monotonic()
        elif kind == Kind.TRANSCRIPT and worker.state is State.READY:
            number, body = exchanges.decode_transcript(body)
            ticket = self._held(worker, number)
            ticket.keep_transcript(body)
            self._count(ticket, len(body))
            worker.heard = monotonic()
        elif kind == Kind.SESSION_STATE and worker.state is State.READY:
            self._hear_state(worker, body)
        elif kind == Kind.READY and worker.state is State.STARTING:
            worker.state = State.READY
            worker.ready = monotonic()
            worker.jail = frames.decode_jail(body)
            self._failed_starts = 0
            self.failure = None
            self._dispatch()
            self._watcher.changed()
        elif kind == Kind.FAILED and worker.state is State.STARTING:
            self._start_failed(worker, body[:1000].decode("utf-8", "replace"))
        elif kind == Kind.FAILED:
            self._lost(worker, "died")
        else:
            raise frames.MalformedFrame(f"kind {kind} in state {worker.state.value}")

    def _give_up(self, ticket: Ticket) -> None:
        """Nobody waits for it any more: if it is a session's step, what it has spent is left at its place."""
        if ticket.settle and ticket.job.session:
            ticket.job.session.given_up += 1

    def _hear_step(self, ticket: Ticket, place: Place, result: Result) -> None:
        """A session's step has ended, whether or not anybody still waits for it."""
        if ticket.settle is None:
            place.given_up -= 1
        if ticket.settle is None and result.rolled_back:
            # No more than it was given, whatever is said.
            place.unheard_fuel += min(result.usage.fuel, ticket.job.limits.fuel or 0)
        else:
            place.ended = ticket.job, result

    def _hear_state(self, worker: WorkerProcess, body: bytes) -> None:
        number, piece, is_last = residents.decode_state(body)
        asked = self._asked.get(number)
        if asked is None:
            if number > self._last_number:
                raise frames.MalformedFrame("a state that nobody asked for")
            return  # Its session was closed meanwhile.
        if asked.place.worker is not worker:
            raise frames.MalformedFrame("the state of a session that the worker does not have")
        asked.add(piece)
        # A piece of nothing is no sign of life, nor is a state that nobody waits for: they would be free to a liar.
        if piece or is_last:
            asked.heard = worker.heard = monotonic()
        if is_last:
            del self._asked[number]
            asked.settle([piece for piece in asked.pieces if piece])

    def _keep_file(self, ticket: Ticket, path: str, data: bytes) -> None:
        ticket.keep_file(path, data)
        self._count(ticket, len(data))
        if self._held_bytes > self._settings.held_bytes:
            self._count(ticket, -ticket.drop_files())

    def _count(self, ticket: Ticket, more: int) -> None:
        ticket.size += more
        self._held_bytes += more

    def _held(self, worker: WorkerProcess, number: int) -> Ticket:
        ticket = self._holding[worker].get(number)
        if ticket is None:
            raise frames.MalformedFrame("word of an evaluation that the worker does not hold")
        return ticket

    def _free_worker(self) -> WorkerProcess | None:
        """The ready worker that holds least, if one has room.

        Among equals the last one used, whose code and data are still in the CPU's caches, as long as its stock of
        prepared instances lasts; then the one left alone longest. `_workers` is kept in order of use.
        """
        best = None
        least = self._settings.concurrency
        for worker in self._workers:
            held = len(self._holding[worker])
            if worker.state is State.READY and (
                held < least
                or (held == least and best is not None and worker.streak < self._settings.ready - 1)
            ):
                best, least = worker, held
        if best is None:
            return None
        if best is not self._workers[-1]:
            self._workers.remove(best)
            self._workers.append(best)
            best.streak = 0
        elif monotonic() - best.answered > REST_SECONDS:
            best.streak = 0
        best.streak += 1
        return best

    def _dispatch(self) -> None:
        while self._queue:
            worker = self._free_worker()
            if worker is None:
                return
            self._send(self._queue.popleft(), worker)

    def _send(self, ticket: Ticket, worker: WorkerProcess) -> None:
        held = self._holding[worker]
        now = monotonic()
        ticket.worker = worker
        ticket.active = now
        ticket.attempts += 1
        if not held:
            worker.heard = now
        held[ticket.number] = ticket
        self._observer.queue_wait(ticket.job.runtime, now - ticket.submitted)
        job = ticket.job
        for frame in orders.encode_files(ticket.number, job):
            self._tell(worker, frame)
        translator = self._index[job.translator] if job.translator else None
        for piece in orders.encode_order(ticket.number, self._index[job.runtime], translator, job):
            self._tell(worker, piece)
        waiting, ticket.input = ticket.input, []
        for data, ended in waiting:
            self.feed(ticket, data, ended)

    def _tell(self, worker: WorkerProcess, frame: bytes | memoryview) -> None:
        if worker.state is State.GONE:
            return
        worker.send(frame)
        if worker.wants_write:
            self._watcher.watch_writes(worker, True)

    def _lost(self, worker: WorkerProcess, reason: str) -> None:
        """A worker is no more, or must not be: settle what it was running, run the rest elsewhere, replace it."""
        if worker.state is State.STARTING:
            self._start_failed(worker, f"it {reason} before it was ready")
            return
        held = list(self._remove(worker).values())
        blamed = worker.blamed
        self._restarts += 1
        self._observer.worker_restarted(reason)
        again = []
        for ticket in held:
            if (
                ticket.number == blamed
                or ticket.bound
                or ticket.job.session
                or ticket.attempts >= _MOST_ATTEMPTS
            ):
                self._fail(ticket, reason, ticket.number == blamed)
            elif ticket.settle:
                ticket.worker = None
                self._count(ticket, -ticket.forget_files())
                again.append(ticket)
            else:
                self._release(ticket)
        self._queue.extendleft(reversed(again))
        self._early_deaths = self._early_deaths + 1 if monotonic() - worker.ready < _EARLY_SECONDS else 0
        if self._early_deaths > _MOST_EARLY_DEATHS:
            # Something kills them all at once; `tick` starts the next, later and later.
            self._restart_at = monotonic() + 0.1 * 2 ** min(self._early_deaths - _MOST_EARLY_DEATHS, 6)
        elif self._accepting or again:
            self._spawn()
        self._dispatch()
        self._watcher.changed()

    def _fail(self, ticket: Ticket, reason: str, at_fault: bool) -> None:
        if ticket.job.session:
            fault = (
                "while it ran this step" if at_fault else "while it held this step, which was not at fault"
            )
            text = f"the worker was lost ({reason}) {fault}, and the live session with it"
            self._end(ticket, Status.CRASHED, ErrorInfo("Crashed", text))
            return
        if not at_fault and ticket.bound:
            text = (
                f"the worker was lost ({reason}) while it held this evaluation, which was not at fault; as it had "
                "called, printed or read something, it was not run again"
            )
            self._end(ticket, Status.CRASHED, ErrorInfo("Crashed", text))
        elif not at_fault:
            text = f"{ticket.attempts} workers were lost while they held this evaluation; it was not at fault"
            self._end(ticket, Status.CRASHED, ErrorInfo("Crashed", text))
        elif reason == "hung":
            deadline = ticket.job.limits.deadline_seconds
            text = f"the deadline of {deadline:g} s passed, and the guest was killed with its worker"
            self._end(ticket, Status.DEADLINE_EXCEEDED, ErrorInfo("DeadlineExceeded", text))
        else:
            text = f"the worker was lost ({reason}) while it ran this evaluation"
            self._end(ticket, Status.CRASHED, ErrorInfo("Crashed", text))

    def _end(self, ticket: Ticket, status: Status, error: ErrorInfo) -> None:
        """Settle it with a Result of ours, which no guest gave."""
        job = ticket.job
        # A step that its worker did not answer has not been, unless the worker is gone: then its owner knows.
        rolled_back = job.session is not None and not job.session.is_lost
        self._settle(
            ticket,
            Result(
                status,
                error=error,
                limits=job.limits,
                runtime=job.runtime,
                rolled_back=rolled_back,
                unrepeatable=why_unrepeatable(status) if job.world else "",
            ),
        )

    def _settle(self, ticket: Ticket, outcome: Result | Exception) -> None:
        """It is over: tell whoever waits for it, if anyone does. A second time does nothing."""
        settle, ticket.settle = ticket.settle, None
        ticket.worker = None
        self._release(ticket)
        if settle:
            settle(outcome)

    def _release(self, ticket: Ticket) -> None:
        """It is over, or nobody waits for it: it no longer counts."""
        self._held_bytes -= ticket.size
        ticket.size = 0

    def _start_failed(self, worker: WorkerProcess, why: str) -> None:
        self._remove(worker)
        self._not_started(why)

    def _not_started(self, why: str) -> None:
        self._failed_starts += 1
        self._observer.worker_restarted("start_failed")
        if self._failed_starts >= _MOST_FAILED_STARTS and not any(
            w.state is State.READY for w in self._workers
        ):
            self.failure = SetupError(f"workers cannot be started: {why}")
            for ticket in self._queue:
                self._settle(ticket, Unavailable(f"no worker can be started: {why}"))
            self._queue.clear()
        self._restart_at = monotonic() + 0.1 * 2 ** min(self._failed_starts, 6)
        self._watcher.changed()

    def _remove(self, worker: WorkerProcess) -> dict[int, Ticket]:
        """What it held. Ctrl-C may have cut a first attempt short, anywhere in it: this one does the rest."""
        self._watcher.unwatch(worker)
        worker.kill()
        if worker not in self._dead:
            self._dead.append(worker)
        if worker in self._workers:
            self._workers.remove(worker)
        for place in self._living.pop(worker, ()):
            place.worker = None
            self._give_up_asked(place)
        return self._holding.pop(worker, {})

    def _spawn(self) -> bool:
        """Start one more worker; False when the system does not let us now."""
        settings = self._settings
        configuration = {
            "runtimes": [
                {
                    "folder": str(compiled.runtime.image.path.parent),
                    "module": str(compiled.module),
                    "library": str(compiled.library) if compiled.library else "",
                }
                for compiled in self._runtimes
            ],
            "concurrency": settings.concurrency,
            "ready": settings.ready,
            "sessions": settings.sessions,
            "slice_seconds": settings.slice_seconds,
            "memory_bytes": settings.worker_memory_bytes,
            "max_memory_bytes": settings.max_memory_bytes,
            "require_jail": settings.require_jail,
        }
        try:
            worker = WorkerProcess.spawn(configuration, monotonic())
        except OSError as error:
            self._not_started(str(error))
            return False
        self._workers.append(worker)
        self._holding[worker] = {}
        self._living[worker] = set()
        self._watcher.watch(worker)
        return True


def _worker_of(place: Place) -> WorkerProcess:
    if place.worker is None:
        raise SessionLost(_LOST)
    return place.worker
