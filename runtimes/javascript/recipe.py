"""Recipe: how the JavaScript image is made, stage by stage, from the pinned sources to the files of the package.

python -m runtimes.javascript.recipe            # all stages
python -m runtimes.javascript.recipe --quick    # without the profile: an image to work with

sources     quickjs-ng unpacked and patched
profile     an instrumented build runs the training snippets; its counters become the compiler's profile
module      the optimised build
image       boot library loaded, warmed up, snapshot taken
check       selfcheck: the ABI's promises under plain Wasmtime
install     wasmeval/images/javascript
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from runtimes import toolchain
from runtimes.javascript import selfcheck, training
from runtimes.javascript.profile import Profile
from runtimes.snapshot import ABI_EXPORTS, Guest, bake, check_copy_on_write, initial_memory_bytes
from runtimes.toolchain import Zig

HERE = Path(__file__).resolve().parent
BUILD = toolchain.BUILD / "javascript"
IMAGES = selfcheck.IMAGES

VERSION = "0.17.0"  # of QuickJS-NG, as quickjs.h says
SOURCES = ("quickjs.c", "libregexp.c", "libunicode.c", "dtoa.c")
REACTOR = ("reactor.c", "calls.c", "files.c")
BOOT = (
    "primordials",
    "inspect",
    "console",
    "timers",
    "encoding",
    "clone",
    "events",
    "platform",
    "url",
    "calls",
    "body",
    "http",
    "path",
    "files",
    "buffer",
    "modules",
    "report",
)

# QuickJS raises its RangeError by the shadow stack; `MAX_WASM_STACK` is what the native stack then needs, with a
# margin. The self-check tries every kind of recursion that is known.
STACK_BYTES = 2 << 20
MAX_WASM_STACK = 9 << 20

MINIMUM_MEMORY_BYTES = 8 << 20

DEFINES = (
    "-D_GNU_SOURCE",
    "-DNDEBUG",
    "-D_WASI_EMULATED_SIGNAL",
    "-D_WASI_EMULATED_PROCESS_CLOCKS",
    # one indirect jump for all opcodes: under a profile faster on Wasm, which has no computed goto
    "-DDIRECT_DISPATCH=0",
    f"-DSTACK_BYTES={STACK_BYTES}",
)
COMPILE = (
    "-O3",
    "-w",
    # what is inlined into the interpreter's loop makes the frame of every call of a snippet's function larger
    "-mllvm",
    "-inline-max-stacksize=32",
    *DEFINES,
    "-Isource",
)
LINK = (
    "-O3",
    "-lwasi-emulated-signal",
    "-lwasi-emulated-process-clocks",
    f"-Wl,-z,stack-size={STACK_BYTES}",
)


def sources(build: Path = BUILD) -> Path:
    """The engine's sources, patched, in `source/` below the build folder."""
    archive = toolchain.fetch(toolchain.load_lock()["quickjs-ng"])[0]
    tree = toolchain.unpack(archive, build / "archive") / "upstream-quickjs"
    shutil.rmtree(build / "source", ignore_errors=True)
    shutil.copytree(tree, build / "source")
    toolchain.apply_patch(build / "source", HERE / "quickjs.patch")
    for name in (*REACTOR, "reactor.h"):
        shutil.copy(HERE / name, build / "source")
    return build / "source"


def module(zig: Zig, name: str, flags: Iterable[str] = ()) -> Path:
    """The raw module `name.wasm`: the engine and the reactor, not yet initialised."""
    flags = tuple(flags)
    files = [f"source/{file}" for file in (*SOURCES, *REACTOR)]
    objects = zig.compile(files, *COMPILE, *flags, into=zig.root / name)
    output = zig.root / f"{name}.wasm"
    zig.link(objects, *LINK, output=output)
    return output


GLOBAL_NAMES = "Reflect.ownKeys(globalThis).map(String)"


def boot_library(folder: Path = HERE / "boot") -> bytes:
    """One script whose value is a function: given the natives, it sets the globals up and returns C's handles."""
    parts = [(folder / f"{name}.js").read_text() for name in BOOT]
    handles = (
        "inspect, typeName, describe, runDue, resolve: value => new Promise(keep => keep(value)), "
        "grant, settle, abandon, moduleOf, withoutImports"
    )
    return "\n".join(["(function (host) {\n'use strict';", *parts, f"return {{ {handles} }};\n}})"]).encode()


def start(guest: Guest) -> None:
    """Loads the boot library into a fresh instance of the raw module."""
    guest.call("_initialize")
    library = boot_library()
    guest.write(guest.call("wasmeval_reserve", len(library)), library)
    if length := guest.call("build_boot", len(library)):
        raise RuntimeError(guest.read(guest.call("wasmeval_reserve", 0), length).decode())


def evaluate(guest: Guest, code: str) -> tuple[int, bytes]:
    """Evaluates a snippet while building: its outcome and the reply frame."""
    frame = selfcheck.request(code.encode())
    guest.write(guest.call("wasmeval_reserve", len(frame)), frame)
    packed = guest.call("wasmeval_evaluate", len(frame)) & 0xFFFFFFFFFFFFFFFF
    reply = guest.read(packed >> 32, packed & 0xFFFFFFFF)
    return int.from_bytes(reply[:4], "little"), reply


def image(raw: Path) -> bytes:
    """The snapshot: boot library loaded, caches warm, garbage collected."""
    wasm = raw.read_bytes()
    with Guest(wasm, max_wasm_stack=MAX_WASM_STACK) as guest:
        start(guest)
        _, names = evaluate(guest, GLOBAL_NAMES)
        for snippet in training.WARM_UP:
            outcome, reply = evaluate(guest, snippet)
            if outcome not in (0, 1):
                raise RuntimeError(f"warm-up {snippet!r} gave {reply!r}")
        if evaluate(guest, GLOBAL_NAMES)[1] != names:
            raise RuntimeError("the warm-up leaves global names behind")
        guest.call("build_settle")
        baked = bake(wasm, guest.capture(), keep=ABI_EXPORTS)
    check_copy_on_write(baked)
    return baked


def profile(zig: Zig) -> Path:
    """The compiler's profile, from the training snippets run on an instrumented build."""
    raw = module(zig, "instrumented", ("-fprofile-generate", "-DPROFILE"))
    with Guest(raw.read_bytes(), max_wasm_stack=64 << 20) as guest:
        start(guest)
        counters = Profile(guest)
        counters.clear()
        for snippet, rounds in training.training():
            for _ in range(rounds):
                outcome, reply = evaluate(guest, snippet)
                if outcome != 0:
                    raise RuntimeError(f"training {snippet[:80]!r} gave {reply[:400]!r}")
        text = zig.root / "javascript.proftext"
        text.write_bytes(counters.text())
    output = zig.root / "javascript.profdata"
    toolchain.merge_profile(text, output)
    return output


def licences(zig: Zig, source: Path) -> str:
    """The notices of everything in the image, from the sources' own files."""
    lib = zig.lib / "libc"
    engine = (source / "quickjs.c").read_text()
    notices = {
        "QuickJS-NG": engine[engine.index("/*") + 2 : engine.index("*/")]
        .replace("\n * ", "\n")
        .replace("\n *", "\n"),
        "wasi-libc": (lib / "wasi" / "LICENSE").read_text()
        + "\n"
        + (lib / "wasi" / "LICENSE-MIT").read_text(),
        "musl (the upper half of wasi-libc)": (lib / "musl" / "COPYRIGHT").read_text(),
        "Zig's compiler-rt and libc": (zig.lib.parent / "LICENSE").read_text(),
    }
    return "\n".join(f"{name}\n{'=' * len(name)}\n\n{text.strip()}\n\n" for name, text in notices.items())


def manifest(wasm: bytes, fuel_per_millisecond: int) -> dict[str, object]:
    lock = toolchain.load_lock()
    return {
        "abi": 1,
        "name": "javascript",
        "version": VERSION,
        "languages": ["javascript", "js"],
        "interpreter": f"QuickJS-NG {VERSION}",
        "image": {"file": "image.wasm.xz", "sha256": selfcheck.sha256(wasm), "bytes": len(wasm)},
        "library": None,
        "memory": {
            "initial_bytes": initial_memory_bytes(wasm),
            "minimum_bytes": MINIMUM_MEMORY_BYTES,
        },
        "max_wasm_stack": MAX_WASM_STACK,
        "fuel_per_millisecond": fuel_per_millisecond,
        "warm_up": training.INSTANCE_WARM_UP,
        "sources": [lock["quickjs-ng"].manifest_entry()],
        "toolchain": [lock["ziglang"].manifest_entry()],
    }


def install(wasm: bytes, notices: str, fuel_per_millisecond: int, folder: Path = IMAGES) -> None:
    """Writes the package's files, each at once: a reader sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps(manifest(wasm, fuel_per_millisecond), indent=2) + "\n"
    packed = lzma.compress(
        wasm, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9 | lzma.PRESET_EXTREME
    )
    for name, content in (
        ("LICENSES", notices.encode()),
        ("image.wasm.xz", packed),
        ("manifest.json", described.encode()),
    ):
        incoming = folder / f".{name}.incoming"
        incoming.write_bytes(content)
        os.replace(incoming, folder / name)


# Rounded to two digits: it is for people and for the length of slices, and must not differ from build to build.
FUEL_PER_MILLISECOND = 17_000_000


def build(build_folder: Path = BUILD, *, quick: bool = False, into: Path = IMAGES) -> str:
    """All stages. Returns the image's SHA-256."""
    build_folder.mkdir(parents=True, exist_ok=True)
    source = sources(build_folder)
    zig = toolchain.zig(build_folder)
    flags: tuple[str, ...] = ()
    if not quick:
        flags = (f"-fprofile-use={profile(zig).relative_to(zig.root)}",)
    wasm = image(module(zig, "quick" if quick else "optimised", flags))
    (build_folder / "image.wasm").write_bytes(wasm)
    selfcheck.check(wasm, max_wasm_stack=MAX_WASM_STACK, warm_up=training.INSTANCE_WARM_UP)
    install(wasm, licences(zig, source), FUEL_PER_MILLISECOND, into)
    return selfcheck.sha256(wasm)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="without the profile-guided build")
    parser.add_argument("--build", type=Path, default=BUILD, help="the folder to build in")
    parser.add_argument("--into", type=Path, default=IMAGES, help="where the image goes")
    given = parser.parse_args()
    print(build(given.build.resolve(), quick=given.quick, into=given.into.resolve()))


if __name__ == "__main__":
    main()
