"""Target: where one hop of a request goes, from a guest's URL or a server's redirect. Loads httpx."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, unquote_plus

import httpx

from wasmeval.egress.failure import failed, refused
from wasmeval.egress.hosts import DEFAULT_PORTS, canonical_host
from wasmeval.egress.rules import canonical_path

MOST_URL = 8192
"""Characters, as a guest writes it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. What is checked is this, and what is sent is made from this: there is no second parser.

    `host` is canonical, `path` canonical as rules see it, `raw_path` as it is sent; `query` has no `?`, None for none.
    """

    scheme: str
    host: str
    port: int
    path: str
    raw_path: str
    query: str | None

    @property
    def authority(self) -> str:
        """Host, and port when it is not the scheme's own: what the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def full_path(self) -> str:
        return self.raw_path if self.query is None else f"{self.raw_path}?{self.query}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.full_path}"

    def with_parameter(self, name: str, value: str) -> Target:
        """The same with the query's parameter `name` set to `value`, whatever it had of that name."""
        parts = [part for part in (self.query or "").split("&") if part]
        kept = [part for part in parts if unquote_plus(part.partition("=")[0]) != name]
        kept.append(f"{quote(name, safe='')}={quote(value, safe='')}")
        return replace(self, query="&".join(kept))


def parse_target(text: str) -> Target:
    """Where the guest's `text` leads; raises HttpFailure for what is no URL of http or https."""
    if len(text) > MOST_URL:
        raise refused(f"the URL has {len(text)} characters; at most {MOST_URL} are allowed")
    try:
        return _target(httpx.URL(text))
    except (httpx.InvalidURL, ValueError) as error:
        raise refused(f"{text[:200]!r} cannot be requested: {error}") from None


def join_target(base: Target, location: str) -> Target:
    """Where a redirect from `base` to `location` leads; raises HttpFailure."""
    if len(location) > MOST_URL:
        raise failed(
            "redirects", f"the redirect's URL has {len(location)} characters; at most {MOST_URL} are allowed"
        )
    try:
        return _target(httpx.URL(str(base)).join(location))
    except (httpx.InvalidURL, ValueError) as error:
        raise refused(f"the redirect to {location[:200]!r} cannot be followed: {error}") from None


def _target(url: httpx.URL) -> Target:
    if url.scheme not in DEFAULT_PORTS:
        raise ValueError("only http and https URLs can be")
    if url.userinfo:
        raise ValueError("it has a user name or a password; send an Authorization header instead")
    if not url.raw_host:
        raise ValueError("it names no host")
    port = DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if not 1 <= port <= 65535:
        raise ValueError(f"its port is not one from 1 to 65535: {port}")
    raw_path, mark, query = url.raw_path.decode("ascii").partition("?")
    host = canonical_host(url.raw_host.decode("ascii"))
    return Target(url.scheme, host, port, canonical_path(raw_path), raw_path, query if mark else None)
