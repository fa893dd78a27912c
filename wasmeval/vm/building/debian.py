"""The root of an image from Debian's packages, by mmdebstrap: as root, or by any user in a user namespace."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from wasmeval.errors import SetupError
from wasmeval.vm.building import apt, wheels
from wasmeval.vm.building.recipe import Recipe
from wasmeval.vm.building.running import Ended, Runner

_HERE = Path(__file__).resolve().parent

# Documentation that no job reads; copyright files stay, as their licences ask.
_EXCLUDED = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)

# What mmdebstrap says, and what to call it.
_STAGES = {
    "running apt-get update": "fetching lists of packages",
    "downloading packages with apt": "downloading packages",
    "extracting archives": "installing Debian",
    "installing essential packages": "installing Debian",
    "installing remaining packages": "installing Debian packages",
}

# Uncompressed: with lz4hc it is half as large, yet a guest under emulation reads it 1.1 to 1.4 times slower.
PACKING = ("--quiet", "-x-1", "--preserve-mtime")


def tools_needed() -> list[str]:
    """The programs of this machine that it takes."""
    needed = ["mmdebstrap", "apt-get", "apt-config", "mkfs.erofs", "chroot"]
    return needed if os.geteuid() == 0 else [*needed, "newuidmap"]


def build(
    recipe: Recipe,
    sources: apt.Sources,
    stage: Path,
    out: Path,
    runner: Runner,
    begin: Callable[[str], None],
) -> None:
    """Put `root.erofs` and `facts.json` into `out`. `stage` is a folder that every user can look into, ours alone.

    Raises SetupError when a package is not there, or a program fails.
    """
    for name in ("inside.py", "debian.sh"):
        shutil.copy(_HERE / name, stage / name)
        (stage / name).chmod(0o644)
    (stage / "wheels").mkdir()
    (stage / "tmp").mkdir()
    if recipe.pip_arguments:
        (stage / "want-wheels").touch()
    fetching = _Fetching(recipe, stage / "wheels", runner)
    environment = {"TMPDIR": str(stage / "tmp")}
    try:
        runner.follow(
            _command(recipe, sources, stage, out, runner),
            lambda line: _hear(line, begin, fetching),
            environment=environment,
        )
    except (Ended, SetupError) as error:
        raise fetching.failure or error from None


def _command(recipe: Recipe, sources: apt.Sources, stage: Path, out: Path, runner: Runner) -> list[str]:
    script = f'sh {shlex.quote(str(stage))}/debian.sh "$1"'
    command = [
        *_own_mounts(),
        "mmdebstrap",
        "--variant=minbase",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--format=null",
        f"--include={','.join(recipe.debian_packages)}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--aptopt={option}" for option in apt.reaching_options(runner)),
        *(f"--dpkgopt={option}" for option in _EXCLUDED),
        # A root that a crash leaves half-made is thrown away.
        "--dpkgopt=force-unsafe-io",
        f"--customize-hook={script} python",
        f"--customize-hook={script} finish",
        f"--customize-hook=download /.wasmeval/facts.json {shlex.quote(str(out))}/facts.json",
        *_packing_hooks(script, out),
        # Packed by then.
        "--skip=cleanup",
    ]
    if sources.local:
        command.append("--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount")
    return [*command, sources.codename, "/dev/null", *map(str, sources.write(stage))]


def _own_mounts() -> list[str]:
    """Run by root, mmdebstrap mounts in this machine's own tree, /dev/shm among others; killed, it leaves that there.

    In a namespace of its own, mounts end with it. In a user namespace it has one anyway.
    """
    return ["unshare", "--mount", "--propagation", "private", "--"] if os.geteuid() == 0 else []


def _packing_hooks(script: str, out: Path) -> list[str]:
    """Root writes the packed root where it belongs; the root of a user namespace could not, and has it carried."""
    options, root = " ".join(PACKING), f"{shlex.quote(str(out))}/root.erofs"
    if os.geteuid() == 0:
        return [f"--customize-hook={script} pack {root} {options}"]
    return [
        f'--customize-hook={script} pack "$1/.wasmeval/root.erofs" {options}',
        "--customize-hook=echo 'wasmeval: stage copying the root'",
        f"--customize-hook=download /.wasmeval/root.erofs {root}",
    ]


def _hear(line: str, begin: Callable[[str], None], fetching: _Fetching) -> None:
    """Tell stages from what mmdebstrap and our script say; fetch wheels once the image's Python is known."""
    for said, stage in _STAGES.items():
        if line.startswith(f"I: {said}"):
            begin(stage)
    if found := re.fullmatch(r"wasmeval: stage (.+)", line):
        begin(found[1])
    if found := re.fullmatch(r"wasmeval: python (\d+) (\d+) (\d+) (\d+)", line):
        begin("fetching Python packages")
        fetching.start((int(found[1]), int(found[2])), (int(found[3]), int(found[4])))


class _Fetching:
    """Fetches the wheels in a thread, while mmdebstrap waits inside; a failure ends the build and is kept."""

    def __init__(self, recipe: Recipe, folder: Path, runner: Runner) -> None:
        self.failure: BaseException | None = None
        self._recipe = recipe
        self._folder = folder
        self._runner = runner

    def start(self, python: tuple[int, int], glibc: tuple[int, int]) -> None:
        threading.Thread(target=self._run, args=(python, glibc)).start()

    def _run(self, python: tuple[int, int], glibc: tuple[int, int]) -> None:
        try:
            wheels.fetch(self._recipe.pip_arguments, python, glibc, self._folder, self._runner)
            (self._folder / "complete").touch()
        except Ended:
            pass
        except BaseException as error:
            self.failure = error
            self._runner.give_up()
