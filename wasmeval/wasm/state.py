"""State: a session at rest as bytes, on its way from one worker to another, and back into a Mirror.

    header   version, memory size, address and size of the request buffer, runs, length of the description, of contents
    runs     (first page, number of pages) each, ascending
    files    a description in JSON of folders, files, links and open descriptors; null when there is none
    contents the bytes of files, as the description refers to them
    pages    the bytes of the runs, to the end

Whoever stores it adds what it needs to be trusted: see docs/snapshots.md. Nothing here trusts it: a state that could
not have been written here raises MalformedState, and nothing of it has reached an instance.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from wasmeval.wasm.abi import WASM_PAGE_BYTES
from wasmeval.wasm.descriptors import MOST_DESCRIPTORS, STDERR, Descriptor
from wasmeval.wasm.errno import Errno
from wasmeval.wasm.instance import Image, Rest
from wasmeval.wasm.library import Library
from wasmeval.wasm.mirror import Mirror
from wasmeval.wasm.nodes import FILE, FOLDER, LINK, MOST_DEPTH, NODE_BYTES, UNKNOWN, File, Folder, Link, Node
from wasmeval.wasm.pages import PAGE_BYTES
from wasmeval.wasm.saved import Gone, Saved
from wasmeval.wasm.workspace import Workspace

VERSION = 1

_HEADER = struct.Struct("<IQIIIII")
_RUN = struct.Struct("<II")
_PIECE_BYTES = 1 << 20
_MOST_LISTED_BYTES = 4 << 20
"""Names in the listings of open folders, all together. In the guest's table they are shared, here each is written out:
a listing beyond is left out, and taken anew when its folder is read on."""
_MOST_FILE_BYTES = 1 << 40
"""Of all files, holes included: no ceiling is near, and what this many chunks take is little."""
_ROOT, _MNT, _GONE, _LIBRARY, _OWN = range(5)


class MalformedState(Exception):
    """These bytes are no state of a session of this image."""


# --- out -------------------------------------------------------------------------------------------------------------


def encode(mirror: Mirror, image_bytes: int) -> Iterator[bytes | memoryview]:
    """The bytes of `mirror`, in pieces of at most 1 MiB; they are its own, and good until it changes. `image_bytes`:
    of the image's memory."""
    rest = mirror.rest
    description, contents = _describe(mirror.files)
    written = mirror.written(image_bytes)
    runs = b"".join(_RUN.pack(first, count) for first, count in written)
    held = sum(map(len, contents))
    yield _HEADER.pack(
        VERSION, rest.memory_bytes, rest.request, rest.request_bytes, len(runs) // _RUN.size, len(description), held
    ) + runs[:_PIECE_BYTES]  # fmt: skip
    for data, first in ((runs, _PIECE_BYTES), (description, 0)):
        for start in range(first, len(data), _PIECE_BYTES):
            yield data[start : start + _PIECE_BYTES]
    yield from contents
    yield from mirror.pages(written)


def _describe(files: Saved | None) -> tuple[bytes, list[bytes]]:
    if files is None:
        return b"null", []
    nodes: list[Node] = list(files.workspace.trees)
    places = {node: at for at, node in enumerate(nodes)}
    contents: list[bytes] = []
    told = []

    def place(node: Node) -> int:
        if node not in places:
            places[node] = len(nodes)
            nodes.append(node)
        return places[node]

    for node in nodes:
        told.append([*_facts(node), _payload(node, place, contents)])
    # What is open and in no folder any more comes behind what is in one.
    for descriptor in files.table.values():
        node = descriptor.node
        if node.quota is not None and node not in places:
            place(node)
            told.append([*_facts(node), _payload(node, place, contents)])
    table, room = [], _MOST_LISTED_BYTES
    for number, each in files.table.items():
        listing = None if each.listing is None else [_name(entry) for entry in each.listing]
        room -= sum(map(len, listing or ()))
        table.append(
            [number, *_where(each.node, files.workspace, places), each.rights, each.inheriting, each.flags,
             each.position, listing if room >= 0 else None]
        )  # fmt: skip
    description = {"last": files.workspace.last_number, "nodes": told, "open": table}
    return json.dumps(description, separators=(",", ":")).encode(), contents


def _facts(node: Node) -> list[int]:
    return [
        node.kind, node.number, node.accessed_ns, node.modified_ns, node.changed_ns, int(node.is_linked),
        node.depth if isinstance(node, Folder) else 0,
    ]  # fmt: skip


def _payload(node: Node, place: Any, contents: list[bytes]) -> Any:
    if isinstance(node, Folder):
        return [[name.decode(), place(child)] for name, child in node.names.items()]
    if isinstance(node, Link):
        contents.append(node.target)
        return len(node.target)
    assert isinstance(node, File)
    pieces = []
    for position, data in node.pieces():
        pieces.append([position, len(data)])
        contents.append(data)
    return [node.size, pieces]


def _where(node: Node, workspace: Workspace, places: dict[Node, int]) -> tuple[int, int]:
    if node in places:
        return _OWN, places[node]
    if isinstance(node, Gone):
        return _GONE, 0
    if node is workspace.root:
        return _ROOT, 0
    return (_LIBRARY, node.number) if node is not workspace.mnt else (_MNT, 0)


def _name(entry: Any) -> str:
    name: bytes = entry if isinstance(entry, bytes) else entry[0]
    return name.decode()


# --- in --------------------------------------------------------------------------------------------------------------


def decode(data: bytearray, image: Image, most_memory_bytes: int) -> Mirror:
    """The mirror that `data` is the bytes of, and which keeps it. Raises MalformedState; nothing is kept then."""
    try:
        rest, runs, files, pages_at = _read(data, image, most_memory_bytes)
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        struct.error,
        RecursionError,
        OverflowError,
        MemoryError,
        Errno,
    ) as error:
        raise MalformedState(f"not a session's state: {type(error).__name__}") from None
    mirror = Mirror()
    mirror.put(rest, files, runs, data, pages_at)
    return mirror


def _read(
    data: bytearray, image: Image, most_memory_bytes: int
) -> tuple[Rest, list[tuple[int, int]], Saved | None, int]:
    version, memory, request, request_bytes, count, described, held = _HEADER.unpack_from(data)
    _require(version == VERSION, f"version {version}, not {VERSION}")
    _require(
        image.runtime.initial_memory_bytes <= memory <= most_memory_bytes and memory % WASM_PAGE_BYTES == 0,
        f"a memory of {memory} bytes",
    )
    _require(request + request_bytes <= memory, "a request buffer outside of memory")
    runs_at = _HEADER.size
    files_at = runs_at + count * _RUN.size
    contents_at = files_at + described
    pages_at = contents_at + held
    _require(pages_at <= len(data), "cut short")
    runs = [_RUN.unpack_from(data, runs_at + at * _RUN.size) for at in range(count)]
    end = 0
    for first, pages in runs:
        _require(first >= end and pages > 0, "pages out of order")
        end = first + pages
    _require(end * PAGE_BYTES <= memory, "pages outside of memory")
    _require(
        pages_at + PAGE_BYTES * sum(pages for _, pages in runs) == len(data), "lengths that do not add up"
    )
    description = json.loads(bytes(data[files_at:contents_at]))
    contents = bytes(data[contents_at:pages_at])
    files = None if description is None else _restore(description, contents, image.library)
    return Rest(memory, request, request_bytes), runs, files, pages_at


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise MalformedState(f"not a session's state: {what}")


def _restore(description: dict[str, Any], contents: bytes, library: Library) -> Saved:
    workspace = Workspace(library)
    quota = workspace.quota
    quota.max_bytes, quota.max_files = _MOST_FILE_BYTES, 1 << 62
    nodes: list[Node] = []
    at = 0
    for kind, number, *times, is_linked, depth, payload in description["nodes"]:
        node: Node
        if kind == FOLDER:
            node = Folder(_unsigned(number), quota, _unsigned(depth))
            _require(depth <= MOST_DEPTH, "folders too deep")
        elif kind == FILE:
            file = File(_unsigned(number), quota)
            at = _fill(file, payload, contents, at)
            node = file
        else:
            _require(kind == LINK, f"a node of kind {kind}")
            _require(at + _unsigned(payload) <= len(contents), "a target that is not there")
            node = Link(_unsigned(number), quota, contents[at : at + payload])
            at += payload
        node.accessed_ns, node.modified_ns, node.changed_ns = map(_unsigned, times)
        node.is_linked = bool(is_linked)
        nodes.append(node)
    _require(at == len(contents), "contents of no file")
    folder, tmp = nodes[0], nodes[1]
    if not (isinstance(folder, Folder) and isinstance(tmp, Folder) and folder.depth == tmp.depth == 0):
        raise MalformedState("not a session's state: trees that are none")
    _hang(description["nodes"], nodes)
    # The two trees themselves are not counted.
    quota.bytes = sum(node.size + NODE_BYTES for node in nodes[2:])
    quota.files = len(nodes) - 2
    workspace.restored(folder, tmp, _unsigned(description["last"]))
    return Saved(workspace, _open(description["open"], nodes, workspace, library))


def _fill(file: File, payload: Any, contents: bytes, at: int) -> int:
    size, pieces = payload
    # Before anything is written: the quota's bound is on what holes take, too.
    file.resize(_unsigned(size))
    for position, length in pieces:
        _require(position >= 0 and length > 0 and position + length <= size, "contents outside of their file")
        _require(at + length <= len(contents), "contents that are not there")
        file.write(position, contents[at : at + length])
        at += length
    return at


def _hang(told: list[Any], nodes: list[Node]) -> None:
    """Give the nodes their names. Each may have one, in a folder that comes before it: so there is no circle."""
    named = {0, 1}
    for at, (node, facts) in enumerate(zip(nodes, told, strict=True)):
        if not isinstance(node, Folder):
            continue
        for name, child in facts[-1]:
            encoded = name.encode()
            _require(
                0 < len(encoded) <= 255 and name not in (".", "..") and "/" not in name and "\0" not in name,
                "a name that no file can have",
            )
            _require(
                at < child < len(nodes) and child not in named and encoded not in node.names,
                "a tree that is none",
            )
            below = nodes[child]
            _require(
                not isinstance(below, Folder) or below.depth == node.depth + 1,
                "a folder as deep as it is not",
            )
            named.add(child)
            node.names[encoded] = nodes[child]


def _open(
    told: list[Any], nodes: list[Node], workspace: Workspace, library: Library
) -> dict[int, Descriptor]:
    _require(len(told) <= MOST_DESCRIPTORS, "too many descriptors")
    table: dict[int, Descriptor] = {}
    for number, where, which, rights, inheriting, flags, position, listing in told:
        _require(STDERR < number < 1 << 31 and number not in table, "a descriptor that cannot be")
        node: Node
        if where == _OWN:
            node = nodes[_unsigned(which)]
        elif where == _LIBRARY:
            node = library.node(which)
        else:
            _require(where in (_ROOT, _MNT, _GONE), "a descriptor of nothing")
            node = {_ROOT: workspace.root, _MNT: workspace.mnt, _GONE: Gone(0)}[where]
        descriptor = Descriptor(node, _unsigned(rights), _unsigned(inheriting), _unsigned(flags))
        descriptor.position = _unsigned(position)
        descriptor.listing = None if listing is None else tuple(name.encode() for name in listing)
        _require(node.kind != UNKNOWN or rights == 0, "rights to nothing")
        table[number] = descriptor
    return table


def _unsigned(value: Any) -> int:
    _require(type(value) is int and 0 <= value < 1 << 64, "a number that is none")
    number: int = value
    return number
