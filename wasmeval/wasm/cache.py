"""The private cache: runtime images compiled for this machine, kept between starts.

Compiled code is trusted as code, so only its owner may be able to write it: the folder must belong to this user
and be writable by nobody else, or it is refused. Entries are keyed by the image, Wasmtime's version and the
engine's settings; what does not match is simply not found. Files appear by rename, whole or not at all, and say
how large they are: one that a crash or a full disk cut short is not found either, and made anew. Nothing is removed:
a service that runs may need its files again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from wasmeval.errors import SetupError
from wasmeval.runtimes import Blob, Catalogue, Runtime
from wasmeval.wasm import installation
from wasmeval.wasm.installation import CODE_SETTINGS, check_version

# However this package is installed: an isolated interpreter does not look where the user's own packages are.
_BOOT = "import sys; sys.path += sys.argv[3:]; from wasmeval.wasm.cache import main; main(*sys.argv[1:3])"


class CompileProgress(NamedTuple):
    """How far the compilation of one runtime is. `done` of `total` is an estimate from the image's size.

    While `waiting`, another process compiles, and how far it is is not known.
    """

    runtime: str
    done: int
    total: int
    seconds: float
    waiting: bool = False


class CompiledRuntime(NamedTuple):
    """A runtime ready to be loaded: its compiled module, and its library unpacked."""

    runtime: Runtime
    module: Path
    library: Path | None


ProgressCallback = Callable[[CompileProgress], None]


def default_folder() -> Path:
    """`$WASMEVAL_CACHE_DIR`, else `wasmeval` below `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("WASMEVAL_CACHE_DIR"):
        return Path(chosen)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "wasmeval"
    try:
        return Path.home() / ".cache" / "wasmeval"
    except RuntimeError as error:
        raise SetupError(
            f"this user (uid {os.geteuid()}) has no home folder to keep compiled images in; set WASMEVAL_CACHE_DIR"
        ) from error


class Cache:
    """The folder of compiled runtimes, made when it is not there.

    A relative path counts from the current directory of now. Raises SetupError when others could write the folder or
    it cannot be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        check_version()
        self.folder = folder or default_folder()
        with _explained(self.folder):
            # Children, whose directory is another, get paths below it.
            self.folder = self.folder.absolute()
            # A link is told below, also one that leads nowhere.
            if not self.folder.is_symlink():
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.lstat()
        if self.folder.is_symlink():
            raise SetupError(
                f"the cache folder {self.folder} is a symbolic link, whose target others could exchange; "
                f"remove the link, or set WASMEVAL_CACHE_DIR to the folder itself"
            )
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            # Whatever lies in it by now may be theirs, so closing the folder would not be enough.
            raise SetupError(
                f"the cache folder {self.folder} could be written by others, and compiled code in it is trusted; "
                f"remove it, or set WASMEVAL_CACHE_DIR"
            )

    @property
    def writable(self) -> bool:
        """Whether something new can be kept; what is here already needs no more than to be read."""
        return os.access(self.folder, os.W_OK | os.X_OK, effective_ids=True)

    def find(self, runtime: Runtime) -> CompiledRuntime | None:
        """The compiled form of `runtime` when it is here and whole."""
        with _explained(self.folder):
            module, library = self._find_module(runtime), self._find_library(runtime)
        if module is None or (runtime.library and library is None):
            return None
        return CompiledRuntime(runtime, module, library)

    def prepare(
        self, catalogue: Catalogue, progress: ProgressCallback | None = None
    ) -> list[CompiledRuntime]:
        """Every runtime of `catalogue`, compiled; those not here yet are compiled now, which takes seconds each.

        Two processes that need the same one do it once; the second tells `progress` that it waits. Raises SetupError
        when an image is damaged or the folder cannot be written.
        """
        return [self.find(runtime) or self._make(runtime, progress) for runtime in catalogue]

    def _module_name(self, runtime: Runtime) -> str:
        """Of the compiled module's file, but for its size, which stands between this and its ending."""
        key = f"{runtime.image.sha256}|wasmtime-{installation.VERSION}|{installation.MACHINE}|{CODE_SETTINGS}"
        return f"{runtime.name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"

    def _library_path(self, library: Blob, runtime: Runtime) -> Path:
        return self.folder / f"{runtime.name}-{library.sha256[:24]}.zip"

    def _find_module(self, runtime: Runtime) -> Path | None:
        pattern = re.compile(re.escape(self._module_name(runtime)) + r"-(\d+)\.cwasm")
        for name in sorted(os.listdir(self.folder)):
            match = pattern.fullmatch(name)
            if match and _is_whole(self.folder / name, int(match[1])):
                return self.folder / name
        return None

    def _find_library(self, runtime: Runtime) -> Path | None:
        if runtime.library is None:
            return None
        path = self._library_path(runtime.library, runtime)
        return path if _is_whole(path, runtime.library.size_bytes) else None

    def _make(self, runtime: Runtime, progress: ProgressCallback | None) -> CompiledRuntime:
        with self._lock(runtime, progress):
            with _explained(self.folder):
                if runtime.library and not self._find_library(runtime):
                    _place(self._library_path(runtime.library, runtime), unpack(runtime.library))
                module = self._find_module(runtime)
            if not module:
                self._compile(runtime, self.folder / self._module_name(runtime), progress)
            compiled = self.find(runtime)
            if compiled is None:
                raise SetupError(f"what was compiled into {self.folder} was removed at once; start again")
        return compiled

    def _compile(self, runtime: Runtime, target: Path, progress: ProgressCallback | None) -> None:
        # In a process of its own: it takes seconds of all CPUs and hundreds of MB, and Ctrl-C must end it.
        paths = [str(Path(__file__).resolve().parents[2]), str(installation.PACKAGE.parent)]
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _BOOT,
            str(runtime.image.path.parent),
            str(target),
            *paths,
        ]
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
                reason = detail.splitlines()[-1] if detail else f"its process ended with {process.returncode}"
                raise SetupError(f"compiling {runtime.name} failed: {reason}")
        if progress:
            progress(CompileProgress(runtime.name, 1000, 1000, time.monotonic() - started))

    @contextlib.contextmanager
    def _lock(self, runtime: Runtime, progress: ProgressCallback | None) -> Iterator[None]:
        """One process at a time; who waits says so."""
        started = time.monotonic()
        with _explained(self.folder):
            if not self.writable:
                # Before seconds are spent on what cannot be kept.
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            lock = open(self.folder / "lock", "w")  # noqa: SIM115 (closed below)
        with lock:
            while not self._locked(lock):
                if progress:
                    seconds = time.monotonic() - started
                    progress(CompileProgress(runtime.name, 0, 1000, seconds, waiting=True))
                time.sleep(0.1)
            yield

    def _locked(self, lock: IO[str]) -> bool:
        with _explained(self.folder):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What the file system refuses, as a SetupError with its remedy."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SetupError(
            f"cannot use the cache folder {folder}: {error}; set WASMEVAL_CACHE_DIR to one that can be written"
        ) from error


def _is_whole(path: Path, size_bytes: int) -> bool:
    """Whether the file at `path` is there and as large as it should be."""
    try:
        return path.stat().st_size == size_bytes
    except FileNotFoundError:
        return False


def unpack(blob: Blob) -> bytes:
    """What `blob` holds. Raises SetupError when it is missing, larger than it says, or not what its digest says."""
    # Of a start that finds everything compiled it would be a part that is felt.
    import lzma

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
    import tempfile

    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            # Else a crash of the machine may leave the name without the bytes.
            os.fsync(file.fileno())
        os.rename(name, target)
    except BaseException:
        os.unlink(name)
        raise


def main(folder: str, target: str) -> None:
    """Compile the runtime in `folder` to the file `target`, whose name is completed with its size."""
    # Whoever finds what was compiled before needs no Wasmtime for it.
    from wasmeval.wasm.engine import Engine, EngineSettings

    try:
        runtime = Runtime.load(Path(folder))
        code = Engine(EngineSettings()).compile(unpack(runtime.image))
        with _explained(Path(target).parent):
            _place(Path(f"{target}-{len(code)}.cwasm"), code)
    except SetupError as error:
        sys.exit(str(error))
