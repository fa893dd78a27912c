"""How long it takes until something runs: the command line's `run`, and a service that is ready."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.machine import ROOT
from bench.measure import Turn, in_turns, timed
from bench.report import Figure, Row, number, times
from bench.settings import Settings

_RUN_TARGET_SECONDS, _SERVE_TARGET_SECONDS = 0.35, 1.5
_TIMEOUT_SECONDS = 60.0


def run(settings: Settings) -> Iterator[Row]:
    """`wasmeval run -c 1+1` beside other programs that could be asked the same."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", prefix="wasmeval-bench-") as file:
        file.write("print(1+1)\n")
        file.flush()
        subjects: dict[str, Sequence[str]] = {
            "python": [*_wasmeval(), "run", "-c", "1+1"],
            "javascript": [*_wasmeval(), "run", "-l", "javascript", "-c", "1+1"],
            "`python -I -c`": [sys.executable, "-I", "-c", "print(1+1)"],
        }
        if program := shutil.which("node"):
            subjects["`node -e`"] = [program, "-e", "console.log(1+1)"]
        if program := shutil.which("monty", path=_path()):
            subjects["`monty FILE`"] = [program, file.name]
        turns = {name: Turn(timed(partial(_output, command)), 1, 0) for name, command in subjects.items()}
        for turn in turns.values():
            turn.subject(1)
        samples = in_turns(turns, settings.of(15, 3))
    ours = samples["python"]
    beside = {name: sample for name, sample in samples.items() if name != "python"}
    yield Row(
        "`wasmeval run -c '1+1'` from a shell, cache present, p50",
        f"**{number(ours.p50)} s**",
        "; ".join(
            f"{'with `-l javascript`' if name == 'javascript' else name} {number(sample.p50)} s"
            for name, sample in beside.items()
        ),
        f"<= {_RUN_TARGET_SECONDS} s",
        ours.p50 <= _RUN_TARGET_SECONDS,
        [figure for name, sample in samples.items() for figure in times("run", sample, "s", by=name)],
    )


def serve(settings: Settings) -> Iterator[Row]:
    """From the start of `wasmeval serve` until its health says SERVING."""
    turn = Turn(timed_by(_until_serving), 1, 0)
    turn.subject(1)
    samples = in_turns({"serve": turn}, settings.of(7, 2))["serve"]
    yield Row(
        "`wasmeval serve` until health says SERVING, cache present, p50",
        f"**{number(samples.p50)} s**",
        f"slowest of {samples.n}: {number(max(samples.seconds))} s",
        f"<= {_SERVE_TARGET_SECONDS} s",
        samples.p50 <= _SERVE_TARGET_SECONDS,
        [Figure("serve_ready", "s", samples.p50, {"quantile": "p50", "n": samples.n})],
    )


def timed_by(call: Callable[[], float]) -> Callable[[int], list[float]]:
    """A subject that knows its own time."""
    return lambda count: [call() for _ in range(count)]


def _output(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, timeout=_TIMEOUT_SECONDS)
    assert done.stdout.strip() == b"2", done


def _wasmeval() -> list[str]:
    """The command as a shell finds it in this environment, else the module."""
    program = shutil.which("wasmeval", path=str(Path(sys.executable).parent))
    return [program] if program else [sys.executable, "-m", "wasmeval"]


def _path() -> str:
    folders = [str(Path(sys.executable).parent)]
    folders += [str(Path(entry) / "bin") for entry in sys.path if entry]
    return ":".join(folders)


def _until_serving() -> float:
    start = time.perf_counter()
    with subprocess.Popen(
        [*_wasmeval(), "serve", "--listen", "127.0.0.1:0"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline().decode()
            if not line.startswith("listening on "):
                raise RuntimeError(f"`wasmeval serve` said {line!r}")
            with grpc.insecure_channel(line.split()[2], (("grpc.enable_http_proxy", 0),)) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
            seconds = time.perf_counter() - start
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                raise RuntimeError("`wasmeval serve` listens and does not serve")
            return seconds
        finally:
            process.terminate()
            try:
                process.wait(_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
