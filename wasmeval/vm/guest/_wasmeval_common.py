"""Common: what snippets commonly import and do. It is done before the snapshot, so that it costs a look-up after it."""

from __future__ import annotations

import importlib
import warnings

COMMON = """
abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections.abc
concurrent.futures concurrent.futures.process concurrent.futures.thread configparser contextlib
contextvars copy csv ctypes dataclasses datetime decimal difflib dis email.message encodings.ascii
encodings.idna encodings.latin_1 encodings.utf_8 enum fractions functools getpass glob graphlib gzip
hashlib heapq hmac html html.parser http.client http.server importlib.metadata importlib.resources
inspect io ipaddress itertools json keyword linecache locale logging lzma math mimetypes mmap
multiprocessing multiprocessing.connection multiprocessing.pool numbers operator os pathlib pickle
platform pprint queue random re resource sched secrets select selectors shlex shutil signal site socket
socketserver sqlite3 ssl statistics string struct subprocess sys tarfile tempfile textwrap threading time
timeit tokenize traceback types typing unicodedata unittest urllib.parse urllib.request uuid warnings
weakref xml.etree.ElementTree zipfile zlib zoneinfo _strptime
""".split()
PACKAGES = """
numpy numpy.linalg numpy.fft numpy.random numpy.ma numpy.polynomial numpy.testing pandas matplotlib
matplotlib.pyplot matplotlib.backends.backend_agg requests yaml PIL.Image scipy.stats scipy.optimize
sympy
""".split()
"""Of the standard library, and of packages where they are installed."""

SNIPPETS = (
    "1+1",
    "x = 3\ny = x * 2\nprint(x, y)\ny",
    'import json\njson.dumps(json.loads(\'{"a": [1, 2.5, null, true, "t"]}\'), indent=2)',
    "def double(n):\n    return n * 2\n\n[double(i) for i in range(9) if i % 2]",
    "import re\n[m.group(1) for m in re.finditer(r'(\\w+)@(\\w+)', 'a@b c@d')]",
    "class Point:\n    def __init__(self, x):\n        self.x = x\nPoint(1)",
    "from dataclasses import dataclass\n@dataclass\nclass Pair:\n    a: int\n    b: str = ''\n[Pair(1), Pair(2, 'z')]",
    "import datetime\ndatetime.datetime.strptime('2024-05-06', '%Y-%m-%d').isoformat()",
    "import math, statistics\n{'mean': statistics.mean([1, 2, 3.5]), 'root': math.sqrt(2), 'set': sorted({3, 1})}",
    "from collections import Counter\nCounter('mississippi').most_common(2)",
    "import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n\nasyncio.run(f(1))",
    "import csv, io\nlist(csv.DictReader(io.StringIO('a,b\\n1,2\\n')))",
    "import hashlib, base64\n[hashlib.sha256(b'x').hexdigest(), base64.b64encode(b'y').decode()]",
    "import sys\nprint('to stderr', file=sys.stderr)\nNone",
    "import subprocess\nsubprocess.run(['true'], capture_output=True).returncode",
    "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()",
    "import numpy as np\na = np.arange(12.0).reshape(3, 4)\n(a @ a.T).sum() + np.linalg.norm(a)\na",
    "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2, 1], 'b': [3.0, 4, 5]})\ndf.groupby('a').sum().to_string()",
)
FAILING = (
    "def f(n):\n    return 1 / n\n\nf(0)",
    "undefined_name",
    "def broken(:\n    pass",
    "try:\n    int('x')\nexcept ValueError as e:\n    raise RuntimeError('chained') from e",
    "import a_package_that_is_not_there",
)


def import_common() -> None:
    """Loads all of it that is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in COMMON + PACKAGES:
            try:
                importlib.import_module(name)
            except Exception:
                pass  # not installed, or broken: the snippet that asks for it will hear why
