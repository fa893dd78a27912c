"""Task: one job in one machine, from its order to its Result: its clock, its limits, its ties to the outside.

The guest is hostile. Whatever its agent sends is counted here against what the job was granted, and what is beyond
raises MalformedFrame, which ends the machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from fnmatch import translate
from typing import Protocol

from wasmeval.grants import Grants
from wasmeval.model import Job, Result, Status
from wasmeval.vm.agent import Agent, Lost
from wasmeval.vm.frames import PIECE_BYTES, Frame, MalformedFrame, Order, Word
from wasmeval.vm.left import Left, Room
from wasmeval.vm.network import ENVIRONMENT, Gateway
from wasmeval.vm.results import Ended, Ending
from wasmeval.wasm import abi
from wasmeval.wasm.calls import Calls, Operation, Outcome, Waiting
from wasmeval.wasm.output import Output

_RESULT = struct.Struct("<i")
_PATH = struct.Struct("<H")
_SKIPPED = struct.Struct("<Q")
_LEAST_CPU_CHECK_SECONDS = 0.02
_STOPPING_SECONDS = 3.0
"""For what a job that was stopped has left: under emulation its agent takes its time."""
_INTERRUPTION_SECONDS = 2.0
"""For a session's step that was interrupted to end by itself, before its interpreter is killed. Unmeasured."""
_INTERRUPTIBLE = frozenset(["python"])
"""Programs whose steps SIGINT ends, as KeyboardInterrupt does at a prompt. Node's event loop would never see it."""
_MOST_CALLS = 1 << 20
"""Host operations of one job: each costs this process a little, even one that it refuses."""
_RUNTIME = "vm-"
HARNESSES = frozenset(["python", "javascript"])
"""Programs that wait in every machine, and that a session keeps."""


class Partner(Protocol):
    """Whom a job talks to while it runs: see pool.Partner."""

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        """The guest asks for something; `Task.answer` gives it."""

    def printed(self, stream: int, data: bytes) -> None:
        """The guest wrote to stdout (1) or stderr (2)."""

    @property
    def gateway(self) -> Gateway | None:
        """What answers the guest's connections; None for none."""


class Task:
    """One job's. `run` gives its Result; the rest is the way into it, on the loop's thread."""

    def __init__(
        self, job: Job, agent: Agent, tier_detail: str, *, room: Room | None = None, is_step: bool = False
    ) -> None:
        """`room` is that of all jobs of the tier."""
        self.is_over = False
        self.can_go_on = False
        """Whether what ran it is there for a session's next step."""
        self._partner: Partner | None = None
        limits = job.limits
        assert limits.output_bytes
        self._job = job
        self._agent = agent
        self._grants = job.grants or Grants()
        self._program = job.runtime.removeprefix(_RUNTIME)
        self._is_step = is_step
        self._outputs = {1: Output(limits.output_bytes), 2: Output(limits.output_bytes)}
        self._ending = Ending(job, self._program, tier_detail, self._outputs[1], self._outputs[2])
        self._left = Left(limits, room or Room(limits.workspace_bytes or 0))
        self._reply = bytearray()
        self._calls = Calls(self._grants, limits, self._pass_on)
        self._operations = 0
        self._is_waiting = False
        self._answered = 0
        self._pieces_fed = 0
        self._inputs_wanted = 0
        self._wants_input = False
        self._loop = asyncio.get_running_loop()
        self._finish: Callable[[Ending], Result] | None = None
        self._result: asyncio.Future[Result] = self._loop.create_future()
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._started = self._loop.time()
        self._cpu = 0.0
        self._deadline = 0.0
        self._stood_still = 0.0

    async def run(self) -> Result:
        """Order it, and return when it has ended. Cancelled, it leaves the machine as it is: kill that."""
        self._agent.attend(self._hear, self._lose)
        if self._grants.http is not None and self._partner is not None:
            self._agent.connect(self._partner.gateway)
        self._order()
        try:
            return await self._result
        finally:
            self.is_over = True
            self._left.release()
            self._agent.connect(None)
            for timer in self._timers.values():
                timer.cancel()

    def attended(self, partner: Partner) -> None:
        """Whom its guest's calls go to."""
        self._partner = partner

    def answer(self, call: int, outcome: Outcome, payload: bytes) -> None:
        """A call of the guest's has ended."""
        if not self.is_over:
            self._calls.answer(call, outcome, payload)
            self._go_on()

    def feed(self, data: bytes, ended: bool) -> None:
        """Standard input for the guest."""
        if not self.is_over and self._grants.stdin:
            self._wants_input = False
            for start in range(0, len(data), PIECE_BYTES):
                self._pieces_fed += 1
                self._agent.send(Order.FEED, data[start : start + PIECE_BYTES])
            if ended:
                self._agent.send(Order.FEED, b"", 1)

    def stop(self, why: str = "the evaluation was cancelled by its caller", *, at_once: bool = False) -> None:
        """End it; its Result, with the status `cancelled`, still comes. `at_once`: no session goes on after it."""
        self._end(lambda ending: ending.cancelled(why), at_once=at_once)

    # --- beginning -----------------------------------------------------------------------------------------------

    def _order(self) -> None:
        job, agent, limits, grants = self._job, self._agent, self._job.limits, self._grants
        for path, content in grants.files.items():
            name = path.encode()
            head = _PATH.pack(len(name)) + name
            view = memoryview(content)
            for start in range(0, max(1, len(view)), PIECE_BYTES):
                agent.send(Order.FILE, head + view[start : start + PIECE_BYTES], start == 0)
        order = {
            "program": self._program,
            "argv": list(job.command),
            "environment": self._environment(),
            "stdin": grants.stdin,
            "outputs": [_expressions(pattern) for pattern in grants.outputs],
            "is_step": self._is_step,
            # A session's machine has stood still, and an emulated clock loses ticks.
            "time_ns": time.time_ns(),
            "output_bytes": limits.output_bytes,
            "memory_bytes": limits.memory_bytes,
            "processes": limits.processes,
            "workspace_bytes": limits.workspace_bytes,
            "workspace_files": limits.workspace_files,
        }
        agent.send(Order.BEGIN, json.dumps(order).encode())
        agent.send(Order.RUN, self._request())
        self._started = self._loop.time()
        self._cpu = agent.machine.cpu_seconds()
        assert limits.deadline_seconds
        self._deadline = self._started + limits.deadline_seconds
        self._at(self._deadline, self._check_deadline)
        self._check_cpu()

    def _environment(self) -> dict[str, str]:
        """Of a shell or a command: its inputs, and the way to the network. Harnesses know it by themselves."""
        if self._program in HARNESSES:
            return {}
        proxies = ENVIRONMENT if self._grants.http is not None else {}
        return {**proxies, **json.loads(self._job.inputs or b"{}")}

    def _request(self) -> bytes:
        job = self._job
        if self._program not in HARNESSES:
            return job.code
        request = abi.encode_request(
            job.code,
            job.inputs,
            job.limits.output_bytes or 0,
            has_arrays=bool(job.arrays),
            has_context=self._calls.has_context,
            is_step=self._is_step,
        )
        return b"".join((request, *job.arrays))

    # --- what the guest says -------------------------------------------------------------------------------------

    def _hear(self, frame: Frame) -> None:
        word, number, payload = frame
        if self._result.done():
            raise MalformedFrame(f"{word.name} after the end")
        if word is Word.OUTPUT or word is Word.TAIL:
            self._print(word, number, payload)
        elif word is Word.CALL:
            self._call(payload)
        elif word is Word.INPUT:
            self._want_input()
        elif word is Word.REPLY:
            self._reply += payload
            if len(self._reply) > abi.largest_reply(self._job.limits.output_bytes or 0):
                raise MalformedFrame("a reply longer than there can be")
        elif word is Word.LEFT:
            if not self._grants.outputs:
                raise MalformedFrame("files that nobody asked for")
            self._left.take(bool(number), payload)
        elif word is Word.DONE:
            self._done(payload)
        elif word is Word.FAILED:
            text = payload.decode("utf-8", "replace")
            self.can_go_on = True
            self._settle(
                self._finish or (lambda ending: ending.crashed(f"the guest could not do it: {text[:1000]}"))
            )
        else:
            raise MalformedFrame(f"{word.name} in the middle of a job")

    def _print(self, word: Word, stream: int, payload: bytes) -> None:
        output, most = self._outputs.get(stream), self._job.limits.output_bytes or 0
        if output is None:
            raise MalformedFrame(f"output on the stream {stream}")
        if word is Word.TAIL:
            # One a stream, after all that it may show: it makes `written` larger than `most`.
            if not _SKIPPED.size < len(payload) <= _SKIPPED.size + most or output.written != most:
                raise MalformedFrame("a tail that cannot be")
            output.skip(*_SKIPPED.unpack_from(payload))
            output.write(payload[_SKIPPED.size :])
            return
        if not payload or output.written + len(payload) > most:
            raise MalformedFrame("output of nothing, or beyond its limit")
        output.write(payload)
        if self._grants.live and self._partner:
            self._partner.printed(stream, payload)

    def _want_input(self) -> None:
        """Once for each piece that it was given, and once at first; nobody is asked twice for the same."""
        self._inputs_wanted += 1
        if not self._grants.stdin or self._inputs_wanted > 1 + self._pieces_fed:
            raise MalformedFrame("input is wanted where there is none, or too often")
        if self._partner and not self._wants_input:
            self._wants_input = True
            self._partner.called(0, Operation.INPUT, b"")

    def _call(self, request: bytes) -> None:
        self._operations += 1
        if self._is_waiting or self._operations > _MOST_CALLS:
            raise MalformedFrame("a call while another one waits, or one too many")
        if self._agent.sent_bytes < self._answered:
            # Who waits for no answer would have us keep all of them.
            raise MalformedFrame("a call before the answer to the last one")
        if len(request) > self._calls.most_request_bytes:
            raise MalformedFrame("a call longer than there can be")
        answer = self._calls.operate(request)
        if isinstance(answer, Waiting):
            self._is_waiting = True
            if self._stands_still():
                self._stood_still = self._loop.time()
            self._go_on()
        else:
            self._reply_to_call(answer)
        self._watch_calls()

    def _reply_to_call(self, answer: bytes | int) -> None:
        payload = _RESULT.pack(answer) if isinstance(answer, int) else _RESULT.pack(len(answer)) + answer
        self._agent.send(Order.ANSWER, payload)
        self._answered = self._agent.queued_bytes

    def _go_on(self) -> None:
        """Let the guest go on if what it waits for has ended, or its time is up."""
        calls = self._calls
        waiting = calls.waiting
        if self.is_over or not self._is_waiting or waiting is None:
            return
        if calls.is_satisfied or self._loop.time() >= waiting.wake / 1e9:
            self._is_waiting = False
            if self._stood_still:
                self._deadline += self._loop.time() - self._stood_still
                self._stood_still = 0.0
                self._at(self._deadline, self._check_deadline)
            self._reply_to_call(calls.take())
        else:
            # Again, for a loop may call a little early.
            self._at(waiting.wake / 1e9, self._go_on)

    def _watch_calls(self) -> None:
        due = self._calls.next_due
        if due is not None:
            self._at(due, self._expire)

    def _expire(self) -> None:
        self._calls.expire(self._loop.time())
        self._go_on()
        self._watch_calls()

    def _pass_on(self, call: int, operation: int, body: bytes) -> None:
        if self._partner:
            self._partner.called(call, Operation(operation), body)

    def _done(self, payload: bytes) -> None:
        try:
            told = json.loads(payload)
            self._ending.ended = Ended.of(told, self._job.limits.memory_bytes or 0)
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise MalformedFrame("an end that is none") from None
        self._ending.reply = bytes(self._reply)
        # Without this the last one may be cut.
        self._ending.files = self._left.files
        self._ending.no_room = self._left.is_refused
        self._settle(self._finish or Ending.told)
        # A shell is new in each step.
        is_there = self._program not in HARNESSES or self._ending.ended.exit_status is None
        self.can_go_on = is_there and self._result.result().status is not Status.CRASHED

    # --- the end -------------------------------------------------------------------------------------------------

    def _end(self, finish: Callable[[Ending], Result], *, at_once: bool = False) -> None:
        """Stop the job, and give what it has left until now; whatever it says of its own end does not count."""
        if self.is_over:
            return
        if self._finish is None:
            self._finish = finish
            if self._is_step and self._program in _INTERRUPTIBLE and not at_once:
                # The session goes on when this is enough.
                self._agent.send(Order.SIGNAL, number=signal.SIGINT)
                self._at(self._loop.time() + _INTERRUPTION_SECONDS, self._kill)
            else:
                self._kill()
        elif at_once:
            self._kill()

    def _kill(self) -> None:
        finish = self._finish
        assert finish is not None
        self._agent.send(Order.STOP)
        self._at(self._loop.time() + _STOPPING_SECONDS, lambda: self._settle(finish))

    def _settle(self, finish: Callable[[Ending], Result]) -> None:
        if self._result.done():
            return
        ending = self._ending
        ending.wall_seconds = self._loop.time() - self._started
        ending.cpu_seconds = max(0.0, self._agent.machine.cpu_seconds() - self._cpu)
        ending.tool_calls = self._calls.tool_calls
        self._result.set_result(finish(ending))

    def _lose(self, lost: Lost) -> None:
        self._settle(self._finish or (lambda ending: ending.crashed(str(lost))))

    def _stands_still(self) -> bool:
        return not self._grants.tool_time_counts and self._calls.waits_for_tools

    def _check_deadline(self) -> None:
        if self._stood_still:
            return
        if self._loop.time() >= self._deadline:
            self._end(Ending.deadline)
        else:
            # A loop may call a little early.
            self._at(self._deadline, self._check_deadline)

    def _check_cpu(self) -> None:
        most = self._job.limits.cpu_seconds
        assert most
        left = most - (self._agent.machine.cpu_seconds() - self._cpu)
        if left <= 0:
            self._end(Ending.cpu_used_up)
        else:
            # It has one CPU, and qemu's own threads use little of another.
            self._at(self._loop.time() + max(_LEAST_CPU_CHECK_SECONDS, left / 2), self._check_cpu)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        """Call it then; one timer for each, the last one counts."""
        with suppress(KeyError):
            self._timers.pop(what).cancel()
        if when < 1e18:
            self._timers[what] = self._loop.call_at(when, what)


def _expressions(pattern: str) -> list[str | None]:
    """A pattern as the agent takes it: an expression for each name, None for any number of folders."""
    parts: list[str | None] = []
    for part in pattern.split("/"):
        parts.append(
            None
            if part == "**"
            else translate(part)
            if re.search(r"[*?\[]", part)
            else re.escape(part) + r"\Z"
        )
    return parts
