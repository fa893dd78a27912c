"""Task: one evaluation in a worker, from its arrival to its end: its instance, its clock, its ties to the outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from wasmeval.determinism import World
from wasmeval.grants import Grants
from wasmeval.limits import Limits
from wasmeval.model import Result
from wasmeval.transcript import Player, Recorder
from wasmeval.wasm import abi, capi
from wasmeval.wasm.calls import Calls, Operation, Outcome
from wasmeval.wasm.errno import Errno
from wasmeval.wasm.globs import Found
from wasmeval.wasm.instance import Image, Instance, NoSpace
from wasmeval.wasm.live import Live
from wasmeval.wasm.order import Order
from wasmeval.wasm.recorded import RecordedCalls, RecordedStdin, ReplayedCalls, ReplayedStdin
from wasmeval.wasm.session import Session
from wasmeval.wasm.translation import Lines, decode, largest_translation
from wasmeval.wasm.wasi import Stdin
from wasmeval.wasm.world import ACTUAL, FixedWorld


class Outlet(Protocol):
    """Where what an evaluation says goes, by its number; on its way to the parent process."""

    def result(self, number: int, result: Result) -> None:
        """It is over. Nothing follows. Its array is good until this returns."""

    def call(self, number: int, call: int, operation: int, body: bytes) -> None:
        """A host call has begun, or is dropped."""

    def output(self, number: int, stream: int, data: bytes) -> None:
        """It printed; stream is 1 or 2."""

    def file(self, number: int, path: str, data: bytes, is_last: bool) -> None:
        """A piece of a file that its outputs asked for."""

    def transcript(self, number: int, data: bytes) -> None:
        """A piece of the transcript of a deterministic evaluation; all of them come before its result."""

    def state(self, number: int, pieces: Iterable[bytes | memoryview]) -> None:
        """A session's state, none for no pieces; `number` is the one of whoever asked for it. The pieces are good until
        this returns."""


_NOTHING = Grants()


@dataclass(slots=True, eq=False)
class Task:
    """One evaluation. `deadline` is by the monotonic clock; it stands still while the task is `parked` or `paused`,
    from the moment that is noted there."""

    order: Order
    image: Image
    outlet: Outlet
    session: Session | None = None
    """Whose step it is."""
    instance: Instance | None = None
    calls: Calls | None = None
    live: Live | None = None
    started: float = 0.0
    deadline: float = 0.0
    parked: float = 0.0
    paused: float = 0.0
    grown_bytes: int = 0
    armed: float = float("inf")
    """When its next timer goes off, by the monotonic clock."""
    over: bool = False
    asked: int = 0
    """The call whose answer a WASI function waits for; 0 for none."""
    awaits_input: bool = False
    spent_fuel: int = 0
    """By the translator, before `instance` was made."""
    lines: Lines | None = None
    """Where what the translator made came from; None where nothing has moved."""
    world: FixedWorld | None = None
    """What a deterministic guest sees, once it has its instance."""
    recorder: Recorder | None = None
    """What writes down what it asks for and is answered."""
    player: Player | None = None
    """What it is answered from, when it is a repetition."""
    input: bytearray = field(default_factory=bytearray)
    input_ended: bool = False

    @property
    def number(self) -> int:
        """Its number in this worker."""
        return self.order.number

    @property
    def limits(self) -> Limits:
        """What it may spend."""
        return self.order.limits

    @property
    def tool_calls(self) -> int:
        """Tools it has called."""
        return self.calls.tool_calls if self.calls else 0

    def held_bytes(self) -> int:
        """Memory of this process that it takes beyond a fresh instance: the guest's, and what is held for it."""
        instance = self.instance
        if instance is None:
            files = self.order.grants.files if self.order.grants else {}
            return len(self.input) + sum(map(len, files.values())) + self._transcript_bytes()
        guest = instance.wasi
        held = instance.memory_bytes() - self.image.runtime.initial_memory_bytes
        held += guest.stdout.held_bytes + guest.stderr.held_bytes + guest.workspace_bytes
        held += self._transcript_bytes()
        return held + self.calls.held_bytes if self.calls else held

    def _transcript_bytes(self) -> int:
        known = self.order.world.transcript if self.order.world else None
        held = self.player.size if self.player else len(known or b"")
        return held + self.recorder.size if self.recorder else held

    def start(self) -> None:
        """Begin in the instance, which is fresh: translate, or run. Raises Trapped."""
        order, instance, limits = self.order, self.instance, self.limits
        assert instance is not None
        if order.translator:
            most = largest_translation(len(order.code))
            instance.start(order.code, b"", replace(limits, output_bytes=most))
            return
        session = self.session
        renews_entropy = session is not None and session.take_renewal()
        assert limits.fuel
        if order.world is not None:
            renews_entropy = order.world.renews
            self._fix_world(order.world, limits.fuel)
        else:
            instance.wasi.enter(ACTUAL)
        self._connect()
        if self.spent_fuel:
            limits = replace(limits, fuel=max(1, limits.fuel - self.spent_fuel))
        instance.start(
            order.code,
            order.inputs,
            limits,
            self.calls,
            arrays=order.arrays,
            is_step=session is not None,
            renews_entropy=renews_entropy,
        )
        self.order = order.taken()

    def take_translation(self) -> Instance | None:
        """The translator has replied: what it made is the code now, and its instance, which is given back, is done
        with. None when the reply says why there is none."""
        instance = self.instance
        assert instance is not None
        try:
            reply = instance.reply()
            if reply.outcome is not abi.Outcome.VALUE:
                return None
            translation = decode(reply.value)
        except abi.MalformedReply:
            return None
        self.spent_fuel = instance.fuel_used()
        self.lines = translation.lines
        self.order = self.order._replace(code=translation.code, translator="")
        self.instance = None
        return instance

    def _fix_world(self, world: World, fuel: int) -> None:
        instance, seconds = self.instance, self.limits.deadline_seconds
        assert instance is not None
        assert seconds
        # Its clock is read before it runs: files that it is given have a time.
        instance.fill(fuel - self.spent_fuel)
        self.world = FixedWorld(world, instance.context, fuel, int(seconds * 1e9))
        instance.wasi.enter(self.world)
        self.recorder = Recorder()
        if world.transcript is not None:
            self.player = Player(world.transcript)

    def _connect(self) -> None:
        """Give the instance, which has not started, what the evaluation was granted."""
        grants, instance, limits = self.order.grants, self.instance, self.limits
        assert instance is not None
        assert limits.output_bytes
        assert limits.workspace_bytes
        assert limits.workspace_files
        guest = instance.wasi
        if grants is None and self.world is None:
            guest.provide(limits.workspace_bytes, limits.workspace_files)
            return
        # A deterministic guest may ask in any case: what it is granted unseen must not change what it spends.
        grants = grants or _NOTHING
        number, outlet = self.number, self.outlet
        self.calls = self._calls_of(grants)
        try:
            guest.provide(limits.workspace_bytes, limits.workspace_files, grants.files, grants.mounts)
        except Errno:
            raise NoSpace(capi.HOST_TRAP, detail="no room for the step's files") from None
        if grants.live:
            self.live = Live(limits.output_bytes, lambda stream, data: outlet.output(number, stream, data))
            guest.on_output = self.live.write
        if grants.stdin:
            guest.stdin = self._stdin()
            self.feed(bytes(self.input), self.input_ended)

    def _calls_of(self, grants: Grants) -> Calls:
        number, outlet, limits, recorder = self.number, self.outlet, self.limits, self.recorder

        def send(call: int, operation: int, body: bytes) -> None:
            outlet.call(number, call, operation, body)

        if self.world is None or recorder is None:
            return Calls(grants, limits, send)
        if self.player is not None:
            return ReplayedCalls(grants, limits, self.world, recorder, self.player)
        return RecordedCalls(grants, limits, send, self.world, recorder)

    def _stdin(self) -> Stdin:
        if self.recorder is None:
            return Stdin()
        if self.player is not None:
            return ReplayedStdin(self.recorder, self.player)
        return RecordedStdin(self.recorder)

    def feed(self, data: bytes, ended: bool) -> bool:
        """Input has come. True when the guest waits for it and can go on."""
        guest = self.instance.wasi if self.instance else None
        if not (self.order.grants and self.order.grants.stdin):
            return False
        if guest is None or guest.stdin is None:
            self.input += data
            self.input_ended = self.input_ended or ended
            return False
        if data:
            guest.stdin.feed(data)
        if ended:
            guest.stdin.close()
        if not (self.awaits_input and guest.stdin.is_ready):
            return False
        self.awaits_input = False
        return True

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> bool:
        """A call has ended. True when the guest waits for it and can go on."""
        instance, calls = self.instance, self.calls
        if instance is None or calls is None:
            return False
        operation = calls.answer(call, outcome, payload)
        if operation is Operation.FILES and call == self.asked:
            self.asked = 0
            instance.answer = payload
            return True
        return calls.is_satisfied

    def flush(self) -> None:
        """Send what it printed and has not been sent."""
        if self.live:
            self.live.flush()

    def let_go(self) -> None:
        """It is over: a timer may know it for a while longer, and need not keep what it was told and asked."""
        self.calls = self.recorder = self.player = self.world = self.live = None

    def found_files(self) -> Iterator[Found] | None:
        """The files that its outputs ask for, of a guest that has ended, bit by bit; they outlive the instance. None
        when nothing asks for any."""
        grants = self.order.grants
        if grants is None or not grants.outputs or self.instance is None:
            return None
        return self.instance.wasi.collect(grants.outputs)
