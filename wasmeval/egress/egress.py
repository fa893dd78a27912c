"""Egress: the one way by which requests of guests leave the front process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from wasmeval.egress.addresses import parse_networks
from wasmeval.egress.ceiling import Credential, HttpCeiling, check_numbers
from wasmeval.egress.exchange import Exchange
from wasmeval.egress.failure import failed
from wasmeval.egress.gate import Gate, Resolve, system_resolver
from wasmeval.egress.meter import Meter
from wasmeval.egress.rules import CompiledRule, compile_rules
from wasmeval.egress.scrub import Scrubber
from wasmeval.errors import InvalidArgument
from wasmeval.grants import HttpPolicy

if TYPE_CHECKING:
    from wasmeval.egress.hop import Means

logger = logging.getLogger(__name__)

_LOOK_UPS = 16
"""Names that are looked up at once; more wait for their turn."""


class Egress:
    """What the operator allows and lends, for all evaluations. `aclose` ends it.

    `credentials` are by the names that rules use. `resolve` is an async function from a host name to its addresses, the
    machine's own resolver by default. httpx is loaded at the first request.
    """

    def __init__(
        self,
        ceiling: HttpCeiling = HttpCeiling.NONE,
        credentials: Mapping[str, Credential] | None = None,
        *,
        resolve: Resolve | None = None,
    ) -> None:
        self._ceiling = ceiling
        self._credentials = dict(credentials or {})
        self._limits = compile_rules(ceiling.rules, "rules")
        self._networks = parse_networks(ceiling.private_networks)
        # Threads start when they are needed, which is never in a service that sends nothing.
        self._threads = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="wasmeval-egress")
        self._resolve = resolve or system_resolver(self._threads)
        self._context: ssl.SSLContext | None = None
        self._loading = threading.Lock()
        self._exchanges: set[Exchange] = set()

    def check(self, policy: HttpPolicy) -> HttpPolicy:
        """`policy` with its numbers lowered to the ceiling. Raises InvalidArgument that names what is wrong."""
        self._compiled(policy)
        ceiling = self._ceiling
        return replace(
            policy,
            requests=min(policy.requests, ceiling.requests),
            request_bytes=min(policy.request_bytes, ceiling.request_bytes),
            response_bytes=min(policy.response_bytes, ceiling.response_bytes),
            seconds=min(policy.seconds, ceiling.seconds),
            redirects=min(policy.redirects, ceiling.redirects),
        )

    def open(self, policy: HttpPolicy) -> Exchange:
        """The requests of one evaluation with `policy`, which is checked and lowered once more. Close it."""
        meter = Meter(self.check(policy))
        connect = partial(self._connect, self._compiled(policy), meter)
        exchange = Exchange(meter, connect, self._exchanges.discard)
        self._exchanges.add(exchange)
        return exchange

    async def load(self) -> None:
        """Load httpx and the trusted certificates now rather than at the first request, which tells when they cannot be
        read."""
        with contextlib.suppress(OSError):
            await self._trusted()

    async def aclose(self) -> None:
        """Close every exchange. Safe to call twice."""
        await asyncio.gather(*(exchange.aclose() for exchange in list(self._exchanges)))
        # A thread that still waits for a name server is left behind; it ends by the resolver's own time-out.
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compiled(self, policy: HttpPolicy) -> tuple[CompiledRule, ...]:
        if not isinstance(policy, HttpPolicy):
            raise InvalidArgument("http", f"must be an HttpPolicy, not {type(policy).__name__}")
        if not self._limits:
            raise InvalidArgument(
                "http", "is not offered here: the operator allows no HTTP requests; leave it out"
            )
        if not policy.rules:
            raise InvalidArgument("http.rules", "must have at least one rule; leave http out for no requests")
        check_numbers(policy, "http.")
        rules = compile_rules(policy.rules, "http.rules")
        for index, rule in enumerate(rules):
            self._check_credential(rule, f"http.rules[{index}].credential")
        return rules

    def _check_credential(self, rule: CompiledRule, field: str) -> None:
        """A rule may name a credential only for what the credential's own bound covers, all of it."""
        if not rule.credential:
            return
        credential = self._credentials.get(rule.credential)
        if credential is None:
            raise InvalidArgument(field, f"there is no credential {rule.credential[:100]!r} here")
        if not credential.insecure and rule.schemes != {"https"}:
            raise InvalidArgument(
                field, f"{rule.credential!r} travels by https only; leave http out of the rule's schemes"
            )
        if not any(pattern.covers(rule.host) for pattern in credential.patterns()):
            raise InvalidArgument(field, f"{rule.credential!r} may not go to all hosts of this rule")

    async def _connect(self, rules: tuple[CompiledRule, ...], meter: Meter) -> Means:
        """What the requests of one evaluation share, made at its first."""
        try:
            context = await self._trusted()
        except OSError as error:
            logger.error("HTTP is not possible: the trusted certificates cannot be read: %s", error)
            raise failed("tls", "the service cannot read its trusted certificates") from None
        from wasmeval.egress.hop import Means
        from wasmeval.egress.network import open_pool

        credentials = {
            rule.credential: self._credentials[rule.credential] for rule in rules if rule.credential
        }
        gate = Gate(rules, self._limits, self._networks, credentials, self._resolve)
        return Means(gate, meter, Scrubber(credentials.values()), open_pool(context, gate.pins, meter))

    async def _trusted(self) -> ssl.SSLContext:
        if self._context is None:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._load)
        assert self._context is not None
        return self._context

    def _load(self) -> None:
        """The certificates to trust: those of `SSL_CERT_FILE` or `SSL_CERT_DIR`, else certifi's."""
        with self._loading:
            if self._context is None:
                import httpx

                import wasmeval.egress.network
                import wasmeval.egress.proxy
                import wasmeval.egress.transfer  # noqa: F401

                self._context = httpx.create_ssl_context()
