"""Files that an evaluation leaves: sent a piece a turn, the result behind them, and others run meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wasm.conftest import LIMITS, MakeImage
from tests.wasm.test_scheduler import FOREVER, Bench
from wasmeval import Status
from wasmeval.grants import Grants
from wasmeval.limits import MIB
from wasmeval.wasm.order import FILE_PIECE_BYTES, Order


class Delivered(Bench):
    """Keeps the files, too."""

    def __init__(self, make_image: MakeImage, **settings: object) -> None:
        super().__init__(make_image, **settings)
        self.files: dict[int, dict[str, bytearray]] = {}
        self.complete: list[str] = []

    def file(self, number: int, path: str, data: bytes, is_last: bool) -> None:
        assert number not in self.results, "a file behind the result"
        assert path not in self.complete
        assert len(data) <= FILE_PIECE_BYTES
        self.files.setdefault(number, {}).setdefault(path, bytearray()).extend(data)
        if is_last:
            self.complete.append(path)

    def leave(self, files: dict[str, bytes], *outputs: str, runtime: str = "echo") -> int:
        """Submit a guest that leaves what it was given."""
        self._number += 1
        grants = Grants(files=files, outputs=outputs)
        limits = LIMITS if runtime == "echo" else FOREVER
        self.scheduler.submit(Order(self._number, runtime, b"1", b"", limits, grants))
        return self._number


@pytest.fixture
def bench(make_image: MakeImage) -> Iterator[Delivered]:
    bench = Delivered(make_image, ready=2)
    yield bench
    bench.run(lambda: bench.is_idle)
    assert bench.scheduler._grown_bytes == 0
    assert bench.scheduler._deliveries == {}
    bench.scheduler.close()


def test_files_come_whole_and_sorted_before_their_result(bench: Delivered) -> None:
    files = {"b/x": b"", "b.txt": b"2", "a": bytes(range(256)) * 4096 * 5 + b"end", "b0": b"3"}
    number = bench.leave(files, "**")
    bench.run(lambda: number in bench.results)
    assert bench.status(number) is Status.OK
    assert bench.files[number] == files
    assert bench.complete == ["a", "b.txt", "b/x", "b0"]


def test_small_files_need_no_further_turn(bench: Delivered) -> None:
    number = bench.leave({f"{at}": b"x" for at in range(9)}, "*")
    bench.scheduler.step()
    assert number in bench.results


def test_others_run_while_large_files_are_sent(bench: Delivered) -> None:
    large = [bench.leave({f"{at}": bytes(20 * MIB)}, "*") for at in range(2)]
    bench.run(lambda: len(bench.files) == 2)
    small = [bench.submit("echo") for _ in range(15)]
    few = bench.leave({"few": b"x"}, "*")
    bench.run(lambda: len(bench.results) == 18)
    assert set(bench.order[:16]) == {*small, few}
    assert set(bench.order[16:]) == set(large)


def test_others_run_while_files_are_looked_for(bench: Delivered) -> None:
    patterns = [f"**/*{at}*/**/*[b-y]z?" for at in range(64)]
    number = bench.leave({f"{at}/{at}z{end}": b"x" for at in range(100) for end in "ab"}, *patterns)
    bench.scheduler.step()
    assert number not in bench.results
    small = bench.submit("echo")
    bench.run(lambda: len(bench.results) == 2)
    assert bench.order == [small, number]
    assert bench.files == {}


def test_cancelling_ends_the_sending(bench: Delivered) -> None:
    number = bench.leave({"a": bytes(20 * MIB)}, "*")
    bench.run(lambda: bench.files)
    bench.scheduler.cancel(number)
    result = bench.results[number]
    assert (result.status, result.value_json) == (Status.CANCELLED, b"")
    assert result.error
    assert result.error.message == "the evaluation was cancelled by its caller while its files were sent"
    sent = len(bench.files[number]["a"])
    bench.run(lambda: bench.is_idle)
    assert len(bench.files[number]["a"]) == sent < 20 * MIB
    bench.scheduler.cancel(number)
    small = bench.submit("echo")
    bench.run(lambda: small in bench.results)
    assert bench.status(small) is Status.OK


def test_what_is_cancelled_leaves_no_files(bench: Delivered) -> None:
    number = bench.leave({"a": b"x"}, "*", runtime="loop")
    bench.scheduler.step()
    bench.scheduler.cancel(number)
    assert bench.status(number) is Status.CANCELLED
    assert bench.files == {}


def test_closing_while_files_are_sent(make_image: MakeImage) -> None:
    bench = Delivered(make_image, ready=1)
    bench.leave({"a": bytes(20 * MIB)}, "*")
    bench.run(lambda: bench.files)
    bench.scheduler.close()
    assert bench.results == {}
