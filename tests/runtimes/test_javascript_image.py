"""The JavaScript image in the package keeps the promises of the guest ABI, under plain wasmtime-py."""

from __future__ import annotations

import json
import lzma
import struct
from pathlib import Path

import pytest

from runtimes.javascript import grantcheck, selfcheck
from runtimes.javascript.harness import Host, Image, file_host
from runtimes.javascript.scripted import NO_SUCH_OPERATION, NOTHING_UNDER_WAY, Operations, Tool


@pytest.fixture(scope="module")
def image() -> Image:
    manifest = json.loads((selfcheck.IMAGES / "manifest.json").read_text())
    wasm = lzma.decompress((selfcheck.IMAGES / manifest["image"]["file"]).read_bytes())
    assert selfcheck.sha256(wasm) == manifest["image"]["sha256"]
    assert len(wasm) == manifest["image"]["bytes"]
    # only the recursion check needs the manifest's stack, and a thread to have it in
    return Image(wasm, max_wasm_stack=1 << 20, warm_up=manifest["warm_up"])


def test_exports_and_imports_are_those_of_the_abi(image: Image) -> None:
    selfcheck.check_interface(image)


def test_values_inputs_and_output(image: Image) -> None:
    selfcheck.check_values(image)


def test_failures_have_their_outcome_type_and_line(image: Image) -> None:
    selfcheck.check_failures(image)


def test_two_instances_share_no_randomness_and_see_the_clock(image: Image) -> None:
    selfcheck.check_freshness(image)


def test_fuel_is_the_same_each_time(image: Image) -> None:
    selfcheck.check_determinism(image)


def test_a_value_of_exactly_the_limit_passes_and_one_byte_more_does_not(image: Image) -> None:
    assert image.evaluate("'x'.repeat(98)", value_limit=100).value == "x" * 98
    assert image.evaluate("'x'.repeat(99)", value_limit=100).outcome == 2


def test_texts_of_an_error_are_cut_to_the_limits_of_the_frame(image: Image) -> None:
    reply = image.evaluate("const e = new Error('é'.repeat(1e5)); e.name = 'N'.repeat(1e4); throw e")
    assert reply.outcome == 1
    assert len(reply.type.encode()) <= 256
    assert len(reply.message.encode()) <= 8_192
    assert len(reply.traceback.encode()) <= 32_768
    assert reply.traceback.startswith("<snippet>:1\n")


def test_what_is_no_request_is_answered_as_an_error(image: Image) -> None:
    instance = image.instance(Host())
    store, memory, exports = instance["store"], instance["memory"], instance["exports"]
    for frame in (b"", b"\1\0\0\0" * 3, b"\2" + bytes(15), b"\1\0\0\0\0\1\0\0" + b"\xff" * 8):
        address = exports["wasmeval_reserve"](store, len(frame)) & 0xFFFFFFFF
        memory.write(store, frame, address)
        packed = exports["wasmeval_evaluate"](store, len(frame)) & 0xFFFFFFFFFFFFFFFF
        start, length = packed >> 32, packed & 0xFFFFFFFF
        reply = selfcheck.decode(bytes(memory.read(store, start, start + length)), Host(), 0, 0.0)
        assert (reply.outcome, reply.message) == (1, "malformed request frame")


@pytest.mark.parametrize("inputs", ["{", "[]", '{"a": }', '{"a": 1,}', '{"a" 1}', '{"a": ' + "[" * 100_000])
def test_inputs_that_are_no_json_are_an_error(image: Image, inputs: str) -> None:
    reply = image.evaluate("1", inputs)
    assert (reply.outcome, reply.type) == (1, "SyntaxError")


def test_tools_take_and_give_values_and_raise_where_they_were_called(image: Image) -> None:
    grantcheck.check_tools(image)


def test_calls_timers_and_immediates_come_in_the_order_of_their_time(image: Image) -> None:
    grantcheck.check_waiting(image)


def test_fetch_sends_requests_reads_responses_and_says_why_there_is_none(image: Image) -> None:
    grantcheck.check_http(image)


def test_files_are_read_written_and_refused_as_in_node(image: Image) -> None:
    grantcheck.check_files(image)


def test_inputs_stand_above_tools_of_their_name(image: Image) -> None:
    host = Host(operations=Operations([Tool("x", lambda: "tool")]))
    assert image.evaluate("x", {"x": "input"}, host=host).value == "input"


def test_calls_work_whatever_the_snippet_has_done_to_built_in_classes(image: Image) -> None:
    code = (
        "Promise.prototype.then = Map.prototype.get = Array.prototype.push = JSON.stringify = "
        "() => { throw new Error('patched') }; await search('x')"
    )
    assert grantcheck.evaluate(image, code).value == ["x", 10]


def test_a_snippet_cannot_reach_the_natives_of_the_library(image: Image) -> None:
    code = (
        "const seen = []; const f = Function.prototype.call; "
        "Function.prototype.call = function (...a) { seen.push(typeof this); return f.apply(this, a) }; "
        "require('fs').existsSync('x'); await search(1); seen.length"
    )
    assert grantcheck.evaluate(image, code).value == 0


class Sulking(Operations):
    """A host that takes no call, or forgets those that it took."""

    def operate(self, request: bytes) -> bytes | int:
        match request[0]:
            case 1 if b'"refused"' in request:
                return NO_SUCH_OPERATION
            case 1:
                return struct.pack("<I", 7)
            case 5:
                return NOTHING_UNDER_WAY
        return super().operate(request)


def test_a_call_that_the_host_does_not_take_is_a_limit_error(image: Image) -> None:
    host = Host(operations=Sulking([Tool("ask", lambda text: text, ("text",))]))
    reply = image.evaluate("await ask('refused')", host=host)
    assert (reply.outcome, reply.type) == (1, "ToolLimitError")
    assert reply.message.startswith("ask: the host takes no call with 45 characters of arguments")


def test_calls_that_the_host_forgot_fail_and_do_not_hang(image: Image) -> None:
    host = Host(operations=Sulking([Tool("ask", lambda text: text, ("text",))]))
    reply = image.evaluate("try { await ask('x') } catch (e) { [e.name, e.message] }", host=host)
    assert reply.value == ["ToolError", "ask: nobody answers this call any more"]


def test_a_file_that_does_not_fit_into_memory_is_an_error_of_the_snippet(
    image: Image, tmp_path: Path
) -> None:
    host = file_host(tmp_path)
    with (tmp_path / "root" / "workspace" / "large").open("wb") as file:
        file.truncate(1 << 30)
    code = "try { require('fs').readFileSync('large') } catch (e) { e.message }"
    assert image.evaluate(code, host=host, memory_bytes=64 << 20).value == "out of memory"


def test_links_inside_a_tree_are_followed_and_told_by_lstat(image: Image, tmp_path: Path) -> None:
    host = file_host(tmp_path)
    workspace = tmp_path / "root" / "workspace"
    (workspace / "folder").mkdir()
    (workspace / "folder" / "a").write_text("a")
    (workspace / "link").symlink_to("folder")
    code = (
        "const fs = require('fs'); const seen = [fs.lstatSync('link').isSymbolicLink(), "
        "fs.statSync('link').isDirectory(), fs.readFileSync('link/a', 'utf8')]; "
        "fs.rmSync('link', { recursive: true }); [...seen, fs.existsSync('link'), fs.existsSync('folder/a')]"
    )
    assert image.evaluate(code, host=host).value == [True, True, "a", False, True]


def test_files_without_a_folder_to_work_in_are_an_error(image: Image) -> None:
    reply = image.evaluate("require('fs').readFileSync('x')")
    assert (reply.outcome, reply.message) == (1, "ENOSYS: function not implemented, open 'x'")


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (
            "import fs from 'fs'\nimport { join as j } from 'node:path'\n[typeof fs.readFile, j('a', 'b')]",
            "a/b",
        ),
        ("// first\nimport * as path from 'path'; [0, path.basename('/x/y')]", "y"),
        (
            "'use strict'\nimport p, {\n  sep,\n  basename as b,\n} from 'path'\n[p.sep === sep, b('/x/z')]",
            "z",
        ),
    ],
)
def test_import_statements_at_the_beginning_import(image: Image, code: str, value: str) -> None:
    assert image.evaluate(code).value[1] == value


def test_import_statements_leave_lines_where_they_are(image: Image) -> None:
    reply = image.evaluate(
        "import fs from 'fs'\nimport {\n  join } from 'path'\nthrow new Error(join('a', 'b'))"
    )
    assert (reply.type, reply.message, reply.line) == ("Error", "a/b", 4)


@pytest.mark.slow
def test_everything_that_the_build_checks_holds_for_the_package() -> None:
    selfcheck.main()
