"""Delivery: the files of an evaluation that is over, on their way to the parent process, and its Result behind them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

from wasmeval.model import ErrorInfo, Result, Status
from wasmeval.wasm.globs import Found
from wasmeval.wasm.order import FILE_PIECE_BYTES
from wasmeval.wasm.task import Outlet

_FRAME_BYTES = 4096
"""What a frame costs beside its bytes, so that a turn has no more than 256 small files. Unmeasured."""


class Delivery:
    """One evaluation's. `found` are its files, looked for as they are sent; `held_bytes` is the memory that they take
    until it is done."""

    __slots__ = ("_number", "_outlet", "_result", "_sending", "held_bytes")

    def __init__(
        self, number: int, outlet: Outlet, result: Result, found: Iterator[Found], held_bytes: int
    ) -> None:
        self._number = number
        self._outlet = outlet
        self._result = result
        self._sending = self._pieces(found)
        self.held_bytes = held_bytes

    def go_on(self) -> bool:
        """Send what one turn may. True when that was the last, and the Result is sent too."""
        for _ in self._sending:
            return False
        self._outlet.result(self._number, self._result)
        return True

    def cancel(self, *, rolled_back: bool = False) -> None:
        """Send no more files; the Result says so, and whether it was a session's step, which then has not been."""
        self._sending.close()
        error = ErrorInfo("Cancelled", "the evaluation was cancelled by its caller while its files were sent")
        cancelled = replace(
            self._result,
            status=Status.CANCELLED,
            value_json=b"",
            value_is_json=True,
            array=None,
            error=error,
            rolled_back=rolled_back or self._result.rolled_back,
        )
        self._outlet.result(self._number, cancelled)

    def _pieces(self, found: Iterator[Found]) -> Generator[None]:
        """Send all files, with a rest after each turn."""
        room = FILE_PIECE_BYTES
        for each in found:
            if each is None:
                yield
                continue
            (path, file), at = each, 0
            while True:
                if room <= 0:
                    yield
                    room = FILE_PIECE_BYTES
                data = file.read(at, FILE_PIECE_BYTES)
                at += len(data)
                room -= len(data) + _FRAME_BYTES
                self._outlet.file(self._number, path, data, at >= file.size)
                if at >= file.size:
                    break
