"""The root of an image from an OCI archive: its layers, applied one by one in a sandbox that has nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from wasmeval.errors import SetupError
from wasmeval.vm.building.debian import PACKING
from wasmeval.vm.building.oci import Archive, Layer
from wasmeval.vm.building.removing import remove_tree
from wasmeval.vm.building.running import Runner

_HERE = Path(__file__).resolve().parent
_FACTS_BYTES, _FACTS_SECONDS = 8 << 20, 60.0
_TOO_OLD_PYTHON = (3, 9)


def tools_needed() -> list[str]:
    """The programs of this machine that it takes."""
    return ["bwrap", "mkfs.erofs", "apt-get", "apt-config"]


def build(archive: Path, stage: Path, out: Path, runner: Runner, begin: Callable[[str], None]) -> None:
    """Put `root.erofs` and `facts.json` of the image in `archive` into `out`.

    Raises SetupError: the archive is damaged or refused, or the image has no Python, on which the agent runs.
    """
    root = stage / "root"
    root.mkdir(mode=0o755)
    try:
        with Archive(archive) as image:
            layers = image.layers()
            for number, layer in enumerate(layers, 1):
                begin(f"unpacking layer {number} of {len(layers)}")
                _apply(image, layer, root, runner)
        begin("finishing")
        runner.follow(_sandboxed(root, "finish"), lambda line: None)
        _check_python(root)
        facts = runner.output(_facts_command(root), most=_FACTS_BYTES, seconds=_FACTS_SECONDS)
        _check_version(facts)
        (out / "facts.json").write_text(facts, encoding="utf-8")
        begin("packing the root")
        runner.output(["mkfs.erofs", *PACKING, "--all-root", str(out / "root.erofs"), str(root)])
    finally:
        remove_tree(root)


def _apply(image: Archive, layer: Layer, root: Path, runner: Runner) -> None:
    reading, writing = os.pipe()
    pump = _Pump(image.unpacked(layer), writing)
    try:
        with open(reading, "rb") as source:
            pump.start()
            runner.follow(_sandboxed(root, "apply"), lambda line: None, stdin=source)
    except SetupError:
        pump.join()
        if pump.failure is not None:
            raise pump.failure from None
        raise
    finally:
        pump.join()
    if pump.failure is not None:
        raise pump.failure


class _Pump(threading.Thread):
    """Writes a layer to the sandbox, which may end before it has read all."""

    def __init__(self, pieces: Iterator[bytes], descriptor: int) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._pieces = pieces
        self._descriptor = descriptor

    def run(self) -> None:
        try:
            with open(self._descriptor, "wb", buffering=0) as file, contextlib.suppress(BrokenPipeError):
                for piece in self._pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[file.write(rest) :]
        except BaseException as error:
            self.failure = error


def _sandboxed(root: Path, step: str) -> list[str]:
    """layers.py with our Python, in namespaces of its own: no network, one folder to write, capabilities for that."""
    bound = [path for path in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache") if os.path.exists(path)]
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        bound.append(sys.base_prefix)
    command = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0"]
    command += ["--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_CHROOT", "--cap-add", "CAP_DAC_OVERRIDE"]
    command += [word for path in bound for word in ("--ro-bind", path, path)]
    for name in ("layers.py", "inside.py"):
        command += ["--ro-bind", str(_HERE / name), f"/program/{name}"]
    command += [
        "--bind",
        str(root),
        "/root-of-image",
        "--dev",
        "/dev",
        "--clearenv",
        "--setenv",
        "LC_ALL",
        "C.UTF-8",
    ]
    python = os.path.realpath(sys.executable)
    return [*command, "--", python, "-I", "-S", "-B", "/program/layers.py", step, "/root-of-image"]


def _facts_command(root: Path) -> list[str]:
    """inside.py with the image's own Python: a program of strangers, which gets nothing but its own files."""
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *(
            "--ro-bind",
            str(root),
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/tmp",
        ),
        *("--ro-bind", str(_HERE / "inside.py"), "/run/inside.py", "--clearenv"),
        *("--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--setenv", "LC_ALL", "C.UTF-8"),
        *("--", "/usr/bin/python3", "-I", "-B", "/run/inside.py", "facts"),
    ]


def _check_python(root: Path) -> None:
    if not os.path.lexists(root / "usr/bin/python3"):
        raise SetupError(
            "the OCI image has no python3, on which the guest's agent runs; "
            "install it there, in /usr/bin or /usr/local/bin"
        )


def _check_version(facts: str) -> None:
    try:
        version = str(json.loads(facts)["languages"]["python"])
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SetupError("the Python of the OCI image does not say its version") from None
    if numbers < _TOO_OLD_PYTHON:
        oldest = ".".join(map(str, _TOO_OLD_PYTHON))
        raise SetupError(
            f"the OCI image has Python {version[:20]}; the guest's agent needs {oldest} or newer"
        )
