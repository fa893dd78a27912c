"""Doubles of machines: what a driver gives, over sockets, with an agent that a test plays; no process, no kernel."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from wasmeval.grants import Grants
from wasmeval.limits import VM_DEFAULTS, Limits
from wasmeval.model import Job, Result
from wasmeval.vm.agent import Agent
from wasmeval.vm.frames import HEADER, Order, Word
from wasmeval.vm.task import Task
from wasmeval.wasm.calls import Operation

PATIENCE_SECONDS = 20.0
"""For what happens at once, on a machine that is busy."""

SKIPPED = struct.Struct("<Q")
PATH = struct.Struct("<H")


class FakeMachine:
    """See agent.Machine. `guest` is what the test plays; `cpu` and `last_words` are what it looks like from outside."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.network, self.guest_network = socket.socketpair()
        for end in (self.channel, self.network, self.guest_network, theirs):
            end.setblocking(False)
        self.guest = Guest(theirs)
        self.cpu = 0.0
        self.last_words = ""
        self.is_killed = False
        self.runs = True
        self.is_buried = True
        """Whether it has ended as soon as it is killed."""

    def cpu_seconds(self) -> float:
        return self.cpu

    def own_bytes(self) -> int:
        return 0

    def complaint(self) -> str:
        return self.last_words

    def stand_still(self) -> None:
        self.runs = False

    def go_on(self) -> None:
        self.runs = True

    def kill(self) -> None:
        self.is_killed = True
        self.channel.close()
        self.network.close()

    def ended(self) -> bool:
        return self.is_killed and self.is_buried

    def close(self) -> None:
        """When the test is over."""
        self.kill()
        self.guest.end()
        self.guest_network.close()


class Guest:
    """The guest's end of the channel: frames as its agent says and hears them, or whatever a hostile one would."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._heard = bytearray()

    async def say(self, word: int, payload: bytes = b"", number: int = 0) -> None:
        """One frame."""
        await self.utter(frame(word, payload, number))

    async def utter(self, data: bytes) -> None:
        """Bytes as they are. What nobody takes any more is lost, as with a machine that was killed."""
        with suppress(ConnectionError):
            await asyncio.wait_for(
                asyncio.get_running_loop().sock_sendall(self.socket, data), PATIENCE_SECONDS
            )

    async def flood(self, data: bytes) -> None:
        """Say it again and again, until it is killed."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while True:
                await loop.sock_sendall(self.socket, data)

    async def hear(self) -> tuple[Order, int, bytes]:
        """The next order: what it is, its number, its payload. Raises EOFError when the machine was killed."""
        while True:
            if len(self._heard) >= HEADER.size:
                length, kind, number = HEADER.unpack_from(self._heard)
                if len(self._heard) >= HEADER.size + length:
                    payload = bytes(self._heard[HEADER.size : HEADER.size + length])
                    del self._heard[: HEADER.size + length]
                    return Order(kind), number, payload
            receiving = asyncio.get_running_loop().sock_recv(self.socket, 1 << 16)
            data = b""
            with suppress(ConnectionError):
                data = await asyncio.wait_for(receiving, PATIENCE_SECONDS)
            if not data:
                raise EOFError
            self._heard += data

    async def hear_until(self, order: Order) -> bytes:
        """The payload of the next order of that kind; those before it are passed over."""
        while True:
            heard, _, payload = await self.hear()
            if heard is order:
                return payload

    async def resume(self) -> None:
        """Do what a clone does first."""
        await self.hear_until(Order.RESUME)
        await self.say(Word.RESUMED)

    async def done(self, **told: Any) -> None:
        """Say that the job has ended; a plain program with the status 0 unless told otherwise."""
        await self.say(Word.DONE, json.dumps({"exit_status": 0, **told}).encode())

    async def left(self, path: str | bytes, content: bytes = b"", *, begins: bool = True) -> None:
        """A piece of a file."""
        await self.say(Word.LEFT, left(path, content), begins)

    def end(self) -> None:
        """Die."""
        self.socket.close()


def frame(word: int, payload: bytes = b"", number: int = 0) -> bytes:
    """As an agent encodes it."""
    return HEADER.pack(len(payload), word, number) + payload


def left(path: str | bytes, content: bytes = b"") -> bytes:
    """The payload of LEFT."""
    name = path if isinstance(path, bytes) else path.encode()
    return PATH.pack(len(name)) + name + content


class Outside:
    """Whom a job talks to: what came to it, and nothing is answered by itself. See task.Partner."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Operation, bytes]] = []
        self.output: list[tuple[int, bytes]] = []
        self.gateway = None

    def called(self, call: int, operation: Operation, body: bytes) -> None:
        self.calls.append((call, operation, body))

    def printed(self, stream: int, data: bytes) -> None:
        self.output.append((stream, data))

    @property
    def inputs_wanted(self) -> int:
        return sum(operation is Operation.INPUT for _, operation, _ in self.calls)


class Play:
    """One job in one machine, while the test plays its guest."""

    def __init__(self, machine: FakeMachine, task: Task, outside: Outside) -> None:
        self.machine = machine
        self.guest = machine.guest
        self.task = task
        self.outside = outside
        self.running = asyncio.create_task(task.run())

    async def result(self) -> Result:
        """What it ends with."""
        return await asyncio.wait_for(asyncio.shield(self.running), PATIENCE_SECONDS)

    async def call(self, operation: int, body: bytes = b"") -> bytes | int:
        """What a host operation is answered."""
        await self.guest.say(Word.CALL, bytes([operation]) + body)
        return await self.answer()

    async def answer(self) -> bytes | int:
        """The next answer to a host operation."""
        payload = await self.guest.hear_until(Order.ANSWER)
        (result,) = struct.unpack_from("<i", payload)
        assert result < 0 or len(payload) == 4 + result
        return payload[4:] if result >= 0 else result


@contextmanager
def played(
    *,
    runtime: str = "vm-command",
    limits: Limits | None = None,
    grants: Grants | None = None,
    is_step: bool = False,
    **changed: Any,
) -> Iterator[Play]:
    """A job that begins, in a double. However it ends, nothing is left of it."""
    whole = (limits or Limits()).within(VM_DEFAULTS, Limits())
    code = b"" if runtime == "vm-command" else b"1 + 1"
    job = Job(runtime, code, b"", whole, grants, tier="vm", command=("true",), **changed)
    machine, outside = FakeMachine(), Outside()
    agent = Agent(machine)
    task = Task(job, agent, "a double", is_step=is_step)
    task.attended(outside)
    play = Play(machine, task, outside)
    try:
        yield play
    finally:
        play.running.cancel()
        agent.close()
        machine.close()
