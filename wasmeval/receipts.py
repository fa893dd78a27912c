"""Receipts: what a deterministic evaluation was, as digests, sealed. See docs/determinism.md."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from wasmeval.arrays import compose
from wasmeval.determinism import Deterministic, Receipt
from wasmeval.grants import Grants
from wasmeval.model import Job, Result, Status


class Chain(NamedTuple):
    """Where in a session a step stands; see Receipt."""

    step: int = 0
    previous: str = ""
    forked: bool = False
    is_replay: bool = False
    """Whether a step before was a repetition."""


_LARGE_BYTES = 1 << 20
"""What takes a millisecond."""
_ALONE = Chain()


class Notary:
    """Makes receipts, and seals them with the operator's `key`. `images` maps a runtime's name to its image's digest;
    `engine` is Wasmtime's version."""

    def __init__(self, key: bytes, images: Mapping[str, str], engine: str) -> None:
        # A key of its own for this use, whatever else the operator's is for.
        self._key = hmac.digest(key, b"wasmeval receipt 1", hashlib.sha256)
        self._images = images
        self.engine = engine

    def attest(self, job: Job, result: Result, chain: Chain = _ALONE) -> Result:
        """`result`, which `job` gave, with its receipt; as it is when `job` is not deterministic, or nothing can be
        attested."""
        deterministic, world = job.deterministic, job.world
        if deterministic is None or world is None or result.unrepeatable:
            return result
        receipt = self._receipt(job, deterministic, result, chain)
        seal = self._seal(receipt)
        if world.transcript is None and not chain.is_replay:
            return replace(result, receipt=receipt.sealed(seal))
        # What it was answered is what its asker says: that is not ours to seal.
        return replace(result, receipt=receipt, seal_holds=_is_same(world.seal, seal))

    def question(self, job: Job) -> str:
        """The digest of all that a deterministic evaluation's answer is a function of."""
        assert job.deterministic is not None
        # As if it had ended with nothing: what it was asked is the rest.
        return self._receipt(job, job.deterministic, Result(Status.OK), _ALONE).digest

    def _receipt(self, job: Job, deterministic: Deterministic, result: Result, chain: Chain) -> Receipt:
        usage = result.usage
        return Receipt(
            runtime=job.runtime,
            image=self._images[job.runtime],
            translator=self._images[job.translator] if job.translator else "",
            engine=self.engine,
            code=digest_of([job.code]),
            inputs=digest_of([job.inputs, b"".join(job.arrays)] if job.arrays else [job.inputs]),
            grants=_grants_digest(job.grants) if job.grants else _NOTHING_GRANTED,
            limits=job.limits,
            seed=deterministic.seed,
            start_time=deterministic.start_time,
            step=chain.step,
            previous=chain.previous,
            forked=chain.forked,
            transcript=digest_of([result.transcript]),
            status=result.status.value,
            output=output_digest(result),
            fuel=usage.fuel,
            virtual_ns=usage.virtual_ns,
        )

    def _seal(self, receipt: Receipt) -> str:
        return hmac.digest(self._key, receipt.payload, hashlib.sha256).hex()


def _is_same(given: str, seal: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), seal.encode())


def takes_time(job: Job, result: Result) -> bool:
    """Whether the digests of a deterministic job and its result are better made where nobody waits for them."""
    if job.deterministic is None:
        return False
    given = sum(file.size for file in result.files.values()) + result.value_bytes + len(result.transcript)
    return job.size + given > _LARGE_BYTES


def digest_of(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of some parts, each behind its length in eight bytes; of one part alone, of that."""
    listed = list(parts)
    if len(listed) == 1:
        return hashlib.sha256(listed[0]).hexdigest()
    digest = hashlib.sha256()
    for part in listed:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def output_digest(result: Result) -> str:
    """Of value, array, output, error and files."""
    error = result.error
    flags = [result.value_is_json, result.stdout_truncated, result.stderr_truncated]
    told = [error.type, error.message, error.traceback, error.line, error.column] if error else None
    parts: list[bytes | memoryview] = [
        result.value_json,
        result.stdout.encode("utf-8", "surrogatepass"),
        result.stderr.encode("utf-8", "surrogatepass"),
        json.dumps([flags, told]).encode(),
    ]
    if result.array is not None:
        parts += compose({"": result.array})
    for path, file in sorted(result.files.items()):
        parts += [path.encode("utf-8", "surrogatepass"), file.data]
    return digest_of(parts)


def _grants_digest(grants: Grants) -> str:
    told = {
        "files": [[path, digest_of([bytes(content)])] for path, content in sorted(grants.files.items())],
        "outputs": list(grants.outputs),
        "tools": [[tool.name, tool.signature, list(tool.parameters), tool.doc] for tool in grants.tools],
        "http": grants.http is not None,
        "stdin": grants.stdin,
    }
    return digest_of([json.dumps(told, sort_keys=True, separators=(",", ":")).encode()])


_NOTHING_GRANTED = _grants_digest(Grants())
