"""Making an image: whole or not at all, with its stages shown; and one made for real."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.making_images import MANIFEST, layer, oci_archive, put_image
from wasmeval.cli.vm import shown
from wasmeval.errors import SetupError
from wasmeval.vm import images, kvm, qemu
from wasmeval.vm.building import making, tools
from wasmeval.vm.building.progress import Stage, Stages
from wasmeval.vm.building.recipe import Recipe
from wasmeval.vm.building.running import Ended, Runner
from wasmeval.vm.images import VmImage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "vm"
    found.mkdir(mode=0o700)
    return found


@pytest.fixture
def own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "temp"
    found.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(found))
    return found


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_stage_ends_when_the_next_begins() -> None:
    now = iter([0.0, 2.0, 3.0, 3.0, 5.0])
    told: list[Stage] = []
    stages = Stages(told.append, lambda: next(now))
    stages.begin("one")
    stages.begin("one")
    stages.tick()
    stages.begin("two")
    stages.end()
    stages.end()
    stages.tick()
    assert told == [
        Stage("one", 0.0, done=False),
        Stage("one", 2.0, done=False),
        Stage("one", 3.0, done=True),
        Stage("two", 0.0, done=False),
        Stage("two", 2.0, done=True),
    ]


def test_a_log_gets_a_line_for_each_stage_and_a_terminal_sees_it_run() -> None:
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        with shown(stream) as show:
            show(Stage("packing", 0.0, done=False))
            show(Stage("packing", 0.2, done=False))
            show(Stage("packing", 1.0, done=False))
            show(Stage("packing", 1.25, done=True))
            show(Stage("booting", 0.0, done=False))
    assert log.getvalue() == f"{'packing':<34}    1.2 s\n"
    drawn = terminal.getvalue()
    assert drawn.split("\r")[1:] == [
        f"{'packing':<34}      0 s",
        f"{'packing':<34}      1 s",
        f"{'packing':<34}    1.2 s\n",
        f"{'booting':<34}      0 s\n",
    ]


def test_a_program_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log")
    with pytest.raises(SetupError, match=r"^sh failed with status 3: at last$"):
        runner.output(["sh", "-c", "echo first >&2; echo at last >&2; exit 3"])
    assert "first\nat last\n" in (tmp_path / "log").read_text()


def test_what_a_program_prints_is_bounded_in_bytes_and_seconds(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log")
    with pytest.raises(SetupError):
        runner.output(["sh", "-c", "yes"], most=1000)
    with pytest.raises(SetupError, match="killed by signal 15"):
        runner.output(["sleep", "100"], seconds=0.2)


def test_giving_up_ends_what_runs_and_lets_nothing_start(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log")
    threading.Timer(0.3, runner.give_up).start()
    started = time.monotonic()
    with pytest.raises(Ended):
        runner.follow(["sh", "-c", "sleep 100 & wait"], lambda line: None)
    assert time.monotonic() - started < 10
    with pytest.raises(Ended):
        runner.output(["true"])


def test_a_program_ends_with_the_build_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from wasmeval.vm.building.running import Runner;"
        "say = lambda line: print(line, flush=True);"
        "Runner(Path(sys.argv[1])).follow(['sh', '-c', 'echo $$; exec sleep 100'], say)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{number}").exists()


def scripted(monkeypatch: pytest.MonkeyPatch, build: Any) -> None:
    """A build whose root and kernel come from `build`, which gets the folder they belong in."""
    monkeypatch.setattr(tools, "require", lambda programs: None)
    facts = {"languages": dict(MANIFEST.languages), "packages": []}

    def made(recipe: Recipe, out: Path, stage: Path, runner: Runner, stages: Stages) -> Any:
        (stage / "work").mkdir()
        runner.output(["echo", "hello"])
        build(out)
        return facts, "nowhere", {"linux-image-6.1": "1"}

    monkeypatch.setattr(making, "_build", made)


def put_parts(out: Path) -> None:
    (out / "root.erofs").write_bytes(bytes(4096))
    (out / "vmlinux").write_bytes(b"\x7fELF")
    (out / "initramfs/modules").mkdir(parents=True)
    (out / "initramfs/busybox").write_bytes(b"#!")


def test_a_build_puts_a_whole_image_in_place(
    folder: Path, own_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, put_parts)
    told: list[Stage] = []
    image = making.build("mine", Recipe(memory_bytes=512 << 20), folder, told.append, snapshot=False)
    assert image == images.find("mine", folder)
    assert image.manifest.kernel == "linux-image-6.1 1"
    assert image.manifest.memory_bytes == 512 << 20
    assert [stage.name for stage in told if stage.done] == ["computing digests", "putting it in place"]
    assert os.listdir(folder) == ["mine"]
    assert os.listdir(own_temp) == []


def test_a_build_replaces_the_former_image(
    folder: Path, own_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_image(folder, "mine")
    scripted(monkeypatch, put_parts)
    assert making.build("mine", Recipe(), folder, snapshot=False).manifest.source == "nowhere"
    assert os.listdir(folder) == ["mine"]


def test_a_build_that_fails_leaves_the_former_image_and_its_log(
    folder: Path, own_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_image(folder, "mine")

    def fail(out: Path) -> None:
        raise SetupError("no such package")

    scripted(monkeypatch, fail)
    with pytest.raises(
        making.BuildFailed, match="building the VM image 'mine' failed: no such package"
    ) as caught:
        making.build("mine", Recipe(), folder, snapshot=False)
    assert images.find("mine", folder).manifest == MANIFEST
    assert sorted(os.listdir(folder)) == ["mine", "mine.log"]
    assert "echo hello" in caught.value.log.read_text()
    assert "echo hello" in caught.value.tail
    assert os.listdir(own_temp) == []
    scripted(monkeypatch, put_parts)
    making.build("mine", Recipe(), folder, snapshot=False)
    assert os.listdir(folder) == ["mine"]


def test_an_interrupted_build_leaves_nothing(
    folder: Path, own_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(out: Path) -> None:
        put_parts(out)
        raise KeyboardInterrupt

    scripted(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        making.build("mine", Recipe(), folder, snapshot=False)
    assert os.listdir(folder) == []
    assert os.listdir(own_temp) == []


def test_what_a_killed_build_left_is_swept_and_what_runs_is_not(
    folder: Path, own_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".new-mine-dead").mkdir()
    (own_temp / "wasmeval-vm-dead").mkdir()
    (folder / ".new-mine-dead" / "lock").write_text(str(own_temp / "wasmeval-vm-dead"))
    code = (
        "import fcntl, os, sys, time; os.mkdir(sys.argv[1]); f = open(sys.argv[1] + '/lock', 'w');"
        "fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(100)"
    )
    running = folder / ".new-mine-alive"
    with subprocess.Popen([sys.executable, "-c", code, str(running)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        scripted(monkeypatch, put_parts)
        making.build("mine", Recipe(), folder, snapshot=False)
        process.kill()
    assert sorted(os.listdir(folder)) == [".new-mine-alive", "mine"]
    assert os.listdir(own_temp) == []


def test_a_folder_that_others_could_write_gets_no_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o777)
    scripted(monkeypatch, put_parts)
    with pytest.raises(SetupError, match="could be written by others"):
        making.build("mine", Recipe(), folder, snapshot=False)


def test_kvm_is_not_believed_without_a_boot(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_image(folder)
    image = images.find("default", folder)
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "none")
    assert kvm.probe(image) == kvm.Answer(False, f"{tmp_path / 'none'} is not there")


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("echo 'wasmeval: the kernel runs'", (True, "a guest booted under it in ")),
        ("exit 1", (False, "a guest died under it")),
        ("exec sleep 100", (False, "a guest did not boot under it within 0.5 s")),
    ],
)
def test_the_answer_of_a_boot_is_kept(
    program: str, answer: tuple[bool, str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_image(folder)
    image = images.find("default", folder)
    (tmp_path / "device").touch()
    (tmp_path / "qemu").write_text(f"#!/bin/sh\necho x >>{tmp_path}/boots\n{program}\n")
    (tmp_path / "qemu").chmod(0o755)
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "device")
    monkeypatch.setattr(qemu, "PROGRAM", str(tmp_path / "qemu"))
    monkeypatch.setattr(qemu, "version", lambda: "7.2")
    monkeypatch.setattr(kvm, "_SECONDS", 0.5)
    monkeypatch.setenv("WASMEVAL_CACHE_DIR", str(tmp_path / "cache"))
    first = kvm.probe(image)
    assert first.works is answer[0]
    assert first.reason.startswith(answer[1])
    assert kvm.probe(image) == first
    assert (tmp_path / "boots").read_text() == "x\n"
    kvm.probe(image, fresh=True)
    assert (tmp_path / "boots").read_text() == "x\nx\n"
    (kept,) = (tmp_path / "cache").glob("kvm-*.json")
    os.utime(kept, (time.time() - 4000,) * 2)
    kvm.probe(image)
    assert len((tmp_path / "boots").read_text().split()) == (2 if first.works else 3)


def test_the_command_line_lists_and_removes(wasmeval: Any, folder: Path) -> None:
    put_image(folder)
    put_image(folder, "damaged")
    (folder / "damaged/manifest.json").write_text("{}")
    environment = {**os.environ, "WASMEVAL_VM_IMAGES_DIR": str(folder)}
    done = wasmeval("vm", "list", "--json", env=environment)
    assert done.returncode == 4
    assert b"is no usable VM image: its format is not 1" in done.stderr
    (listed,) = json.loads(done.stdout)
    assert listed["name"] == "default"
    assert listed["languages"] == {"python": "3.11.2", "bash": "5.2.15"}
    done = wasmeval("vm", "remove", "damaged", env=environment)
    assert (done.returncode, done.stdout) == (0, b"removed damaged\n")
    done = wasmeval("vm", "list", env=environment)
    assert done.returncode == 0
    assert done.stdout.split(b"\n")[1].startswith(b"default  python 3.11.2, bash 5.2.15")
    assert wasmeval("vm", "remove", "default", env=environment).returncode == 0
    assert wasmeval("vm", "list", env=environment).stdout == b"No VM images; `wasmeval vm build` makes one.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "../x"), b"name: '../x' is no name of an image"),
        (("build", "--packages", "A"), b"packages: 'A' is no name of a Debian package"),
        (("build", "--memory", "1"), b"memory: 1 MiB is not between"),
        (("build", "--oci", "/not/there"), b"oci: there is no file /not/there"),
        (("remove", "../x"), b"name: '../x' is no name of an image"),
    ],
)
def test_wrong_arguments_are_told(wasmeval: Any, arguments: tuple[str, ...], message: bytes) -> None:
    done = wasmeval("vm", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


# ---- with the programs and the network of a machine that builds images


def test_the_default_image_has_what_it_promises(default_image: VmImage) -> None:
    manifest = default_image.manifest
    assert set(manifest.languages) == {"python", "javascript", "bash"}
    packages = {(one.kind, one.name) for one in manifest.packages}
    assert packages >= {("python", name) for name in ("numpy", "pandas", "matplotlib", "pytest", "pip")}
    assert packages >= {
        ("debian", name) for name in ("git", "curl", "bash", "nodejs", "python3-venv", "unzip")
    }
    assert any(one.licence for one in manifest.packages if one.name == "numpy")
    order = (default_image.initramfs / "modules/order").read_text().split()
    assert {"virtio_blk.ko", "virtio_console.ko", "erofs.ko", "quota_v2.ko"} <= set(order)
    assert default_image.kernel.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.slow
def test_an_image_from_an_oci_archive(
    default_image: VmImage, folder: Path, own_temp: Path, tmp_path: Path
) -> None:
    """Of the default image's own Python: half a minute, most of it to fetch the lists of packages."""
    out = tmp_path / "files"
    subprocess.run(
        [tools.find("fsck.erofs"), f"--extract={out}", default_image.root], check=True, capture_output=True
    )
    kept = [
        "usr/bin/python3",
        "usr/bin/python3.11",
        "usr/bin/bash",
        "usr/lib/python3.11",
        "lib",
        "lib64",
        "bin",
    ]
    kept += [f"usr/lib64/{path.name}" for path in (out / "usr/lib64").iterdir()]
    libraries = (
        "libc libm libz libexpat libtinfo libdl libpthread libutil libcrypto libssl libffi libbz2 liblzma"
    )
    for path in (out / "usr/lib/x86_64-linux-gnu").iterdir():
        if path.name.partition(".so")[0] in libraries.split() or path.name.startswith("ld-linux"):
            kept.append(f"usr/lib/x86_64-linux-gnu/{path.name}")
    packed = subprocess.run(["tar", "-C", out, "-c", *kept], check=True, capture_output=True).stdout
    archive = oci_archive(tmp_path / "a.tar", packed, layer("etc/motd", content=b"hello"))
    image = making.build("from-oci", Recipe(oci=archive), folder, snapshot=False)
    assert image.manifest.source == "OCI archive a.tar"
    assert image.manifest.languages == {
        name: default_image.manifest.languages[name] for name in ("python", "bash")
    }
    assert os.listdir(folder) == ["from-oci"]
    assert os.listdir(own_temp) == []


def test_an_image_without_python_is_refused(
    default_image: VmImage, folder: Path, own_temp: Path, tmp_path: Path
) -> None:
    archive = oci_archive(tmp_path / "a.tar", layer("etc/motd"))
    with pytest.raises(making.BuildFailed, match="has no python3, on which the guest's agent runs"):
        making.build("no-python", Recipe(oci=archive), folder, snapshot=False)
    assert os.listdir(folder) == ["no-python.log"]
    assert os.listdir(own_temp) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_interrupted_leaves_no_process_and_no_file(
    number: signal.Signals, default_image: VmImage, folder: Path, tmp_path: Path
) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    command = [sys.executable, "-m", "wasmeval", "vm", "build", "mine"]
    environment = {**os.environ, "WASMEVAL_VM_IMAGES_DIR": str(folder), "TMPDIR": str(temp)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"fetching lists of packages")
        assert os.listdir(folder)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert os.listdir(folder) == []
    assert os.listdir(temp) == []
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(temp) not in running
