"""The jail: what a worker gives up for good before the first guest byte reaches it.

Four layers, each applied when the kernel has it and reported either way: resource limits, no new privileges,
Landlock (no file can be opened; since its ABI 4 no TCP port reached, since 6 no process outside signalled),
seccomp (a short list of system calls, none that connects or signals others; no new executable memory). A guest that
broke out of Wasm would find a process that can compute, sleep, and answer on one socket.

Sources: landlock(7), seccomp(2), bpf classic in linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from typing import NamedTuple

from wasmeval.wasm.pages import PAGEMAP_SCAN

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 4, 22, 2
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION_FLAG = 1
# Access rights of the file system by ABI version: how many low bits of the mask are known.
_LANDLOCK_FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_LANDLOCK_NETWORK, _LANDLOCK_SCOPES = 0b11, 0b11

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers from asm/unistd_64.h and asm-generic/unistd.h.
_SYSCALLS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
        "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16, "sched_yield": 24,
        "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44, "recvfrom": 45, "sendmsg": 46,
        "recvmsg": 47, "exit": 60, "sigaltstack": 131, "gettid": 186, "futex": 202, "restart_syscall": 219,
        "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234, "ppoll": 271,
        "getrandom": 318, "rseq": 334,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "fstat": 80, "ioctl": 29, "ppoll": 73, "lseek": 62, "mmap": 222,
        "mprotect": 226, "munmap": 215, "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
        "sched_yield": 124, "mremap": 216, "madvise": 233, "nanosleep": 101, "getpid": 172, "sendto": 206,
        "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "exit": 93, "sigaltstack": 132, "gettid": 178, "futex": 98,
        "restart_syscall": 128, "clock_gettime": 113, "clock_nanosleep": 115, "exit_group": 94, "tgkill": 131,
        "getrandom": 278, "rseq": 293,
    },
}  # fmt: skip
_PROT_EXEC = 4
_SECCOMP_ALLOW, _SECCOMP_ERRNO, _SECCOMP_KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000


class Layer(NamedTuple):
    """One layer of the jail: whether it holds (or could hold), and the detail for people."""

    name: str
    ok: bool
    detail: str


def enter() -> list[Layer]:
    """Apply every layer that this kernel has to this process, for good. Never raises; what failed is said."""
    return [_resource_limits(), _no_new_privileges(), _landlock(), _seccomp()]


def report() -> list[Layer]:
    """What `enter` would find here, without applying anything."""
    version = _landlock_version()
    machine = os.uname().machine
    filters = os.path.exists("/proc/sys/kernel/seccomp/actions_avail") and machine in _SYSCALLS
    return [
        Layer("rlimits", True, "no files written, no processes, no core dumps"),
        Layer("no_new_privs", True, "no new privileges, not dumpable"),
        Layer(
            "landlock",
            version > 0,
            _landlock_detail(version) if version > 0 else "not in this kernel (5.13 or newer has it)",
        ),
        Layer(
            "seccomp",
            filters,
            f"{machine} filter" if filters else f"no filter for this kernel or machine ({machine})",
        ),
    ]


def _resource_limits() -> Layer:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    try:
        for kind, limit in limits.items():
            resource.setrlimit(kind, (limit, limit))
    except (OSError, ValueError) as error:
        return Layer("rlimits", False, str(error))
    return Layer("rlimits", True, "no files written, no processes, no core dumps")


def _no_new_privileges() -> Layer:
    # Not dumpable: no other process of this user may attach to it or read its memory.
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
        if _libc.prctl(option, value, 0, 0, 0) != 0:
            return Layer("no_new_privs", False, os.strerror(ctypes.get_errno()))
    return Layer("no_new_privs", True, "no new privileges, not dumpable")


def _landlock_version() -> int:
    return int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG))


def _landlock() -> Layer:
    version = _landlock_version()
    if version < 1:
        return Layer("landlock", False, "not in this kernel (5.13 or newer has it)")
    files = (1 << _LANDLOCK_FILE_BITS[min(version, max(_LANDLOCK_FILE_BITS))]) - 1
    attributes = struct.pack("<Q", files)
    if version >= 4:
        attributes += struct.pack("<Q", _LANDLOCK_NETWORK)
    if version >= 6:
        attributes += struct.pack("<Q", _LANDLOCK_SCOPES)
    # A ruleset that handles everything and allows nothing.
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return Layer("landlock", False, os.strerror(ctypes.get_errno()))
    failed = _libc.syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), 0)
    code = ctypes.get_errno()
    os.close(ruleset)
    if failed:
        return Layer("landlock", False, os.strerror(code))
    return Layer("landlock", True, _landlock_detail(version))


def _landlock_detail(version: int) -> str:
    """What a ruleset of this version withholds; seccomp withholds sockets and signals on every kernel."""
    withheld = ["no file"]
    if version >= 4:
        withheld.append("no TCP port")
    if version >= 6:
        withheld.append("no signal outside")
    return f"ABI {version}: {', '.join(withheld)}"


def _seccomp() -> Layer:
    machine = os.uname().machine
    if machine not in _SYSCALLS:
        return Layer("seccomp", False, f"no filter for {machine}")
    program = _filter(_MACHINES[machine], _SYSCALLS[machine], os.getpid())
    count = len(program) // 8
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", count, ctypes.addressof(code))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        return Layer("seccomp", False, os.strerror(ctypes.get_errno()))
    return Layer("seccomp", True, f"{len(_SYSCALLS[machine])} system calls")


def _filter(audit_machine: int, syscalls: dict[str, int], pid: int) -> bytes:
    """The BPF program: foreign machine kills; listed calls pass, four of them only with harmless arguments; the
    rest is EPERM."""
    load, jump_equal, jump_set, answer = 0x20, 0x15, 0x45, 0x06
    number_at, machine_at = 0, 4

    def argument_at(index: int) -> int:
        return 16 + 8 * index

    def instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, value)

    allow = instruction(answer, _SECCOMP_ALLOW)
    deny = instruction(answer, _SECCOMP_ERRNO | errno.EPERM)
    program = [
        instruction(load, machine_at),
        instruction(jump_equal, audit_machine, yes=1),
        instruction(answer, _SECCOMP_KILL_PROCESS),
        instruction(load, number_at),
    ]
    # No new code, no signal to anyone else, and of ioctls the one that reads our own page map. The accumulator
    # is reloaded by nobody after these blocks: each of them ends the program.
    guarded = {
        "ioctl": (1, jump_equal, PAGEMAP_SCAN, allow, deny),
        "mmap": (2, jump_set, _PROT_EXEC, deny, allow),
        "mprotect": (2, jump_set, _PROT_EXEC, deny, allow),
        "tgkill": (0, jump_equal, pid, allow, deny),
    }
    for name, (index, test, value, when, otherwise) in guarded.items():
        program += [
            instruction(jump_equal, syscalls[name], yes=0, no=4),
            instruction(load, argument_at(index)),
            instruction(test, value, yes=0, no=1),
            when,
            otherwise,
        ]
    for name, number in syscalls.items():
        if name not in guarded:
            program += [instruction(jump_equal, number, yes=0, no=1), allow]
    program.append(deny)
    return b"".join(program)
