"""Grantcheck: the self-check of what an evaluation may be given: tools, HTTP, files."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from runtimes.python import grantcases
from runtimes.python.grantcases import Case, Raises
from runtimes.python.instances import VALUE, Image, require, same
from runtimes.python.scripted import ScriptedHost


def check_case(image: Image, case: Case, host: ScriptedHost, folder: Path | None = None) -> None:
    code, wanted = case
    reply = image.evaluate(code, host=host, folder=folder)
    if isinstance(wanted, Raises):
        kind, text = wanted
        require(
            reply.type == kind and text in reply.message, f"{code!r} is told as {reply.type}: {reply.message}"
        )
        require("_wasmeval" not in reply.traceback or "_wasmeval_http" in reply.traceback, reply.traceback)
    else:
        require(reply.outcome == VALUE, f"{code!r}: {reply.type}: {reply.message}\n{reply.traceback}")
        require(
            reply.flags == 0 and same(reply.value, wanted), f"{code!r} is {reply.value!r}, not {wanted!r}"
        )


def check_tools(image: Image) -> None:
    most = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    for case in grantcases.TOOLS:
        check_case(image, case, grantcases.tool_host())
    sys.set_int_max_str_digits(most)
    host = grantcases.tool_host()
    code = "import asyncio\nasyncio.run(asyncio.wait_for(never.aio(), 0.01))"
    image.evaluate(code, host=host)
    require(host.dropped == [1], f"a cancelled call is not dropped: {host.dropped}")
    require(all(number == 0 for _, number in host.waits), f"a loop waits for one call alone: {host.waits}")
    reply = image.evaluate("search.aio(1)\nNone", host=host)
    require("'search.aio' was never awaited" in reply.stderr, f"{reply}")


def check_http(image: Image) -> None:
    for case in grantcases.HTTP:
        check_case(image, case, grantcases.http_host())
    host = grantcases.http_host()
    image.evaluate("import requests\nrequests.get('https://stream.test/', stream=True).close()", host=host)
    require(host.dropped == [1000], f"a body that is not read is not dropped: {host.dropped}")


def check_files(image: Image) -> None:
    for case in grantcases.FILES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "workspace"
            folder.mkdir()
            (folder / "helper.py").write_text("answer = 42\n")
            check_case(image, case, grantcases.tool_host(), folder)
