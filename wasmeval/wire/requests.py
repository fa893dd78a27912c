"""Requests: what a caller asks for, between the messages and the model's values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from wasmeval.determinism import DEFAULT_START_TIME, Deterministic
from wasmeval.errors import InvalidArgument, at_index
from wasmeval.grants import Grants, HttpPolicy, HttpRule, Mount
from wasmeval.inputs import shorten
from wasmeval.limits import MAX_BATCH, Limits
from wasmeval.model import Request
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wire.arrays import decode_array, request_parts, split_request, write_array
from wasmeval.wire.bounds import check_bounds
from wasmeval.wire.faults import is_unicode, parse


def encode_request(request: Request) -> pb.EvaluateRequest:
    """Raises InvalidArgument for what no message can carry: text that is not Unicode."""
    try:
        message = pb.EvaluateRequest(
            code=request.code if isinstance(request.code, str) else request.code.decode(),
            language=request.language,
            inputs=request.inputs,
        )
        if request.grants is not None:
            _write_grants(message, request.grants)
        if request.limits is not None:
            message.limits.SetInParent()
            write_limits(message.limits, request.limits)
        if request.deterministic is not None:
            message.deterministic.SetInParent()
            write_deterministic(message.deterministic, request.deterministic)
        if request.cache:
            message.cache = True
        message.tier = encode_tier(request.tier)
        if request.command:
            message.command.extend(request.command)
        for name, array in request.arrays.items():
            write_array(message.arrays[name], array)
        return message
    except InvalidArgument:
        raise
    except (UnicodeError, ValueError):
        for field, text in (("code", request.code), ("language", request.language)):
            if not is_unicode(text):
                raise InvalidArgument(field, "not valid Unicode: it cannot be written as UTF-8") from None
        if not all(map(is_unicode, request.command)):
            raise InvalidArgument("command", "not valid Unicode: it cannot be written as UTF-8") from None
        names = [*request.inputs, *request.arrays]
        part = "inputs" if not all(map(is_unicode, names)) else "files, outputs or mounts"
        raise _not_unicode(part) from None


def _not_unicode(part: str) -> InvalidArgument:
    return InvalidArgument(part, "a name is not valid Unicode: it cannot be written as UTF-8")


def serialize_request(request: Request) -> bytes:
    """One whole EvaluateRequest. Raises InvalidArgument as `encode_request`."""
    if not request.arrays:
        return encode_request(request).SerializeToString()
    rest = encode_request(request._replace(arrays={})).SerializeToString()
    try:
        return b"".join((rest, *request_parts(request.arrays)))
    except UnicodeError:
        raise _not_unicode("inputs") from None


def decode_request(data: bytes) -> Request:
    """Raises InvalidArgument for what is no such message, and for fields this version does not know."""
    check_bounds(pb.EvaluateRequest, data)
    rest, arrays = split_request(data)
    request = request_of(parse(pb.EvaluateRequest, rest))
    return request._replace(arrays=arrays) if arrays else request


def encode_batch(requests: Iterable[Request]) -> bytes:
    """Raises InvalidArgument that names the evaluation."""
    batch = pb.EvaluateBatchRequest()
    for index, request in enumerate(requests):
        try:
            batch.evaluations.append(encode_request(request))
        except InvalidArgument as error:
            raise at_index(index, error) from None
    return batch.SerializeToString()


def decode_batch(data: bytes) -> list[Request]:
    """Raises InvalidArgument as `decode_request`, naming the evaluation, and for none or more than MAX_BATCH."""
    check_bounds(pb.EvaluateBatchRequest, data)
    batch = parse(pb.EvaluateBatchRequest, data)
    if not batch.evaluations:
        raise _wrong_count("0")
    if len(batch.evaluations) > MAX_BATCH:
        raise _wrong_count(f"more than {MAX_BATCH}")
    return [request_of(message, f"evaluations[{index}].") for index, message in enumerate(batch.evaluations)]


def decode_list_runtimes(data: bytes) -> None:
    """Raises InvalidArgument for a request that is not empty."""
    if data:
        parse(pb.ListRuntimesRequest, data)


def _wrong_count(count: str) -> InvalidArgument:
    return InvalidArgument("evaluations", f"{count} in one batch; send between 1 and {MAX_BATCH}")


def request_of(message: pb.EvaluateRequest, prefix: str = "") -> Request:
    """Raises InvalidArgument whose field begins with `prefix`."""
    limits = deterministic = None
    try:
        if message.HasField("limits"):
            limits = decode_limits(message.limits)
        if message.HasField("deterministic"):
            deterministic = decode_deterministic(message.deterministic)
        tier = decode_tier(message.tier) if message.tier else "auto"
        arrays = {
            name: decode_array(f"arrays.{shorten(name)}", each) for name, each in message.arrays.items()
        }
    except InvalidArgument as error:
        raise InvalidArgument(prefix + error.field, error.description) from None
    return Request(
        message.code,
        message.language,
        message.inputs,
        limits,
        _grants_of(message),
        deterministic,
        message.cache,
        tier,
        tuple(message.command),
        arrays,
    )


_TIERS = {"auto": pb.TIER_AUTO, "wasm": pb.TIER_WASM, "vm": pb.TIER_VM}
_TIER_OF = {number: tier for tier, number in _TIERS.items()} | {pb.TIER_UNSPECIFIED: "auto"}


def decode_tier(number: pb.Tier) -> str:
    """Raises InvalidArgument for a number that stands for none."""
    tier = _TIER_OF.get(number)
    if tier is None:
        raise InvalidArgument("tier", f"{number} is none; send AUTO, WASM or VM")
    return tier


def encode_tier(tier: str) -> pb.Tier:
    """The number of a tier; what is unspecified is "auto", so that services which know no tiers take it."""
    return pb.TIER_UNSPECIFIED if tier == "auto" else _TIERS[tier]


def _grants_of(message: pb.EvaluateRequest) -> Grants | None:
    has_http = message.HasField("http")
    if not (message.files or message.outputs or message.mounts or has_http):
        return None
    return Grants(
        files=dict(message.files),
        outputs=tuple(message.outputs),
        mounts=tuple(map(Mount, message.mounts)),
        http=_policy_of(message.http) if has_http else None,
    )


def _write_grants(message: pb.EvaluateRequest, grants: Grants) -> None:
    for path, content in grants.files.items():
        message.files[path] = bytes(content)
    message.outputs.extend(grants.outputs)
    message.mounts.extend(mount.name for mount in grants.mounts)
    if grants.http is not None:
        try:
            _write_policy(message.http, grants.http)
        except (ValueError, TypeError, AttributeError) as error:
            # UnicodeError is a ValueError; the rest is no number, too large a one, or no rule.
            raise InvalidArgument("http", f"cannot be sent: {error}") from None


_POLICY = ("requests", "request_bytes", "response_bytes", "seconds", "redirects")


def _policy_of(message: pb.HttpPolicy) -> HttpPolicy:
    rules = tuple(
        HttpRule(
            rule.host,
            tuple(rule.methods),
            rule.path_prefix or "/",
            tuple(rule.schemes) or ("https",),
            rule.credential,
        )
        for rule in message.rules
    )
    return HttpPolicy(rules, **{name: getattr(message, name) for name in _POLICY if message.HasField(name)})


def _write_policy(message: pb.HttpPolicy, policy: HttpPolicy) -> None:
    for index, rule in enumerate(policy.rules):
        for name in ("methods", "schemes"):
            if isinstance(getattr(rule, name), str):  # else it would be sent letter by letter
                value = getattr(rule, name)
                raise TypeError(f"rules[{index}].{name} must be a sequence of str, not {value!r}")
        message.rules.add(
            host=rule.host,
            methods=rule.methods,
            path_prefix=rule.path_prefix,
            schemes=rule.schemes,
            credential=rule.credential,
        )
    for name in _POLICY:
        setattr(message, name, getattr(policy, name))


def decode_deterministic(message: pb.Deterministic) -> Deterministic:
    """Raises InvalidArgument for what cannot be."""
    return Deterministic(
        message.seed,
        message.start_time if message.HasField("start_time") else DEFAULT_START_TIME,
        message.transcript if message.HasField("transcript") else None,
        message.seal,
    )


def write_deterministic(message: pb.Deterministic, deterministic: Deterministic) -> None:
    """Fills `message`."""
    message.seed = deterministic.seed
    message.start_time = deterministic.start_time
    if deterministic.transcript is not None:
        message.transcript = deterministic.transcript
    if deterministic.seal:
        message.seal = deterministic.seal


_LIMITS = tuple(field.name for field in fields(Limits))


def decode_limits(message: pb.Limits) -> Limits:
    """Those that are set. Raises InvalidArgument for what can be no limit."""
    return Limits(**{name: getattr(message, name) for name in _LIMITS if message.HasField(name)})


def write_limits(message: pb.Limits, limits: Limits) -> None:
    """Sets those that are given."""
    for name in _LIMITS:
        if (value := getattr(limits, name)) is not None:
            setattr(message, name, value)
