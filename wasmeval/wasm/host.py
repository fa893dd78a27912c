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

if TYPE_CHECKING:
    from wasmeval.wasm.instance import Instance

ABI_MODULE = b"wasmeval"
_NO_SUCH_OPERATION = -1


class Host:
    """The host functions, linked to a module by `link`. Lives as long as its engine."""

    def __init__(self, engine: int) -> None:
        self.current: Instance | None = None
        self._engine = engine
        self._callbacks: list[Any] = []
        self._linker: int = capi.linker_new(engine)
        for name, (parameters, handler) in wasi.FUNCTIONS.items():
            self._define_sync(wasi.MODULE, name, parameters, handler)
        self._define_sync(wasi.MODULE, "proc_exit", "i", wasi.Wasi.proc_exit, results="")
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
                handler(instance.wasi, *unpack(capi.read(values, size)))
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

    def _define_async(
        self, module: bytes, name: str, parameters: str, handler: Callable[..., tuple[int, int]]
    ) -> None:
        fields = "".join({"i": "I"}[p] + f"{capi.VALUE_SIZE - 4}x" for p in parameters)
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
            answer, wake = wasi.SUCCESS, 0
            try:
                # The first value's kind stands before its number.
                raw = capi.read(arguments + capi.VALUE_OF, size)
                answer, wake = handler(instance.wasi, *unpack(raw))
            except wasi.Errno as error:
                answer = error.code
            except BaseException as error:
                capi.u64(trap).value = instance.abort(error)
            capi.i32(results + capi.VALUE_OF).value = answer
            instance.suspend(wake)
            if not wake and monotonic() > instance.slice_end:
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


def _poll_oneoff(
    guest: wasi.Wasi, subscriptions: int, events: int, count: int, count_out: int
) -> tuple[int, int]:
    return wasi.SUCCESS, guest.sleep(subscriptions, events, count, count_out)


def _host_call(_guest: wasi.Wasi, _address: int, _length: int) -> tuple[int, int]:
    # No operation is offered yet; the ABI has the import so that images need no rebuild when one is.
    return _NO_SUCH_OPERATION, 0


def _host_read(_guest: wasi.Wasi, _address: int) -> None:
    """Nothing was ever answered, so there is nothing to read."""
