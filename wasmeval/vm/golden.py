"""Golden: a machine that was booted once, as all its clones begin: its memory, its devices' state and its disk.

In memory they are files that cannot be written any more; clones map them. On disk they lie beside the image they were
booted from, in a folder that names all that they depend on: another qemu, another agent, another size is another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple

from wasmeval.errors import SetupError
from wasmeval.limits import MIB
from wasmeval.vm import qemu
from wasmeval.vm.frames import Decoder, MalformedFrame, Word
from wasmeval.vm.guest import guest_files
from wasmeval.vm.images import LANGUAGES, VmImage

FOLDER = "golden"
"""Of an image's folder, where its golden machine is kept."""
_FORMAT = 2
_BOOT_SECONDS = 300.0
"""Under emulation an interpreter takes its time to load what snippets import."""
_SNAPSHOT_SECONDS = 60.0
_LOOK_SECONDS = 0.2
_DRAFT = ".draft-"
_ABANDONED_SECONDS = 3600.0
"""A draft that is older was left by a process that was killed."""
_SHOWN_CONSOLE = 2000
_MOST_VERSION = 1000
"""Characters."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """What a golden machine is booted from. `digest` names all that is in them but for qemu and the hardware."""

    root: Path
    kernel: bytes
    initramfs: bytes
    digest: str


class Interpreter(NamedTuple):
    """One that waits in every clone; or bash, which does not."""

    version: str
    memory_bytes: int
    """What it has before it runs anything; a job's limit counts it."""


@dataclass(slots=True)
class Golden:
    """What clones are made of. `close` lets go of it; clones that run stay as they are."""

    hardware: qemu.Hardware
    languages: dict[str, Interpreter]
    """Those that it has an interpreter for."""
    memory: int
    state: int
    root: int
    disk: list[tuple[int, bytes]] = field(repr=False)
    """What the disk holds: pieces, and where each begins. The rest is zeros."""
    folder: Path = Path(tempfile.gettempdir())
    """Where disks are, as files without a name."""
    _made: int = 0

    def clone(self) -> qemu.Machine:
        """A machine of its own. Call it where the thread lives as long as the machine. Raises SetupError, OSError."""
        disk = self._new_disk()
        try:
            self._made += 1
            parts = qemu.Parts(self.memory, self.root, disk)
            return qemu.clone(self.hardware, parts, self.state, self._made)
        finally:
            os.close(disk)

    def close(self) -> None:
        """Safe to call once."""
        for descriptor in (self.memory, self.state, self.root):
            os.close(descriptor)

    def _new_disk(self) -> int:
        # Without a name: it is gone with the machine, whoever is killed.
        with tempfile.TemporaryFile(dir=self.folder, buffering=0) as file:
            os.ftruncate(file.fileno(), self.hardware.disk_bytes)
            for place, piece in self.disk:
                os.pwrite(file.fileno(), piece, place)
            return os.dup(file.fileno())


def source_of(image: VmImage) -> Source:
    """What `image` is booted from, with this package's own files for the guest. Raises SetupError, OSError."""
    from wasmeval.vm.building import initramfs

    first = initramfs.make(image, guest_files())
    about = (image.manifest.root_sha256, image.manifest.kernel_sha256, hashlib.sha256(first).hexdigest())
    return Source(image.root, image.kernel.read_bytes(), first, ".".join(about))


def hardware_of(image: VmImage, accelerator: str) -> qemu.Hardware:
    """What its machines are made of."""
    manifest = image.manifest
    return qemu.Hardware(manifest.memory_bytes, manifest.disk_bytes, accelerator)


def make(image: VmImage, progress: Progress = lambda _: None, accelerator: str = "tcg") -> None:
    """Boot the golden machine of `image` and keep it beside it, so that a service starts in a moment."""
    boot(source_of(image), hardware_of(image, accelerator), image.folder / FOLDER, progress).close()


def golden_of(
    image: VmImage,
    accelerator: str,
    progress: Progress = lambda _: None,
    given_up: Callable[[], bool] = lambda: False,
) -> Golden:
    """The golden machine of `image`, booted now when it was not kept for this qemu and this version of the package.
    `given_up`: see `boot`."""
    source, hardware, folder = source_of(image), hardware_of(image, accelerator), image.folder / FOLDER
    return find(source, hardware, folder) or boot(source, hardware, folder, progress, given_up)


def find(source: Source, hardware: qemu.Hardware, folder: Path) -> Golden | None:
    """The golden machine that was kept in `folder` for this source and hardware, and this qemu."""
    with contextlib.ExitStack() as stack:
        undo = stack.enter_context(contextlib.ExitStack())

        def held(file: int) -> int:
            undo.callback(os.close, file)
            return file

        try:
            # By one descriptor: another process may put a new one in its place, and parts of two are no machine.
            kept = os.open(folder / _key(source, hardware), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, kept)
            about, memory, disk, state = (
                stack.enter_context(open(name, "rb", opener=partial(os.open, dir_fd=kept)))
                for name in ("golden.json", "memory", "disk", "state")
            )
            golden = Golden(
                hardware,
                _interpreters(json.load(about), hardware),
                held(_sealed(memory.fileno(), hardware.memory_bytes)),
                held(qemu.held(state.read(), "state")),
                held(os.open(source.root, os.O_RDONLY | os.O_CLOEXEC)),
                list(_pieces(disk.fileno())),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if os.access(folder, os.W_OK):
            golden.folder = folder
        undo.pop_all()
        return golden


def boot(
    source: Source,
    hardware: qemu.Hardware,
    folder: Path,
    progress: Progress = lambda _: None,
    given_up: Callable[[], bool] = lambda: False,
) -> Golden:
    """Boot one, and keep it in `folder` if that can be written. Takes seconds, a minute under emulation; once it is
    `given_up`, which is asked often, it ends.

    Raises SetupError that says how far it came.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        memory = qemu.memory_file("memory")
        undo = stack.enter_context(contextlib.ExitStack())
        undo.callback(os.close, memory)
        os.ftruncate(memory, hardware.memory_bytes)
        disk = stack.enter_context(tempfile.TemporaryFile(dir=folder if os.access(folder, os.W_OK) else None))
        _format(disk.fileno(), hardware.disk_bytes)
        root = os.open(source.root, os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, root)
        console = qemu.memory_file("console")
        stack.callback(os.close, console)
        progress("booting it once")
        parts = qemu.Parts(memory, root, disk.fileno())
        machine = qemu.boot(hardware, parts, source.kernel, source.initramfs, console, 0)
        try:
            languages = _await_agent(machine, console, given_up)
            progress("taking its snapshot")
            state = _save(machine)
        finally:
            machine.kill()
            machine.process.wait()
        undo.callback(os.close, state)
        qemu.seal(memory)
        golden = Golden(hardware, languages, memory, state, root, list(_pieces(disk.fileno())))
        if os.access(folder, os.W_OK):
            golden.folder = folder
            progress("keeping it")
            # It is there in any case; another service may be keeping the same one.
            with contextlib.suppress(OSError):
                _keep(golden, disk.fileno(), folder, _key(source, hardware))
        undo.pop_all()
        return golden


def _key(source: Source, hardware: qemu.Hardware) -> str:
    about = [
        _FORMAT,
        source.digest,
        qemu.version(),
        qemu.KERNEL_WORDS,
        hardware.arguments(),
        asdict(hardware),
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _format(disk: int, size: int) -> None:
    """An empty file system with quotas."""
    os.ftruncate(disk, size)
    features = "quota,uninit_bg,^has_journal,^metadata_csum,^resize_inode"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", features]
    command += ["-E", "quotatype=usrquota,lazy_itable_init=1,nodiscard", f"/proc/self/fd/{disk}"]
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    program = shutil.which(command[0], path=path)
    if program is None:
        raise SetupError("mke2fs is not installed; apt-get install e2fsprogs")
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, pass_fds=[disk], check=False
    )
    if done.returncode:
        raise SetupError(f"mke2fs failed: {' '.join(done.stderr.split())[:300]}")


def _await_agent(machine: qemu.Machine, console: int, given_up: Callable[[], bool]) -> dict[str, Interpreter]:
    """Wait until the agent is ready. The languages that it has."""
    end = monotonic() + _BOOT_SECONDS
    decoder = Decoder()
    try:
        while monotonic() < end:
            if given_up():
                raise SetupError("the virtual machine was given up before it had come up")
            if not select.select([machine.channel], [], [], _LOOK_SECONDS)[0]:
                continue
            data = machine.channel.recv(1 << 16)
            if not data:
                break
            for frame in decoder.feed(data):
                if frame.word is Word.READY:
                    return _interpreters(json.loads(frame.payload), machine.hardware)
    except (
        OSError,
        MalformedFrame,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = repr(error)
    else:
        reason = "it took longer" if monotonic() >= end else machine.complaint() or "its process ended"
    said = os.pread(console, 1 << 20, 0).decode("utf-8", "replace")
    raise SetupError(
        f"the virtual machine did not come up within {_BOOT_SECONDS:g} s: {reason}; its console said: "
        f"{qemu.one_line(said[-_SHOWN_CONSOLE:])}"
    )


def _interpreters(told: dict[str, Any], hardware: qemu.Hardware) -> dict[str, Interpreter]:
    """Of what an agent says when it is ready, or what was kept of that. Raises as whatever is wrong in it."""
    found = {}
    for name, (version, memory) in told["languages"].items():
        # An image of strangers may have brought its own agent, and all this is shown and listed.
        if name not in LANGUAGES or not str(version).isprintable() or len(str(version)) > _MOST_VERSION:
            raise ValueError("an interpreter that cannot be")
        if not 0 <= int(memory) <= hardware.memory_bytes:
            raise ValueError("an interpreter has more memory than its machine")
        found[name] = Interpreter(str(version), int(memory))
    return found


def _save(machine: qemu.Machine) -> int:
    """The state of its devices, as a file in memory; its own memory stands still from then on."""
    state = qemu.memory_file("state")
    monitor = Monitor(machine.monitor)
    try:
        for command in qemu.CAPABLE:
            monitor.ask(command)
        monitor.ask({"execute": "getfd", "arguments": {"fdname": "state"}}, state)
        monitor.ask({"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1 << 40}})
        monitor.ask({"execute": "migrate", "arguments": {"uri": "fd:state"}})
        end = monotonic() + _SNAPSHOT_SECONDS
        while monotonic() < end:
            told = monitor.ask({"execute": "query-migrate"})
            if told.get("status") == "completed":
                # Whoever waits for its end has the memory for himself.
                monitor.ask({"execute": "quit"})
                try:
                    machine.process.wait(_SNAPSHOT_SECONDS)
                except subprocess.TimeoutExpired:
                    raise SetupError(f"qemu did not end within {_SNAPSHOT_SECONDS:g} s") from None
                qemu.seal(state)
                return state
            if told.get("status") == "failed":
                raise SetupError(f"qemu could not save the machine: {told.get('error-desc', '')}")
    except BaseException:
        os.close(state)
        raise
    os.close(state)
    raise SetupError(f"qemu did not save the machine within {_SNAPSHOT_SECONDS:g} s")


class Monitor:
    """The monitor of a machine that is being made. Source: QEMU 7.2, docs/interop/qmp-spec.txt."""

    def __init__(self, monitor: socket.socket) -> None:
        monitor.settimeout(_SNAPSHOT_SECONDS)
        self._socket = monitor
        self._lines = monitor.makefile("rb")
        self._lines.readline()

    def ask(self, command: dict[str, Any], descriptor: int | None = None) -> dict[str, Any]:
        """What it answers. Raises SetupError."""
        line = json.dumps(command).encode() + b"\n"
        if descriptor is None:
            self._socket.sendall(line)
        else:
            socket.send_fds(self._socket, [line], [descriptor])
        while answer := self._lines.readline(1 << 20):
            told = json.loads(answer)
            if "return" in told:
                returned: dict[str, Any] = told["return"]
                return returned
            if "error" in told:
                raise SetupError(f"qemu refused {command['execute']}: {told['error'].get('desc', '')}")
        raise SetupError(f"qemu ended before it answered {command['execute']}")


def _keep(golden: Golden, disk: int, folder: Path, key: str) -> None:
    """Write it down for the next start, and forget those of other keys."""
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=folder))
    try:
        _copy(golden.memory, draft / "memory")
        _copy(disk, draft / "disk")
        _copy(golden.state, draft / "state")
        (draft / "golden.json").write_text(json.dumps({"languages": golden.languages}))
        kept = folder / key
        shutil.rmtree(kept, ignore_errors=True)
        draft.rename(kept)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for other in folder.iterdir():
        is_old = other.name != key if not other.name.startswith(".") else _is_abandoned(other)
        if other.is_dir() and is_old:
            shutil.rmtree(other, ignore_errors=True)


def _is_abandoned(draft: Path) -> bool:
    try:
        return draft.name.startswith(_DRAFT) and time() - draft.lstat().st_mtime > _ABANDONED_SECONDS
    except OSError:
        return False


def _copy(source: int, path: Path) -> None:
    with open(path, "wb") as target:
        os.ftruncate(target.fileno(), os.fstat(source).st_size)
        for place, piece in _pieces(source):
            # Pages that the guest has used and given back are zeros.
            if any(piece):
                os.pwrite(target.fileno(), piece, place)


def _sealed(source: int, size: int) -> int:
    """A copy in memory that nobody can change."""
    memory = qemu.memory_file("memory")
    try:
        if os.fstat(source).st_size != size:
            raise ValueError("the memory has another size")
        os.ftruncate(memory, size)
        for place, piece in _pieces(source):
            os.pwrite(memory, piece, place)
        qemu.seal(memory)
    except BaseException:
        os.close(memory)
        raise
    return memory


def _pieces(file: int, most: int = MIB) -> Iterator[tuple[int, bytes]]:
    """What a sparse file holds, and where; at most `most` bytes at a time."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        for place in range(start, end, most):
            yield place, os.pread(file, min(most, end - place), place)
