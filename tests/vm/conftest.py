"""Real machines for the tests of this folder, one evaluator for all of them; and a server that guests may ask."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

import wasmeval
from tests.egress.conftest import Server, authority, running
from wasmeval.vm import VmSettings, VmTier, images
from wasmeval.vm.images import VmImage

__all__ = ["authority"]  # a fixture here as well

ARE_REQUIRED = os.environ.get("WASMEVAL_TEST_VM") == "1"


def settings(**changed: object) -> VmSettings:
    """Those of the default image; skips, or fails where machines are required, when there can be none."""
    chosen = VmSettings(**changed)  # type: ignore[arg-type]
    if missing := VmTier(chosen).missing:
        if ARE_REQUIRED:
            pytest.fail(f"WASMEVAL_TEST_VM is set, and there can be no virtual machines: {missing}")
        pytest.skip(f"needs virtual machines: {missing}")
    return chosen


@pytest.fixture(scope="session")
def default_image() -> VmImage:
    """This user's default image."""
    settings()
    return images.find(images.DEFAULT)


@pytest.fixture(scope="session")
def vm_settings() -> VmSettings:
    return settings()


@pytest.fixture(scope="session")
def vms(vm_settings: VmSettings) -> Iterator[wasmeval.Evaluator]:
    with wasmeval.Evaluator(workers=1, vm=vm_settings) as evaluator:
        yield evaluator


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as one:
        yield one
