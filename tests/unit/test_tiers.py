"""Tiers: what runs where, what moves from Wasm to a VM, and what does not, and why: with doubles on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from tests.grpc.conftest import CATALOGUE, runtime
from wasmeval import InvalidArgument, Limits, ResourceExhausted, SetupError, Unavailable
from wasmeval.determinism import Deterministic
from wasmeval.grants import Folder, Grants, Mount, Tool
from wasmeval.limits import VM_CEILINGS, VM_DEFAULTS
from wasmeval.model import ErrorInfo, Job, OutputFile, Request, Result, Status, Usage
from wasmeval.offer import Offer
from wasmeval.policy import Policy, prepare
from wasmeval.runtimes import Catalogue
from wasmeval.service import Service
from wasmeval.telemetry import Attribute, Metric, Telemetry
from wasmeval.testing import Answer, ScriptedPool, ScriptedVm, hang, succeed_in_vm
from wasmeval.tiers import Moves, Tiers
from wasmeval.wasm.calls import Operation, Outcome

NEED = "No module named 'pandas': a native package"
HERE = Offer(None, {"data": Folder("/tmp")})  # type: ignore[arg-type]
ALL = Catalogue((*CATALOGUE.runtimes, runtime("typescript", "ts")._replace(translates_to="javascript")))


def need_vm(job: Job) -> Result:
    """The first run of what needs a VM."""
    return Result(
        Status.UNSUPPORTED,
        stdout="before",
        error=ErrorInfo("ModuleNotFoundError", NEED, "Traceback", 1),
        usage=Usage(7, 0.5),
        limits=job.limits,
        runtime=job.runtime,
    )


class Both:
    """A service over two doubles."""

    def __init__(
        self,
        script: Callable[[Job], Answer] = need_vm,
        in_vm: Callable[[Job], Answer] = succeed_in_vm,
        *,
        policy: Policy | None = None,
        auto: bool = True,
        has_vm: bool = True,
        telemetry: Telemetry | None = None,
        **vm: Any,
    ) -> None:
        policy = policy or Policy()
        self.pool = ScriptedPool(script)
        self.vm = ScriptedVm(in_vm, **vm)
        self.moves = Moves(policy, self.vm if has_vm else None, auto=auto, off="they are turned off")
        self.tiers = Tiers(self.pool, self.moves)
        self.service = Service(
            self.tiers,
            ALL,
            policy,
            offer=HERE,
            telemetry=telemetry,
            vm_runtimes=lambda: self.moves.runtimes,
        )

    @property
    def ran(self) -> tuple[int, int]:
        """How many jobs began in Wasm, and in VMs."""
        return len(self.pool.jobs), len(self.vm.jobs)

    async def evaluate(self, code: str = "1", language: str = "python", **fields: Any) -> Result:
        return await self.service.evaluate(Request(code, language, **fields))


def why(result: Result) -> str:
    """Why a result that did not move did not."""
    assert result.status is Status.UNSUPPORTED
    assert not result.moved
    assert result.error is not None
    message, found, sentence = result.error.message.partition(f"{NEED}. It was not run in a VM: ")
    assert (message, bool(found)) == ("", True), result.error.message
    assert sentence.endswith(".")
    return sentence[:-1]


# --- where --------------------------------------------------------------------------------------------------------


async def test_what_wasm_can_do_it_does() -> None:
    both = Both(lambda job: Result(Status.OK, b"2", limits=job.limits, runtime=job.runtime))
    for fields in ({}, {"tier": "wasm"}, {"grants": Grants(stdin=True)}):
        result = await both.evaluate(**fields)
        assert (result.value, result.tier, result.moved, result.tier_detail) == (2, "wasm", "", "")
    assert both.ran == (3, 0)


@pytest.mark.parametrize(
    ("fields", "runtime"),
    [
        ({"tier": "vm"}, "vm-python"),
        ({"language": "js", "tier": "vm"}, "vm-javascript"),
        ({"language": "bash"}, "vm-bash"),
        ({"code": "", "language": "", "command": ("ls",)}, "vm-command"),
    ],
)
async def test_what_is_for_a_vm_runs_there(fields: dict[str, Any], runtime: str) -> None:
    both = Both()
    result = await both.evaluate(**fields)
    assert (result.status, result.tier, result.runtime) == ("ok", "vm", runtime)
    assert (result.tier_detail, result.moved, result.limits) == ("scripted", "", VM_DEFAULTS)
    assert both.ran == (0, 1)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.UNSUPPORTED])
async def test_only_what_is_unsupported_moves(status: Status) -> None:
    both = Both(lambda job: Result(status, b"1" if status is Status.OK else b"", error=ErrorInfo("E", "no")))
    result = await both.evaluate()
    assert (result.status, result.moved) == (status, "")
    assert result.error is not None
    assert result.error.message == "no"
    assert both.ran == (1, 0)


# --- moving -------------------------------------------------------------------------------------------------------


async def test_what_turns_out_to_need_a_vm_moves_and_says_why() -> None:
    both = Both()
    result = await both.evaluate("import pandas", inputs={"x": b"1"}, grants=Grants(files={"a": b"b"}))
    assert (result.status, result.tier, result.runtime, result.moved) == ("ok", "vm", "vm-python", NEED)
    assert (result.stdout, result.usage.fuel, result.error) == ("", 0, None)
    first, second = both.pool.jobs[0], both.vm.jobs[0]
    assert (second.code, second.inputs, second.grants) == (first.code, first.inputs, first.grants)
    assert (second.tier, second.runtime, second.asked) == ("vm", "vm-python", None)


async def test_the_second_run_has_limits_of_its_own() -> None:
    policy = Policy(vm=Policy(VM_DEFAULTS, replace(VM_CEILINGS, processes=200), tier="vm"))
    both = Both(policy=policy)
    asked = Limits(fuel=5, deadline_seconds=500.0, memory_bytes=128 << 20, processes=999)
    result = await both.evaluate(limits=asked)
    wanted = replace(VM_DEFAULTS, deadline_seconds=500.0, memory_bytes=128 << 20, processes=200)
    assert result.limits == both.vm.jobs[0].limits == wanted
    assert both.pool.jobs[0].limits.deadline_seconds == 300.0
    assert (await both.evaluate()).limits == VM_DEFAULTS


async def test_a_moved_evaluation_may_fail_in_its_own_way() -> None:
    error = ErrorInfo("ValueError", "no")
    both = Both(in_vm=lambda job: Result(Status.ERROR, error=error, tier="vm", runtime=job.runtime))
    result = await both.evaluate()
    assert (result.status, result.error, result.moved) == ("error", error, NEED)


async def test_what_a_vm_lacks_too_is_unsupported_there() -> None:
    error = ErrorInfo("ModuleNotFoundError", "No module named 'jax'")
    both = Both(in_vm=lambda job: Result(Status.UNSUPPORTED, error=error, tier="vm"))
    result = await both.evaluate()
    assert (result.status, result.error, result.moved) == ("unsupported", error, NEED)
    assert both.ran == (1, 1)


async def test_what_a_vm_left_comes_back() -> None:
    files = {"a.txt": OutputFile(b"b")}
    both = Both(in_vm=lambda job: replace(succeed_in_vm(job), files=files, stdout="hi"))
    result = await both.evaluate(grants=Grants(outputs=("*",)))
    assert (result.files, result.stdout) == (files, "hi")


async def test_a_batch_moves_what_has_to() -> None:
    both = Both(lambda job: need_vm(job) if job.code == b"move" else Result(Status.OK, b"1"))
    requests = [Request(code, "python") for code in ("1", "move", "1", "move")]
    requests.append(Request("ls", "bash"))
    results = await both.service.evaluate_batch(requests)
    assert [result.tier for result in results] == ["wasm", "vm", "wasm", "vm", "vm"]
    assert [bool(result.moved) for result in results] == [False, True, False, True, False]


async def test_a_full_tier_refuses_what_would_move_and_it_may_be_sent_again() -> None:
    both = Both(in_vm=lambda _: hang(), running=1, queue_size=0)
    running = asyncio.ensure_future(both.evaluate())
    while both.ran != (1, 1):
        await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted):
        await both.evaluate()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# --- not moving ---------------------------------------------------------------------------------------------------


async def test_who_asked_for_wasm_gets_wasm() -> None:
    both = Both()
    assert await both.evaluate(tier="wasm") == need_vm(both.pool.jobs[0])
    assert both.ran == (1, 0)


@pytest.mark.parametrize(
    ("both", "reason"),
    [
        (
            Both(missing="no image is here; make one: wasmeval vm build"),
            "no image is here; make one: wasmeval vm build",
        ),
        (Both(has_vm=False), "they are turned off"),
        (Both(auto=False), 'this service moves nothing by itself; ask for tier="vm"'),
        (Both(in_vm=lambda _: SetupError("qemu is gone")), "qemu is gone"),
    ],
)
async def test_where_nothing_moves_the_result_says_why(both: Both, reason: str) -> None:
    assert why(await both.evaluate()) == reason
    assert both.ran[0] == 1


async def test_a_tier_that_could_not_be_started_is_missing() -> None:
    both = Both()
    both.moves.give_up(SetupError("no memory for it"))
    assert why(await both.evaluate()) == "no memory for it"
    result = await both.evaluate(tier="vm")
    assert (result.status, result.error) == ("unsupported", ErrorInfo("TierUnavailable", "no memory for it"))
    assert both.ran == (1, 0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"grants": Grants(mounts=(Mount("data"),))},
            'a VM mounts no folders; send files instead, and ask for tier="vm"',
        ),
        ({"language": "ts"}, "a VM runs no typescript"),
        (
            {"limits": Limits(memory_bytes=32 << 20)},
            "limits.memory_bytes is 33554432, and vm-python needs 67108864",
        ),
    ],
)
async def test_what_cannot_run_in_a_vm_stays(fields: dict[str, Any], reason: str) -> None:
    both = Both()
    assert why(await both.evaluate(**fields)) == reason
    assert both.ran == (1, 0)


async def test_what_lacks_leave_has_none_in_a_vm_either() -> None:
    text = "needs network access: HTTP is not allowed for this evaluation"
    both = Both(lambda job: Result(Status.UNSUPPORTED, error=ErrorInfo("OSError", text)))
    result = await both.evaluate()
    assert result.error is not None
    assert (result.error.message, both.ran) == (text, (1, 0))


async def test_files_that_a_vm_has_no_room_for_stay() -> None:
    small = Policy(vm=Policy(replace(VM_DEFAULTS, workspace_bytes=1000), VM_CEILINGS, tier="vm"))
    both = Both(policy=small)
    reason = why(await both.evaluate(grants=Grants(files={"a": b"x" * 2000})))
    assert "more than limits.workspace_bytes (1000)" in reason


async def test_a_deterministic_evaluation_says_the_same_wherever_it_runs() -> None:
    both = Both()
    for fields in ({}, {"cache": True}):
        result = await both.evaluate(deterministic=Deterministic(), **fields)
        assert result == need_vm(both.pool.jobs[0])
    assert both.ran == (2, 0)


async def test_a_step_of_a_session_stays_where_the_session_is() -> None:
    both = Both()
    job = replace(prepare(Request("1", "python"), ALL, Policy()), session=object())
    assert why(await both.tiers.evaluate(job)) == 'a session stays where it is; begin one with tier="vm"'
    assert both.ran == (1, 0)


# --- effects ------------------------------------------------------------------------------------------------------


class Talk:
    """A client that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.links: list[Any] = []

    def begins(self, link: Any) -> None:
        self.links.append(link)

    def called(self, call: int, name: str, arguments: bytes) -> None:
        self.heard.append(("called", call, name))

    def dropped(self, call: int) -> None:
        self.heard.append(("dropped", call))

    def printed(self, stream: int, data: bytes) -> None:
        self.heard.append(("printed", stream, data))

    def wants_input(self) -> None:
        self.heard.append("wants_input")


GRANTS = Grants(tools=(Tool("search"),), live=True, stdin=True)
CALL = b'{"name": "search", "args": [], "kwargs": {}}'


async def converse(both: Both, during: Callable[[Any, Talk], object], talk: Talk | None = None) -> Result:
    """An evaluation with `GRANTS` of which `during(partner, talk)` is all that its first run does."""
    talk = talk or Talk()

    async def first(job: Job) -> Result:
        during(both.pool.partners[-1], talk)
        return need_vm(job)

    both.pool._script = first
    return await both.service.converse(Request("1", "python", grants=GRANTS), talk)


@pytest.mark.parametrize(
    ("during", "effect"),
    [
        (lambda partner, _: partner.called(1, Operation.CALL, CALL), "called a tool"),
        (lambda partner, _: partner.called(1, Operation.HTTP, b""), "sent an HTTP request"),
        (lambda partner, _: partner.called(1, Operation.READ, b""), "sent an HTTP request"),
        (lambda partner, _: partner.called(1, Operation.FILES, b""), "used a folder"),
        (lambda partner, _: partner.called(1, Operation.INPUT, b""), "asked for standard input"),
        (lambda partner, _: partner.printed(1, b"hi"), "shown output"),
        (lambda _, talk: talk.links[0].feed(b"data", False), "been sent standard input"),
        (lambda _, talk: talk.links[0].stop(), "been cancelled"),
    ],
)
async def test_a_first_run_with_an_effect_is_the_only_one(during: Any, effect: str) -> None:
    both = Both()
    assert why(await converse(both, during)) == f'it had {effect} by then; ask for tier="vm"'
    assert both.ran == (1, 0)


async def test_of_several_effects_the_first_is_told() -> None:
    def during(partner: Any, talk: Talk) -> None:
        partner.printed(2, b"warned")
        partner.called(1, Operation.CALL, CALL)
        talk.links[0].feed(b"x", True)

    assert why(await converse(Both(), during)).startswith("it had shown output by then")


async def test_whoever_converses_knows_nothing_of_the_move() -> None:
    both, talk = Both(), Talk()

    async def second(job: Job) -> Result:
        partner = both.vm.partners[-1]
        partner.printed(1, b"hi")
        partner.called(1, Operation.CALL, CALL)
        partner.called(2, Operation.INPUT, b"")
        talk.links[0].answer(1, Outcome.DONE, b"[1]")
        talk.links[0].feed(b"more", False)
        return succeed_in_vm(job)

    both.vm._script = second
    # The client ends its input before it is asked, which sends nothing.
    result = await converse(both, lambda _, talk: talk.links[0].feed(b"", True), talk)
    assert (result.status, result.moved, len(talk.links)) == ("ok", NEED, 1)
    assert talk.heard == [("printed", 1, b"hi"), ("called", 1, "search"), "wants_input"]
    assert both.ran == (1, 1)


async def test_what_is_said_reaches_the_run_that_is_under_way() -> None:
    both, talk, links = Both(), Talk(), []
    at = asyncio.Event()
    evaluate = both.vm.evaluate

    async def watched(job: Job, attend: Any = None) -> Result:
        # Accepted only after a while, as when all VMs are taken.
        at.set()
        await asyncio.sleep(0.01)

        def noting(link: Any) -> Any:
            links.append(link)
            return attend(link)

        return await evaluate(job, noting)

    both.vm.evaluate = watched  # type: ignore[method-assign]
    both.vm._script = lambda _: hang()
    running = asyncio.ensure_future(converse(both, lambda *_: None, talk))
    await at.wait()
    talk.links[0].feed(b"", True)
    talk.links[0].stop()
    # As the double ends what is stopped before it begins.
    with pytest.raises(Unavailable):
        await running
    assert links[0].input == [(b"", True)]


@pytest.mark.parametrize("in_vm", [False, True])
async def test_cancelling_stops_whichever_runs(in_vm: bool) -> None:
    both = Both(need_vm if in_vm else lambda _: hang(), lambda _: hang())
    for grants in (None, GRANTS):
        before = both.ran
        running = asyncio.ensure_future(both.evaluate(grants=grants))
        while both.ran[int(in_vm)] == before[int(in_vm)]:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (len(both.pool.stopped), len(both.vm.stopped)) == ((0, 2) if in_vm else (2, 0))


async def test_draining_stops_both() -> None:
    both = Both(lambda _: hang(), lambda _: hang())
    running = [asyncio.ensure_future(both.evaluate(tier=tier)) for tier in ("wasm", "vm")]
    while both.ran != (1, 1):
        await asyncio.sleep(0)
    await both.service.drain(0.0)
    assert [(await task).status for task in running] == ["cancelled", "cancelled"]


# --- the rest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["no image is here", ""])
async def test_a_tier_that_is_missing_says_how_to_get_it(missing: str) -> None:
    both = Both(missing=missing)
    for fields in ({"tier": "vm"}, {"language": "bash"}, {"code": "", "language": "", "command": ("ls",)}):
        result = await both.evaluate(**fields)
        if missing:
            assert result.error == ErrorInfo("TierUnavailable", missing)
            assert (result.status, result.tier, result.limits) == ("unsupported", "vm", VM_DEFAULTS)
        else:
            assert result.ok
    names = [info.name for info in both.service.runtimes() if info.tier == "vm"]
    assert names == ([] if missing else ["vm-python", "vm-javascript", "vm-bash", "vm-command"])


async def test_too_little_memory_for_a_vm_is_refused() -> None:
    both = Both()
    with pytest.raises(
        InvalidArgument, match=r"^limits\.memory_bytes: .* vm-bash needs 67108864; ask for more"
    ):
        await both.evaluate(language="bash", limits=Limits(memory_bytes=1 << 20))
    assert both.ran == (0, 0)


async def test_a_moved_evaluation_counts_where_it_ended() -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    telemetry = Telemetry(TracerProvider().get_tracer("test"), meters.get_meter("test"))
    both = Both(telemetry=telemetry)
    await both.evaluate()
    await both.evaluate(tier="wasm")
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        metric.name: [dict(point.attributes or {}) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    counted = points[Metric.EVALUATIONS]
    assert {(point[Attribute.RUNTIME], point[Attribute.OUTCOME]) for point in counted} == {
        ("vm-python", "ok"),
        ("python", "unsupported"),
    }
    assert [point[Attribute.RUNTIME] for point in points[Metric.FUEL]] == ["python"]


async def test_files_and_input_are_held_to_the_limits_of_their_tier() -> None:
    both = Both()
    with both.service.hold() as hold:
        hold(Request("ls", "bash"), 100 << 20)
        with pytest.raises(InvalidArgument, match="workspace_bytes"):
            hold(Request("1", "python"), 1)
