"""Wasmtime's C API: raw signatures and layouts. The one file that knows them.

The shared library of the `wasmtime` wheel is loaded directly: importing the package costs tens of milliseconds,
which a worker would pay at every start, and its classes cost microseconds per call, which an evaluation would
pay. Everything here takes and gives plain addresses (`int`), so a call makes no ctypes object.

Layouts and signatures are those of the headers of wasmtime 50 (`wasmtime.h`, `wasmtime/async.h`); `check_version` in
`installation.py` refuses any other.

Source: https://docs.wasmtime.dev/c-api/
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_int32, c_int64, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any

from wasmeval.errors import SetupError
from wasmeval.wasm.installation import MACHINE, PACKAGE, VERSION

_LIBRARY = PACKAGE / f"linux-{MACHINE}" / "_libwasmtime.so"


def _load() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(_LIBRARY))
    except OSError as error:
        raise SetupError(
            f"wasmtime {VERSION} has no library for this machine (Linux, {MACHINE}): {error}"
        ) from error


_dll = _load()


def _function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = _dll[name]
    function.restype = result
    function.argtypes = arguments
    return function


# --- layouts -------------------------------------------------------------------------------------------------------


class ByteVec(ctypes.Structure):
    """`wasm_byte_vec_t`; also `wasm_valtype_vec_t`, whose elements are pointers."""

    _fields_ = [("size", c_size_t), ("data", c_void_p)]


class _InstanceHandle(ctypes.Structure):
    _fields_ = [("store_id", c_uint64), ("index", c_size_t)]


class _Extern(ctypes.Structure):
    _fields_ = [("kind", c_uint8), ("of", c_uint64 * 3)]


class _Value(ctypes.Structure):
    _fields_ = [("kind", c_uint8), ("of", c_uint64 * 3)]


class Continuation(ctypes.Structure):
    """`wasmtime_async_continuation_t`: `callback(env)` says whether the host call is finished."""

    _fields_ = [("callback", c_void_p), ("env", c_void_p), ("finalizer", c_void_p)]


class CallFrame(ctypes.Structure):
    """Everything Wasmtime keeps pointers to while a call is under way, in one allocation that does not move.

    Its owner keeps it alive until the call's future is deleted.
    """

    _fields_ = [
        ("instance", _InstanceHandle),
        ("memory", _Extern),
        ("reserve", _Extern),
        ("evaluate", _Extern),
        ("trap", c_void_p),
        ("error", c_void_p),
        ("argument", _Value),
        ("result", _Value),
        ("fuel", c_uint64),
        ("finished", ctypes.c_char * 2),
    ]


EXTERN_OF = _Extern.of.offset
VALUE_OF = _Value.of.offset
VALUE_SIZE = ctypes.sizeof(_Value)
RAW_VALUE_SIZE = 16
KIND_I32, KIND_I64 = 0, 1

SYNC_CALLBACK = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_size_t)
"""(env, caller, args_and_results, count) -> trap or 0; values are 16 bytes each."""
ASYNC_CALLBACK = ctypes.CFUNCTYPE(
    None, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p
)
"""(env, caller, args, count, results, count, trap_out, continuation_out); values are VALUE_SIZE bytes each."""

# The continuation of every suspended host call is libc's atoi on the frame's one-character `finished` flag: a poll
# then costs no Python call.
_libc = ctypes.CDLL(None, use_errno=True)
POLL_FLAG: int = ctypes.cast(_libc.atoi, c_void_p).value or 0

# --- engine and configuration --------------------------------------------------------------------------------------

config_new = _function("wasm_config_new", c_void_p)
engine_new_with_config = _function("wasm_engine_new_with_config", c_void_p, c_void_p)
engine_delete = _function("wasm_engine_delete", None, c_void_p)
config_consume_fuel_set = _function("wasmtime_config_consume_fuel_set", None, c_void_p, c_bool)
config_memory_init_cow_set = _function("wasmtime_config_memory_init_cow_set", None, c_void_p, c_bool)
config_max_wasm_stack_set = _function("wasmtime_config_max_wasm_stack_set", None, c_void_p, c_size_t)
config_async_stack_size_set = _function("wasmtime_config_async_stack_size_set", None, c_void_p, c_size_t)
pooling_config_new = _function("wasmtime_pooling_allocation_config_new", c_void_p)
pooling_config_delete = _function("wasmtime_pooling_allocation_config_delete", None, c_void_p)
pooling_strategy_set = _function("wasmtime_pooling_allocation_strategy_set", None, c_void_p, c_void_p)


def pooling_set(config: int, name: str, value: int) -> None:
    """Set `name` (`total_memories`, `max_memory_size`, ...) of a pooling allocation configuration."""
    _function(f"wasmtime_pooling_allocation_config_{name}_set", None, c_void_p, c_size_t)(config, value)


# --- modules -------------------------------------------------------------------------------------------------------

module_new = _function("wasmtime_module_new", c_void_p, c_void_p, c_char_p, c_size_t, c_void_p)
module_delete = _function("wasmtime_module_delete", None, c_void_p)
module_serialize = _function("wasmtime_module_serialize", c_void_p, c_void_p, c_void_p)
module_deserialize_file = _function(
    "wasmtime_module_deserialize_file", c_void_p, c_void_p, c_char_p, c_void_p
)
byte_vec_delete = _function("wasm_byte_vec_delete", None, c_void_p)

# --- linking -------------------------------------------------------------------------------------------------------

linker_new = _function("wasmtime_linker_new", c_void_p, c_void_p)
linker_define_sync = _function(
    "wasmtime_linker_define_func_unchecked",
    c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, c_void_p, c_void_p, c_void_p,
)  # fmt: skip
linker_define_async = _function(
    "wasmtime_linker_define_async_func",
    c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p, c_void_p, c_void_p, c_void_p,
)  # fmt: skip
linker_instantiate_pre = _function("wasmtime_linker_instantiate_pre", c_void_p, c_void_p, c_void_p, c_void_p)
_valtype_new = _function("wasm_valtype_new", c_void_p, c_uint8)
_valtype_vec_new = _function("wasm_valtype_vec_new", None, c_void_p, c_size_t, c_void_p)
_functype_new = _function("wasm_functype_new", c_void_p, c_void_p, c_void_p)
functype_delete = _function("wasm_functype_delete", None, c_void_p)


def functype(parameters: str, results: str) -> int:
    """A new function type; each character is a value type: `i` for i32, `I` for i64."""

    def vector(types: str) -> ByteVec:
        elements = (c_void_p * len(types))(*[_valtype_new({"i": KIND_I32, "I": KIND_I64}[t]) for t in types])
        vec = ByteVec()
        _valtype_vec_new(ctypes.addressof(vec), len(types), ctypes.addressof(elements))
        return vec

    first, second = vector(parameters), vector(results)
    address: int = _functype_new(ctypes.addressof(first), ctypes.addressof(second))
    return address


# --- stores, instances, calls --------------------------------------------------------------------------------------

store_new = _function("wasmtime_store_new", c_void_p, c_void_p, c_void_p, c_void_p)
store_context = _function("wasmtime_store_context", c_void_p, c_void_p)
store_delete = _function("wasmtime_store_delete", None, c_void_p)
store_limiter = _function(
    "wasmtime_store_limiter", None, c_void_p, c_int64, c_int64, c_int64, c_int64, c_int64
)
context_set_fuel = _function("wasmtime_context_set_fuel", c_void_p, c_void_p, c_uint64)
context_get_fuel = _function("wasmtime_context_get_fuel", c_void_p, c_void_p, c_void_p)
context_fuel_async_yield_interval = _function(
    "wasmtime_context_fuel_async_yield_interval", c_void_p, c_void_p, c_uint64
)
instance_pre_instantiate_async = _function(
    "wasmtime_instance_pre_instantiate_async", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p
)
instance_export_get = _function(
    "wasmtime_instance_export_get", c_bool, c_void_p, c_void_p, c_char_p, c_size_t, c_void_p
)
func_call_async = _function(
    "wasmtime_func_call_async",
    c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p,
)  # fmt: skip
call_future_poll = _function("wasmtime_call_future_poll", c_bool, c_void_p)
call_future_delete = _function("wasmtime_call_future_delete", None, c_void_p)
memory_data = _function("wasmtime_memory_data", c_void_p, c_void_p, c_void_p)
memory_data_size = _function("wasmtime_memory_data_size", c_size_t, c_void_p, c_void_p)
memory_grow = _function("wasmtime_memory_grow", c_void_p, c_void_p, c_void_p, c_uint64, c_void_p)

# --- traps and errors ----------------------------------------------------------------------------------------------

trap_new = _function("wasmtime_trap_new", c_void_p, c_char_p, c_size_t)
_trap_code = _function("wasmtime_trap_code", c_bool, c_void_p, c_void_p)
_trap_delete = _function("wasm_trap_delete", None, c_void_p)
_error_message = _function("wasmtime_error_message", None, c_void_p, c_void_p)
_error_delete = _function("wasmtime_error_delete", None, c_void_p)

TRAP_NAMES = (
    "stack overflow", "out of bounds memory access", "misaligned memory access", "undefined table element",
    "uninitialized table element", "indirect call type mismatch", "integer overflow", "integer divide by zero",
    "invalid conversion to integer", "unreachable executed", "interrupted", "all fuel consumed",
)  # fmt: skip
"""`wasmtime_trap_code_enum`, by code."""
STACK_OVERFLOW, UNREACHABLE, OUT_OF_FUEL = 0, 9, 11
HOST_TRAP = -1
"""Given by `take_trap` for a trap that a host function made."""


def take_trap(address: int) -> int:
    """The code of a trap, HOST_TRAP when it has none; the trap is freed."""
    code = c_uint8(0)
    known = _trap_code(address, ctypes.addressof(code))
    _trap_delete(address)
    return code.value if known else HOST_TRAP


def take_error(address: int) -> str:
    """The message of an error; the error is freed."""
    vec = ByteVec()
    _error_message(address, ctypes.addressof(vec))
    message = ctypes.string_at(vec.data, vec.size).decode("utf-8", "replace") if vec.data else ""
    byte_vec_delete(ctypes.addressof(vec))
    _error_delete(address)
    return message


def check(address: int | None) -> None:
    """Raise SetupError with an error's message; None is success. For configuration, never for guests."""
    if address:
        raise SetupError(f"wasmtime: {take_error(address)}")


# --- memory --------------------------------------------------------------------------------------------------------

read = ctypes.string_at
# ctypes' own memmove makes an object of its result, which takes as long as a page.
write: Callable[[int, int | bytes, int], None] = _libc.memmove
_libc.memmove.restype, _libc.memmove.argtypes = None, (c_void_p, c_void_p, c_size_t)
_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype, _view.argtypes = ctypes.py_object, (c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_PyBUF_WRITE = 0x200
u8, u32, u64 = c_uint8.from_address, c_uint32.from_address, c_uint64.from_address
i32, i64 = c_int32.from_address, c_int64.from_address


def view(address: int, length: int) -> memoryview:
    """`length` bytes of this process's memory, to be read and written, for as long as they are there."""
    # An array of ctypes' own has a type for each length, which stays for ever where no cycles are collected.
    found: memoryview = _view(address, length, _PyBUF_WRITE)
    return found


def write_view(address: int, data: bytes | memoryview) -> None:
    """As `write`, of anything that has bytes."""
    view(address, len(data))[:] = data
