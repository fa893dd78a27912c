"""Companion: a process beside ours that is asked in lines of JSON and answers in lines of JSON.

Peers and probes live in companions, so that each has a process of its own, its own clock around exactly what it is
asked for, and no part in ours.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.machine import ROOT
from bench.measure import Subject

FOLDER = Path(__file__).parent / "companions"
_ANSWER_SECONDS = 120.0
_END_SECONDS = 5.0


class Failed(Exception):
    """The companion could not do what it was asked, or is gone."""


class Companion:
    """A running companion; use it as a context manager. It ends when its standard input does, so never outlives us."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for us to act on.
            start_new_session=True,
        )
        self._unread = b""

    @classmethod
    def module(cls, name: str, *arguments: str) -> Companion:
        """The companion in `bench/companions/NAME.py`, on this interpreter."""
        return cls([sys.executable, "-m", f"bench.companions.{name}", *arguments])

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, **question: Any) -> dict[str, Any]:
        """Its answer. Raises Failed."""
        self.tell(**question)
        return self.answer()

    def tell(self, **question: Any) -> None:
        """Ask without waiting; `answer` is owed. Raises Failed."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Failed(self._last_words()) from error

    def answer(self) -> dict[str, Any]:
        """What it says next. Raises Failed."""
        assert self._process.stdout
        end = time.monotonic() + _ANSWER_SECONDS
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Failed(f"no answer within {_ANSWER_SECONDS:g} s")
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise Failed(self._last_words())
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def subject(self, **question: Any) -> Subject:
        """What it is asked for, as a subject: it times each repetition itself."""
        return lambda count: list(self.ask(count=count, **question)["seconds"])

    def close(self) -> None:
        """End it. Safe to call twice."""
        process = self._process
        for stream in (process.stdin, process.stdout):
            assert stream
            try:
                stream.close()
            except OSError:
                pass
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr
        process.stderr.close()

    def __enter__(self) -> Companion:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _last_words(self) -> str:
        assert self._process.stderr
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its output and went on"
        lines = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with {self._process.returncode}"
