"""The guest's own modules, as the agent imports them: beside each other, and of no package."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "wasmeval/vm/guest"


def module(name: str) -> Any:
    """That of the guest's with this name."""
    sys.path.insert(0, str(FOLDER))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
