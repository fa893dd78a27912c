"""Recipe: how the TypeScript image is made, stage by stage, from the pinned package to the files of wasmeval.

    python -m runtimes.typescript.recipe

front end   swc's WebAssembly, as npm's `amaro` has it, made to throw where it would trap
module      joined with adapter.c and guard.wat over one memory, optimised
image       warmed up, snapshot taken
check       selfcheck: the ABI's promises under plain Wasmtime
install     wasmeval/images/typescript
"""

from __future__ import annotations

import argparse
import base64
import json
import lzma
import os
import re
from pathlib import Path

from runtimes import toolchain
from runtimes.snapshot import (
    ABI_EXPORTS,
    WASM_PAGE_BYTES,
    Guest,
    bake,
    check_copy_on_write,
    initial_memory_bytes,
    read_exports,
    read_sections,
)
from runtimes.toolchain import Zig
from runtimes.typescript import rewriting, selfcheck

HERE = Path(__file__).resolve().parent
BUILD = toolchain.BUILD / "typescript"
IMAGES = selfcheck.IMAGES

# swc's stack reaches from 0 to 2 MiB, then come its data, to the end of its first memory. The adapter's data and stack
# come next: swc's allocator takes new pages only, so the two never meet.
LAYOUT = rewriting.Layout(stack_bytes=2 << 20, pages=40, room=4)
ADAPTER_STACK_BYTES = 64 << 10

# Of its stack, swc may use the upper half: a cycle of calls that takes 32 bytes of it for each turn would else need
# more of the native stack than `MAX_WASM_STACK` before it is full.
LOWEST_STACK = 1 << 20

# swc raises its error by its own stack; this is what the native stack then needs. The self-check tries recursions.
MAX_WASM_STACK = 9 << 20

MINIMUM_MEMORY_BYTES = 16 << 20
# Rounded: it is for people and for the length of slices, and must not differ from build to build.
FUEL_PER_MILLISECOND = 3_000_000

EXCEPTIONS = "--enable-exception-handling"
_FEATURES = (
    EXCEPTIONS,
    "--enable-bulk-memory",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-reference-types",
)
_EXPORT_SECTION = 7


def _binaryen(program: str, *words: str | Path) -> None:
    """Runs one of the pinned binaryen's programs."""
    home = toolchain.unpacked_tool(toolchain.load_lock()["binaryen"])
    toolchain.run(["node", home / "package" / "bin" / program, *_FEATURES, *words])


def package(build: Path = BUILD) -> Path:
    """The npm package, unpacked."""
    return toolchain.unpack(toolchain.fetch(toolchain.load_lock()["amaro"])[0], build / "package")


def adapter(zig: Zig) -> Path:
    """adapter.c as a module that lies above swc's data and has no memory of its own."""
    output = zig.root / "adapter.wasm"
    base = LAYOUT.pages * WASM_PAGE_BYTES
    zig.run(
        [
            *(
                str(zig.executable),
                "cc",
                "-target",
                "wasm32-freestanding",
                "-mcpu=generic+bulk_memory",
                "-g0",
            ),
            *("-O3", "-nostdlib", "-fno-sanitize=undefined", "-fno-builtin", "-Wall", "-Werror"),
            *("-Wl,--no-entry", "-Wl,--import-memory", f"-Wl,--global-base={base}"),
            *(
                f"-Wl,-z,stack-size={ADAPTER_STACK_BYTES}",
                f"-Wl,--initial-memory={(LAYOUT.pages + LAYOUT.room) * WASM_PAGE_BYTES}",
            ),
            *(str(HERE / "adapter.c"), "-o", str(output)),
        ]
    )
    return output


def front_end(zig: Zig, source: Path, offered: set[str]) -> Path:
    """swc's module, adapted, its stack guarded."""
    script = (source / "lib" / "wasm.js").read_text()
    found = re.search(r"Buffer\.from\('([A-Za-z0-9+/=]+)', 'base64'\)", script)
    if found is None:
        raise toolchain.ToolchainError(f"{source}/lib/wasm.js has no module in base64")
    original, plain, guarded = (zig.root / f"swc{suffix}" for suffix in (".wasm", ".wat", "-guarded.wat"))
    original.write_bytes(base64.b64decode(found[1]))
    _binaryen("wasm-dis", original, "-o", plain)
    plain.write_text(rewriting.adapt(plain.read_text(), offered, LAYOUT))
    _binaryen("wasm-opt", plain, "--remove-unused-module-elements", "--stack-check", "-S", "-o", guarded)
    guarded.write_text(rewriting.make_throw(guarded.read_text()))
    return guarded


def module(zig: Zig, source: Path) -> Path:
    """The raw module: front end, adapter and guard over one memory."""
    ours = adapter(zig)
    offered = {
        export.name for export in read_exports(dict(read_sections(ours.read_bytes()))[_EXPORT_SECTION])
    }
    swc = front_end(zig, source, offered)
    guard, joined, output = (zig.root / f"{name}.wasm" for name in ("guard", "joined", "module"))
    _binaryen("wasm-as", HERE / "guard.wat", "-o", guard)
    # The linker knows one place for an imported memory.
    text = zig.root / "adapter.wat"
    _binaryen("wasm-dis", ours, "-o", text)
    text.write_text(text.read_text().replace('(import "env" "memory"', '(import "swc" "memory"'))
    _binaryen(
        "wasm-merge",
        *(swc, "swc", text, "__wbindgen_placeholder__", guard, "env"),
        *("--skip-export-conflicts", "-o", joined),
    )
    _binaryen("wasm-opt", joined, "-O3", "--strip-debug", "--strip-producers", "-o", output)
    return output


def translate(guest: Guest, code: str) -> selfcheck.Reply:
    """Translates a snippet while building."""
    frame = selfcheck.request(code.encode())
    guest.write(guest.call("wasmeval_reserve", len(frame)), frame)
    packed = guest.call("wasmeval_evaluate", len(frame)) & 0xFFFFFFFFFFFFFFFF
    return selfcheck.decode(guest.read(packed >> 32, packed & 0xFFFFFFFF))


def image(raw: Path) -> bytes:
    """The snapshot, taken after the warm-up snippets: swc's tables of names and its allocator's pages are in it."""
    wasm = raw.read_bytes()
    with Guest(wasm, max_wasm_stack=MAX_WASM_STACK) as guest:
        guest.call("build_start", LAYOUT.stack_bytes, LOWEST_STACK)
        for path in sorted((HERE / "training").glob("*.ts")):
            reply = translate(guest, path.read_text())
            if reply.outcome != 0:
                raise RuntimeError(f"warm-up {path.name} gave {reply}")
        baked = bake(wasm, guest.capture(), keep=ABI_EXPORTS)
    check_copy_on_write(baked)
    return baked


def manifest(wasm: bytes) -> dict[str, object]:
    lock = toolchain.load_lock()
    version = lock["amaro"].version
    return {
        "abi": 1,
        "name": "typescript",
        "version": version,
        "languages": ["typescript", "ts"],
        "translates_to": "javascript",
        "interpreter": f"swc (amaro {version})",
        "image": {"file": "image.wasm.xz", "sha256": selfcheck.sha256(wasm), "bytes": len(wasm)},
        "library": None,
        "memory": {"initial_bytes": initial_memory_bytes(wasm), "minimum_bytes": MINIMUM_MEMORY_BYTES},
        "max_wasm_stack": MAX_WASM_STACK,
        "fuel_per_millisecond": FUEL_PER_MILLISECOND,
        "warm_up": selfcheck.INSTANCE_WARM_UP,
        "sources": [lock["amaro"].manifest_entry()],
        "toolchain": [lock[name].manifest_entry() for name in ("ziglang", "binaryen")],
    }


def licences(source: Path, zig: Zig) -> str:
    """The notices of everything in the image, from the sources' own files."""
    notices = {
        "amaro, which has swc's module": (source / "LICENSE.md").read_text(),
        "swc": (source / "dist" / "LICENSE").read_text(),
        "Zig's compiler-rt": (zig.lib.parent / "LICENSE").read_text(),
    }
    return "\n".join(f"{name}\n{'=' * len(name)}\n\n{text.strip()}\n\n" for name, text in notices.items())


def install(wasm: bytes, notices: str, folder: Path = IMAGES) -> None:
    """Writes the package's files, each at once: a reader sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps(manifest(wasm), indent=2) + "\n"
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


def build(build_folder: Path = BUILD, *, into: Path = IMAGES) -> str:
    """All stages. Returns the image's SHA-256."""
    build_folder.mkdir(parents=True, exist_ok=True)
    zig = toolchain.zig(build_folder)
    source = package(build_folder)
    wasm = image(module(zig, source))
    (build_folder / "image.wasm").write_bytes(wasm)
    selfcheck.check(wasm, max_wasm_stack=MAX_WASM_STACK)
    install(wasm, licences(source, zig), into)
    return selfcheck.sha256(wasm)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=BUILD, help="the folder to build in")
    parser.add_argument("--into", type=Path, default=IMAGES, help="where the image goes")
    given = parser.parse_args()
    print(build(given.build.resolve(), into=given.into.resolve()))


if __name__ == "__main__":
    main()
