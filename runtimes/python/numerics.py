"""NumPy for the Python image: its own build system, told of our compiler, as far as objects and generated sources.

No shared object is linked: the reactor takes the objects, and finds each module by its dotted name among the built-in
ones. The Python files of the package are its own, those that its build generates among them.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from runtimes import toolchain
from runtimes.python import signatures
from runtimes.toolchain import Zig

HERE = Path(__file__).resolve().parent
PATCHES = HERE / "patches" / "numpy"
ARCHIVE = Path("lib") / "libnumpy.a"

SOURCES = ("numpy",)
TOOLS = ("cython", "ninja")

# The extension modules, as the reactor's table has them. Some are for NumPy's own tests, and belong to the package as
# its wheels have it.
MODULES = tuple(re.findall(r'each\("([\w.]+)"', (HERE / "numpy.c").read_text()))

_FLAGS = ("-O3", "-msimd128", "-fno-trapping-math", "-fno-math-errno", "-DNDEBUG")
_OPTIONS = (
    "--buildtype=release -Db_ndebug=true -Ddefault_library=static -Dblas=none -Dlapack=none -Dallow-noblas=true "
    "-Ddisable-threading=true -Dcpu-baseline=simd128 -Dcpu-dispatch=none -Ddisable-svml=true "
    "-Ddisable-intel-sort=true --prefix=/usr"
).split()

# What the build system says to every linker; ours links no shared object and needs none of it. Its trials link programs
# too, without what takes the place of functions in the image (shim/math.h).
_COMPILER = """#!/bin/sh
own=
for word do
    shift
    case "$word" in
        -c) own=-DWASMEVAL_OWN_MATH ;;
        -Wl,--stack-first | -Wl,--version) ;;
        -Wl,* | -shared | -pthread | -ftrapping-math) continue ;;
    esac
    set -- "$@" "$word"
done
exec {compiler} $own "$@"
"""

_CROSS = """[binaries]
c = '{tools}/cc'
cpp = '{tools}/cxx'
ar = ['{zig}', 'ar']
ranlib = ['{zig}', 'ranlib']
strip = 'true'
cython = '{tools}/cython'
python = '{python}'
pkg-config = 'false'
[host_machine]
system = 'wasi'
cpu_family = 'wasm32'
cpu = 'wasm32'
endian = 'little'
[properties]
longdouble_format = 'IEEE_QUAD_LE'
needs_exe_wrapper = true
skip_sanity_check = true
"""


def fetch_source(root: Path) -> None:
    """Unpacks NumPy below `root/src` and patches it."""
    (archive,) = toolchain.fetch(toolchain.load_lock()["numpy"])
    target = root / "src" / "numpy"
    toolchain.unpack_as(archive, target)
    for patch in sorted(PATCHES.glob("*.patch")):
        toolchain.apply_patch(target, patch)


def build(root: Path, flavour: Path, zig: Zig) -> None:
    """Configures NumPy in `flavour/numpy` and makes its objects. `flavour` has CPython's build for WebAssembly."""
    folder = flavour / "numpy"
    shutil.rmtree(folder, ignore_errors=True)
    tools = folder / "tools"
    tools.mkdir(parents=True)
    _write_tools(tools, root, flavour, zig)
    cross = folder / "cross.ini"
    cross.write_text(_CROSS.format(tools=tools, zig=zig.executable, python=root / "native" / "python"))
    environment = zig.environment | {"PYTHONHASHSEED": "0", "PATH": f"{tools}:{zig.environment['PATH']}"}
    source = root / "src" / "numpy"
    meson = [sys.executable, source / "vendored-meson" / "meson" / "meson.py"]
    made = folder / "build"
    toolchain.run(
        [*meson, "setup", made, source, "--cross-file", cross, *_OPTIONS], cwd=folder, env=environment
    )
    objects = _objects(made)
    toolchain.run([tools / "ninja", "-C", made, *objects], env=environment)
    archive = flavour / ARCHIVE
    archive.unlink(missing_ok=True)
    toolchain.run([zig.executable, "ar", "rcsD", archive, *objects], cwd=made, env=environment)


def check_signatures(flavour: Path, zig: Zig) -> None:
    """The gate before linking; see signatures.py."""
    made = flavour / "numpy" / "build"
    signatures.check(made, _objects(made), zig)


def _write_tools(tools: Path, root: Path, flavour: Path, zig: Zig) -> None:
    """Programs as NumPy's build looks for them."""
    include = [f"-I{flavour / 'build'}", f"-I{root / 'src' / 'python3.13' / 'Include'}", f"-I{HERE / 'shim'}"]
    emulated = [f"-D_WASI_EMULATED_{name}" for name in ("SIGNAL", "PROCESS_CLOCKS", "GETPID")]
    quiet = ["-Wno-date-time", "-Wno-unused-command-line-argument", "-Wno-macro-redefined"]
    words = [*zig.cc[2:], *_FLAGS, *emulated, *quiet, *include]
    cython, package = (toolchain.unpacked_tool(toolchain.load_lock()[name]) for name in TOOLS)
    ninja = next(package.rglob("scripts/ninja"))
    ninja.chmod(0o755)
    scripts = {
        "cc": _COMPILER.format(compiler=" ".join(map(str, [zig.executable, "cc", *words]))),
        "cxx": _COMPILER.format(compiler=" ".join(map(str, [zig.executable, "c++", *words, "-fno-rtti"]))),
        "cython": f'#!/bin/sh\nPYTHONPATH={cython} exec {sys.executable} -m cython "$@"\n',
        "ninja": f'#!/bin/sh\nexec {ninja} "$@"\n',
    }
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)


def _objects(made: Path) -> list[str]:
    """The objects of our modules and of the libraries they are linked with. Some modules hold the same ones: the
    linker takes the first of an archive."""
    names = [name.removeprefix("numpy.").replace(".", "/") for name in MODULES]
    pattern = re.compile(
        rf"numpy/(?:(?:{'|'.join(map(re.escape, names))})\.[^/]*\.p|[\w/]*lib(?!_simd)[\w.]+\.a\.p)/.*\.o"
    )
    entries = json.loads((made / "compile_commands.json").read_text())
    return [entry["output"] for entry in entries if pattern.fullmatch(entry["output"])]


def add_package(root: Path, flavour: Path, tree: Path) -> None:
    """Adds the package's Python files to the library at `tree`, without tests and what builds extensions."""
    source = root / "src" / "numpy" / "numpy"
    shutil.copytree(source, tree / "numpy", ignore=_left_out)
    generated = (flavour / "numpy" / "build" / "numpy" / "__config__.py").read_text()
    for place in (str(flavour / "numpy" / "tools") + "/", str(root / "native") + "/"):
        generated = generated.replace(place, "")
    (tree / "numpy" / "__config__.py").write_text(generated)
    metadata = tree / f"numpy-{toolchain.load_lock()['numpy'].version}.dist-info"
    metadata.mkdir()
    head = (root / "src" / "numpy" / "PKG-INFO").read_bytes().split(b"\n\n")[0]
    (metadata / "METADATA").write_bytes(head + b"\n")


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What is no Python file, and folders that serve no snippet."""
    absent = {
        "tests",
        "f2py",
        "distutils",
        "_pyinstaller",
        "src",
        "code_generators",
        "include",
        "_build_utils",
    }
    place = Path(folder)
    return {
        name
        for name in names
        if name in absent or ((place / name).is_file() and not name.endswith((".py", ".npy", ".npz")))
    }


def licences(root: Path) -> list[tuple[str, Path]]:
    """NumPy's own licence text, and those of what its sources hold of others."""
    source = root / "src" / "numpy"
    parts = {
        "LAPACK": "linalg/lapack_lite/LICENSE.txt",
        "libdivide": "_core/include/numpy/libdivide/LICENSE.txt",
        "MaskedArray": "ma/LICENSE",
        "pocketfft": "fft/pocketfft/LICENSE.md",
        "random generators": "random/LICENSE.md",
        "distributions": "random/src/distributions/LICENSE.md",
        "MT19937": "random/src/mt19937/LICENSE.md",
        "PCG64": "random/src/pcg64/LICENSE.md",
        "Philox": "random/src/philox/LICENSE.md",
        "SFC64": "random/src/sfc64/LICENSE.md",
        "Highway": "_core/src/highway/LICENSE",
    }
    found = [(f"NumPy: {name}", source / "numpy" / path) for name, path in parts.items()]
    return [("NumPy", source / "LICENSE.txt"), *found]
