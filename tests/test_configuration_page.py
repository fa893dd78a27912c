"""docs/configuration.md names every setting with its default, and its example is one the service takes."""

from __future__ import annotations

import re
from pathlib import Path

from wasmeval.config import ServerConfig, load
from wasmeval.offering import configured

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_page_names_every_setting_and_no_other() -> None:
    table = PAGE.partition("In a file:")[0]
    named = re.findall(r"^\| `([a-z_]+)(?:\.[A-Za-z*]+)*` \|", table, re.MULTILINE)
    assert list(dict.fromkeys(named)) == list(ServerConfig.model_fields)


def test_the_page_names_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", PAGE, re.MULTILINE))
    for name in ("listen", "concurrency", "queue_size", "grace_seconds"):
        assert rows[name] == f"{getattr(ServerConfig(), name)}".removesuffix(".0")


def test_the_example_is_taken(tmp_path: Path) -> None:
    [example] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "wasmeval.toml"
    file.write_text(example)
    config = load(file, environ={"WASMEVAL_LIMITS_DEFAULTS_DEADLINE_SECONDS": "5"})
    assert (config.workers, config.queue_size) == (4, 500)
    assert config.limits.defaults.deadline_seconds == 5.0
    assert config.limits.ceilings.memory_bytes == 512 << 20
    assert config.vm.ready == 4
    assert config.vm.limits.ceilings.cpu_seconds == 120.0
    assert config.preopen["datasets"].read_only
    offer = configured(config, {"EXAMPLE_TOKEN": "a-secret-of-some-length"})
    assert list(offer.folders) == ["datasets"]
    assert offer.egress is not None
