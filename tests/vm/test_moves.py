"""An evaluation that turns out to need a machine moves there by itself, unless it has done something by then."""

from __future__ import annotations

import pytest

import wasmeval


@pytest.mark.parametrize(
    ("code", "need"),
    [
        (
            "import subprocess\nsubprocess.run(['echo', 'hi'], capture_output=True).stdout.decode()",
            "processes",
        ),
        ("import pandas\nstr(pandas.Series(range(3)).sum())", "pandas"),
        ("import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()\n'hi'", "threads"),
        ("import socket\ns = socket.create_server(('127.0.0.1', 0))\ns.close()\n'hi'", "sockets"),
        ("import ctypes\nstr(ctypes.sizeof(ctypes.c_void_p))", "ctypes"),
    ],
)
def test_what_wasm_lacks_moves(vms: wasmeval.Evaluator, code: str, need: str) -> None:
    result = vms.evaluate(code)
    assert (result.status, result.tier) == ("ok", "vm"), result.error
    assert need in result.moved
    assert result.limits.fuel is None


def test_what_wasm_can_do_stays(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("1 + 1")
    assert (result.value, result.tier, result.moved) == (2, "wasm", "")


def test_what_called_a_tool_stays(vms: wasmeval.Evaluator) -> None:
    calls: list[int] = []
    code = "note()\nimport subprocess\nsubprocess.run(['true'])"
    result = vms.evaluate(code, tools={"note": lambda: calls.append(1)})
    assert (result.status, calls) == ("unsupported", [1])
    assert result.error is not None
    assert "called a tool" in result.error.message


def test_a_move_has_its_inputs_files_and_outputs(vms: wasmeval.Evaluator) -> None:
    code = (
        "import subprocess\nopen('out.txt', 'w').write(open('in.txt').read() * n)\n"
        "subprocess.run(['ls'], stdout=None)\nn"
    )
    result = vms.evaluate(code, inputs={"n": 2}, files={"in.txt": b"ab"}, outputs=["out.txt"])
    assert result.value == 2
    assert result.files["out.txt"].data == b"abab"
    assert result.stdout == "in.txt\nout.txt\n"


def test_wasm_alone_stays(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("import subprocess\nsubprocess.run(['true'])", tier="wasm")
    assert (result.status, result.tier) == ("unsupported", "wasm")
