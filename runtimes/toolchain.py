"""Toolchain: the pinned archives that the images are made from and with, and the compiler that makes them.

Every archive is fetched by the client of its registry as this machine is set up for it (pip, npm, apt), and is used
only when its SHA-256 is the one in `sources.lock.toml`. Nothing that the tools write depends on where the build
stands: two builds in two folders give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

RUNTIMES = Path(__file__).resolve().parent
LOCK = RUNTIMES / "sources.lock.toml"

# Where everything is built; elsewhere for the proof that the place does not matter.
BUILD = Path(os.environ.get("WASMEVAL_BUILD") or RUNTIMES / ".build").resolve()

# 2024-01-01: what tools write where they write a time at all.
SOURCE_DATE_EPOCH = "1704067200"


class ToolchainError(Exception):
    """An archive could not be had as it is pinned, or a tool failed; the message has the tool's last words."""


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of the lock file."""

    name: str
    version: str
    kind: str
    role: str
    licence: str
    files: dict[str, str]
    suite: str = ""
    backend: str = ""

    def manifest_entry(self) -> dict[str, str]:
        """What a runtime's manifest says of it. The digest of several files is that of their digests."""
        digests = [digest for _, digest in sorted(self.files.items())]
        whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        return {"name": self.name, "version": self.version, "sha256": whole, "licence": self.licence}


def load_lock(path: Path = LOCK) -> dict[str, Source]:
    """The pinned sources and tools by name."""
    entries = tomllib.loads(path.read_text())
    return {name: Source(name=name, **entry) for name, entry in entries.items()}


# ---- fetching --------------------------------------------------------------------------------------------------


def fetch(source: Source, cache: Path = BUILD / "archives") -> list[Path]:
    """The source's files, in the order of the lock file; from the cache when they are there and right.

    Raises `ToolchainError` when a file differs from its digest: it is left beside the cache for a look.
    """
    cache.mkdir(parents=True, exist_ok=True)
    wanted = [cache / name for name in source.files]
    if all(path.exists() and _matches(path, source) for path in wanted):
        return wanted
    incoming = cache / f".incoming-{source.name}"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    _FETCHERS[source.kind](source, incoming)
    for path in wanted:
        arrived = incoming / path.name
        if not arrived.exists():
            there = ", ".join(sorted(item.name for item in incoming.iterdir())) or "nothing"
            raise ToolchainError(f"{source.name} {source.version}: {path.name} wanted, {there} came")
        if not _matches(arrived, source):
            raise ToolchainError(f"{arrived} has another SHA-256 than {LOCK.name} says")
        arrived.replace(path)
    shutil.rmtree(incoming)
    return wanted


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches(path: Path, source: Source) -> bool:
    return sha256_of(path) == source.files[path.name]


def _pip(source: Source, into: Path, *options: str, env: dict[str, str] | None = None) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, *options, "--dest", str(into), f"{source.name}=={source.version}"], env=env)


# Before pip keeps a source archive it asks the archive's build system for metadata, and some configure a whole build
# for the answer. This stands in for one, and knows all that pip compares.
_METADATA_ALONE = """
import os

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name = "{name}-{version}.dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return name
"""


def _fetch_sdist(source: Source, into: Path) -> None:
    if not source.backend:
        _pip(source, into, "--no-binary", ":all:")
        return
    with tempfile.TemporaryDirectory() as folder:
        stub = Path(folder) / f"{source.backend}.py"
        stub.write_text(_METADATA_ALONE.format(name=source.name, version=source.version))
        env = os.environ | {"PYTHONPATH": folder}
        _pip(source, into, "--no-binary", ":all:", "--no-build-isolation", env=env)


def _fetch_wheel(source: Source, into: Path) -> None:
    """Where a wheel for every platform is pinned, the client is told to leave those for single ones."""
    anywhere = all(name.endswith("-none-any.whl") for name in source.files)
    _pip(source, into, "--only-binary", ":all:", *(("--platform", "any") if anywhere else ()))


def _fetch_npm(source: Source, into: Path) -> None:
    run(["npm", "pack", "--silent", "--pack-destination", str(into), f"{source.name}@{source.version}"])


def _fetch_debian(source: Source, into: Path) -> None:
    """`apt-get source` with a list of its own: the machine's Debian mirror, the suite of the lock file.

    The digests are what is trusted, so the list needs no key.
    """
    state = into.parent / f".apt-{source.suite}"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    listing = state / "sources.list"
    listing.write_text(f"deb-src [trusted=yes] {debian_mirror()} {source.suite} main\n")
    options = {
        "Dir::Etc::SourceList": listing,
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": state / "lists",
        "Dir::State::Status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Get::List-Cleanup": "0",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "--quiet", *(f"-o{key}={value}" for key, value in options.items())]
    run([*apt, "update"])
    run([*apt, "source", "--download-only", f"{source.name}={source.version}"], cwd=into)


_FETCHERS = {
    "pypi-sdist": _fetch_sdist,
    "pypi-wheel": _fetch_wheel,
    "npm": _fetch_npm,
    "debian-source": _fetch_debian,
}


def debian_mirror(etc: Path = Path("/etc/apt")) -> str:
    """Where this machine gets Debian's main archive from, by its own apt configuration."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        text = file.read_text() if file.is_file() else ""
        found = re.findall(r"^URIs:\s*(\S+)", text, re.M) if file.suffix == ".sources" else []
        found += re.findall(r"^deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)", text, re.M)
        for uri in found:
            if str(uri).rstrip("/").endswith("/debian"):
                return str(uri)
    raise ToolchainError(f"no Debian mirror in {etc}")


# ---- unpacking -------------------------------------------------------------------------------------------------


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks a tar or zip archive into an empty folder; returns its single top folder, or the folder itself."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            content.extractall(into)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    top = list(into.iterdir())
    return top[0] if len(top) == 1 and top[0].is_dir() else into


def unpack_as(archive: Path, target: Path) -> None:
    """Makes `target` anew of what `archive` holds, without the folder that it has around all."""
    shutil.rmtree(target, ignore_errors=True)
    beside = target.with_name(f"{target.name}.new")
    unpack(archive, beside).rename(target)
    shutil.rmtree(beside, ignore_errors=True)


def unpacked_tool(source: Source) -> Path:
    """The folder of a pinned tool, unpacked once below `BUILD`."""
    home = BUILD / "tools" / f"{source.name}-{source.version}"
    if not (home / "complete").exists():
        unpack(fetch(source)[0], home)
        (home / "complete").touch()
    return home


def apply_patch(tree: Path, patch: Path) -> None:
    """Applies a patch made with a/ and b/ before its paths. It must apply exactly, without fuzz."""
    run(
        ["patch", "--strip=1", "--fuzz=0", "--silent", "--forward", "--input", str(patch.resolve())], cwd=tree
    )


# ---- tools -----------------------------------------------------------------------------------------------------


def run(command: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Runs a tool and returns its stdout. Raises `ToolchainError` with the end of what it said when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-3000:]
        raise ToolchainError(f"{' '.join(words)[:400]} ended with {done.returncode}:\n{said}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Zig:
    """The C compiler, archiver and linker for wasm32-wasi, from the pinned wheel.

    Commands run in `root`, with paths relative to it where they can be: what remains of absolute ones in the output
    is mapped away.
    """

    executable: Path
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """A tool's environment: nothing of the machine's but where programs are."""
        cache = str(BUILD / "zig-cache")
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(BUILD),
            "LC_ALL": "C",
            "TZ": "UTC",
            "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
            "ZIG_GLOBAL_CACHE_DIR": cache,
            "ZIG_LOCAL_CACHE_DIR": cache,
        }

    @property
    def cc(self) -> list[str]:
        """The compiler as the words of a command, for a makefile's CC as well."""
        return [
            str(self.executable),
            "cc",
            "-target",
            "wasm32-wasi",
            f"-ffile-prefix-map={self.root}=.",
            "-fno-sanitize=undefined",
            "-g0",
        ]

    @property
    def lib(self) -> Path:
        """The library that comes with the compiler: headers, libc sources and their licences."""
        return self.executable.parent / "lib"

    def compile(self, sources: Iterable[str], *flags: str, into: Path) -> list[Path]:
        """Compiles each source on its own; the compiler has its own cache of what it has seen."""
        into.mkdir(parents=True, exist_ok=True)
        objects = []
        for source in sources:
            target = into / (Path(source).stem + ".o")
            self.run([*self.cc, *flags, "-c", source, "-o", str(target)])
            objects.append(target)
        return objects

    def link(self, objects: Iterable[Path], *flags: str, output: Path) -> None:
        """Links a reactor: a module without `main`, whose exports are called."""
        self.run(
            [*self.cc, "-mexec-model=reactor", *(str(item) for item in objects), *flags, "-o", str(output)]
        )

    def run(self, command: Sequence[str]) -> str:
        return run(command, cwd=self.root, env=self.environment)


def zig(root: Path, lock: dict[str, Source] | None = None) -> Zig:
    """The pinned compiler, unpacked once below `BUILD`."""
    executable = unpacked_tool((lock or load_lock())["ziglang"]) / "ziglang" / "zig"
    executable.chmod(0o755)
    return Zig(executable, root.resolve())


def wasm_opt(module: Path, output: Path, *options: str, lock: dict[str, Source] | None = None) -> None:
    """Runs the pinned binaryen's wasm-opt, with the WebAssembly features that zig's wasm32-wasi uses."""
    home = unpacked_tool((lock or load_lock())["binaryen"])
    features = (
        "bulk-memory",
        "bulk-memory-opt",
        "sign-ext",
        "nontrapping-float-to-int",
        "mutable-globals",
        "multivalue",
        "reference-types",
        "simd",
        "extended-const",
        "call-indirect-overlong",
    )
    program = ["node", str(home / "package" / "bin" / "wasm-opt")]
    enabled = [f"--enable-{feature}" for feature in features]
    run([*program, *enabled, *options, str(module), "-o", str(output)])


def merge_profile(text: Path, output: Path) -> None:
    """Makes the compiler's form of a text profile, with the machine's llvm-profdata.

    Any version does: the indexed format is read by every later compiler. Debian has it in `llvm`.
    """
    names = ["llvm-profdata", *(f"llvm-profdata-{version}" for version in range(22, 12, -1))]
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        raise ToolchainError("llvm-profdata is not installed (Debian: apt-get install llvm)")
    run(
        [
            program,
            "merge",
            "--text" if output.suffix == ".proftext" else "--sparse",
            str(text),
            "-o",
            str(output),
        ]
    )
