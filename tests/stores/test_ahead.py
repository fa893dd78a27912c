"""What is done ahead is done in any case, in order, and tells how it ended."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from wasmeval.stores import ahead
from wasmeval.stores.ahead import Ahead

AT_EXIT = """
import atexit
from wasmeval.sessions import Sealer
from wasmeval.sessions.snapshot import Bound
from wasmeval.stores import open_store

def store() -> None:
    bound = Bound("image", "", "session", "1-ff", 1)
    state = [b"%d" % number * (1 << 20) for number in range(3)]
    with open_store(f"dir:{FOLDER}/store") as kept:
        kept.put_blob("a", Sealer(b"k" * 32).seal(state, bound))
        found = Sealer(b"k" * 32).open(kept.get_blob("a"), bound, 8 << 20)
    print(b"".join(found) == b"".join(state))

atexit.register(store)
"""


def test_what_is_submitted_is_done_in_order() -> None:
    done: list[int] = []
    with Ahead(1) as threads:
        results = [
            threads.submit(lambda number=number: done.append(number) or number) for number in range(100)
        ]
        assert results[99].result() == 99
    assert done == list(range(100))


def test_what_it_raises_is_told_to_whoever_asks() -> None:
    with Ahead(2) as threads:
        failed = threads.submit(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            failed.result()


def test_where_no_thread_can_be_started_it_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with Ahead(1) as threads:
        begun, may_end = threading.Event(), threading.Event()
        done: list[str] = []
        threads.submit(lambda: (begun.set(), may_end.wait(10), done.append("first")))
        assert begun.wait(10)
        monkeypatch.setattr(ahead.ThreadPoolExecutor, "submit", refuse)
        threading.Timer(0.1, may_end.set).start()
        assert threads.submit(lambda: done.append("second") or "told").result() == "told"
        assert done == ["first", "second"]
        with pytest.raises(ZeroDivisionError):
            threads.submit(lambda: 1 // 0).result()


def test_large_states_are_stored_while_the_interpreter_ends(tmp_path: object) -> None:
    code = f"FOLDER = {str(tmp_path)!r}\n{AT_EXIT}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("True\n", "")
