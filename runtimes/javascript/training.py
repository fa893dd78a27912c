"""Training: the snippets that warm the image up, and those that the compiler's profile is taken from.

Both leave nothing behind that a snippet could see: everything is local to a block or a function. None draws on
entropy: a generator that was seeded before the snapshot would be seeded alike in every instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "training"

# What every instance evaluates before its request.
INSTANCE_WARM_UP = "1+1"

# Evaluated before the snapshot: built-ins that are made at first use, atoms, shapes and the heap's small blocks are
# then in the image and need not be made in every instance. One snippet a line; some end in an error on purpose.
WARM_UP = tuple((FOLDER / "warm_up.txt").read_text().splitlines())


def training(folder: Path = FOLDER) -> Iterator[tuple[str, int]]:
    """The programs that the profile is taken from, and how often each is run.

    They are of the kind that models write, and unlike those that bench/ measures.
    """
    yield INSTANCE_WARM_UP, 400
    for path in sorted(folder.glob("*.js")):
        first, _, code = path.read_text().partition("\n")
        yield code, int(first.removeprefix("// rounds: "))
