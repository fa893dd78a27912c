"""What repetition costs: a deterministic `1+1` beside a plain one, the answer that is known, and a replay."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial

from bench.measure import Turn, in_turns, timed
from bench.report import Figure, Row, number, pair, times
from bench.rows.names import RUNTIMES
from bench.settings import Settings
from wasmeval import Evaluator, open_store

_KEY = b"the benchmark's own key of 32 by"


def rows(settings: Settings) -> Iterator[Row]:
    """For each runtime: deterministic, known, replayed."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(f"dir:{folder}/store") as store,
        Evaluator(1, store=store, snapshot_key=_KEY) as evaluator,
    ):
        turns = {}
        for runtime in RUNTIMES:
            plain = partial(evaluator.evaluate, "1+1", language=runtime)
            recording = plain(deterministic=True).recording
            assert recording is not None
            turns[f"plain {runtime}"] = Turn(timed(plain))
            turns[f"deterministic {runtime}"] = Turn(timed(partial(plain, deterministic=True)))
            turns[f"known {runtime}"] = Turn(timed(partial(plain, deterministic=True, cache=True)))
            turns[f"replay {runtime}"] = Turn(timed(partial(evaluator.replay, recording)))
        samples = in_turns(turns, settings.of(24, 2))
    for runtime, name in RUNTIMES.items():
        plain_, fixed, known, replay = (
            samples[f"{kind} {runtime}"] for kind in ("plain", "deterministic", "known", "replay")
        )
        ratio = fixed.p50 / plain_.p50
        yield Row(
            f"embedded `1+1` with `deterministic=True`, receipt included, {name}, p50 / p99",
            f"{pair(fixed)}: **{number(ratio)}x** the plain one",
            f"plain {pair(plain_)}; its replay {pair(replay)}; known by `cache=True`, directory store: {pair(known)}",
            figures=[
                *times("deterministic", fixed, runtime=runtime),
                *times("known_answer", known, runtime=runtime),
                *times("replay", replay, runtime=runtime),
                Figure("deterministic_ratio", "ratio", ratio, {"runtime": runtime}),
            ],
        )
