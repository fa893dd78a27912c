"""What the processes of the tests do: `python -m tests.stores.writers counting URL TIMES`, or `... writing URL`.

`writing` changes records and blobs until it is killed; each data says what it must be, so that a half is seen.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys

from wasmeval.errors import Conflict
from wasmeval.stores import Store, open_store


def count(store: Store, times: int) -> None:
    """Add one to the record `counter`, `times` times, however often others come first."""
    for _ in range(times):
        while True:
            record = store.get("counter")
            assert record is not None
            try:
                store.swap("counter", b"%d" % (int(record.data) + 1), record.version)
            except Conflict:
                continue
            break


def sealed(number: int, size: int) -> bytes:
    """Data that can be told from a part of it."""
    body = b"%d " % number + os.urandom(size)
    return hashlib.sha256(body).digest() + body


def is_whole(data: bytes) -> bool:
    """Whether `sealed` made this."""
    return hashlib.sha256(data[32:]).digest() == data[:32]


def write(store: Store) -> None:
    """Make, change and remove records, and put and remove blobs, for ever; a dot a round."""
    for number in itertools.count():
        key = f"k{number % 7}"
        store.put_blob(f"blobs/{key}", sealed(number, 200_000))
        record = store.get(key)
        if record is None:
            store.create(key, sealed(number, 500))
        elif number % 3:
            store.swap(key, sealed(number, 500), record.version)
        else:
            store.remove(key, record.version)
            store.remove_blob(f"blobs/k{(number + 3) % 7}")
        print(".", end="", flush=True)


if __name__ == "__main__":
    task, url, *rest = sys.argv[1:]
    with open_store(url) as opened:
        if task == "counting":
            count(opened, int(rest[0]))
        else:
            write(opened)
