"""Grants: what an evaluation has beside its code and its limits: files, folders, tools, HTTP. Nothing by default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wasmeval.errors import InvalidArgument
from wasmeval.limits import MIB


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One kind of request that is allowed.

    `host` is exact (`api.example.com`), a suffix (`*.example.com`, which is not `example.com` itself) or any (`*`), in
    any case, IDNA or Unicode, with `:PORT` when it is not the scheme's own, `:*` for any. `methods` is empty for all.
    `path_prefix` begins with `/` and covers whole segments: `/v1` allows `/v1` and `/v1/x`, not `/v10`. `schemes` are
    `https` alone by default. `credential` names one of the operator's: it is added to the request where the guest
    cannot see it.
    """

    host: str
    methods: tuple[str, ...] = ()
    path_prefix: str = "/"
    schemes: tuple[str, ...] = ("https",)
    credential: str = ""


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """Which HTTP requests an evaluation may send, and how much. The operator's ceiling lowers what is above it.

    `requests` counts hops of redirects too. `request_bytes` and `response_bytes` are those of all requests together,
    bodies and headers. `seconds` bounds one request from its start to the last byte that is read. `redirects` is the
    most hops of one request.
    """

    rules: tuple[HttpRule, ...]
    requests: int = 32
    request_bytes: int = 4 * MIB
    response_bytes: int = 16 * MIB
    seconds: float = 30.0
    redirects: int = 5

    def __post_init__(self) -> None:
        rules: object = self.rules
        if not isinstance(rules, list | tuple) or not all(isinstance(rule, HttpRule) for rule in rules):
            wanted = "a sequence of HttpRule such as (HttpRule('api.example.com'),)"
            raise InvalidArgument("http.rules", f"must be {wanted}, not {rules!r}")
        object.__setattr__(self, "rules", tuple(rules))


@dataclass(frozen=True, slots=True)
class HttpUse:
    """One request that a guest asked for, as the Result tells it: no query, no header, no body.

    `status` is 0 when there was no response. `refused` is why it was not sent, empty when it was.
    """

    method: str
    host: str
    path: str
    status: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    seconds: float = 0.0
    allowed: bool = True
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine that an evaluation may see at `/mnt/NAME`.

    A writable one takes at most `max_bytes` and `max_files` more than was in it when the evaluation began; the guest
    sees `ENOSPC` beyond that.
    """

    path: Path
    read_only: bool = True
    max_bytes: int = 64 * MIB
    max_files: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        for name in ("max_bytes", "max_files"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(f"folder.{name}", f"must be a whole number above zero, not {value!r}")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder, by its name, as one evaluation has it at `/mnt/NAME`."""

    name: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the caller's that the snippet may call by `name`.

    `signature` is as Python writes one (`(query: str, limit: int = 10) -> list`), empty when it is unknown;
    `parameters` are the names in it that may be given by name; `doc` is what `help` shows.
    """

    name: str
    signature: str = ""
    parameters: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Grants:
    """All that one evaluation is given. `mounts` are folders that the operator, or the embedding program, has named.

    `files` are put below `/workspace` before the snippet starts; `outputs` are glob patterns of what is to come back.
    `live`: output is sent while the snippet runs. `stdin`: the snippet's standard input stays open for more.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    tools: tuple[Tool, ...] = ()
    http: HttpPolicy | None = None
    live: bool = False
    stdin: bool = False
    tool_time_counts: bool = True


def check_seconds(field_name: str, value: object) -> None:
    """Raises InvalidArgument unless `value` is a positive, finite number of seconds."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise InvalidArgument(field_name, f"must be a positive, finite number of seconds, not {value!r}")
