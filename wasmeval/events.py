"""Events: what the two sides of a conversation say to each other, whatever carries it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from wasmeval.model import OutputFile, Request, Result


class Opening(NamedTuple):
    """What Start says: the request with all its grants, how many files are still to come in pieces, and of which
    session it is the next step: of none when that is empty. `waits`: for its turn, when another step runs."""

    request: Request
    files: int
    session_id: str = ""
    waits: bool = True


class Piece(NamedTuple):
    """A piece of a file."""

    path: str
    data: bytes
    is_last: bool


class Answer(NamedTuple):
    """How a call of a tool ended: `value` is JSON text, or `error` is (type, message)."""

    call: int
    value: bytes
    error: tuple[str, str] | None


class Input(NamedTuple):
    """Standard input."""

    data: bytes
    is_last: bool


class Cancel(NamedTuple):
    """The client wants the evaluation to end."""


class Called(NamedTuple):
    """The snippet calls a tool; `arguments` are JSON text that nobody has checked."""

    call: int
    name: str
    arguments: bytes


class Dropped(NamedTuple):
    """The answer to that call is not needed any more."""

    call: int


class Wanted(NamedTuple):
    """The snippet waits for standard input."""


class Printed(NamedTuple):
    """The snippet wrote to stdout (1) or stderr (2)."""

    stream: int
    data: bytes


Said = Opening | Piece | Answer | Input | Cancel
Event = Printed | Called | Dropped | Wanted | Piece | Result


@dataclass(slots=True)
class Collected:
    """Files that come in pieces."""

    files: dict[str, bytearray]

    def add(self, piece: Piece) -> None:
        """Another piece, in order."""
        self.files.setdefault(piece.path, bytearray()).extend(piece.data)

    def complete(self, result: Result) -> Result:
        """The result with the files that came before it."""
        if not self.files:
            return result
        files = {
            path: OutputFile(bytes(self.files.get(path, b"")), file.media_type)
            for path, file in result.files.items()
        }
        return replace(result, files=files)
