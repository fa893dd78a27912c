"""Qemu: the driver that makes virtual machines of `qemu -M microvm`.

A machine is booted once, with its memory in a file that is shared, and its devices' state is saved without that memory
(`x-ignore-shared`). Clones map the memory privately, copy-on-write, and go on. A clone has no monitor: the one thing
that can be done to it is to kill it.

Source: QEMU 7.2, docs/system/i386/microvm.rst and docs/devel/migration.rst.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from wasmeval.errors import SetupError
from wasmeval.limits import MIB
from wasmeval.vm import jail

PROGRAM = "qemu-system-x86_64"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_TRANSLATED_MIB = 48
"""What emulation may keep of translated code: with less a NumPy job translates twice, with more none is quicker."""
KERNEL_WORDS = (
    "console=ttyS0 quiet panic=-1 reboot=t mitigations=off pci=off random.trust_cpu=on tsc_early_khz=2600000 "
    "init_on_alloc=0 transparent_hugepage=never cgroup_disable=io nokaslr"
)
# What has no name cannot be locked, and nobody else writes to it.
_FILE = "file.driver=file,file.locking=off"
_COMPLAINT = 500
"""Characters."""
_BURIAL_SECONDS = 1.0
"""For bubblewrap to bury what was killed; then it is killed itself."""
_TICKS = os.sysconf("SC_CLK_TCK")
# Source: Linux, include/uapi/linux/fcntl.h.
_F_ADD_SEALS, _F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW, _F_SEAL_WRITE = 1033, 1, 2, 4, 8


@cache
def version() -> str:
    """Of qemu, such as `7.2.22`. Raises SetupError when it is not installed."""
    if shutil.which(PROGRAM) is None:
        raise SetupError(f"{PROGRAM} is not installed; apt-get install qemu-system-x86")
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\S+)", said)
    if found is None:
        raise SetupError(f"{PROGRAM} --version says {said[:100]!r}")
    return found[1]


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of; a clone's must be that of the machine it is cloned from."""

    memory_bytes: int
    disk_bytes: int
    accelerator: str = "tcg"
    """`tcg` or `kvm`."""

    def arguments(self) -> list[str]:
        """Of qemu, but for what is behind memory, disks and channels."""
        kvm = self.accelerator == "kvm"
        accelerator = "kvm" if kvm else f"tcg,thread=multi,tb-size={_TRANSLATED_MIB}"
        return [
            PROGRAM, "-M", "microvm,acpi=on,rtc=on,memory-backend=ram", "-accel", accelerator,
            "-cpu", "host" if kvm else "max,la57=off", "-m", f"{self.memory_bytes // MIB}M", "-smp", "1",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", _SANDBOX,
            "-global", "virtio-mmio.force-legacy=false",
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parts:
    """The open files that a machine is made of, as descriptors: of its memory, its root and its disk."""

    memory: int
    root: int
    disk: int


class Machine:
    """One that runs. `channel` leads to its agent, `network` to its relay; neither blocks. `kill` ends it."""

    def __init__(self, process: subprocess.Popen[bytes], ends: Ends, hardware: Hardware) -> None:
        self.process = process
        self.channel = ends.channel
        self.network = ends.network
        self.monitor = ends.monitor
        self.hardware = hardware
        self._told = ends.told
        self._killed: float | None = None
        self._number = 0
        self._handle = -1

    @property
    def number(self) -> int:
        """Of qemu's own process; 0 when it never came so far."""
        if not self._number and self._told >= 0:
            try:
                # bubblewrap writes it at once, and what else it has to say in pieces after it.
                told = re.search(rb'"child-pid": *(\d+)', os.read(self._told, 4096))
            except BlockingIOError:
                # It has not come so far.
                return 0
            except OSError:
                told = None
            self._number = int(told[1]) if told else 0
            self._forget()
        return self._number

    def cpu_seconds(self) -> float:
        """What it has used so far, measured from outside."""
        try:
            fields = _stat(self.number)
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def own_bytes(self) -> int:
        """Memory that it shares with nobody: what it has written, translated code included."""
        try:
            text = Path(f"/proc/{self.number}/smaps_rollup").read_text()
        except OSError:
            return 0
        # Not `Private_Dirty`: that counts the golden memory too, where this is the only machine that has read a page.
        found = re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) << 10 if found else 0

    def stand_still(self) -> None:
        """Let it compute nothing until `go_on`. What its clock shows then is nothing to rely on."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stand_still`; no harm without."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            if self._handle < 0:
                self._handle = os.pidfd_open(self.number)
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """End it at once; `ended` says when it is buried. Safe to call twice."""
        if self._killed is None:
            self._killed = monotonic()
            self._kill()
        for end in (self.channel, self.network, self.monitor):
            end.close()
        self._forget()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _kill(self) -> None:
        """Its own process first: bubblewrap then buries it and ends. Orphaned it would be process 1's to bury, which
        in a container may be this service, and knows nothing of it."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                number = self.number
                if number and int(_stat(number)[1]) == self.process.pid:
                    os.kill(number, signal.SIGKILL)
                    return
            self.process.kill()

    def complaint(self) -> str:
        """The end of what it wrote to standard error, in one line."""
        errors = self.process.stderr
        if errors is None:
            return ""
        try:
            os.set_blocking(errors.fileno(), False)
            said = os.read(errors.fileno(), 1 << 16).decode("utf-8", "replace")
        except (OSError, ValueError):
            return ""
        # Whoever broke out of a guest writes it.
        return one_line(said)[-_COMPLAINT:]

    def ended(self) -> bool:
        """Whether it has ended, by itself or killed, and was waited for."""
        if self.process.poll() is None:
            if self._killed is not None and monotonic() - self._killed > _BURIAL_SECONDS:
                self.process.kill()
            return False
        if self.process.stderr is not None:
            self.process.stderr.close()
        return True

    def _forget(self) -> None:
        if self._told >= 0:
            os.close(self._told)
            self._told = -1


def _stat(process: int) -> list[bytes]:
    """What the kernel counts of it, from its state on. Raises OSError. Source: proc(5), /proc/PID/stat."""
    return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()


class Ends:
    """Our ends of what a machine is given, and its own until it has started."""

    def __init__(self) -> None:
        self._theirs: list[socket.socket] = []
        self.channel, self._channel = self._pair()
        self.network, self._network = self._pair()
        self.monitor, self._monitor = self._pair()
        self.told, self.telling = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.told, False)

    def _pair(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._theirs.append(theirs)
        return ours, theirs.fileno()

    @property
    def descriptors(self) -> list[int]:
        """What the machine's process inherits."""
        return [*(end.fileno() for end in self._theirs), self.telling]

    def arguments(self) -> list[str]:
        """Of qemu: the serial ports that lead here."""
        arguments = ["-device", "virtio-serial-device"]
        for name, end in (("agent", self._channel), ("net", self._network)):
            arguments += ["-chardev", f"socket,id={name},fd={end}"]
            arguments += ["-device", f"virtserialport,chardev={name},name=wasmeval.{name}"]
        return [
            *arguments,
            "-chardev",
            f"socket,id=qmp,fd={self._monitor}",
            "-mon",
            "chardev=qmp,mode=control",
        ]

    def release(self) -> None:
        """The machine's process has its ends now."""
        for end in self._theirs:
            end.close()
        os.close(self.telling)

    def close(self) -> None:
        """Nothing came of it."""
        for end in (self.channel, self.network, self.monitor):
            end.close()
        os.close(self.told)


def boot(
    hardware: Hardware, parts: Parts, kernel: bytes, initramfs: bytes, console: int, number: int
) -> Machine:
    """Boot a machine whose memory is to be cloned. What its kernel says goes to `console`."""
    files = [held(content, "boot") for content in (kernel, initramfs)]
    try:
        rest = [
            "-kernel",
            f"/proc/self/fd/{files[0]}",
            "-initrd",
            f"/proc/self/fd/{files[1]}",
            "-append",
            KERNEL_WORDS,
        ]
        rest += ["-chardev", f"file,id=console,path=/proc/self/fd/{console}", "-serial", "chardev:console"]
        return _start(hardware, parts, rest, number, share=True, inherited=[*files, console])
    finally:
        for file in files:
            os.close(file)


CAPABLE: tuple[dict[str, Any], ...] = (
    {"execute": "qmp_capabilities"},
    {
        "execute": "migrate-set-capabilities",
        "arguments": {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
    },
)
"""What a monitor is told first: to leave the memory out."""


def _command(command: dict[str, Any]) -> bytes:
    return json.dumps(command).encode() + b"\n"


def one_line(said: str) -> str:
    """What was said, as a line of a log that can do nothing to a terminal."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(said.split()))


def held(content: bytes | memoryview, name: str) -> int:
    """`content` as a file in memory, which another user may open by its descriptor, and nobody can change."""
    file = memory_file(name)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
    seal(file)
    return file


def memory_file(name: str) -> int:
    """A file in memory that holds nothing yet."""
    return os.memfd_create(f"wasmeval-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(file: int) -> None:
    """Let nobody change a file in memory any more. Whoever has it open could otherwise, whatever he opened it for."""
    fcntl.fcntl(file, _F_ADD_SEALS, _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW | _F_SEAL_WRITE)


def clone(hardware: Hardware, parts: Parts, state: int, number: int) -> Machine:
    """A machine that goes on from the saved `state`, over memory that it gets a private copy of."""
    # What is open twice has one position; each clone reads the state from its beginning.
    own = os.open(f"/proc/self/fd/{state}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        rest = ["-serial", "null", "-incoming", "defer"]
        machine = _start(hardware, parts, rest, number, share=False, inherited=[own])
        incoming = {"execute": "migrate-incoming", "arguments": {"uri": f"fd:{own}"}}
        try:
            # Some hundred bytes: the socket takes them at once, before there is anybody to read them.
            machine.monitor.send(b"".join(map(_command, (*CAPABLE, incoming))))
        except BaseException:
            machine.kill()
            machine.process.wait()
            raise
        return machine
    finally:
        os.close(own)


def _start(
    hardware: Hardware,
    parts: Parts,
    rest: Sequence[str],
    number: int,
    *,
    share: bool,
    inherited: Sequence[int],
) -> Machine:
    ends = Ends()
    memory = f"memory-backend-file,id=ram,size={hardware.memory_bytes},mem-path=/proc/self/fd/{parts.memory}"
    arguments = [
        *hardware.arguments(),
        "-object", f"{memory},share={'on' if share else 'off'}",
        "-add-fd", f"fd={parts.root},set=1", "-add-fd", f"fd={parts.disk},set=2",
        "-blockdev", f"driver=raw,node-name=root,read-only=on,{_FILE},file.filename=/dev/fdset/1",
        "-device", "virtio-blk-device,drive=root",
        "-blockdev", f"driver=raw,node-name=disk,{_FILE},file.filename=/dev/fdset/2",
        "-device", "virtio-blk-device,drive=disk",
        *ends.arguments(),
        "-object", "rng-builtin,id=rng", "-device", "virtio-rng-device,rng=rng",
        *rest,
    ]  # fmt: skip
    devices = [Path("/dev/kvm")] if hardware.accelerator == "kvm" else []
    try:
        process = subprocess.Popen(
            jail.command(
                arguments,
                number,
                devices,
                ends.telling,
                memory_bytes=hardware.memory_bytes,
                disk_bytes=hardware.disk_bytes,
            ),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            cwd="/",
            pass_fds=[parts.memory, parts.root, parts.disk, *inherited, *ends.descriptors],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Once it is full it says no more.
            stderr=subprocess.PIPE,
            process_group=0,
        )
    except BaseException:
        ends.close()
        raise
    finally:
        ends.release()
    return Machine(process, ends, hardware)
