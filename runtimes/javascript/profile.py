"""Profile: the counters of a build with -fprofile-generate, read from the guest's memory, as LLVM's text profile.

The compiler's own profile runtime writes files and is not linked; `reactor.c` has the three functions that the
instrumented code calls and exports where the counters lie. Everything is read with the layout of LLVM's raw profile.
Source: llvm/include/llvm/ProfileData/InstrProfData.inc (version 10 of the raw format).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from runtimes.llvm import function_names
from runtimes.snapshot import Guest

# struct __llvm_profile_data on wasm32: name hash, function hash, counters, bitmap, function and values pointers,
# numbers of counters, of value sites (indirect calls, memory operations, virtual tables) and of bitmap bytes
_RECORD = struct.Struct("<QQIIIIIHHHHI")
_VALUE = struct.Struct("<IIQQ")

_KINDS = 2  # indirect calls and sizes of memory operations; virtual tables are C++'s
_MOST_VALUES = 24  # at one site: more than the compiler looks at


@dataclass(frozen=True, slots=True)
class _Function:
    """One instrumented function's record."""

    name: bytes
    hash: int
    counters: tuple[int, ...]
    sites: tuple[int, int]
    index: int
    address: int


class Profile:
    """The counters of an instrumented guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        bounds = [guest.call("profile_bound", i) & 0xFFFFFFFF for i in range(8)]
        self._counters, self._records, self._names, self._values = (
            (bounds[i], bounds[i + 1]) for i in range(0, 8, 2)
        )

    def clear(self) -> None:
        """Forgets what was counted so far: start-up is not what is to become fast."""
        for start, end in (self._counters, self._values):
            self._guest.write(start, bytes(end - start))

    def text(self) -> bytes:
        """An IR profile in LLVM's text form: for each function its hash, counters and observed values."""
        functions = list(self._functions())
        values = self._observed()
        names = {function.address: function.name for function in functions if function.address}
        lines = [b":ir"]
        for function in sorted(functions, key=lambda f: f.name):
            lines += [function.name, b"%d" % function.hash, b"%d" % len(function.counters)]
            lines += [b"%d" % count for count in function.counters]
            lines += _value_lines(function, values, names)
            lines.append(b"")
        return b"\n".join(lines) + b"\n"

    def _functions(self) -> Iterator[_Function]:
        names = function_names(self._read(self._names))
        records = self._read(self._records)
        counters = self._read(self._counters)
        for offset in range(0, len(records), _RECORD.size):
            fields = _RECORD.unpack_from(records, offset)
            key, hash_, relative, _, address, _, count, calls, sizes = fields[:9]
            first = (self._records[0] + offset + relative & 0xFFFFFFFF) - self._counters[0]
            counts = struct.unpack_from(f"<{count}Q", counters, first)
            yield _Function(names[key], hash_, counts, (calls, sizes), offset // _RECORD.size, address)

    def _observed(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """(record, site) -> [(count, value)], the most frequent first."""
        table: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for record, site, value, count in _VALUE.iter_unpack(self._read(self._values)):
            if record:
                key = ((record - self._records[0]) // _RECORD.size, site)
                table.setdefault(key, []).append((count, value))
        return {key: sorted(seen, reverse=True)[:_MOST_VALUES] for key, seen in table.items()}

    def _read(self, bounds: tuple[int, int]) -> bytes:
        return self._guest.read(bounds[0], bounds[1] - bounds[0])


def _value_lines(
    function: _Function, values: dict[tuple[int, int], list[tuple[int, int]]], names: dict[int, bytes]
) -> list[bytes]:
    """The value section of a function; none where nothing was observed."""
    if not any((function.index, site) in values for site in range(sum(function.sites))):
        return []
    kinds = [(kind, count) for kind, count in enumerate(function.sites) if count]
    lines, first = [b"%d" % len(kinds)], 0
    for kind, count in enumerate(function.sites):
        if not count:
            continue
        lines += [b"%d" % kind, b"%d" % count]
        for site in range(first, first + count):
            seen = values.get((function.index, site), [])
            shown = [
                b"%s:%d" % (names[value] if kind == 0 else b"%d" % value, times)
                for times, value in seen
                if kind == 1 or value in names
            ]
            lines += [b"%d" % len(shown), *shown]
        first += count
    return lines
