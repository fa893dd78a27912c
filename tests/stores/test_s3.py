"""S3Store: conditions that must be honoured, lost answers, lost servers, credentials."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.stores.relay import Relay
from tests.stores.servers import BUCKET, free_port
from wasmeval.errors import Conflict, InvalidArgument, SetupError, StoreDamaged, StoreUnavailable
from wasmeval.stores import Record, Store, open_store
from wasmeval.stores.s3 import S3Store


def url_at(port: int, bucket: str = BUCKET, more: str = "") -> str:
    prefix = secrets.token_hex(8)
    return f"s3://{bucket}/{prefix}?endpoint=http://127.0.0.1:{port}&region=us-east-1{more}"


@pytest.fixture
def port(endpoint: str) -> int:
    port = urlsplit(endpoint).port
    assert port is not None
    return port


@pytest.fixture
def relay(port: int) -> Iterator[Relay]:
    with Relay(port) as relay:
        yield relay


@pytest.fixture
def relayed(relay: Relay) -> Iterator[Store]:
    with open_store(url_at(relay.port)) as store:
        yield store


def test_an_endpoint_that_ignores_conditions_is_refused(port: int) -> None:
    with (
        Relay(port, hides_conditions=True) as relay,
        pytest.raises(
            SetupError, match="does not honour If-None-Match on PutObject, so two owners could overwrite"
        ),
    ):
        open_store(url_at(relay.port))


@pytest.mark.parametrize(
    ("name", "ignored"),
    [("_put_if", "If-Match on PutObject"), ("_delete_if", "If-Match on DeleteObject")],
)
def test_each_condition_is_tried(port: int, monkeypatch: pytest.MonkeyPatch, name: str, ignored: str) -> None:
    real: Callable[..., object] = getattr(S3Store, name)

    def ignoring(self: S3Store, kind: str, key: str, data: object = None, **condition: str) -> object:
        if name == "_delete_if":
            return True
        if "IfMatch" in condition:
            return '"done"'
        return real(self, kind, key, data, **condition)

    monkeypatch.setattr(S3Store, name, ignoring)
    with pytest.raises(SetupError, match=f"does not honour {ignored}"):
        open_store(url_at(port))


def test_opening_leaves_no_probe(port: int) -> None:
    with open_store(url_at(port)) as store:
        assert isinstance(store, S3Store)
        assert list(store._listed("probes", "")) == []


def test_a_swap_whose_answer_is_lost_is_sent_once_and_told_by_get(relay: Relay, relayed: Store) -> None:
    version = relayed.create("a", b"1")
    relay.lose_answers(1, b"PUT /")
    with pytest.raises(StoreUnavailable, match="get the record again to know whether it was changed"):
        relayed.swap("a", b"2", version)
    assert relay.seen == 1
    record = relayed.get("a")
    assert record is not None and record.data == b"2"
    with pytest.raises(Conflict):
        relayed.swap("a", b"3", version)
    relayed.swap("a", b"3", record.version)


def test_a_request_that_is_cut_off_changes_nothing(relay: Relay, relayed: Store) -> None:
    version = relayed.create("a", b"1")
    relay.halves = True
    for call in (lambda: relayed.swap("a", b"x" * 1000, version), lambda: relayed.create("b", b"x" * 1000)):
        relay.lose_answers(1, b"PUT /")
        with pytest.raises(StoreUnavailable):
            call()
        assert relay.seen == 1
    assert relayed.get("a") == Record(b"1", version)
    assert relayed.get("b") is None


def test_creating_and_removing_are_sent_once_too(relay: Relay, relayed: Store) -> None:
    relay.lose_answers(1, b"PUT /")
    with pytest.raises(StoreUnavailable):
        relayed.create("a", b"1")
    assert relay.seen == 1
    record = relayed.get("a")
    assert record is not None and record.data == b"1"
    relay.lose_answers(1, b"DELETE /")
    with pytest.raises(StoreUnavailable):
        relayed.remove("a", record.version)
    assert relay.seen == 1
    assert relayed.get("a") is None


def test_what_is_safe_to_repeat_is_repeated_a_few_times(relay: Relay, relayed: Store) -> None:
    relay.lose_answers(2, b"PUT /")
    relayed.put_blob("b", b"blob")
    relay.lose_answers(2, b"GET /")
    assert relayed.get_blob("b") == b"blob"
    relay.lose_answers(3, b"GET /")
    with pytest.raises(StoreUnavailable):
        relayed.get_blob("b")
    assert relay.seen == 3


def test_an_endpoint_that_is_not_there_is_said_at_once() -> None:
    port = free_port()
    with pytest.raises(
        StoreUnavailable, match=f"at http://127.0.0.1:{port}: EndpointConnectionError"
    ) as caught:
        open_store(url_at(port))
    assert "a-secret" not in str(caught.value)


def test_an_endpoint_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StoreUnavailable):
        open_store(url_at(silent.getsockname()[1], more="&timeout=0.2"))


def test_a_bucket_that_is_not_there_is_refused(port: int) -> None:
    with pytest.raises(SetupError, match=r"refuses: (NoSuchBucket|AccessDenied)"):
        open_store(url_at(port, bucket="no-such-bucket"))


def test_without_credentials_the_message_says_where_they_belong(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SetupError, match=r"no credentials; set AWS_ACCESS_KEY_ID"):
        open_store(url_at(port))


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:a-secret@bucket/prefix",
        "s3://bucket/prefix?endpoint=http://key:a-secret@127.0.0.1:1",
        "s3://bucket/prefix?endpoint=http://127.0.0.1:1/%3Fkey=a-secret",
        "s3://bucket/prefix?endpoint=file:///a-secret",
        "s3:///prefix",
    ],
)
def test_credentials_in_the_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_store(url)
    assert "a-secret" not in str(caught.value)


def test_what_another_program_wrote_is_damaged(port: int) -> None:
    with open_store(url_at(port)) as store:
        assert isinstance(store, S3Store)
        for kind, key, data in (
            ("records", "a", b"theirs"),
            ("blobs", "a", b"short"),
            ("blobs", "Foreign", b"x"),
        ):
            store._client.put_object(**store._object(kind, key), Body=data)
        assert list(store.blobs()) == ["a"]
        with pytest.raises(StoreDamaged, match="what lies under 'a' is damaged"):
            store.get("a")
        with pytest.raises(StoreDamaged):
            store.get_blob("a")
