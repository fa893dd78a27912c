"""Promise: a worker can compute, sleep and answer; a guest that broke out of WebAssembly finds no more than that."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guests import worker_pids
from wasmeval import Evaluator
from wasmeval.wasm.pages import PAGEMAP_SCAN
from wasmeval.worker import jail

pytestmark = pytest.mark.skipif(
    not all(layer.ok for layer in jail.report()), reason="this kernel does not have all layers of the jail"
)

EPERM = 1

# Runs in a process of its own: enters the jail as a worker does, then tries everything and prints what came of it.
PRISONER = r"""
import ctypes, json, mmap, os, platform, signal, socket, sys, time
from wasmeval.worker import jail

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
parent = os.getppid()
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
buffer = ctypes.create_string_buffer(4096)
ours, theirs = socket.socketpair()
path = b"/etc/passwd"
x86 = platform.machine() == "x86_64"

layers = jail.enter()

def attempt(function, *arguments):
    ctypes.set_errno(0)
    result = function(*arguments)
    failed = result is None or result in (-1, 2**64 - 1)
    return ctypes.get_errno() if failed else "allowed"

def system_call(on_x86, on_arm, *arguments):
    return attempt(libc.syscall, ctypes.c_long(on_x86 if x86 else on_arm), *arguments)

found = {
    "open": attempt(libc.open, path, os.O_RDONLY),
    "open for writing": attempt(libc.open, b"/tmp/escape", os.O_CREAT | os.O_WRONLY, 0o600),
    "openat2": system_call(437, 437, -100, path, buffer, 24),
    "creat": attempt(libc.creat, b"/tmp/escape", 0o600),
    "stat": attempt(libc.access, path, 0),
    "readlink": attempt(libc.readlink, b"/proc/self/exe", buffer, 4096),
    "unlink": attempt(libc.unlink, b"/tmp/nothing"),
    "rename": attempt(libc.rename, b"/tmp/nothing", b"/tmp/more"),
    "mkdir": attempt(libc.mkdir, b"/tmp/escape", 0o700),
    "symlink": attempt(libc.symlink, path, b"/tmp/escape"),
    "link": attempt(libc.link, path, b"/tmp/escape"),
    "chmod": attempt(libc.chmod, path, 0o777),
    "chown": attempt(libc.chown, path, 0, 0),
    "chdir": attempt(libc.chdir, b"/tmp"),
    "chroot": attempt(libc.chroot, b"/tmp"),
    "mount": attempt(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None),
    "truncate": attempt(libc.truncate, b"/tmp/nothing", ctypes.c_long(0)),
    "memfd_create": attempt(libc.memfd_create, b"x", 0),
    "socket inet": attempt(libc.socket, 2, 1, 0),
    "socket unix": attempt(libc.socket, 1, 1, 0),
    "socket netlink": attempt(libc.socket, 16, 3, 0),
    "socketpair": attempt(libc.socketpair, 1, 1, 0, buffer),
    "ioctl": attempt(libc.ioctl, 0, ctypes.c_ulong(0x5401), buffer),
    "connect": attempt(libc.connect, ours.fileno(), buffer, 16),
    "bind": attempt(libc.bind, ours.fileno(), buffer, 16),
    "fork": attempt(libc.fork),
    "clone3": system_call(435, 435, buffer, 88),
    "execve": attempt(libc.execv, b"/bin/true", None),
    "execveat": system_call(322, 281, -100, b"/bin/true", None, None, 0),
    "kill parent": attempt(libc.kill, parent, 0),
    "kill self": attempt(libc.kill, os.getpid(), 0),
    "kill all": attempt(libc.kill, -1, 0),
    "tgkill parent": system_call(234, 131, parent, parent, 0),
    "tkill": system_call(200, 130, parent, 0),
    "pidfd_open": system_call(434, 434, parent, 0),
    "ptrace": attempt(libc.ptrace, 16, parent, None, None),
    "process_vm_readv": attempt(libc.process_vm_readv, parent, buffer, 1, buffer, 1, 0),
    "mmap exec": attempt(libc.mmap, None, ctypes.c_size_t(4096), 5, 0x22, -1, ctypes.c_long(0)),
    "mmap write exec": attempt(libc.mmap, None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0)),
    "mprotect exec": attempt(libc.mprotect, ctypes.c_void_p(address), ctypes.c_size_t(4096), 5),
    "pkey_mprotect": system_call(329, 288, ctypes.c_void_p(address), ctypes.c_size_t(4096), 5, -1),
    "io_uring_setup": system_call(425, 425, 8, buffer),
    "bpf": system_call(321, 280, 0, buffer, 48),
    "perf_event_open": system_call(298, 241, buffer, 0, -1, -1, 0),
    "userfaultfd": system_call(323, 282, 0),
    "seccomp": system_call(317, 277, 0, 0, None),
    "prctl": attempt(libc.prctl, 15, b"x", 0, 0, 0),
    "prlimit": attempt(libc.prlimit, 0, 7, None, buffer),
    "setrlimit": attempt(libc.setrlimit, 7, buffer),
    "unshare": attempt(libc.unshare, 0x10000000),
    "setns": attempt(libc.setns, 0, 0),
    "setuid": attempt(libc.setuid, 0),
    "ioctl terminal": attempt(libc.ioctl, 0, ctypes.c_ulong(0x5412), b"x"),
    "ioctl socket": attempt(libc.ioctl, ours.fileno(), ctypes.c_ulong(0x8912), buffer),
    "fcntl": attempt(libc.fcntl, 0, 0, 0),
    "dup": attempt(libc.dup, 0),
    "pipe": attempt(libc.pipe, buffer),
    "eventfd": attempt(libc.eventfd, 0, 0),
    "epoll_create": attempt(libc.epoll_create1, 0),
    "timerfd": attempt(libc.timerfd_create, 1, 0),
    "inotify": attempt(libc.inotify_init1, 0),
    "shmget": attempt(libc.shmget, 1, ctypes.c_size_t(4096), 0o1600),
    "msgget": attempt(libc.msgget, 1, 0o1600),
    "semget": attempt(libc.semget, 1, 1, 0o1600),
    "sched_setaffinity": attempt(libc.sched_setaffinity, 0, ctypes.c_size_t(8), buffer),
    "nice": attempt(libc.setpriority, 0, 0, -10),
    "personality": attempt(libc.personality, ctypes.c_ulong(0xFFFFFFFF)),
    "setsid": attempt(libc.setsid),
    "keyctl": system_call(250, 219, 0, -3, 0),
    "ftruncate": attempt(libc.ftruncate, 0, ctypes.c_long(0)),
    "no such call": system_call(9999, 9999),
}
if x86:
    found["x32 getpid"] = attempt(libc.syscall, ctypes.c_long(0x40000000 + 39))

works = {}
works["compute"] = sum(range(1000))
works["allocate"] = len(bytearray(64 << 20))
works["random"] = len(os.urandom(16))
works["clock"] = time.monotonic() > 0
works["sleep"] = time.sleep(0.001) is None
ours.send(b"x")
works["socket"] = theirs.recv(10) == b"x"
for name, descriptor in (("mmap", mmap.mmap(-1, 4096)),):
    descriptor[0] = 1
    works[name] = descriptor[0]
os.write(1, json.dumps({"layers": [[l.name, l.ok, l.detail] for l in layers], "found": found, "works": works}).encode())
os._exit(0)
"""


@pytest.fixture(scope="module")
def prisoner() -> dict[str, Any]:
    run = subprocess.run([sys.executable, "-c", PRISONER], capture_output=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr.decode()
    report: dict[str, Any] = json.loads(run.stdout)
    return report


def test_every_layer_holds(prisoner: dict[str, Any]) -> None:
    assert [(name, holds) for name, holds, _ in prisoner["layers"]] == [
        ("rlimits", True),
        ("no_new_privs", True),
        ("landlock", True),
        ("seccomp", True),
    ]


def test_what_the_jail_forbids(prisoner: dict[str, Any]) -> None:
    found: dict[str, object] = prisoner["found"]
    assert len(found) > 60
    # Connected already: the kernel may say so (106) before anything else; and landlock may answer EACCES (13).
    assert {name: answer for name, answer in found.items() if answer != EPERM} == {}


def test_what_the_jail_leaves(prisoner: dict[str, Any]) -> None:
    assert prisoner["works"] == {
        "compute": 499500,
        "allocate": 64 << 20,
        "random": 16,
        "clock": True,
        "sleep": True,
        "socket": True,
        "mmap": 1,
    }


def proc(pid: int, name: str) -> Path:
    return Path(f"/proc/{pid}/{name}")


def status_of(pid: int) -> dict[str, str]:
    lines = proc(pid, "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_a_real_worker_is_in_it(evaluator: Evaluator) -> None:
    for pid in worker_pids(evaluator._pool):
        status = status_of(pid)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert status["Seccomp_filters"] >= "1"
        # The filter holds for the thread that set it: there must be no other.
        assert status["Threads"] == "1"
    assert [(name, holds) for name, holds, _ in evaluator.jail()] == [
        ("rlimits", True),
        ("no_new_privs", True),
        ("landlock", True),
        ("seccomp", True),
    ]


def test_a_real_workers_limits(evaluator: Evaluator) -> None:
    (pid,) = worker_pids(evaluator._pool)
    limits = {line[:26].strip(): line[26:47].strip() for line in proc(pid, "limits").read_text().splitlines()}
    assert limits["Max core file size"] == "0"
    assert limits["Max file size"] == "0"
    assert limits["Max processes"] == "0"
    assert limits["Max open files"] == "32"
    assert limits["Max locked memory"] == "0"


@pytest.mark.skipif(os.geteuid() != 0, reason="a worker is not dumpable: only root may look")
def test_a_real_worker_has_no_environment_and_no_descriptors(evaluator: Evaluator) -> None:
    (pid,) = worker_pids(evaluator._pool)
    assert proc(pid, "environ").read_bytes().strip(b"\0") == b""
    assert os.readlink(proc(pid, "cwd")) == "/"
    open_files = {entry.name: os.readlink(entry) for entry in proc(pid, "fd").iterdir()}
    rest = {number: name for number, name in open_files.items() if name != "/dev/null"}
    # Its channel, its page map, and what it has mapped: the page it shares with the pool, compiled code, the library.
    kinds = [name.partition(":")[0].rpartition(".")[2] for name in rest.values()]
    pagemap = f"/proc/{pid}/pagemap"
    assert sorted(kinds) == ["/memfd", pagemap, "cwasm", "cwasm", "cwasm", "socket", "zip"]
    for number, name in rest.items():
        if name.endswith((".cwasm", ".zip")):
            flags = next(
                line.split()[1]
                for line in proc(pid, f"fdinfo/{number}").read_text().splitlines()
                if line.startswith("flags")
            )
            assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def test_the_filter_kills_a_foreign_machine() -> None:
    """A program for another machine's system calls is refused before any number is looked at."""
    numbers = jail._SYSCALLS["x86_64"]
    program = jail._filter(jail._MACHINES["x86_64"], numbers, 1)
    assert program[:8] != program[8:16]
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096


def run_filter(program: bytes, machine: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would make of a system call: classic BPF, as far as the jail uses it."""
    import struct

    data = struct.pack("<IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        code, yes, no, value = instructions[at]
        at += 1
        if code == 0x20:
            accumulator = int.from_bytes(data[value : value + 4], "little")
        elif code == 0x15:
            at += yes if accumulator == value else no
        elif code == 0x45:
            at += yes if accumulator & value else no
        else:
            assert code == 0x06
            return value


@pytest.mark.parametrize("machine", jail._SYSCALLS)
def test_the_filter_for_each_machine(machine: str) -> None:
    numbers, audit, pid = jail._SYSCALLS[machine], jail._MACHINES[machine], 4711
    program = jail._filter(audit, numbers, pid)
    allow, deny, kill = 0x7FFF0000, 0x00050000 | EPERM, 0x80000000
    for number in range(1024):
        expected = {n for name, n in numbers.items() if name not in ("tgkill", "ioctl")}
        assert run_filter(program, audit, number) == (allow if number in expected else deny), number
        assert run_filter(program, 0x40000003, number) == kill
        assert run_filter(program, audit, number | 0x40000000) == deny
    for name in ("mmap", "mprotect"):
        assert run_filter(program, audit, numbers[name], (0, 4096, 3)) == allow
        for protection in (4, 5, 6, 7, 4 | 1 << 40):
            assert run_filter(program, audit, numbers[name], (0, 4096, protection)) == deny
    assert run_filter(program, audit, numbers["ioctl"], (5, PAGEMAP_SCAN, 4096)) == allow
    assert run_filter(program, audit, numbers["ioctl"], (5, 0x5401, 4096)) == deny
    assert run_filter(program, audit, numbers["tgkill"], (pid, pid, 6)) == allow
    assert run_filter(program, audit, numbers["tgkill"], (pid + 1, pid, 6)) == deny


def test_a_missing_layer_is_said_and_refused_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform.machine() in jail._SYSCALLS
    there = os.uname()
    elsewhere = os.uname_result((there.sysname, there.nodename, there.release, there.version, "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: elsewhere)
    assert [layer.ok for layer in jail.report()] == [True, True, True, False]
    assert jail.report()[3].detail == "no filter for this kernel or machine (riscv64)"


@pytest.mark.parametrize(
    ("version", "detail"),
    [
        (1, "ABI 1: no file"),
        (3, "ABI 3: no file"),
        (4, "ABI 4: no file, no TCP port"),
        (6, "ABI 6: no file, no TCP port, no signal outside"),
    ],
)
def test_landlock_claims_no_more_than_its_version_has(
    monkeypatch: pytest.MonkeyPatch, version: int, detail: str
) -> None:
    monkeypatch.setattr(jail, "_landlock_version", lambda: version)
    assert jail.report()[2] == jail.Layer("landlock", True, detail)
