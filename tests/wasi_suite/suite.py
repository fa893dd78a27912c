"""Node's WASI preview 1 test programs, as Debian ships them in the sources of `nodejs`: fetched, checked, and run.

They are compiled C programs that hold assertions on what a libc sees; their sources stand beside them in the archive
(`test/wasi/c`). Nothing of them is part of this project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wasmtime

from runtimes.toolchain import BUILD, ToolchainError, debian_mirror, sha256_of
from wasmeval.grants import Folder, Mount
from wasmeval.limits import MIB
from wasmeval.preopens import OpenFolders
from wasmeval.wasm import errno, wasi
from wasmeval.wasm.library import Library
from wasmeval.wasm.mounts import STAT, FileOperation, FileRequest, HostNode, checked, payload
from wasmeval.wasm.nodes import Folder as FolderNode
from wasmeval.wasm.nodes import MountPoint, Node
from wasmeval.wasm.output import Output

ARCHIVE = "nodejs_20.19.2+dfsg.orig.tar.xz"
SHA256 = "5e5559381ad031d245a8efa403458abbb73755f74c3e6380f185a4dd342b7949"
_POOL = "pool/main/n/nodejs"
_TOP = "node-v20.19.2/test"
_HELPER = "/usr/lib/apt/apt-helper"

_TYPES = {"i": wasmtime.ValType.i32(), "I": wasmtime.ValType.i64()}


def programs(cache: Path = BUILD) -> Path:
    """The folder with `wasm/*.wasm` and `fixtures/`. Raises ToolchainError when the archive cannot be had as pinned."""
    home = cache / "wasi_suite" / SHA256[:16]
    if (home / "complete").exists():
        return home
    archive = cache / "archives" / ARCHIVE
    if not archive.exists() or sha256_of(archive) != SHA256:
        _download(archive)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            for start, folder in ((f"{_TOP}/wasi/wasm/", "wasm"), (f"{_TOP}/fixtures/wasi/", "fixtures")):
                if member.name.startswith(start) and member.isfile():
                    target = home / folder / member.name.removeprefix(start)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    content = tar.extractfile(member)
                    assert content
                    target.write_bytes(content.read())
    (home / "complete").touch()
    return home


def _download(archive: Path) -> None:
    """By apt's own client, from this machine's mirror; the digest is what is trusted."""
    if not Path(_HELPER).exists():
        raise ToolchainError(f"{_HELPER} is not there: the programs come from Debian")
    archive.parent.mkdir(parents=True, exist_ok=True)
    uri = f"{debian_mirror().rstrip('/')}/{_POOL}/{ARCHIVE}"
    command = [_HELPER, "-oAPT::Sandbox::User=root", "download-file", uri, str(archive), f"SHA256:{SHA256}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or sha256_of(archive) != SHA256:
        archive.unlink(missing_ok=True)
        raise ToolchainError(f"{ARCHIVE} could not be had: {(done.stdout + done.stderr)[-500:]}")


@dataclass(slots=True)
class Outcome:
    """What came of a program: its exit code, or the trap that ended it, and what it said."""

    exit_code: int | None
    stdout: str
    stderr: str


@dataclass(slots=True)
class Sandbox:
    """`/sandbox` and `/tmp` as the programs want them: both in the guest's memory, or both folders of the host.

    `is_root`: the program's preopen is `/sandbox` itself, under the name `/`.
    """

    sandbox: Path
    tmp: Path
    is_in_memory: bool
    environment: Mapping[str, str] = field(default_factory=dict)
    is_root: bool = False


class _Memory:
    """A guest's memory, in a store of wasmtime-py."""

    def __init__(self, store: wasmtime.Store) -> None:
        self._store = store
        self.memory: Any = None

    def _check(self, end: int) -> None:
        if end > self.memory.data_len(self._store):
            raise wasi.Errno(errno.FAULT)

    def read(self, address: int, length: int) -> bytes:
        self._check(address + length)
        return bytes(self.memory.read(self._store, address, address + length))

    def write(self, address: int, data: bytes) -> None:
        self._check(address + len(data))
        self.memory.write(self._store, data, address)


def run(program: Path, sandbox: Sandbox, stdin: bytes | None = None) -> Outcome:
    """Run a program's `_start` with the functions of `wasi.FUNCTIONS`, and an environment that only these have."""
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    memory = _Memory(store)
    mounted = {} if sandbox.is_in_memory else {"sandbox": sandbox.sandbox, "tmp": sandbox.tmp}
    folders = OpenFolders({name: Folder(path, read_only=False) for name, path in mounted.items()})
    guest = _guest(memory, sandbox)
    if sandbox.is_root:
        guest._descriptors[3].node = _preopen(guest, folders)
    if stdin is not None:
        guest.stdin = wasi.Stdin()
        guest.stdin.feed(stdin)
        guest.stdin.close()
    ended: list[int] = []

    def handler(function: Any, parameters: str) -> Any:
        def call(*arguments: int) -> int:
            unsigned = [
                argument % (2**32 if parameter == "i" else 2**64)
                for argument, parameter in zip(arguments, parameters, strict=True)
            ]
            try:
                ask = function(guest, *unsigned)
                if ask is not None:
                    assert ask.request is not None
                    ask.finish(folders.handle(ask.request))
            except wasi.Errno as error:
                return error.code
            return errno.SUCCESS

        return call

    linker = wasmtime.Linker(engine)
    linker.allow_shadowing = True
    module = wasi.MODULE.decode()
    for name, (parameters, function) in wasi.FUNCTIONS.items():
        kind = wasmtime.FuncType([_TYPES[p] for p in parameters], [_TYPES["i"]])
        linker.define_func(module, name, kind, handler(function, parameters))
    _define_rest(linker, guest, sandbox.environment, ended)
    try:
        instance = linker.instantiate(store, wasmtime.Module.from_file(engine, str(program)))
        exports = instance.exports(store)
        memory.memory = exports["memory"]
        exports["_start"](store)  # type: ignore[operator]
        code: int | None = 0
    except (wasmtime.Trap, wasmtime.WasmtimeError, wasi.Exit):
        code = ended[0] if ended else None
    finally:
        folders.close()
    return Outcome(code, guest.stdout.text(), guest.stderr.text())


def _guest(memory: _Memory, sandbox: Sandbox) -> wasi.Wasi:
    """A guest with `/sandbox` and `/tmp`, which are elsewhere in guests that are not programs of this suite."""
    guest = wasi.Wasi(memory, Library())
    guest.stdout, guest.stderr = Output(MIB), Output(MIB)
    if sandbox.is_in_memory:
        files = {
            str(path.relative_to(sandbox.sandbox)): path.read_bytes()
            for path in sandbox.sandbox.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        guest.provide(16 * MIB, 10_000, files)
        root = guest._tree().root
        root.names[b"sandbox"] = root.names[b"workspace"]
        for link in sorted(path for path in sandbox.sandbox.rglob("*") if path.is_symlink()):
            _link(guest, memory, f"sandbox/{link.relative_to(sandbox.sandbox)}", os.readlink(link))
    else:
        guest.provide(
            16 * MIB, 10_000, {}, [Mount("sandbox", read_only=False), Mount("tmp", read_only=False)]
        )
        root = guest._tree().root
        mounted = root.names[b"mnt"]
        assert isinstance(mounted, FolderNode)
        root.names |= mounted.names
    return guest


def _preopen(guest: wasi.Wasi, folders: OpenFolders) -> Node:
    """`/sandbox`, as what is open at first."""
    node = guest._tree().root.names[b"sandbox"]
    if isinstance(node, MountPoint):
        answer = folders.handle(FileRequest(FileOperation.PATH_STATUS, node.handle, b".").encode())
        node = HostNode(node, node.handle, checked(STAT, payload(answer)))
    node.opens += 1
    return node


def _link(guest: wasi.Wasi, memory: _Memory, path: str, target: str) -> None:
    """Before there is a memory: through one that is only these two strings."""

    class Strings:
        def read(self, address: int, _length: int) -> bytes:
            return (path.encode(), target.encode())[address]

        def write(self, _address: int, _data: bytes) -> None:
            raise AssertionError

    guest.memory = Strings()
    guest.path_symlink(1, len(target.encode()), 3, 0, len(path.encode()))
    guest.memory = memory


def _define_rest(
    linker: wasmtime.Linker, guest: wasi.Wasi, environment: Mapping[str, str], ended: list[int]
) -> None:
    """The functions that differ from the others, and an environment in the place of none."""
    i32 = _TYPES["i"]
    module = wasi.MODULE.decode()
    variables = [f"{name}={value}\0".encode() for name, value in environment.items()]

    def proc_exit(code: int) -> None:
        ended.append(code)
        raise wasi.Exit(code)

    def poll_oneoff(subscriptions: int, events: int, count: int, count_out: int) -> int:
        try:
            pause = guest.sleep(subscriptions % 2**32, events % 2**32, count % 2**32, count_out % 2**32)
        except wasi.Errno as error:
            return error.code
        time.sleep(pause / 1e9)
        return errno.SUCCESS

    def environ_sizes_get(count_out: int, size_out: int) -> int:
        guest.memory.write(count_out, len(variables).to_bytes(4, "little"))
        guest.memory.write(size_out, sum(map(len, variables)).to_bytes(4, "little"))
        return errno.SUCCESS

    def environ_get(pointers: int, data: int) -> int:
        for index, variable in enumerate(variables):
            guest.memory.write(pointers + 4 * index, data.to_bytes(4, "little"))
            guest.memory.write(data, variable)
            data += len(variable)
        return errno.SUCCESS

    linker.define_func(module, "proc_exit", wasmtime.FuncType([i32], []), proc_exit)
    linker.define_func(module, "poll_oneoff", wasmtime.FuncType([i32] * 4, [i32]), poll_oneoff)
    linker.define_func(module, "environ_sizes_get", wasmtime.FuncType([i32] * 2, [i32]), environ_sizes_get)
    linker.define_func(module, "environ_get", wasmtime.FuncType([i32] * 2, [i32]), environ_get)
