"""The WASI preview 1 functions we supply: clock, random, sleep, output, input, and a tree of files.

Wasmtime's own WASI is not linked: its sleep blocks the thread, its files need descriptors, its output has no
bound. Each `Wasi` is the view of one guest. A handler gets the call's integers, may raise `Errno`, and answers
0 otherwise, now or, with an `Ask`, later; nothing else it does can reach the guest. Addresses and lengths come from
the guest and are checked in `GuestMemory`. Files are in files.py and naming.py.

Source: https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from wasmeval.wasm.descriptors import STDERR
from wasmeval.wasm.errno import FAULT, INVAL, NOSYS, NOTSOCK, SUCCESS, Errno
from wasmeval.wasm.mounts import Ask
from wasmeval.wasm.naming import PathCalls
from wasmeval.wasm.stdin import Stdin

__all__ = ["FAULT", "FUNCTIONS", "MODULE", "SUCCESS", "SUSPENDING", "Ask", "Errno", "Exit", "Stdin", "Wasi"]

MODULE = b"wasi_snapshot_preview1"

_MOST_RANDOM_BYTES = 65536
_MOST_SUBSCRIPTIONS = 256
_ABSOLUTE_TIME = 1

_SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
_EVENT = struct.Struct("<QHB5x16x")


class Exit(Exception):
    """The guest called proc_exit."""

    def __init__(self, code: int) -> None:
        self.code = code


class Wasi(PathCalls):
    """What one guest sees of the world. Has no effect on anything but itself; needs no closing."""

    __slots__ = ()

    # --- arguments and environment: empty ------------------------------------------------------------------------

    def sizes_get(self, count_out: int, size_out: int) -> None:
        """args_sizes_get, environ_sizes_get"""
        self.memory.write(count_out, bytes(4))
        self.memory.write(size_out, bytes(4))

    def nothing(self, *_: int) -> None:
        """args_get, environ_get, sched_yield, fd_sync on nothing: nothing to do."""

    # --- time and chance -----------------------------------------------------------------------------------------

    def clock_time_get(self, clock: int, _precision: int, out: int) -> None:
        """The wall clock, or a monotonic one for every other clock."""
        self.memory.write(out, self.world.clock_ns(clock).to_bytes(8, "little"))

    def clock_res_get(self, _clock: int, out: int) -> None:
        """One microsecond, nearly."""
        self.memory.write(out, (1000).to_bytes(8, "little"))

    def random_get(self, out: int, length: int) -> None:
        """Fresh entropy, or what the seed gives."""
        if length > _MOST_RANDOM_BYTES:
            raise Errno(INVAL)
        self.memory.write(out, self.world.entropy(length))

    def sleep(self, subscriptions: int, events: int, count: int, count_out: int) -> int:
        """poll_oneoff: write the event that comes first, and say in how many nanoseconds it does."""
        if not 0 < count <= _MOST_SUBSCRIPTIONS:
            raise Errno(INVAL)
        data = self.memory.read(subscriptions, 48 * count)
        first, pause = (0, 0, 0), None
        for userdata, tag, clock, timeout, _, flags in _SUBSCRIPTION.iter_unpack(data):
            due = 0
            if tag == 0:
                due = timeout
                if flags & _ABSOLUTE_TIME:
                    due = max(0, due - self.world.clock_ns(clock))
            if pause is None or due < pause:
                first, pause = (userdata, SUCCESS, tag), due
        self.memory.write(events, _EVENT.pack(*first))
        self.memory.write(count_out, (1).to_bytes(4, "little"))
        return pause or 0

    def proc_exit(self, code: int) -> None:
        """Ends the guest."""
        raise Exit(code - (1 << 32) if code >> 31 else code)

    def sock(self, fd: int, *_: int) -> None:
        """sock_accept and the others: no descriptor is a socket."""
        if fd > STDERR:
            self._descriptor(fd)
        raise Errno(NOTSOCK)


def _answer(code: int) -> Callable[..., None]:
    def handler(_wasi: Wasi, *_: int) -> None:
        raise Errno(code)

    return handler


Handler = Callable[..., Any]

FUNCTIONS: dict[str, tuple[str, Handler]] = {
    "args_get": ("ii", Wasi.nothing),
    "args_sizes_get": ("ii", Wasi.sizes_get),
    "environ_get": ("ii", Wasi.nothing),
    "environ_sizes_get": ("ii", Wasi.sizes_get),
    "clock_res_get": ("ii", Wasi.clock_res_get),
    "clock_time_get": ("iIi", Wasi.clock_time_get),
    "random_get": ("ii", Wasi.random_get),
    "sched_yield": ("", Wasi.nothing),
    "fd_advise": ("iIIi", Wasi.fd_advise),
    "fd_allocate": ("iII", Wasi.fd_allocate),
    "fd_close": ("i", Wasi.fd_close),
    "fd_datasync": ("i", Wasi.fd_sync),
    "fd_fdstat_get": ("ii", Wasi.fd_fdstat_get),
    "fd_fdstat_set_flags": ("ii", Wasi.fd_fdstat_set_flags),
    "fd_fdstat_set_rights": ("iII", Wasi.fd_fdstat_set_rights),
    "fd_filestat_get": ("ii", Wasi.fd_filestat_get),
    "fd_filestat_set_size": ("iI", Wasi.fd_filestat_set_size),
    "fd_filestat_set_times": ("iIIi", Wasi.fd_filestat_set_times),
    "fd_pread": ("iiiIi", Wasi.fd_pread),
    "fd_prestat_dir_name": ("iii", Wasi.fd_prestat_dir_name),
    "fd_prestat_get": ("ii", Wasi.fd_prestat_get),
    "fd_pwrite": ("iiiIi", Wasi.fd_pwrite),
    "fd_read": ("iiii", Wasi.fd_read),
    "fd_readdir": ("iiiIi", Wasi.fd_readdir),
    "fd_renumber": ("ii", Wasi.fd_renumber),
    "fd_seek": ("iIii", Wasi.fd_seek),
    "fd_sync": ("i", Wasi.fd_sync),
    "fd_tell": ("ii", Wasi.fd_tell),
    "fd_write": ("iiii", Wasi.fd_write),
    "path_create_directory": ("iii", Wasi.path_create_directory),
    "path_filestat_get": ("iiiii", Wasi.path_filestat_get),
    "path_filestat_set_times": ("iiiiIIi", Wasi.path_filestat_set_times),
    "path_link": ("iiiiiii", Wasi.path_link),
    "path_open": ("iiiiiIIii", Wasi.path_open),
    "path_readlink": ("iiiiii", Wasi.path_readlink),
    "path_remove_directory": ("iii", Wasi.path_remove_directory),
    "path_rename": ("iiiiii", Wasi.path_rename),
    "path_symlink": ("iiiii", Wasi.path_symlink),
    "path_unlink_file": ("iii", Wasi.path_unlink_file),
    # What this tier does not have.
    "proc_raise": ("i", _answer(NOSYS)),
    "sock_accept": ("iii", Wasi.sock),
    "sock_recv": ("iiiiii", Wasi.sock),
    "sock_send": ("iiiii", Wasi.sock),
    "sock_shutdown": ("ii", Wasi.sock),
}
"""Every function that answers an errno: its parameters and its handler. poll_oneoff and proc_exit differ."""

SUSPENDING = frozenset(
    {
        "fd_allocate",
        "fd_filestat_get",
        "fd_filestat_set_size",
        "fd_filestat_set_times",
        "fd_pread",
        "fd_pwrite",
        "fd_read",
        "fd_readdir",
        "fd_write",
        "path_create_directory",
        "path_filestat_get",
        "path_filestat_set_times",
        "path_open",
        "path_readlink",
        "path_remove_directory",
        "path_rename",
        "path_unlink_file",
    }
)
"""Those whose handlers may answer an `Ask`."""
