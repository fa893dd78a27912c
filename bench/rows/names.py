"""What the languages are called, for people."""

from __future__ import annotations

RUNTIMES = {"python": "CPython", "javascript": "JavaScript"}
