"""Orders: an evaluation on its way into a worker: its files piece by piece, then the rest in one frame."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from wasmeval.determinism import World
from wasmeval.grants import Grants, HttpPolicy, Mount, Tool
from wasmeval.limits import Limits
from wasmeval.model import Job
from wasmeval.wasm.order import FILE_PIECE_BYTES, Order
from wasmeval.worker.frames import Kind, MalformedFrame, encode, encode_head, in_pieces

_NO_TRANSLATOR = 255
# number, runtime, translator, session, fuel, deadline, memory, output, workspace bytes and files, and the lengths of
# code, inputs, grants, world and arrays
_EVALUATE = struct.Struct("<QBBQQdQQQQIIIII")
# entropy, start, before, whether it renews, whether there is a transcript
_WORLD = struct.Struct("<32sQQBB")
# number, length of the path
_FILE = struct.Struct("<QI")
_LIMITS = ("tool_calls", "tool_calls_in_flight", "tool_call_bytes", "tool_bytes", "tool_seconds")


def encode_order(number: int, runtime: int, translator: int | None, job: Job) -> Iterator[bytes | memoryview]:
    """The EVALUATE frame of `job` under `number`, in one piece but for what is large; `runtime` and `translator` are
    indexes of configured runtimes."""
    limits = job.limits
    grants = _encode_grants(job.grants, limits) if job.grants else b""
    world = _encode_world(job.world) if job.world else b""
    head = _EVALUATE.pack(
        number, runtime, _NO_TRANSLATOR if translator is None else translator,
        job.session.number if job.session else 0, limits.fuel, limits.deadline_seconds, limits.memory_bytes,
        limits.output_bytes, limits.workspace_bytes, limits.workspace_files,
        len(job.code), len(job.inputs), len(grants), len(world),
        sum(map(len, job.arrays)),
    )  # fmt: skip
    body = (head, job.code, job.inputs, grants, world, *job.arrays)
    return in_pieces(encode_head(Kind.EVALUATE, sum(map(len, body))), *body)


def decode_order(body: bytes | memoryview, runtimes: Sequence[str]) -> Order:
    """The order in an EVALUATE frame's body, without its files."""
    if len(body) < _EVALUATE.size:
        raise MalformedFrame("a short order")
    (
        number, runtime, translator, session, fuel, deadline, memory, output, workspace_bytes, workspace_files,
        code, inputs, grants, world, arrays,
    ) = _EVALUATE.unpack_from(body)  # fmt: skip
    start = _EVALUATE.size
    if len(body) != start + code + inputs + grants + world + arrays:
        raise MalformedFrame("an order whose lengths do not add up")
    limits = (fuel, deadline, memory, output, workspace_bytes, workspace_files)
    grants_at = start + code + inputs
    world_at = grants_at + grants
    arrays_at = world_at + world
    granted, tool_limits = _decode_grants(bytes(body[grants_at:world_at])) if grants else (None, ())
    return Order(
        number,
        runtimes[runtime],
        bytes(body[start : start + code]),
        bytes(body[start + code : start + code + inputs]),
        Limits(*limits, *tool_limits),
        granted,
        "" if translator == _NO_TRANSLATOR else runtimes[translator],
        session,
        _decode_world(bytes(body[world_at:arrays_at])) if world else None,
        body[arrays_at:],
    )


def encode_files(number: int, job: Job) -> Iterator[bytes]:
    """The FILE frames that go before the EVALUATE frame of `job`."""
    if job.grants is None:
        return
    for path, content in job.grants.files.items():
        name = path.encode()
        head = _FILE.pack(number, len(name)) + name
        view = memoryview(content)
        for start in range(0, max(len(view), 1), FILE_PIECE_BYTES):
            yield encode(Kind.FILE, head + view[start : start + FILE_PIECE_BYTES])


def decode_file(body: bytes) -> tuple[int, str, memoryview]:
    """(number, path, piece) of a FILE frame's body."""
    if len(body) < _FILE.size:
        raise MalformedFrame("a short file")
    number, length = _FILE.unpack_from(body)
    start = _FILE.size + length
    if len(body) < start:
        raise MalformedFrame("a file whose path is cut")
    return number, body[_FILE.size : start].decode(), memoryview(body)[start:]


def _encode_world(world: World) -> bytes:
    head = _WORLD.pack(
        world.entropy, world.start_ns, world.before_ns, world.renews, world.transcript is not None
    )
    return head + (world.transcript or b"")


def _decode_world(data: bytes) -> World:
    if len(data) < _WORLD.size:
        raise MalformedFrame("a world that is cut")
    entropy, start_ns, before_ns, renews, is_replay = _WORLD.unpack_from(data)
    return World(entropy, start_ns, before_ns, bool(renews), data[_WORLD.size :] if is_replay else None)


def _encode_grants(grants: Grants, limits: Limits) -> bytes:
    http = grants.http
    return json.dumps(
        {
            "outputs": list(grants.outputs),
            "mounts": [[mount.name, mount.read_only] for mount in grants.mounts],
            "tools": [[tool.name, tool.signature, list(tool.parameters), tool.doc] for tool in grants.tools],
            # Rules and names of credentials are the parent's business alone.
            "http": None if http is None else http.request_bytes,
            "flags": [grants.live, grants.stdin, grants.tool_time_counts],
            "limits": [getattr(limits, name) for name in _LIMITS],
        }
    ).encode()


def _decode_grants(text: bytes) -> tuple[Grants, list[Any]]:
    told = json.loads(text)
    live, stdin, tool_time_counts = told["flags"]
    request_bytes = told["http"]
    grants = Grants(
        outputs=tuple(told["outputs"]),
        mounts=tuple(Mount(name, read_only) for name, read_only in told["mounts"]),
        tools=tuple(
            Tool(name, signature, tuple(parameters), doc)
            for name, signature, parameters, doc in told["tools"]
        ),
        http=None if request_bytes is None else HttpPolicy((), request_bytes=request_bytes),
        live=live,
        stdin=stdin,
        tool_time_counts=tool_time_counts,
    )
    return grants, told["limits"]
