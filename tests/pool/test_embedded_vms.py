"""An evaluator of one's own over workers and VMs: real guests in Wasm, and a double of the VMs."""

from __future__ import annotations

import _thread
import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any

import pytest

import wasmeval.vms
from wasmeval import (
    DeadlineExceeded,
    Evaluation,
    Evaluator,
    FailedPrecondition,
    InputWanted,
    InvalidArgument,
    Limits,
    NotFound,
    Output,
    ResourceExhausted,
    Result,
    SetupError,
    Status,
    ToolCall,
    Unavailable,
)
from wasmeval.backstage import EmbeddedConversation
from wasmeval.grants import Grants
from wasmeval.limits import VM_DEFAULTS
from wasmeval.model import ErrorInfo, Job
from wasmeval.testing import Answer, ScriptedVm, hang, succeed_in_vm
from wasmeval.wasm.calls import Operation

NEED = "needs the package 'pandas', which this runtime does not have"
PANDAS = "import pandas"


class Doubles:
    """Each evaluator's VMs, as they are made; `script` and `settings` are those of the next."""

    def __init__(self) -> None:
        self.made: list[ScriptedVm] = []
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.script: Callable[[Job], Answer] = succeed_in_vm
        self.settings: dict[str, Any] = {}

    def load(self, settings: Any = None, **changed: Any) -> ScriptedVm:
        self.asked.append((settings, changed))
        self.made.append(ScriptedVm(lambda job: self.script(job), **self.settings))
        return self.made[-1]

    @property
    def partner(self) -> Any:
        """Whom the VM's guest talks to."""
        return self.made[-1].partners[-1]

    @property
    def link(self) -> Any:
        """The way into the evaluation that runs in a VM."""
        return self.made[-1].links[-1]


@pytest.fixture
def vms(monkeypatch: pytest.MonkeyPatch) -> Doubles:
    doubles = Doubles()
    monkeypatch.setattr(wasmeval.vms, "load_vm", doubles.load)
    return doubles


@pytest.fixture
def evaluator(vms: Doubles) -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


def test_what_needs_no_vm_never_makes_one(vms: Doubles, evaluator: Evaluator) -> None:
    assert evaluator.evaluate("1 + 1").value == 2
    assert evaluator.evaluate("f(2)", tools={"f": abs}).value == 2
    assert [result.value for result in evaluator.evaluate_batch([Evaluation("1"), Evaluation("2")])] == [1, 2]
    assert vms.made == []


def test_what_is_for_a_vm_runs_there(vms: Doubles, evaluator: Evaluator) -> None:
    for result, runtime in (
        (evaluator.evaluate("1", tier="vm"), "vm-python"),
        (evaluator.evaluate("ls", language="bash"), "vm-bash"),
        (evaluator.run_command(["git", "--version"], env={"A": "b"}), "vm-command"),
    ):
        assert (result.status, result.tier, result.runtime) == ("ok", "vm", runtime)
        assert (result.moved, result.limits) == ("", VM_DEFAULTS)
    [vm] = vms.made
    assert (vm.starts, vm.closes) == (1, 0)
    assert [(job.code, job.command, job.inputs) for job in vm.jobs] == [
        (b"1", (), b""),
        (b"ls", (), b""),
        (b"", ("git", "--version"), b'{"A":"b"}'),
    ]
    assert vms.asked == [(None, {"queue_size": 1 << 30})]
    evaluator.close()
    assert vm.closes == 1


@pytest.mark.parametrize("arguments", [{}, {"files": {"a": b"b"}}, {"on_output": print}, {"stdin": "x"}])
def test_what_turns_out_to_need_a_vm_moves(
    vms: Doubles, evaluator: Evaluator, arguments: dict[str, Any]
) -> None:
    result = evaluator.evaluate(PANDAS, **arguments)
    assert (result.status, result.tier, result.runtime, result.moved) == ("ok", "vm", "vm-python", NEED)
    [job] = vms.made[0].jobs
    assert (job.code, job.tier, job.limits) == (PANDAS.encode(), "vm", VM_DEFAULTS)
    # The first run reads no input, so the second has it all.
    assert evaluator.evaluate("1 + 1").value == 2


@pytest.mark.parametrize(
    ("code", "arguments", "effect"),
    [
        (f"f(1)\n{PANDAS}", {"tools": {"f": abs}}, "called a tool"),
        (f"print('hi', flush=True)\n{PANDAS}", {"on_output": lambda *_: None}, "shown output"),
        (f"input()\n{PANDAS}", {"stdin": "x\n"}, "asked for standard input"),
    ],
)
def test_a_first_run_with_an_effect_is_the_only_one(
    vms: Doubles, evaluator: Evaluator, code: str, arguments: dict[str, Any], effect: str
) -> None:
    result = evaluator.evaluate(code, **arguments)
    assert result.error is not None
    said = f'{NEED}. It was not run in a VM: it had {effect} by then; ask for tier="vm".'
    assert (result.status, result.error.message, result.moved) == ("unsupported", said, "")
    assert vms.made[0].jobs == []


def test_printing_to_nobody_is_no_effect(evaluator: Evaluator) -> None:
    assert evaluator.evaluate(f"print('hi')\n{PANDAS}").moved == NEED


def test_a_batch_moves_what_has_to_all_at_once(vms: Doubles, evaluator: Evaluator) -> None:
    together = threading.Barrier(3)

    async def meet(job: Job) -> Result:
        # Each waits for the others: one after the other they would never end.
        await asyncio.to_thread(together.wait, 30)
        return succeed_in_vm(job)

    vms.script = meet
    codes = ["1", PANDAS, "2", PANDAS, PANDAS]
    results = evaluator.evaluate_batch(list(map(Evaluation, codes)), timeout=60)
    assert [result.tier for result in results] == ["wasm", "vm", "wasm", "vm", "vm"]
    assert [result.value for result in results] == [1, None, 2, None, None]
    results = evaluator.evaluate_batch(
        [Evaluation("ls", "bash"), Evaluation("3"), Evaluation(command=["ls"]), Evaluation("4", tier="vm")]
    )
    assert [(result.tier, result.value) for result in results] == [
        ("vm", None),
        ("wasm", 3),
        ("vm", None),
        ("vm", None),
    ]


def test_a_conversation_goes_on_in_the_vm(vms: Doubles, evaluator: Evaluator) -> None:
    answered = threading.Event()

    async def talk(job: Job) -> Result:
        partner, link = vms.partner, vms.link
        partner.printed(1, b"hi")
        partner.called(1, Operation.CALL, b'{"name": "f", "args": [2], "kwargs": {}}')
        partner.called(2, Operation.INPUT, b"")
        while not (link.answers and link.input):
            await asyncio.sleep(0.001)
        answered.set()
        return succeed_in_vm(job)

    vms.script = talk
    with evaluator.converse(PANDAS, tools={"f": abs}, stdin=True) as conversation:
        events = []
        for event in conversation:
            events.append(event)
            if isinstance(event, ToolCall):
                event.reply(7)
            elif isinstance(event, InputWanted):
                conversation.send_input("more")
    assert [type(event) for event in events] == [Output, ToolCall, InputWanted, Result]
    assert events[-1].moved == NEED
    assert vms.link.input == [(b"more", False)]
    assert [answer[2] for answer in vms.link.answers] == [b"7"]


def test_tools_and_output_of_a_vm_reach_their_functions(vms: Doubles, evaluator: Evaluator) -> None:
    async def talk(job: Job) -> Result:
        vms.partner.printed(2, b"warned")
        vms.partner.called(1, Operation.CALL, b'{"name": "f", "args": [-2], "kwargs": {}}')
        while not vms.link.answers:
            await asyncio.sleep(0.001)
        return succeed_in_vm(job)

    vms.script = talk
    shown: list[tuple[str, str]] = []
    result = evaluator.evaluate(
        "f(-2)", tier="vm", tools={"f": abs}, on_output=lambda *output: shown.append(output)
    )
    assert (result.ok, shown) == (True, [("stderr", "warned")])
    assert vms.link.answers[0][2] == b"2"


def test_what_is_printed_just_before_the_end_is_not_lost(vms: Doubles, evaluator: Evaluator) -> None:
    late: list[int] = []

    class Running:
        """One whose last words come while somebody looks how it ended, as they may from a VM's thread."""

        def __init__(self, attend: Callable[[Any], Any]) -> None:
            self._partner = attend(self)

        @property
        def outcome(self) -> Result:
            if not late:
                late.append(1)
                self._partner.printed(1, b"last words")
            return Result(Status.OK)

        def cancel(self) -> None: ...

    class Pool:
        def begin(self, job: Job, attend: Callable[[Any], Any]) -> Any:
            return Running(attend)

    job = Job("vm-bash", b"", b"", VM_DEFAULTS, Grants(live=True), tier="vm")
    conversation = EmbeddedConversation(Pool(), evaluator._backstage, evaluator._offer, job, None)
    assert next(getattr(event, "text", "") for event in conversation) == "last words"


def test_cancelling_stops_a_vm(vms: Doubles, evaluator: Evaluator) -> None:
    vms.script = lambda _: hang()
    with evaluator.converse("ls", language="bash") as conversation:
        wait_until(lambda: vms.made and vms.made[0].jobs)
        conversation.cancel()
        assert next(conversation).status is Status.CANCELLED  # type: ignore[union-attr]
    with evaluator.converse("ls", language="bash"):
        wait_until(lambda: len(vms.made[0].jobs) == 2)
    wait_until(lambda: len(vms.made[0].stopped) == 1)


@pytest.mark.parametrize("arguments", [{"code": "ls", "language": "bash"}, {"code": PANDAS}])
def test_a_time_out_stops_a_vm(vms: Doubles, evaluator: Evaluator, arguments: dict[str, Any]) -> None:
    vms.script = lambda _: hang()
    with pytest.raises(DeadlineExceeded, match=r"the time-out of 0\.5 s passed"):
        evaluator.evaluate(**arguments, timeout=0.5)
    wait_until(lambda: len(vms.made[0].stopped) == 1)
    assert evaluator.evaluate("1").value == 1


def test_ctrl_c_stops_a_vm(vms: Doubles, evaluator: Evaluator) -> None:
    async def hanging(_: Job) -> Result:
        _thread.interrupt_main()
        return await hang()

    vms.script = hanging
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate("ls", language="bash")
    wait_until(lambda: len(vms.made[0].stopped) == 1)
    vms.script = succeed_in_vm
    assert evaluator.evaluate("ls", language="bash").ok


def test_closing_ends_what_waits_for_a_vm(vms: Doubles) -> None:
    vms.script = lambda _: hang()
    evaluator = Evaluator(workers=1)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(evaluator.evaluate, code, language=language) for code, language in CODES]
        wait_until(lambda: vms.made and len(vms.made[0].jobs) == 4)
        evaluator.close()
        for each in waiting:
            error = each.exception(30)
            assert isinstance(error, Unavailable) if error else each.result().status is Status.CANCELLED
    assert vms.made[0].closes == 1
    with pytest.raises(Unavailable):
        evaluator.evaluate("ls", language="bash")


CODES = [("ls", "bash"), (PANDAS, "python")] * 2


def test_threads_share_the_vms(vms: Doubles, evaluator: Evaluator) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda each: evaluator.evaluate(each[0], language=each[1]), CODES * 8))
    assert all(result.ok and result.tier == "vm" for result in results)
    assert [vm.starts for vm in vms.made] == [1]


def test_an_evaluator_may_do_without(vms: Doubles) -> None:
    with Evaluator(workers=1, vm=False) as evaluator:
        result = evaluator.evaluate("ls", language="bash")
        off = "the tier of microVMs is turned off here: this evaluator was made with vm=False"
        assert (result.status, result.error) == ("unsupported", ErrorInfo("TierUnavailable", off))
        result = evaluator.evaluate(PANDAS)
        assert result.error is not None
        assert result.error.message == f"{NEED}. It was not run in a VM: {off}."
        assert all(info.tier == "wasm" for info in evaluator.runtimes())
    assert vms.made == []


def test_an_evaluator_may_insist(vms: Doubles) -> None:
    with Evaluator(workers=1, vm=True) as evaluator:
        assert [info.tier for info in evaluator.runtimes()].count("vm") == 4
    vms.settings = {"missing": "qemu is not installed"}
    own = object()
    for vm in (True, own):
        with pytest.raises(SetupError, match="there can be no microVMs: qemu is not installed"):
            Evaluator(workers=1, vm=vm)  # type: ignore[arg-type]
    assert [settings for settings, _ in vms.asked] == [None, None, own]


def test_what_is_missing_is_told(vms: Doubles, evaluator: Evaluator) -> None:
    vms.settings = {"missing": "qemu is not installed; install qemu-system-x86"}
    result = evaluator.evaluate(PANDAS)
    assert result.error is not None
    assert (
        result.error.message
        == f"{NEED}. It was not run in a VM: qemu is not installed; install qemu-system-x86."
    )
    assert evaluator.run_command(["ls"]).error == ErrorInfo(
        "TierUnavailable", "qemu is not installed; install qemu-system-x86"
    )
    assert (vms.made[0].starts, vms.made[0].closes) == (0, 0)


def test_vms_that_cannot_be_started_are_missing(vms: Doubles, evaluator: Evaluator) -> None:
    vms.settings = {"failure": SetupError("no memory for it")}
    for _ in range(2):
        result = evaluator.evaluate(PANDAS)
        assert result.error is not None
        assert result.error.message == f"{NEED}. It was not run in a VM: no memory for it."
        assert evaluator.evaluate("ls", language="bash").error == ErrorInfo(
            "TierUnavailable", "no memory for it"
        )
    assert vms.made[0].starts == 1


def test_one_set_of_limits_is_for_both_tiers(vms: Doubles) -> None:
    ceilings = Limits(deadline_seconds=5.0, processes=9)
    with Evaluator(workers=1, ceilings=ceilings, defaults=Limits(cpu_seconds=2.0)) as evaluator:
        in_vm = evaluator.evaluate("ls", language="bash", limits=Limits(deadline_seconds=9.0)).limits
        assert (in_vm.deadline_seconds, in_vm.processes, in_vm.cpu_seconds, in_vm.fuel) == (5.0, 9, 2.0, None)
        in_wasm = evaluator.evaluate("1").limits
        assert (in_wasm.deadline_seconds, in_wasm.processes, in_wasm.cpu_seconds) == (5.0, None, None)


def test_too_little_memory_for_a_vm_is_refused(evaluator: Evaluator) -> None:
    with pytest.raises(InvalidArgument, match=r"^limits\.memory_bytes: .* vm-bash needs"):
        evaluator.evaluate("ls", language="bash", limits=Limits(memory_bytes=1 << 20))


def test_a_session_s_step_stays(vms: Doubles, evaluator: Evaluator) -> None:
    with evaluator.session() as session:
        result = session.evaluate(PANDAS)
        assert result.error is not None
        assert result.error.message.endswith('a session stays where it is; begin one with tier="vm".')
        assert session.evaluate("1 + 1").value == 2


def test_a_session_lives_in_a_vm(vms: Doubles, evaluator: Evaluator) -> None:
    with evaluator.session(tier="vm", limits=Limits(processes=9)) as session:
        info = session.info
        assert (info.id, info.language, info.runtime, info.is_live, info.steps) == (
            session.id,
            "python",
            "vm-python",
            True,
            0,
        )
        [vm] = vms.made
        [place] = vm.places
        result = session.evaluate("x = 1", limits=Limits(processes=50), files={"a": b"b"})
        assert (result.ok, result.tier, result.limits.processes, result.rolled_back) == (True, "vm", 9, False)
        assert evaluator.attach(session.id).evaluate("x").ok
        assert [(job.code, job.session) for job in vm.jobs] == [(b"x = 1", place), (b"x", place)]
        assert session.info.steps == 2
        with pytest.raises(InvalidArgument, match="a VM mounts no folders"):
            session.evaluate("1", mounts={"data": "/"})
        for call, words in (
            (session.fork, "cannot be forked"),
            (session.hibernate, "cannot sleep"),
            (session.checkpoint, "has no checkpoints"),
            (lambda: session.restore("1-a"), "has no checkpoints"),
            (lambda: session.checkpoints, "has no checkpoints"),
        ):
            with pytest.raises(FailedPrecondition, match=words):
                call()
    assert vm.places == []
    session.close()
    with pytest.raises(NotFound, match=f"no session {session.id}"):
        session.evaluate("x")
    with pytest.raises(NotFound):
        evaluator.attach(session.id)
    with evaluator.session("bash") as bash:
        assert bash.evaluate("ls").exit_status == 0


def test_a_session_in_a_vm_is_refused_where_there_is_none(vms: Doubles, evaluator: Evaluator) -> None:
    for options in ({"durability": "step"}, {"total_fuel": 3}, {"deterministic": True}):
        with pytest.raises(InvalidArgument, match=f"^{next(iter(options))}: "):
            evaluator.session(tier="vm", **options)  # type: ignore[arg-type]
    vms.settings = {"failure": SetupError("no memory for it")}
    with Evaluator(workers=1) as other, pytest.raises(FailedPrecondition, match="no memory for it"):
        other.session(tier="vm")
    with Evaluator(workers=1, vm=False) as none, pytest.raises(FailedPrecondition, match="turned off here"):
        none.session("bash")


def test_a_step_in_a_vm_is_a_conversation(vms: Doubles, evaluator: Evaluator) -> None:
    async def talk(job: Job) -> Result:
        vms.partner.called(1, Operation.CALL, b'{"name": "f", "args": [2], "kwargs": {}}')
        while not vms.link.answers:
            await asyncio.sleep(0.001)
        return succeed_in_vm(job)

    vms.script = talk
    with evaluator.session(tier="vm") as session:
        assert session.evaluate("f(2)", tools={"f": abs}).ok
        with session.converse("f(2)", tools={"f": abs}) as conversation:
            events = []
            for event in conversation:
                events.append(event)
                if isinstance(event, ToolCall):
                    event.reply(7)
        assert [type(event) for event in events] == [ToolCall, Result]
        vms.script = lambda _: hang()
        with session.converse("f(2)", tools={"f": abs}):
            wait_until(lambda: len(vms.made[0].jobs) == 3)
            with pytest.raises(ResourceExhausted, match="a step of this session is running"):
                session.evaluate("1", wait=False)
            with pytest.raises(DeadlineExceeded, match=r"the time-out of 0\.2 s passed"):
                session.evaluate("1", timeout=0.2)
        with pytest.raises(DeadlineExceeded, match=r"the time-out of 0\.2 s passed"):
            session.evaluate("1", timeout=0.2)
        vms.script = succeed_in_vm
        assert session.evaluate("1").ok
        assert session.info.is_live


def test_threads_share_a_session_in_a_vm(vms: Doubles, evaluator: Evaluator) -> None:
    running: list[Job] = []

    async def one_at_a_time(job: Job) -> Result:
        running.append(job)
        await asyncio.sleep(0.002)
        assert running == [job]
        running.clear()
        return succeed_in_vm(job)

    vms.script = one_at_a_time
    with evaluator.session(tier="vm") as session, ThreadPoolExecutor(8) as pool:
        assert all(result.ok for result in pool.map(session.evaluate, ["1"] * 24))
        assert session.info.steps == 24


def test_closing_an_evaluator_ends_its_sessions_in_vms(vms: Doubles) -> None:
    evaluator = Evaluator(workers=1)
    session = evaluator.session(tier="vm")
    vms.script = lambda _: hang()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.evaluate, "1")
        wait_until(lambda: vms.made[0].jobs)
        evaluator.close()
        error = waiting.exception(30)
        assert isinstance(error, Unavailable) if error else waiting.result().status is Status.CANCELLED
    assert vms.made[0].places == []
    session.close()
    for call in (lambda: session.evaluate("1"), lambda: evaluator.session(tier="vm")):
        with pytest.raises(Unavailable):
            call()


def test_a_deterministic_evaluation_says_the_same_wherever_it_runs(
    vms: Doubles, evaluator: Evaluator
) -> None:
    result = evaluator.evaluate(PANDAS, deterministic=True)
    assert result.error is not None
    assert (result.error.message, vms.made) == (NEED, [])


def test_a_child_has_no_vms_of_its_parent(vms: Doubles, evaluator: Evaluator) -> None:
    assert evaluator.evaluate("ls", language="bash").ok
    child = os.fork()
    if not child:
        code = 1
        try:
            evaluator.evaluate("ls", language="bash")
        except Unavailable:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def wait_until(condition: Callable[[], object]) -> None:
    end = monotonic() + 30
    while not condition():
        assert monotonic() < end
        sleep(0.002)
