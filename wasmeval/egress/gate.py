"""Gate: decides whether and to which addresses one hop of a request goes, and with which credential."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor

from wasmeval.egress.addresses import Network, may_reach
from wasmeval.egress.ceiling import Credential
from wasmeval.egress.failure import failed, refused
from wasmeval.egress.hosts import is_address
from wasmeval.egress.rules import CompiledRule, Destination

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""From a canonical host name to its addresses; raises OSError when it has none."""

MOST_ADDRESSES = 8

MOST_LOOK_UPS = 4
"""Of one evaluation at once: with names whose servers do not answer it cannot hold up all the others'."""


class Gate:
    """What one evaluation may reach. `pins` keeps each name's addresses: none is asked for twice."""

    def __init__(
        self,
        rules: Sequence[CompiledRule],
        ceiling: Sequence[CompiledRule],
        networks: Sequence[Network],
        credentials: Mapping[str, Credential],
        resolve: Resolve,
    ) -> None:
        self.pins: dict[str, tuple[str, ...]] = {}
        self._rules = rules
        self._ceiling = ceiling
        self._networks = networks
        self._credentials = credentials
        self._resolve = resolve
        self._look_ups = asyncio.Semaphore(MOST_LOOK_UPS)

    def rule_for(self, method: str, url: Destination) -> CompiledRule:
        """The first of the policy's rules that allows it; raises HttpFailure when policy or operator does not."""
        rule = next((rule for rule in self._rules if rule.allows(method, url)), None)
        if rule is None:
            raise refused(f"no rule of this evaluation allows {_said(method, url)}")
        if not any(ceiling.allows(method, url) for ceiling in self._ceiling):
            raise refused(f"the service's operator does not allow {_said(method, url)}")
        return rule

    def check_tunnel(self, url: Destination) -> None:
        """Whether an opaque tunnel to host and port of `url` may be opened; raises HttpFailure if not.

        Nothing of what goes through one can be seen, so that only a rule that asks for nothing but `https` to that
        host opens it, of the policy and of the operator's.
        """
        self._check_tunnel(self._rules, url, "no rule of this evaluation allows")
        self._check_tunnel(self._ceiling, url, "the service's operator does not allow")

    @staticmethod
    def _check_tunnel(rules: Sequence[CompiledRule], url: Destination, refusal: str) -> None:
        meant = [rule for rule in rules if rule.means(url)]
        if any(rule.opens_tunnels for rule in meant):
            return
        message = f"{refusal} CONNECT {url.host}:{url.port}"
        if any(rule.credential for rule in meant):
            message += "; a rule with a credential does not, which cannot be added within a tunnel"
        elif meant:
            message += "; a rule with methods or a path_prefix does not, which cannot be seen within a tunnel"
        raise refused(message)

    def credential_for(self, rule: CompiledRule, url: Destination) -> Credential | None:
        """What `rule` adds to a request to `url`; None, too, when it may not go there."""
        credential = self._credentials.get(rule.credential)
        if credential is None or not may_carry(credential, url):
            return None
        return credential

    async def admit(self, host: str) -> None:
        """Pin `host` to the addresses of it that may be reached; raises HttpFailure when there are none."""
        if host in self.pins:
            return
        found = [host] if is_address(host) else await self._addresses(host)
        # Of a name with both kinds only the good ones are used. That is as safe as to refuse it, because the
        # connection goes to exactly these, and a machine with two networks gives honest names of that kind.
        good = tuple(address for address in found if may_reach(address, self._networks))
        if not good:
            raise refused(
                f"{host} is not on the public internet; private, loopback, link-local and other special addresses "
                "are refused unless the operator allows their network"
            )
        # Two requests may have asked at once: the first answer stays.
        self.pins.setdefault(host, good[:MOST_ADDRESSES])

    async def _addresses(self, host: str) -> Sequence[str]:
        try:
            async with self._look_ups:
                return list(dict.fromkeys(await self._resolve(host)))
        except (OSError, UnicodeError):
            raise failed("connect", f"the name {host} could not be resolved") from None


def may_carry(credential: Credential, url: Destination) -> bool:
    """Whether `credential` may go to `url` by its own bound."""
    safe = url.scheme == "https" or credential.insecure
    return safe and any(p.matches(url.host, url.port, url.scheme) for p in credential.patterns())


def _said(method: str, url: Destination) -> str:
    return f"{method} {url.scheme}://{url.authority}{url.path[:200]}"


def system_resolver(threads: Executor) -> Resolve:
    """The machine's own, in `threads`: a name server that does not answer holds one of those and nothing else."""

    async def resolve(host: str) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(threads, _look_up, host)
        return [str(entry[4][0]) for entry in found]

    return resolve


def _look_up(host: str) -> Sequence[tuple[object, object, object, object, tuple[object, ...]]]:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
