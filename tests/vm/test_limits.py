"""Each limit of a machine fires, says so, and leaves what was done until then."""

from __future__ import annotations

import wasmeval
from wasmeval import Limits


def test_the_deadline(vms: wasmeval.Evaluator) -> None:
    code = "import time\nprint('begun', flush=True)\nopen('f.txt', 'w').write('kept')\ntime.sleep(100)"
    result = vms.evaluate(code, tier="vm", limits=Limits(deadline_seconds=2), outputs=["*.txt"])
    assert result.status == "deadline_exceeded"
    assert result.stdout == "begun\n"
    assert result.files["f.txt"].data == b"kept"
    assert result.error is not None
    assert "deadline of 2 s" in result.error.message
    assert 2 <= result.usage.wall_seconds < 10


def test_a_deadline_that_nothing_can_catch(vms: wasmeval.Evaluator) -> None:
    code = "trap '' TERM INT HUP; while :; do :; done"
    result = vms.evaluate(code, language="bash", limits=Limits(deadline_seconds=1))
    assert result.status == "deadline_exceeded"


def test_cpu_time(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("while True: pass", tier="vm", limits=Limits(cpu_seconds=1))
    assert result.status == "fuel_exhausted"
    assert result.error is not None
    assert result.error.type == "CpuExhausted"
    assert "1 s" in result.error.message
    assert 1 <= result.usage.cpu_seconds < 4


def test_sleep_costs_no_cpu_time(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("import time; time.sleep(3)", tier="vm", limits=Limits(cpu_seconds=2))
    assert result.status == "ok"


def test_the_memory_of_an_interpreter(vms: wasmeval.Evaluator) -> None:
    limits = Limits(memory_bytes=256 << 20)
    result = vms.evaluate("x = bytearray(512 << 20)\nlen(x)", tier="vm", limits=limits)
    assert result.status == "memory_exceeded"
    assert result.error is not None
    assert "limits.memory_bytes" in result.error.message


def test_the_memory_of_a_command(vms: wasmeval.Evaluator) -> None:
    command = ["python3", "-c", "x = b'1' * (300 << 20)"]
    result = vms.run_command(command, limits=Limits(memory_bytes=100 << 20))
    assert result.status == "memory_exceeded"


def test_the_memory_of_all_processes_together(vms: wasmeval.Evaluator) -> None:
    script = (
        "for i in 1 2 3 4; do python3 -c 'import time; x = b\"1\" * (60 << 20); time.sleep(3)' & done; wait"
    )
    result = vms.evaluate(script, language="bash", limits=Limits(memory_bytes=128 << 20, deadline_seconds=60))
    assert result.usage.peak_memory_bytes <= 128 << 20


def test_the_disk_in_bytes(vms: wasmeval.Evaluator) -> None:
    script = "head -c 100000000 /dev/zero > big; echo $?; stat -c %s big; head -c 999999 /dev/zero > /tmp/x; echo $?"
    result = vms.evaluate(script, language="bash", limits=Limits(workspace_bytes=10 << 20))
    status, size, again = result.stdout.split()
    assert (status, again) == ("1", "1")
    assert int(size) <= 10 << 20
    assert "quota exceeded" in result.stderr


def test_the_disk_in_files(vms: wasmeval.Evaluator) -> None:
    script = "for i in $(seq 100); do : > f$i || exit 9; done"
    result = vms.evaluate(script, language="bash", limits=Limits(workspace_files=40))
    assert result.exit_status == 9


def test_processes(vms: wasmeval.Evaluator) -> None:
    script = "for i in $(seq 50); do sleep 5 & done; echo all"
    result = vms.evaluate(script, language="bash", limits=Limits(processes=10, deadline_seconds=30))
    assert "fork" in result.stderr


def test_a_fork_bomb(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate(":(){ :|:& };: ; sleep 60", language="bash", limits=Limits(deadline_seconds=4))
    assert result.status in ("deadline_exceeded", "error")
    assert vms.evaluate("1 + 1", tier="vm").value == 2


def test_output_keeps_its_head_and_tail(vms: wasmeval.Evaluator) -> None:
    script = "echo first; yes | head -c 3000000; echo last"
    result = vms.evaluate(script, language="bash", limits=Limits(output_bytes=1000))
    assert result.stdout_truncated
    assert result.stdout.startswith("first\n")
    assert result.stdout.endswith("last\n")
    assert "[... 2999" in result.stdout or "[... 3000" in result.stdout
    assert len(result.stdout) < 1100
    assert not result.stderr_truncated


def test_what_is_said_of_a_program_that_is_not_there_keeps_the_limit(vms: wasmeval.Evaluator) -> None:
    result = vms.run_command(["no-such-program"], limits=Limits(output_bytes=10))
    assert (result.status, result.exit_status, result.stderr) == ("error", 127, "no-such-pr")


def test_a_flood_without_an_end(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("yes", language="bash", limits=Limits(deadline_seconds=3, output_bytes=10_000))
    assert result.status == "deadline_exceeded"
    assert result.stdout_truncated


def test_the_value(vms: wasmeval.Evaluator) -> None:
    result = vms.evaluate("'x' * 5000", tier="vm", limits=Limits(output_bytes=1000))
    assert result.status == "output_exceeded"


def test_files_that_are_too_many_to_give_back(vms: wasmeval.Evaluator) -> None:
    code = "f = open('sparse', 'w')\nf.truncate(1 << 40)"
    result = vms.evaluate(code, tier="vm", outputs=["sparse"], limits=Limits(workspace_bytes=1 << 20))
    assert result.status == "output_exceeded"
    assert result.error is not None
    assert "outputs" in result.error.message


def test_calls_of_tools(vms: wasmeval.Evaluator) -> None:
    code = (
        "from wasmeval import ToolLimitError\n"
        "try:\n    for _ in range(9): f()\nexcept ToolLimitError as e:\n    x = e.limit\nx"
    )
    result = vms.evaluate(code, tier="vm", tools={"f": lambda: 1}, limits=Limits(tool_calls=3))
    assert result.value == "tool_calls"
    assert result.usage.tool_calls == 3


def test_the_time_of_tools_can_be_left_out(vms: wasmeval.Evaluator) -> None:
    import time

    result = vms.evaluate(
        "slow()",
        tier="vm",
        tools={"slow": lambda: time.sleep(2)},
        limits=Limits(deadline_seconds=1.5),
        tool_time_counts=False,
    )
    assert result.status == "ok"


def test_limits_that_apply_are_told(vms: wasmeval.Evaluator) -> None:
    limits = vms.evaluate("1", tier="vm", limits=Limits(processes=7, memory_bytes=4 << 30)).limits
    assert limits.processes == 7
    assert limits.memory_bytes is not None
    assert limits.memory_bytes < 1 << 30
    assert limits.fuel is None
    assert limits.cpu_seconds == 60


def test_exit_statuses_of_an_interpreter(vms: wasmeval.Evaluator) -> None:
    assert vms.evaluate("import sys; sys.exit()", tier="vm").status == "ok"
    result = vms.evaluate("import os; os._exit(4)", tier="vm")
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("SystemExit", "4")
    killed = vms.evaluate("import os; os.kill(os.getpid(), 9)", tier="vm")
    assert killed.status == "crashed"
    assert killed.error is not None
    assert "SIGKILL" in killed.error.message
