"""Recorded: the host calls of a deterministic evaluation, written down as they happen, or answered from what was
written.

What comes from outside comes when it likes. A guest that is to be repeatable therefore sees an answer when it waits,
and no earlier: what is open to it until then, and which answer a wait is served, is all that a repetition has to
know.
"""

from __future__ import annotations

from time import monotonic_ns

from wasmeval.grants import Grants
from wasmeval.limits import Limits
from wasmeval.transcript import Event, Kind, MalformedTranscript, Player, Recorder
from wasmeval.wasm.calls import (
    FOREVER,
    NOTHING_UNDER_WAY,
    Calls,
    Operation,
    Outcome,
    Send,
    Waiting,
)
from wasmeval.wasm.stdin import Stdin
from wasmeval.wasm.world import FixedWorld

ANSWER_NS = 1_000_000
"""How far an answer sets the guest's clock forward, however long it took: who asks again and again until it is late
comes to an end, and each time at the same place."""

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_BEGINNINGS = (Operation.CALL, Operation.HTTP, Operation.READ)


class Diverged(Exception):
    """The guest does what it did not do when the transcript was written."""

    def __init__(self, count: int, what: str) -> None:
        super().__init__(f"event {count + 1} of the transcript: {what}")


class RecordedCalls(Calls):
    """As Calls, and `recorder` is told."""

    def __init__(
        self, grants: Grants, limits: Limits, send: Send, world: FixedWorld, recorder: Recorder
    ) -> None:
        super().__init__(grants, limits, send)
        self._world = world
        self._recorder = recorder
        self._arrived: dict[int, tuple[Outcome, bytes]] = {}
        """What came and was not seen by the guest yet."""
        self._timeout = 0
        """Of the wait under way, in nanoseconds."""

    @property
    def is_satisfied(self) -> bool:
        """See Calls."""
        waiting = self.waiting
        if waiting is None:
            return False
        return waiting.call in self._arrived if waiting.call else bool(self._arrived)

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> Operation | None:
        """See Calls."""
        operation = self._open.get(call)
        if operation is None or call in self._arrived:
            return None
        self._due.pop(call, None)
        self._arrived[call] = outcome, payload
        self.held_bytes += len(payload)
        return operation

    def expire(self, now: float) -> None:
        """See Calls."""
        for call in [call for call, due in self._due.items() if due <= now]:
            self.answer(call, Outcome.LIMIT, self._too_slow())
            self._pass_on(call, Operation.DROP, b"")

    def take(self) -> bytes:
        """See Calls."""
        waiting, self.waiting = self.waiting, None
        if waiting is None:
            return b""
        if (waiting.call in self._arrived) if waiting.call else self._arrived:
            return self._serve(waiting.call or next(iter(self._arrived)), waiting.call)
        self._recorder.passed()
        self._world.pass_time(self._timeout)
        return b""

    def _drop(self, number: int) -> bytes:
        self._forget(number)
        return super()._drop(number)

    def _wait(self, timeout: int, call: int) -> bytes | int | Waiting:
        if call in self._ended or (not call and self._ended):
            return self._take(call)
        if call not in self._open if call else not self._open:
            if call or timeout < 0:
                return NOTHING_UNDER_WAY
            self._world.pass_time(timeout)
            return b""
        return self._wait_for(timeout, call)

    def _wait_for(self, timeout: int, call: int) -> bytes | Waiting:
        """The guest waits for what is under way."""
        if (call in self._arrived) if call else self._arrived:
            return self._serve(call or next(iter(self._arrived)), call)
        if timeout == 0:
            self._recorder.passed()
            return b""
        self._timeout = timeout
        self.waiting = Waiting(FOREVER if timeout < 0 else min(monotonic_ns() + timeout, FOREVER), call)
        return self.waiting

    def _send(self, call: int, operation: int, body: bytes) -> None:
        if operation in _BEGINNINGS:
            self._recorder.add(Kind.BEGAN, body, call, operation)
        super()._send(call, operation, body)

    def _serve(self, call: int, wanted: int) -> bytes:
        """Let the guest, which waits for `wanted`, see the answer to `call`."""
        outcome, payload = self._arrived[call]
        self._forget(call)
        self._recorder.add(Kind.ANSWERED, payload, call, outcome)
        self._world.pass_time(ANSWER_NS)
        self._see(call, outcome, payload)
        return self._take(wanted)

    def _see(self, call: int, outcome: Outcome, payload: bytes) -> None:
        if outcome is Outcome.LIMIT:
            # Ours, and not to be measured by the limits on answers.
            self._open.pop(call, None)
            self._keep(call, outcome, payload)
        else:
            super().answer(call, outcome, payload)

    def _forget(self, call: int) -> None:
        arrived = self._arrived.pop(call, None)
        if arrived is not None:
            self.held_bytes -= len(arrived[1])


class ReplayedCalls(RecordedCalls):
    """Answered by `player`; nobody is asked. Raises Diverged when the guest does something else."""

    def __init__(
        self, grants: Grants, limits: Limits, world: FixedWorld, recorder: Recorder, player: Player
    ) -> None:
        super().__init__(grants, limits, _nobody, world, recorder)
        self._player = player

    @property
    def is_under_way(self) -> bool:
        """See Calls. Nothing takes time."""
        return False

    @property
    def next_due(self) -> float | None:
        """See Calls. What was answered too late is in the transcript."""
        return None

    def _send(self, call: int, operation: int, body: bytes) -> None:
        if operation not in _BEGINNINGS:
            return
        name = Operation(operation).name
        event = taken(self._player, Kind.BEGAN, f"the snippet began call {call} ({name})")
        if (event.call, event.detail) != (call, operation):
            raise Diverged(self._player.last, f"the snippet began call {call} ({name}), and did not then")
        if event.body != body:
            raise Diverged(
                self._player.last, f"the snippet began call {call} ({name}) with something else than then"
            )
        super()._send(call, operation, body)

    def _wait_for(self, timeout: int, call: int) -> bytes | Waiting:
        doing = f"the snippet waited for {f'call {call}' if call else 'any call'}"
        event = taken(self._player, None, doing)
        if event.kind is Kind.PASSED and timeout >= 0:
            self._recorder.passed()
            if timeout:
                self._world.pass_time(timeout)
            return b""
        if event.kind is not Kind.ANSWERED or event.call not in self._open or call not in (0, event.call):
            raise Diverged(self._player.last, f"{doing}, and did not then")
        outcome = _OUTCOMES.get(event.detail)
        if outcome is None:
            raise MalformedTranscript("the transcript is damaged")
        self._arrived[event.call] = outcome, event.body
        self.held_bytes += len(event.body)
        return self._serve(event.call, call)


def _nobody(_call: int, _operation: int, _body: bytes) -> None:
    """Where what a replayed guest asks for goes."""


def taken(player: Player, kind: Kind | None, doing: str) -> Event:
    """The next event, which must be of that kind. Raises Diverged."""
    event = player.take()
    if event is None:
        raise Diverged(player.last + 1, f"{doing}, and the transcript is at its end")
    if kind is not None and event.kind is not kind:
        raise Diverged(player.last, f"{doing}, and did not then")
    return event


class RecordedStdin(Stdin):
    """As Stdin, and `recorder` is told what was read."""

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def read(self, length: int) -> bytes:
        """See Stdin."""
        data = super().read(length)
        if length:
            self._recorder.add(Kind.READ, data)
        return data


class ReplayedStdin(RecordedStdin):
    """What was read then."""

    __slots__ = ("_player",)

    def __init__(self, recorder: Recorder, player: Player) -> None:
        super().__init__(recorder)
        self._player = player

    @property
    def is_ready(self) -> bool:
        """See Stdin."""
        return True

    def read(self, length: int) -> bytes:
        """See Stdin."""
        if not length:
            return b""
        data = taken(self._player, Kind.READ, "the snippet read standard input").body
        if len(data) > length:
            raise Diverged(self._player.last, "the snippet read less of standard input than then")
        self._recorder.add(Kind.READ, data)
        return data
