"""Evaluators that share a store: one at a time has a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from wasmeval import Conflict, Evaluator, Unavailable, open_store

KEY = b"k" * 32


def test_an_evaluator_that_shares_a_store_waits_for_the_others_session(tmp_path: Path) -> None:
    store = open_store(f"dir:{tmp_path / 'store'}")
    with (
        Evaluator(workers=1, store=store, snapshot_key=KEY) as one,
        Evaluator(workers=1, store=store, snapshot_key=KEY) as other,
    ):
        session = one.session()
        session.evaluate("x = 1")
        with pytest.raises(Unavailable, match="another replica has the session"):
            other.attach(session.id)
        session.hibernate()
        taken = other.attach(session.id)
        assert taken.evaluate("x += 1; x").value == 2
        with pytest.raises(Conflict):
            session.evaluate("x")
        with pytest.raises(Conflict, match="attach to it again"):
            session.evaluate("x")
        session.close()
        taken.hibernate()
        again = one.attach(session.id)
        assert again.evaluate("x").value == 2
        again.close()
    store.close()
