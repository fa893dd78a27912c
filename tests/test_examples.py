"""The examples in docs/examples run as they stand, and give what they say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_as_a_script(path: Path) -> None:
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_agent_loop_learns_from_its_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("agent_loop").main(None) == {"tea": 2, "coffee": 4}
    said = capsys.readouterr().out
    assert "failed: TypeError" in said
    assert "[stdout] longest: coffee" in said
    assert "4 calls of tools" in said


def test_the_chart_comes_back_as_files() -> None:
    result = load("csv_to_chart").main()
    assert result.value == {"tea": 135, "coffee": 137}
    assert list(result.files) == ["chart.json", "chart.svg"]
    assert json.loads(result.files["chart.json"].data)["series"]["tea"] == [30, 44, 61]
    assert result.files["chart.svg"].media_type == "image/svg+xml"


def test_the_key_stays_outside() -> None:
    module = load("fetch_with_key")
    result = module.main()
    assert result.value["celsius"] == 21
    assert module.KEY not in result.value_json.decode()
    (use,) = result.http
    assert (use.status, use.path) == (200, "/oslo")
