"""Cases of what an evaluation may be given: tools, HTTP, files. Each is a snippet with its value or its error."""

from __future__ import annotations

import json
from typing import Any

from runtimes.python.scripted import FAILED, LIMIT, RAISED, REFUSED, Outcome, ScriptedHost, done, told

Case = tuple[str, Any]


class Raises(tuple[str, str]):
    """The type of the exception that ends a snippet, and a part of its text."""


def tool_host() -> ScriptedHost:
    """`search` gives back its arguments; the others fail each in its own way; `never` does not end."""
    return ScriptedHost(
        tools={
            "search": lambda args, kwargs: done([args, kwargs]),
            "fail": lambda args, kwargs: told(RAISED, type=args[0], message=args[1]),
            "limited": lambda args, kwargs: told(LIMIT, limit="tool_calls", message="more than 3 calls"),
            "gone": lambda args, kwargs: told(FAILED, type="gone", message="the caller has gone"),
            "never": lambda args, kwargs: None,
        },
        signatures={
            "search": (
                "(query: str, limit: int = 10, *, tags: list[str] | None = <object object at 0x7f>) -> list"
            ),
            "fail": "(kind, message, /)): pass; import os; def x(",
        },
    )


_MAIN = "import asyncio\nasync def main():\n    {}\nasyncio.run(main())"

TOOLS: tuple[Case, ...] = (
    ("search('x', limit=3)", [["x"], {"limit": 3}]),
    ("[search(n)[0][0] for n in range(3)] + [r[0][0] for r in map(search, 'ab')]", [0, 1, 2, "a", "b"]),
    ("import functools\nfunctools.partial(search, limit=4)('q')", [["q"], {"limit": 4}]),
    (
        (
            "search((1, {'k': None, 'f': 2.5, 'n': float('inf')}))[0] == [[1, {'k': None, 'f': 2.5, "
            "'n': float('inf')}]]"
        ),
        True,
    ),
    ("search(10 ** 5000)[0][0] == 10 ** 5000", True),
    ("search('é\\ud800😀')[0]", ["é\ud800😀"]),
    (
        "import inspect\nstr(inspect.signature(search))",
        "(query: str, limit: int = 10, *, tags: list[str] | None = <object object at 0x7f>) -> list",
    ),
    ("[search.__name__, search.__doc__, type(search).__name__]", ["search", "What search does.", "function"]),
    (
        "import inspect\n[str(inspect.signature(never)), str(inspect.signature(fail))]",
        ["(*args, **kwargs)"] * 2,
    ),
    (
        (
            "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n"
            "    help(search)\n"
            "'limit: int = 10' in out.getvalue() and 'What search does.' in out.getvalue()"
        ),
        True,
    ),
    ("search()", Raises(("TypeError", "search() missing 1 required positional argument: 'query'"))),
    (
        "search('a', 1, 2)",
        Raises(("TypeError", "search() takes from 1 to 2 positional arguments but 3 were given")),
    ),
    ("search('a', page=1)", Raises(("TypeError", "search() got an unexpected keyword argument 'page'"))),
    ("search({1})", Raises(("TypeError", "search() argument 'query' is not JSON: it is of type set"))),
    (
        "search('x', limit=[{2: 3}])",
        Raises(("TypeError", "argument 'limit' is not JSON: a key is of type int")),
    ),
    ("v = []\nv.append(v)\nsearch(v)", Raises(("TypeError", "is not JSON: it is nested more than 256 deep"))),
    ("fail('ValueError', 'bad')", Raises(("ValueError", "bad"))),
    ("fail('KeyError', \"'tea'\")", Raises(("KeyError", "'tea'"))),
    ("fail('TeapotError', 'short and stout')", Raises(("ToolError", "short and stout"))),
    ("fail('MemoryError', 'host')", Raises(("ToolError", "host"))),
    ("fail('StopIteration', 'host')", Raises(("ToolError", "host"))),
    ("limited()", Raises(("ToolLimitError", "more than 3 calls"))),
    ("gone()", Raises(("ToolError", "the caller has gone"))),
    ("never()", Raises(("ToolError", "nobody answers this call any more"))),
    (
        (
            "from wasmeval import ToolError, ToolLimitError\nseen = []\n"
            "for tool in (lambda: fail('Odd', 'x'), limited, gone):\n"
            "    try:\n        tool()\n    except ToolError as error:\n"
            "        seen.append([error.type, getattr(error, 'limit', None)])\nseen"
        ),
        [["Odd", None], ["limit", "tool_calls"], ["gone", None]],
    ),
    (
        _MAIN.format("return [r[0][0] for r in await asyncio.gather(*(search.aio(n) for n in range(5)))]"),
        list(range(5)),
    ),
    (
        _MAIN.format(
            "task = asyncio.create_task(search.aio(1))\n    async with asyncio.TaskGroup() as group:\n"
            "        other = group.create_task(search.aio(2))\n"
            "    return [await task, other.result(), search(3)]"
        ),
        [[[1], {}], [[2], {}], [[3], {}]],
    ),
    (
        _MAIN.format("return await asyncio.gather(fail.aio('ValueError', 'x'), search.aio(1))"),
        Raises(("ValueError", "x")),
    ),
    (
        _MAIN.format(
            "return [str(r) for r in await asyncio.gather(fail.aio('OSError', 'x'), return_exceptions=True)]"
        ),
        ["x"],
    ),
    (
        _MAIN.format("return search.aio({1})"),
        Raises(("TypeError", "search.aio() argument 'query' is not JSON")),
    ),
    (_MAIN.format("return await never.aio()"), Raises(("ToolError", "nobody answers this call any more"))),
    (
        _MAIN.format(
            "try:\n        await asyncio.wait_for(never.aio(), 0.01)\n    except TimeoutError:\n"
            "        return 'late'"
        ),
        "late",
    ),
    (
        _MAIN.format(
            "seen = []\n    async def tick():\n        for n in range(3):\n"
            "            await asyncio.sleep(0)\n"
            "            seen.append(n)\n    await asyncio.gather(tick(), search.aio(1))\n    return seen"
        ),
        [0, 1, 2],
    ),
    ("import inspect\ninspect.iscoroutinefunction(search.aio)", True),
    ("import asyncio\nasyncio.run(search.aio(1))", [[1], {}]),
    (
        "asyncio_free = search.aio(1)\nasyncio_free.send(None)",
        Raises(("RuntimeError", "no running event loop")),
    ),
)


def http_host() -> ScriptedHost:
    """Answers by the host of the URL."""
    host = ScriptedHost()

    def respond(head: dict[str, Any], body: bytes) -> Outcome:
        url = head["url"]
        name = url.split("/")[2].split(":")[0]
        if name in _FAILURES:
            return _FAILURES[name]
        match name:
            case "stream.test":
                return host.respond(
                    200, [["Content-Type", "text/plain"]], b"a" * 10, b"b" * 300_000, b"c" * 5
                )
            case "gzip.test":
                return host.respond(
                    200, [["Content-Encoding", "gzip"], ["Content-Length", "3"]], b"decoded text"
                )
            case "absent.test":
                return host.respond(404, [["Content-Length", "4"]], b"gone")
            case "moved.test" if url.endswith("/old"):
                return host.respond(302, [["Location", "/new"], ["Content-Length", "0"]], b"")
        echoed = json.dumps({**head, "body": body.decode("latin-1")}).encode()
        return host.respond(200, [["Content-Type", "application/json"], ["X-Own", "1"]], echoed)

    host.http = respond
    return host


_FAILURES = {
    "refused.test": told(REFUSED, message="no rule allows GET refused.test"),
    "slow.test": told(FAILED, type="timeout", message="no answer within 1 s"),
    "closed.test": told(FAILED, type="connect", message="nobody listens there"),
    "limited.test": told(LIMIT, limit="http_requests", message="more than 4 requests"),
}

HTTP: tuple[Case, ...] = (
    (
        (
            "import urllib.request, json\nwith urllib.request.urlopen('https://echo.test/a?b=1') as r:\n"
            "    told = json.load(r)\n"
            "[r.status, r.headers['X-Own'], told['url'], told['method'], told['redirect'], told['seconds']]"
        ),
        [200, "1", "https://echo.test/a?b=1", "GET", "manual", None],
    ),
    (
        (
            "import urllib.request, json\n"
            "q = urllib.request.Request('http://echo.test:81/x', b'text', {'A': 'b'})\n"
            "t = json.load(urllib.request.urlopen(q, timeout=3))\n"
            "[t['url'], t['method'], t['body'], dict(t['headers'])['A'], t['seconds']]"
        ),
        ["http://echo.test:81/x", "POST", "text", "b", 3],
    ),
    (
        "import requests\nrequests.get('https://echo.test/', params={'q': 'é ü'}).json()['url']",
        "https://echo.test/?q=%C3%A9+%C3%BC",
    ),
    (
        "import requests\nr = requests.post('https://echo.test/', json={'a': 1})\n[r.ok, r.json()['body']]",
        [True, '{"a": 1}'],
    ),
    ("import requests\nrequests.put('http://echo.test/', data=iter([b'ab', b'cd'])).json()['body']", "abcd"),
    (
        (
            "import requests\nr = requests.post('https://moved.test/old', data={'k': 'v'})\n"
            "[r.url, [h.status_code for h in r.history], r.json()['method']]"
        ),
        ["https://moved.test/new", [302], "GET"],
    ),
    (
        (
            "import requests\nr = requests.get('https://stream.test/', stream=True)\n"
            "sum(len(c) for c in r.iter_content(4096))"
        ),
        300_015,
    ),
    (
        "import requests\nr = requests.get('https://gzip.test/')\n[r.text, dict(r.headers)]",
        ["decoded text", {"Content-Length": "12", "Connection": "close"}],
    ),
    (
        "import requests\nrequests.get('https://absent.test/').raise_for_status()",
        Raises(("HTTPError", "404")),
    ),
    (
        (
            "import requests\nwith requests.Session() as s:\n    s.headers['X-Mine'] = 'z'\n    names = []\n"
            "    for n in range(2):\n"
            "        names.append(dict(s.get('https://echo.test/').json()['headers'])['X-Mine'])\nnames"
        ),
        ["z", "z"],
    ),
    (
        (
            "import http.client\nc = http.client.HTTPSConnection('absent.test')\n"
            "c.request('HEAD', '/')\nr = c.getresponse()\n"
            "[r.status, r.getheader('Content-Length'), r.read()]\n[r.status, r.getheader('Content-Length')]"
        ),
        [404, "4"],
    ),
    (
        "import urllib.request\nurllib.request.urlopen('https://refused.test/')",
        Raises(("URLError", "no rule allows GET refused.test")),
    ),
    (
        "import requests\nrequests.get('https://refused.test/')",
        Raises(("ConnectionError", "no rule allows GET refused.test")),
    ),
    (
        "import urllib.request\nurllib.request.urlopen('https://closed.test/')",
        Raises(("URLError", "nobody listens there")),
    ),
    (
        "import urllib.request\nurllib.request.urlopen('https://slow.test/', timeout=1)",
        Raises(("TimeoutError", "no answer within 1 s")),
    ),
    (
        (
            "import requests\ntry:\n    requests.get('https://slow.test/', timeout=1)\n"
            "except requests.ReadTimeout:\n    seen = True\nseen"
        ),
        True,
    ),
    (
        "import urllib.request\nurllib.request.urlopen('https://limited.test/')",
        Raises(("URLError", "more than 4 requests")),
    ),
    (
        "import socket\ns = socket.create_connection(('echo.test', 25))\ns.recv(9)",
        Raises(("OSError", "HTTP requests alone")),
    ),
    ("import socket\nsocket.socket().bind(('', 80))", Raises(("OSError", "no sockets"))),
    ("import socket\nsocket.socket(type=socket.SOCK_DGRAM)", Raises(("OSError", "no sockets"))),
    ("import importlib.metadata\nimportlib.metadata.version('requests')[0]", "2"),
)

FILES: tuple[Case, ...] = (
    ("import os\n[os.getcwd(), os.listdir()]", ["/workspace", ["helper.py"]]),
    ("import helper\nhelper.answer", 42),
    ("open('a.txt', 'w').write('hi')\n[open('a.txt').read(), open('/workspace/a.txt').read()]", ["hi", "hi"]),
    (
        (
            "import os\nos.makedirs('a/b')\nos.chdir('a/b')\nat = [os.getcwd()]\nos.chdir('..')\n"
            "at.append(os.getcwd())\nat"
        ),
        ["/workspace/a/b", "/workspace/a"],
    ),
    ("import os\nos.chdir('absent')", Raises(("FileNotFoundError", "'absent'"))),
    ("import os\nos.chmod('absent', 0o600)", Raises(("FileNotFoundError", "'absent'"))),
    (
        (
            "import os\nopen('f', 'w').write('12345')\nos.truncate('f', 2)\nos.utime('f', (1, 2))\n"
            "os.symlink('f', 'l')\n"
            "os.rename('f', 'g')\nos.replace('g', 'h')\n"
            "seen = [os.stat('h').st_size, os.stat('h').st_mtime, os.readlink('l'), "
            "sorted(e.name for e in os.scandir())]\n"
            "os.remove('h')\nos.mkdir('q')\nos.rmdir('q')\n"
            "seen + [oct(os.stat('.').st_mode), oct(os.stat('helper.py').st_mode)]"
        ),
        [2, 2.0, "f", ["h", "helper.py", "l"], "0o40755", "0o100644"],
    ),
    (
        (
            "import shutil, os\nos.mkdir('s')\nopen('s/f', 'w').write('x')\n"
            "shutil.copytree('s', 't')\nshutil.copy('s/f', 'u')\n"
            "shutil.copy2('s/f', 'w')\nshutil.move('u', 'v')\nshutil.rmtree('t')\n"
            "[shutil.make_archive('z', 'zip', 's'), shutil.make_archive('z', 'gztar', 's'), "
            "sorted(os.listdir())]"
        ),
        ["/workspace/z.zip", "/workspace/z.tar.gz", ["helper.py", "s", "v", "w", "z.tar.gz", "z.zip"]],
    ),
    (
        (
            "import tempfile, os\nwith tempfile.TemporaryDirectory() as d:\n"
            "    open(os.path.join(d, 'x'), 'w').write('1')\n"
            "    seen = [d[:5], os.listdir(d)]\nwith tempfile.TemporaryFile() as f:\n"
            "    f.write(b'abc')\n    f.seek(0)\n"
            "    seen.append(f.read().decode())\nseen + [os.path.exists(d)]"
        ),
        ["/tmp/", ["x"], "abc", False],
    ),
    (
        (
            "import csv\nwith open('x.csv', 'w', newline='') as f:\n"
            "    csv.writer(f).writerows([['a', 'b'], [3, 4]])\n"
            "list(csv.DictReader(open('x.csv')))"
        ),
        [{"a": "3", "b": "4"}],
    ),
    (
        (
            "import zipfile, gzip, pathlib\npathlib.Path('y').write_text('1')\n"
            "with zipfile.ZipFile('z', 'w') as z:\n    z.write('y')\n"
            "with gzip.open('g', 'wb') as g:\n    g.write(b'x' * 99)\n"
            "zipfile.ZipFile('z').extractall('out')\n"
            "[pathlib.Path('out/y').read_text(), len(gzip.open('g').read())]"
        ),
        ["1", 99],
    ),
    (
        (
            "import sqlite3\nwith sqlite3.connect('a.db') as a:\n    a.execute('create table t(n)')\n"
            "    a.executemany('insert into t values (?)', [(n,) for n in range(5000)])\n"
            "b = sqlite3.connect('a.db', timeout=0)\n"
            "a.execute('begin immediate')\na.execute('delete from t')\n"
            "seen = [b.execute('select count(*) from t').fetchone()[0]]\n"
            "try:\n    b.execute('delete from t')\nexcept sqlite3.OperationalError as error:\n"
            "    seen.append(str(error))\n"
            "a.rollback()\nb.execute('delete from t where n > 5')\nb.commit()\nb.execute('vacuum')\n"
            "seen + [a.execute('select sum(n) from t').fetchone()[0], "
            "a.execute('pragma integrity_check').fetchone()[0],\n"
            "    a.execute('pragma journal_mode').fetchone()[0]]"
        ),
        [5000, "database is locked", 15, "ok", "delete"],
    ),
    (
        (
            "import sqlite3, os\nos.mkdir('sub')\nos.chdir('sub')\n"
            "sqlite3.connect('../b.db').execute('create table t(n)')\n"
            "c = sqlite3.connect('file:/workspace/b.db?mode=ro', uri=True)\ntry:\n"
            "    c.execute('delete from t')\n"
            "except sqlite3.OperationalError as error:\n    seen = str(error)\nseen"
        ),
        "attempt to write a readonly database",
    ),
    (
        "import sqlite3\nsqlite3.connect('absent/x.db')",
        Raises(("OperationalError", "unable to open database file")),
    ),
    (
        (
            "import shelve\nwith shelve.open('s') as s:\n    s['k'] = [1]\n"
            "with shelve.open('s') as s:\n    kept = s['k']\nkept"
        ),
        [1],
    ),
    ("input()", Raises(("EOFError", "EOF when reading a line"))),
)
