"""What is stored or sealed of an evaluation in Wasm is as it was before there was another tier."""

from __future__ import annotations

import json

import pytest

from wasmeval import InvalidArgument, Limits
from wasmeval.determinism import Receipt, receipt_of
from wasmeval.limits import ABSENT, DEFAULTS, VM_DEFAULTS
from wasmeval.session import SessionOptions
from wasmeval.sessions.record import SessionRecord, decode

VM_ONLY = set(ABSENT["wasm"])


def record(options: SessionOptions) -> SessionRecord:
    return SessionRecord("a" * 32, "", "python", "python", "ab", options, 1.0, 2.0)


def test_an_older_replica_can_read_the_record_of_a_session_in_wasm() -> None:
    options = SessionOptions(limits=DEFAULTS)
    told = json.loads(record(options).encode())["options"]
    assert "tier" not in told
    assert not VM_ONLY & set(told["limits"])
    assert decode(record(options).encode()).options == options


def test_a_session_in_a_vm_keeps_its_tier_and_limits() -> None:
    options = SessionOptions(limits=VM_DEFAULTS, tier="vm")
    assert decode(record(options).encode()).options == options


def test_a_session_in_a_vm_is_not_deterministic() -> None:
    with pytest.raises(InvalidArgument, match=r"^deterministic: a VM repeats nothing exactly"):
        SessionOptions(tier="vm", deterministic=True)  # type: ignore[arg-type]


def test_a_receipt_names_the_limits_of_wasm_alone() -> None:
    receipt = Receipt(
        runtime="python", image="", translator="", engine="", code="", inputs="", grants="", limits=DEFAULTS,
        seed=0, start_time=0.0, step=0, previous="", forked=False, transcript="", status="ok", output="", fuel=1,
        virtual_ns=0,
    )  # fmt: skip
    told = json.loads(json.dumps(receipt.told()))
    assert not VM_ONLY & set(told["limits"])
    assert receipt_of(told) == receipt
    assert receipt_of(told).limits == Limits(**told["limits"])
