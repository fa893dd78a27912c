"""Requests: what the arguments of `evaluate` and `converse` ask for, as one value, however it is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wasmeval.determinism import deterministic_of
from wasmeval.errors import InvalidArgument
from wasmeval.grants import Grants, Mount, Tool
from wasmeval.inputs import split_inputs
from wasmeval.limits import Limits
from wasmeval.model import Evaluation, Request, checked
from wasmeval.paths import check_files
from wasmeval.tools import Function, Toolbox

_UNARY_FILES_BYTES = 4 << 20
_NO_LIMITS = Limits()


def converses(request: Request) -> bool:
    """Whether a request needs a conversation: it talks while it runs, or its files may be large."""
    grants = request.grants
    return grants is not None and (
        bool(grants.tools)
        or grants.live
        or grants.stdin
        or bool(grants.outputs)
        or sum(map(len, grants.files.values())) > _UNARY_FILES_BYTES
    )


def check_parts(evaluation: Evaluation) -> None:
    """Raises InvalidArgument that names a part of a wrong type."""
    for name in ("outputs", "mounts"):
        value = getattr(evaluation, name, ())
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise InvalidArgument(name, f"must be a sequence of str, not {type(value).__name__}")
    checked(evaluation)


def called_back(
    evaluation: Evaluation, toolbox: Toolbox, on_output: object, stdin: object, tool_time_counts: bool
) -> Request:
    """The request for `evaluation` whose caller's functions are called meanwhile. See request_of."""
    return request_of(
        evaluation,
        toolbox.describe(),
        live=on_output is not None,
        stdin=stdin is not None,
        tool_time_counts=tool_time_counts,
    )


def request_of(
    evaluation: Evaluation,
    tools: Iterable[Tool] | Mapping[str, Function] = (),
    *,
    live: bool = False,
    stdin: bool = False,
    tool_time_counts: bool = True,
) -> Request:
    """The request for `evaluation`. Raises InvalidArgument for parts of wrong types, and inputs that are no JSON."""
    check_parts(evaluation)
    check_files("files", evaluation.files)
    offered = Toolbox(tools).describe() if isinstance(tools, Mapping) else tuple(tools)
    grants = None
    if (
        live
        or stdin
        or offered
        or evaluation.files
        or evaluation.outputs
        or evaluation.mounts
        or evaluation.http
    ):
        grants = Grants(
            files=evaluation.files,
            outputs=tuple(evaluation.outputs),
            mounts=tuple(map(Mount, evaluation.mounts)),
            tools=offered,
            http=evaluation.http,
            live=live,
            stdin=stdin,
            tool_time_counts=tool_time_counts,
        )
    limits = evaluation.limits if evaluation.limits != _NO_LIMITS else None
    command = tuple(evaluation.command)
    inputs, arrays = split_inputs(evaluation.inputs)
    deterministic = deterministic_of(evaluation.deterministic)
    if deterministic is not None or live or stdin or tools:
        # A recording keeps them, or functions of the caller's run meanwhile; what they lie over is the caller's.
        for array in arrays.values():
            array.freeze()
    return Request(
        evaluation.code,
        # A command has none, whatever the default is.
        "" if command else evaluation.language,
        inputs,
        limits,
        grants,
        deterministic,
        evaluation.cache,
        evaluation.tier,
        command,
        arrays,
    )
