"""Sessions in machines: what their steps share, what they survive, and how they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wasmeval
from tests.grpc.conftest import serve_above
from wasmeval import (
    Client,
    DeadlineExceeded,
    EmbeddedSession,
    Limits,
    ResourceExhausted,
    SessionLost,
    Status,
    ToolCall,
)
from wasmeval.policy import Policy
from wasmeval.runtimes import Catalogue
from wasmeval.tiers import Moves, Tiers
from wasmeval.vm import VmSettings, VmTier
from wasmeval.vm_sessions import VmSessions

Begin = Callable[..., EmbeddedSession]

SHORT = Limits(deadline_seconds=2.0)


@pytest.fixture
def begin(vms: wasmeval.Evaluator) -> Iterator[Begin]:
    """Begins sessions that end with the test."""
    begun: list[EmbeddedSession] = []

    def make(language: str = "python", **options: Any) -> EmbeddedSession:
        begun.append(vms.session(language, tier="vm", **options))
        return begun[-1]

    yield make
    for session in begun:
        session.close()


def test_steps_share_variables_imports_and_files(begin: Begin) -> None:
    session = begin()
    assert session.evaluate("import numpy\nxs = [1]\ndef f(n):\n    return n + 1").ok
    assert session.evaluate("open('a', 'w').write('kept'); xs.append(f(1)); xs").value == [1, 2]
    result = session.evaluate("[int(numpy.sum(xs)), open('a').read()]", outputs=["a"])
    assert result.value == [3, "kept"]
    assert result.files["a"].data == b"kept"
    assert (result.tier, result.runtime, result.rolled_back) == ("vm", "vm-python", False)
    raised = session.evaluate("xs.append(3)\n1 / 0")
    assert raised.error is not None
    assert (raised.error.type, raised.error.line) == ("ZeroDivisionError", 2)
    assert 'File "<step 4>", line 2' in raised.error.traceback
    assert session.evaluate("xs").value == [1, 2, 3]
    info = session.info
    assert (info.steps, info.is_live, info.runtime) == (5, True, "vm-python")


def test_each_session_has_a_machine_of_its_own(begin: Begin) -> None:
    one, other = begin(), begin()
    for session in (one, other):
        session.evaluate("import os, socket; open('/tmp/x', 'w').write(socket.gethostname())")
    assert one.evaluate("open('/tmp/x').read()").value != other.evaluate("open('/tmp/x').read()").value


def test_the_end_of_a_program_is_a_step_s(begin: Begin) -> None:
    session = begin()
    result = session.evaluate("x = 1\nimport sys\nsys.exit(3)")
    assert (result.status, session.evaluate("x").value) == ("error", 1)


def test_javascript_keeps_its_globals(begin: Begin) -> None:
    session = begin("javascript")
    assert session.evaluate("let x = 20; const fs = require('fs'); fs.writeFileSync('a', 'kept')").ok
    assert session.evaluate("x += 1; [x, fs.readFileSync('a', 'utf8')]").value == [21, "kept"]
    assert session.evaluate("process.exit(3)").status == "error"
    assert session.evaluate("x").value == 21


def test_bash_keeps_files_and_what_runs_in_the_background(begin: Begin) -> None:
    session = begin("bash")
    assert session.evaluate("cd /tmp; X=1; echo kept > /workspace/a; sleep 1000 > /dev/null &").ok
    result = session.evaluate('pwd; echo "[$X]"; cat a; pgrep -c sleep')
    assert result.stdout == "/workspace\n[]\nkept\n1\n"
    failed = session.evaluate("exit 3")
    assert (failed.exit_status, failed.status) == (3, "error")
    late = session.evaluate("sleep 1000", limits=SHORT)
    assert late.status == Status.DEADLINE_EXCEEDED
    assert session.evaluate("cat a; pgrep -c sleep").stdout == "kept\n0\n"


def test_a_step_that_takes_too_long_is_interrupted_and_the_session_goes_on(begin: Begin) -> None:
    session = begin()
    code = (
        "xs = []\nimport itertools\ntry:\n    for i in itertools.count(): xs = [i]\nfinally:\n    done = True"
    )
    result = session.evaluate(code, limits=SHORT)
    assert (result.status, result.rolled_back) == (Status.DEADLINE_EXCEEDED, False)
    # It has been, as far as it came.
    assert session.evaluate("[xs[0] > 0, done]").value == [True, True]
    spent = session.evaluate("while True:\n    i += 1", limits=Limits(cpu_seconds=0.5))
    assert (spent.status, spent.error.type if spent.error else "") == (Status.FUEL_EXHAUSTED, "CpuExhausted")
    with pytest.raises(DeadlineExceeded):
        session.evaluate("import time\ntime.sleep(1000)", timeout=1.0)
    with session.converse("time.sleep(1000)") as conversation:
        time.sleep(0.3)
        conversation.cancel()
        assert next(conversation).status is Status.CANCELLED  # type: ignore[union-attr]
    with session.converse("time.sleep(1000)"):
        time.sleep(0.3)
    assert session.evaluate("done").value is True
    assert session.info.steps == 7


STUBBORN = """
import itertools
try:
    for i in itertools.count(): pass
except BaseException:
    for i in itertools.count(): pass
"""


@pytest.mark.parametrize(
    ("language", "code", "limits", "status"),
    [
        ("python", STUBBORN, SHORT, "deadline_exceeded"),
        ("python", "import os\nos._exit(0)", None, "crashed"),
        ("python", "import os\nos.kill(os.getpid(), 11)", None, "crashed"),
        (
            "python",
            "x = bytearray(300 << 20)\nx[::4096] = x[::4096]",
            Limits(memory_bytes=256 << 20),
            "memory_exceeded",
        ),
        ("javascript", "for (;;);", SHORT, "deadline_exceeded"),
    ],
)
def test_without_its_interpreter_a_session_is_lost(
    begin: Begin, language: str, code: str, limits: Limits | None, status: str
) -> None:
    session = begin(language)
    assert session.evaluate("1").ok
    result = session.evaluate(code, limits=limits)
    assert (result.status, result.rolled_back) == (status, False), result.error
    with pytest.raises(SessionLost, match=f"its interpreter ended, {status}, in step 2"):
        session.evaluate("1")
    assert not session.info.is_live
    assert begin(language).evaluate("1 + 1").value == 2


def test_input_is_each_step_s_own(begin: Begin) -> None:
    session = begin()
    assert session.evaluate("input()", stdin="one\nleft\nover\n").value == "one"
    assert session.evaluate("import sys\nsys.stdin.read()").value == ""
    assert session.evaluate("[input(), sys.stdin.read()]", stdin=["two\n", "rest"]).value == ["two", "rest"]
    node = begin("javascript")
    for text in ("one", "two"):
        assert node.evaluate("require('fs').readFileSync(0).toString()", stdin=text).value == text


def test_tools_inputs_and_output_are_each_step_s_own(begin: Begin) -> None:
    session = begin()
    assert session.evaluate("f(n)", tools={"f": abs}, inputs={"n": -2}).value == 2
    gone = session.evaluate("f(1)")
    assert gone.status == "error"
    seen: list[tuple[str, str]] = []
    assert session.evaluate("print(n)", on_output=lambda *each: seen.append(each)).stdout == "-2\n"
    assert seen == [("stdout", "-2\n")]
    cut = session.evaluate("print('x' * 5000)", limits=Limits(output_bytes=1000))
    assert (cut.stdout_truncated, cut.stdout.count("x") <= 1000) == (True, True)
    assert session.evaluate("print('whole')").stdout == "whole\n"
    with session.converse("g(1)", tools=[wasmeval.Tool("g", "(x)", ("x",))]) as conversation:
        for event in conversation:
            if isinstance(event, ToolCall):
                event.reply([7])
            elif isinstance(event, wasmeval.Result):
                assert event.value == [7]


def test_files_that_do_not_fit_cost_a_step_and_not_the_session(begin: Begin) -> None:
    session = begin(limits=Limits(workspace_bytes=4 << 20))
    assert session.evaluate("x = open('a', 'wb').write(bytes(3 << 20))").ok
    result = session.evaluate("x", files={"b": bytes(3 << 20)})
    assert result.status == "crashed"
    assert result.error is not None
    assert "quota" in result.error.message
    assert session.evaluate("import os\nos.remove('a')\nos.remove('b')\nx").value == 3 << 20
    assert session.evaluate("os.path.getsize('b')", files={"b": bytes(3 << 20)}).value == 3 << 20


def test_between_steps_nothing_runs_and_the_time_is_right(begin: Begin) -> None:
    session = begin()
    session.evaluate(
        "import threading, time\nn = 0\n"
        "def count():\n    global n\n    while True:\n        n += 1\n        time.sleep(0.001)\n"
        "threading.Thread(target=count, daemon=True).start()"
    )
    before = session.evaluate("[n, time.time(), time.monotonic()]").value
    time.sleep(2)
    after = session.evaluate("[n, time.time(), time.monotonic()]").value
    # Two seconds are some thousand turns; what little is counted was counted within the steps.
    assert after[0] - before[0] < 500
    assert abs(after[1] - time.time()) < 0.5
    assert after[2] >= before[2]
    again = session.evaluate("time.sleep(0.5)\nn").value
    assert again > after[0]


def test_one_that_nobody_uses_ends_with_its_machine(begin: Begin, vms: wasmeval.Evaluator) -> None:
    session = begin(idle_seconds=0.5)
    assert session.evaluate("1").ok
    end = time.monotonic() + 10
    while session.id and time.monotonic() < end:
        try:
            vms.attach(session.id)
        except wasmeval.NotFound:
            break
        time.sleep(0.1)
    with pytest.raises(wasmeval.NotFound):
        session.evaluate("1")


def test_sessions_leave_machines_to_others(vm_settings: VmSettings) -> None:
    few = VmSettings(vm_settings.image, vm_settings.images_dir, ready=0, most=2)
    with wasmeval.Evaluator(workers=1, vm=few) as evaluator:
        with evaluator.session(tier="vm") as session:
            with pytest.raises(
                ResourceExhausted, match="1 sessions are in virtual machines, as many as may be"
            ):
                evaluator.session(tier="vm")
            assert evaluator.evaluate("1", tier="vm").ok
            assert session.evaluate("1").ok
        with evaluator.session("bash") as session:
            assert session.evaluate("echo here").stdout == "here\n"


class Service(Tiers):
    """VMs alone, with a pool's whole life."""

    def __init__(self, settings: VmSettings) -> None:
        self.vm = VmTier(settings)
        self.moves = Moves(Policy(), self.vm)
        super().__init__(self.vm, self.moves)
        self.healthy = True

    async def start(self) -> None:
        await self.vm.start()

    async def aclose(self) -> None:
        await self.vm.aclose()


def test_a_service_s_session(vm_settings: VmSettings) -> None:
    pool = Service(VmSettings(vm_settings.image, vm_settings.images_dir, ready=1))
    catalogue = Catalogue.installed()
    with (
        serve_above(
            lambda: pool,  # type: ignore[arg-type, return-value]
            catalogue,
            vm_sessions=VmSessions(pool.moves, catalogue, Policy()),
        ) as server,
        Client(server.target) as client,
    ):
        session = client.session(tier="vm")
        assert session.evaluate("x = [1]").ok
        assert session.evaluate("x.append(f(2)); x", tools={"f": abs}).value == [1, 2]
        result = client.attach(session.id).evaluate("import time\ntime.sleep(1000)", limits=SHORT)
        assert (result.status, result.rolled_back) == (Status.DEADLINE_EXCEEDED, False)
        with pytest.raises(DeadlineExceeded):
            session.evaluate("time.sleep(1000)", timeout=0.5)
        assert session.evaluate("x").value == [1, 2]
        server.call(server.service.drain(0.0))
        assert pool.vm.stats().taken == 0  # type: ignore[union-attr]
