"""A fetch with a key that the snippet never sees: it may ask one host, and the key is added on the way.

    python docs/examples/fetch_with_key.py

The "API" is a server of this program's own on loopback, so that the example runs anywhere; a real one would be
`HttpRule("api.example.com", methods=("GET",), credential="weather")`, and need neither `http` nor a private network.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import wasmeval

KEY = "key-that-stays-outside"

SNIPPET = """\
const reply = await fetch(url, { headers: { accept: "application/json" } });
const weather = await reply.json();
({ celsius: weather.celsius, seen: weather.authorization })
"""


class Weather(BaseHTTPRequestHandler):
    """Answers who has the key, and tells him which one it was: a careless service."""

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        body = json.dumps({"celsius": 21, "authorization": authorization}).encode()
        self.send_response(200 if authorization == f"Bearer {KEY}" else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def api() -> Iterator[str]:
    """Where it listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Weather) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def main() -> wasmeval.Result:
    """What the snippet got, and the record of its request."""
    with api() as host:
        rule = wasmeval.HttpRule(host, methods=("GET",), schemes=("http",))
        ceiling = wasmeval.HttpCeiling(rules=(rule,), private_networks=("127.0.0.1/32",))
        key = wasmeval.Credential("bearer", KEY, hosts=(host,), insecure=True)
        with wasmeval.Evaluator(workers=1, http=ceiling, credentials={"weather": key}) as evaluator:
            allowed = wasmeval.HttpRule(host, methods=("GET",), schemes=("http",), credential="weather")
            return evaluator.evaluate(
                SNIPPET,
                language="javascript",
                inputs={"url": f"http://{host}/oslo?days=1"},
                http=wasmeval.HttpPolicy((allowed,)),
            ).raise_for_status()


if __name__ == "__main__":
    result = main()
    print(result.value)
    for use in result.http:
        print(f"{use.method} {use.host}{use.path}: {use.status}, {use.received_bytes} bytes")
