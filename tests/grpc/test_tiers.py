"""A service over two tiers, both doubles, as its clients see it; and how `serve` sets the tiers up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from tests.grpc.conftest import CATALOGUE, WAIT_SECONDS, Running, serve_above
from wasmeval import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Evaluation,
    InputWanted,
    InvalidArgument,
    Limits,
    Output,
    Result,
    SetupError,
    ToolCall,
    wire,
)
from wasmeval.config import load
from wasmeval.limits import VM_DEFAULTS
from wasmeval.model import ErrorInfo, Job, Status
from wasmeval.policy import Policy
from wasmeval.server import serve
from wasmeval.testing import Answer, ScriptedPool, ScriptedVm, hang, succeed, succeed_in_vm
from wasmeval.tiers import Moves, Tiers
from wasmeval.v1 import wasmeval_pb2 as pb
from wasmeval.wasm.calls import Operation

NEED = "needs the package 'pandas', which this runtime does not have"
CALL = b'{"name": "f", "args": [2], "kwargs": {}}'


def script(job: Job) -> Answer:
    """Code `move` needs a VM."""
    if job.code == b"move":
        error = ErrorInfo("ModuleNotFoundError", NEED)
        return Result(Status.UNSUPPORTED, error=error, limits=job.limits, runtime=job.runtime)
    return succeed(job)


class Pool(Tiers):
    """Both tiers, with a pool's whole life."""

    def __init__(self, **vm: Any) -> None:
        self.workers = ScriptedPool(script)
        self.vm = ScriptedVm(**vm)
        self.moves = Moves(Policy(), self.vm)
        super().__init__(self.workers, self.moves)
        self.healthy = True

    async def start(self) -> None:
        await self.vm.start()

    async def aclose(self) -> None:
        await self.vm.aclose()


@contextmanager
def serving(**vm: Any) -> Iterator[Running[Any]]:
    pools: list[Pool] = []

    def make() -> Any:
        pools.append(Pool(**vm))
        return pools[0]

    with serve_above(make, CATALOGUE, vm_runtimes=lambda: pools[0].moves.runtimes) as server:
        yield server


@pytest.fixture
def server() -> Iterator[Running[Any]]:
    with serving() as running:
        yield running


Evaluate = Callable[..., Result]


@pytest.fixture(params=["client", "async client"])
def call(request: pytest.FixtureRequest, server: Running[Any]) -> Callable[..., Any]:
    """Call a method of either client."""

    def blocking(method: str, *arguments: Any, **named: Any) -> Any:
        with Client(server.target) as client:
            return getattr(client, method)(*arguments, **named)

    def awaited(method: str, *arguments: Any, **named: Any) -> Any:
        async def main() -> Any:
            async with AsyncClient(server.target) as client:
                return await getattr(client, method)(*arguments, **named)

        return asyncio.run(main())

    return blocking if request.param == "client" else awaited


def test_a_client_chooses_the_tier(call: Callable[..., Any], server: Running[Any]) -> None:
    assert call("evaluate", "1").tier == "wasm"
    result = call("evaluate", "1", tier="vm", limits=Limits(processes=7))
    assert (result.tier, result.runtime, result.tier_detail) == ("vm", "vm-python", "scripted")
    assert (result.limits.processes, result.limits.fuel) == (7, None)
    assert call("evaluate", "ls", language="bash").exit_status == 0
    assert call("evaluate", "1").exit_status is None
    unmoved = call("evaluate", "move", tier="wasm")
    assert (unmoved.status, unmoved.error) == ("unsupported", ErrorInfo("ModuleNotFoundError", NEED))


def test_an_evaluation_moves_and_its_client_is_told(call: Callable[..., Any]) -> None:
    for arguments in ({}, {"files": {"a": b"b"}, "outputs": ["*"]}, {"on_output": print}):
        result = call("evaluate", "move", **arguments)
        assert (result.status, result.tier, result.moved) == ("ok", "vm", NEED)
        assert result.limits == VM_DEFAULTS
    results = call("evaluate_batch", [Evaluation("1"), Evaluation("move"), Evaluation(command=["ls"])])
    assert [(result.tier, result.moved) for result in results] == [("wasm", ""), ("vm", NEED), ("vm", "")]


def test_a_command_is_run(call: Callable[..., Any], server: Running[Any]) -> None:
    result = call("run_command", ["git", "--version"], env={"A": "b"}, timeout=WAIT_SECONDS)
    assert (result.status, result.runtime, result.exit_status) == ("ok", "vm-command", 0)
    call("run_command", ("ls",), files={"a": b"b"}, outputs=["*"], stdin="x", on_output=print)
    jobs = server.pool.vm.jobs
    assert [(job.command, job.inputs, job.code) for job in jobs] == [
        (("git", "--version"), b'{"A":"b"}', b""),
        (("ls",), b"", b""),
    ]
    assert jobs[1].grants.stdin
    for argv, words in (([], "empty"), ("ls", "must be a sequence of str")):
        with pytest.raises(InvalidArgument, match=words):
            call("run_command", argv)


@pytest.mark.parametrize("status", [3, -9])
def test_an_exit_status_travels(status: int) -> None:
    error = ErrorInfo("ExitStatus", "killed by SIGKILL")
    answer = Result(Status.ERROR, error=error, tier="vm", exit_status=status)
    with serving(script=lambda _: answer) as server, Client(server.target) as client:
        assert client.run_command(["ls"]).exit_status == status


def test_runtimes_say_where_they_run(call: Callable[..., Any]) -> None:
    runtimes = {info.name: (info.tier, info.languages) for info in call("runtimes")}
    assert runtimes["python"] == ("wasm", ("python", "py"))
    assert runtimes["vm-bash"] == ("vm", ("bash",))
    assert runtimes["vm-command"] == ("vm", ())


def test_a_conversation_goes_on_in_the_vm(server: Running[Any]) -> None:
    async def talk(job: Job) -> Result:
        vm = server.pool.vm
        partner, link = vm.partners[-1], vm.links[-1]
        partner.printed(1, b"hi")
        partner.called(1, Operation.CALL, CALL)
        partner.called(2, Operation.INPUT, b"")
        while not (link.answers and link.input):
            await asyncio.sleep(0.001)
        return succeed_in_vm(job)

    server.pool.vm._script = talk
    with Client(server.target) as client, client.converse("move", tools={"f": abs}, stdin=True) as events:
        seen = []
        for event in events:
            seen.append(event)
            if isinstance(event, ToolCall):
                event.reply(7)
            elif isinstance(event, InputWanted):
                events.send_input("more")
    assert [type(event) for event in seen] == [Output, ToolCall, InputWanted, Result]
    assert seen[-1].moved == NEED
    assert server.pool.vm.links[-1].input == [(b"more", False)]


def test_a_client_that_goes_away_stops_its_vm(server: Running[Any]) -> None:
    server.pool.vm._script = lambda _: hang()
    with Client(server.target) as client:
        for code in ("move", "ls"):
            with pytest.raises(DeadlineExceeded):
                client.evaluate(code, language="python" if code == "move" else "bash", timeout=0.3)
    server.wait_until(lambda: len(server.pool.vm.stopped) == 2)


def test_files_for_a_vm_come_in_pieces(server: Running[Any]) -> None:
    files = {"large": b"x" * (100 << 20)}  # More than an evaluation in Wasm may have.
    with Client(server.target) as client:
        assert client.evaluate("ls", language="bash", files=files).ok
        with pytest.raises(InvalidArgument, match="workspace_bytes"):
            client.evaluate("1", files=files)
    assert len(server.pool.vm.jobs[0].grants.files["large"]) == 100 << 20


def test_what_is_missing_is_told() -> None:
    missing = "no image is here; make one: wasmeval vm build"
    with serving(missing=missing) as server, Client(server.target) as client:
        result = client.evaluate("ls", language="bash")
        assert (result.status, result.tier) == ("unsupported", "vm")
        assert result.error == ErrorInfo("TierUnavailable", missing)
        moved = client.evaluate("move")
        assert moved.error is not None
        assert moved.error.message == f"{NEED}. It was not run in a VM: {missing}."


def test_tier_of_a_session_is_said_when_it_begins(server: Running[Any]) -> None:
    with Client(server.target) as client:
        with pytest.raises(InvalidArgument, match=r"^tier: must be 'auto', 'wasm' or 'vm'"):
            client.session(tier="moon")
        with pytest.raises(InvalidArgument, match=r"^tier: must be 'auto', 'wasm' or 'vm'"):
            client.evaluate("1", tier="moon")


def test_an_older_client_gets_what_it_asks_for(server: Running[Any]) -> None:
    message = pb.EvaluateRequest(code="1", language="python")
    with grpc.insecure_channel(server.target) as channel:
        data = channel.unary_unary(wire.EVALUATE)(message.SerializeToString(), timeout=WAIT_SECONDS)
    result = pb.EvaluateResponse.FromString(data).result
    assert (result.tier, result.moved, result.HasField("exit_status")) == ("wasm", "", False)
    assert not result.limits.HasField("cpu_seconds")


# --- serve --------------------------------------------------------------------------------------------------------


class Served:
    """What came of one `serve`: what it said, and its VMs; while it ran, `during(target)` did."""

    def __init__(self, vm: ScriptedVm | Exception | None, settings: dict[str, Any]) -> None:
        self.said: list[str] = []
        self.asked = 0
        self._vm = vm
        self._settings = settings

    def run(self, during: Callable[[str], object] = lambda _: None) -> Served:
        async def main() -> None:
            def announce(line: str) -> None:
                self.said.append(line)
                if line.startswith("microVMs"):
                    stopping.append(asyncio.ensure_future(asyncio.to_thread(work)))

            def work() -> None:
                try:
                    during(self.said[0].split()[2])
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)

            stopping: list[asyncio.Future[None]] = []
            overrides = {"listen": "127.0.0.1:0", "grace_seconds": 1.0, **self._settings}
            config = load(environ={}, overrides=overrides)
            pool: Any = ScriptedPool(script)
            await serve(
                config,
                announce=announce,
                catalogue=CATALOGUE,
                make_pool=lambda *_: pool,
                make_vm=self._make,
            )
            for task in stopping:
                await task

        asyncio.run(main())
        return self

    def _make(self, _: object) -> ScriptedVm:
        self.asked += 1
        if isinstance(self._vm, Exception):
            raise self._vm
        assert self._vm is not None
        return self._vm


def test_serve_offers_the_vms_that_there_are() -> None:
    vm = ScriptedVm()
    results: list[Result] = []

    def during(target: str) -> None:
        with Client(target) as client:
            results.extend([client.evaluate("move"), client.run_command(["ls"])])
            assert any(info.tier == "vm" for info in client.runtimes())

    settings = {"vm.limits.defaults.deadline_seconds": 30.0, "vm.limits.ceilings.processes": 50}
    with pytest.raises(InvalidArgument, match=r"defaults\.processes is 128, above its ceiling of 50"):
        load(environ={}, overrides=settings)
    settings["vm.limits.defaults.processes"] = 40
    served = Served(vm, settings).run(during)
    assert [result.tier for result in results] == ["vm", "vm"]
    limits = results[0].limits
    assert (limits.deadline_seconds, limits.processes) == (30.0, 40)
    assert (vm.starts, vm.closes) == (1, 1)
    assert (
        "microVMs: scripted, image default, 2 kept ready, 16 at most, 8 of them sessions; "
        "evaluations move there by themselves" in served.said
    )
    assert (
        "limits in a microVM by default: 60 s of CPU, 30 s, 512 MiB of memory, 1 MiB of each output"
        in served.said
    )


def test_serve_does_without_vms() -> None:
    def during(target: str) -> None:
        with Client(target) as client:
            results.append(client.evaluate("ls", language="bash"))

    for vm, settings, why in (
        (ScriptedVm(missing="no qemu is here"), {}, "no qemu is here"),
        (ScriptedVm(failure=SetupError("no memory for it")), {}, "no memory for it"),
        (SetupError("it is not installed"), {}, "it is not installed"),
        (
            None,
            {"vm.enabled": False},
            "the tier of microVMs is turned off here; its operator can turn it on ([vm] enabled)",
        ),
    ):
        results: list[Result] = []
        served = Served(vm, settings).run(during)
        assert results[0].error == ErrorInfo("TierUnavailable", why)
        assert f"microVMs: none; {why}" in served.said
        assert served.asked == (vm is not None)


@pytest.mark.parametrize(
    ("vm", "words"),
    [
        (ScriptedVm(missing="no qemu is here"), "vm.enabled is true, and there can be no microVMs: no qemu"),
        (SetupError("it is not installed"), "vm.enabled is true, and there can be no microVMs: it is not"),
        (ScriptedVm(failure=SetupError("no memory for it")), "no memory for it"),
    ],
)
def test_serve_refuses_to_start_without_the_vms_that_must_be(vm: Any, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        Served(vm, {"vm.enabled": True}).run()


def test_an_operator_may_forbid_that_evaluations_move() -> None:
    def during(target: str) -> None:
        with Client(target) as client:
            results.extend([client.evaluate("move"), client.evaluate("1", tier="vm")])

    results: list[Result] = []
    served = Served(ScriptedVm(), {"vm.auto": False}).run(during)
    assert (results[0].status, results[1].tier) == ("unsupported", "vm")
    assert any(line.endswith("; for those that ask") for line in served.said)
