"""wasmeval/v1 is what proto/generate.py makes of the .proto file, and every part of that is documented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = (ROOT / "proto/wasmeval/v1/wasmeval.proto").read_text()


def test_the_generated_code_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "proto/generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_message_and_field_is_documented() -> None:
    undocumented = [
        line
        for previous, line in zip(PROTO.splitlines(), PROTO.splitlines()[1:], strict=False)
        if re.match(r"\s*(message|enum|service|rpc|optional|repeated|map|\w+ \w+ = \d|STATUS_)", line)
        and not previous.lstrip().startswith("//")
    ]
    # The second of two fields that one comment describes.
    assert [line.split()[1] for line in undocumented] == ["stderr", "stderr_truncated", "uint32"]
