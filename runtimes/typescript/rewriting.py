"""Rewriting: swc's module, as text, made to fit its adapter and to throw where it would trap.

Works on what binaryen's `wasm-dis` writes, whose names and layout of lines are those of the pinned version; what is not
found as expected stops the build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtimes.toolchain import ToolchainError

EXPORTS_USED = (
    "memory",
    "transformSync",
    "__wbindgen_export_2",  # allocate
    "__wbindgen_export_3",  # resize
    "__wbindgen_add_to_stack_pointer",
)

_IMPORT = re.compile(
    r'^ \(import "__wbindgen_placeholder__" "(\w+)" \(func (\S+)((?: \(param[^)]*\))?(?: \(result \w+\))?)\)\)\n',
    re.M,
)
_EXPORT = re.compile(r'^ \(export "(\w+)" .*\)\n', re.M)
_FUNCTION = re.compile(
    r"^ \(func (\$\S+)((?: \(param \S+ \w+\))*)(?: \(result (\w+)\))?\n(.*?)^ \)$", re.M | re.S
)
_CALL = re.compile(r"\(call (\$[^\s)]+)")
_STACK = "$__stack_pointer"

# A frame taken on every way through a function, not in one of its blocks.
_TAKES_A_FRAME = re.compile(r"^  \(global\.set \$__stack_pointer$", re.M)

# What guard.wat catches, and the two numbers by which the adapter knows them apart.
_PANIC = "(throw $failed (i32.const 0) (i32.const 0))"
_OVERFLOW = "(throw $failed (i32.const 0) (i32.const -1))"
_OVERFLOWS = re.compile(r"(\(global\.get \$__stack_limit\)\s*\)\s*\)\s*\(then\s*)\(unreachable\)")

# What a call of a function that has no data on swc's stack is counted as there. Such frames have up to a few hundred
# bytes of native stack: a full stack of swc's must not need more than `max_wasm_stack`.
_COUNTED_AS_BYTES = 128


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of swc's memory: it begins with the stack, and ends after `pages`; `room` pages are added."""

    stack_bytes: int
    pages: int
    room: int


def adapt(text: str, offered: set[str], layout: Layout) -> str:
    """The module with what is used of it, with room for the adapter, and with every recursion on its stack.

    `offered` are the imports that the adapter has. The rest belongs to an engine of JavaScript (promises, iterators,
    big integers) that the adapter's requests do not reach; a call of it throws.
    """
    text, refused = _refuse(text, offered)
    text = _EXPORT.sub(lambda found: found[0] if found[1] in EXPORTS_USED else "", text)
    text = _replace_once(
        text, rf"^ \(memory (\S+) {layout.pages}\)$", rf" (memory \1 {layout.pages + layout.room})"
    )
    # The pass that guards the stack finds it by this name.
    text = _replace_once(
        text,
        rf"^ \(global \$global\$0 \(mut i32\) \(i32\.const {layout.stack_bytes}\)\)$",
        f" (global {_STACK} (mut i32) (i32.const {layout.stack_bytes}))",
    )
    text = re.sub(r"\$global\$0\b", _STACK, text)
    text, wrappers = _count_recursion(text)
    first_import = text.index(" (import ")
    tag = ' (import "env" "failure" (tag $failed (param i32 i32)))\n'
    body = text[first_import : text.rindex(")")]
    return text[:first_import] + tag + body + "\n".join(refused + wrappers) + "\n)\n"


def make_throw(text: str) -> str:
    """The module, its stack guarded, with a throw for each of its traps."""
    return _OVERFLOWS.sub(rf"\1{_OVERFLOW}", text).replace("(unreachable)", _PANIC)


def _replace_once(text: str, pattern: str, replacement: str) -> str:
    text, found = re.subn(pattern, replacement, text, flags=re.M)
    if found != 1:
        raise ToolchainError(f"swc's module has {pattern!r} {found} times, not once")
    return text


def _refuse(text: str, offered: set[str]) -> tuple[str, list[str]]:
    """The text without the imports that nobody offers, and the functions in their places."""
    refused: list[str] = []

    def replace(found: re.Match[str]) -> str:
        name, function, signature = found.groups()
        if name == "__wbindgen_throw":
            return f' (import "env" "fail" (func {function}{signature}))\n'
        if name in offered:
            return found[0]
        refused.append(f" (func {function}{signature} {_PANIC})")
        return ""

    text = _IMPORT.sub(replace, text)
    if not refused:
        raise ToolchainError("swc's module has no imports as they are known")
    return text, refused


def _count_recursion(text: str) -> tuple[str, list[str]]:
    """The text with every function renamed that may recur without a frame on swc's stack, and wrappers that have one.

    Without them the native stack would be full first, which is a trap that nobody can catch.
    """
    functions = {found[1]: found for found in _FUNCTION.finditer(text)}
    if not any(_TAKES_A_FRAME.search(found[4]) for found in functions.values()):
        raise ToolchainError("no function of swc's takes a frame as it is known")
    uncounted = _recursive(
        {
            name: set(_CALL.findall(found[4]))
            for name, found in functions.items()
            if not _TAKES_A_FRAME.search(found[4])
        }
    )
    parts, wrappers, at = [], [], 0
    for name in sorted(uncounted, key=lambda name: functions[name].start()):
        found = functions[name]
        parts += [text[at : found.start(1)], f"{name}.uncounted"]
        at = found.end(1)
        wrappers.append(_wrapper(name, found[2], found[3]))
    return "".join([*parts, text[at:]]), wrappers


def _recursive(calls: dict[str, set[str]]) -> set[str]:
    """The functions that are on a cycle of calls, or on a way from one cycle to another."""
    left = set(calls)
    while True:
        called = set().union(*(calls[name] & left for name in left))
        kept = {name for name in left & called if calls[name] & left}
        if kept == left:
            return kept
        left = kept


def _wrapper(name: str, parameters: str, result: str | None) -> str:
    arguments = " ".join(f"(local.get {i})" for i in range(parameters.count("(param ")))
    call = f"(call {name}.uncounted {arguments})"
    return "\n".join(
        [
            f" (func {name}{parameters}" + (f" (result {result}) (local $result {result})" if result else ""),
            f"  (global.set {_STACK} (i32.sub (global.get {_STACK}) (i32.const {_COUNTED_AS_BYTES})))",
            f"  (local.set $result {call})" if result else f"  {call}",
            f"  (global.set {_STACK} (i32.add (global.get {_STACK}) (i32.const {_COUNTED_AS_BYTES})))",
            *(["  (local.get $result)"] if result else []),
            " )",
        ]
    )
