"""Policy: what limits apply, and what becomes of a request under it: a job, or the error that says why not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Final

from wasmeval.errors import InvalidArgument, SetupError
from wasmeval.inputs import (
    MAX_PROGRAM_BYTES,
    MAX_VARIABLE_BYTES,
    compose_arrays,
    compose_environment,
    compose_inputs,
)
from wasmeval.limits import (
    ABSENT,
    CEILINGS,
    DEFAULTS,
    MOST_MEMORY_BYTES,
    MOST_OUTPUT_BYTES,
    MOST_TOOL_CALL_BYTES,
    VM_CEILINGS,
    VM_DEFAULTS,
    Limits,
)
from wasmeval.model import Job, Request, RuntimeInfo
from wasmeval.offer import NOTHING, Offer
from wasmeval.runtimes import Catalogue, Runtime

MAX_CODE_BYTES = 1 << 20
MAX_ARGUMENTS = 4096
"""Of a command, its program counted."""

BASH: Final = "bash"
"""The language that a VM alone has."""

VM_COMMAND: Final = "vm-command"
"""The runtime of commands."""

VM_RUNTIMES = {"python": "vm-python", "javascript": "vm-javascript"}
"""What in a VM runs the snippets of a runtime in Wasm. What translates to one of these has no place there."""

_UNSET = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What limits apply, of those that `tier` has: `defaults` where the caller sets none, never more than `ceilings`.
    `vm` is the policy in a VM, a built-in one by default.

    Raises InvalidArgument for a ceiling that nothing could keep, and for a default above its ceiling.
    """

    defaults: Limits = DEFAULTS
    ceilings: Limits = CEILINGS
    vm: Policy | None = None
    tier: str = "wasm"
    _unasked: Limits = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, most in (
            ("memory_bytes", MOST_MEMORY_BYTES),
            ("output_bytes", MOST_OUTPUT_BYTES),
            ("tool_call_bytes", MOST_TOOL_CALL_BYTES),
        ):
            ceiling = getattr(self.ceilings, name)
            if ceiling is not None and ceiling > most:
                raise InvalidArgument(
                    f"ceilings.{name}", f"{ceiling} is more than {most}, the most there can be"
                )
        for limit in fields(Limits):
            default, ceiling = getattr(self.defaults, limit.name), getattr(self.ceilings, limit.name)
            if default is not None and ceiling is not None and default > ceiling:
                raise InvalidArgument(
                    f"defaults.{limit.name}",
                    f"{default} is above its ceiling of {ceiling}; lower it or raise the ceiling",
                )
        object.__setattr__(self, "_unasked", self._within(_UNSET))

    def apply(self, limits: Limits | None) -> Limits:
        """The limits without gaps that an evaluation gets when its caller asks for `limits`."""
        if limits is None or limits == _UNSET:
            return self._unasked
        return self._within(limits)

    def of(self, request: Request) -> Policy:
        """The policy of the tier that `request` goes to at first."""
        return self.in_vm if needs_vm(request) else self

    @property
    def in_vm(self) -> Policy:
        """The policy in a VM."""
        return self.vm or _IN_VM

    def _within(self, limits: Limits) -> Limits:
        applied = limits.within(self.defaults, self.ceilings)
        absent = {name: None for name in ABSENT[self.tier] if getattr(applied, name) is not None}
        return replace(applied, **absent) if absent else applied

    def check(self, catalogue: Catalogue) -> None:
        """Raises SetupError when an installed runtime could not run under this policy's defaults."""
        for runtime in catalogue.runtimes:
            if (self._unasked.memory_bytes or 0) < runtime.minimum_memory_bytes:
                raise SetupError(
                    f"memory_bytes is {self._unasked.memory_bytes} by default, and {runtime.name} needs "
                    f"{runtime.minimum_memory_bytes}; raise the default and the ceiling"
                )


_IN_VM = Policy(VM_DEFAULTS, VM_CEILINGS, tier="vm")


def needs_vm(request: Request) -> bool:
    """Whether a request goes to a VM at once."""
    return request.tier == "vm" or request.language == BASH or bool(request.command)


def prepare(request: Request, catalogue: Catalogue, policy: Policy, offer: Offer = NOTHING) -> Job:
    """The job of a request: checked, clamped, encoded. Raises InvalidArgument, and has then cost nothing."""
    if needs_vm(request):
        return _prepare_for_vm(request, catalogue, policy.in_vm, offer)
    runtime, translator = catalogue.for_language(request.language), ""
    limits = policy.apply(request.limits)
    check_memory(limits, runtime)
    if runtime.translates_to:
        runtime, translator = catalogue[runtime.translates_to], runtime.name
        check_memory(limits, runtime)
    deterministic = request.deterministic
    if deterministic is not None:
        request = _ordered(request)
    inputs = compose_inputs(runtime.name, request.inputs)
    arrays = compose_arrays(runtime.name, request.inputs, request.arrays)
    grants = request.grants
    if grants is not None:
        is_replay = deterministic is not None and deterministic.transcript is not None
        grants = offer.check(grants, limits, runtime.name, _variables(request), is_replay=is_replay)
    if request.cache:
        _check_cache(request)
    code = _check_code(request.code)
    if deterministic is None:
        return Job(
            runtime.name,
            code,
            inputs,
            limits,
            grants,
            translator,
            tier=request.tier,
            asked=request.limits,
            arrays=arrays,
        )
    world = deterministic.world()
    return Job(
        runtime.name,
        code,
        inputs,
        limits,
        grants,
        translator,
        None,
        deterministic,
        world,
        request.cache,
        arrays=arrays,
    )


def _variables(request: Request) -> Collection[str]:
    return [*request.inputs, *request.arrays] if request.arrays else request.inputs


def _prepare_for_vm(request: Request, catalogue: Catalogue, policy: Policy, offer: Offer) -> Job:
    """As `prepare`, by the policy in a VM."""
    _check_for_vm(request)
    limits = policy.apply(request.limits)
    code, base, runtime = b"", "", VM_COMMAND
    if request.command:
        room = _check_command(request)
    else:
        code, room = _check_code(request.code), MAX_PROGRAM_BYTES
        base, runtime = runtime_in_vm(request.language, catalogue)
    inputs = compose_inputs(base, request.inputs) if base else compose_environment(request.inputs, room)
    arrays = compose_arrays(base, request.inputs, request.arrays)
    grants = request.grants
    if grants is not None:
        if grants.tools and not base:
            what = "a command" if request.command else BASH
            raise InvalidArgument("tools", f"{what} calls none; leave them out, or use python or javascript")
        grants = offer.check(grants, limits, base, _variables(request))
    return Job(runtime, code, inputs, limits, grants, tier="vm", command=request.command, arrays=arrays)


def _check_for_vm(request: Request) -> None:
    if request.tier == "wasm":
        what = "a command" if request.command else BASH
        raise InvalidArgument("tier", f"{what} runs in a VM alone; leave tier out, or ask for 'vm'")
    if request.deterministic is not None:
        raise InvalidArgument(
            "deterministic", "a VM repeats nothing exactly; leave it out, or run it in Wasm"
        )
    if request.cache:
        raise InvalidArgument("cache", "is for deterministic evaluations, and a VM has none; leave it out")
    if request.grants is not None and request.grants.mounts:
        raise InvalidArgument("mounts", "a VM mounts no folders; send files instead, or run it in Wasm")


def runtime_in_vm(language: str, catalogue: Catalogue) -> tuple[str, str]:
    """Whose names a language's inputs and tools have, empty for a shell's, and what runs it in a VM."""
    if language == BASH:
        return "", "vm-bash"
    name = catalogue.for_language(language).name
    if name not in VM_RUNTIMES:
        raise InvalidArgument(
            "language", f"a VM runs no {name}; leave tier out, or send python or javascript"
        )
    return name, VM_RUNTIMES[name]


def _check_command(request: Request) -> int:
    """How many bytes its environment may have."""
    if request.code:
        raise InvalidArgument("code", "a command runs in place of code; leave one of them out")
    if request.language:
        raise InvalidArgument("language", "a command has none; leave it empty")
    if len(request.command) > MAX_ARGUMENTS:
        raise InvalidArgument("command", f"{len(request.command)} arguments; send at most {MAX_ARGUMENTS}")
    if not request.command[0]:
        raise InvalidArgument("command[0]", "empty; it is the program to run")
    room = MAX_PROGRAM_BYTES
    for index, argument in enumerate(request.command):
        try:
            size = len(argument.encode()) + 1
        except UnicodeEncodeError as error:
            text = f"a lone surrogate at character {error.start}; remove it"
            raise InvalidArgument(f"command[{index}]", text) from None
        if "\0" in argument:
            raise InvalidArgument(
                f"command[{index}]", "a NUL character, which no argument can hold; remove it"
            )
        if size > MAX_VARIABLE_BYTES:
            raise InvalidArgument(
                f"command[{index}]", f"more than {MAX_VARIABLE_BYTES} bytes; send it as a file"
            )
        room -= size
    if room < 0:
        raise InvalidArgument("command", f"more than {MAX_PROGRAM_BYTES} bytes together; send a file instead")
    return room


def _ordered(request: Request) -> Request:
    """The same, and what has names in their order: a message's map has none. Raises InvalidArgument for what a
    deterministic evaluation cannot have."""
    grants = request.grants
    if grants is not None:
        if grants.mounts:
            raise InvalidArgument(
                "mounts", "what is in a folder may change; a deterministic evaluation is sent files instead"
            )
        grants = replace(grants, files=dict(sorted(grants.files.items())))
    inputs, arrays = dict(sorted(request.inputs.items())), dict(sorted(request.arrays.items()))
    return request._replace(inputs=inputs, arrays=arrays, grants=grants)


def _check_cache(request: Request) -> None:
    if request.deterministic is None:
        raise InvalidArgument("cache", "is for deterministic evaluations; set deterministic, or leave it out")
    if request.deterministic.transcript is not None:
        raise InvalidArgument("cache", "a repetition runs; leave cache out")
    grants = request.grants
    if grants is not None and (grants.tools or grants.http or grants.stdin):
        raise InvalidArgument(
            "cache", "is for evaluations without tools, HTTP and standard input; leave it out, or them"
        )


def check_memory(limits: Limits, runtime: Runtime) -> None:
    """Raises InvalidArgument for limits with which `runtime` could not run."""
    if limits.memory_bytes is not None and limits.memory_bytes < runtime.minimum_memory_bytes:
        raise InvalidArgument(
            "limits.memory_bytes",
            f"{limits.memory_bytes} is less than {runtime.name} needs; ask for {runtime.minimum_memory_bytes} or more",
        )


def runtime_infos(catalogue: Catalogue) -> tuple[RuntimeInfo, ...]:
    """What is installed, as callers are told it."""
    return tuple(
        RuntimeInfo(
            name=runtime.name,
            version=runtime.version,
            interpreter=runtime.interpreter,
            languages=runtime.languages,
            image_sha256=runtime.image_sha256,
            initial_memory_bytes=runtime.initial_memory_bytes,
            minimum_memory_bytes=runtime.minimum_memory_bytes,
        )
        for runtime in catalogue.runtimes
    )


def _check_code(code: str | bytes) -> bytes:
    try:
        if isinstance(code, str):
            code = code.encode()
        else:
            code.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument("code", f"not valid UTF-8 at byte {error.start}; send text in UTF-8") from None
    except UnicodeEncodeError as error:
        raise InvalidArgument("code", f"a lone surrogate at character {error.start}; remove it") from None
    if not code:
        raise InvalidArgument("code", "empty; send at least one statement")
    if len(code) > MAX_CODE_BYTES:
        raise InvalidArgument("code", f"{len(code)} bytes, more than {MAX_CODE_BYTES}; pass data as inputs")
    if b"\0" in code:
        raise InvalidArgument("code", f"a NUL character at byte {code.index(0)}; remove or escape it")
    return code
