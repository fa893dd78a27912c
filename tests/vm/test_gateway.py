"""The gateway of an evaluation: what its microVM's network is given."""

from __future__ import annotations

from typing import Any

from tests.egress.conftest import ANY, LOOPBACK, Server, answer
from wasmeval.attendant import Attendant
from wasmeval.egress import Egress, HttpCeiling
from wasmeval.grants import Grants, HttpPolicy
from wasmeval.offer import Offer


class Script:
    """A stream that sends one request."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answer = b""

    async def read(self, most: int) -> bytes:
        data, self._request = self._request[:most], self._request[most:]
        return data

    async def write(self, data: bytes) -> None:
        self.answer += data

    def close(self) -> None:
        return

    def abort(self) -> None:
        self.answer += b"aborted"


async def test_an_attendants_gateway_counts_to_its_uses(server: Server) -> None:
    server.answers["/"] = answer(b"by the gateway")
    egress = Egress(HttpCeiling((ANY,), private_networks=LOOPBACK))
    link: Any = None
    attendant = Attendant(Grants(http=HttpPolicy((ANY,))), Offer(egress), link, None)
    stream = Script(f"GET {server.url()} HTTP/1.0\r\n\r\n".encode())
    assert attendant.gateway
    await attendant.gateway.serve(stream)
    assert stream.answer.endswith(b"\r\n\r\nby the gateway")
    assert [(use.method, use.path, use.status) for use in attendant.uses] == [("GET", "/", 200)]
    await attendant.aclose()
    await egress.aclose()


async def test_without_a_policy_there_is_none() -> None:
    egress = Egress(HttpCeiling((ANY,)))
    link: Any = None
    assert Attendant(Grants(), Offer(egress), link, None).gateway is None
    await egress.aclose()
