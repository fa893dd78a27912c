"""prepare: what a request that goes to a VM must be, and the job it becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grpc.conftest import runtime
from wasmeval import Evaluation, InvalidArgument, Limits
from wasmeval.determinism import Deterministic
from wasmeval.grants import Grants, Mount, Tool
from wasmeval.inputs import MAX_VARIABLE_BYTES, compose_environment
from wasmeval.limits import VM_CEILINGS, VM_DEFAULTS
from wasmeval.model import Job, Request, command_of
from wasmeval.policy import MAX_ARGUMENTS, Policy, needs_vm, prepare
from wasmeval.requests import request_of
from wasmeval.runtimes import Catalogue

CATALOGUE = Catalogue(
    (
        runtime("javascript", "javascript", "js"),
        runtime("python", "python", "py"),
        runtime("typescript", "typescript", "ts")._replace(translates_to="javascript"),
    )
)


def job(code: str = "", language: str = "", **fields: Any) -> Job:
    return prepare(Request(code, language, **fields), CATALOGUE, Policy())


@pytest.mark.parametrize(
    ("language", "runtime"),
    [("python", "vm-python"), ("py", "vm-python"), ("js", "vm-javascript"), ("bash", "vm-bash")],
)
def test_a_language_has_its_runtime_in_a_vm(language: str, runtime: str) -> None:
    assert job("1", language, tier="vm") == Job(runtime, b"1", b"", VM_DEFAULTS, tier="vm")


def test_what_only_a_vm_runs_goes_there_at_once() -> None:
    assert job("ls", "bash") == Job("vm-bash", b"ls", b"", VM_DEFAULTS, tier="vm")
    assert job(command=("ls", "-l")) == Job(
        "vm-command", b"", b"", VM_DEFAULTS, tier="vm", command=("ls", "-l")
    )
    assert not needs_vm(Request("1", "python"))


def test_a_vm_has_limits_of_its_own() -> None:
    asked = Limits(fuel=5, cpu_seconds=1e9, processes=7, memory_bytes=1 << 40)
    applied = job("1", "python", tier="vm", limits=asked).limits
    assert (applied.fuel, applied.cpu_seconds, applied.processes) == (None, 600.0, 7)
    assert applied.memory_bytes == VM_CEILINGS.memory_bytes
    in_wasm = job("1", "python", limits=asked)
    assert (in_wasm.limits.fuel, in_wasm.limits.cpu_seconds, in_wasm.limits.processes) == (5, None, None)
    assert in_wasm.asked == asked


def test_an_operator_sets_the_limits_of_vms_apart() -> None:
    policy = Policy(vm=Policy(VM_DEFAULTS, Limits(deadline_seconds=90.0), tier="vm"))
    request = Request("ls", "bash", limits=Limits(deadline_seconds=200.0))
    assert prepare(request, CATALOGUE, policy).limits.deadline_seconds == 90.0
    assert policy.of(request).apply(request.limits).deadline_seconds == 90.0
    assert policy.of(Request("1", "python")) is policy


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"code": "1", "language": "bash", "tier": "wasm"}, "tier", "bash runs in a VM alone"),
    ({"command": ("ls",), "tier": "wasm"}, "tier", "a command runs in a VM alone"),
    ({"code": "1", "language": "ts", "tier": "vm"}, "language", "a VM runs no typescript"),
    ({"code": "1", "language": "cobol", "tier": "vm"}, "language", "unknown language 'cobol'"),
    ({"code": "", "language": "bash"}, "code", "empty"),
    ({"code": "a\0", "language": "bash"}, "code", "a NUL character at byte 1"),
    ({"code": "1", "command": ("ls",)}, "code", "a command runs in place of code"),
    ({"language": "bash", "command": ("ls",)}, "language", "a command has none"),
    ({"command": ("",)}, "command[0]", "empty; it is the program to run"),
    ({"command": ("ls", "a\0b")}, "command[1]", "a NUL character"),
    ({"command": ("ls", "\ud800")}, "command[1]", "a lone surrogate at character 0"),
    ({"command": ("ls", "x" * MAX_VARIABLE_BYTES)}, "command[1]", "more than 131072 bytes"),
    ({"command": ("ls",) * (MAX_ARGUMENTS + 1)}, "command", "4097 arguments; send at most 4096"),
    ({"command": ("x" * 130_000,) * 9}, "command", "more than 1048576 bytes together"),
    ({"command": ("ls",), "inputs": {"a-b": b"1"}}, "inputs.a-b", "no name of an environment variable"),
    ({"command": ("ls",), "inputs": {"\xe4": b"1"}}, "inputs.\xe4", "no name of an environment variable"),
    ({"command": ("ls",), "inputs": {"a": b"1 2"}}, "inputs.a", "not valid JSON"),
    ({"command": ("ls",), "inputs": {"a": rb'"\u0000"'}}, "inputs.a", "a NUL character"),
    ({"command": ("ls",), "inputs": {"a": rb'"\ud800"'}}, "inputs.a", "not valid Unicode"),
    ({"command": ("ls",), "inputs": {"a": b'"%b"' % (b"x" * 131_072)}}, "inputs.a", "more than 131072"),
    ({"command": ("ls",), "inputs": {"a": b'"%b"' % (b"x" * 2**20)}}, "inputs.a", "more than 131072"),
    ({"command": ("ls",), "inputs": {"a": b"[" * 300 + b"]" * 300}}, "inputs.a", "nested deeper than 256"),
    ({"command": ("ls",), "inputs": {f"a{n}": b"1" for n in range(4097)}}, "inputs", "more than 4096 names"),
    (
        {"command": ("ls",), "inputs": {f"a{n}": b'"%b"' % (b"x" * 131_000) for n in range(9)}},
        "inputs",
        "more than a program's environment holds",
    ),
    ({"code": "1", "language": "py", "tier": "vm", "inputs": {"if": b"1"}}, "inputs.if", "a reserved word"),
    ({"code": "1", "language": "bash", "deterministic": Deterministic()}, "deterministic", "a VM repeats"),
    ({"code": "1", "language": "bash", "cache": True}, "cache", "a VM has none"),
    (
        {"code": "1", "language": "py", "tier": "vm", "grants": Grants(mounts=(Mount("data"),))},
        "mounts",
        "a VM mounts no folders; send files instead",
    ),
    ({"code": "1", "language": "bash", "grants": Grants(tools=(Tool("f"),))}, "tools", "bash calls none"),
    ({"command": ("ls",), "grants": Grants(tools=(Tool("f"),))}, "tools", "a command calls none"),
    (
        {"code": "1", "language": "js", "tier": "vm", "grants": Grants(tools=(Tool("await"),))},
        "tools[0].name",
        "a reserved word of javascript",
    ),
]


@pytest.mark.parametrize(
    ("fields", "field", "words"), WRONG, ids=[f"{row[1]}-{row[2][:20]}" for row in WRONG]
)
def test_what_a_vm_cannot_have_is_named(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        job(**fields)
    assert caught.value.field == field
    assert words in caught.value.description
    assert len(caught.value.description) < 300


def test_the_environment_is_one_of_strings() -> None:
    inputs = {"TEXT": b' "a\\u00e4\\n"', "N": b"12345678901234567890", "LIST": b'[1, "x"]', "NONE": b"null"}
    environment = json.loads(job("env", "bash", inputs=inputs).inputs)
    assert environment == {
        "TEXT": "a\xe4\n",
        "N": "12345678901234567890",
        "LIST": '[1, "x"]',
        "NONE": "null",
    }
    assert compose_environment({}, 0) == b""


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
        st.text().filter(lambda text: "\0" not in text),
    )
)
def test_text_is_a_variable_as_it_is(given: dict[str, str]) -> None:
    request = request_of(command_of(["env"], given, None, None, (), None))
    composed = prepare(request, CATALOGUE, Policy()).inputs
    assert (json.loads(composed) if composed else {}) == given


def test_deterministic_evaluations_stay_in_wasm() -> None:
    assert job("1", "python", deterministic=Deterministic()).tier == "wasm"


def test_a_vm_s_tools_have_the_names_of_its_language() -> None:
    grants = Grants(tools=(Tool("search"),))
    assert job("1", "python", tier="vm", grants=grants).grants == grants


@pytest.mark.parametrize(
    ("evaluation", "field", "words"),
    [
        (Evaluation("1", tier="moon"), "tier", "must be 'auto', 'wasm' or 'vm', not 'moon'"),
        (Evaluation("1", tier=5), "tier", "must be 'auto', 'wasm' or 'vm', not int"),  # type: ignore[arg-type]
        (Evaluation(command="ls"), "command", "must be a sequence of str"),
        (Evaluation(command=["ls", 5]), "command", "must be a sequence of str"),  # type: ignore[list-item]
        (Evaluation("1", command=["ls"]), "code", "a command runs in place of code"),
    ],
)
def test_what_is_no_evaluation_is_named(evaluation: Evaluation, field: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        request_of(evaluation)
    assert caught.value.field == field
    assert words in caught.value.description


def test_a_command_is_an_evaluation_without_a_language() -> None:
    request = request_of(Evaluation(command=["git", "--version"]))
    assert request == Request("", "", {}, command=("git", "--version"))
    assert request_of(command_of(["ls"], None, None, None, (), None)) == Request(
        "", "", {}, tier="vm", command=("ls",)
    )
    with pytest.raises(InvalidArgument, match=r"^command: empty; give a program"):
        command_of([], None, None, None, (), None)
