"""Whether KVM works here, as a kernel that boots tells: /dev/kvm may be there and every guest die, or crawl.

A machine that is itself virtual can have a /dev/kvm that makes virtual machines and runs none, so nothing less than a
boot is believed. It takes half a second where KVM works, and its answer is kept until this machine starts again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from wasmeval.errors import SetupError
from wasmeval.vm import qemu
from wasmeval.vm.building import initramfs
from wasmeval.vm.guest import guest_files
from wasmeval.vm.images import VmImage, check_owner
from wasmeval.wasm.cache import default_folder

DEVICE = Path("/dev/kvm")
SIGN = b"wasmeval: the kernel runs"
"""What the guest's init says to `wasmeval.probe`."""

_SECONDS = 5.0
# A machine that was busy then may have been judged wrongly.
_NO_LASTS_SECONDS = 3600.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether KVM works, and the reason as a part of a sentence."""

    works: bool
    reason: str


def probe(image: VmImage, *, fresh: bool = False) -> Answer:
    """Whether the kernel of `image` boots under KVM here. Takes up to five seconds the first time, or `fresh`."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Answer(False, f"{DEVICE} is {'not accessible' if DEVICE.exists() else 'not there'}")
    try:
        qemu.version()
    except SetupError as error:
        return Answer(False, str(error))
    kept = _kept_at(image)
    if kept is not None and not fresh and (answer := _read(kept)):
        return answer
    try:
        answer = _boot(image)
    except (SetupError, OSError) as error:
        return Answer(False, f"nothing could be booted to try it: {error}")
    if kept is not None:
        _keep(kept, answer)
    return answer


def _boot(image: VmImage) -> Answer:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wasmeval-kvm-") as folder:
        archive = Path(folder, "initramfs")
        archive.write_bytes(initramfs.make(image, guest_files()))
        process = subprocess.Popen(
            _command(image.kernel, archive),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with process:
            try:
                said, _ = process.communicate(timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                return Answer(False, f"a guest did not boot under it within {_SECONDS:g} s")
    if SIGN in said:
        return Answer(True, f"a guest booted under it in {time.monotonic() - started:.1f} s")
    return Answer(False, "a guest died under it")


def _command(kernel: Path, archive: Path) -> list[str]:
    return [
        # A guest that hangs must not outlive whoever is killed while he waits for it.
        *("setpriv", "--pdeathsig", "KILL"),
        *(qemu.PROGRAM, "-M", "microvm,acpi=on", "-accel", "kvm", "-cpu", "host", "-m", "128M", "-smp", "1"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(archive)),
        *("-append", "console=ttyS0 quiet panic=-1 reboot=t pci=off wasmeval.probe"),
    ]


def _kept_at(image: VmImage) -> Path | None:
    """Where the answer is kept; None where nothing can be, or others could write it."""
    try:
        about = [_BOOT_ID.read_text(), qemu.version(), image.manifest.kernel_sha256]
        folder = default_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(folder)
    except (OSError, ValueError, SetupError):
        return None
    return folder / f"kvm-{hashlib.sha256('|'.join(about).encode()).hexdigest()[:24]}.json"


def _read(path: Path) -> Answer | None:
    try:
        document = json.loads(path.read_bytes())
        answer = Answer(document["works"] is True, str(document["reason"]))
        old = time.time() - path.stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return answer if answer.works or 0 <= old < _NO_LASTS_SECONDS else None


def _keep(path: Path, answer: Answer) -> None:
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"works": answer.works, "reason": answer.reason}, file)
        os.rename(name, path)
