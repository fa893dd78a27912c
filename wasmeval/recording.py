"""Recording: a receipt with all that a repetition needs, as a value and as a file; and what a repetition came to."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wasmeval.arrays import Array, compose
from wasmeval.determinism import Deterministic, Receipt, receipt_of
from wasmeval.errors import InvalidArgument
from wasmeval.grants import Grants, HttpPolicy, HttpRule, Tool
from wasmeval.limits import Limits
from wasmeval.model import Request, Result
from wasmeval.receipts import digest_of

VERSION = 1
_KIND = "wasmeval recording"
_NO_HOST = HttpRule("replay.invalid")
"""A repetition sends no request; that it could is all that the snippet sees."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A deterministic evaluation, or a step of a deterministic session, that can be repeated. `request` is what was
    asked, `transcript` what it was answered, and `outcome` what came of it, as `receipt` has it in digests."""

    receipt: Receipt
    request: Request = field(repr=False)
    transcript: bytes = field(repr=False)
    outcome: Mapping[str, Any] = field(repr=False)

    @property
    def beginning(self) -> Deterministic:
        """What its session began with."""
        return Deterministic(self.receipt.seed, self.receipt.start_time)

    @property
    def repetition(self) -> Request:
        """What to ask for, to have it again. Of a step `deterministic` holds the transcript alone."""
        receipt = self.receipt
        deterministic = (
            Deterministic(transcript=self.transcript, seal=receipt.seal)
            if receipt.step
            else Deterministic(receipt.seed, receipt.start_time, self.transcript, receipt.seal)
        )
        return self.request._replace(deterministic=deterministic)

    def save(self, path: str | Path) -> None:
        """Write it to the file at `path`. It holds what the tools answered: a new file is for its owner alone. Raises
        OSError."""
        text = json.dumps(self.told(), indent=1) + "\n"
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """The one in the file at `path`. Raises InvalidArgument for what is none, OSError."""
        try:
            return cls.of(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument("recording", f"{path} is no recording: it is not JSON") from None

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        request, grants = self.request, self.request.grants
        return {
            "kind": _KIND,
            "version": VERSION,
            "receipt": self.receipt.told(),
            "request": {
                "code": request.code if isinstance(request.code, str) else request.code.decode(),
                "language": request.language,
                "inputs": {name: text.decode() for name, text in request.inputs.items()},
                **_told_arrays(request.arrays),
                "grants": None if grants is None else _told_grants(grants),
            },
            "transcript": _base64(self.transcript),
            "outcome": dict(self.outcome),
        }

    @classmethod
    def of(cls, told: Any) -> Recording:
        """The one that `told` gives. Raises InvalidArgument for what is none, or of another version."""
        try:
            if told["kind"] != _KIND:
                raise KeyError("kind")
            if told["version"] != VERSION:
                raise InvalidArgument(
                    "recording", f"of version {told['version']!r}; this is wasmeval's version {VERSION}"
                )
            asked, receipt = told["request"], receipt_of(told["receipt"])
            _check_types(asked, told["outcome"])
            request = Request(
                asked["code"],
                asked["language"],
                {name: text.encode() for name, text in asked["inputs"].items()},
                receipt.limits,
                None if asked["grants"] is None else _grants_of(asked["grants"]),
                arrays=_arrays_of(asked.get("arrays") or {}),
            )
            transcript = base64.b64decode(told["transcript"], validate=True)
            return cls(receipt, request, transcript, told["outcome"])
        except InvalidArgument:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            # UnicodeError and binascii.Error are ValueErrors.
            raise InvalidArgument("recording", f"not a recording: {error}") from None


@dataclass(frozen=True, slots=True)
class Replay:
    """What a repetition came to: its result (of a session, its last step's), and how it differs from what was recorded.

    `is_sealed`: the recorded receipts bear the seals that the repetition has earned, of the key of whoever repeated it.
    """

    result: Result
    differences: tuple[str, ...]
    is_sealed: bool

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def recorded(result: Result, request: Request, language: str = "") -> Result:
    """`result`, which `request` gave, with its recording; as it is when it has no receipt. `language`: a session's."""
    if result.receipt is None or result.recording is not None:
        return result
    grants = request.grants
    if grants is not None:
        http = grants.http and HttpPolicy((_NO_HOST,), request_bytes=grants.http.request_bytes)
        files = {path: bytes(content) for path, content in grants.files.items()}
        grants = replace(grants, files=files, http=http, live=False)
    for array in request.arrays.values():
        # What it lies over is the caller's.
        array.freeze()
    request = Request(
        request.code,
        language or request.language,
        dict(request.inputs),
        result.receipt.limits,
        grants,
        arrays=dict(request.arrays),
    )
    return replace(result, recording=Recording(result.receipt, request, result.transcript, _outcome(result)))


def loaded(recordings: Sequence[Recording | str | Path]) -> list[Recording]:
    """Each of them, read where it is a path. Raises InvalidArgument unless it is one evaluation, or the steps of one
    session from its first on."""
    read = [each if isinstance(each, Recording) else Recording.load(each) for each in recordings]
    if not read:
        raise InvalidArgument("recordings", "none; give one, or the steps of a session in their order")
    previous = ""
    for index, each in enumerate(read):
        receipt = each.receipt
        where = f"recordings[{index}]"
        if receipt.forked:
            raise InvalidArgument(where, "a step of a fork, which cannot be replayed by itself")
        if receipt.step == 0 and len(read) > 1:
            raise InvalidArgument(where, "an evaluation of its own; replay it alone")
        if receipt.step != (index + 1 if receipt.step else 0) or receipt.previous != previous:
            expected = (
                "the first step of a session"
                if index == 0
                else f"the step that follows recordings[{index - 1}]"
            )
            raise InvalidArgument(where, f"step {receipt.step} of its session, and not {expected}")
        previous = receipt.digest
    return read


def session_limits(recordings: Sequence[Recording]) -> Limits:
    """Limits that let each step have its own."""
    told = [asdict(each.receipt.limits) for each in recordings]
    return Limits(**{name: max(each[name] for each in told) for name in told[0] if told[0][name] is not None})


def replay_of(recordings: Sequence[Recording], results: Sequence[Result]) -> Replay:
    """What the repetition of `recordings` came to, whose steps gave `results`."""
    found: list[str] = []
    for recording, result in zip(recordings, results, strict=False):
        where = f"step {recording.receipt.step}: " if recording.receipt.step else ""
        found += [where + text for text in _differences(recording, result)]
        if found:
            break
    return Replay(results[-1], tuple(found), all(result.seal_holds for result in results))


def _differences(recording: Recording, result: Result) -> Iterator[str]:
    """What of `result` is not as recorded, the causes before their consequences."""
    was, now = recording.receipt, result.receipt
    if now is None:
        if result.error is not None and result.error.type == "ReplayDiverged":
            yield f"it went another way: {result.error.message}"
        else:
            yield f"it has no receipt: {result.unrepeatable or 'the service makes none'}"
        return
    for name, what in _CAUSES.items():
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            yield f"{what}: {_short(before)} then, {_short(after)} now"
    if was.transcript != digest_of([recording.transcript]):
        yield "transcript: not the one that the receipt is of"
    if was.status != now.status:
        yield f"status: {was.status} then, {now.status} now"
    yield from _outputs(recording.outcome, _outcome(result))
    for name, what in _CONSEQUENCES.items():
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            yield f"{what}: {_short(before)} then, {_short(after)} now"


_CAUSES = {
    "runtime": "runtime",
    "image": "image",
    "translator": "translator's image",
    "engine": "Wasmtime",
    "code": "code",
    "inputs": "inputs",
    "grants": "files, outputs or tools",
    "limits": "limits",
    "seed": "seed",
    "start_time": "start time",
    "previous": "the step before",
}
_CONSEQUENCES = {"transcript": "transcript", "output": "output", "fuel": "fuel", "virtual_ns": "virtual_ns"}


def _outcome(result: Result) -> dict[str, Any]:
    error = result.error
    return {
        "value": result.value_json.decode("utf-8", "replace"),
        "stdout": result.stdout,
        "stderr": result.stderr,
        "error": asdict(error) if error else None,
        **({} if result.array is None else {"array": digest_of(compose({"": result.array}))}),
        "files": {path: digest_of([file.data]) for path, file in sorted(result.files.items())},
    }


def _outputs(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if was["value"] != now["value"]:
        yield f"value: {_short(was['value'])} then, {_short(now['value'])} now"
    if was.get("array") != now.get("array"):
        yield "array: other bytes, dtype or shape"
    for stream in ("stdout", "stderr"):
        if was[stream] != now[stream]:
            yield f"{stream}: {_first_difference(was[stream], now[stream])}"
    if was.get("error") != now["error"]:
        yield f"error: {_short(_reason(was.get('error')))} then, {_short(_reason(now['error']))} now"
    before, after = was.get("files") or {}, now["files"]
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            how = (
                "missing now"
                if path not in after
                else "missing then"
                if path not in before
                else "other bytes"
            )
            yield f"file {path}: {how}"


def _reason(error: Mapping[str, Any] | None) -> str:
    return f"{error.get('type')}: {error.get('message')}" if error else "none"


def _first_difference(was: str, now: str) -> str:
    before, after = was.splitlines(), now.splitlines()
    for number, (first, second) in enumerate(zip(before, after, strict=False), 1):
        if first != second:
            return f"line {number}: {_short(first)} then, {_short(second)} now"
    return f"{len(before)} lines then, {len(after)} now"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return repr(text) if len(text) <= 80 else repr(text[:77] + "...")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _check_types(asked: Any, outcome: Any) -> None:
    """Raises TypeError, and others, for what a recording's parts cannot be."""
    error, files = outcome.get("error"), outcome.get("files")
    texts = [asked["code"], asked["language"], *(outcome[name] for name in ("value", "stdout", "stderr"))]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text that is none")
    if not (error is None or isinstance(error, dict)) or not (files is None or isinstance(files, dict)):
        raise TypeError("outcome")
    # What cannot be written as UTF-8 cannot be asked for.
    "".join(texts[:2]).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _told_arrays(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Nothing where there are none: so it was before there were any."""
    told = {name: [each.dtype, list(each.shape), _base64(each.data)] for name, each in arrays.items()}
    return {"arrays": told} if told else {}


def _arrays_of(told: Mapping[str, Any]) -> dict[str, Array]:
    return {
        name: Array(dtype, shape, base64.b64decode(data, validate=True))
        for name, (dtype, shape, data) in told.items()
    }


def _told_grants(grants: Grants) -> dict[str, Any]:
    return {
        "files": {path: _base64(bytes(content)) for path, content in grants.files.items()},
        "outputs": list(grants.outputs),
        "tools": [[tool.name, tool.signature, list(tool.parameters), tool.doc] for tool in grants.tools],
        "http": None if grants.http is None else grants.http.request_bytes,
        "stdin": grants.stdin,
        "tool_time_counts": grants.tool_time_counts,
    }


def _grants_of(told: Mapping[str, Any]) -> Grants:
    http = told["http"]
    if not all(isinstance(name, str) for name in (*told["files"], *told["outputs"])):
        raise TypeError("grants")
    if http is not None and type(http) is not int:
        raise TypeError("grants")
    return Grants(
        files={path: base64.b64decode(data, validate=True) for path, data in told["files"].items()},
        outputs=tuple(told["outputs"]),
        tools=tuple(
            Tool(name, signature, tuple(parameters), doc)
            for name, signature, parameters, doc in told["tools"]
        ),
        http=None if http is None else HttpPolicy((_NO_HOST,), request_bytes=http),
        stdin=told["stdin"] is True,
        tool_time_counts=told["tool_time_counts"] is True,
    )
