"""Harness: an interpreter's harness as a plain process of this machine, spoken to as the guest's agent speaks to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    """One process, warm and waiting. `interpreter` is its command; `folder` is where a snippet starts and finds its files."""

    def __init__(
        self,
        interpreter: Sequence[str],
        script: str,
        folder: Path,
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        files = folder / "guest"
        files.mkdir()
        for name, content in guest_files().items():
            (files / name).write_bytes(content)
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(TIMEOUT_SECONDS)
        self._outputs: list[bytearray] = [bytearray(), bytearray()]
        home = folder / "home"
        home.mkdir()
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$@" 3<&{theirs.fileno()}', "sh", *interpreter, str(files / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            cwd=self.workspace,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "LANG": "C.UTF-8",
                "TZ": "UTC",
                "PYTHONHASHSEED": "20",
                **(environment or {}),
            },
        )
        theirs.close()
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.process.stdin.write(stdin)
        self.process.stdin.close()
        self._readers = [
            threading.Thread(target=_read_all, args=(pipe.fileno(), kept), daemon=True)
            for pipe, kept in zip((self.process.stdout, self.process.stderr), self._outputs, strict=True)
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
    ) -> Evaluated:
        """Sends `code`, answers host calls by `host`, and reads until the reply. The process ends unless it was a step."""
        self.begin(
            code, inputs, host=host, value_limit=value_limit, is_step=is_step, renews_entropy=renews_entropy
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
    ) -> None:
        """Sends `code` and returns at once."""
        frame = encode_request(
            code.encode(),
            json.dumps(inputs).encode() if inputs else b"",
            value_limit,
            has_context=host is not None,
            is_step=is_step,
            renews_entropy=renews_entropy,
        )
        self.send(b"E", frame)

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
            body = struct.pack("<i", answer) if isinstance(answer, int) else struct.pack("<i", len(answer)) + answer
            self.send(b"A", body)
        reply = decode_reply(payload, value_limit)
        if not is_step:
            self.process.wait(TIMEOUT_SECONDS)
            for reader in self._readers:
                reader.join(TIMEOUT_SECONDS)
        stdout, stderr = (bytes(kept).decode(errors="replace") for kept in self._outputs)
        return Evaluated(reply, stdout, stderr)

    def send(self, kind: bytes, payload: bytes) -> None:
        """One frame to the harness."""
        self._channel.sendall(_HEAD.pack(len(payload), kind) + payload)

    def receive(self) -> tuple[bytes, bytes]:
        """One frame of the harness's."""
        length, kind = _HEAD.unpack(self._exactly(_HEAD.size))
        return kind, self._exactly(length)

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._channel.close()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()

    def _exactly(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            part = self._channel.recv(min(length - len(received), 1 << 20))
            if not part:
                told = bytes(self._outputs[1]).decode(errors="replace")
                raise AssertionError(f"the harness ended, status {self.process.wait()}: {told}")
            received += part
        return bytes(received)


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
