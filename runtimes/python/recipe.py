"""The recipe of the Python image: CPython and the C libraries it builds on, one reactor, its library, its snapshot.

Two builds of the interpreter: `train` counts what snippets do, `final` is optimised for it. The profile is kept with
the sources, so that an ordinary build makes the final one alone and gives the same bytes every time.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtimes import toolchain
from runtimes.python import library, numerics, packages, packing
from runtimes.snapshot import Guest, bake, check_copy_on_write
from runtimes.stages import Stage, digest
from runtimes.toolchain import BUILD, Zig

HERE = Path(__file__).resolve().parent
ROOT = BUILD / "cpython"
IMAGES = HERE.parents[1] / "wasmeval" / "images" / "python"
PROFILE = HERE / "profile.proftext.xz"

SOURCES = ("python3.13", "zlib", "bzip2", "xz-utils", "sqlite3", "tzdata")
TOOLS = ("ziglang", "binaryen", *numerics.TOOLS)
_CHECKED_BY = ("selfcheck", "instances", "cases", "grantcheck", "grantcases", "scripted")
GLUE = (
    "reactor.c",
    "buffer.c",
    "values.c",
    "host.c",
    "tools.c",
    "files.c",
    "numpy.c",
    "arrays.c",
    "snapshot.c",
)

# The C stack in linear memory. Deep recursion ends at Py_C_RECURSION_LIMIT (patches/02) well before it is full.
STACK_BYTES = 4 << 20
# Native stack, measured with the recursions of selfcheck.py and twice as much.
MAX_WASM_STACK = 16 << 20

# `while True: pass` under fuel, on the machine that docs/runtimes.md names: for slices and for people.
FUEL_PER_MILLISECOND = 20_000_000

_INTERPRETER = ("-fno-strict-aliasing", "-fwrapv", "-std=gnu11")
_EMULATED = ("-lwasi-emulated-signal", "-lwasi-emulated-getpid", "-lwasi-emulated-process-clocks")
_CONFIGURE = (
    "-q --host=wasm32-wasip1 --build=x86_64-linux-gnu --with-build-python=../../native/python --prefix=/usr "
    "--disable-test-modules --with-ensurepip=no --with-pymalloc --with-system-libmpdec=no"
).split()
_OWN_MATH = ("-I../include", "-DWASMEVAL_OWN_MATH")
_SQLITE = (
    "-DSQLITE_OS_OTHER=1 -DSQLITE_THREADSAFE=0 -DSQLITE_TEMP_STORE=3 -DSQLITE_DEFAULT_MEMSTATUS=0 "
    "-DSQLITE_MAX_MMAP_SIZE=0 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_OMIT_WAL -DSQLITE_ENABLE_MATH_FUNCTIONS "
    "-DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE"
).split()


@dataclass(frozen=True, slots=True)
class Flavour:
    """One way of compiling everything: its folder below `ROOT`, and what it adds to the compiler's words."""

    name: str
    flags: tuple[str, ...]
    ceval_flags: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return ROOT / self.name


def _profile_name() -> str:
    """Named for its content: the compiler's cache knows a profile by its name alone."""
    return f"profile-{digest([PROFILE])[:12]}.profdata" if PROFILE.exists() else "profile-absent.profdata"


TRAIN = Flavour("train", ("-O3", "-fprofile-generate"))


def final_flavour() -> Flavour:
    """Optimised by the profile and at link time; the evaluation loop grows too far with either unless it is -Os."""
    use = f"-fprofile-use=../{_profile_name()}"
    return Flavour(
        "final", ("-O3", "-flto", use, "-Wno-profile-instr-unprofiled", "-Wno-backend-plugin"), ("-Os",)
    )


def compiler() -> Zig:
    return toolchain.zig(ROOT)


# ---- sources and the native interpreter ------------------------------------------------------------------------


def fetch_sources() -> None:
    """Unpacks every source below `ROOT/src`, and patches CPython's."""
    lock = toolchain.load_lock()
    for name in SOURCES:
        archives = toolchain.fetch(lock[name])
        if name == "tzdata":
            _extract_tzdata_licence(archives[0])
            continue
        toolchain.unpack_as(archives[0], ROOT / "src" / name)
    for patch in _patches():
        toolchain.apply_patch(ROOT / "src" / "python3.13", patch)


def _extract_tzdata_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = sorted(name for name in content.namelist() if ".dist-info/licenses/" in name)
        (ROOT / "tzdata-LICENSE").write_bytes(b"\n".join(content.read(name) for name in names))


def _make(folder: Path, *words: str, env: dict[str, str] | None = None) -> None:
    toolchain.run(["make", "-s", f"-j{os.cpu_count() or 1}", *words], cwd=folder, env=env)


def build_native() -> None:
    """The same CPython for this machine: cross compiling needs it, and it compiles the library's bytecode."""
    folder = ROOT / "native"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ("-q", "--disable-test-modules", "--with-ensurepip=no", "--prefix=/usr")
    toolchain.run(["../src/python3.13/configure", *options], cwd=folder)
    _make(folder)


def amalgamate_sqlite() -> None:
    """SQLite's sources as one file, made by its own scripts."""
    folder = ROOT / "sqlite"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    toolchain.run(["../src/sqlite3/configure", "--disable-tcl", "--disable-readline"], cwd=folder)
    _make(folder, "sqlite3.c")


# ---- the C libraries -------------------------------------------------------------------------------------------


def _library(flavour: Flavour, name: str, sources: Iterable[str], *flags: str) -> None:
    """Compiles `sources` (relative to `ROOT`) into `lib<name>.a` of the flavour. Commands run one folder down."""
    zig = Zig(compiler().executable, flavour.folder)
    objects = flavour.folder / "objects" / name
    shutil.rmtree(objects, ignore_errors=True)
    cc = [f"-ffile-prefix-map={ROOT}=.", "-O3", *flags]
    built = zig.compile([f"../{source}" for source in sources], *cc, into=objects)
    archive = flavour.folder / "lib" / f"lib{name}.a"
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    words = [str(item.relative_to(flavour.folder)) for item in built]
    zig.run([str(zig.executable), "ar", "rcsD", str(archive), *words])


def _names(folder: str, *names: str) -> list[str]:
    return [f"{folder}/{name}.c" for name in names]


def build_libraries(flavour: Flavour) -> None:
    """zlib, bzip2, liblzma and SQLite, compiled file by file: their own build systems would add nothing.

    Without a profile in either flavour: the snippets it is taken with hardly use them, and would have them cold.
    """
    include = flavour.folder / "include"
    shutil.rmtree(flavour.folder, ignore_errors=True)
    include.mkdir(parents=True)
    source = ROOT / "src"
    for header in ("zlib/zlib.h", "zlib/zconf.h", "bzip2/bzlib.h"):
        shutil.copy(source / header, include)
    shutil.copytree(source / "xz-utils/src/liblzma/api", include, dirs_exist_ok=True)
    shutil.copy(ROOT / "sqlite" / "sqlite3.h", include)
    zlib = "adler32 crc32 deflate infback inffast inflate inftrees trees zutil compress uncompr".split()
    _library(flavour, "z", _names("src/zlib", *zlib))
    bzip2 = "blocksort huffman crctable randtable compress decompress bzlib".split()
    _library(flavour, "bz2", _names("src/bzip2", *bzip2))
    xz = source / "xz-utils" / "src" / "liblzma"
    left_out = ("tablegen", "_small", "_mt", "outqueue", "hardware", "microlzma")
    files = [path.relative_to(ROOT).as_posix() for path in sorted(xz.glob("*/*.c"))]
    kept = [file for file in files if not any(part in Path(file).name for part in left_out)]
    parts = ("api", "common", "check", "lz", "rangecoder", "lzma", "delta", "simple")
    shutil.copytree(HERE / "xz", flavour.folder / "xz")
    flags = ["-DHAVE_CONFIG_H", "-Ixz", "-I../src/xz-utils/src/common"]
    _library(flavour, "lzma", kept, *flags, *(f"-I../src/xz-utils/src/liblzma/{part}" for part in parts))
    shutil.copy(HERE / "sqlite_vfs.c", ROOT / "sqlite")
    _library(flavour, "sqlite3", _names("sqlite", "sqlite3", "sqlite_vfs"), "-I../sqlite", *_SQLITE)


# ---- the interpreter -------------------------------------------------------------------------------------------


def build_interpreter(flavour: Flavour) -> None:
    """Configures and compiles CPython's library for wasm32-wasi, all extension modules in it."""
    zig = compiler()
    build = flavour.folder / "build"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    own = (ROOT / "src/python3.13/Tools/wasm/config.site-wasm32-wasi").read_text()
    (flavour.folder / "config.site").write_text(own + (HERE / "config.site").read_text())
    shutil.copy(HERE / "shim" / "math.h", flavour.folder / "include")
    cc = " ".join([*zig.cc, "-Wno-date-time", "-Wno-unused-command-line-argument"])
    env = zig.environment | {
        "CONFIG_SITE": "../config.site",
        "CC": cc,
        "CXX": cc,
        "CPP": f"{cc} -E",
        "AR": f"{zig.executable} ar",
        "RANLIB": f"{zig.executable} ranlib",
        "READELF": "true",
        "PKG_CONFIG": "false",
        "CFLAGS": "-O3",
        "CFLAGS_NODIST": " ".join([*(flag.replace("=../", "=../../") for flag in flavour.flags), *_OWN_MATH]),
    }
    for name, linked in (("ZLIB", "z"), ("BZIP2", "bz2"), ("LIBLZMA", "lzma"), ("LIBSQLITE3", "sqlite3")):
        env |= {f"{name}_CFLAGS": "-I../include", f"{name}_LIBS": f"-L../lib -l{linked}"}
    toolchain.run(["../../src/python3.13/configure", *_CONFIGURE], cwd=build, env=env)
    with (build / "Makefile").open("a") as makefile:
        makefile.write(f"\nPython/ceval.o: PY_CORE_CFLAGS += {' '.join(flavour.ceval_flags)}\n")
    _make(build, f"libpython{library.PYTHON}.a", env=env)
    _make(build, "pybuilddir.txt", env=env)


def link(flavour: Flavour, *extra: str) -> Path:
    """The reactor: our own C files, the interpreter, the libraries."""
    zig = Zig(compiler().executable, flavour.folder)
    build = Path("build")
    glue = flavour.folder / "glue"
    shutil.rmtree(glue, ignore_errors=True)
    shutil.copytree(
        HERE, glue, ignore=lambda folder, names: [n for n in names if not n.endswith((".c", ".h"))]
    )
    include = ["-I../src/python3.13/Include", "-I../src/python3.13/Include/internal", f"-I{build}"]
    include += ["-I../src/numpy/numpy/_core/include", "-Inumpy/build/numpy/_core"]
    warn = ["-Wall", "-Wextra", "-Wno-unused-parameter"]
    words = [f"-ffile-prefix-map={ROOT}=.", *_INTERPRETER, *include, *warn]
    objects = zig.compile(
        [f"glue/{name}" for name in GLUE], *flavour.flags, *words, into=flavour.folder / "objects/glue"
    )
    # what malloc is made of is compiled on its own: it must not be optimised as a call of malloc
    objects += zig.compile(
        ["glue/heap.c", *extra], "-O3", "-fno-builtin", *words, into=flavour.folder / "objects/plain"
    )
    archives = [build / f"libpython{library.PYTHON}.a"]
    archives += sorted(
        path.relative_to(flavour.folder) for path in (flavour.folder / build / "Modules").rglob("*.a")
    )
    archives += [Path("lib") / f"lib{name}.a" for name in ("z", "bz2", "lzma", "sqlite3")]
    archives += [numerics.ARCHIVE]
    output = flavour.folder / "reactor.wasm"
    lto = ["-flto"] if "-flto" in flavour.flags else []
    relative = [path.relative_to(flavour.folder) for path in objects]
    zig.link(
        [*relative, *archives],
        "-O3",
        *lto,
        *_EMULATED,
        "-lc++",
        f"-Wl,-z,stack-size={STACK_BYTES}",
        output=output,
    )
    return output


# ---- training --------------------------------------------------------------------------------------------------


def take_profile() -> None:
    """Runs the training snippets in the `train` flavour and keeps the profile with the sources."""
    from runtimes.python import training

    raw = link(TRAIN, "glue/profile.c").read_bytes()
    text = training.train(raw, prepare_tree(TRAIN))
    PROFILE.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def index_profile() -> None:
    text = ROOT / "profile.proftext"
    text.write_bytes(lzma.decompress(PROFILE.read_bytes()))
    toolchain.merge_profile(text, ROOT / _profile_name())


# ---- library and snapshot --------------------------------------------------------------------------------------


def prepare_tree(flavour: Flavour) -> Path:
    """The library as the guest sees it, below a folder that stands for `/`, with what runs at the build alone."""
    root = flavour.folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    tree = root / library.MOUNT.strip("/")
    tree.parent.mkdir(parents=True)
    for name in ("workspace", "tmp"):
        (root / name).mkdir()
    lock = toolchain.load_lock()
    sysconfig = next((flavour.folder / "build" / "build").glob("lib*/_sysconfigdata*.py"))
    library.build_tree(
        tree,
        source=ROOT / "src" / "python3.13" / "Lib",
        wheels=[packages.fetch(lock[name]) for name in packages.PACKAGES],
        own=(HERE / "stubs", HERE / "modules"),
        tzdata=toolchain.fetch(lock["tzdata"])[0],
        sysconfig=sysconfig,
        python=ROOT / "native" / "python",
        build=BUILD,
        add=lambda tree: numerics.add_package(ROOT, flavour.folder, tree),
    )
    library.pack_tree(tree, flavour.folder / "library.zip")
    library.add_modules(tree, HERE / "guest", ROOT / "native" / "python")
    # What a folder says of its age is seen by the guest, and what it has seen stays in its memory.
    for folder in (root, *root.iterdir()):
        os.utime(folder, (library.TIMESTAMP, library.TIMESTAMP))
    return root


def optimise() -> None:
    """wasm-opt over the linked module: what is gained shows with fuel, which counts instructions."""
    raw = link(final_flavour())
    toolchain.wasm_opt(raw, raw.with_suffix(".opt.wasm"), "-O3")


def take_snapshot() -> None:
    """Starts the interpreter and makes its memory the image's."""
    flavour = final_flavour()
    raw = (flavour.folder / "reactor.opt.wasm").read_bytes()
    with Guest(raw, root=prepare_tree(flavour), max_wasm_stack=1 << 20) as guest:
        try:
            guest.call("_initialize")
            guest.call("wasmeval_prepare")
        except Exception as error:
            raise RuntimeError(guest.output.decode(errors="replace")[-4000:]) from error
        image = bake(raw, guest.capture())
    (flavour.folder / "image.wasm").write_bytes(image)
    seconds = check_copy_on_write(image)
    print(f"python: an instance takes {seconds * 1e6:.0f} µs", flush=True)


def check_image() -> None:
    from runtimes.python import selfcheck

    flavour = final_flavour()
    image, tree = (flavour.folder / name for name in ("image.wasm", "library.zip"))
    selfcheck.check_on_thread(image.read_bytes(), tree.read_bytes(), MAX_WASM_STACK)


def pack_image() -> None:
    """Compresses image and library, and writes manifest and licences beside them."""
    flavour = final_flavour()
    lock = toolchain.load_lock()
    packing.pack(
        IMAGES,
        image=flavour.folder / "image.wasm",
        library=flavour.folder / "library.zip",
        version=_version(),
        max_wasm_stack=MAX_WASM_STACK,
        fuel_per_millisecond=FUEL_PER_MILLISECOND,
        sources=[lock[name].manifest_entry() for name in (*SOURCES, *numerics.SOURCES, *packages.PACKAGES)],
        toolchain=[lock[name].manifest_entry() for name in TOOLS],
        licences=_licences(),
    )


def _version() -> str:
    """CPython's own, as its header says."""
    header = (ROOT / "src" / "python3.13" / "Include" / "patchlevel.h").read_text()
    found = re.search(r'#define PY_VERSION\s+"([^"]+)"', header)
    assert found is not None
    return found[1]


def _licences() -> list[tuple[str, Path]]:
    source, zig = ROOT / "src", compiler().lib
    return [
        ("CPython", source / "python3.13" / "LICENSE"),
        (
            "Software in CPython (libmpdec, Expat, HACL*, Mersenne Twister and others)",
            source / "python3.13" / "Doc" / "license.rst",
        ),
        ("Expat", source / "python3.13" / "Modules" / "expat" / "COPYING"),
        ("zlib", source / "zlib" / "README"),
        ("bzip2", source / "bzip2" / "LICENSE"),
        ("XZ Utils", source / "xz-utils" / "COPYING"),
        ("liblzma", source / "xz-utils" / "COPYING.0BSD"),
        ("SQLite", source / "sqlite3" / "LICENSE.md"),
        ("tzdata", ROOT / "tzdata-LICENSE"),
        *numerics.licences(ROOT),
        *((name, _package_licence(name)) for name in packages.PACKAGES),
        ("wasi-libc", zig / "libc" / "wasi" / "LICENSE"),
        ("musl", zig / "libc" / "musl" / "COPYRIGHT"),
        ("zig's compiler-rt and libc", zig.parent / "LICENSE"),
    ]


def _package_licence(name: str) -> Path:
    wheel = packages.fetch(toolchain.load_lock()[name])
    return packages.write_licence(wheel, ROOT / f"{name}-LICENSE")


# ---- the stages ------------------------------------------------------------------------------------------------


def _patches() -> tuple[Path, ...]:
    """CPython's; NumPy's lie in a folder of their own."""
    return tuple(sorted((HERE / "patches").glob("*.patch")))


def _glue() -> tuple[Path, ...]:
    return tuple(sorted([*HERE.glob("*.c"), *HERE.glob("*.h")]))


def _pinned(*names: str) -> str:
    """What the lock file says of these alone: other entries are other images'."""
    lock = toolchain.load_lock()
    return repr([lock[name] for name in names])


def stages(*, train: bool = False) -> list[Stage]:
    """All stages in order; `train` takes the profile anew before the final build."""
    final = final_flavour()
    common = [
        Stage("sources", fetch_sources, (_pinned(*SOURCES, "ziglang", "binaryen"), *_patches())),
        Stage(
            "numpy-source",
            lambda: numerics.fetch_source(ROOT),
            (_pinned(*numerics.SOURCES), numerics.PATCHES),
        ),
        Stage("native", build_native, (), ("sources",), (ROOT / "native" / "python",)),
        Stage("sqlite", amalgamate_sqlite, (), ("sources",), (ROOT / "sqlite" / "sqlite3.c",)),
    ]
    libraries = (HERE / "xz", HERE / "sqlite_vfs.c")
    numpy = (HERE / "numerics.py", HERE / "numpy.c", HERE / "shim", _pinned(*numerics.TOOLS, "ziglang"))
    interpreter = (*_CONFIGURE, *_OWN_MATH, HERE / "config.site", HERE / "shim" / "math.h")
    if train:
        return [
            *common,
            Stage("train-libraries", lambda: build_libraries(TRAIN), libraries, ("sources", "sqlite")),
            Stage(
                "train-interpreter",
                lambda: build_interpreter(TRAIN),
                (*TRAIN.flags, *interpreter),
                ("native", "train-libraries"),
            ),
            Stage(
                "train-numpy",
                lambda: numerics.build(ROOT, TRAIN.folder, compiler()),
                numpy,
                ("numpy-source", "train-interpreter"),
                (TRAIN.folder / numerics.ARCHIVE,),
            ),
            Stage(
                "train",
                take_profile,
                (*_glue(), HERE / "training.py", HERE / "guest"),
                ("train-numpy",),
            ),
        ]
    flags = (*final.flags, *final.ceval_flags)
    shared = (toolchain.RUNTIMES / "snapshot.py", toolchain.RUNTIMES / "files.py")
    own = (HERE / "guest", HERE / "stubs", HERE / "modules", HERE / "library.py", HERE / "packages.py")
    guest = (*own, _pinned(*packages.PACKAGES), *shared)
    return [
        *common,
        Stage("profile", index_profile, (PROFILE,), (), (ROOT / _profile_name(),)),
        Stage("libraries", lambda: build_libraries(final_flavour()), libraries, ("sources", "sqlite")),
        Stage(
            "interpreter",
            lambda: build_interpreter(final_flavour()),
            (*flags, *interpreter),
            ("native", "libraries", "profile"),
        ),
        Stage(
            "numpy",
            lambda: numerics.build(ROOT, final_flavour().folder, compiler()),
            numpy,
            ("numpy-source", "interpreter"),
            (final.folder / numerics.ARCHIVE,),
        ),
        Stage(
            "numpy-signatures",
            lambda: numerics.check_signatures(final_flavour().folder, compiler()),
            (HERE / "signatures.py",),
            ("numpy",),
        ),
        Stage("link", optimise, (*_glue(), str(STACK_BYTES)), ("interpreter", "numpy-signatures")),
        Stage("snapshot", take_snapshot, guest, ("link",)),
        Stage(
            "check",
            check_image,
            (*(HERE / f"{name}.py" for name in _CHECKED_BY), str(MAX_WASM_STACK)),
            ("snapshot",),
        ),
        Stage(
            "pack",
            pack_image,
            (HERE / "packing.py", str((MAX_WASM_STACK, FUEL_PER_MILLISECOND))),
            ("check",),
            (IMAGES / "manifest.json",),
        ),
    ]
