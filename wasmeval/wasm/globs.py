"""Globs: which files of a folder match patterns of their paths, found a bit at a time.

`*`, `?` and `[...]` stand for characters of one name, hidden names too, `**` for any number of folders. A state is how
far a path has come in one pattern; a folder is entered with all the states that its path can be in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate

from wasmeval.wasm.lookup import MOST_PATH_BYTES
from wasmeval.wasm.nodes import File, Folder

_END, _ANY_DEPTH = "", "**"
_BREATH = 256
"""Names that are compared before others have their turn: some 0.1 ms."""
_COMPILING = 64
"""To compile a part takes as long as comparing so many names, about."""

Found = tuple[str, File] | None
"""A path and its file; None when work was done and nothing was found by it yet."""


class Globs:
    """Some patterns. All their parts are in one list, an _END behind each pattern; a state is a place in it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._parts: list[str] = []
        self._first: set[int] = set()
        for pattern in patterns:
            self._first.add(len(self._parts))
            self._parts += [*pattern.split("/"), _END]
        self._compiled: dict[str, Callable[[str], object]] = {}
        self._tried = 0

    def files(self, folder: Folder) -> Iterator[Found]:
        """The files below `folder` whose paths match, sorted by path. Links are neither followed nor given."""
        return self._below(folder, b"", self._first)

    def _below(self, folder: Folder, prefix: bytes, states: set[int]) -> Iterator[Found]:
        states = self._beyond_any_depth(states)
        # With the slash behind its name a folder is sorted as the paths in it are.
        names = sorted(
            name + b"/" if isinstance(node, Folder) else name
            for name, node in folder.names.items()
            if isinstance(node, Folder | File)
        )
        for name in names:
            path = prefix + name
            if len(path) > MOST_PATH_BYTES:
                continue
            name = name.rstrip(b"/")
            node, text = folder.names[name], name.decode()
            after: set[int] = set()
            for state in states:
                if self._tried >= _BREATH:
                    self._tried = 0
                    yield None
                if (following := self._after(state, text)) is not None:
                    after.add(following)
            if isinstance(node, Folder) and after:
                yield from self._below(node, path, after)
            elif isinstance(node, File) and any(map(self._is_end, after)):
                yield path.decode(), node

    def _after(self, state: int, name: str) -> int | None:
        """The state behind `name`; None when it does not go on there."""
        part = self._parts[state]
        self._tried += 1
        if part == _ANY_DEPTH:
            return state
        if part == _END:
            return None
        matches = self._compiled.get(part) or self._compile(part)
        return state + 1 if matches(name) else None

    def _compile(self, part: str) -> Callable[[str], object]:
        if any(character in part for character in "*?["):
            self._tried += _COMPILING
            matches: Callable[[str], object] = re.compile(translate(part)).match
        else:
            matches = part.__eq__
        self._compiled[part] = matches
        return matches

    def _is_end(self, state: int) -> bool:
        while self._parts[state] == _ANY_DEPTH:
            state += 1
        return self._parts[state] == _END

    def _beyond_any_depth(self, states: set[int]) -> set[int]:
        """The states, and those where `**` stands for no folder at all."""
        found = set(states)
        for state in states:
            while self._parts[state] == _ANY_DEPTH and state + 1 not in found:
                state += 1
                found.add(state)
        return found
