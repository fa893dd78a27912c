"""`import wasmeval` costs next to nothing, and each name brings only what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import wasmeval

HEAVY = {"grpc", "google.protobuf", "wasmtime", "pydantic", "opentelemetry", "orjson", "ctypes", "asyncio"}


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `statement`."""
    program = (
        f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import wasmeval", "import wasmeval.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY


def test_importing_the_package_loads_none_of_its_modules() -> None:
    assert {name for name in loaded_by("import wasmeval") if name.startswith("wasmeval.")} == set()


def test_values_and_errors_load_nothing_heavy() -> None:
    names = "Limits, Usage, Evaluation, Result, Status, ErrorInfo, WasmevalError, InvalidArgument"
    assert not loaded_by(f"from wasmeval import {names}") & HEAVY


def test_a_client_loads_no_wasmtime() -> None:
    loaded = loaded_by("from wasmeval import Client, AsyncClient")
    assert "grpc" in loaded
    assert not {name for name in loaded if name.startswith(("wasmtime", "wasmeval.wasm", "wasmeval.worker"))}


def test_the_embedded_evaluator_loads_no_grpc() -> None:
    assert not loaded_by("from wasmeval import Evaluator, evaluate") & {
        "grpc",
        "google.protobuf",
        "opentelemetry.sdk",
    }


def test_a_run_that_needs_no_http_no_tools_and_no_folder_loads_none_of_that() -> None:
    loaded = loaded_by("from wasmeval.cli import main\nassert main(['run', '-c', '1']) == 0")
    late = {"asyncio", "concurrent.futures", "logging", "ssl"}
    served = {f"wasmeval.{name}" for name in ("attendant", "egress", "preopens", "service", "wasm.capi")}
    assert not loaded & {*late, *served}


def test_a_worker_loads_nothing_heavy() -> None:
    late = {"asyncio", "logging", "lzma", "platform", "shutil", "subprocess", "threading", "zipfile"}
    assert not loaded_by("import wasmeval.worker.main") & late


def test_every_public_name_is_there_and_documented() -> None:
    for name in set(wasmeval.__all__) - {"__version__"}:
        assert getattr(wasmeval, name).__doc__, name
    assert set(wasmeval.__all__) <= set(dir(wasmeval))


def test_every_error_is_public() -> None:
    from wasmeval import errors

    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes <= set(wasmeval.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'wasmeval' has no attribute 'Evalutor'"):
        _ = wasmeval.Evalutor


def test_a_strict_type_checker_knows_every_public_name_and_no_other(tmp_path: Path) -> None:
    program = "import wasmeval\n" + "".join(f"reveal_type(wasmeval.{name})\n" for name in wasmeval.__all__)
    (tmp_path / "user.py").write_text(program + "wasmeval.Evalutor\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        tmp_path / "cache",
        "user.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, done.stdout
    assert 'has no attribute "Evalutor"' in errors[0]
    assert "Any" not in re.findall(r'Revealed type is "(.*)"', done.stdout)
