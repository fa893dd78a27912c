"""Instance: one Wasm instance on a fiber of its own: created, prepared, evaluated once, dropped.

A session's instance evaluates again and again. Between two steps it rests: nothing of it is on a stack, its mutable
globals are as they were in the image and no table has changed (the build checks both), so that its memory is all
there is of it.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from wasmeval.limits import Limits
from wasmeval.runtimes import Runtime
from wasmeval.transcript import MalformedTranscript
from wasmeval.wasm import abi, capi, wasi
from wasmeval.wasm.calls import Calls
from wasmeval.wasm.engine import Engine
from wasmeval.wasm.host import Host
from wasmeval.wasm.library import Library
from wasmeval.wasm.output import Output
from wasmeval.wasm.pages import populate
from wasmeval.wasm.recorded import Diverged
from wasmeval.wasm.world import PastDeadline

REQUEST_BYTES = 65536
"""The request buffer every prepared instance has; a larger request reserves its own."""

_PREPARING_FUEL = 1 << 40
_PREPARING_MEMORY = 64 << 20
_EVER = float("inf")
_PAGE_BYTES = mmap.PAGESIZE


class Image(NamedTuple):
    """A runtime loaded into an engine: what instances are made of. Lives as long as its worker."""

    runtime: Runtime
    engine: int
    linked: int
    host: Host
    library: Library
    slice_fuel: int

    @classmethod
    def load(
        cls, runtime: Runtime, engine: Engine, host: Host, module: int, library: Library, slice_ms: float
    ) -> Image:
        """Link `module`, the compiled image of `runtime`; a slice is as much fuel as takes about `slice_ms`."""
        assert engine.address is not None
        slice_fuel = max(1, int(runtime.fuel_per_millisecond * slice_ms))
        return cls(runtime, engine.address, host.link(module), host, library, slice_fuel)


class Rest(NamedTuple):
    """What an instance that rests is beside its pages and its files: the size of its memory, and the address and size
    of its request buffer."""

    memory_bytes: int
    request: int
    request_bytes: int


class Trapped(Exception):
    """The instance ended without a reply: by a trap (`code`), by proc_exit (`exit_code`), or by a fault of ours."""

    def __init__(
        self, code: int, exit_code: int | None = None, detail: str = "", reason: Exception | None = None
    ) -> None:
        """`reason`: what a host function ended a deterministic guest for."""
        super().__init__(capi.TRAP_NAMES[code] if 0 <= code < len(capi.TRAP_NAMES) else detail or "host trap")
        self.code = code
        self.exit_code = exit_code
        self.reason = reason
        self.detail = detail


class NoRoom(Trapped):
    """The request does not fit into the guest's memory."""


class NoSpace(Trapped):
    """The files of a session's step do not fit into what is left of its workspace."""


class Instance:
    """One instance, its store and its fiber. Close it; closing while it is suspended is how a guest is stopped.

    Order matters to Wasmtime: the future is deleted before the store, and everything a call points at
    (`CallFrame`) stays until the future is gone. `wake` is when a suspended guest wants to go on, in monotonic
    nanoseconds; None while it can run. `call` is where the answer to the host call under way goes: the addresses of its
    result and of its trap, good until the guest goes on.
    """

    __slots__ = (
        "_context",
        "_evaluate",
        "_failure",
        "_finish",
        "_frame",
        "_fuel",
        "_future",
        "_limits",
        "_memory",
        "_memory_size",
        "_request",
        "_request_size",
        "_reserve",
        "_store",
        "answer",
        "asked",
        "base",
        "call",
        "calls",
        "finished_address",
        "image",
        "memory_limit",
        "slice_end",
        "wake",
        "wasi",
    )  # fmt: skip

    def __init__(self, image: Image, rest: Rest | None = None) -> None:
        self.image = image
        self.wasi = wasi.Wasi(self, image.library)
        self.wake: int | None = None
        self.slice_end = _EVER
        self.base = 0
        self.call = (0, 0)
        self.calls: Calls | None = None
        """What it may ask the host for; None for nothing."""
        self.answer = b""
        self.asked: wasi.Ask | None = None
        """What a WASI function waits for; whoever polls takes it and sees to it."""
        self._finish: Callable[[], int] | None = None
        self._failure: BaseException | None = None
        self._future: int | None = None
        self._frame = capi.CallFrame()
        start = ctypes.addressof(self._frame)
        self.finished_address = start + capi.CallFrame.finished.offset
        self._memory = start + capi.CallFrame.memory.offset + capi.EXTERN_OF
        self._reserve = start + capi.CallFrame.reserve.offset + capi.EXTERN_OF
        self._evaluate = start + capi.CallFrame.evaluate.offset + capi.EXTERN_OF
        self._fuel = start + capi.CallFrame.fuel.offset
        self._limits = Limits()
        self._memory_size = 0
        self._request = 0
        self._request_size = 0
        self._store: int | None = capi.store_new(image.engine, None, None)
        self._context: int = capi.store_context(self._store)
        try:
            self._create()
            if rest is None:
                self._prepare()
            else:
                self._continue(rest)
        except BaseException:
            self.close()
            raise

    # --- life ----------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        """Instantiate, and find the exports."""
        capi.store_limiter(
            self._store, self.image.runtime.initial_memory_bytes + _PREPARING_MEMORY, -1, -1, -1, -1
        )
        capi.context_set_fuel(self._context, _PREPARING_FUEL)
        capi.context_fuel_async_yield_interval(self._context, self.image.slice_fuel)
        frame = ctypes.addressof(self._frame)
        self._future = capi.instance_pre_instantiate_async(
            self.image.linked,
            self._context,
            frame,
            frame + capi.CallFrame.trap.offset,
            frame + capi.CallFrame.error.offset,
        )
        self._run()
        for name, field in ((abi.MEMORY, "memory"), (abi.RESERVE, "reserve"), (abi.EVALUATE, "evaluate")):
            out = frame + getattr(capi.CallFrame, field).offset
            if not capi.instance_export_get(self._context, frame, name, len(name), out):
                raise Trapped(capi.HOST_TRAP, detail=f"the image does not export {name.decode()}")
        self.base = capi.memory_data(self._context, self._memory)
        self._memory_size = capi.memory_data_size(self._context, self._memory)

    def _prepare(self) -> None:
        """Reserve the request buffer, evaluate the warm-up snippet: all before there is a request.

        The pages a snippet always touches are then private already. Every instance does the same, so fuel stays
        equal.
        """
        self._reserve_request(REQUEST_BYTES)
        self._begin(abi.encode_request(self.image.runtime.warm_up.encode(), b"", REQUEST_BYTES))
        self._run()

    def _continue(self, rest: Rest) -> None:
        """Grow to where the other one was; whoever has its pages then writes them."""
        missing = rest.memory_bytes - self._memory_size
        capi.store_limiter(self._store, rest.memory_bytes, -1, -1, -1, -1)
        if missing > 0:
            before = ctypes.c_uint64()
            error = capi.memory_grow(
                self._context, self._memory, missing // abi.WASM_PAGE_BYTES, ctypes.addressof(before)
            )
            if error:
                raise Trapped(capi.HOST_TRAP, detail=capi.take_error(error))
            self.base = capi.memory_data(self._context, self._memory)
        if self.memory_bytes() != rest.memory_bytes:
            raise Trapped(capi.HOST_TRAP, detail="its memory cannot be as large as it was")
        self._request, self._request_size = rest.request, rest.request_bytes

    def rest(self) -> Rest:
        """What it is beside its pages and its files, for `Instance(image, rest)`."""
        return Rest(self.memory_bytes(), self._request, self._request_size)

    @property
    def context(self) -> int:
        """Its store's context, by address: good until it is closed."""
        return self._context

    def fill(self, fuel: int) -> None:
        """Give it so much fuel, before it starts."""
        capi.context_set_fuel(self._context, fuel)

    def start(
        self,
        code: bytes,
        inputs: bytes,
        limits: Limits,
        calls: Calls | None = None,
        *,
        arrays: bytes | memoryview = b"",
        is_step: bool = False,
        renews_entropy: bool = False,
    ) -> None:
        """Set the limits and begin the evaluation; then `poll` until it is finished. Raises Trapped.

        With `calls` the guest may ask for more than WASI has, and is told so when there is something for it. With
        `is_step` it goes on where its last step ended; with `renews_entropy` it forgets the entropy that its memory
        holds.
        """
        assert limits.memory_bytes
        assert limits.fuel
        assert limits.output_bytes
        self._limits = limits
        self.wasi.stdout = Output(limits.output_bytes)
        self.wasi.stderr = Output(limits.output_bytes)
        capi.store_limiter(self._store, max(limits.memory_bytes, self._memory_size), -1, -1, -1, -1)
        self.calls = calls
        request = abi.encode_request(
            code,
            inputs,
            limits.output_bytes,
            has_arrays=bool(arrays),
            has_context=calls is not None and calls.has_context,
            is_step=is_step,
            renews_entropy=renews_entropy,
        )
        size = len(request) + len(arrays)
        if size > self._request_size:
            capi.context_set_fuel(self._context, limits.fuel)
            self._reserve_request(size)
        capi.context_set_fuel(self._context, limits.fuel)
        capi.context_fuel_async_yield_interval(self._context, self.image.slice_fuel)
        self._begin(request, arrays)

    def poll(self, slice_end: float = _EVER) -> bool:
        """Run until the evaluation is finished (True), the slice is used up, or the guest waits (see `wake`).

        Raises Trapped when the instance died.
        """
        self.slice_end = slice_end
        self.wake = None
        host = self.image.host
        host.current = self
        try:
            done = capi.call_future_poll(self._future)
        finally:
            host.current = None
        if not done:
            if self.slice_end == 0.0:
                # A host call ended this slice early; the next one is whole again.
                capi.context_fuel_async_yield_interval(self._context, self.image.slice_fuel)
            return False
        capi.call_future_delete(self._future)
        self._future = None
        frame = self._frame
        if frame.trap or frame.error:
            self._raise()
        return True

    def resume(self) -> None:
        """What a suspended guest waits for is there; poll it again."""
        finish, self._finish = self._finish, None
        if finish is not None:
            result, trap = self.call
            try:
                answer = finish()
            except wasi.Errno as error:
                answer = error.code
            except BaseException as error:
                answer = 0
                capi.u64(trap).value = self.abort(error)
            capi.i32(result).value = answer
        capi.u8(self.finished_address).value = ord("1")
        self.wake = None

    def close(self) -> None:
        """Drop the instance, running or not. Safe to call twice."""
        if self._future is not None:
            capi.call_future_delete(self._future)
            self._future = None
        if self._store is not None:
            capi.store_delete(self._store)
            self._store = None
            # They know this instance, and the worker collects no cycles.
            del self.wasi
            self.calls = self._finish = self.asked = None

    # --- what came of it -----------------------------------------------------------------------------------------

    def reply(self) -> abi.Reply:
        """The guest's reply, whose array lies over its memory: it is good until the guest goes on or is closed. Raises
        abi.MalformedReply."""
        assert self._limits.output_bytes
        packed = self._frame.result.of[0]
        address, length = packed >> 32, packed & 0xFFFFFFFF
        if length > abi.largest_reply(self._limits.output_bytes):
            raise abi.MalformedReply(f"{length} bytes are more than any reply")
        try:
            frame = self.read(address, length)
        except wasi.Errno:
            raise abi.MalformedReply("the reply is outside of memory") from None
        return abi.decode_reply(frame, self._limits.output_bytes, self._view_elements)

    def _view_elements(self, address: int, length: int) -> memoryview:
        try:
            self._check(address, length)
        except wasi.Errno:
            raise abi.MalformedReply("an array outside of memory") from None
        return capi.view(self.base + address, length)

    def fuel_used(self) -> int:
        """Fuel spent since `start`; none before it."""
        capi.context_get_fuel(self._context, self._fuel)
        return max(0, (self._limits.fuel or 0) - int(self._frame.fuel))

    def memory_bytes(self) -> int:
        """Size of the linear memory; it never shrinks."""
        self._memory_size = capi.memory_data_size(self._context, self._memory)
        return self._memory_size

    # --- for host functions --------------------------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes of the guest's memory. Raises Errno(FAULT) for what is outside of it."""
        self._check(address, length)
        return capi.read(self.base + address, length)

    def write(self, address: int, data: bytes) -> None:
        """Put `data` into the guest's memory. Raises Errno(FAULT) for what is outside of it."""
        self._check(address, len(data))
        capi.write(self.base + address, data, len(data))

    def suspend(self, wake: int, finish: Callable[[], int] | None = None) -> None:
        """The guest waits until `wake`, or until `resume` before it; `finish` then gives the host call's result."""
        capi.u8(self.finished_address).value = ord("0")
        self.wake = wake
        self._finish = finish

    def end_slice(self) -> None:
        """Make the guest yield at its next fuel check: host calls took the time that its fuel does not show."""
        self.slice_end = 0.0
        capi.context_fuel_async_yield_interval(self._context, 1)

    def abort(self, reason: BaseException) -> int:
        """A new trap that ends the guest; `reason` is remembered."""
        # Without its traceback, and those of what it came of, whose frames hold this instance: the worker collects no
        # cycles.
        reason.__context__ = reason.__cause__ = None
        self._failure = reason.with_traceback(None)
        return int(capi.trap_new(b"host", 4))

    # --- inside --------------------------------------------------------------------------------------------------

    def _check(self, address: int, length: int) -> None:
        if not self.base or (address + length > self._memory_size and address + length > self.memory_bytes()):
            raise wasi.Errno(wasi.FAULT)

    def _reserve_request(self, size: int) -> None:
        self._call(self._reserve, size)
        self._run()
        address = self._frame.result.of[0] & 0xFFFFFFFF
        self.memory_bytes()
        if address == 0 or address + size > self._memory_size:
            raise NoRoom(capi.HOST_TRAP, detail="no memory for the request")
        self._request, self._request_size = address, size

    def _begin(self, request: bytes, arrays: bytes | memoryview = b"") -> None:
        start = self.base + self._request
        capi.write(start, request, len(request))
        if arrays:
            # What the guest has grown by for it was never touched; whole pages of that, once.
            first = (start + len(request) + _PAGE_BYTES - 1) // _PAGE_BYTES * _PAGE_BYTES
            populate([(first, (start + len(request) + len(arrays) - first) // _PAGE_BYTES * _PAGE_BYTES)])
            capi.write_view(start + len(request), arrays)
        self._call(self._evaluate, len(request) + len(arrays))

    def _call(self, function: int, argument: int) -> None:
        frame = self._frame
        start = ctypes.addressof(frame)
        frame.argument.kind = capi.KIND_I32
        frame.argument.of[0] = argument
        self._future = capi.func_call_async(
            self._context,
            function,
            start + capi.CallFrame.argument.offset,
            1,
            start + capi.CallFrame.result.offset,
            1,
            start + capi.CallFrame.trap.offset,
            start + capi.CallFrame.error.offset,
        )

    def _run(self) -> None:
        """Poll to the end; for what is short and ours."""
        end = monotonic() + 5
        while not self.poll():
            if self.wake is not None:
                self.resume()
            if monotonic() > end:
                raise Trapped(capi.HOST_TRAP, detail="the instance could not be prepared in five seconds")

    def _raise(self) -> None:
        frame, failure = self._frame, self._failure
        trap, error = frame.trap, frame.error
        frame.trap = frame.error = None
        code = capi.take_trap(trap) if trap else capi.HOST_TRAP
        detail = capi.take_error(error) if error else ""
        if isinstance(failure, wasi.Exit):
            raise Trapped(code, exit_code=failure.code)
        if isinstance(failure, PastDeadline | Diverged | MalformedTranscript):
            raise Trapped(code, reason=failure)
        raise Trapped(code, detail=detail or repr(failure))
