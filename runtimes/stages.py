"""Stages: the steps of an image's recipe, each done again only when something it is made from has changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

Input = str | bytes | Path


@dataclass(frozen=True, slots=True)
class Stage:
    """One step. `inputs` are what decides its outcome beside the stages it `needs`: texts, files or whole folders.

    `outputs` are looked for before a stage is taken for done; their content is not checked.
    """

    name: str
    run: Callable[[], None]
    inputs: tuple[Input, ...] = ()
    needs: tuple[str, ...] = ()
    outputs: tuple[Path, ...] = ()


def digest(inputs: Iterable[Input]) -> str:
    """One digest of texts, bytes, files and folders (by relative name and content)."""
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path):
            files = sorted(path for path in item.rglob("*") if path.is_file()) if item.is_dir() else [item]
            for path in files:
                if "__pycache__" not in path.parts:
                    total.update(path.relative_to(item.parent).as_posix().encode() + b"\0")
                    total.update(hashlib.sha256(path.read_bytes()).digest())
        else:
            total.update(hashlib.sha256(item.encode() if isinstance(item, str) else item).digest())
    return total.hexdigest()


def run_stages(
    recipe: str, stages: Sequence[Stage], stamps: Path, *, only: str | None = None, force: bool = False
) -> None:
    """Does the stages in order, skipping what is up to date; `only` (a name) does that one and what it needs.

    `force` does the stages again whatever the stamps say. Raises KeyError for a stage that there is not.
    """
    by_name = {stage.name: stage for stage in stages}
    wanted = _with_needs(by_name, only) if only else set(by_name)
    stamps.mkdir(parents=True, exist_ok=True)
    keys: dict[str, str] = {}
    for stage in stages:
        if stage.name not in wanted:
            continue
        key = digest([stage.name, *(keys[name] for name in stage.needs), *stage.inputs])
        keys[stage.name] = key
        stamp = stamps / stage.name
        done = stamp.exists() and stamp.read_text() == key and all(path.exists() for path in stage.outputs)
        if done and not force:
            print(f"{recipe}: {stage.name} is up to date", flush=True)
            continue
        print(f"{recipe}: {stage.name} ...", flush=True)
        stamp.unlink(missing_ok=True)
        start = time.monotonic()
        stage.run()
        stamp.write_text(key)
        print(f"{recipe}: {stage.name} took {time.monotonic() - start:.1f} s", flush=True)


def _with_needs(by_name: dict[str, Stage], name: str) -> set[str]:
    found = {name}
    for need in by_name[name].needs:
        found |= _with_needs(by_name, need)
    return found
