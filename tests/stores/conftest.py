"""A store of each kind, its server started once for all tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stores.servers import BUCKET, redis_server, s3_server
from wasmeval.stores import Store, open_store

KINDS = ("memory", "dir", "redis", "s3")
SHARED = ("dir", "redis", "s3")
"""Those that several processes can open."""


@pytest.fixture(autouse=True, scope="session")
def _credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No credentials and no settings of the machine at hand; nobody asks a cloud for a role."""
    nowhere = tmp_path_factory.mktemp("aws") / "none"
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
                patch.delenv(name)
        patch.delenv("REDISCLI_AUTH", raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-no-message-has")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(nowhere))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
        yield


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("redis")
    with redis_server(folder):
        yield folder / "redis.sock"


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of a store of a kind, empty, and the same for the whole test."""
    name = secrets.token_hex(8)

    def url(kind: str) -> str:
        if kind == "dir":
            return f"dir:{tmp_path / 'store'}"
        if kind == "redis":
            return f"unix://{request.getfixturevalue('redis_socket')}?prefix={name}:"
        if kind == "s3":
            return f"s3://{BUCKET}/{name}?endpoint={request.getfixturevalue('endpoint')}&region=us-east-1"
        return "memory:"

    return url


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> Iterator[Store]:
    with open_store(url_of(request.param)) as store:
        yield store


@pytest.fixture(params=SHARED)
def shared_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)
