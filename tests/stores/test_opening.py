"""`open_store`: which URL opens what, what is refused, and what a missing package says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wasmeval.errors import InvalidArgument, SetupError
from wasmeval.stores import open_store
from wasmeval.stores.directory import DirectoryStore
from wasmeval.stores.memory import MemoryStore


def test_memory_and_folders_are_opened_by_name(tmp_path: Path) -> None:
    with open_store("memory:") as memory:
        assert isinstance(memory, MemoryStore)
    with open_store(f"dir:{tmp_path}/with%20space") as directory:
        assert isinstance(directory, DirectoryStore)
        assert directory.name == f"dir:{tmp_path}/with space"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no store is named ''"),
        ("/var/lib/x", "no store is named ''"),
        ("mysql://a-secret@x", "no store is named 'mysql'"),
        ("memory:x", "memory: has no name or path"),
        ("dir:relative", "write dir:/PATH, with an absolute path"),
        ("dir://host/path", "write dir:/PATH, with an absolute path"),
        ("dir:/a%00b", "write dir:/PATH, with an absolute path"),
        ("dir:/path?x=1", "dir has no option 'x'"),
        ("redis://:a-secret@h/?decode_responses=1", "redis has no option 'decode_responses'"),
        ("redis://:a-secret@h/?ssl_cert_reqs=none", "redis has no option 'ssl_cert_reqs'"),
        ("redis://:a-secret@h/?timeout=1&timeout=2", "the option 'timeout' is given twice"),
        ("redis://:a-secret@h/?timeout=soon", "the option 'timeout' must be a number, at least 0"),
        ("redis://:a-secret#x@h/", "in a password it is written %23"),
        ("redis://:a-secret@h:port/", "not a URL of a Redis server"),
        ("redis://h:1/?db=one", "not a URL of a Redis server"),
        ("redis://[h", "not a URL"),
        ("s3://bucket/x?secret=a-secret", "s3 has no option 'secret'"),
    ],
)
def test_a_url_that_is_none_is_refused_and_not_repeated(url: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_store(url)
    assert message in str(caught.value)
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "extra", "url"),
    [("redis", "redis", "redis://127.0.0.1:1"), ("botocore", "s3", "s3://bucket/x")],
)
def test_a_missing_package_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, package: str, extra: str, url: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"wasmeval.stores.{extra}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SetupError, match=rf"pip install 'wasmeval\[{extra}\]'"):
        open_store(url)


def test_importing_stores_loads_neither_library() -> None:
    program = "import sys, wasmeval.stores.directory, wasmeval.stores.memory; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"redis", "botocore", "urllib3"} & set(done.stdout.split())
