"""A guest reaches what its evaluation's HTTP policy allows, by pip, git, curl and its own code, and nothing else."""

from __future__ import annotations

import http.server
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wasmeval
from wasmeval import HttpCeiling, HttpPolicy, HttpRule
from wasmeval.vm import VmSettings

# Of loopback, and not what programs in the guest take for their own machine.
ADDRESS = "127.0.0.2"
WHEEL = "tinypkg-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server with a package index and a repository."""
    root = tmp_path_factory.mktemp("site")
    _make_index(root / "simple" / "tinypkg")
    _make_repository(root)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(root))

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer((ADDRESS, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"{ADDRESS}:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _make_index(folder: Path) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tinypkg.py", "ANSWER = 42\n")
        about = "tinypkg-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')


def _make_repository(root: Path) -> None:
    work, bare = root / "work", root / "repository.git"
    me = ["-c", "user.email=a@b.c", "-c", "user.name=me"]
    for command in (
        ["git", "init", "-q", str(work)],
        ["git", "-C", str(work), *me, "commit", "-q", "--allow-empty", "-m", "first"],
        ["git", "clone", "-q", "--bare", str(work), str(bare)],
        ["git", "-C", str(bare), "update-server-info"],
    ):
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def online(vm_settings: VmSettings) -> Iterator[wasmeval.Evaluator]:
    ceiling = HttpCeiling((HttpRule("*:*", schemes=("http", "https")),), private_networks=("127.0.0.0/8",))
    with wasmeval.Evaluator(workers=1, http=ceiling, vm=vm_settings) as evaluator:
        yield evaluator


def policy(site: str) -> HttpPolicy:
    return HttpPolicy((HttpRule(site, schemes=("http",)),))


def test_pip_installs_from_an_allowed_index(online: wasmeval.Evaluator, site: str) -> None:
    script = (
        f"pip install -q --index-url http://{site}/simple --trusted-host {ADDRESS} tinypkg && "
        "python3 -c 'import tinypkg; print(tinypkg.ANSWER)'"
    )
    result = online.evaluate(script, language="bash", http=policy(site))
    assert (result.status, result.stdout) == ("ok", "42\n"), result.stderr
    assert [use.path for use in result.http] == ["/simple/tinypkg/", f"/simple/tinypkg/{WHEEL}"]


def test_git_clones_from_an_allowed_host(online: wasmeval.Evaluator, site: str) -> None:
    script = f"git clone -q http://{site}/repository.git here && git -C here log --format=%s"
    result = online.evaluate(script, language="bash", http=policy(site))
    assert (result.status, result.stdout) == ("ok", "first\n"), result.stderr


def test_python_and_javascript_ask_too(online: wasmeval.Evaluator, site: str) -> None:
    url = f"http://{site}/simple/tinypkg/"
    code = f"import urllib.request\nurllib.request.urlopen({url!r}).read().decode()"
    assert WHEEL in online.evaluate(code, tier="vm", http=policy(site)).value
    result = online.evaluate(
        f"await (await fetch({url!r})).text()", language="javascript", tier="vm", http=policy(site)
    )
    assert result.ok, result.error
    assert WHEEL in result.value


def test_other_hosts_are_refused_with_the_reason(online: wasmeval.Evaluator, site: str) -> None:
    script = "curl -s http://example.org/; curl -sS https://example.org/"
    result = online.evaluate(script, language="bash", http=policy(site))
    assert "no rule of this evaluation allows GET http://example.org/" in result.stdout
    assert "403" in result.stderr
    assert [(use.method, use.allowed) for use in result.http] == [("GET", False), ("CONNECT", False)]


def test_without_a_policy_there_is_no_proxy(online: wasmeval.Evaluator, site: str) -> None:
    script = f"env | grep -i proxy; curl -s -m 3 -x http://127.0.0.1:3128 http://{site}/; echo; exit 0"
    result = online.evaluate(script, language="bash")
    assert "simple" not in result.stdout
    assert not result.http
