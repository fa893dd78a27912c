"""Engine: Wasmtime configured for many short-lived, copy-on-write, fuel-metered instances on fibers."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

from wasmeval.errors import SetupError
from wasmeval.limits import CEILINGS, MIB
from wasmeval.wasm import capi
from wasmeval.wasm.installation import check_version


class EngineSettings(NamedTuple):
    """How many instances an engine holds at once, and how large each may be.

    `slots` instances reserve address space, not memory; `warm_slots` of the free ones keep their image mapped.
    `max_wasm_stack` is native stack a guest may use.

    A dropped instance gives its pages back to the kernel at once. Wasmtime could keep them (its PAGEMAP_SCAN
    option, which the C API cannot set): measured, looking for the dirty pages of CPython's image then costs the
    0.1 ms that the page faults it spares do.
    """

    slots: int = 1100
    max_memory_bytes: int = CEILINGS.memory_bytes or 1024 * MIB
    max_wasm_stack: int = 4 * MIB
    warm_slots: int = 64


class Engine:
    """A Wasmtime engine. Raises SetupError for a configuration Wasmtime refuses; close it after all its modules.

    What its configuration changes of compiled code, `installation.CODE_SETTINGS` must name.
    """

    def __init__(self, settings: EngineSettings | None = None) -> None:
        check_version()
        config = capi.config_new()
        capi.config_consume_fuel_set(config, True)
        capi.config_memory_init_cow_set(config, True)
        if settings:
            # The fiber's stack must be the larger one, or Wasmtime panics and takes the process with it.
            capi.config_async_stack_size_set(config, settings.max_wasm_stack + MIB)
            capi.config_max_wasm_stack_set(config, settings.max_wasm_stack)
            _set_pooling(config, settings)
        self.address: int | None = capi.engine_new_with_config(config)
        if not self.address:
            raise SetupError("wasmtime refused the engine's configuration")

    def compile(self, module: bytes) -> bytes:
        """`module` compiled for this machine, in Wasmtime's own serialised form. Takes seconds."""
        compiled = ctypes.c_void_p()
        capi.check(capi.module_new(self.address, module, len(module), ctypes.addressof(compiled)))
        vec = capi.ByteVec()
        try:
            capi.check(capi.module_serialize(compiled.value, ctypes.addressof(vec)))
        finally:
            capi.module_delete(compiled.value)
        try:
            return capi.read(vec.data, vec.size)
        finally:
            capi.byte_vec_delete(ctypes.addressof(vec))

    def load(self, path: Path) -> Module:
        """The compiled module at `path`, mapped. The file is trusted as code: see cache.py for why it may be."""
        module = ctypes.c_void_p()
        error = capi.module_deserialize_file(self.address, bytes(path), ctypes.addressof(module))
        try:
            capi.check(error)
        except SetupError as refused:
            raise SetupError(f"{refused}; remove {path}, it is made anew") from None
        return Module(module.value or 0)

    def close(self) -> None:
        """Free the engine. What was made from it keeps what it needs."""
        if self.address:
            capi.engine_delete(self.address)
            self.address = None


class Module(NamedTuple):
    """A compiled module, by address; lives as long as its process."""

    address: int


def _set_pooling(config: int, settings: EngineSettings) -> None:
    pooling = capi.pooling_config_new()
    values = {
        "total_core_instances": settings.slots,
        "total_memories": settings.slots,
        "total_tables": settings.slots,
        "total_stacks": settings.slots,
        "max_memory_size": settings.max_memory_bytes,
        "table_elements": 40_000,
        "max_core_instance_size": 2 * MIB,
        "max_unused_warm_slots": settings.warm_slots,
        # A table is cleared in place: 44 KiB for CPython, less than its page faults cost.
        "table_keep_resident": MIB,
    }
    for name, value in values.items():
        capi.pooling_set(pooling, name, value)
    capi.pooling_strategy_set(config, pooling)
    capi.pooling_config_delete(pooling)
