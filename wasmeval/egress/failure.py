"""HttpFailure: why a guest's request has no response, in the words of the guest ABI."""

from __future__ import annotations

import json

LIMIT, REFUSED, FAILED = 2, 3, 4
"""Kinds of outcome; Source: runtimes/abi.md, "Host operations"."""


class HttpFailure(Exception):
    """A request or a read that did not succeed: data for the guest, never a fault of the service.

    `kind` is 2 for a limit that was reached, 3 for what the policy does not allow, 4 for a connection that failed;
    `name` is the limit, or the type of what failed; `payload` is the JSON of that outcome. None holds a credential.
    """

    def __init__(self, kind: int, document: dict[str, str]) -> None:
        super().__init__(document["message"])
        self.kind = kind
        self.name = document.get("limit") or document.get("type") or ""
        self.message = document["message"]
        self.payload = json.dumps(document).encode("ascii")


def limit(name: str, message: str) -> HttpFailure:
    """`name` is the limit's field in the policy, such as `http.requests`."""
    return HttpFailure(LIMIT, {"limit": name, "message": message})


def refused(message: str) -> HttpFailure:
    return HttpFailure(REFUSED, {"message": message})


def failed(kind: str, message: str) -> HttpFailure:
    """`kind` is one of the ABI's: connect, timeout, tls, protocol, redirects, gone."""
    return HttpFailure(FAILED, {"type": kind, "message": message})
