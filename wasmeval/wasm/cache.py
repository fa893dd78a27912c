"""The private cache: runtime images compiled for this machine, kept between starts.

Compiled code is trusted as code, so only its owner may be able to write it: the folder must belong to this user
and be writable by nobody else, or it is refused. Entries are keyed by the image, Wasmtime's version and the
engine's settings; what does not match is simply not found. Files appear by rename, whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wasmeval.errors import SetupError
from wasmeval.runtimes import Blob, Catalogue, Runtime
from wasmeval.wasm import capi
from wasmeval.wasm.engine import CODE_SETTINGS, Engine, EngineSettings, check_version

# However this package is installed: an isolated interpreter does not look where the user's own packages are.
_BOOT = "import sys; sys.path += sys.argv[3:]; from wasmeval.wasm.cache import main; main(*sys.argv[1:3])"


@dataclass(frozen=True, slots=True)
class CompileProgress:
    """How far the compilation of one runtime is. `done` of `total` is an estimate from the image's size."""

    runtime: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CompiledRuntime:
    """A runtime ready to be loaded: its compiled module, and its library unpacked."""

    runtime: Runtime
    module: Path
    library: Path | None


ProgressCallback = Callable[[CompileProgress], None]


def default_folder() -> Path:
    """`$WASMEVAL_CACHE_DIR`, else `wasmeval` below `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("WASMEVAL_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wasmeval"


class Cache:
    """The folder of compiled runtimes. Raises SetupError when others could write it."""

    def __init__(self, folder: Path | None = None) -> None:
        check_version()
        self.folder = folder or default_folder()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.lstat()
        except OSError as error:
            raise SetupError(
                f"cannot use the cache folder {self.folder}: {error}; set WASMEVAL_CACHE_DIR"
            ) from error
        if self.folder.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise SetupError(
                f"the cache folder {self.folder} could be written by others, and compiled code in it is trusted; "
                f"remove it, or `chmod go-w` it and make it your own"
            )

    def find(self, runtime: Runtime) -> CompiledRuntime | None:
        """The compiled form of `runtime` when it is here."""
        compiled = self._entry(runtime)
        whole = compiled.module.is_file() and (compiled.library is None or compiled.library.is_file())
        return compiled if whole else None

    def prepare(
        self, catalogue: Catalogue, progress: ProgressCallback | None = None
    ) -> list[CompiledRuntime]:
        """Every runtime of `catalogue`, compiled; those not here yet are compiled now, which takes seconds each.

        Two processes that need the same one do it once. Raises SetupError when an image is damaged.
        """
        return [self.find(runtime) or self._make(runtime, progress) for runtime in catalogue]

    def _entry(self, runtime: Runtime) -> CompiledRuntime:
        key = f"{runtime.image.sha256}|wasmtime-{capi.VERSION}|{capi.MACHINE}|{CODE_SETTINGS}"
        name = f"{runtime.name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cwasm"
        library = (
            self.folder / f"{runtime.name}-{runtime.library.sha256[:24]}.zip" if runtime.library else None
        )
        return CompiledRuntime(runtime, self.folder / name, library)

    def _make(self, runtime: Runtime, progress: ProgressCallback | None) -> CompiledRuntime:
        compiled = self._entry(runtime)
        with self._lock():
            if compiled.library and runtime.library and not compiled.library.is_file():
                _place(compiled.library, unpack(runtime.library))
            if not compiled.module.is_file():
                self._compile(runtime, compiled.module, progress)
        return compiled

    def _compile(self, runtime: Runtime, target: Path, progress: ProgressCallback | None) -> None:
        # In a process of its own: it takes seconds of all CPUs and hundreds of MB, and Ctrl-C must end it.
        paths = [str(Path(__file__).resolve().parents[2]), str(capi.PACKAGE.parent)]
        command = [sys.executable, "-I", "-c", _BOOT, str(runtime.image.path.parent), str(target), *paths]
        environment = {"PATH": os.defpath}
        # Unmeasured on other machines: about 0.35 s a megabyte of image on two CPUs.
        expected = 0.35 * runtime.image.size_bytes / 1e6
        started = time.monotonic()
        with subprocess.Popen(
            command, env=environment, cwd="/", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                while process.poll() is None:
                    seconds = time.monotonic() - started
                    if progress:
                        done = int(1000 * min(0.99, 1 - 2 ** (-3 * seconds / expected)))
                        progress(CompileProgress(runtime.name, done, 1000, seconds))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.1)
            except BaseException:
                process.send_signal(signal.SIGKILL)
                raise
            if process.returncode != 0:
                detail = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
                raise SetupError(
                    f"compiling {runtime.name} failed: {detail.splitlines()[-1:] or process.returncode}"
                )
        if progress:
            progress(CompileProgress(runtime.name, 1000, 1000, time.monotonic() - started))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def unpack(blob: Blob) -> bytes:
    """What `blob` holds. Raises SetupError when it is missing, larger than it says, or not what its digest says."""
    try:
        with lzma.open(blob.path) as file:
            data = file.read(blob.size_bytes + 1)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise SetupError(f"{blob.path} cannot be read: {error}; reinstall wasmeval") from error
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        raise SetupError(
            f"{blob.path} is damaged: its digest is not {blob.sha256[:16]}...; reinstall wasmeval"
        )
    return data


def _place(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.rename(name, target)
    except BaseException:
        os.unlink(name)
        raise


def main(folder: str, target: str) -> None:
    """Compile the runtime in `folder` to the file `target`."""
    runtime = Runtime.load(Path(folder))
    _place(Path(target), Engine(EngineSettings()).compile(unpack(runtime.image)))
