"""WebAssembly's own WASI preview 1 test-suite, its file-system programs, where somebody has it.

No package registry carries it. `WASI_TESTSUITE` names a checkout of the branch with the compiled programs
(`prod/testsuite-base` of https://github.com/WebAssembly/wasi-testsuite). What fails must fail, as in the other list.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.wasi_suite.suite import Sandbox, run

CHECKOUT = os.environ.get("WASI_TESTSUITE", "")
PROGRAMS = [
    path
    for path in sorted(Path(CHECKOUT).glob("tests/*/testsuite/wasm32-wasip1/*.wasm") if CHECKOUT else ())
    if path.with_suffix(".json").exists() and "root" in json.loads(path.with_suffix(".json").read_text())
]
_NO_LINKS = "no links are made in folders of the host"

EXPECTED_FAILURES = {
    ("path_link", "memory"): "there are no hard links",
    ("path_link", "host"): "there are no hard links",
    ("stdio", "memory"): "the standard streams keep their numbers",
    ("stdio", "host"): "the standard streams keep their numbers",
    ("symlink_create", "memory"): "a link may be absolute: `/` is the guest's own",
    ("symlink_create", "host"): _NO_LINKS,
    ("symlink_filestat", "host"): _NO_LINKS,
    ("nofollow_errors", "host"): _NO_LINKS,
    ("path_exists", "host"): _NO_LINKS,
    ("path_symlink_trailing_slashes", "host"): _NO_LINKS,
    ("readlink", "host"): _NO_LINKS,
}

pytestmark = pytest.mark.skipif(not CHECKOUT, reason="WASI_TESTSUITE names no checkout of the compiled suite")


def test_there_are_programs() -> None:
    assert len(PROGRAMS) > 40
    assert {name for name, _ in EXPECTED_FAILURES} <= {path.stem for path in PROGRAMS}


@pytest.mark.parametrize("where", ["memory", "host"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program(program: Path, where: str, tmp_path: Path) -> None:
    config = json.loads(program.with_suffix(".json").read_text())
    shutil.copytree(program.parent / config["root"], tmp_path / "sandbox")
    (tmp_path / "tmp").mkdir()
    sandbox = Sandbox(tmp_path / "sandbox", tmp_path / "tmp", where == "memory", is_root=True)
    outcome = run(program, sandbox)
    reason = EXPECTED_FAILURES.get((program.stem, where))
    assert (outcome.exit_code == 0) == (reason is None), (reason, outcome)
