"""Check that the modules of wasmeval import only downwards, and never in a circle.

    python tools/check_layers.py [ROOT]

Read from the syntax tree, so imports inside functions count. Imports under `if TYPE_CHECKING:` are exempt: they
name a type and load nothing. Prints each wrong import with its file and line; exit code 1 when there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "wasmeval"

# Top first. A module imports from lower rows only; a room (a folder) is one entry and may import within itself.
LAYERS = (
    ("__init__", "__main__"),
    ("cli",),
    ("doctor",),
    ("client", "server", "embedded", "testing"),
    ("service_session", "embedded_session"),
    ("retained", "repeated", "followed", "vms"),
    ("dialogue", "streams", "plans", "backstage", "offering", "residing", "turns"),
    ("answers",),
    ("wire", "service", "conversation", "tiers"),
    ("residence", "vm_sessions"),
    ("sessions",),
    ("attendant", "policy"),
    ("offer",),
    ("pool", "vm", "egress", "preopens"),
    ("worker",),
    ("wasm",),
    ("storing",),
    ("runtimes", "config", "telemetry"),
    ("stores",),
    ("requests", "recording"),
    ("receipts",),
    ("tools", "events"),
    ("model", "inputs", "address", "session", "transcript"),
    ("grants", "determinism"),
    ("heap",),
    ("limits", "paths", "arrays"),
    ("errors", "v1"),
)

# Tighter than the layer: a client works where none of the rest could.
ONLY = {
    "client": {
        "service_session",
        "plans",
        "streams",
        "conversation",
        "wire",
        "requests",
        "recording",
        "determinism",
        "tools",
        "events",
        "address",
        "inputs",
        "model",
        "session",
        "grants",
        "limits",
        "paths",
        "arrays",
        "errors",
        "v1",
    },
    "service_session": {
        "plans",
        "streams",
        "conversation",
        "wire",
        "requests",
        "tools",
        "model",
        "session",
        "grants",
        "limits",
        "errors",
    },
    "streams": {
        "conversation",
        "recording",
        "wire",
        "tools",
        "events",
        "inputs",
        "model",
        "grants",
        "limits",
        "errors",
        "v1",
    },
    "plans": {
        "conversation",
        "wire",
        "requests",
        "recording",
        "determinism",
        "tools",
        "model",
        "session",
        "limits",
        "errors",
    },
    "wire": {
        "events",
        "inputs",
        "model",
        "session",
        "grants",
        "determinism",
        "limits",
        "arrays",
        "errors",
        "v1",
    },
    "service": {
        "attendant",
        "residence",
        "vm_sessions",
        "session",
        "policy",
        "offer",
        "pool",
        "runtimes",
        "config",
        "telemetry",
        "receipts",
        "determinism",
        "inputs",
        "model",
        "grants",
        "limits",
        "paths",
        "errors",
    },
    "stores": {"limits", "paths", "errors"},
    "sessions": {"stores", "receipts", "model", "session", "determinism", "limits", "errors"},
}

# Who may import a package that is not ours.
HOMES = {
    "wasmtime": {"wasm"},
    "grpc": {"wire", "client", "streams", "server", "testing", "v1"},
    "google": {"wire", "client", "server", "testing", "v1"},
    "pydantic": {"config"},
    "opentelemetry": {"telemetry"},
    "httpx": {"egress"},
    "httpcore": {"egress"},
    "h11": {"egress"},
    "zstandard": {"sessions", "vm"},
    "redis": {"stores"},
    "boto3": {"stores"},
    "botocore": {"stores"},
    "minio": {"stores"},
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's effect: module `source` loads `target`."""

    source: str
    target: str
    path: Path
    line: int


def check(root: Path) -> list[str]:
    """What is wrong with the imports of the package under `root`, one line each."""
    modules = {module_name(path, root): path for path in sorted((root / PACKAGE).rglob("*.py"))}
    known = set(modules)
    imports = [found for name, path in modules.items() for found in imports_of(name, path, known)]
    wrong = [
        f"{found.path.relative_to(root)}:{found.line}: {reason}"
        for found in imports
        for reason in judge(found)
    ]
    return wrong + cycles(imports) + unplaced(modules)


def module_name(path: Path, root: Path) -> str:
    """The dotted name of the module at `path`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(name: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Each import that runs when or after module `name` is loaded."""
    for node in running_nodes(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, path, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_base(name, path, node)
            for alias in node.names:
                target = f"{base}.{alias.name}"
                yield Import(name, target if target in known else base, path, node.lineno)


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and names_type_checking(child.test):
            for other in child.orelse:
                yield other
                yield from running_nodes(other)
            continue
        yield child
        yield from running_nodes(child)


def names_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def absolute_base(name: str, path: Path, node: ast.ImportFrom) -> str:
    """The module that `from ... import` names, relative imports resolved."""
    if not node.level:
        return node.module or ""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def judge(found: Import) -> Iterator[str]:
    """Why `found` is not allowed; nothing when it is."""
    source, top = room(found.source), found.target.partition(".")[0]
    if top != PACKAGE:
        homes = HOMES.get(top)
        if homes is not None and source not in homes:
            yield f"{found.source} imports {found.target}, which only {', '.join(sorted(homes))} may"
        return
    target = room(found.target)
    # `from wasmeval import __version__`: the root is loaded before any module of it, and loads none itself.
    if target in {source, "__init__"}:
        return
    if target not in RANKS or source not in RANKS:
        return
    if RANKS[target] <= RANKS[source]:
        yield f"{found.source} imports {found.target}, which is not in a lower layer"
    elif source in ONLY and target not in ONLY[source]:
        yield f"{found.source} imports {found.target}; it may only import {', '.join(sorted(ONLY[source]))}"


RANKS = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def room(module: str) -> str:
    """The entry of LAYERS that `module` belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def cycles(imports: list[Import]) -> list[str]:
    """The first circle among the package's modules, if there is one."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        # A package's __init__ runs before its modules do; importing it from inside is not a circle of its own.
        if found.target.startswith(f"{PACKAGE}.") and not found.source.startswith(f"{found.target}."):
            graph.setdefault(found.source, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"import cycle: {' -> '.join(reversed(error.args[1]))}"]
    return []


def unplaced(modules: dict[str, Path]) -> list[str]:
    """Modules that no layer names: a new room needs a place before it is used."""
    return [f"{name} has no place in LAYERS" for name in modules if room(name) not in RANKS]


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    wrong = check(root)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
