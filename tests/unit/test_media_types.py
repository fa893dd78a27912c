"""The media type of a file that a snippet left is guessed from its name, and its name is what the snippet likes."""

from __future__ import annotations

import pytest

from wasmeval.model import OutputFile


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("plot.png", "image/png"),
        ("out/deep/a.b.json", "application/json"),
        ("README", "application/octet-stream"),
        # As URLs the first two would have a type of their own choice; the last is none at all.
        ("data:text/evil\n\x1b[31m,x", "application/octet-stream"),
        ("data:a/b;,", "application/octet-stream"),
        ("\x01/\t/[", "application/octet-stream"),
    ],
)
def test_a_media_type_is_that_of_a_name(path: str, media_type: str) -> None:
    assert OutputFile.of(path, b"").media_type == media_type
