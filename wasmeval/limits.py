"""Limits and usage: what an evaluation may spend, and what it spent.

Each limit has a unit, a default, a ceiling and a way to be told that it was reached:

| limit | unit | reached: status | what the guest sees |
|---|---|---|---|
| `fuel` | Wasm fuel, about one a Wasm instruction | `fuel_exhausted` | nothing: it ends |
| `deadline_seconds` | wall clock from its start | `deadline_exceeded` | nothing: it ends, asleep or not |
| `memory_bytes` | linear memory, interpreter included | `memory_exceeded` | `MemoryError`, out of memory |
| `output_bytes` | each of stdout, stderr, value | `output_exceeded` (value) | nothing; streams keep head and tail |
| `workspace_bytes`, `workspace_files` | `/workspace` and `/tmp` together | the snippet's error | `OSError`, `ENOSPC` |
| `tool_calls`, `tool_calls_in_flight` | calls in total, at a time | the snippet's error | `ToolLimitError` |
| `tool_call_bytes`, `tool_bytes` | JSON each way of one call, of all | the snippet's error | `ToolLimitError` |
| `tool_seconds` | wall clock of one call | the snippet's error | `ToolLimitError` |
| `cpu_seconds` | CPU time of a VM | `fuel_exhausted` | nothing: it ends |
| `processes` | processes and threads in a VM at a time | the snippet's error | `EAGAIN` |

`fuel` is Wasm's alone, the last two are a VM's: in what applied, those of the other tier are None. In a VM
`memory_bytes` is what all the snippet's processes take together, and the workspace is a disk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from wasmeval.errors import InvalidArgument

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What an evaluation may spend. `None` takes the service's default; above its ceiling a value is clamped.

    Raises InvalidArgument for what can never be a limit: zero, negative, NaN, infinite, or of another type.
    """

    fuel: int | None = None
    deadline_seconds: float | None = None
    memory_bytes: int | None = None
    output_bytes: int | None = None
    workspace_bytes: int | None = None
    workspace_files: int | None = None
    tool_calls: int | None = None
    tool_calls_in_flight: int | None = None
    tool_call_bytes: int | None = None
    tool_bytes: int | None = None
    tool_seconds: float | None = None
    cpu_seconds: float | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        for name in _INTEGERS:
            if (value := getattr(self, name)) is not None:
                _check_integer(name, value)
        for name in _SECONDS:
            if (value := getattr(self, name)) is not None:
                _check_seconds(name, value)

    def within(self, defaults: Limits, ceilings: Limits) -> Limits:
        """These limits with every gap filled from `defaults` and nothing above `ceilings`.

        A ceiling of None does not clamp. The result has no gap where `defaults` has none.
        """
        values = {}
        for field in fields(self):
            value = getattr(self, field.name)
            value = getattr(defaults, field.name) if value is None else value
            ceiling = getattr(ceilings, field.name)
            values[field.name] = value if ceiling is None or value is None else min(value, ceiling)
        return Limits(**values)


ABSENT = {"wasm": ("cpu_seconds", "processes"), "vm": ("fuel",)}
"""The limits that a tier does not have."""

_SECONDS = ("deadline_seconds", "tool_seconds", "cpu_seconds")
_INTEGERS = tuple(field.name for field in fields(Limits) if field.name not in _SECONDS)


def _check_integer(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"limits.{name}", f"must be a whole number, not {value!r}")
    if not 0 < value < 1 << 63:
        raise InvalidArgument(f"limits.{name}", f"must be between 1 and 2**63 - 1, not {value}")


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"limits.{name}", f"must be a number of seconds, not {value!r}")
    if not math.isfinite(value) or value <= 0:
        raise InvalidArgument(f"limits.{name}", f"must be a positive, finite number of seconds, not {value}")


def call_timeout(timeout: object) -> float | None:
    """The time-out of a call in seconds; None for none, and for one of more than three years.

    Raises InvalidArgument for what is no positive number.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidArgument("timeout", f"must be a positive number of seconds, not {timeout!r}")
    # Neither gRPC nor a lock waits much longer than that.
    return None if timeout > 1e8 else float(timeout)


DEFAULTS = Limits(
    # About five seconds of CPU in CPython on the machines we measured (20 M fuel a millisecond): far more than
    # a tool step needs, and little enough that a loop gone wrong is a hiccup.
    fuel=100_000_000_000,
    # An agent's user waits this long without giving up; sleeping counts.
    deadline_seconds=10.0,
    # CPython's own image takes about 16 MiB of it; the rest holds a few million objects.
    memory_bytes=256 * MIB,
    # More text than a model's context wants, and small enough for any transport.
    output_bytes=1 * MIB,
    # A data set that an agent looks at, and what it makes of it; held in memory.
    workspace_bytes=64 * MIB,
    workspace_files=1024,
    # A snippet that needs more than this has a loop where a tool with a list would do.
    tool_calls=256,
    tool_calls_in_flight=16,
    # About what a model's context holds.
    tool_call_bytes=1 * MIB,
    tool_bytes=16 * MIB,
    tool_seconds=60.0,
)
"""What applies when neither the caller nor the operator says otherwise."""

CEILINGS = Limits(
    fuel=1_000_000_000_000,
    deadline_seconds=300.0,
    memory_bytes=1024 * MIB,
    output_bytes=8 * MIB,
    workspace_bytes=1024 * MIB,
    workspace_files=65_536,
    tool_calls=65_536,
    tool_calls_in_flight=256,
    tool_call_bytes=8 * MIB,
    tool_bytes=256 * MIB,
    tool_seconds=3600.0,
)
"""What no caller gets past unless the operator raises it."""

VM_DEFAULTS = Limits(
    # Set-up of a package, a build, a test-suite: what takes a VM takes longer. Under software emulation all the more.
    deadline_seconds=60.0,
    cpu_seconds=60.0,
    memory_bytes=512 * MIB,
    output_bytes=1 * MIB,
    # On a disk of its own, which costs no memory.
    workspace_bytes=512 * MIB,
    # A virtual environment with a few packages has ten thousand.
    workspace_files=65_536,
    processes=128,
    tool_calls=256,
    tool_calls_in_flight=16,
    tool_call_bytes=1 * MIB,
    tool_bytes=16 * MIB,
    tool_seconds=60.0,
)
"""As DEFAULTS, in a VM."""

VM_CEILINGS = Limits(
    deadline_seconds=600.0,
    cpu_seconds=600.0,
    # An image's own memory lowers it.
    memory_bytes=4096 * MIB,
    output_bytes=8 * MIB,
    workspace_bytes=4096 * MIB,
    workspace_files=1_048_576,
    processes=4096,
    tool_calls=65_536,
    tool_calls_in_flight=256,
    tool_call_bytes=8 * MIB,
    tool_bytes=256 * MIB,
    tool_seconds=3600.0,
)
"""As CEILINGS, in a VM."""


MOST_MEMORY_BYTES = 4096 * MIB
"""No ceiling is higher: what Wasm's 32-bit memories address."""

MOST_TOOL_CALL_BYTES = 8 * MIB
"""No ceiling is higher: a call or its answer must fit into one message of 16 MiB."""

MOST_OUTPUT_BYTES = 8 * MIB
"""No ceiling is higher: three outputs, some of their bytes threefold, must fit into one reply of 64 MiB."""


MAX_BATCH = 1024
"""Evaluations in one batch; their messages and results must fit into memory together."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an evaluation spent.

    `fuel` is deterministic for the same code, inputs and image; `wall_seconds` counts from the guest's start to its
    end, queueing excluded; `peak_memory_bytes` is the linear memory at its end, which never shrinks; `tool_calls` are
    those that were begun; `virtual_ns` is how far a deterministic snippet's clock went, in nanoseconds. Of a VM `fuel`
    is 0, `cpu_seconds` is the CPU time that it took, and `peak_memory_bytes` the most that the snippet's processes had
    together.
    """

    fuel: int = 0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    tool_calls: int = 0
    virtual_ns: int = 0
    cpu_seconds: float = 0.0
