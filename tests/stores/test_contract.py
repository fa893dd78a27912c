"""What every store promises, in memory, in a folder, in Redis and in S3 alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from wasmeval.errors import Conflict, InvalidArgument, NotFound, StoreUnavailable
from wasmeval.stores import Record, Store, open_store
from wasmeval.stores.store import MOST_RECORD_BYTES


def test_a_record_is_read_as_it_was_made(store: Store) -> None:
    assert store.get("sessions/a") is None
    version = store.create("sessions/a", b'{"owner": 1}')
    assert store.get("sessions/a") == Record(b'{"owner": 1}', version)


def test_a_record_is_made_once(store: Store) -> None:
    version = store.create("a", b"1")
    with pytest.raises(Conflict, match="'a' already; get it first"):
        store.create("a", b"2")
    assert store.get("a") == Record(b"1", version)


def test_a_swap_needs_the_current_version(store: Store) -> None:
    first = store.create("a", b"1")
    second = store.swap("a", b"2", first)
    assert store.get("a") == Record(b"2", second)
    for stale in (first, "0" * 32, '"no-etag"', "", "*", f"{first}, {second}", "a\r\nb: c"):
        with pytest.raises(Conflict):
            store.swap("a", b"3", stale)
        with pytest.raises(Conflict):
            store.remove("a", stale)
    assert store.get("a") == Record(b"2", second)


def test_what_is_not_there_cannot_be_swapped_or_removed(store: Store) -> None:
    version = store.create("a", b"1")
    store.remove("a", version)
    with pytest.raises(Conflict, match="'a' was changed or removed by another; get it again"):
        store.swap("a", b"2", version)
    for any_version in (version, "", "*", "0" * 32):
        with pytest.raises(Conflict):
            store.remove("a", any_version)
        with pytest.raises(Conflict):
            store.swap("a", b"2", any_version)
    assert store.get("a") is None


def test_a_removal_needs_the_current_version(store: Store) -> None:
    first = store.create("a", b"1")
    second = store.swap("a", b"2", first)
    with pytest.raises(Conflict):
        store.remove("a", first)
    assert store.get("a") == Record(b"2", second)
    store.remove("a", second)
    assert store.get("a") is None
    assert list(store.keys()) == []


def test_the_same_data_again_is_another_version(store: Store) -> None:
    first = store.create("a", b"same")
    second = store.swap("a", b"other", first)
    third = store.swap("a", b"same", second)
    store.remove("a", third)
    fourth = store.create("a", b"same")
    assert len({first, second, third, fourth}) == 4
    with pytest.raises(Conflict):
        store.swap("a", b"late", first)
    assert store.get("a") == Record(b"same", fourth)


def test_records_and_blobs_do_not_meet(store: Store) -> None:
    store.put_blob("a", b"blob")
    store.create("a", b"record")
    store.remove_blob("a")
    assert (list(store.keys()), list(store.blobs())) == (["a"], [])


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 4, b"x" * MOST_RECORD_BYTES])
def test_any_bytes_can_be_a_record_and_a_blob(store: Store, data: bytes) -> None:
    version = store.create("a", data)
    store.put_blob("a", data)
    assert store.get("a") == Record(data, version)
    assert store.get_blob("a") == data


def test_a_record_that_is_too_large_is_refused(store: Store) -> None:
    with pytest.raises(
        InvalidArgument, match="data: a record of 1048577 bytes, more than 1048576; put a blob"
    ):
        store.create("a", b"x" * (MOST_RECORD_BYTES + 1))
    version = store.create("a", b"")
    with pytest.raises(InvalidArgument):
        store.swap("a", b"x" * (MOST_RECORD_BYTES + 1), version)


def test_a_large_blob_comes_back(store: Store) -> None:
    data = b"0123456789abcdef" * (1 << 21)
    store.put_blob("snapshots/large", data)
    assert store.get_blob("snapshots/large") == data


def test_a_blob_may_be_put_in_pieces(store: Store) -> None:
    store.put_blob("a", [b"one", bytearray(b" "), memoryview(b"x piece x")[2:7]])
    assert store.get_blob("a") == b"one piece"
    store.put_blob("none", [])
    assert store.get_blob("none") == b""
    store.put_blob("large", (bytes([number]) * (1 << number) for number in (3, 20, 1, 21, 20)))
    assert store.get_blob("large") == b"".join(
        bytes([number]) * (1 << number) for number in (3, 20, 1, 21, 20)
    )


def test_a_blob_whose_pieces_fail_is_not_there(store: Store) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(1 << 20)
        raise LookupError

    with pytest.raises(LookupError):
        store.put_blob("a", pieces())
    assert list(store.blobs()) == []


def test_a_blob_may_be_put_again_and_removed_again(store: Store) -> None:
    store.put_blob("a/1", b"x")
    store.put_blob("a/1", b"x")
    assert store.get_blob("a/1") == b"x"
    store.remove_blob("a/1")
    store.remove_blob("a/1")
    with pytest.raises(NotFound, match="has no blob 'a/1'"):
        store.get_blob("a/1")
    assert list(store.blobs()) == []


def test_listings_have_each_key_once(store: Store) -> None:
    keys = sorted(["a", "a-b", "a.b", "a/b", "a/b/c", "a_b", "ab", "b/.hidden", "b/..x", "z" * 200])
    for key in keys:
        store.create(key, b"")
        store.put_blob(key, b"")
    for listing in (store.keys, store.blobs):
        assert sorted(listing()) == keys
        for prefix in ("a", "a/", "a/b", "a.", "b/.", "c", "z" * 200):
            assert sorted(listing(prefix)) == [key for key in keys if key.startswith(prefix)]


def test_listings_are_sorted_where_the_store_can(store: Store) -> None:
    if store.name.startswith("s3:"):
        pytest.skip("S3 sorts, other servers of its kind may not")
    for number in (2, 11, 0, 7):
        store.create(f"k{number:02}", b"")
    assert list(store.keys("k")) == ["k00", "k02", "k07", "k11"]


def test_listings_go_over_pages(store: Store) -> None:
    keys = [f"many/{number:05}" for number in range(1100)]
    for key in keys:
        store.create(key, b"{}")
    listing = store.keys("many/")
    assert next(listing) == keys[0]
    assert sorted([keys[0], *listing]) == keys


@pytest.mark.parametrize(
    "key", ["", "/", "a//b", "../a", "a/..", ".", "A", "a b", "a\n", "ä", "a" * 201, "a\0", "a="]
)
def test_no_method_takes_a_key_that_is_none(store: Store, key: str) -> None:
    calls = [
        lambda: store.get(key),
        lambda: store.create(key, b""),
        lambda: store.swap(key, b"", "0"),
        lambda: store.remove(key, "0"),
        lambda: store.put_blob(key, b""),
        lambda: store.get_blob(key),
        lambda: store.remove_blob(key),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument, match=r"^key: "):
            call()


@pytest.mark.parametrize("prefix", ["A", "*", "a\n", "[", "a" * 201])
def test_a_prefix_is_no_pattern(store: Store, prefix: str) -> None:
    for listing in (store.keys, store.blobs):
        with pytest.raises(InvalidArgument, match=r"^prefix: "):
            listing(prefix)


def test_threads_share_one_store_and_lose_no_update(store: Store) -> None:
    store.create("counter", b"0")
    failures: list[BaseException] = []

    def count() -> None:
        try:
            for _ in range(15):
                increment(store)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    record = store.get("counter")
    assert record is not None
    assert record.data == b"60"


def test_of_many_who_create_one_does(store: Store) -> None:
    wins: list[str] = []
    conflicts: list[Conflict] = []
    barrier = threading.Barrier(6, timeout=30)

    def make(number: int) -> None:
        barrier.wait()
        try:
            wins.append(store.create("leader", b"%d" % number))
        except Conflict as error:
            conflicts.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    record = store.get("leader")
    assert record is not None
    assert wins == [record.version]
    assert len(conflicts) == 5


def test_what_was_written_is_there_for_whoever_opens_it_next(shared_url: str) -> None:
    with open_store(shared_url) as first:
        version = first.create("a", b"kept")
        first.put_blob("b", b"kept too")
        with open_store(shared_url) as second:
            assert second.get("a") == Record(b"kept", version)
            newer = second.swap("a", b"newer", version)
        with pytest.raises(Conflict):
            first.swap("a", b"stale", version)
    with open_store(shared_url) as third:
        assert third.get("a") == Record(b"newer", newer)
        assert third.get_blob("b") == b"kept too"


def test_a_closed_store_says_so(store: Store) -> None:
    version = store.create("a", b"1")
    store.close()
    store.close()
    calls = [
        lambda: store.get("a"),
        lambda: store.create("b", b""),
        lambda: store.swap("a", b"", version),
        lambda: store.remove("a", version),
        lambda: store.keys(),
        lambda: store.put_blob("c", b""),
        lambda: store.get_blob("c"),
        lambda: store.remove_blob("c"),
        lambda: store.blobs(),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="is closed; open it again"):
            call()


def increment(store: Store) -> None:
    """Add one to the counter, however often others come first."""
    while True:
        record = store.get("counter")
        assert record is not None
        try:
            store.swap("counter", b"%d" % (int(record.data) + 1), record.version)
        except Conflict:
            continue
        return
