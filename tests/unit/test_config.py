"""Configuration: file, environment and command line in this order, and errors that name key, source and value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wasmeval import InvalidArgument
from wasmeval.config import ServerConfig, load
from wasmeval.limits import CEILINGS, DEFAULTS, VM_CEILINGS, VM_DEFAULTS


def test_nothing_given_takes_what_is_built_in() -> None:
    config = load(environ={})
    assert config == ServerConfig()
    assert config.listen == "127.0.0.1:50051"
    assert config.workers == len(os.sched_getaffinity(0))
    assert not config.insecure
    assert not config.require_jail
    assert (config.limits.defaults.limits(), config.limits.ceilings.limits()) == (DEFAULTS, CEILINGS)


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "wasmeval.toml"
    file.write_text(
        'listen = "unix:/a"\nworkers = 3\nqueue_size = 5\ninsecure = true\n'
        "[limits.defaults]\nfuel = 7\nmemory_bytes = 9\n"
    )
    environ = {
        "WASMEVAL_WORKERS": "4",
        "WASMEVAL_QUEUE_SIZE": "6",
        "WASMEVAL_LIMITS_DEFAULTS_FUEL": "8",
        "OTHER": "x",
    }
    config = load(file, environ, {"queue_size": 7, "listen": None})
    assert (config.listen, config.workers, config.queue_size, config.insecure) == ("unix:/a", 4, 7, True)
    assert (config.limits.defaults.fuel, config.limits.defaults.memory_bytes) == (8, 9)
    assert config.limits.defaults.output_bytes == DEFAULTS.output_bytes


BAD = [
    ("workers = 0", {}, "workers", "greater than or equal to 1, not 0 (from wasmeval.toml)"),
    ("workers = true", {}, "workers", "not True (from wasmeval.toml)"),
    ("workers = 2.5", {}, "workers", "not 2.5"),
    ("wrokers = 2", {}, "wrokers", "no such setting (from wasmeval.toml); known: listen, "),
    ("", {"WASMEVAL_WORKERS": "two"}, "workers", "not 'two' (from the environment)"),
    ("", {"WASMEVAL_WROKERS": "2"}, "WASMEVAL_WROKERS", "no such setting; known: WASMEVAL_LISTEN, "),
    ("workers = 1025", {}, "workers", "less than or equal to 1024, not 1025"),
    ("", {"WASMEVAL_CONCURRENCY": "8193"}, "concurrency", "less than or equal to 8192, not '8193'"),
    ("", {"WASMEVAL_PORTS": "1"}, "WASMEVAL_PORTS", "no such setting"),
    ("", {"WASMEVAL_SERVICES": "1"}, "WASMEVAL_SERVICES", "no such setting"),
    ("grace_seconds = -1", {}, "grace_seconds", "not -1"),
    ("grace_seconds = inf", {}, "grace_seconds", "not inf"),
    ("worker_memory_bytes = 1", {}, "worker_memory_bytes", "not 1"),
    ("limits = 3", {}, "limits", "not 3"),
    ("[limits.defaults]\nfuel = 0", {}, "limits.defaults.fuel", "not 0"),
    ("[limits.defaults]\ndeadline_seconds = nan", {}, "limits.defaults.deadline_seconds", "not nan"),
    ("[limits.defaults]\nfule = 1", {}, "limits.defaults.fule", "no such setting"),
    ("[limits.default]\nfuel = 1", {}, "limits.default", "no such setting"),
    ("[limits.ceilings]\noutput_bytes = 9000000", {}, "limits.ceilings.output_bytes", "not 9000000"),
    ("[limits.ceilings]\nfuel = 5", {}, "limits", "defaults.fuel is 100000000000, above its ceiling of 5"),
    ("nonsense", {}, "config", "is not TOML"),
]


@pytest.mark.parametrize(
    ("text", "environ", "field", "words"), BAD, ids=[f"{row[0]}-{row[1]}" for row in BAD]
)
def test_what_is_wrong_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    environ: dict[str, str],
    field: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wasmeval.toml").write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        load(Path("wasmeval.toml"), environ)
    assert caught.value.field == field
    assert words in caught.value.description


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"cannot read missing\.toml: No such file"):
        load(Path("missing.toml"), {})


def test_the_client_s_own_variables_are_not_settings() -> None:
    assert (
        load(environ={"WASMEVAL_API_KEY": "x", "WASMEVAL_SERVER": "y", "WASMEVAL_CONFIG": "z"})
        == ServerConfig()
    )


def test_what_kubernetes_says_of_a_service_named_wasmeval_is_no_setting() -> None:
    environ = {
        "WASMEVAL_SERVICE_HOST": "10.0.0.1",
        "WASMEVAL_SERVICE_PORT": "50051",
        "WASMEVAL_SERVICE_PORT_GRPC": "50051",
        "WASMEVAL_PORT": "tcp://10.0.0.1:50051",
        "WASMEVAL_PORT_50051_TCP_ADDR": "10.0.0.1",
        "WASMEVAL_BUILD": "1",
    }
    assert load(environ=environ) == ServerConfig()


def test_the_most_workers_and_the_most_in_each_are_allowed() -> None:
    config = load(environ={"WASMEVAL_WORKERS": "1024", "WASMEVAL_CONCURRENCY": "8192"})
    assert (config.workers, config.concurrency) == (1024, 8192)


def test_a_file_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    file = tmp_path / "wasmeval.toml"
    file.write_bytes('listen = "unix:/tmp/\N{SNOWMAN}"\n'.encode())
    script = (
        "import sys, pathlib, wasmeval.config\n"
        "print(ascii(wasmeval.config.load(pathlib.Path(sys.argv[1]), {}).listen))"
    )
    environ = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    found = subprocess.run(
        [sys.executable, "-c", script, str(file)], env=environ, check=True, capture_output=True, text=True
    )
    assert found.stdout == "'unix:/tmp/\\u2603'\n"
    file.write_bytes(b'listen = "\xff"')
    with pytest.raises(InvalidArgument, match="is not TOML"):
        load(file, {})


def test_vms_are_there_when_they_can_be() -> None:
    vm = load(environ={}).vm
    assert (vm.enabled, vm.auto, vm.image, vm.ready, vm.most, vm.queue_size, vm.most_sessions) == (
        "auto",
        True,
        "default",
        2,
        16,
        256,
        8,
    )
    assert vm.limits.defaults.limits() == VM_DEFAULTS
    assert vm.limits.ceilings.limits() == VM_CEILINGS


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("true", True), ("false", False), ("1", True)])
def test_whether_there_are_vms_is_said_in_the_environment_too(text: str, value: object) -> None:
    assert load(environ={"WASMEVAL_VM_ENABLED": text}).vm.enabled == value


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"WASMEVAL_VM_ENABLED": "perhaps"}, "vm.enabled"),
        ({"WASMEVAL_VM_READY": "-1"}, "vm.ready"),
        ({"WASMEVAL_VM_MOST": "0"}, "vm.most"),
        ({"WASMEVAL_VM_MOST_SESSIONS": "-1"}, "vm.most_sessions"),
        ({"WASMEVAL_VM_ACCELERATOR": "hope"}, "vm.accelerator"),
        ({"WASMEVAL_VM_IMAGE": "../x"}, "vm.image"),
        ({"WASMEVAL_VM_LIMITS_DEFAULTS_FUEL": "5"}, "WASMEVAL_VM_LIMITS_DEFAULTS_FUEL"),
        ({"WASMEVAL_LIMITS_DEFAULTS_PROCESSES": "5"}, "WASMEVAL_LIMITS_DEFAULTS_PROCESSES"),
        ({"WASMEVAL_VM_LIMITS_DEFAULTS_PROCESSES": "5000"}, "vm.limits"),
    ],
)
def test_what_no_vms_can_be_is_named(variables: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(environ=variables)
    assert caught.value.field.startswith(field)


def test_a_service_s_tests_have_a_variable_of_their_own() -> None:
    assert load(environ={"WASMEVAL_TEST_VM": "1"}) == load(environ={})
