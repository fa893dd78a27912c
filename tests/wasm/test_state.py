"""States: what a session is made of, as bytes and back; what could not have been written here is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guests import guest
from tests.wasm.conftest import LIMITS, MakeImage
from wasmeval.limits import MIB
from wasmeval.wasm.instance import Image, Instance
from wasmeval.wasm.mirror import Mirror
from wasmeval.wasm.nodes import File, Folder, Link
from wasmeval.wasm.pages import PAGE_BYTES, Pagemap
from wasmeval.wasm.state import MalformedState, decode, encode

# Adds the snippet's first byte to what it has kept, far out in its memory, and replies with the sum's digit.
COUNTER = guest(
    """(i32.store8 (i32.const 700000) (i32.add (i32.load8_u (i32.const 700000)) (i32.load8_u (call $code))))
       (i32.store8 (i32.const 900) (i32.add (i32.const 48) (i32.load8_u (i32.const 700000))))
       (call $reply (i32.const 0) (i32.const 900) (i32.const 1))"""
)


@pytest.fixture
def pagemap() -> Iterator[Pagemap]:
    pagemap = Pagemap()
    yield pagemap
    pagemap.close()


def step(instance: Instance, add: int) -> bytes:
    instance.start(bytes([add]), b"", LIMITS, is_step=True)
    assert instance.poll()
    return instance.reply().value


def mirrored(image: Image, pagemap: Pagemap) -> Mirror:
    """Of an instance that has counted to 3, and has files: a folder with a file of two megabytes and a hole, a link."""
    instance = Instance(image)
    assert (step(instance, 1), step(instance, 2)) == (b"1", b"3")
    files = instance.wasi
    files.provide(16 * MIB, 100, {"folder/file": b"given" * 100_000, "b": b"x"})
    workspace = files._tree()
    folder = workspace.trees[0].names[b"folder"]
    assert isinstance(folder, Folder)
    file = folder.names[b"file"]
    assert isinstance(file, File)
    file.write(2 * MIB, b"behind a hole")
    folder.add(b"link", Link(1 << 33, workspace.quota, b"any\xffthing"))
    mirror = Mirror()
    mirror.take(instance, pagemap)
    assert step(instance, 4) == b"7"
    instance.close()
    return mirror


def test_a_state_goes_on_where_it_was(make_image: MakeImage, pagemap: Pagemap) -> None:
    image = make_image("counter", COUNTER)
    mirror = mirrored(image, pagemap)
    state = b"".join(encode(mirror, image.runtime.initial_memory_bytes))
    again = decode(bytearray(state), image, 64 * MIB)
    assert b"".join(encode(again, image.runtime.initial_memory_bytes)) == state
    for _ in range(3):
        instance = again.instance(image)
        assert step(instance, 1) == b"4"
        folder = instance.wasi._tree().trees[0].names[b"folder"]
        assert isinstance(folder, Folder)
        file = folder.names[b"file"]
        assert isinstance(file, File)
        assert (file.size, file.read(500_000 - 5, 10)) == (2 * MIB + 13, b"given" + bytes(5))
        link = folder.names[b"link"]
        assert isinstance(link, Link)
        assert link.target == b"any\xffthing"
        file.resize(0)
        instance.close()
    mirror.close()
    again.close()


def test_pages_of_zeros_beyond_the_image_are_not_told(make_image: MakeImage, pagemap: Pagemap) -> None:
    """A kernel with huge pages gives a guest more pages than it asked for; its state is the same."""
    image = make_image("counter", COUNTER)
    initial = image.runtime.initial_memory_bytes
    few = Instance(image)
    assert step(few, 1) == b"1"
    rest = few.rest()._replace(memory_bytes=initial + 64 * PAGE_BYTES)
    states = []
    for zeros in ((), (0, 1, 2), (7,), (0, 3, 4, 6, 63)):
        instance = Instance(image, rest)
        for page, count in pagemap.own(few.base, initial):
            at = page * PAGE_BYTES
            instance.write(at, few.read(at, count * PAGE_BYTES))
        instance.write(initial + 5 * PAGE_BYTES + 17, b"kept")
        for page in zeros:
            instance.write(initial + page * PAGE_BYTES, bytes(PAGE_BYTES))
        mirror = Mirror()
        mirror.take(instance, pagemap)
        states.append(b"".join(encode(mirror, initial)))
        again = decode(bytearray(states[-1]), image, 64 * MIB).instance(image)
        assert again.read(initial, 64 * PAGE_BYTES) == instance.read(initial, 64 * PAGE_BYTES)
        assert step(again, 2) == b"3"
        again.close()
        mirror.close()
        instance.close()
    few.close()
    assert len(set(states)) == 1


@pytest.fixture
def state(make_image: MakeImage, pagemap: Pagemap) -> tuple[bytes, Image]:
    image = make_image("counter", COUNTER)
    mirror = mirrored(image, pagemap)
    state = b"".join(encode(mirror, image.runtime.initial_memory_bytes))
    mirror.close()
    return state, image


@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("value", [0, 1, 4095, 65536, 1 << 31, (1 << 32) - 1])
def test_a_header_that_does_not_fit_is_refused(state: tuple[bytes, Image], field: int, value: int) -> None:
    data, image = state
    header = list(struct.unpack_from("<IQIIIII", data))
    if header[field] == value or (field in (2, 3) and value <= 65536):
        return  # It fits.
    header[field] = value
    with pytest.raises(MalformedState):
        decode(bytearray(struct.pack("<IQIIIII", *header) + data[32:]), image, 64 * MIB).close()


def test_a_cut_is_refused(state: tuple[bytes, Image]) -> None:
    data, image = state
    for length in (*range(0, 400, 7), len(data) - 4096, len(data) - 1):
        with pytest.raises(MalformedState):
            decode(bytearray(data[:length]), image, 64 * MIB)
    with pytest.raises(MalformedState):
        decode(bytearray(data + b"x"), image, 64 * MIB)
    with pytest.raises(MalformedState):
        decode(bytearray(data), image, 1 * MIB)


WRONG_TREES = [
    lambda tree: tree["nodes"][0][-1].append(["again", 2]),
    lambda tree: tree["nodes"][0][-1].append(["up", 0]),
    lambda tree: tree["nodes"][0][-1].append(["far", 99]),
    lambda tree: tree["nodes"][0][-1].append(["..", 2]),
    lambda tree: tree["nodes"][0][-1][0].__setitem__(0, "a/b"),
    lambda tree: tree["nodes"][0][-1][0].__setitem__(0, "a\0b"),
    lambda tree: tree["nodes"][0][-1][0].__setitem__(0, "x" * 256),
    lambda tree: tree["nodes"][0].__setitem__(0, 4),
    lambda tree: tree["nodes"][0].__setitem__(0, 2),
    lambda tree: tree["nodes"][2].__setitem__(6, 65),
    lambda tree: tree["nodes"][2].__setitem__(1, -1),
    lambda tree: tree["nodes"][2].__setitem__(2, 1 << 64),
    lambda tree: tree["nodes"][2].__setitem__(2, 1.5),
    lambda tree: tree["nodes"].pop(),
    lambda tree: tree.pop("open"),
    lambda tree: tree.__setitem__("last", None),
    lambda tree: tree["open"][0].__setitem__(0, 2),
    lambda tree: tree["open"][0].__setitem__(1, 9),
    lambda tree: tree["open"].append(tree["open"][0]),
    lambda tree: tree["open"].extend([[n, 0, 0, 0, 0, 0, 0, None] for n in range(10, 300)]),
    lambda tree: tree["open"].append([9, 4, 99, 0, 0, 0, 0, None]),
    lambda tree: tree["open"].append([9, 3, 999_999, 0, 0, 0, 0, None]),
    lambda tree: tree["open"].append([9, 2, 0, 5, 0, 0, 0, None]),
    lambda tree: tree["nodes"].__setitem__(0, [4, 1, 0, 0, 0, 1, 0, [0, []]]),
    lambda tree: tree["nodes"][0].__setitem__(6, 1),
    lambda tree: tree["nodes"][2].__setitem__(6, 0),
    lambda tree: tree["nodes"].append([4, 1, 0, 0, 0, 0, 0, [1 << 63, []]]),
    lambda tree: tree["nodes"].append([4, 1, 0, 0, 0, 0, 0, [1 << 62, [[1 << 61, 1]]]]),
    lambda tree: tree["nodes"].append([7, 1, 0, 0, 0, 0, 0, 1]),
    lambda tree: tree["nodes"].append([7, 1, 0, 0, 0, 0, 0, -1]),
    lambda tree: tree["nodes"].append([7, 1, 0, 0, 0, 0, 0, "target"]),
]


@pytest.mark.parametrize("change", range(len(WRONG_TREES)))
def test_a_tree_that_cannot_be_is_refused(state: tuple[bytes, Image], change: int) -> None:
    data, image = state
    header = list(struct.unpack_from("<IQIIIII", data))
    start = 32 + 8 * header[4]
    end = start + header[5]
    tree = json.loads(data[start:end])
    WRONG_TREES[change](tree)
    described = json.dumps(tree).encode()
    header[5] = len(described)
    changed = struct.pack("<IQIIIII", *header) + data[32:start] + described + data[end:]
    with pytest.raises(MalformedState):
        decode(bytearray(changed), image, 64 * MIB)


@settings(max_examples=60)
@given(st.data())
def test_whatever_was_changed_is_refused_or_another_state(data: st.DataObject) -> None:
    state, image = _SHARED
    changed = bytearray(state)
    head = 32 + 8 * struct.unpack_from("<I", state, 20)[0] + struct.unpack_from("<I", state, 24)[0]
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    try:
        mirror = decode(changed, image, 64 * MIB)
    except MalformedState:
        return
    mirror.instance(image).close()
    mirror.close()


_SHARED: tuple[bytes, Image]


@pytest.fixture(autouse=True, scope="module")
def _shared(engine: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    """For the property, which may have no fixture of its own."""
    global _SHARED
    from tests.guests import write_image
    from wasmeval.runtimes import Runtime
    from wasmeval.wasm.engine import Engine
    from wasmeval.wasm.host import Host
    from wasmeval.wasm.library import Library

    assert isinstance(engine, Engine)
    assert engine.address
    import wasmtime

    folder = write_image(tmp_path_factory.mktemp("images"), "shared", COUNTER)
    compiled = folder / "shared.cwasm"
    compiled.write_bytes(engine.compile(bytes(wasmtime.wat2wasm(COUNTER))))
    module = engine.load(compiled)
    host = Host(engine.address)
    image = Image.load(Runtime.load(folder), engine, host, module.address, Library(), 1.0)
    pagemap = Pagemap()
    mirror = mirrored(image, pagemap)
    _SHARED = b"".join(encode(mirror, image.runtime.initial_memory_bytes)), image
    pagemap.close()
