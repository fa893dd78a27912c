"""What the tests of the VM tier share: the default image, or the reason why there are no real VMs here."""

from __future__ import annotations

import os

import pytest

from wasmeval.errors import SetupError
from wasmeval.vm import images
from wasmeval.vm.images import VmImage

# Read before the environment is made quiet.
ARE_REQUIRED = os.environ.get("WASMEVAL_TEST_VM") == "1"
IMAGES = images.default_folder()


@pytest.fixture(scope="session")
def default_image() -> VmImage:
    """This user's default image. Without it the test is skipped, or fails where WASMEVAL_TEST_VM is set."""
    try:
        return images.find(images.DEFAULT, IMAGES)
    except SetupError as error:
        if ARE_REQUIRED:
            pytest.fail(f"WASMEVAL_TEST_VM is set, and {error}")
        pytest.skip(str(error))
