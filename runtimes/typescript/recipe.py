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
from runtimes.typescript import selfcheck

HERE = Path(__file__).resolve().parent
BUILD = toolchain.BUILD / "typescript"
IMAGES = selfcheck.IMAGES

# The front end's own layout: its stack reaches from 0 to here, then come its data, to the end of its first memory.
SWC_STACK_BYTES = 2 << 20
SWC_PAGES = 40

# The adapter's data and stack come next. swc's allocator takes new pages only, so the two never meet.
ADAPTER_PAGES = 4
ADAPTER_STACK_BYTES = 64 << 10

# swc's frames on the native stack are this much at most when its own stack is full; the self-check recurses.
MAX_WASM_STACK = 9 << 20

MINIMUM_MEMORY_BYTES = 16 << 20
FUEL_PER_MILLISECOND = 1_000_000

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
_EXPORTS_USED = (
    "memory",
    "transformSync",
    "__wbindgen_export_2",
    "__wbindgen_export_3",
    "__wbindgen_add_to_stack_pointer",
)
_IMPORT_LINE = re.compile(
    r'^ \(import "__wbindgen_placeholder__" "(\w+)" \(func (\S+)((?: \(param[^)]*\))?(?: \(result \w+\))?)\)\)$', re.M
)
_PANIC = "(throw $failed (i32.const 0) (i32.const 0))"
_OVERFLOW = "(throw $failed (i32.const 0) (i32.const -1))"
_OVERFLOWS = re.compile(r"(\(global\.get \$__stack_limit\)\s*\)\s*\)\s*\(then\s*)\(unreachable\)")


def _binaryen(program: str, *words: str | Path) -> None:
    """Runs one of the pinned binaryen's programs."""
    source = toolchain.load_lock()["binaryen"]
    home = toolchain.BUILD / "tools" / f"binaryen-{source.version}"
    if not (home / "complete").exists():
        toolchain.unpack(toolchain.fetch(source)[0], home)
        (home / "complete").touch()
    toolchain.run(["node", home / "package" / "bin" / program, *_FEATURES, *words])


def package(build: Path = BUILD) -> Path:
    """The npm package, unpacked."""
    return toolchain.unpack(toolchain.fetch(toolchain.load_lock()["amaro"])[0], build / "package")


def adapter(zig: Zig) -> Path:
    """adapter.c as a module that lies above swc's data and has no memory of its own."""
    output = zig.root / "adapter.wasm"
    base = SWC_PAGES * WASM_PAGE_BYTES
    zig.run(
        [
            *(str(zig.executable), "cc", "-target", "wasm32-freestanding", "-mcpu=generic+bulk_memory", "-g0"),
            *("-O3", "-nostdlib", "-fno-sanitize=undefined", "-fno-builtin", "-Wall", "-Werror"),
            *("-Wl,--no-entry", "-Wl,--import-memory", f"-Wl,--global-base={base}"),
            *(f"-Wl,-z,stack-size={ADAPTER_STACK_BYTES}", f"-Wl,--initial-memory={_memory_pages() << 16}"),
            *(str(HERE / "adapter.c"), "-o", str(output)),
        ]
    )
    return output


def _memory_pages() -> int:
    return SWC_PAGES + ADAPTER_PAGES


def adapted(text: str, offered: set[str]) -> str:
    """swc's module as text, made to fit: with what is used of it, and throwing where it calls what no one offers.

    `offered` are the imports that the adapter has. The rest belongs to a JavaScript engine (promises, iterators,
    big integers) and is not reached by what the adapter asks for.
    """

    def replace(found: re.Match[str]) -> str:
        name, function, signature = found.groups()
        if name == "__wbindgen_throw":
            return f' (import "env" "fail" (func {function}{signature}))'
        if name in offered:
            return found[0]
        refused.append(f" (func {function}{signature} {_PANIC})")
        return ""

    refused: list[str] = []
    text = _IMPORT_LINE.sub(replace, text)
    text = re.sub(
        r'^ \(export "(\w+)" .*\)$', lambda found: found[0] if found[1] in _EXPORTS_USED else "", text, flags=re.M
    )
    text, memories = re.subn(
        rf"^ \(memory (\S+) {SWC_PAGES}\)$", rf" (memory \1 {_memory_pages()})", text, flags=re.M
    )
    stack = f"(global $global$0 (mut i32) (i32.const {SWC_STACK_BYTES}))"
    if memories != 1 or stack not in text or not refused:
        raise toolchain.ToolchainError("swc's module has another memory or stack than the recipe knows")
    # The pass that guards the stack finds it by this name.
    text = re.sub(r"\$global\$0\b", "$__stack_pointer", text)
    first_import = text.index(" (import ")
    tag = ' (import "env" "failure" (tag $failed (param i32 i32)))\n'
    end = text.rindex(")")
    return text[:first_import] + tag + text[first_import:end] + "\n".join(refused) + "\n)\n"


def throwing(text: str) -> str:
    """The module with a throw for each of its traps: guard.wat can catch those."""
    return _OVERFLOWS.sub(rf"\1{_OVERFLOW}", text).replace("(unreachable)", _PANIC)


def front_end(zig: Zig, source: Path, offered: set[str]) -> Path:
    """swc's module, adapted, its stack guarded."""
    script = (source / "lib" / "wasm.js").read_text()
    found = re.search(r"Buffer\.from\('([A-Za-z0-9+/=]+)', 'base64'\)", script)
    if found is None:
        raise toolchain.ToolchainError(f"{source}/lib/wasm.js has no module in base64")
    original, plain, guarded = (zig.root / f"swc{suffix}" for suffix in (".wasm", ".wat", "-guarded.wat"))
    original.write_bytes(base64.b64decode(found[1]))
    _binaryen("wasm-dis", original, "-o", plain)
    plain.write_text(adapted(plain.read_text(), offered))
    _binaryen("wasm-opt", plain, "--remove-unused-module-elements", "--stack-check", "-S", "-o", guarded)
    guarded.write_text(throwing(guarded.read_text()))
    return guarded


def module(zig: Zig, source: Path) -> Path:
    """The raw module: front end, adapter and guard over one memory."""
    ours = adapter(zig)
    offered = {export.name for export in read_exports(dict(read_sections(ours.read_bytes()))[_EXPORT_SECTION])}
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
        guest.call("build_start", SWC_STACK_BYTES, 0)
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
