"""What the command line takes, and what it says to what it does not take."""

from __future__ import annotations

import argparse
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmeval import __version__
from wasmeval.cli import _join_code, main
from wasmeval.cli.arguments import fuel, language_of, mebibytes, named_input, parser_of_all


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5000", 5000),
        ("5_000_000", 5_000_000),
        ("1e9", 10**9),
        ("2.5e3", 2500),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_fuel_is_a_whole_number_in_any_notation(text: str, number: int) -> None:
    assert fuel(text) == number


@pytest.mark.parametrize("text", ["1.5", "1e-3", "nan", "inf", "-inf", "lots", "", "0x10"])
def test_fuel_refuses_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a (whole )?number"):
        fuel(text)


def test_memory_is_in_mebibytes() -> None:
    assert mebibytes("128") == 128 << 20
    assert mebibytes("0.5") == 512 << 10


@given(st.dictionaries(st.text(), st.floats(allow_nan=False) | st.integers() | st.text() | st.none()))
def test_an_input_is_decoded_as_json(value: object) -> None:
    assert named_input(f"x={json.dumps(value)}") == ("x", value)


def test_an_input_keeps_every_digit() -> None:
    assert named_input("x=" + "7" * 10_000)[1] % 1000 == 777


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "'x' is not NAME=JSON"),
        ("=1", "'=1' is not NAME=JSON"),
        ("name=bob", "the value of 'name' is not JSON: .*; for a string, write name='\"...\"'"),
        ("x=[1,", "the value of 'x' is not JSON: Expecting value"),
        ("x=", "the value of 'x' is not JSON: Expecting value"),
        ("x=" + "[" * 100_000, "the JSON of 'x' is nested too deeply"),
        ("x=\udcff", "the value of 'x' is not JSON: it is not UTF-8"),
    ],
)
def test_a_wrong_input_is_named(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        named_input(text)


@pytest.mark.parametrize(
    ("language", "path", "expected"),
    [
        (None, None, "python"),
        (None, "-", "python"),
        (None, "a/b.py", "python"),
        (None, "a/b.JS", "javascript"),
        (None, "b.mjs", "javascript"),
        (None, "b.sh", "bash"),
        (None, "b.txt", "python"),
        ("python", "b.js", "python"),
        ("cobol", "b.js", "cobol"),
    ],
)
def test_the_language_comes_from_the_option_then_from_the_ending(
    language: str | None, path: str | None, expected: str
) -> None:
    assert language_of(language, path) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["run"], "one of the arguments -c/--code FILE is required"),
        (["run", "-c", "1", "file.py"], "not allowed with argument"),
        (["run", "-c", "1", "--input", "x=abc"], "argument --input: the value of 'x' is not JSON"),
        (["run", "-c", "1", "--deadline", "soon"], "argument --deadline: 'soon' is not a number"),
        (["run", "-c", "1", "--deadline", "nan"], "argument --deadline: 'nan' is not a number"),
        (["run", "-c", "1", "--memory", "1e300"], "argument --memory: '1e300' is too large"),
        (["run", "-c", "1", "--fuel", "1e300"], "argument --fuel: '1e300' is too large"),
        (["serve", "--workers=-1e300"], "argument --workers: '-1e300' is too large"),
        (["run", "-c", "1", "--jso"], "unrecognized arguments: --jso"),
        (["serve", "--workers", "0"], "argument --workers: 0 is less than 1"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_of:
        main(arguments)
    assert exit_of.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("code", ["-1", "-x", "--version", "-c", ""])
def test_code_may_look_like_an_option(code: str) -> None:
    assert parser_of_all().parse_args(_join_code(["run", "-c", code])).code == code


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        main(["--version"])
    assert exit_of.value.code == 0
    assert capsys.readouterr().out == f"wasmeval {__version__}\n"


@pytest.mark.parametrize("command", ["run", "serve", "runtimes", "doctor"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        main([command, "--help"])
    assert exit_of.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: wasmeval {command}")


def test_the_tier_is_one_of_three(capsys: pytest.CaptureFixture[str]) -> None:
    parse = parser_of_all().parse_args
    assert parse(["run", "-c", "1"]).tier == "auto"
    assert parse(["run", "-c", "1", "--tier", "vm"]).tier == "vm"
    with pytest.raises(SystemExit):
        parse(["run", "-c", "1", "--tier", "moon"])
    assert "invalid choice: 'moon'" in capsys.readouterr().err
