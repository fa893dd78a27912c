"""Server: the gRPC face of a Service, its life from the first signal of readiness to a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from wasmeval import wire
from wasmeval.address import Address, resolve
from wasmeval.config import ServerConfig
from wasmeval.dialogue import Dialogue
from wasmeval.errors import Internal, InvalidArgument, SetupError, WasmevalError
from wasmeval.limits import MIB, Limits
from wasmeval.model import RuntimeInfo
from wasmeval.offer import Offer
from wasmeval.offering import configured
from wasmeval.policy import Policy
from wasmeval.residence import Places
from wasmeval.residing import home, session_settings
from wasmeval.runtimes import Catalogue
from wasmeval.service import Pool as ServicePool
from wasmeval.service import Service
from wasmeval.storing import opened
from wasmeval.telemetry import Telemetry, set_up
from wasmeval.tiers import OFF, Moves, Tiers, VmTier, load_vm
from wasmeval.vm_sessions import VmSessions
from wasmeval.wire import sessions as messages

logger = logging.getLogger(__name__)

_OPTIONS = (
    # A second server on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", wire.MAX_REQUEST_BYTES),
    # A client that vanished without a word is noticed, and its guests are stopped.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

# For replies that are on their way when everything has been answered; health watchers would stay for ever.
_FLUSH_SECONDS = 0.5

# Longer than between two calls of a busy client, and as long as a load balancer may take to see NOT_SERVING.
_STILL_SECONDS = 0.25
_MOST_RESTLESS_SECONDS = 5.0

# Often enough for a load balancer, which asks every few seconds itself.
_WATCH_SECONDS = 1.0

# Enough to keep a worker busy, few enough for others not to wait long behind them.
_BATCH_EVALUATIONS_PER_WORKER = 2

Context = grpc.aio.ServicerContext[bytes, bytes]


class Server:
    """Serves `service` at `listen`, which `insecure` allows to be reachable from other machines.

    Raises InvalidArgument for an address it must not listen at, SetupError for one it cannot. Bound when
    made, it answers after `start`; `address` holds the port that was taken.
    """

    def __init__(self, service: Service, listen: str, *, insecure: bool = False) -> None:
        self._service = service
        self._health = health.aio.HealthServicer()
        self._grpc = grpc.aio.server(options=_OPTIONS)
        handlers = _Handlers(service)
        self._grpc.add_generic_rpc_handlers((handlers.generic(), handlers.sessions()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = wire.SERVICE, wire.SESSIONS, health.SERVICE_NAME, reflection.SERVICE_NAME
        reflection.enable_server_reflection(names, self._grpc)
        self.address = self._bind(allowed(listen, insecure=insecure))

    async def start(self) -> None:
        """Answers from now on; health says SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        await self._grpc.start()

    async def watch(self, healthy: Callable[[], bool]) -> None:
        """Health says NOT_SERVING while `healthy()` does not hold, looked at every second; until cancelled."""
        said = True
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = healthy()
            if now != said:
                said = now
                status = health_pb2.HealthCheckResponse
                await self._set_health(status.SERVING if now else status.NOT_SERVING)

    async def drain(self, grace_seconds: float) -> None:
        """Health says NOT_SERVING, new calls are refused, accepted ones end within the grace or are cancelled.

        Returns when every accepted call has its answer and nothing listens any more.
        """
        # For good: a watch that goes on changes nothing any more.
        await self._health.enter_graceful_shutdown()
        await self._service.drain(grace_seconds)
        # A call that comes in the moment in which gRPC stops ends CANCELLED, which does not say that nothing ran. A
        # load balancer has seen by then that this replica stops, and sends no more.
        await self._service.quiet(_STILL_SECONDS, _MOST_RESTLESS_SECONDS)
        await self._grpc.stop(_FLUSH_SECONDS)

    async def stop(self) -> None:
        """Ends at once; calls under way are cancelled."""
        await self._grpc.stop(None)

    async def _set_health(self, status: Any) -> None:
        for name in (health.OVERALL_HEALTH, wire.SERVICE, wire.SESSIONS):
            await self._health.set(name, status)

    def _bind(self, address: Address) -> Address:
        if not address.host and _answers(address.target):
            # gRPC would take the path away from whoever listens there.
            raise SetupError(f"{address.target} is in use; stop the other server or listen elsewhere")
        try:
            port = self._grpc.add_insecure_port(address.target)
        except RuntimeError as error:
            raise SetupError(
                f"cannot listen at {address.target}: the address is in use or not ours; choose another"
            ) from error
        return address.with_port(port)


def allowed(listen: str, *, insecure: bool) -> Address:
    """The address to listen at. Raises InvalidArgument if others can reach it and `insecure` is False."""
    address = resolve("listen", listen)
    if not (address.is_local or insecure):
        raise InvalidArgument(
            "listen",
            f"{listen!r} can be reached from other machines, and there are no keys or encryption yet; listen at "
            "127.0.0.1 or unix:PATH, or pass --insecure",
        )
    return address


def _answers(target: str) -> bool:
    scheme, _, path = target.partition(":")
    path = f"\0{path}" if scheme == "unix-abstract" else path.removeprefix("//")
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(path)
        return True
    return False


class _Handlers:
    """Bytes in, bytes out: the messages are parsed here, so that a malformed one gets a precise answer."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def generic(self) -> Any:
        """What gRPC is given."""
        methods = {
            wire.EVALUATE: self._evaluate,
            wire.EVALUATE_BATCH: self._evaluate_batch,
            wire.LIST_RUNTIMES: self._runtimes,
        }
        handlers: dict[str, Any] = {
            path: grpc.unary_unary_rpc_method_handler(call) for path, call in methods.items()
        }
        handlers[wire.CONVERSE] = grpc.stream_stream_rpc_method_handler(self._converse)
        return grpc.method_handlers_generic_handler(
            wire.SERVICE, {path.rpartition("/")[2]: handler for path, handler in handlers.items()}
        )

    def sessions(self) -> Any:
        """What gRPC is given for the Sessions service."""
        service = self._service

        async def create(data: bytes) -> bytes:
            return messages.encode_session(await service.create_session(*messages.decode_create(data)))

        async def fork(data: bytes) -> bytes:
            return messages.encode_session(await service.fork_session(messages.decode_session_request(data)))

        async def hibernate(data: bytes) -> bytes:
            return messages.encode_session(
                await service.hibernate_session(messages.decode_session_request(data))
            )

        async def close(data: bytes) -> bytes:
            await service.close_session(messages.decode_session_request(data))
            return b""

        async def get(data: bytes) -> bytes:
            return messages.encode_session(await service.session(messages.decode_session_request(data)))

        async def list_(data: bytes) -> bytes:
            return messages.encode_sessions(*await service.list_sessions(*messages.decode_list(data)))

        async def make_checkpoint(data: bytes) -> bytes:
            return messages.encode_checkpoint(
                await service.make_checkpoint(messages.decode_session_request(data))
            )

        async def list_checkpoints(data: bytes) -> bytes:
            return messages.encode_checkpoints(
                await service.checkpoints(messages.decode_session_request(data))
            )

        async def restore(data: bytes) -> bytes:
            return messages.encode_session(await service.restore_session(*messages.decode_restore(data)))

        methods = {
            wire.CREATE_SESSION: create,
            wire.FORK_SESSION: fork,
            wire.HIBERNATE_SESSION: hibernate,
            wire.CLOSE_SESSION: close,
            wire.GET_SESSION: get,
            wire.LIST_SESSIONS: list_,
            wire.MAKE_CHECKPOINT: make_checkpoint,
            wire.LIST_CHECKPOINTS: list_checkpoints,
            wire.RESTORE_SESSION: restore,
        }
        handlers: dict[str, Any] = {
            path: grpc.unary_unary_rpc_method_handler(_answering(call)) for path, call in methods.items()
        }
        handlers[wire.STEP] = grpc.unary_unary_rpc_method_handler(self._step)
        handlers[wire.STEP_CONVERSE] = grpc.stream_stream_rpc_method_handler(self._step_converse)
        return grpc.method_handlers_generic_handler(
            wire.SESSIONS, {path.rpartition("/")[2]: handler for path, handler in handlers.items()}
        )

    # gRPC cancels the task of a call whose client cancelled, went away or ran out of time; that passes
    # through the service to the pool, which stops the guest.

    async def _evaluate(self, data: bytes, context: Context) -> bytes:
        try:
            result = await self._service.evaluate(wire.decode_request(data), self._carrier(context))
            return wire.encode_reply(result)
        except Exception as error:
            await _abort(context, error)

    async def _evaluate_batch(self, data: bytes, context: Context) -> bytes:
        try:
            results = await self._service.evaluate_batch(wire.decode_batch(data), self._carrier(context))
            return wire.encode_batch_reply(results)
        except Exception as error:
            await _abort(context, error)

    async def _step(self, data: bytes, context: Context) -> bytes:
        try:
            step = messages.decode_step(data)
            result = await self._service.step(
                step.session_id, step.request, self._carrier(context), waits=step.waits
            )
            return wire.encode_reply(result)
        except Exception as error:
            await _abort(context, error)

    async def _converse(self, _messages: object, context: Context) -> None:
        await self._hold_dialogue(context, is_step=False)

    async def _step_converse(self, _messages: object, context: Context) -> None:
        await self._hold_dialogue(context, is_step=True)

    async def _hold_dialogue(self, context: Context, *, is_step: bool) -> None:
        async def read() -> bytes | None:
            data: object = await context.read()
            return data if isinstance(data, bytes) else None

        try:
            await Dialogue(self._service, read, context.write, self._carrier(context), is_step=is_step).run()
        except Exception as error:
            # A write to a client that has just gone fails in gRPC's own ways; nobody is there to be told.
            if not context.cancelled() and type(error).__name__ != "ExecuteBatchError":
                await _abort(context, error)

    async def _runtimes(self, data: bytes, context: Context) -> bytes:
        try:
            wire.decode_list_runtimes(data)
            return wire.encode_runtimes(self._service.runtimes())
        except Exception as error:
            await _abort(context, error)

    def _carrier(self, context: Context) -> Mapping[str, str] | None:
        if not self._service.observes:
            return None
        return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _answering(call: Callable[[bytes], Awaitable[bytes]]) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """The method that `call` is, with its errors told as gRPC tells them."""

    async def answer(data: bytes, context: Context) -> bytes:
        try:
            return await call(data)
        except Exception as error:
            await _abort(context, error)

    return answer


async def _abort(context: Context, error: Exception) -> NoReturn:
    if not isinstance(error, WasmevalError):
        # The message of an unforeseen exception may quote a guest; its place in our code does not.
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("internal error: %s\n%s", type(error).__name__, frames)
        error = Internal("a bug of the service; its log says where")
    await context.abort(*wire.encode_error(error))


class Pool(ServicePool, Places, Protocol):
    """A pool's whole life."""

    @property
    def healthy(self) -> bool:
        """False while it cannot start workers."""

    async def start(self) -> None:
        """Returns when it can evaluate."""

    async def aclose(self) -> None:
        """Stops everything at once."""

    def jail(self) -> list[list[Any]]:
        """The layers of the workers' jail as they found them: [name, holds, detail]."""


MakePool = Callable[[ServerConfig, Catalogue, Telemetry | None], Pool]
MakeVm = Callable[[ServerConfig], VmTier]


async def serve(
    config: ServerConfig,
    *,
    announce: Callable[[str], None] = print,
    catalogue: Catalogue | None = None,
    make_pool: MakePool | None = None,
    make_vm: MakeVm | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains: running evaluations end within `config.grace_seconds`.

    A second signal ends at once. `announce` gets lines for people, the first of them `listening on TARGET`; that
    nobody reads them any more is no reason to stop.
    Raises InvalidArgument or SetupError when it cannot start.
    """
    catalogue = catalogue or Catalogue.installed()
    of_vms = Policy(config.vm.limits.defaults.limits(), config.vm.limits.ceilings.limits(), tier="vm")
    policy = Policy(config.limits.defaults.limits(), config.limits.ceilings.limits(), of_vms)
    moves = _moves(config, policy, make_vm)
    offer = configured(config, os.environ)
    async with contextlib.AsyncExitStack() as stack:
        signals = stack.enter_context(_Signals())
        telemetry = set_up(os.environ)
        if telemetry is not None:
            stack.push_async_callback(asyncio.to_thread, telemetry.close)
        pool = (make_pool or _worker_pool)(config, catalogue, telemetry)
        stack.push_async_callback(offer.aclose)
        kept = None
        if make_pool is None:
            store = await asyncio.to_thread(opened, config.sessions, os.environ)
            stack.callback(store.close)
            kept = home(config, os.environ, store, catalogue, pool)
        stack.push_async_callback(pool.aclose)
        if moves.vm is not None:
            stack.push_async_callback(moves.vm.aclose)
        service = Service(
            Tiers(pool, moves),
            catalogue,
            policy,
            telemetry=telemetry,
            batch_in_flight=_BATCH_EVALUATIONS_PER_WORKER * config.workers,
            batch_reply_bytes=wire.MAX_REPLY_BYTES - MIB,
            offer=offer,
            residence=kept.residence if kept else None,
            vm_sessions=VmSessions(moves, catalogue, policy, session_settings(config.sessions)),
            notary=kept.notary if kept else None,
            answers=kept.answers if kept else None,
            vm_runtimes=lambda: moves.runtimes,
        )
        # Bound before the workers start: a port in use is known at once.
        server = Server(service, config.listen, insecure=config.insecure)
        stack.push_async_callback(server.stop)
        starting = _start(pool, offer, moves, is_required=config.vm.enabled is True)
        if not await signals.interrupt(starting, signals.first):
            return
        # What is there by now stays: no collection during a request need walk through it.
        gc.freeze()
        await server.start()
        if kept is not None:
            looking = asyncio.ensure_future(kept.watch())
            stack.callback(looking.cancel)
        for line in _in_force(server.address, config, policy, service.runtimes(), pool.jail()):
            _say(announce, line)
        for line in _vms_in_force(config, of_vms, moves):
            _say(announce, line)
        await signals.interrupt(server.watch(lambda: pool.healthy), signals.first)
        _say(announce, f"draining for at most {config.grace_seconds:g} s; a second signal ends at once")
        await signals.interrupt(server.drain(config.grace_seconds), signals.second)
        _say(announce, "stopped")


def _say(announce: Callable[[str], None], line: str) -> None:
    """Whoever read the standard output may be gone (OSError), or it may be closed (ValueError)."""
    with contextlib.suppress(OSError, ValueError):
        announce(line)


class _Observer:
    """The pool's observer: logs the loss of workers, whether there is telemetry or not."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        self._telemetry = telemetry

    def queue_wait(self, runtime: str, seconds: float) -> None:
        if self._telemetry is not None:
            self._telemetry.queue_wait(runtime, seconds)

    def worker_restarted(self, reason: str) -> None:
        # One of the pool's closed set: no word of a guest.
        logger.warning("worker replaced: %s", reason)
        if self._telemetry is not None:
            self._telemetry.worker_restarted(reason)


class _Signals:
    """SIGTERM and SIGINT, counted: `first` and `second` are set by the first and second of either."""

    _SIGNALS = signal.SIGTERM, signal.SIGINT

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def __enter__(self) -> _Signals:
        for number in self._SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    async def interrupt(self, work: Coroutine[Any, Any, None], event: asyncio.Event) -> bool:
        """Whether `work` ended by itself; it is cancelled when `event` comes first."""
        task = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            ended = task.done()
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return ended

    def _received(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _start(pool: Pool, offer: Offer, moves: Moves, *, is_required: bool) -> None:
    """Whoever sends the first request waits for nothing that could have been loaded before."""
    await asyncio.gather(pool.start(), offer.load(), _start_vms(moves, is_required=is_required))


async def _start_vms(moves: Moves, *, is_required: bool) -> None:
    vm = moves.vm
    if vm is None or moves.missing:
        return
    try:
        await vm.start()
    except SetupError as error:
        if is_required:
            raise
        logger.warning("no microVMs: %s", error)
        moves.give_up(error)


def _moves(config: ServerConfig, policy: Policy, make_vm: MakeVm | None) -> Moves:
    """What there is of VMs. Raises SetupError when there must be some, and something is missing."""
    if config.vm.enabled is False:
        return Moves(policy, None, off=f"{OFF}; its operator can turn it on ([vm] enabled)")
    try:
        moves = Moves(policy, (make_vm or _vm_tier)(config), auto=config.vm.auto)
    except SetupError as error:
        moves = Moves(policy, None, off=str(error))
    if config.vm.enabled is True and moves.missing:
        raise SetupError(f"vm.enabled is true, and there can be no microVMs: {moves.missing}")
    return moves


def _vm_tier(config: ServerConfig) -> VmTier:
    return load_vm(
        image=config.vm.image,
        images_dir=config.vm.images_dir,
        ready=config.vm.ready,
        most=config.vm.most,
        queue_size=config.vm.queue_size,
        most_sessions=config.vm.most_sessions,
        accelerator=config.vm.accelerator,
        require_jail=config.require_jail,
    )


def _worker_pool(config: ServerConfig, catalogue: Catalogue, telemetry: Telemetry | None) -> Pool:
    from wasmeval.pool import PoolSettings
    from wasmeval.pool.driven import AsyncPool

    ceiling = config.limits.ceilings
    own = {} if config.worker_memory_bytes is None else {"worker_memory_bytes": config.worker_memory_bytes}
    settings = PoolSettings(
        workers=config.workers,
        concurrency=config.concurrency,
        queue_size=config.queue_size,
        # Any worker may have all of them: a fork lives where the session does that it is of.
        sessions=config.sessions.most_live,
        max_memory_bytes=ceiling.memory_bytes,
        require_jail=config.require_jail,
        cache_dir=config.cache_dir,
        **own,
    )
    pool = AsyncPool(settings, catalogue, _Observer(telemetry))
    if telemetry is not None:
        telemetry.watch_workers(lambda: pool.stats().workers)
    return pool


def _in_force(
    address: Address,
    config: ServerConfig,
    policy: Policy,
    runtimes: tuple[RuntimeInfo, ...],
    jail: list[list[Any]],
) -> Iterator[str]:
    warning = "" if address.is_local else " INSECURE: open to other machines, without keys"
    yield f"listening on {address.target}{warning}"
    yield "runtimes: " + ", ".join(f"{runtime.name} {runtime.version}" for runtime in runtimes)
    yield (
        f"workers: {config.workers}, each holding {config.concurrency} evaluations at most, "
        f"{config.queue_size} queued at most"
    )
    store = config.sessions.store.partition(":")[0] or "a folder of this user's"
    yield f"sessions: {config.sessions.most_live} live at most, asleep in {store}"
    yield f"limits by default: {_limits(policy.defaults)}"
    yield f"limits at most: {_limits(policy.ceilings)}"
    yield "jail: " + ", ".join(name for name, holds, _ in jail if holds)
    for name, holds, detail in jail:
        if not holds:
            yield f"jail: WITHOUT {name}: {detail}"


def _vms_in_force(config: ServerConfig, policy: Policy, moves: Moves) -> Iterator[str]:
    vm, missing = moves.vm, moves.missing
    if vm is None or missing:
        yield f"microVMs: none; {missing}"
        return
    how = "evaluations move there by themselves" if config.vm.auto else "for those that ask"
    yield (
        f"microVMs: {vm.detail}, image {config.vm.image}, {config.vm.ready} kept ready, {config.vm.most} at most, "
        f"{min(config.vm.most_sessions, config.vm.most - 1)} of them sessions; {how}"
    )
    yield f"limits in a microVM by default: {_limits(policy.defaults)}"
    yield f"limits in a microVM at most: {_limits(policy.ceilings)}"


def _limits(limits: Limits) -> str:
    memory, output = (f"{(value or 0) / MIB:g} MiB" for value in (limits.memory_bytes, limits.output_bytes))
    cpu = f"{limits.fuel:,} fuel" if limits.fuel else f"{limits.cpu_seconds:g} s of CPU"
    return f"{cpu}, {limits.deadline_seconds:g} s, {memory} of memory, {output} of each output"
