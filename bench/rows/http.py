"""HTTP requests of snippets against a server on loopback, beside the same requests without wasmeval."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import ProxyHandler, build_opener

from bench.measure import Turn, in_turns, timed
from bench.report import Row, number, pair, times
from bench.serving import serving
from bench.settings import Settings
from wasmeval import Client, HttpPolicy, HttpRule

_BODY = b'{"answer": 42}'
_CODE = {
    "urllib.request": "from urllib.request import urlopen; urlopen({url!r}).read()",
    "requests": "import requests; requests.get({url!r}).json()",
    "fetch": "await (await fetch({url!r})).json()",
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(_BODY)))
        self.end_headers()
        self.wfile.write(_BODY)

    def log_message(self, *_: object) -> None:
        pass


def rows(settings: Settings) -> Iterator[Row]:
    """One GET in one evaluation, by each way that a snippet has; beside a `1`, and beside urllib in this process."""
    with (
        _site() as place,
        serving(settings.workers, place) as service,
        Client(service.target) as client,
    ):
        url = f"http://{place}/"
        policy = HttpPolicy((HttpRule(place, schemes=("http",)),))
        opener = build_opener(ProxyHandler({}))
        turns = {"here": Turn(timed(lambda: opener.open(url).read()), 20)}
        for way, code in _CODE.items():
            language = "javascript" if way == "fetch" else "python"
            text = code.format(url=url)
            client.evaluate(text, language=language, http=policy).raise_for_status()
            turns[way] = Turn(
                timed(
                    lambda text=text, language=language: client.evaluate(text, language=language, http=policy)
                ),  # type: ignore[misc]
                20,
            )
        turns["1"] = Turn(timed(lambda: client.evaluate("1")), 20)
        samples = in_turns(turns, settings.of(10, 2))
    plain, nothing = samples["here"], samples["1"]
    for way in _CODE:
        taken = samples[way]
        yield Row(
            f"a GET by `{way}` in one evaluation through `Client`, loopback server, p50 / p99",
            f"**{pair(taken)}**: {number(taken.p50 / plain.p50)}x",
            f"`urlopen` in this process {pair(plain)}; evaluating `1` {pair(nothing)}",
            figures=[
                *times("http_get", taken, way=way),
                *times("http_get", plain, peer="urlopen"),
            ],
        )


@contextmanager
def _site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
