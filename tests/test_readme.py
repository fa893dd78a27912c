"""Every example of the README and of docs/ runs and gives what the page says; every number and link holds.

In a Python block, an expression with a comment must have that value: `1 + 1  # 2`. In a console block, a line that
starts with `$ ` is run, and what follows is what it prints. `localhost:50051` stands for a service started here. Blocks
of the kinds `python vm` and `console vm` run where WASMEVAL_TEST_VM says that this machine has microVMs.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tests.running import running_service
from wasmeval.limits import CEILINGS, DEFAULTS, VM_CEILINGS, VM_DEFAULTS, Limits

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "runtimes" / "abi.md"])
USUAL_TARGET = "localhost:50051"


def blocks(kind: str) -> list[object]:
    """The fenced blocks of `kind` in all pages, each with its place as its name."""
    found: list[object] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 2
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with running_service() as service:
        yield service.target


@pytest.fixture(scope="module")
def target_with_vms() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WASMEVAL_VM_ENABLED", "true")
        with running_service() as service:
            yield service.target


needs_vm = pytest.mark.skipif(
    not os.environ.get("WASMEVAL_TEST_VM"), reason="needs microVMs; set WASMEVAL_TEST_VM where there are some"
)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_example(block: str, request: pytest.FixtureRequest) -> None:
    run_python(block, request, "target")


@needs_vm
@pytest.mark.parametrize("block", blocks("python vm"))
def test_python_example_in_a_vm(block: str, request: pytest.FixtureRequest) -> None:
    run_python(block, request, "target_with_vms")


def run_python(block: str, request: pytest.FixtureRequest, service: str) -> None:
    if USUAL_TARGET in block:
        block = block.replace(USUAL_TARGET, request.getfixturevalue(service))
    exec(compile(with_checks(block), "<example>", "exec"), {"__name__": "example"})


def with_checks(source: str) -> ast.Module:
    """The program, with each commented expression turned into a check of its value."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {
        token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
    }

    class Checks(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.stmt:
            expected = comments.get(node.end_lineno or 0)
            if expected is None:
                return node
            call = ast.Call(ast.Name("__check", ast.Load()), [node.value, ast.Constant(expected)], [])
            return ast.copy_location(ast.Expr(call), node)

    tree = ast.parse(source)
    checked: ast.Module = Checks().visit(tree)
    checked.body.insert(0, ast.parse("from tests.test_readme import check as __check").body[0])
    return ast.fix_missing_locations(checked)


def check(value: object, expected: str) -> None:
    assert repr(value) == expected


@pytest.mark.parametrize("block", blocks("console"))
def test_console_example(block: str) -> None:
    run_console(block)


@needs_vm
@pytest.mark.parametrize("block", blocks("console vm"))
def test_console_example_in_a_vm(block: str) -> None:
    run_console(block)


def run_console(block: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        done = subprocess.run(
            ["bash", "-c", command],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout == expected, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_pages_name_the_limits_in_force() -> None:
    limits = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    for name in ("fuel", "deadline_seconds", "memory_bytes", "output_bytes"):
        [row] = re.findall(rf"^\| `{name}` \|.*$", limits, re.MULTILINE)
        default, ceiling = row.split("|")[3:5]
        assert number(default) == getattr(DEFAULTS, name)
        assert number(ceiling) == getattr(CEILINGS, name)


def test_the_vm_page_names_the_limits_in_force() -> None:
    page = (ROOT / "docs" / "vm.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|(.*?)\|(.*?)\|.*$", page.partition("## Limits")[2], re.MULTILINE)
    named = {name: (number(default), number(ceiling)) for name, _, default, ceiling in rows}
    for field in fields(Limits):
        wanted = getattr(VM_DEFAULTS, field.name), getattr(VM_CEILINGS, field.name)
        assert named.pop(field.name, (None, None)) == wanted, field.name
    assert named == {}


def number(cell: str) -> float | None:
    text = cell.split("(")[0].replace(",", "").strip()
    return None if text == "none" else float(text)


def test_the_readme_shows_code_early_and_stays_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 30
    assert len(lines) <= 175
