"""What selfcheck.py tries: snippets with what must come of them, as data."""

# ruff: noqa: E501, ISC004 (a snippet is easier to read as one string)

from __future__ import annotations

import math
from typing import Any

VALUES: tuple[tuple[str, Any], ...] = (
    ("1+1", 2),
    ("x = 5", 5),
    ("x = 5\nx += 2", 7),
    ("x: int = 3", 3),
    ("x: int", None),
    ("a = b = 1", None),
    ("a, b = 1, 2", None),
    ("a = [1]\na[0] = 5", None),
    ("", None),
    ("# only a comment", None),
    ("pass", None),
    ("def f(): pass", None),
    ("for i in range(3):\n    i", None),
    ("'a lone string'", "a lone string"),
    ("'a docstring'\n__doc__", "a docstring"),
    ("x = 1; x", 1),
    ("(y := 4)", 4),
    ("None", None),
    ("True", True),
    ("-7", -7),
    ("2**63", 2**63),
    ("-(2**64)", -(2**64)),
    ("10**4999 + 1 - 1 == 10**4999", True),
    ("0.1", 0.1),
    ("-0.0", -0.0),
    ("1e300 * 1e10", math.inf),
    ("float('nan')", math.nan),
    ("'\\x00\\x1f\\\"\\\\/\\u00e9\\u6f22\\U0001f600'", '\x00\x1f"\\/é漢😀'),
    ("'\\ud800'", "\ud800"),
    ("[1, (2, [3.5, None]), {'k': [True, {}]}]", [1, [2, [3.5, None]], {"k": [True, {}]}]),
    ("import enum\nclass C(enum.IntEnum):\n    A = 3\n[C.A, enum.IntFlag('F', 'X Y').Y]", [3, 2]),
    ("import enum\nclass C(enum.StrEnum):\n    A = 'a'\nC.A", "a"),
    ("from collections import namedtuple\nnamedtuple('P', 'x y')(1, 2)", [1, 2]),
    (
        "from collections import OrderedDict\nd = OrderedDict(a=1, b=2)\nd.move_to_end('a')\nlist(d) == ['b', 'a']",
        True,
    ),
    (
        "from collections import Counter, defaultdict\n[Counter('aab'), defaultdict(int, k=1)]",
        [{"a": 2, "b": 1}, {"k": 1}],
    ),
    ("v = 0\nfor _ in range(255):\n    v = [v]\nlen(str(v))", 511),
    ("__name__", "__main__"),
    (
        "import sys\n[sys.executable, sys.prefix, sys.path, sys.platform]",
        ["", "/usr", ["/workspace", "/usr/lib/python3.13"], "wasi"],
    ),
    ("import sys\nsys.modules['__main__'].__dict__ is globals()", True),
    ("import json\njson.__file__", "/usr/lib/python3.13/json/__init__.py"),
    (
        "import inspect\ndef f():\n    return 1  # here\ninspect.getsource(f)",
        "def f():\n    return 1  # here\n",
    ),
    ("import inspect, colorsys\ninspect.getsource(colorsys.rgb_to_hsv).split('(')[0]", "def rgb_to_hsv"),
    ("import pickle\nclass P:\n    pass\ntype(pickle.loads(pickle.dumps(P()))) is P", True),
    ("import typing\nclass A:\n    x: 'B'\nclass B:\n    pass\ntyping.get_type_hints(A)['x'] is B", True),
    (
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    a: 'int' = 1\ndataclasses.asdict(D())",
        {"a": 1},
    ),
    (
        "import traceback\ndef f():\n    return 1/0\ntry:\n    f()\nexcept ZeroDivisionError:\n    t = traceback.format_exc()\n'    return 1/0' in t",
        True,
    ),
    (
        "import asyncio\nasync def f(n):\n    await asyncio.sleep(0.01)\n    return n\nasync def main():\n    return await asyncio.gather(f(1), f(2))\nasyncio.run(main())",
        [1, 2],
    ),
    (
        "import asyncio\nasync def main():\n    try:\n        await asyncio.wait_for(asyncio.sleep(9), 0.01)\n    except TimeoutError:\n        return 'late'\nasyncio.run(main())",
        "late",
    ),
    (
        "import asyncio\nasync def main():\n    q = asyncio.Queue()\n    async with asyncio.timeout(5), asyncio.TaskGroup() as g:\n        g.create_task(q.put(3))\n        t = g.create_task(q.get())\n    return t.result()\nasyncio.run(main())",
        3,
    ),
    (
        "import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('create table t (a, b text)')\nc.executemany('insert into t values (?, ?)', [(1, 'x'), (2, 'y')])\nc.execute('select sum(a), group_concat(b), sqrt(4.0) from t').fetchone()",
        [3, "x,y", 2.0],
    ),
    (
        "import zlib, gzip, bz2, lzma\n[m.decompress(m.compress(b'ab' * 99)) == b'ab' * 99 for m in (zlib, gzip, bz2, lzma)]",
        [True] * 4,
    ),
    (
        "import zipfile, tarfile, io\nf = io.BytesIO()\nwith zipfile.ZipFile(f, 'w', zipfile.ZIP_LZMA) as z:\n    z.writestr('a', 'text')\nzipfile.ZipFile(f).read('a').decode()",
        "text",
    ),
    (
        "import zoneinfo, datetime\ndatetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Paris')).isoformat()",
        "2024-07-01T00:00:00+02:00",
    ),
    ("import zoneinfo\nlen(zoneinfo.available_timezones()) > 500", True),
    (
        "import hashlib\n[hashlib.new(n, b'x').hexdigest()[:4] for n in ('md5', 'sha1', 'sha256', 'sha3_256', 'blake2b')]",
        ["9dd4", "11f6", "2d71", "741e", "0909"],
    ),
    ("import hmac, hashlib\nhmac.new(b'k', b'm', 'sha256').hexdigest()[:6]", "b60090"),
    ("import hashlib\nhashlib.scrypt if hasattr(hashlib, 'scrypt') else 'absent'", "absent"),
    (
        "from decimal import Decimal, getcontext\ngetcontext().prec = 50\nstr(Decimal(2).sqrt())[:12]",
        "1.4142135623",
    ),
    ("import decimal, _decimal\ndecimal.Decimal is _decimal.Decimal", True),
    ("import xml.etree.ElementTree as E\nE.fromstring('<a><b c=\"1\"/></a>')[0].get('c')", "1"),
    ("import threading, queue\nl = threading.Lock()\nwith l:\n    pass\nthreading.Event().wait(0.01)", False),
    (
        "import queue\ntry:\n    queue.Queue().get(timeout=0.02)\nexcept queue.Empty:\n    e = 'empty'\ne",
        "empty",
    ),
    ("import random\nrandom.seed(7)\n[random.random(), random.randint(1, 9)]", [0.32383276483316237, 3]),
    ("import random\nrandom.setstate(random.getstate())\n0 <= random.random() < 1", True),
    (
        "import logging, io\ns = io.StringIO()\nlogging.basicConfig(stream=s, format='%(levelname)s %(message)s %(relativeCreated)d')\nlogging.warning('w')\ns.getvalue()",
        "WARNING w 0\n",
    ),
    (
        "import unittest, io\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(1, 1)\nunittest.TextTestRunner(stream=io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(T)).wasSuccessful()",
        True,
    ),
    ("import doctest\ndef f():\n    '''\n    >>> 1 + 1\n    2\n    '''\nlist(doctest.testmod())", [0, 1]),
    ("import tempfile, os\nos.path.exists('/usr/lib/python3.13/json')", True),
    ("import urllib.request, http.client, socket\n1", 1),
    ("try:\n    input()\nexcept EOFError:\n    x = 'end'\nx", "end"),
    (
        "import warnings\nwith warnings.catch_warnings(record=True) as w:\n    warnings.simplefilter('always')\n    warnings.warn('x')\nlen(w)",
        1,
    ),
    ("import tracemalloc\n1", 1),
    (
        "import time\na = time.process_time()\nsum(range(10**5))\na >= 0 and 0 <= time.process_time() - a < 60",
        True,
    ),
    ("hash('wasmeval') == hash('wasmeval') and len({'a', 'b'})", 2),
    ("class A(list):\n    def __init__(self):\n        super().__init__([1])\nA()", [1]),
)


def _repr(text: str, kind: str) -> dict[str, str]:
    return {"repr": text, "type": kind}


# Code behind `import numpy as np`, its value, and of the array that the value is the dtype and the shape.
ARRAYS: tuple[tuple[str, Any, str, tuple[int, ...]], ...] = (
    ("np.int64(5)", 5, "", ()),
    ("np.uint64(2**64 - 1)", 2**64 - 1, "", ()),
    ("[np.float32(0.1), np.float64(0.1), np.float16(2), np.longdouble(1.5)]", [0.10000000149011612, 0.1, 2.0, 1.5], "", ()),
    ("{'k': (np.bool_(True), np.str_('x'))}", {"k": [True, "x"]}, "", ()),
    ("np.complex128(1j)", _repr("np.complex128(1j)", "complex128"), "", ()),
    ("np.timedelta64(3, 'ns')", _repr("np.timedelta64(3,'ns')", "timedelta64"), "", ()),
    ("np.arange(3)", [0, 1, 2], "<i8", (3,)),
    ("np.arange(6).reshape(2, 3).T", [[0, 3], [1, 4], [2, 5]], "<i8", (3, 2)),
    ("np.array(2.5)", 2.5, "<f8", ()),
    ("np.arange(3, dtype='>i2')[::-1]", [2, 1, 0], ">i2", (3,)),
    ("np.array(['a', 'bc'])", ["a", "bc"], "<U2", (2,)),
    ("np.array([1j])", _repr("array([0.+1.j])", "ndarray"), "<c16", (1,)),
    ("np.array([3], 'm8[ns]')", _repr("array([3], dtype='timedelta64[ns]')", "ndarray"), "<m8[ns]", (1,)),
    ("np.array([b'a'])", _repr("array([b'a'], dtype='|S1')", "ndarray"), "|S1", (1,)),
    ("[np.arange(2), {'k': np.eye(1)}]", [[0, 1], {"k": [[1.0]]}], "", ()),
    ("np.array([1, None, 'x'], object)", [1, None, "x"], "", ()),
    ("[np.zeros(5001)] * 2 == 0", False, "", ()),
    ("a = np.empty(1, object)\na[0] = a\n[a]", _repr("[array([array(..., dtype=object)], dtype=object)]", "list"), "", ()),
    ("np.ma.array([1])", _repr("masked_array(data=[1],\n             mask=False,\n       fill_value=999999)", "MaskedArray"), "", ()),
    ("np.zeros(10000, 'i1')", [0] * 10000, "|i1", (10000,)),
)  # fmt: skip

NOT_JSON: tuple[tuple[str, str, str], ...] = (
    ("{1}", "{1}", "set"),
    ("{1: 2}", "{1: 2}", "dict"),
    ("[{'a': {1: 2}}]", "[{'a': {1: 2}}]", "list"),
    ("b'x'", "b'x'", "bytes"),
    ("1j", "1j", "complex"),
    ("import datetime\ndatetime.date(2024, 5, 6)", "datetime.date(2024, 5, 6)", "date"),
    ("a = [1]\na.append(a)\na", "[1, [...]]", "list"),
    ("v = 0\nfor _ in range(300):\n    v = [v]\nv", "[" * 300 + "0" + "]" * 300, "list"),
    (
        "class A:\n    def __repr__(self):\n        raise ValueError('no')\nA()",
        "<A object, repr failed: ValueError: no>",
        "A",
    ),
    (
        "class A:\n    def __repr__(self):\n        return 5\nA()",
        "<A object, repr failed: TypeError: __repr__ returned non-string (type int)>",
        "A",
    ),
    ("int", "<class 'int'>", "type"),
)

ERRORS: tuple[tuple[str, str, str, int, int], ...] = (
    ("1/0", "ZeroDivisionError", "division by zero", 1, 1),
    ("def f(n):\n    return 1 / n\n\nf(0)", "ZeroDivisionError", "division by zero", 2, 12),
    ("'é漢' + missing", "NameError", "name 'missing' is not defined", 1, 8),
    ("{}['k']", "KeyError", "'k'", 1, 1),
    ("x = (1,\n 2", "SyntaxError", "'(' was never closed", 1, 5),
    ("if 1:\nx", "IndentationError", "expected an indented block after 'if' statement on line 1", 2, 1),
    ("return 1", "SyntaxError", "'return' outside function", 1, 1),
    ("import json\njson.loads('[')", "JSONDecodeError", "Expecting value: line 1 column 2 (char 1)", 2, 1),
    ("raise ExceptionGroup('g', [ValueError(1)])", "ExceptionGroup", "g (1 sub-exception)", 1, 1),
    ("import json.nothing", "ModuleNotFoundError", "No module named 'json.nothing'", 1, 1),
    (
        "from math import nothing",
        "ImportError",
        "cannot import name 'nothing' from 'math' (unknown location)",
        1,
        1,
    ),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", "", 1, 1),
    (
        "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E",
        "E",
        "<exception str() failed>",
        4,
        1,
    ),
    (
        "int('9' * 5000)",
        "ValueError",
        "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; "
        "use sys.set_int_max_str_digits() to increase the limit",
        1,
        1,
    ),
    ("assert 1 == 2, 'no'", "AssertionError", "no", 1, 8),
)

TRACEBACKS: tuple[tuple[str, str], ...] = (
    (
        "def half(n):\n    return n / 0\n\nprint(half(4))",
        'Traceback (most recent call last):\n  File "<snippet>", line 4, in <module>\n    print(half(4))\n          ~~~~^^^\n'
        '  File "<snippet>", line 2, in half\n    return n / 0\n           ~~^~~\nZeroDivisionError: division by zero\n',
    ),
    (
        "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e",
        "Traceback (most recent call last):\n  File \"<snippet>\", line 2, in <module>\n    {}['a']\n    ~~^^^^^\n"
        "KeyError: 'a'\n\nThe above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "<snippet>", line 4, in <module>\n'
        "    raise ValueError('b') from e\nValueError: b\n",
    ),
    (
        "e = ValueError('x')\ne.add_note('a note')\nraise e",
        'Traceback (most recent call last):\n  File "<snippet>", line 3, in <module>\n    raise e\nValueError: x\na note\n',
    ),
    ("x = = 1", '  File "<snippet>", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n'),
    (
        "def f():\n    f()\nf()",
        'Traceback (most recent call last):\n  File "<snippet>", line 3, in <module>\n    f()\n    ~^^\n'
        '  File "<snippet>", line 2, in f\n    f()\n    ~^^\n  File "<snippet>", line 2, in f\n    f()\n    ~^^\n'
        '  File "<snippet>", line 2, in f\n    f()\n    ~^^\n  [Previous line repeated 996 more times]\n'
        "RecursionError: maximum recursion depth exceeded\n",
    ),
)

NEEDS: tuple[tuple[str, str], ...] = (
    ("import pandas", "the package 'pandas'"),
    ("import pandas.io", "the package 'pandas'"),
    ("import ctypes", "ctypes"),
    ("import _ssl", "sockets"),
    ("import curses", "a terminal"),
    ("import readline", "a terminal"),
    ("import tty", "a terminal"),
    ("import tkinter", "a display"),
    ("import fcntl", "file descriptors"),
    ("import socket\nsocket.socket()", "sockets"),
    ("import socket\nsocket.socket().connect(('example.org', 80))", "sockets"),
    *(
        (code, "needs network access: HTTP is not allowed for this evaluation")
        for code in (
            "import socket\nsocket.create_connection(('example.org', 80))",
            "import urllib.request\nurllib.request.urlopen('https://example.org')",
            "import http.client\nhttp.client.HTTPSConnection('example.org').request('GET', '/')",
            "import requests\nrequests.get('https://example.org')",
        )
    ),
    ("import subprocess\nsubprocess.run(['ls'])", "processes"),
    ("import os\nos.system('ls')", "processes"),
    ("import os\nos.fork()", "processes"),
    ("import os\nos.popen('ls')", "processes"),
    ("import threading\nthreading.Thread(target=print).start()", "threads"),
    ("import _thread\n_thread.start_new_thread(print, ())", "threads"),
    ("from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor().submit(print)", "threads"),
    ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "processes"),
    (
        "import asyncio\nasync def f():\n    await asyncio.create_subprocess_exec('ls')\nasyncio.run(f())",
        "processes",
    ),
    ("import asyncio\nasyncio.run(asyncio.to_thread(print))", "threads"),
    (
        "import asyncio\nasync def f():\n    await asyncio.open_connection('h', 1)\nasyncio.run(f())",
        "sockets",
    ),
)

MODULES = (
    "__future__ abc argparse array ast asyncio atexit base64 bdb binascii bisect builtins bz2 calendar cmath cmd code "
    "codecs codeop collections collections.abc colorsys compileall concurrent.futures configparser contextlib contextvars copy "
    "copyreg cProfile csv dataclasses datetime dbm.dumb decimal difflib dis doctest email email.message email.mime.text "
    "email.parser encodings.cp1252 encodings.utf_16 encodings.punycode enum errno faulthandler filecmp fileinput fnmatch "
    "fractions ftplib functools gc getopt getpass gettext glob graphlib gzip hashlib heapq hmac html html.parser http http.client "
    "http.cookies http.server imaplib importlib importlib.metadata importlib.resources inspect io ipaddress itertools json "
    "keyword linecache locale logging logging.config logging.handlers lzma mailbox marshal math mimetypes modulefinder "
    "multiprocessing netrc numbers opcode operator optparse os os.path pathlib pdb pickle pickletools pkgutil platform plistlib "
    "poplib posixpath pprint profile pstats py_compile pyclbr pydoc queue quopri random re reprlib rlcompleter runpy sched "
    "secrets select selectors shelve shlex shutil signal site smtplib socket socketserver sqlite3 stat statistics string "
    "stringprep struct subprocess symtable sys sysconfig tabnanny tarfile tempfile textwrap threading time timeit token tokenize "
    "tomllib trace traceback tracemalloc types typing unicodedata unittest unittest.mock urllib.error urllib.parse urllib.request "
    "urllib.robotparser uuid warnings wave weakref webbrowser wsgiref.simple_server wasmeval requests urllib3 idna charset_normalizer certifi ssl xml.dom.minidom xml.etree.ElementTree "
    "xml.sax xmlrpc.client xmlrpc.server zipapp zipfile zipimport zlib zoneinfo _pydecimal"
).split()

# One expression each, whose value must differ between instances.
RANDOM = (
    "import random\n[random.random(), random.randint(0, 10**9)]",
    "import random\nrandom.Random().random()",
    "import secrets\nsecrets.token_hex(8)",
    "import os\nos.urandom(8).hex()",
    "import uuid\n[str(uuid.uuid4()), str(uuid.uuid1())]",
    "import uuid\nuuid.uuid1().hex[12:]",
    "import tempfile\nnext(tempfile._get_candidate_names())",
    "import sqlite3\nsqlite3.connect(':memory:').execute('select random()').fetchone()[0]",
    "import email.utils\nemail.utils.make_msgid()",
)

# Each larger than 1,000 bytes of JSON.
LARGE = (
    "'x' * 5000",
    "[0] * 5000",
    "10 ** 10000",
    "{i: str(i) for i in map(str, range(5000))}",
    "a = ['x' * 100] * 100",
    "{'x' * 5000}",
)

MEMORY = (
    "[0] * 10**9",
    "b'x' * (1 << 30)",
    "x = []\nwhile True:\n    x.append('y' * 1000 + str(len(x)))",
    "x = {}\nwhile True:\n    x[len(x)] = [len(x)]",
    "x = 'y'\nwhile True:\n    x += x",
    "raise MemoryError",
)

TRAINED = (
    "import random, time, uuid\nrandom.seed(1)\n[random.random() for _ in range(50)][-1]",
    "x = {}\nfor i in range(3000):\n    x[str(i)] = [i]\nlen(x)",
    "1/0",
    "import json, re\nlen(json.dumps([re.sub('a', 'b', 'abc')] * 50))",
)

RECURSION_ERRORS = (
    "def f(n):\n    return f(n + 1)\nf(0)",
    "class A:\n    def __repr__(self):\n        return repr(self)\nrepr(A())",
    "class A:\n    def __getattr__(self, name):\n        return getattr(self, name + 'x')\nA().y",
    "class A:\n    def __eq__(self, other):\n        return self == other\nA() == A()",
    "def k(x):\n    return sorted([1, 2], key=k)\nsorted([1], key=k)",
    "def f(x):\n    return list(map(f, [x]))\nf(1)",
    "import copy\nv = []\nfor _ in range(100000):\n    v = [v]\ncopy.deepcopy(v)",
    "import json\nv = []\nfor _ in range(100000):\n    v = [v]\njson.dumps(v)",
    "import json\njson.loads('[' * 100000)",
    "import pickle\nv = []\nfor _ in range(100000):\n    v = [v]\npickle.dumps(v)",
    "v = []\nfor _ in range(100000):\n    v = [v]\nrepr(v)",
    "a, b = [], []\nfor _ in range(100000):\n    a, b = [a], [b]\na == b",
    "import re\ndef f(m):\n    return re.sub('a', f, 'a')\nre.sub('a', f, 'a')",
    "import ast\ne = ast.Constant(1)\nfor _ in range(100000):\n    e = ast.UnaryOp(ast.USub(), e)\nast.fix_missing_locations(ast.Expression(e))",
    "s = 'exec(s)'\nexec(s)",
    "import functools\n@functools.lru_cache\ndef f(n):\n    return f(n + 1)\nf(0)",
    "class A:\n    def __init_subclass__(cls):\n        type('B', (A,), {})\nclass C(A):\n    pass",
    "import sys\nsys.setrecursionlimit(10**6)\nclass A:\n    def __repr__(self):\n        return repr(self)\nrepr(A())",
    "import sys\nsys.setrecursionlimit(10**6)\ndef k(x):\n    return sorted([1, 2], key=k)\nsorted([1], key=k)",
    "t = int\nfor _ in range(100000):\n    t = list[t]\nrepr(t)",
)

# Whatever the interpreter makes of these, none may end the instance.
RECURSIONS = (
    "eval('(' * 100000)",
    "eval('-' * 100000 + '1')",
    "eval('not ' * 100000 + '1')",
    "eval('+'.join(['x'] * 100000))",
    "eval('**'.join(['1'] * 100000))",
    "eval('x' + '.a' * 100000)",
    "eval('f' + '()' * 100000)",
    "eval('lambda:' * 100000 + '1')",
    "eval('1 if 1 else ' * 100000 + '1')",
    "eval('{1:' * 3000 + '1' + '}' * 3000)",
    "eval('[' * 5000 + ']' * 5000)",
    "exec('if 0: pass\\n' + 'elif 0: pass\\n' * 20000)",
    "exec(''.join(' ' * i + 'if 1:\\n' for i in range(99)) + ' ' * 99 + 'pass')",
    "exec('match 1:\\n case ' + '|'.join(map(str, range(20000))) + ': pass')",
    "import re\nre.compile('(' * 5000 + ')' * 5000)",
    "import re\nre.match('(?:a|b)*c', 'ab' * 500000)",
    "class A:\n    def __del__(self):\n        A()\nA()\n1",
    "v = []\nfor _ in range(1000000):\n    v = [v]\ndel v\n1",
    "class N:\n    pass\nv = None\nfor _ in range(300000):\n    n = N()\n    n.v = v\n    v = n\ndel v, n\n1",
    "import xml.etree.ElementTree as E\nE.fromstring('<a>' * 100000)",
    "import sqlite3\nsqlite3.connect(':memory:').execute('select ' + '(' * 5000 + '1' + ')' * 5000)",
    "import sqlite3\nc = sqlite3.connect(':memory:')\ndef f():\n    return c.execute('select f()').fetchone()[0]\nc.create_function('f', 0, f)\nf()",
    "import itertools\nv = iter(())\nfor _ in range(100000):\n    v = itertools.chain(v, ())\nlist(v)",
    "e = ValueError()\nfor _ in range(5000):\n    e = ExceptionGroup('x', [e])\nraise e",
    "import gc\nv = []\nfor _ in range(1000000):\n    v = [v]\ngc.collect()\n1",
    "import contextvars\ndef f():\n    return contextvars.copy_context().run(f)\nf()",
)
