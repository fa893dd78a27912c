"""The files that a guest gets are all there, in a checkout and in a wheel."""

from __future__ import annotations

import ast
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from wasmeval.vm import frames, kvm, network, task
from wasmeval.vm.frames import Order, Word
from wasmeval.vm.guest import SHARED, guest_files

ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_carries_what_the_harnesses_share_with_the_images() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {
        home: f"wasmeval/vm/guest/shared/{name}" for name, home in SHARED.items()
    }


def test_every_file_is_there_once_and_is_the_images_own() -> None:
    files = guest_files()
    assert {"python.py", "javascript.cjs", "_wasmeval.py", "values.cjs", *SHARED} <= set(files)
    assert "__init__.py" not in files
    for name, home in SHARED.items():
        assert files[name] == (ROOT / home).read_bytes()


def test_the_harness_is_python_3_9() -> None:
    for name, content in guest_files().items():
        if name.endswith(".py"):
            ast.parse(content, name, feature_version=(3, 9))


def of_the_guest(name: str) -> Any:
    """A module that runs in the guest, where it imports nothing of ours."""
    spec = spec_from_file_location(f"guest_{name}", ROOT / f"wasmeval/vm/guest/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_ends_of_the_agents_channel_mean_the_same() -> None:
    guest = of_the_guest("_agent_streams")
    for each in (*Order, *Word):
        assert getattr(guest, each.name) == each
    assert guest.HEADER.format == frames.HEADER.format
    assert guest.PIECE_BYTES == frames.PIECE_BYTES
    assert (guest.PATH.format, guest.SKIPPED.format) == (task._PATH.format, task._SKIPPED.format)


def test_both_ends_of_the_networks_channel_mean_the_same() -> None:
    guest = of_the_guest("network")
    for name in ("WINDOW", "MOST_CONNECTIONS", "MOST_FRAME"):
        assert getattr(guest, name) == getattr(network, name)
    assert f"http://{guest.LISTEN}" == network.PROXY
    for name in ("python.py", "proxy.cjs"):
        assert network.PROXY.encode() in guest_files()[name]


def test_the_guest_says_what_a_probe_of_kvm_listens_for() -> None:
    assert b'echo "' + kvm.SIGN + b'"' in guest_files()["init"]
