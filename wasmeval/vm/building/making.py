"""Making an image: from a recipe to a folder that is there whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from wasmeval.errors import SetupError, WasmevalError
from wasmeval.vm import images
from wasmeval.vm.building import apt, debian, kernel, tools, unpacking
from wasmeval.vm.building.progress import StageCallback, Stages
from wasmeval.vm.building.recipe import Recipe
from wasmeval.vm.building.removing import remove_tree
from wasmeval.vm.building.running import Ended, Runner
from wasmeval.vm.images import Manifest, VmImage

_TAIL_LINES = 15
_LOCK_NAME = "lock"
_STAGE_PREFIX = "wasmeval-vm-"
_LARGEST_FACTS = 8 << 20
# It comes last: who lacks them should not wait minutes to hear of it.
_FOR_THE_SNAPSHOT = ("qemu-system-x86_64", "bwrap", "mke2fs")


class BuildFailed(SetupError):
    """A build ended without an image. `log` is the file with all that its programs said, `tail` its last lines."""

    def __init__(self, message: str, log: Path, tail: str) -> None:
        super().__init__(message)
        self.log = log
        self.tail = tail


def build(
    name: str,
    recipe: Recipe,
    folder: Path | None = None,
    progress: StageCallback = lambda stage: None,
    *,
    snapshot: bool = True,
) -> VmImage:
    """Build the image `name` below `folder` (default: images.default_folder()); one of that name is replaced.

    Takes minutes, and about 2 GB in `$TMPDIR` meanwhile. `snapshot` boots it once, so that its VMs start in a moment.
    Raises InvalidArgument for the name, SetupError when this machine lacks something, BuildFailed when a step fails.
    Whatever ends it early, Ctrl-C too, leaves no image and no process behind, and the former image as it was.
    """
    images.check_name(name)
    tools.require([*_tools_needed(recipe), *(_FOR_THE_SNAPSHOT if snapshot else ())])
    folder = folder or images.default_folder()
    stages = Stages(progress)
    with _folders(name, folder) as (out, stage, log):
        runner = Runner(log, stages.tick)
        try:
            facts, sources, versions = _build(recipe, out, stage, runner, stages)
            stages.begin("computing digests")
            manifest = _manifest(recipe, out, facts, sources, versions)
            (out / images.MANIFEST_NAME).write_text(manifest.encode(), encoding="utf-8")
            image = VmImage(name, out, manifest)
            if snapshot:
                _take_snapshot(image, stages)
            stages.begin("putting it in place")
            (out / _LOCK_NAME).unlink()
            _put_in_place(out, folder / name)
            (folder / f"{name}.log").unlink(missing_ok=True)
            stages.end()
        except Ended:
            raise SetupError("the build was given up") from None
        except WasmevalError as error:
            raise _failure(error, name, folder, log) from error
        finally:
            runner.give_up()
    return VmImage.load(folder / name)


def _tools_needed(recipe: Recipe) -> list[str]:
    needed = debian.tools_needed() if recipe.oci is None else unpacking.tools_needed()
    return [*needed, "apt-cache", "dpkg-deb"]


@contextlib.contextmanager
def _folders(name: str, folder: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Where the new image is put together, a folder for the work, and the log in it; both are gone afterwards."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            images.check_owner(folder)
            _sweep(folder)
            out = Path(tempfile.mkdtemp(dir=folder, prefix=f".new-{name}-"))
            stack.callback(remove_tree, out)
            # Held as long as this process lives, whatever ends it.
            held = stack.enter_context(open(out / _LOCK_NAME, "w"))
            fcntl.flock(held, fcntl.LOCK_EX)
            stage = Path(tempfile.mkdtemp(prefix=_STAGE_PREFIX))
            held.write(str(stage))
            held.flush()
        except (OSError, ValueError) as error:
            raise SetupError(f"cannot build below {folder}: {error}; set WASMEVAL_VM_IMAGES_DIR") from error
        stack.callback(remove_tree, stage)
        # In a user namespace, the root of the new system is another user than this one.
        stage.chmod(0o755)
        yield out, stage, stage / "log"


def _sweep(folder: Path) -> None:
    """Remove what builds left that were killed: folders of new images that no process holds any more."""
    for left in folder.glob(".new-*"):
        with contextlib.suppress(OSError), open(left / _LOCK_NAME) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stage = Path(held.read(4096))
            # The name of the folder for the work stays with us until that is gone.
            if not stage.name.startswith(_STAGE_PREFIX) or remove_tree(stage):
                remove_tree(left)


def _build(
    recipe: Recipe, out: Path, stage: Path, runner: Runner, stages: Stages
) -> tuple[dict[str, object], str, dict[str, str]]:
    """Root, kernel and initramfs in `out`: what the image says it has, where it is from, its packages' versions."""
    sources = apt.host_sources()
    with _Aside(lambda: _fetch_kernel(sources, stage, out, runner), runner) as aside:
        if recipe.oci is None:
            source = f"Debian {sources.codename}"
            debian.build(recipe, sources, stage, out, runner, stages.begin)
        else:
            source = f"OCI archive {recipe.oci.name.encode('ascii', 'replace').decode()[:200]}"
            unpacking.build(recipe.oci.absolute(), stage, out, runner, stages.begin)
    facts = out / "facts.json"
    document = _facts(facts)
    facts.unlink()
    return document, source, aside.versions


def _fetch_kernel(sources: apt.Sources, stage: Path, out: Path, runner: Runner) -> dict[str, str]:
    downloads = apt.Downloads(stage / "apt", sources, runner)
    downloads.update()
    (stage / "kernel").mkdir()
    return kernel.fetch(downloads, stage / "kernel", out)


class _Aside:
    """Something done beside the main work: joined at the end, and whichever of both fails ends the other."""

    def __init__(self, work: Callable[[], dict[str, str]], runner: Runner) -> None:
        self.versions: dict[str, str] = {}
        self._failure: BaseException | None = None
        self._work = work
        self._runner = runner
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.versions = self._work()
        except BaseException as error:
            self._failure = error
            self._runner.give_up()

    def __enter__(self) -> _Aside:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._runner.give_up()
        self._thread.join()
        if self._failure is not None and (error is None or isinstance(error, Ended)):
            raise self._failure from None


def _facts(path: Path) -> dict[str, object]:
    """What the image said of itself, bounded: its words are read, not believed."""
    with open(path, "rb") as file:
        text = file.read(_LARGEST_FACTS + 1)
    try:
        document = json.loads(text) if len(text) <= _LARGEST_FACTS else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise SetupError("the image does not say what is in it")
    return document


def _manifest(
    recipe: Recipe, out: Path, facts: dict[str, object], source: str, versions: dict[str, str]
) -> Manifest:
    root, vmlinux = out / images.ROOT_NAME, out / images.KERNEL_NAME
    try:
        languages, packages = (
            images.languages_of(facts.get("languages")),
            images.packages_of(facts.get("packages")),
        )
    except ValueError as error:
        raise SetupError(f"what the image says of itself is wrong: {error}") from error
    kernels = [f"{name} {version}" for name, version in versions.items() if name.startswith("linux-image")]
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=source,
        root_sha256=_sha256(root),
        root_bytes=root.stat().st_size,
        kernel_sha256=_sha256(vmlinux),
        kernel=kernels[0] if kernels else "unknown",
        memory_bytes=recipe.memory_bytes,
        disk_bytes=recipe.disk_bytes,
        languages=languages,
        packages=packages,
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take_snapshot(image: VmImage, stages: Stages) -> None:
    """Boot `image` and keep the machine as it is then. Not the image's own business, so loaded only here."""
    try:
        golden = importlib.import_module("wasmeval.vm.golden")
    except ModuleNotFoundError:
        return
    stages.begin("booting it once")
    golden.make(image, stages.begin)


def _put_in_place(out: Path, target: Path) -> None:
    """`out` becomes `target`. Two renames when there is one already: between them is neither, for an instant."""
    out.chmod(0o700)
    former = None
    try:
        if os.path.lexists(target):
            former = target.with_name(f".former-{target.name}-{os.getpid()}")
            os.rename(target, former)
        os.rename(out, target)
    except OSError as error:
        if former is not None and not os.path.lexists(target):
            os.rename(former, target)
        raise SetupError(f"cannot put the image in place at {target}: {error.strerror}") from error
    if former is not None:
        shutil.rmtree(former, ignore_errors=True)


def _failure(error: WasmevalError, name: str, folder: Path, log: Path) -> WasmevalError:
    """`error` with the log beside it, kept where the image would have been."""
    if not log.exists():
        return error
    kept = folder / f"{name}.log"
    shutil.copyfile(log, kept)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    message = f"building the VM image {name!r} failed: {error}; all that was said is in {kept}"
    return BuildFailed(message, kept, "\n".join(lines[-_TAIL_LINES:]))
