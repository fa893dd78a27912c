"""RedisStore: lost answers, lost servers, full and foreign ones, credentials."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from tests.stores.relay import Relay
from tests.stores.servers import PASSWORD, free_port, redis_server
from wasmeval.errors import Conflict, SetupError, StoreDamaged, StoreUnavailable
from wasmeval.stores import Record, Store, open_store


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A server of the test's own, on TCP."""
    port = free_port()
    with redis_server(tmp_path, port):
        yield port


@pytest.fixture
def relay(port: int) -> Iterator[Relay]:
    with Relay(port) as relay:
        yield relay


@pytest.fixture
def relayed(relay: Relay) -> Iterator[Store]:
    with open_store(f"redis://127.0.0.1:{relay.port}/0") as store:
        yield store


def test_a_swap_whose_answer_is_lost_is_sent_once_and_told_by_get(relay: Relay, relayed: Store) -> None:
    version = relayed.create("a", b"1")
    relay.lose_answers(1, b"EVAL")
    with pytest.raises(StoreUnavailable, match="get the record again to know whether it was changed"):
        relayed.swap("a", b"2", version)
    assert relay.seen == 1
    record = relayed.get("a")
    assert record is not None and record.data == b"2"
    with pytest.raises(Conflict):
        relayed.swap("a", b"3", version)
    relayed.swap("a", b"3", record.version)


def test_creating_and_removing_are_sent_once_too(relay: Relay, relayed: Store) -> None:
    relay.lose_answers(1, b"EVAL")
    with pytest.raises(StoreUnavailable):
        relayed.create("a", b"1")
    record = relayed.get("a")
    assert record is not None and record.data == b"1"
    relay.lose_answers(1, b"EVAL")
    with pytest.raises(StoreUnavailable):
        relayed.remove("a", record.version)
    assert relayed.get("a") is None
    assert relay.seen == 1


def test_what_is_safe_to_repeat_is_repeated_a_few_times(relay: Relay, relayed: Store) -> None:
    relay.lose_answers(2, b"ZADD")
    relayed.put_blob("b", b"blob")
    assert relay.seen == 3
    relay.lose_answers(2, b"GET")
    assert relayed.get_blob("b") == b"blob"
    relay.lose_answers(3, b"GET")
    with pytest.raises(StoreUnavailable, match="it is not reachable, or the connection was lost"):
        relayed.get_blob("b")
    assert relay.seen == 3
    relayed.remove_blob("b")


def test_a_server_that_is_gone_is_said_and_one_that_is_back_has_everything(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port) as server:
        store = open_store(f"redis://127.0.0.1:{port}")
        version = store.create("a", b"1")
        store.put_blob("b", b"blob")
        server.kill()
        server.wait()
        for call in (
            lambda: store.get("a"),
            lambda: store.swap("a", b"2", version),
            lambda: list(store.keys()),
            lambda: store.put_blob("c", b""),
            lambda: store.get_blob("b"),
        ):
            with pytest.raises(StoreUnavailable, match=f"^redis://127.0.0.1:{port}: it is not reachable"):
                call()
    with redis_server(tmp_path, port), store:
        assert store.get("a") == Record(b"1", version)
        assert store.get_blob("b") == b"blob"
        assert (list(store.keys()), list(store.blobs())) == (["a"], ["b"])
        store.swap("a", b"2", version)


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        open_store(f"redis://user:{PASSWORD}@127.0.0.1:{free_port()}/0?prefix=x")
    assert PASSWORD not in str(caught.value)
    assert "user" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StoreUnavailable, match="in time"):
        open_store(f"redis://:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}?timeout=0.2")


def test_the_password_comes_from_a_file_the_environment_or_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    with redis_server(tmp_path, port, "--requirepass", PASSWORD):
        for wrong in (url, f"redis://:wrong-{PASSWORD}@127.0.0.1:{port}"):
            with pytest.raises(SetupError, match=f"^{url} refuses the credentials$"):
                open_store(wrong)
        open_store(f"redis://:{PASSWORD}@127.0.0.1:{port}").close()
        open_store(f"{url}?password_file={secret}").close()
        open_store(f"unix://{tmp_path}/redis.sock?password_file={secret}").close()
        monkeypatch.setenv("REDISCLI_AUTH", PASSWORD)
        with open_store(url) as store:
            store.create("a", b"1")
    with pytest.raises(SetupError, match="password of the store cannot be read from /nowhere"):
        open_store(f"{url}?password_file=/nowhere")


def test_tls_is_verified(tmp_path: Path) -> None:
    authority, port = trustme.CA(), free_port()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    files = [f"--tls-{name}-file" for name in ("cert", "key", "ca-cert")]
    options = [files[0], "server.pem", files[1], "server.pem", files[2], "ca.pem", "--tls-auth-clients", "no"]
    with redis_server(tmp_path, 0, "--tls-port", str(port), *options):
        with open_store(f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem") as store:
            store.create("a", b"1")
        with pytest.raises(StoreUnavailable, match=f"^rediss://127.0.0.1:{port}: it is not reachable"):
            open_store(f"rediss://127.0.0.1:{port}")
        with pytest.raises(StoreUnavailable):
            open_store(f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem")


def test_a_server_that_evicts_keys_is_refused(tmp_path: Path) -> None:
    port = free_port()
    with (
        redis_server(tmp_path, port, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"),
        pytest.raises(SetupError, match=r"evicts keys \(allkeys-lru\); set maxmemory-policy to noeviction"),
    ):
        open_store(f"redis://127.0.0.1:{port}")


def fill(store: Store) -> None:
    for number in range(20):
        store.put_blob(f"b{number}", b"x" * 1_000_000)


def test_a_full_server_changes_nothing(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port, "--maxmemory", "8mb"), open_store(f"redis://127.0.0.1:{port}") as store:
        version = store.create("a", b"1")
        with pytest.raises(StoreUnavailable, match=r"its memory is full \(maxmemory\)"):
            fill(store)
        with pytest.raises(StoreUnavailable, match="its memory is full"):
            store.swap("a", b"x" * 1_000_000, version)
        assert store.get("a") == Record(b"1", version)
        for key in list(store.blobs()):
            store.remove_blob(key)
        store.swap("a", b"2", version)


def test_too_few_replicas_are_said_and_the_change_is_made(port: int) -> None:
    with open_store(f"redis://127.0.0.1:{port}?wait_replicas=1&timeout=0.4") as store:
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas have the change, which was made"):
            store.create("a", b"1")
        record = store.get("a")
        assert record is not None and record.data == b"1"
        with pytest.raises(Conflict):
            store.swap("a", b"2", "0" * 32)
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            store.put_blob("b", b"")


def test_a_replica_that_has_the_change_is_waited_for(port: int, tmp_path: Path) -> None:
    folder, second = tmp_path / "replica", free_port()
    folder.mkdir()
    with (
        redis_server(folder, second, "--replicaof", f"127.0.0.1 {port}"),
        open_store(f"redis://127.0.0.1:{port}?wait_replicas=1&timeout=60") as store,
        open_store(f"redis://127.0.0.1:{second}") as replica,
    ):
        version = store.create("a", b"1")
        store.put_blob("b", b"blob")
        assert replica.get("a") == Record(b"1", version)
        assert replica.get_blob("b") == b"blob"
        with pytest.raises(StoreUnavailable, match="it is a replica, and takes no changes"):
            replica.swap("a", b"2", version)


def test_what_another_program_wrote_is_damaged_and_not_listed(redis_socket: Path) -> None:
    prefix = secrets.token_hex(8)
    with (
        open_store(f"unix://{redis_socket}?prefix={prefix}:") as store,
        redis.Redis(unix_socket_path=str(redis_socket)) as client,
    ):
        version = store.create("a", b"1")
        client.append(f"{prefix}:record:a", b"x")
        client.set(f"{prefix}:blob:b", b"short")
        client.set(f"{prefix}:record:c", b"theirs")
        for read in (lambda: store.get("a"), lambda: store.get_blob("b"), lambda: store.get("c")):
            with pytest.raises(StoreDamaged, match="is damaged"):
                read()
        client.delete(f"{prefix}:record:a")
        client.lpush(f"{prefix}:record:a", b"x")
        with pytest.raises(StoreUnavailable, match=r"it failed \(ResponseError\)"):
            store.swap("a", b"2", version)
        assert (list(store.keys()), list(store.blobs())) == (["a"], [])


def test_two_prefixes_are_two_stores(redis_socket: Path) -> None:
    first, second = secrets.token_hex(8), secrets.token_hex(8)
    with (
        open_store(f"unix://{redis_socket}?prefix={first}:") as one,
        open_store(f"unix://{redis_socket}?prefix={second}:") as other,
    ):
        one.create("a", b"1")
        assert other.get("a") is None
        assert list(other.keys()) == []
