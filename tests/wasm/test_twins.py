"""Contents that were twins are apart: whatever is done to one is not seen in the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wasmeval.wasm.contents import CHUNK_BYTES, Contents

SIZES = st.integers(0, 3 * CHUNK_BYTES)
WRITES = st.tuples(st.just("write"), SIZES, st.binary(min_size=1, max_size=300))
RESIZES = st.tuples(st.just("resize"), SIZES, st.just(b""))
CHANGES = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(WRITES, RESIZES, st.just(("twin", 0, b"")))), max_size=25
)


@given(given_bytes=st.binary(max_size=2000), mutable=st.booleans(), changes=CHANGES)
def test_twins_are_apart(
    given_bytes: bytes, mutable: bool, changes: list[tuple[int, tuple[str, int, bytes]]]
) -> None:
    real = [Contents(bytearray(given_bytes) if mutable else given_bytes)]
    model = [bytearray(given_bytes)]
    for which, (kind, at, data) in changes:
        which %= len(real)
        if kind == "twin":
            real.append(real[which].twin())
            model.append(model[which].copy())
        elif kind == "write":
            real[which].write(at, data)
            if len(model[which]) < at:
                model[which] += bytes(at - len(model[which]))
            model[which][at : at + len(data)] = data
        else:
            real[which].resize(at)
            model[which] = model[which][:at].ljust(at, b"\0")
    for contents, wanted in zip(real, model, strict=True):
        assert contents.length == len(wanted)
        assert contents.read(0, len(wanted)) == wanted
        rebuilt = bytearray(len(wanted))
        for position, data in contents.pieces():
            rebuilt[position : position + len(data)] = data
        assert rebuilt == wanted
