"""Harness: an interpreter's harness as a plain process of this machine, spoken to as the guest's agent speaks to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from wasmeval.arrays import Array, compose
from wasmeval.vm.guest import guest_files
from wasmeval.wasm.abi import Reply, decode_reply, encode_request

VALUE_LIMIT = 1 << 20
TIMEOUT_SECONDS = 60
_HEAD = struct.Struct("<Ic")

Host = Callable[[bytes], bytes | int]


class Evaluated(NamedTuple):
    """A reply with what was printed before it came."""

    reply: Reply
    stdout: str
    stderr: str

    @property
    def value(self) -> Any:
        """The value; the reply itself where there is none, so that a failing test shows it."""
        return json.loads(self.reply.value) if self.reply.value else self.reply


class Harness:
    """One process, warm and waiting. `interpreter` is its command; below `folder` are its files and its workspace."""

    process: subprocess.Popen[bytes] | None

    def __init__(
        self,
        interpreter: Sequence[str],
        script: str,
        folder: Path,
        *,
        stdin: bytes | None = b"",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.workspace, environment = _prepare(folder), _environment(folder) | (environment or {})
        self._open_streams()
        guest = str(folder / "guest" / script)
        theirs = self._theirs
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" {_moved(theirs[0])}', "sh", *interpreter, guest],
            stdin=theirs[1],
            stdout=theirs[2],
            stderr=theirs[3],
            pass_fds=theirs[:1],
            cwd=self.workspace,
            env=environment,
        )
        self._begin(stdin)

    def _open_streams(self) -> None:
        """The channel and the three streams, both sides of each."""
        self._channel, channel = socket.socketpair()
        self._channel.settimeout(TIMEOUT_SECONDS)
        (stdin, self._stdin), (self._stdout, stdout), (self._stderr, stderr) = (os.pipe() for _ in range(3))
        self._theirs = [channel.detach(), stdin, stdout, stderr]
        self._outputs = [bytearray(), bytearray()]

    def _begin(self, stdin: bytes | None) -> None:
        for descriptor in self._theirs:
            os.close(descriptor)
        if stdin is not None:
            os.write(self._stdin, stdin)
            os.close(self._stdin)
            self._stdin = -1
        self._readers = [
            threading.Thread(target=_read_all, args=(pipe, kept), daemon=True)
            for pipe, kept in zip((self._stdout, self._stderr), self._outputs, strict=True)
        ]
        for reader in self._readers:
            reader.start()
        kind, _ = self.receive()
        assert kind == b"W"

    def evaluate(
        self,
        code: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        host: Host | None = None,
        value_limit: int = VALUE_LIMIT,
        is_step: bool = False,
        renews_entropy: bool = False,
        arrays: Mapping[str, Array] | None = None,
    ) -> Evaluated:
        """Sends `code`, answers host calls by `host`, reads until the reply. The process ends unless it was a step."""
        self.begin(
            code,
            inputs,
            host=host,
            value_limit=value_limit,
            is_step=is_step,
            renews_entropy=renews_entropy,
            arrays=arrays,
        )
        return self.finish(host, value_limit=value_limit, is_step=is_step)

    def begin(
        self,
        code: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        host: Host | None = None,
        value_limit: int = VALUE_LIMIT,
        is_step: bool = False,
        renews_entropy: bool = False,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        """Sends `code` and returns at once."""
        frame = encode_request(
            code.encode(),
            json.dumps(inputs).encode() if inputs else b"",
            value_limit,
            has_context=host is not None,
            is_step=is_step,
            renews_entropy=renews_entropy,
            has_arrays=bool(arrays),
        )
        self.send(b"E", b"".join((frame, *compose(arrays or {}))))

    def finish(
        self, host: Host | None = None, *, value_limit: int = VALUE_LIMIT, is_step: bool = False
    ) -> Evaluated:
        """The reply to what was begun."""
        while True:
            kind, payload = self.receive()
            if kind == b"R":
                break
            assert kind == b"H"
            answer = host(payload) if host else -1
            body = (
                struct.pack("<i", answer)
                if isinstance(answer, int)
                else struct.pack("<i", len(answer)) + answer
            )
            self.send(b"A", body)
        reply = decode_reply(payload, value_limit)
        if not is_step:
            if self.process:
                self.process.wait(TIMEOUT_SECONDS)
            for reader in self._readers:
                reader.join(TIMEOUT_SECONDS)
        return Evaluated(reply, *self.output())

    def send(self, kind: bytes, payload: bytes) -> None:
        """One frame to the harness."""
        self._channel.sendall(_HEAD.pack(len(payload), kind) + payload)

    def receive(self) -> tuple[bytes, bytes]:
        """One frame of the harness's."""
        length, kind = _HEAD.unpack(self._exactly(_HEAD.size))
        return kind, self._exactly(length)

    def output(self) -> tuple[str, str]:
        """What was printed to stdout and stderr until now."""
        stdout, stderr = (bytes(kept).decode(errors="replace") for kept in self._outputs)
        return stdout, stderr

    def interrupt(self) -> None:
        """Sends SIGINT."""
        assert self.process
        self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._channel.close()
        if self.process:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join(1)
        for pipe in (self._stdin, self._stdout, self._stderr):
            if pipe >= 0:
                os.close(pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exactly(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            part = self._channel.recv(min(length - len(received), 1 << 20))
            if not part:
                raise AssertionError(f"the harness ended: {self.output()}")
            received += part
        return bytes(received)


class Clone(Harness):
    """A fork of a warm Python harness: what a clone of a microVM's memory is to the VM that was snapshotted."""

    process = None

    def __init__(self, folder: Path, control: socket.socket, stdin: bytes | None) -> None:
        self.workspace = folder
        self._open_streams()
        socket.send_fds(control, [str(folder).encode()], self._theirs)
        self._begin(stdin)


class CloneServer:
    """One warm Python harness and its clones. See `clone_server.py`."""

    def __init__(self, interpreter: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._count = 0
        workspace = _prepare(folder)
        self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._control.settimeout(TIMEOUT_SECONDS)
        server = str(Path(__file__).with_name("clone_server.py"))
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$@" {_moved(theirs.fileno())}',
                "sh",
                interpreter,
                server,
                str(folder / "guest"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            cwd=workspace,
            env=_environment(folder) | (environment or {}),
        )
        theirs.close()
        assert self._control.recv(1) == b"W"

    def clone(self, stdin: bytes | None = b"") -> Clone:
        """A fresh clone in a folder of its own."""
        self._count += 1
        workspace = self._folder / f"workspace-{self._count}"
        workspace.mkdir()
        return Clone(workspace, self._control, stdin)

    def evaluate(self, code: str, inputs: Mapping[str, Any] | None = None, **how: Any) -> Evaluated:
        """`code` in a clone that nothing else uses."""
        with self.clone(how.pop("stdin", b"")) as clone:
            return clone.evaluate(code, inputs, **how)

    def close(self) -> None:
        """Ends the process; clones end when their own channel is closed."""
        self._control.close()
        self._process.wait(TIMEOUT_SECONDS)


def _prepare(folder: Path) -> Path:
    """Puts the guest's files below `folder`; a workspace beside them."""
    for name in ("guest", "workspace", "home"):
        (folder / name).mkdir()
    for name, content in guest_files().items():
        (folder / "guest" / name).write_bytes(content)
    return folder / "workspace"


def _environment(folder: Path) -> dict[str, str]:
    """As the agent sets it, but for the places."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "20",
    }


def _moved(descriptor: int) -> str:
    """The redirections by which `descriptor` is 3 and nothing else."""
    return "" if descriptor == 3 else f"3<&{descriptor} {descriptor}<&-"


def _read_all(descriptor: int, kept: bytearray) -> None:
    try:
        while part := os.read(descriptor, 1 << 16):
            kept += part
    except OSError:
        pass


def found(*names: str) -> str | None:
    """The first of these interpreters that there is and that starts."""
    for name in names:
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None
