"""Promise: the process of a machine is held in a jail: whoever broke out of his guest would find nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm.processes import is_alive, status
from wasmeval.limits import MIB
from wasmeval.vm import VmSettings, VmTier, golden, images, jail, qemu

F_GET_SEALS = 1034
ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8
NAMESPACES = ("user", "pid", "net", "ipc", "mnt", "uts", "cgroup")


@dataclass
class Caged:
    """A machine's process, and what it was made of."""

    number: int
    hardware: qemu.Hardware
    root: str
    folder: Path
    seals: tuple[int, int]

    def text(self, name: str) -> str:
        return Path(f"/proc/{self.number}/{name}").read_text()

    def descriptors(self) -> dict[str, tuple[str, int]]:
        """What is open, and how."""
        found = {}
        for each in os.listdir(f"/proc/{self.number}/fd"):
            flags = re.search(r"flags:\s+(\d+)", self.text(f"fdinfo/{each}"))
            assert flags is not None
            found[each] = os.readlink(f"/proc/{self.number}/fd/{each}"), int(flags[1], 8) & os.O_ACCMODE
        return found


@pytest.fixture(scope="module")
def caged(vm_settings: VmSettings) -> Iterator[Caged]:
    image = images.find(vm_settings.image, vm_settings.images_dir)
    made = golden.golden_of(image, "tcg")
    machine = made.clone()
    loop = asyncio.new_event_loop()

    async def resume() -> None:
        from wasmeval.vm.agent import Agent

        agent = Agent(machine)
        await agent.resume("vm", 60)
        loop.remove_reader(machine.channel.fileno())

    try:
        loop.run_until_complete(resume())
        seals = tuple(fcntl.fcntl(each, F_GET_SEALS) for each in (made.memory, made.state))
        assert is_alive(machine.number)
        yield Caged(machine.number, machine.hardware, str(image.root), image.folder, (seals[0], seals[1]))
        assert is_alive(machine.number), machine.complaint()
    finally:
        loop.close()
        machine.kill()
        machine.process.wait()
        assert not is_alive(machine.number)
        made.close()


def test_it_has_no_privilege_and_gets_none(caged: Caged) -> None:
    told = status(caged.number)
    assert {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"


def test_it_is_another_user_in_no_group(caged: Caged) -> None:
    told = status(caged.number)
    users = set(told["Uid"].split())
    assert len(users) == 1
    if os.getuid() == 0:
        assert int(users.pop()) >= 2_000_000_000
        assert int(told["Gid"].split()[0]) >= 2_000_000_000
        assert told["Groups"].split() == []
    else:
        assert users == {str(os.getuid())}


def test_every_thread_of_it_is_behind_a_filter_of_system_calls(caged: Caged) -> None:
    threads = os.listdir(f"/proc/{caged.number}/task")
    assert len(threads) > 1
    for thread in threads:
        assert status(f"{caged.number}/task/{thread}")["Seccomp"] == "2"


@pytest.mark.parametrize("name", NAMESPACES)
def test_it_has_namespaces_of_its_own(caged: Caged, name: str) -> None:
    assert os.readlink(f"/proc/{caged.number}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")


def test_it_is_alone_among_processes(caged: Caged) -> None:
    assert status(caged.number)["NSpid"].split()[-1] == "1"


def test_it_has_no_network(caged: Caged) -> None:
    devices = [line.split(":")[0].strip() for line in caged.text("net/dev").splitlines()[2:]]
    assert devices == ["lo"]
    assert [line for line in caged.text("net/route").splitlines()[1:] if line] == []
    assert len(caged.text("net/tcp").splitlines()) == 1


def test_it_has_open_what_it_was_given_and_nothing_else(caged: Caged) -> None:
    kinds: dict[str, int] = {}
    for where, mode in caged.descriptors().values():
        if where == caged.root:
            assert mode == os.O_RDONLY
            kind = "root"
        elif where.startswith(f"{caged.folder}/golden/#") and where.endswith(" (deleted)"):
            kind = "disk"
        elif where.startswith("/memfd:wasmeval-"):
            kind = where.removeprefix("/memfd:wasmeval-").removesuffix(" (deleted)")
        else:
            kind = where.partition(":[")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    assert set(kinds) - {"anon_inode", "state"} == {
        "root", "disk", "memory", "socket", "pipe", "/dev/null",
    }  # fmt: skip
    # To its agent, to its relay, and its monitor, whose other end is closed. What it says of errors goes into the pipe.
    assert kinds["socket"] == 3
    assert kinds["pipe"] == 1


def test_its_disk_has_no_name_and_is_nobody_else_s(caged: Caged) -> None:
    disks = [each for each, (where, _) in caged.descriptors().items() if "/golden/#" in where]
    for each in disks:
        status = os.stat(f"/proc/{caged.number}/fd/{each}")
        assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 0o600)


def test_what_clones_share_can_be_written_by_nobody(caged: Caged) -> None:
    """A descriptor can be opened once more, for writing: what is sealed cannot."""
    assert caged.seals == (ALL_SEALS, ALL_SEALS)


def test_it_sees_programs_and_libraries_and_can_write_nowhere(caged: Caged) -> None:
    root = f"/proc/{caged.number}/root"
    assert set(os.listdir(root)) <= {"usr", "lib", "lib64", "bin", "etc", "proc", "dev"}
    assert os.listdir(f"{root}/etc") == ["ld.so.cache"]
    for line in caged.text("mounts").splitlines():
        _, where, kind, options, *_ = line.split()
        if kind not in ("proc", "devpts") and not where.startswith("/dev/"):
            assert "ro" in options.split(","), line
        assert "nosuid" in options.split(",")
    devices = set(os.listdir(f"{root}/dev"))
    assert devices <= {
        "null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "shm", "pts", "ptmx",
        "core", "console",
    }  # fmt: skip


def test_it_knows_nothing_of_its_host_s_environment(caged: Caged) -> None:
    names = {each.partition("=")[0] for each in caged.text("environ").split("\0") if each}
    assert names <= {"PATH", "PWD", "MALLOC_ARENA_MAX"}


def test_its_resources_are_limited(caged: Caged) -> None:
    limits = {}
    for line in caged.text("limits").splitlines()[1:]:
        name, soft, hard = re.split(r"\s{2,}", line.strip())[:3]
        limits[name] = soft, hard
    size = caged.hardware.memory_bytes + (3 << 30)
    assert limits["Max address space"] == (str(size), str(size))
    most = max(caged.hardware.disk_bytes, caged.hardware.memory_bytes) + MIB
    assert limits["Max file size"] == (str(most), str(most))
    assert limits["Max open files"] == ("64", "64")
    assert limits["Max core file size"] == ("0", "0")


def test_the_report_names_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [layer.name for layer in jail.report()] == ["namespaces", "limits", "user"]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert [(layer.ok, layer.detail) for layer in jail.report()] == [
        (False, "bubblewrap is not installed; apt-get install bubblewrap"),
        (False, "prlimit (util-linux) is not installed"),
        (False, "setpriv (util-linux) is not installed"),
    ]


def test_a_tier_that_must_have_it_starts_without_none(
    vm_settings: VmSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wasmeval.errors import SetupError

    monkeypatch.setattr(jail, "report", lambda: [jail.Layer("limits", False, "prlimit is not installed")])
    tier = VmTier(VmSettings(vm_settings.image, vm_settings.images_dir, require_jail=True))
    with pytest.raises(
        SetupError, match="the jail of virtual machines is not whole: prlimit is not installed"
    ):
        asyncio.run(tier.start())
