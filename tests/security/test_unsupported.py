"""Promise: what this tier does not have ends `unsupported` and says what was needed, unless the snippet handles it."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, Status

PACKAGE = "needs the package '{}', which this runtime does not have"
HTTP = "needs network access: HTTP is not allowed for this evaluation"
THREADS = "needs threads: can't start new thread: this runtime has one"
NEEDS = {
    "import pandas": PACKAGE.format("pandas"),
    "import pandas as pd": PACKAGE.format("pandas"),
    "import requests\nrequests.get('https://example.com')": HTTP,
    "import pandas.io": PACKAGE.format("pandas"),
    "import importlib\nimportlib.import_module('scipy')": PACKAGE.format("scipy"),
    "def f(): import torch\nf()": PACKAGE.format("torch"),
    "import ctypes": "needs foreign functions (ctypes)",
    "import mmap": "needs mapped files (mmap)",
    "import urllib.request\nurllib.request.urlopen('http://example.com')": HTTP,
    "import http.client\nhttp.client.HTTPSConnection('example.com').request('GET', '/')": HTTP,
    "import multiprocessing\nmultiprocessing.Process(target=print).start()": "needs processes: "
    "module 'os' has no attribute 'WNOHANG'",
    "import tkinter": "needs a display (tkinter)",
    "import resource": "needs processes (resource)",
    "import fcntl": "needs file descriptors (fcntl)",
    "import pwd": "needs a user database (pwd)",
    "import socket\nsocket.socket()": "needs sockets: [Errno 58] this runtime has no sockets",
    "import socket\nsocket.create_connection(('1.1.1.1', 80))": HTTP,
    "import socket\nsocket.gethostbyname('localhost')": "needs sockets: [Errno 58] this runtime has no sockets",
    "import subprocess\nsubprocess.run(['ls'])": "needs processes: [Errno 58] this runtime has no processes",
    "import os\nos.system('ls')": "needs processes: module 'os' has no attribute 'system'",
    "import os\nos.fork()": "needs processes: module 'os' has no attribute 'fork'",
    "import os\nos.kill(1, 9)": "needs processes: module 'os' has no attribute 'kill'",
    "import threading\nthreading.Thread(target=print).start()": THREADS,
    "import _thread\n_thread.start_new_thread(print, ())": THREADS,
    "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor().submit(print)": THREADS,
    "import asyncio\nasyncio.run(asyncio.to_thread(print))": THREADS,
}
JAVASCRIPT_NEEDS = {
    "require('net')": "needs the module 'net', which this runtime does not have",
    "import net from 'net'; 5": "needs the module 'net', which this runtime does not have",
    "await import('lodash')": "needs the module 'lodash', which this runtime does not have",
    "process.exit(3)": "needs node's process object, which this runtime does not have",
    "fetch('http://example.com')": HTTP,
    "new WebSocket('ws://x')": "needs the network (WebSocket), which this runtime does not have",
    "new Worker('x')": "needs threads (Worker), which this runtime does not have",
    "WebAssembly.compile(new Uint8Array())": "needs WebAssembly, which this runtime does not have",
    "Intl.NumberFormat()": "needs internationalisation (Intl), which this runtime does not have",
}


@pytest.mark.parametrize(("code", "message"), NEEDS.items(), ids=NEEDS)
def test_python_says_what_it_needs(evaluator: Evaluator, code: str, message: str) -> None:
    result = evaluator.evaluate(code, tier="wasm")
    assert result.error
    assert (result.status, result.error.message) == (Status.UNSUPPORTED, message)


@pytest.mark.parametrize(("code", "message"), JAVASCRIPT_NEEDS.items(), ids=JAVASCRIPT_NEEDS)
def test_javascript_says_what_it_needs(evaluator: Evaluator, code: str, message: str) -> None:
    result = evaluator.evaluate(code, language="javascript", tier="wasm")
    assert result.error
    assert (result.status, result.error.message) == (Status.UNSUPPORTED, message)


HANDLED = {
    "python": [
        "try: import pandas\nexcept ImportError: x = 'without'\nx",
        "import socket\ntry: socket.socket()\nexcept OSError: x = 'without'\nx",
        "import threading\ntry: threading.Thread(target=print).start()\nexcept RuntimeError: x = 'without'\nx",
        "import subprocess\ntry: subprocess.run(['ls'])\nexcept OSError: x = 'without'\nx",
        "import os\nx = 'with' if hasattr(os, 'fork') else 'without'",
    ],
    "javascript": [
        "let x; try { require('net') } catch { x = 'without' } x",
        "await fetch('http://example.com').catch(() => 'without')",
        "let x; try { await import('net') } catch { x = 'without' } x",
    ],
}


@pytest.mark.parametrize(
    ("language", "code"), [(language, code) for language, codes in HANDLED.items() for code in codes]
)
def test_a_snippet_may_do_without(evaluator: Evaluator, language: str, code: str) -> None:
    result = evaluator.evaluate(code, language=language)
    assert (result.status, result.value) == (Status.OK, "without"), result.error


def test_an_error_of_its_own_after_a_handled_need_is_an_error(evaluator: Evaluator) -> None:
    result = evaluator.evaluate("try: import pandas\nexcept ImportError: pass\n1 / 0")
    assert result.error
    assert (result.status, result.error.type) == (Status.ERROR, "ZeroDivisionError")
