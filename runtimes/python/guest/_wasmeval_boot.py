"""Prepares the interpreter that the image holds: runs once, in the build, before the memory is taken.

Loads the common part of the standard library, says of what cannot be here what it needs, and hands the reactor its
warm-up snippets as request frames.
"""

import errno
import gc
import json
import os
import struct
import sys

import _thread
import _wasmeval
import site

# Loaded into the image: what snippets commonly import, so that importing it costs a look-up. The rest of the library is
# read from the mounted zip on first import.
import abc
import argparse
import array
import ast
import asyncio
import base64
import binascii
import bisect
import calendar
import cmath
import codecs
import collections.abc
import concurrent.futures
import configparser
import contextlib
import contextvars
import copy
import csv
import dataclasses
import datetime
import decimal
import difflib
import dis
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.utf_8
import enum
import fractions
import functools
import glob
import graphlib
import hashlib
import heapq
import hmac
import html
import html.parser
import http.client
import importlib.resources
import inspect
import io
import ipaddress
import itertools
import keyword
import linecache
import logging
import math
import numbers
import operator
import pathlib
import pickle
import pprint
import queue
import random
import re
import secrets
import shlex
import shutil
import socket
import ssl
import statistics
import string
import tempfile
import textwrap
import threading
import time
import timeit
import tokenize
import traceback
import types
import typing
import unicodedata
import urllib.parse
import urllib.request
import uuid
import warnings
import weakref
import zlib
import zoneinfo

import numpy
import numpy.fft
import numpy.lib.recfunctions
import numpy.linalg
import numpy.ma
import numpy.polynomial
import numpy.random
import numpy.testing
import requests

import _strptime
import wasmeval

import _wasmeval_tools

from _wasmeval_report import report as report
from _wasmeval_tools import offer as offer

stdout, stderr = sys.stdout, sys.stderr


def load_inputs(text):
    """The snippet's variables. Called with the interpreter's limit on digits lifted."""
    return json.loads(text)


# ---- what this runtime lacks ------------------------------------------------------------------------------------


def _refuse_processes():
    """`os.fork` and its kin are absent, as on any WASI; the AttributeError says why."""
    names = frozenset(
        "fork forkpty system popen execl execle execlp execlpe execv execve execvp execvpe spawnl spawnle spawnlp "
        "spawnlpe spawnv spawnve spawnvp spawnvpe posix_spawn posix_spawnp kill killpg wait wait3 wait4 waitpid pipe "
        "pipe2 setsid nice openpty WNOHANG".split()
    )

    for name in names:
        os.__dict__.pop(name, None)
    os.__all__ = [name for name in os.__all__ if name not in names]
    os.__getattr__ = _wasmeval.absence(os, names, "processes")

    import subprocess

    refused = _wasmeval.refusal(OSError, (errno.ENOTSUP, "this runtime has no processes"), "processes")
    subprocess.Popen.__init__ = refused
    subprocess.Popen.__del__ = lambda self: None


def _refuse_threads():
    """Locks, events and local data work; only a second thread cannot be."""
    refused = _wasmeval.refusal(RuntimeError, ("can't start new thread: this runtime has one",), "threads")
    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        setattr(_thread, name, refused)
    threading._start_new_thread = threading._start_joinable_thread = refused


def _measure_process_time():
    """The C library counts from the moment it was started, which was in the build; the monotonic clock does not."""
    time.process_time, time.process_time_ns = time.perf_counter, time.perf_counter_ns


def _offer_interactive_names():
    """`exit`, `quit` and `help` as scripts have them; the rest of `site` is of no use here."""
    site.setquit()
    site.setcopyright()
    site.sethelper()


def _mend_files():
    """The C library keeps the `..` of a folder that was changed to, and takes any name for permissions it does not have."""
    change = os.chdir

    def chdir(path):
        try:
            change(os.path.realpath(path))
        except OSError as error:
            error.filename = path
            raise

    def chmod(path, mode, *, dir_fd=None, follow_symlinks=True):
        os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    os.chdir, os.chmod = _wasmeval.hide(chdir), _wasmeval.hide(chmod)


# ---- the warm-up ------------------------------------------------------------------------------------------------


def _frame(code, inputs=None):
    """A request frame of `abi.md`."""
    source = code.encode()
    values = json.dumps(inputs).encode() if inputs else b""
    return struct.pack("<HHIII", 1, 0, 1 << 20, len(source), len(values)) + source + values


SNIPPETS = (
    "1+1",
    "x = 3\ny = x * 2\nprint(x, y)\ny",
    "import json\njson.dumps(json.loads('{\"a\": [1, 2.5, null, true, \"t\"]}'), indent=2)",
    "def double(n):\n    return n * 2\n\n[double(i) for i in range(9) if i % 2]",
    "import re\n[m.group(1) for m in re.finditer(r'(\\w+)@(\\w+)', 'a@b c@d')]",
    "total = 0\nfor i in range(200):\n    total += i ** 2 % 7\nf'{total:,} {total / 3:.2f} {total!r:>10}'",
    "class Point:\n    def __init__(self, x):\n        self.x = x\n    def __repr__(self):\n        return f'P({self.x})'\nPoint(1)",
    "from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int\n    b: str = ''\n[Pair(1), Pair(2, 'z')]",
    "import datetime\n(datetime.datetime(2024, 5, 6) + datetime.timedelta(days=3)).strftime('%Y-%m-%d')",
    "import datetime\ndatetime.datetime.strptime('2024-05-06', '%Y-%m-%d').isoformat()",
    "import math, statistics\n{'mean': statistics.mean([1, 2, 3.5]), 'root': math.sqrt(2), 'set': sorted({3, 1})}",
    "from collections import Counter, defaultdict, deque\nCounter('mississippi').most_common(2)",
    "import itertools, functools\nfunctools.reduce(lambda a, b: a + b, itertools.chain([1], (2, 3)))",
    "from decimal import Decimal\nstr(Decimal('1.10') * 3)",
    "import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n\nasync def main():\n    return await asyncio.gather(f(1), f(2))\nasyncio.run(main())",
    "import csv, io\nlist(csv.DictReader(io.StringIO('a,b\\n1,2\\n')))",
    "import hashlib, base64\n[hashlib.sha256(b'x').hexdigest(), base64.b64encode(b'y').decode()]",
    "try:\n    {}['k']\nexcept KeyError as e:\n    text = str(e)\nwith open.__self__.__class__.__mro__ and __import__('io').StringIO() as f:\n    f.write('x')\ntext",
    "def gen():\n    yield from range(3)\nmatch tuple(gen()):\n    case (a, *rest):\n        out = rest\nout",
    "sorted({'b': 1, 'a': 2}.items(), key=lambda kv: -kv[1])",
    "import sys\nprint('to stderr', file=sys.stderr)\nNone",
    "import numpy as np\na = np.arange(10)\n(a * 2.5 + 1).sum(), a.mean(), a[a > 3], a.reshape(2, 5).T.shape",
    "import numpy as np\na = np.array([[1.0, 2.0], [3.0, 4.0]])\nnp.linalg.solve(a, [1, 2]), a @ a, str(a), repr(a)",
    "import numpy as np\nr = np.random.default_rng(7)\nr.normal(size=5), r.integers(0, 9, 3), np.percentile(r.random(9), 50)",
    "import numpy as np\nnp.sort([3, 1, 2]), np.unique([1, 1, 2]), np.cumsum([1, 2]), np.fft.rfft(np.ones(8)), np.sin(1.0)",
    "' '.join(w.title() for w in 'the quick brown fox'.split()).replace('Q', 'K').encode()",
)
FAILING = (
    "def f(n):\n    return 1 / n\n\nf(0)",
    "a = [1, 2]\na[5]",
    "{}['missing']",
    "undefined_name",
    "def broken(:\n    pass",
    "try:\n    int('x')\nexcept ValueError as e:\n    raise RuntimeError('chained') from e",
    "import pandas",
    "'a' + 1",
    "import numpy as np\nnp.zeros(3) + np.zeros(4)",
)

WARM_UP = [_frame("a + len(b)", {"a": 1, "b": [1.5, "two", None, {"k": False}]})]
WARM_UP += [_frame(code) for code in SNIPPETS * 12 + FAILING * 4] + [_frame("1+1")] * 200


def _warm_up_tools():
    """The way of a tool up to its call, for which there is no host yet."""
    signatures = ("(query: str, limit: int = 10) -> list", "(*, name: str = 'x', tags: list[str] | None = None)", "")
    for signature in signatures * 20:
        tool = _wasmeval_tools._make("tool", signature, "What it does.", {})
        try:
            tool("x", limit=3)
        except Exception:
            pass


def finish():
    """Forgets what the warm-up left: nothing of it may be seen by a snippet."""
    sys.modules.pop("_wasmeval_boot", None)
    sys.modules.pop("_wasmeval_report", None)
    linecache.clearcache()
    re.purge()
    warnings.resetwarnings()
    warnings.filters[:] = _FILTERS
    warnings.onceregistry.clear()
    __import__("atexit")._clear()
    stdout.flush()
    stderr.flush()
    # A script's folder comes first.
    sys.path[:] = ["/workspace", "/usr/lib/python3.13"]
    os.chdir("/workspace")
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)
    random.seed = random._inst.seed
    numpy.random.seed()
    gc.collect()
    gc.freeze()


_FILTERS = list(warnings.filters)
_refuse_processes()
_refuse_threads()
_measure_process_time()
_offer_interactive_names()
_mend_files()
_warm_up_tools()
stdout.reconfigure(line_buffering=True)
