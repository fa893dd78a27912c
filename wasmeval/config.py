"""ServerConfig: how a service is set up, from a TOML file, then the environment, then the command line."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wasmeval.determinism import ANSWER_BYTES, ANSWER_SECONDS
from wasmeval.errors import InvalidArgument
from wasmeval.limits import (
    CEILINGS,
    DEFAULTS,
    MIB,
    MOST_MEMORY_BYTES,
    MOST_OUTPUT_BYTES,
    MOST_TOOL_CALL_BYTES,
    VM_CEILINGS,
    VM_DEFAULTS,
    Limits,
)

PREFIX = "WASMEVAL_"

# Variables of ours that are not the server's configuration.
_ELSEWHERE = frozenset(
    {"WASMEVAL_CONFIG", "WASMEVAL_SERVER", "WASMEVAL_API_KEY", "WASMEVAL_BUILD", "WASMEVAL_TEST_VM"}
)

# Kubernetes gives these to every pod near a Service named wasmeval: WASMEVAL_SERVICE_HOST, WASMEVAL_PORT,
# WASMEVAL_PORT_50051_TCP_ADDR. Source: Kubernetes, "Accessing the Service", environment variables.
_KUBERNETES = re.compile(r"WASMEVAL_(SERVICE_.*|PORT(_.*)?)")

_Count = Annotated[int, Field(ge=1, strict=False)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _check(cls, value: object, info: ValidationInfo) -> object:
        """To pydantic, true is also the number 1."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and annotation is not bool and bool not in get_args(annotation):
            raise ValueError("must not be a boolean")
        return value


class _LimitsConfig(_Model):
    deadline_seconds: _Seconds
    memory_bytes: Annotated[int, Field(ge=1, le=MOST_MEMORY_BYTES)]
    """At most 4 GiB: what Wasm's 32-bit memories address, and what a VM may have."""
    output_bytes: Annotated[int, Field(ge=1, le=MOST_OUTPUT_BYTES)]
    """At most 8 MiB: three of them, some bytes threefold, must fit into one reply of 64 MiB."""

    workspace_bytes: Annotated[int, Field(ge=1, le=MOST_MEMORY_BYTES)]
    workspace_files: Annotated[int, Field(ge=1, lt=1 << 31)]
    tool_calls: Annotated[int, Field(ge=1, lt=1 << 31)]
    tool_calls_in_flight: Annotated[int, Field(ge=1, le=65_536)]
    tool_call_bytes: Annotated[int, Field(ge=1, le=MOST_TOOL_CALL_BYTES)]
    """At most 8 MiB: a call or its answer must fit into one message of 16 MiB."""
    tool_bytes: Annotated[int, Field(ge=1, lt=1 << 40)]
    tool_seconds: _Seconds

    def limits(self) -> Limits:
        """The same as a value of the model."""
        return Limits(**self.model_dump())


class LimitsConfig(_LimitsConfig):
    """One value for each limit, in the units of `wasmeval.Limits`."""

    fuel: Annotated[int, Field(ge=1, lt=1 << 63)]


class VmLimitsConfig(_LimitsConfig):
    """One value for each limit of a VM, in the units of `wasmeval.Limits`."""

    cpu_seconds: _Seconds
    processes: Annotated[int, Field(ge=1, lt=1 << 22)]
    workspace_bytes: Annotated[int, Field(ge=1, lt=1 << 40)]


_L = TypeVar("_L", bound=_LimitsConfig)


def _built_in(kind: type[_L], limits: Limits) -> _L:
    given = {name: value for name, value in dataclasses.asdict(limits).items() if value is not None}
    return kind.model_validate(given)


class _PolicyConfig(_Model):
    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """A table may name some limits only; the others keep their built-in values."""
        if not isinstance(given, dict):
            return given
        built_in = {name: model.default.model_dump() for name, model in cls.model_fields.items()}
        return {
            name: {**built_in[name], **table} if name in built_in and isinstance(table, dict) else table
            for name, table in given.items()
        }

    @model_validator(mode="after")
    def _compare(self) -> Self:
        defaults, ceilings = (getattr(self, name) for name in ("defaults", "ceilings"))
        for name, default in defaults:
            ceiling = getattr(ceilings, name)
            if default > ceiling:
                raise ValueError(
                    f"defaults.{name} is {default}, above its ceiling of {ceiling}; lower it or raise the ceiling"
                )
        return self


class PolicyConfig(_PolicyConfig):
    """`limits.defaults` apply where a caller sets none, and `limits.ceilings` are as far as any caller gets."""

    defaults: LimitsConfig = _built_in(LimitsConfig, DEFAULTS)
    ceilings: LimitsConfig = _built_in(LimitsConfig, CEILINGS)


class VmPolicyConfig(_PolicyConfig):
    """As PolicyConfig, in a VM."""

    defaults: VmLimitsConfig = _built_in(VmLimitsConfig, VM_DEFAULTS)
    ceilings: VmLimitsConfig = _built_in(VmLimitsConfig, VM_CEILINGS)


class PreopenConfig(_Model):
    """A folder of the service's machine that evaluations may mount by the name of its table."""

    path: Path
    read_only: bool = True
    max_bytes: Annotated[int, Field(ge=1, lt=1 << 63)] = 64 * MIB
    """What one evaluation may add to it; for a folder that is not read-only."""
    max_files: Annotated[int, Field(ge=1, lt=1 << 31)] = 1024

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path) -> Path:
        if not path.is_dir():
            raise ValueError("is no folder")
        return path.resolve()


class HttpRuleConfig(_Model):
    """See `wasmeval.HttpRule`; credentials are named by the callers' rules alone."""

    host: str
    methods: tuple[str, ...] = ()
    path_prefix: str = "/"
    schemes: tuple[str, ...] = ("https",)


class CredentialConfig(_Model):
    """A secret that callers' rules may name, and that guests never see. It is read when the service starts, from a
    variable or a file, never from the configuration itself."""

    kind: Literal["bearer", "basic", "header", "query"]
    secret_env: str = ""
    secret_file: Path | None = None
    name: str = ""
    hosts: tuple[str, ...]

    @model_validator(mode="after")
    def _one_source(self) -> CredentialConfig:
        if bool(self.secret_env) == bool(self.secret_file):
            raise ValueError("give secret_env, the name of a variable, or secret_file, one of them")
        return self

    def secret(self, environ: Mapping[str, str]) -> str:
        """The secret itself. Raises InvalidArgument when it is not where the configuration says."""
        if self.secret_env:
            if not environ.get(self.secret_env):
                raise InvalidArgument("secret_env", f"the variable {self.secret_env} is not set")
            return environ[self.secret_env]
        assert self.secret_file is not None
        try:
            return self.secret_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument("secret_file", f"cannot read {self.secret_file}: {error}") from None


class HttpConfig(_Model):
    """What HTTP any evaluation can be allowed at most; without rules there is none."""

    rules: tuple[HttpRuleConfig, ...] = ()
    requests: _Count = 256
    request_bytes: _Count = 16 * MIB
    response_bytes: _Count = 128 * MIB
    seconds: _Seconds = 120.0
    redirects: Annotated[int, Field(ge=0)] = 10
    private_networks: tuple[str, ...] = ()
    credentials: dict[_Name, CredentialConfig] = {}


class SessionsConfig(_Model):
    """Where sessions sleep, and what they may be; see docs/sessions.md."""

    store: str = ""
    """A URL: see docs/stores.md. Empty: a folder of this user's."""
    key_file: Path | None = None
    """What snapshots are sealed with: 16 bytes or more, the same for all replicas. With the default store one is
    made."""
    idle_seconds: _Seconds = 300.0
    most_idle_seconds: _Seconds = 86_400.0
    life_seconds: _Seconds = 86_400.0
    most_life_seconds: _Seconds = 30 * 86_400.0
    most_live: Annotated[_Count, Field(le=4096)] = 256
    most_live_bytes: Annotated[_Count, Field(ge=64 * MIB)] = 1024 * MIB
    most_checkpoints: _Count = 64
    lease_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 15.0


class CacheConfig(_Model):
    """How answers of deterministic evaluations are kept; see docs/determinism.md."""

    seconds: Annotated[float, Field(ge=1, le=365 * 86_400, allow_inf_nan=False)] = ANSWER_SECONDS
    """For so long an answer is found, and for twice as long at most."""
    bytes: _Count = ANSWER_BYTES
    """What one replica stores of them in so long a time."""


class VmConfig(_Model):
    """The tier of microVMs; see docs/vm.md."""

    enabled: bool | Literal["auto"] = "auto"
    """Whether there are any: "auto" where this machine has what they need, true to refuse to start without, false for
    none."""
    auto: bool = True
    """Whether an evaluation that needs one is moved there by itself."""
    image: _Name = "default"
    """What they boot: one of `wasmeval vm list`."""
    images_dir: Path | None = None
    """Where images are; None takes the user's own folder."""
    ready: Annotated[int, Field(ge=0, le=1024)] = 2
    """How many wait, booted, for the next evaluation."""
    most: Annotated[_Count, Field(le=1024)] = 16
    """How many run at a time."""
    queue_size: _Count = 256
    """Evaluations that wait for one; more are refused with RESOURCE_EXHAUSTED."""
    most_sessions: Annotated[int, Field(ge=0, le=1024)] = 8
    """How many of them sessions may have, never the last; more are refused with RESOURCE_EXHAUSTED."""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    """The processor's virtualisation, or software emulation; "auto" takes the first where it works."""
    limits: VmPolicyConfig = VmPolicyConfig()


class ServerConfig(_Model):
    """All that `wasmeval serve` can be told. Every key has a variable: `limits.defaults.fuel` is
    `WASMEVAL_LIMITS_DEFAULTS_FUEL`.
    """

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 takes a free one."""
    insecure: bool = False
    """Whether to listen where other machines can reach it, without keys or encryption."""
    workers: Annotated[_Count, Field(le=1024)] = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Worker processes; by default one for each CPU this process may use. At most 1024."""
    concurrency: Annotated[_Count, Field(le=8192)] = 1024
    """Evaluations that one worker holds at a time, running, sleeping or waiting for their turn. At most 8192."""
    queue_size: _Count = 1024
    """Evaluations that wait for a worker; more are refused with RESOURCE_EXHAUSTED."""
    grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """How long running evaluations may take to end after SIGTERM."""
    require_jail: bool = False
    """Whether to refuse to start where the kernel lacks a part of the workers' jail."""
    cache_dir: Path | None = None
    """Where images compiled for this machine are kept; None takes the user's cache."""
    worker_memory_bytes: Annotated[int, Field(ge=64 * MIB)] | None = None
    """What the guests of one worker may grow by together; None takes the pool's own, 2 GiB."""
    limits: PolicyConfig = PolicyConfig()
    preopen: dict[_Name, PreopenConfig] = {}
    """Folders that evaluations may mount, by name."""
    http: HttpConfig = HttpConfig()
    """Where evaluations may be allowed to send HTTP requests."""
    sessions: SessionsConfig = SessionsConfig()
    """Where sessions sleep, and what they may be."""
    cache: CacheConfig = CacheConfig()
    """How answers of deterministic evaluations are kept, in the store of sessions."""
    vm: VmConfig = VmConfig()
    """MicroVMs, for what needs a whole operating system."""


def load(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ServerConfig:
    """The configuration: built-in values, then `file`, then `environ`, then `overrides` (the command line's).

    An override of None is none. Raises InvalidArgument that names the key, where it came from, and its value;
    a key nobody knows is an error, in the environment too.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = (
        (str(file), _flatten(_read(file)) if file else {}),
        ("the environment", _from_environment(os.environ if environ is None else environ)),
        ("the command line", {key: value for key, value in (overrides or {}).items() if value is not None}),
    )
    for source, layer in layers:
        for key, value in layer.items():
            _set(values, key, value)
            sources[key] = source
    try:
        return ServerConfig.model_validate(values)
    except ValidationError as error:
        raise _explained(error, sources) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument("config", f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidArgument("config", f"{file} is not TOML: {error}") from None


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _keys(model: type[BaseModel] = ServerConfig, prefix: str = "") -> list[str]:
    """Settings that are one value each; tables and lists of tables stand in files alone."""
    keys = []
    for name, info in model.model_fields.items():
        if get_origin(info.annotation) in (dict, tuple):
            continue
        nested = (
            info.annotation
            if isinstance(info.annotation, type) and issubclass(info.annotation, _Model)
            else None
        )
        keys += _keys(nested, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    variables = {PREFIX + key.upper().replace(".", "_"): key for key in _keys()}
    unknown = sorted(
        name
        for name in environ
        if name.startswith(PREFIX)
        and name not in {*variables, *_ELSEWHERE}
        and not _KUBERNETES.fullmatch(name)
    )
    if unknown:
        raise InvalidArgument(unknown[0], f"no such setting; known: {', '.join(variables)}")
    return {key: environ[name] for name, key in variables.items() if name in environ}


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *tables, name = key.split(".")
    for table in tables:
        inner = values.setdefault(table, {})
        values = inner if isinstance(inner, dict) else values
    values[name] = value


def _explained(error: ValidationError, sources: Mapping[str, str]) -> InvalidArgument:
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"])) or "config"
    source = next(
        (name for given, name in sources.items() if given == key or given.startswith(f"{key}.")), ""
    )
    where = f" (from {source})" if source else ""
    if first["type"] == "extra_forbidden":
        return InvalidArgument(key, f"no such setting{where}; known: {', '.join(_keys())}")
    message = first["msg"].removeprefix("Value error, ")
    value = "" if isinstance(first["input"], dict | BaseModel) else f", not {first['input']!r}"
    return InvalidArgument(key, f"{message[:1].lower()}{message[1:]}{value}{where}")
