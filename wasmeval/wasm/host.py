"""Host: the imports of the guest ABI, defined once for all instances of an engine.

Everything runs on one thread, and a host function only ever runs inside the poll of the guest that calls it. So
the scheduler sets `Host.current` before each poll, and no callback has to find out whose it is. A callback
never raises: ctypes would print the exception and give Wasmtime garbage. What must not happen ends the guest
with a trap, and the guest remembers it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from wasmeval.wasm import capi, wasi
from wasmeval.wasm.calls import FOREVER, NO_SUCH_OPERATION, Waiting

if TYPE_CHECKING:
    from wasmeval.wasm.instance import Instance

ABI_MODULE = b"wasmeval"


class Host:
    """The host functions, linked to a module by `link`. Lives as long as its engine."""

    def __init__(self, engine: int) -> None:
        self.current: Instance | None = None
        self._engine = engine
        self._callbacks: list[Any] = []
        self._linker: int = capi.linker_new(engine)
        for name, (parameters, handler) in wasi.FUNCTIONS.items():
            if name in wasi.SUSPENDING:
                self._define_async(wasi.MODULE, name, parameters, _asking(handler))
            else:
                self._define_sync(wasi.MODULE, name, parameters, _of_wasi(handler))
        self._define_sync(wasi.MODULE, "proc_exit", "i", _of_wasi(wasi.Wasi.proc_exit), results="")
        self._define_sync(ABI_MODULE, "host_read", "i", _host_read, results="")
        self._define_async(wasi.MODULE, "poll_oneoff", "iiii", _poll_oneoff)
        self._define_async(ABI_MODULE, "host_call", "ii", _host_call)

    def link(self, module: int) -> int:
        """`module` with its imports resolved, ready to be instantiated again and again.

        Raises SetupError when it imports what no host function offers.
        """
        linked = ctypes.c_void_p()
        capi.check(capi.linker_instantiate_pre(self._linker, module, ctypes.addressof(linked)))
        return linked.value or 0

    def _define_sync(
        self, module: bytes, name: str, parameters: str, handler: Callable[..., None], results: str = "i"
    ) -> None:
        unpack = struct.Struct("<" + "".join({"i": "I12x", "I": "Q8x"}[p] for p in parameters)).unpack
        size = capi.RAW_VALUE_SIZE * len(parameters)
        answers = bool(results)

        def callback(_env: int, _caller: int, values: int, _count: int) -> int:
            instance = self.current
            assert instance is not None
            try:
                handler(instance, *unpack(capi.read(values, size)))
                code = wasi.SUCCESS
            except wasi.Errno as error:
                code = error.code
            except BaseException as error:
                return instance.abort(error)
            if answers:
                capi.i32(values).value = code
            if monotonic() > instance.slice_end:
                instance.end_slice()
            return 0

        self._add(capi.linker_define_sync, capi.SYNC_CALLBACK(callback), module, name, parameters, results)

    def _define_async(self, module: bytes, name: str, parameters: str, handler: Callable[..., int]) -> None:
        """`handler` answers at once, or calls `Instance.suspend` and gives its answer when the guest goes on."""
        fields = "".join(
            {"i": f"I{capi.VALUE_SIZE - 4}x", "I": f"Q{capi.VALUE_SIZE - 8}x"}[p] for p in parameters
        )
        unpack = struct.Struct("<" + fields).unpack
        size = capi.VALUE_SIZE * len(parameters)

        def callback(
            _env: int,
            _caller: int,
            arguments: int,
            _n: int,
            results: int,
            _m: int,
            trap: int,
            continuation: int,
        ) -> None:
            instance = self.current
            assert instance is not None
            # First of all: without a continuation Wasmtime aborts the process, whatever else went wrong.
            frame = capi.Continuation.from_address(continuation)
            frame.callback, frame.env, frame.finalizer = capi.POLL_FLAG, instance.finished_address, None
            capi.u8(results).value = capi.KIND_I32
            capi.u8(instance.finished_address).value = ord("1")
            instance.call = results + capi.VALUE_OF, trap
            answer = wasi.SUCCESS
            try:
                # The first value's kind stands before its number.
                raw = capi.read(arguments + capi.VALUE_OF, size)
                answer = handler(instance, *unpack(raw))
            except wasi.Errno as error:
                answer = error.code
            except BaseException as error:
                capi.u64(trap).value = instance.abort(error)
            capi.i32(results + capi.VALUE_OF).value = answer
            if instance.wake is None and monotonic() > instance.slice_end:
                instance.end_slice()

        self._add(capi.linker_define_async, capi.ASYNC_CALLBACK(callback), module, name, parameters, "i")

    def _add(
        self,
        define: Callable[..., int],
        callback: Any,
        module: bytes,
        name: str,
        parameters: str,
        results: str,
    ) -> None:
        self._callbacks.append(callback)
        kind = capi.functype(parameters, results)
        address = ctypes.cast(callback, ctypes.c_void_p).value
        encoded = name.encode()
        capi.check(
            define(self._linker, module, len(module), encoded, len(encoded), kind, address, None, None)
        )  # fmt: skip
        capi.functype_delete(kind)


def _of_wasi(handler: Callable[..., None]) -> Callable[..., None]:
    def call(instance: Instance, *arguments: int) -> None:
        handler(instance.wasi, *arguments)

    return call


def _asking(handler: Callable[..., wasi.Ask | None]) -> Callable[..., int]:
    """Of a WASI function that may have to ask the parent process, or to wait for input."""

    def call(instance: Instance, *arguments: int) -> int:
        ask = handler(instance.wasi, *arguments)
        if ask is not None:

            def finish() -> int:
                ask.finish(instance.answer)
                return wasi.SUCCESS

            instance.asked = ask
            instance.suspend(FOREVER, finish)
        return wasi.SUCCESS

    return call


def _poll_oneoff(instance: Instance, subscriptions: int, events: int, count: int, count_out: int) -> int:
    pause = instance.wasi.sleep(subscriptions, events, count, count_out)
    calls = instance.calls
    wake = instance.wasi.world.wait(pause, calls is not None and calls.is_under_way)
    if wake:
        instance.suspend(wake)
    return wasi.SUCCESS


def _host_call(instance: Instance, address: int, length: int) -> int:
    calls = instance.calls
    if calls is None or length > calls.most_request_bytes:
        return NO_SUCH_OPERATION
    answer = calls.operate(instance.read(address, length))
    if isinstance(answer, int):
        return answer
    if isinstance(answer, Waiting):

        def finish() -> int:
            instance.answer = calls.take()
            return len(instance.answer)

        instance.suspend(answer.wake, finish)
        return 0
    instance.answer = answer
    return len(answer)


def _host_read(instance: Instance, address: int) -> None:
    instance.write(address, instance.answer)
    instance.answer = b""
