"""The progress of a compilation, on a terminal and in a log."""

from __future__ import annotations

import io

from wasmeval.cli.progress import shown
from wasmeval.wasm.cache import CompileProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_bar_a_runtime_redrawn_in_place() -> None:
    stream = Terminal()
    with shown(stream) as show:
        show(CompileProgress("python", 500, 1000, 7.2))
        show(CompileProgress("python", 1000, 1000, 14.0))
        show(CompileProgress("javascript", 0, 1000, 0.0))
    lines = stream.getvalue().split("\n")
    assert lines[0].split("\r")[1:] == [
        f"compiling python       [{'#' * 15}{'.' * 15}]  50 %  7 s",
        f"compiling python       [{'#' * 30}] 100 %  14 s",
    ]
    assert lines[1] == f"\rcompiling javascript   [{'.' * 30}]   0 %  0 s"
    assert lines[2:] == [""]


def test_a_log_gets_whole_lines_a_few_seconds_apart() -> None:
    stream = io.StringIO()
    with shown(stream) as show:
        for tenth in range(100):
            show(CompileProgress("python", tenth * 10, 1000, tenth / 10))
        show(CompileProgress("python", 1000, 1000, 10.0))
    assert stream.getvalue().splitlines() == [
        "compiling python: 0 %, 0 s",
        "compiling python: 30 %, 3 s",
        "compiling python: 60 %, 6 s",
        "compiling python: 90 %, 9 s",
        "compiling python: 100 %, 10 s",
    ]


def test_waiting_for_another_process_is_said() -> None:
    stream = io.StringIO()
    terminal = Terminal()
    for each in (stream, terminal):
        with shown(each) as show:
            for tenth in range(50):
                show(CompileProgress("python", 0, 1000, tenth / 10, waiting=True))
            show(CompileProgress("python", 0, 1000, 0.0))
    assert stream.getvalue().splitlines() == [
        "waiting for another process that compiles python: 0 s",
        "waiting for another process that compiles python: 3 s",
        "compiling python: 0 %, 0 s",
    ]
    drawn = terminal.getvalue().split("\r")
    assert drawn[1] == "waiting for another process that compiles python: 0 s"
    # The longer line is wiped before the bar is drawn.
    assert drawn[-2:] == [" " * len(drawn[1]), f"compiling python       [{'.' * 30}]   0 %  0 s\n"]


def test_nothing_to_compile_shows_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        with shown(stream):
            pass
        assert stream.getvalue() == ""
