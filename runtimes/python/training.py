"""Training: takes the profile that the final build is optimised with, by running snippets in an instrumented image.

The profile's records are those of LLVM's raw format, version 10, read from linear memory and written as LLVM's text
format. Source: llvm/include/llvm/ProfileData/InstrProfData.inc, llvm/docs/CommandGuide/llvm-profdata.rst.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtimes.llvm import function_names
from runtimes.snapshot import Guest

SNIPPETS = Path(__file__).parent / "guest" / "training"

# How often each snippet runs: the first run specialises bytecode, the later ones are what long snippets do.
ROUNDS = 20
SHORT_ROUNDS = 300

# __llvm_profd_*: name hash, function hash, counters (relative), bitmap, function, values, numbers of counters and of
# value sites (indirect calls, memory operations, virtual tables), padding, bitmap bytes
_DATA = struct.Struct("<QQIIIIIHHHHI")
_VALUE = struct.Struct("<IIQQ")
_COUNTED_SITES = 24  # the most values of one site that LLVM's text format keeps
_INDIRECT_CALL, _MEMORY_OPERATION = 0, 1


@dataclass(frozen=True, slots=True)
class _Parts:
    """The profile as it lies in the guest's memory."""

    counters: bytes
    counters_at: int
    data: bytes
    data_at: int
    names: bytes
    values: bytes


def train(raw: bytes, library: Path) -> str:
    """The text profile of all snippets run in the instrumented module `raw`, whose library is at `library`."""
    with Guest(raw, root=library, max_wasm_stack=8 << 20) as guest:
        guest.call("_initialize")
        guest.call("wasmeval_prepare")
        _forget_start(guest)
        for snippet in sorted(SNIPPETS.glob("*.py")):
            for _ in range(ROUNDS):
                _evaluate(guest, snippet.read_text())
        for code in (
            "1+1",
            "x = [n * n for n in range(20)]\nsum(x)",
            "print('hello', 3 / 4)",
            "{'a': [1, 2.5, None]}",
        ):
            for _ in range(SHORT_ROUNDS):
                _evaluate(guest, code)
        return "".join(_text_profile(_read(guest)))


def _forget_start(guest: Guest) -> None:
    """Sets the counters to zero: how the interpreter starts is not what is to be fast."""
    for start, end in ((0, 1), (6, 7)):
        first, last = guest.call("wasmeval_profile", start), guest.call("wasmeval_profile", end)
        guest.write(first, bytes(last - first))


def _evaluate(guest: Guest, code: str) -> None:
    source = code.encode()
    inputs = json.dumps({"given": [1, 2.5, "three", None, {"four": True}]}).encode()
    frame = struct.pack("<HHIII", 1, 0, 1 << 20, len(source), len(inputs)) + source + inputs
    guest.write(guest.call("wasmeval_reserve", len(frame)), frame)
    reply = guest.call("wasmeval_evaluate", len(frame)) & (1 << 64) - 1
    header = struct.unpack("<8I", guest.read(reply >> 32, 32))
    if header[0] != 0:
        text = guest.read((reply >> 32) + 32, (reply & 0xFFFF_FFFF) - 32).decode(errors="replace")
        raise RuntimeError(f"a training snippet failed: {text}")


def _read(guest: Guest) -> _Parts:
    at = [guest.call("wasmeval_profile", part) for part in range(8)]
    counters, data, names, values = (guest.read(a, b - a) for a, b in zip(at[::2], at[1::2], strict=True))
    return _Parts(counters, at[0], data, at[2], names, values)


def _values_by_site(parts: _Parts) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """(record, site) -> (count, value), most frequent first."""
    sites: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for function, site, value, count in _VALUE.iter_unpack(parts.values):
        if function:
            sites[(function - parts.data_at) // _DATA.size, site].append((count, value))
    for found in sites.values():
        found.sort(key=lambda counted: (-counted[0], counted[1]))
    return sites


def _text_profile(parts: _Parts) -> Iterator[str]:
    """Functions that never ran are told as well: they are cold, and are kept out of the others."""
    names = function_names(parts.names)
    sites = _values_by_site(parts)
    records = list(_DATA.iter_unpack(parts.data))
    by_address = {record[4]: names[record[0]] for record in records if record[4] and record[0] in names}
    yield ":ir\n"
    for index, record in enumerate(records):
        name_hash, function_hash, relative, _, _, _, count, calls, memory_operations, *_ = record
        if name_hash not in names:
            continue
        start = ((parts.data_at + index * _DATA.size + relative) & 0xFFFF_FFFF) - parts.counters_at
        counters = struct.unpack_from(f"<{count}Q", parts.counters, start)
        yield f"{names[name_hash].decode()}\n{function_hash}\n{count}\n"
        yield "".join(f"{counter}\n" for counter in counters)
        yield from _text_values(index, (calls, memory_operations), sites, by_address)
        yield "\n"


def _text_values(
    index: int,
    counts: tuple[int, int],
    sites: dict[tuple[int, int], list[tuple[int, int]]],
    by_address: dict[int, bytes],
) -> Iterator[str]:
    """The value part of one record; none when no site of it was ever counted."""
    if not any((index, site) in sites for site in range(sum(counts))):
        return
    kinds = [kind for kind in (_INDIRECT_CALL, _MEMORY_OPERATION) if counts[kind]]
    yield f"{len(kinds)}\n"
    first = 0
    for kind in (_INDIRECT_CALL, _MEMORY_OPERATION):
        if counts[kind]:
            yield f"{kind}\n{counts[kind]}\n"
        for site in range(first, first + counts[kind]):
            found = sites.get((index, site), [])[:_COUNTED_SITES]
            if kind == _INDIRECT_CALL:
                lines = [
                    f"{by_address[value].decode()}:{count}\n" for count, value in found if value in by_address
                ]
            else:
                lines = [f"{value}:{count}\n" for count, value in found]
            yield f"{len(lines)}\n" + "".join(lines)
        first += counts[kind]
