"""What the image makes of what an evaluation is given: tools, HTTP, waiting, files.

A part of the self-check and of the tests, against a scripted host and a real folder.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from runtimes.javascript.harness import Host, Image, Reply, expect, file_host
from runtimes.javascript.scripted import FAILED, LIMIT, REFUSED, After, Answer, Ended, Operations, Tool


def search(query: Any = None, limit: Any = 10) -> Any:
    """Finds things."""
    return [query, limit]


def wait(seconds: float) -> After:
    """Answers with its argument when so much time has passed."""
    return After(seconds, seconds)


def fail(kind: str) -> Any:
    """Fails in the way that is asked for."""
    match kind:
        case "limit":
            raise Ended(LIMIT, limit="tool_calls", message="more than 3 calls of tools")
        case "gone":
            raise Ended(FAILED, type="gone", message="nobody answers the call any more")
        case "TypeError":
            raise TypeError("not like that")
    raise LookupError("not found")


TOOLS = (
    Tool("search", search, ("query", "limit"), "(query, limit=10) -> list", "Finds things."),
    Tool("wait", wait, ("seconds",), "(seconds: float) -> float"),
    Tool("fail", fail, ("kind",)),
    Tool("exact", lambda: [2**70, float("nan"), float("-inf"), "é", None, {"a": [1.5]}]),
)


def network(head: dict[str, Any], body: bytes) -> Any:
    """Answers by the host of the URL; every other one echoes the request."""
    match head["url"].split("/")[2]:
        case "refused.test":
            raise Ended(REFUSED, message="the host refused.test is not allowed")
        case "slow.test":
            raise Ended(FAILED, type="timeout", message="no answer after 5 s")
        case "broken.test":
            raise Ended(FAILED, type="connect", message="connection refused")
        case "limit.test":
            raise Ended(LIMIT, limit="http_requests", message="more than 3 requests")
        case "never.test":
            return After(1e6, Answer())
        case "moved.test":
            return Answer(302, [("location", "/there")])
        case "empty.test":
            return Answer(204)
        case "chunks.test":
            return Answer(
                headers=[("content-type", "text/plain")], chunks=[b"one ", b"\xe2\x82", b"\xac two"]
            )
    echo = json.dumps(head | {"body": body.decode("latin-1")}).encode()
    headers = [("content-type", "application/json"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
    return Answer(headers=headers, chunks=[echo], reason="OK")


def evaluate(image: Image, code: str, *, http: bool = True, operations: Operations | None = None) -> Reply:
    """`code` with the tools and the network of this page."""
    given = operations or Operations(TOOLS, network if http else None)
    return image.evaluate(code, host=Host(operations=given))


# ---- tools --------------------------------------------------------------------------------------------------------

TOOL_VALUES: tuple[tuple[str, Any], ...] = (
    ("await search('x')", ["x", 10]),
    ("await search('x', 3)", ["x", 3]),
    ("await search('x', { limit: 3 })", ["x", 3]),
    ("await search({ query: 'x', limit: 3 })", ["x", 3]),
    ("await search({ query: 'x', page: 3 })", [{"query": "x", "page": 3}, 10]),
    ("await search('x', { query: 'y' })", ["x", {"query": "y"}]),
    ("await search({})", [{}, 10]),
    ("await search(10n ** 20n, undefined)", [10**20, None]),
    ("await search({ limit: undefined, query: -0 })", [-0.0, 10]),
    ("const big = (await exact())[0]; [typeof big, big]", ["bigint", 2**70]),
    ("(await exact()).slice(1)", [float("nan"), float("-inf"), "é", None, {"a": [1.5]}]),
    ("await Promise.all([wait(3), wait(1), wait(2)])", [3, 1, 2]),
    ("const out = []; await Promise.all([3, 1, 2].map(async n => out.push(await wait(n)))); out", [1, 2, 3]),
    ("await Promise.race([wait(3), wait(1)])", 1),
    ("[search.name, search.length, search.doc, search.signature, search.parameters]",
     ["search", 2, "Finds things.", "(query, limit=10) -> list", ["query", "limit"]]),
    ("String(search)", "/** Finds things. */\nasync function search(query, limit=10) -> list { [native code] }"),
    ("Object.keys(globalThis)", []),
    ("try { await fail('limit') } catch (e) { [e instanceof ToolLimitError, e.name, e.limit] }",
     [True, "ToolLimitError", "tool_calls"]),
    ("try { await fail('TypeError') } catch (e) { [e instanceof TypeError, e.message] }", [True, "not like that"]),
    ("try { await fail('?') } catch (e) { [e instanceof Error, e.name, e.message] }",
     [True, "LookupError", "not found"]),
    ("const settled = await Promise.allSettled([search(1), fail('?'), search(2)]); settled.map(s => s.status)",
     ["fulfilled", "rejected", "fulfilled"]),
    ("search = 5; search", 5),
)  # fmt: skip

NOT_JSON = "which JSON cannot say; send plain objects, arrays, strings, numbers, BigInts, booleans or null"
TOOL_ERRORS: tuple[tuple[str, str, str], ...] = (
    ("\nawait fail('?')", "LookupError", "not found"),
    ("\nfail('TypeError')", "TypeError", "not like that"),
    ("\nawait fail('limit')", "ToolLimitError", "more than 3 calls of tools"),
    ("\nawait fail('gone')", "ToolError", "fail: nobody answers the call any more"),
    ("\nawait search(new Map())", "TypeError", f"search: argument 1 is Map(0) {{}}, {NOT_JSON}"),
    ("\nawait search('x', { limit: search })", "TypeError",
     f"search: argument 'limit' is [AsyncFunction: search], {NOT_JSON}"),
    ("\nlet a = []; a.push(a); await search(1, a)", "TypeError",
     f"search: argument 2 is <ref *1> [ [Circular *1] ], {NOT_JSON}"),
)  # fmt: skip


def check_tools(image: Image) -> None:
    """Values both ways, names, and errors with the place of the call."""
    for code, value in TOOL_VALUES:
        reply = evaluate(image, code)
        expect(
            (reply.outcome, repr(reply.value)) == (0, repr(value)), f"{code!r} gave {reply}, not {value!r}"
        )
    for code, kind, message in TOOL_ERRORS:
        reply = evaluate(image, code)
        got = (reply.outcome, reply.type, reply.message, reply.line)
        expect(got == (1, kind, message, 2), f"{code!r} gave {got}")
        expect(
            reply.traceback.endswith(f"{kind}: {message}\n    at <snippet>:2:{reply.column}"), reply.traceback
        )
    reply = image.evaluate("[typeof ToolError, typeof search]")
    expect(reply.value == ["undefined", "undefined"], f"without tools there are {reply.value}")


# ---- waiting ------------------------------------------------------------------------------------------------------

WAITS: tuple[tuple[str, str], ...] = (
    ("wait(2).then(console.log); console.log('end')", "end\n2\n"),
    ("setTimeout(() => console.log('timer'), 1500); wait(1).then(console.log); wait(2).then(console.log)",
     "1\ntimer\n2\n"),
    (("let n = 3; setImmediate(function f() { console.log('due'); if (--n) setImmediate(f) }); "
     "for (let i = 0; i < 3; i++) { await wait(0); console.log('tool') }"), "tool\ndue\n" * 3),
    ("console.log(await Promise.race([wait(1e3), new Promise(r => setTimeout(r, 10, 'timer'))]))", "timer\n"),
    ("const t = setInterval(() => console.log('tick'), 1000); await wait(2.5); clearInterval(t)", "tick\ntick\n"),
    ("setTimeout(() => console.log('never'), 1000).unref(); await wait(0.5)", ""),
    ("AbortSignal.timeout(1000).onabort = () => console.log('never'); await wait(0.5)", ""),
    ("queueMicrotask(() => console.log('micro')); await wait(0); console.log('tool')", "micro\ntool\n"),
    ("(async () => { for (let i = 0; i < 3; i++) console.log(await wait(i)) })()", "0\n1\n2\n"),
)  # fmt: skip


def check_waiting(image: Image) -> None:
    """Calls, timers and immediates in the order of their time; the snippet is over when nothing is left."""
    for code, stdout in WAITS:
        reply = evaluate(image, code)
        expect((reply.outcome, reply.stdout) == (0, stdout), f"{code!r} gave {reply}, not {stdout!r}")
    reply = evaluate(image, "search(1); throw new RangeError('first')")
    expect((reply.outcome, reply.type) == (1, "RangeError"), f"an error with a call under way gave {reply}")


# ---- HTTP ---------------------------------------------------------------------------------------------------------

HTTP_VALUES: tuple[tuple[str, Any], ...] = (
    ("const r = await fetch('http://a.test/x'); [r.status, r.ok, r.statusText, r.url, r.type, r.redirected]",
     [200, True, "OK", "http://a.test/x", "basic", False]),
    ("const { body, ...head } = await (await fetch('http://a.test/x')).json(); head",
     {"method": "GET", "url": "http://a.test/x", "headers": [["accept", "*/*"]], "redirect": "follow",
      "seconds": None}),
    (("const r = await fetch(new URL('http://a.test'), { method: 'post', body: '€', headers: { X: ' y ' } }); "
     "const j = await r.json(); [j.method, j.headers, j.body]"),
     ["POST", [["accept", "*/*"], ["content-type", "text/plain;charset=UTF-8"], ["x", "y"]], "â\x82¬"]),
    ("(await (await fetch('http://a.test', { method: 'PUT', body: new Uint8Array([0, 255]) })).json()).body", "\0ÿ"),
    (("const body = new URLSearchParams({ a: '1 2' }); "
     "(await (await fetch('http://a.test', { method: 'PUT', body })).json()).body"), "a=1+2"),
    (("const body = new FormData(); body.append('a', 'b'); body.append('f', new File(['data'], 'x.txt')); "
     "const j = await (await fetch('http://a.test', { method: 'POST', body })).json(); "
     "const [, line] = j.body.split('\\r\\n'); "
     "[line, j.body.includes('filename=\"x.txt\"'), j.headers[1][1].slice(0, 30)]"),
     ['Content-Disposition: form-data; name="a"', True, "multipart/form-data; boundary="]),
    ("const q = new Request('http://a.test', { method: 'POST', body: 'x' }); await fetch(q); q.bodyUsed", True),
    ("const r = await fetch('http://a.test'); [r.headers.get('Content-Type'), r.headers.getSetCookie()]",
     ["application/json", ["a=1", "b=2"]]),
    ("await (await fetch('http://chunks.test')).text()", "one € two"),
    ("const n = []; for await (const c of (await fetch('http://chunks.test')).body) n.push(c.length); n", [4, 2, 5]),
    (("const reader = (await fetch('http://chunks.test')).body.getReader(); "
     "const all = await Promise.all([1, 2, 3, 4].map(() => reader.read())); all.map(x => x.done)"),
     [False, False, False, True]),
    ("const r = await fetch('http://chunks.test'); const c = r.clone(); [await r.text(), (await c.bytes()).length]",
     ["one € two", 11]),
    ("const r = await fetch('http://chunks.test'); await r.body.cancel(); r.bodyUsed", True),
    ("const r = await fetch('http://empty.test'); [r.status, r.body, await r.text()]", [204, None, ""]),
    ("(await fetch('http://moved.test', { redirect: 'manual' })).status", 302),
    ("const r = await fetch('http://a.test', { signal: AbortSignal.timeout(1e6) }); r.status", 200),
    ("try { await fetch('http://slow.test') } catch (e) { [e.name, e instanceof DOMException] }",
     ["TimeoutError", True]),
    ("try { await fetch('http://broken.test') } catch (e) { [e.name, e.cause.message, e.cause.code] }",
     ["TypeError", "connection refused", "CONNECT"]),
    (("const c = new AbortController(); setTimeout(() => c.abort(), 5); "
     "try { await fetch('http://never.test', c) } catch (e) { [e.name, e === c.signal.reason] }"),
     ["AbortError", True]),
    ("const h = new Headers([['b', '1'], ['a', '2']]); h.append('B', '3'); [...h]", [["a", "2"], ["b", "1, 3"]]),
    ("const r = Response.json({ a: 1 }, { status: 201 }); [r.status, await r.json()]", [201, {"a": 1}]),
    ("(await new Response(new Blob(['a', new Uint8Array([98])], { type: 'T' })).blob()).type", "t"),
)  # fmt: skip

HTTP_ERRORS: tuple[tuple[str, str, str], ...] = (
    ("await fetch('http://refused.test')", "TypeError", "fetch failed: the host refused.test is not allowed"),
    ("await fetch('http://limit.test')", "TypeError", "fetch failed: more than 3 requests"),
    ("await fetch('http://slow.test')", "TimeoutError", "fetch failed: no answer after 5 s"),
    ("await fetch('http://moved.test', { redirect: 'error' })", "TypeError", "fetch failed: unexpected redirect"),
    ("await fetch('http://never.test', { signal: AbortSignal.timeout(5) })", "TimeoutError",
     "The operation was aborted due to timeout"),
    ("await fetch('ftp://a.test')", "TypeError", "fetch failed: unknown scheme of ftp://a.test/"),
    ("await fetch('/x')", "TypeError", "Failed to parse URL from /x"),
    ("await fetch('http://a.test', { body: 'x' })", "TypeError", "Request with GET/HEAD method cannot have body."),
    ("new Headers({ 'a b': 1 })", "TypeError", "Headers.append: a b is an invalid header name."),
    ("new Headers({ a: 'b\\nc' })", "TypeError", "Headers.append: b\nc is an invalid header value."),
    ("const r = new Response('x'); await r.text(); await r.text()", "TypeError",
     "Body is unusable: Body has already been read"),
)  # fmt: skip


def check_http(image: Image) -> None:
    """Requests as they are sent, responses as they are read, and why there is none."""
    for code, value in HTTP_VALUES:
        reply = evaluate(image, code)
        expect(
            (reply.outcome, repr(reply.value)) == (0, repr(value)), f"{code!r} gave {reply}, not {value!r}"
        )
    for code, kind, message in HTTP_ERRORS:
        reply = evaluate(image, code)
        got = (reply.outcome, reply.type, reply.message)
        expect(got == (1, kind, message), f"{code!r} gave {got}")
    reply = evaluate(image, "\nawait fetch('http://a.test')", http=False)
    need = "needs network access: HTTP is not allowed for this evaluation"
    expect((reply.outcome, reply.message, reply.line) == (3, need, 2), f"fetch without leave gave {reply}")
    for code in ("c.abort(); await null", "await r.body.cancel()"):
        given = Operations((), network)
        start = "const c = new AbortController(), r = await fetch('http://chunks.test', c); "
        reply = evaluate(image, start + code, operations=given)
        expect(given.dropped == [1001], f"{code!r} dropped {given.dropped} and gave {reply}")


# ---- files --------------------------------------------------------------------------------------------------------

FILE_VALUES: tuple[tuple[str, Any], ...] = (
    ("fs.writeFileSync('a.txt', 'é\\n'); fs.appendFileSync('a.txt', 'b'); fs.readFileSync('a.txt', 'utf8')", "é\nb"),
    ("fs.writeFileSync('a', Buffer.from([0, 255])); [...fs.readFileSync('/workspace/a')]", [0, 255]),
    ("[fs.readFileSync('in/data.csv').toString(), fs.readFileSync('in/data.csv', 'hex')]", ["a,b\n", "612c620a"]),
    (("const bytes = new Uint8Array(3e6).fill(7); fs.writeFileSync('big', bytes); fs.copyFileSync('big', 'copy'); "
     "const read = fs.readFileSync('copy'); [read.length, read.every(b => b === 7), fs.statSync('copy').size]"),
     [3_000_000, True, 3_000_000]),
    (("const recursive = true; fs.mkdirSync('x/y/z', { recursive }); fs.writeFileSync('x/y/f', ''); "
     "fs.readdirSync('.', { recursive })"),
     ["in", "in/data.csv", "x", "x/y", "x/y/f", "x/y/z"]),
    ("fs.readdirSync('in', { withFileTypes: true }).map(e => [e.name, e.parentPath, e.isFile(), e.isDirectory()])",
     [["data.csv", "in", True, False]]),
    (("for (let i = 0; i < 2000; i++) fs.writeFileSync(`in/a-rather-long-name-for-a-file-${i}`, ''); "
     "new Set(fs.readdirSync('in')).size"), 2001),
    (("fs.mkdirSync('a/b', { recursive: true }); fs.writeFileSync('a/b/c', ''); fs.rmSync('a', { recursive: true }); "
     "fs.rmSync('a', { force: true }); fs.existsSync('a')"), False),
    ("fs.renameSync('in/data.csv', 'moved.csv'); [fs.readdirSync('in'), fs.readdirSync('.')]",
     [[], ["in", "moved.csv"]]),
    ("fs.mkdirSync('d'); fs.rmdirSync('d'); fs.unlinkSync('in/data.csv'); fs.readdirSync('/workspace/in/..')", ["in"]),
    (("const s = fs.statSync('in'), l = fs.lstatSync('in/data.csv'); "
     "[s.isDirectory(), l.isFile(), l.size, l.mtime instanceof Date, typeof l.mtimeMs]"),
     [True, True, 4, True, "number"]),
    ("fs.statSync('none', { throwIfNoEntry: false })", None),
    ("const p = require('node:fs/promises'); await p.writeFile('a', 'x'); await p.readFile('a', 'utf8')",
     "x"),
    ("await new Promise(done => fs.readFile('in/data.csv', 'utf8', (error, text) => done([error, text])))",
     [None, "a,b\n"]),
    ("[fs.readFileSync(0, 'utf8'), fs.readFileSync('/dev/stdin', 'utf8')]", ["typed\n", ""]),
    ("require('fs') === require('node:fs') && fs.promises === require('fs/promises')", True),
    ("(await import('node:fs')).readFileSync('in/data.csv', 'utf8')", "a,b\n"),
)  # fmt: skip

FILE_ERRORS: tuple[tuple[str, str, str], ...] = (
    ("fs.readFileSync('none')", "ENOENT", "ENOENT: no such file or directory, open 'none'"),
    ("fs.readFileSync('../../etc/passwd')", "ENOENT", "ENOENT: no such file or directory, open '../../etc/passwd'"),
    ("fs.readFileSync('in')", "EISDIR", "EISDIR: illegal operation on a directory, read"),
    ("fs.readdirSync('none')", "ENOENT", "ENOENT: no such file or directory, scandir 'none'"),
    ("fs.readdirSync('in/data.csv')", "ENOTDIR", "ENOTDIR: not a directory, scandir 'in/data.csv'"),
    ("fs.mkdirSync('in')", "EEXIST", "EEXIST: file already exists, mkdir 'in'"),
    ("fs.mkdirSync('in/data.csv/x', { recursive: true })", "ENOTDIR",
     "ENOTDIR: not a directory, mkdir 'in/data.csv/x'"),
    ("fs.rmdirSync('in')", "ENOTEMPTY", "ENOTEMPTY: directory not empty, rmdir 'in'"),
    ("fs.rmSync('in')", "ERR_FS_EISDIR", "Path is a directory: rm returned EISDIR (is a directory) in"),
    ("fs.renameSync('a', 'b')", "ENOENT", "ENOENT: no such file or directory, rename 'a' -> 'b'"),
    ("fs.copyFileSync('in/data.csv', 'in/data.csv', 1)", "EEXIST",
     "EEXIST: file already exists, copyfile 'in/data.csv' -> 'in/data.csv'"),
    ("fs.writeFileSync('in/data.csv', 'x', { flag: 'wx' })", "EEXIST",
     "EEXIST: file already exists, open 'in/data.csv'"),
    ("await fs.promises.stat('')", "ENOENT", "ENOENT: no such file or directory, stat ''"),
    ("fs.accessSync('/', fs.constants.W_OK)", "EROFS", "EROFS: read-only file system, access '/'"),
    ("fs.readFileSync(3)", "EBADF", "EBADF: bad file descriptor, read"),
    ("fs.readFileSync('a\\0')", "ERR_INVALID_ARG_VALUE",
     "The argument 'path' must be a string, Uint8Array, or URL without null bytes. Received 'a\\x00'"),
    ("require('fs').writeFileSync('a', {})", "ERR_INVALID_ARG_TYPE",
     ('The "data" argument must be of type string or an instance of Buffer, TypedArray, or DataView. '
     "Received an instance of Object")),
)  # fmt: skip


def evaluate_with_files(image: Image, code: str) -> Reply:
    """`code` where `/workspace/in/data.csv` is, and something was typed."""
    with tempfile.TemporaryDirectory() as folder:
        host = file_host(Path(folder), stdin=b"typed\n")
        data = Path(folder) / "root" / "workspace" / "in" / "data.csv"
        data.parent.mkdir()
        data.write_text("a,b\n")
        return image.evaluate(f"const fs = require('fs'); {code}", host=host)


def check_files(image: Image) -> None:
    """What is written is read again, and what fails says so as node does."""
    for code, value in FILE_VALUES:
        reply = evaluate_with_files(image, code)
        expect(
            (reply.outcome, repr(reply.value)) == (0, repr(value)), f"{code!r} gave {reply}, not {value!r}"
        )
    for code, kind, message in FILE_ERRORS:
        reply = evaluate_with_files(image, f"try {{ {code} }} catch (e) {{ [e.code, e.message] }}")
        expect(reply.value == [kind, message], f"{code!r} gave {reply}")
    details = "catch (e) { ({ ...e }) }"
    reply = evaluate_with_files(image, f"try {{ fs.readFileSync('none') }} {details}")
    expected = {"errno": -2, "code": "ENOENT", "syscall": "open", "path": "none"}
    expect(reply.value == expected, f"the details of an error are {reply.value}")


def check(image: Image) -> None:
    """All of this page."""
    check_tools(image)
    check_waiting(image)
    check_http(image)
    check_files(image)
