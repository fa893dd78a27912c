"""CPU that one unary evaluation costs: the front process and its workers together, and the client apart."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench import peers
from bench.report import Figure, Row, ms
from bench.rows.names import RUNTIMES
from bench.serving import Serving, serving
from bench.settings import Settings

_TARGETS = {"python": 0.75e-3, "javascript": 0.35e-3}
# Until workers have dropped what is spent and prepared what comes next: that is a cost of the call too.
_SETTLE_SECONDS = 0.05


def rows(settings: Settings) -> Iterator[Row]:
    """The service's and the client's CPU for each call, empty calls beside them."""
    rounds, count = settings.of((8, 400), (2, 100))
    with serving(settings.workers) as service:
        calls: dict[str, Callable[[], object]] = {"empty": service.empty()}
        calls |= {runtime: service.bare(runtime) for runtime in RUNTIMES}
        spent = dict.fromkeys(calls, (0.0, 0.0))
        for _ in range(rounds):
            for name, call in calls.items():
                service_seconds, client_seconds = _spend(service, call, count)
                spent[name] = spent[name][0] + service_seconds, spent[name][1] + client_seconds
    each = {name: (a / rounds / count, b / rounds / count) for name, (a, b) in spent.items()}
    process = _process_seconds(settings.of(20, 4))
    for runtime, label in RUNTIMES.items():
        ours, client = each[runtime]
        beside = f"empty call {ms(each['empty'][0])}; the client {ms(client)}"
        yield Row(
            f"CPU of all the service's processes for one unary evaluation, {label}",
            f"**{ms(ours)}**",
            beside + (f"; `python -I -c` {ms(process)}" if runtime == "python" else ""),
            f"<= {ms(_TARGETS[runtime])}",
            ours <= _TARGETS[runtime],
            [
                Figure("cpu_service", "ms", ours * 1e3, {"runtime": runtime, "n": rounds * count}),
                Figure("cpu_client", "ms", client * 1e3, {"runtime": runtime, "n": rounds * count}),
                Figure("cpu_service", "ms", each["empty"][0] * 1e3, {"peer": "empty call"}),
                Figure("cpu_client", "ms", each["empty"][1] * 1e3, {"peer": "empty call"}),
                Figure("cpu_service", "ms", process * 1e3, {"peer": "python -I -c"}),
            ],
        )


def _spend(service: Serving, call: Callable[[], object], count: int) -> tuple[float, float]:
    """Seconds of CPU that `count` calls cost the service, and us."""
    time.sleep(_SETTLE_SECONDS)
    before, ours = service.cpu_seconds(), time.process_time()
    for _ in range(count):
        call()
    ours = time.process_time() - ours
    time.sleep(_SETTLE_SECONDS)
    return service.cpu_seconds() - before, ours


def _process_seconds(count: int) -> float:
    run = partial(peers.python_process, "1+1")
    run()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(count):
        run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count
