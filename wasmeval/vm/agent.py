"""Agent: the agent of one machine, as the event loop of its host sees it: frames out, frames in, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from wasmeval.vm import frames
from wasmeval.vm.frames import Frame, MalformedFrame, Order, Word
from wasmeval.vm.network import Gateway, Network, NetworkViolation
from wasmeval.vm.share import Share

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 1 << 16
"""At a time. As frames of no bytes they take some 10 ms."""
_RESUME = struct.Struct("<q")
_SEED_BYTES = 64


class Machine(Protocol):
    """What a driver gives: see qemu.Machine, and docs/vm.md for what another driver has to promise."""

    channel: socket.socket
    network: socket.socket

    def cpu_seconds(self) -> float:
        """What it has used so far, measured from outside."""

    def own_bytes(self) -> int:
        """Memory that it shares with nobody."""

    def complaint(self) -> str:
        """What its process said last."""

    def stand_still(self) -> None:
        """Let it compute nothing until `go_on`. What its clock shows then is nothing to rely on."""

    def go_on(self) -> None:
        """After `stand_still`; no harm without."""

    def kill(self) -> None:
        """End it at once."""

    def ended(self) -> bool:
        """Whether it is buried."""


class Lost(Exception):
    """The machine ended, or its agent said what it must not: it is of no more use."""


class Agent:
    """One machine's. `hear` is given every frame, `lose` is called once when it is lost; on the loop's thread."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._loop = asyncio.get_running_loop()
        self._decoder = frames.Decoder()
        self._outbox: deque[memoryview] = deque()
        self._hear: Callable[[Frame], None] | None = None
        self._lose: Callable[[Lost], None] | None = None
        self._share = Share()
        self._pause: asyncio.TimerHandle | None = None
        self._lost: Lost | None = None
        self._closed = False
        self._network: Network | None = None
        self._serving: asyncio.Task[None] | None = None
        self.queued_bytes = 0
        """Of all that it was told, or will be."""
        self.sent_bytes = 0
        """Of them, those that are on their way."""
        self._loop.add_reader(machine.channel.fileno(), self._readable)

    @property
    def is_lost(self) -> bool:
        """Whether it can do nothing more."""
        return self._lost is not None or self._closed

    def attend(self, hear: Callable[[Frame], None] | None, lose: Callable[[Lost], None]) -> None:
        """Who hears it from now on, and is told when it is lost, closed here included. Where nobody is to hear it, it
        must say nothing."""
        self._hear, self._lose = hear, lose
        if self._lost is not None:
            lose(self._lost)

    def send(self, order: Order, payload: bytes = b"", number: int = 0) -> None:
        """Say it, as soon as the guest listens."""
        if self.is_lost:
            return
        frame = frames.encode(order, payload, number)
        self.queued_bytes += len(frame)
        self._outbox.append(memoryview(frame))
        if len(self._outbox) == 1:
            self._flush()

    async def resume(self, name: str, within: float) -> None:
        """Its first words: the time, a name, and entropy that no other clone has. Raises Lost."""
        self.send(Order.RESUME, _RESUME.pack(time.time_ns()) + os.urandom(_SEED_BYTES) + name.encode())
        await self.wait_for(Word.RESUMED, within)

    async def wait_for(self, word: Word, within: float) -> None:
        """Return when it says so. Raises Lost when it says anything else, or takes longer than `within` seconds."""
        said: asyncio.Future[None] = self._loop.create_future()

        def hear(frame: Frame) -> None:
            if frame.word is not word:
                raise MalformedFrame(f"{frame.word.name} where {word.name} was expected")
            if not said.done():
                said.set_result(None)

        def lose(lost: Lost) -> None:
            if not said.done():
                said.set_exception(lost)

        self.attend(hear, lose)
        try:
            await asyncio.wait_for(said, within)
        except TimeoutError:
            raise Lost(f"the machine did not say {word.name} within {within:g} s") from None
        finally:
            self._hear = self._lose = None

    def connect(self, gateway: Gateway | None) -> None:
        """What answers the guest's connections from now on; None refuses them."""
        if self._network is not None:
            self._network.gateway = gateway
        elif gateway is not None and not self.is_lost:
            # Its own descriptor: the loop still has it when the machine is killed, and no other may get its number.
            self._network = Network(self.machine.network.dup(), gateway)
            self._serving = self._loop.create_task(self._serve(self._network))

    async def _serve(self, network: Network) -> None:
        try:
            await network.run()
        except NetworkViolation as violation:
            self._fail(f"the guest's network is not to be trusted any more: {violation}")

    def close(self) -> None:
        """Kill the machine. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._lost is None:
            self._lost = Lost("the virtual machine was ended by its host")
        lose, self._hear, self._lose = self._lose, None, None
        if self._serving is not None and self._serving is not asyncio.current_task():
            self._serving.cancel()
        self._outbox.clear()
        if self._pause is not None:
            self._pause.cancel()
        self._unwatch()
        self.machine.kill()
        if lose is not None:
            lose(self._lost)

    def _readable(self) -> None:
        began = time.monotonic()
        try:
            data = self.machine.channel.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._fail(self.machine.complaint() or "the virtual machine ended")
            return
        try:
            for frame in self._decoder.feed(data):
                if self.is_lost:
                    return
                if self._hear is None:
                    raise MalformedFrame(f"{frame.word.name} that nobody asked for")
                self._hear(frame)
        except MalformedFrame as malformed:
            self._fail(f"the guest's agent is not to be trusted any more: {malformed}")
        except Exception as error:
            # A bug of ours must not leave its job without an end. Its message may quote the guest; its class does not.
            logger.error("internal error in what a guest said: %s", type(error).__name__)
            self._fail("the service could not go on with it; its log says why")
        else:
            self._share.took(time.monotonic() - began)
            if not self.is_lost and (pause := self._share.pause):
                self._loop.remove_reader(self.machine.channel.fileno())
                self._pause = self._loop.call_later(pause, self._listen)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self.machine.channel.fileno(), self._readable)

    def _fail(self, why: str) -> None:
        if not self.is_lost:
            self._lost = Lost(why)
            self.close()

    def _flush(self) -> None:
        channel = self.machine.channel
        while self._outbox:
            first = self._outbox[0]
            try:
                sent = channel.send(first)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(channel.fileno(), self._writable)
                return
            except OSError:
                self._outbox.clear()
                return
            self.sent_bytes += sent
            if sent < len(first):
                self._outbox[0] = first[sent:]
            else:
                self._outbox.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self.machine.channel.fileno())
        self._flush()

    def _unwatch(self) -> None:
        with contextlib.suppress(ValueError, OSError, RuntimeError):
            number = self.machine.channel.fileno()
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)
