"""Output: head and tail of each stream within the limit, the missing part counted, no character cut."""

from __future__ import annotations

import pytest

from wasmeval import Evaluator, Limits, Status

PRINT = {
    "python": ("import sys\nsys.stdout.write({0!r} * {1})\nsys.stderr.write({2!r} * {3})\nNone", ""),
    "javascript": ("console.log({0!r}.repeat({1})); console.error({2!r}.repeat({3})); null", "\n"),
}


@pytest.mark.parametrize("language", PRINT)
def test_streams_are_cut_apart(evaluator: Evaluator, language: str) -> None:
    template, newline = PRINT[language]
    limits = Limits(output_bytes=100)
    for out, err in ((10, 10), (100, 10), (10, 1000), (1000, 10), (5000, 3000), (0, 200)):
        code = template.format("o", out, "e", err)
        result = evaluator.evaluate(code, language=language, limits=limits)
        assert (result.status, result.value) == (Status.OK, None)
        for text, truncated, letter, count in (
            (result.stdout, result.stdout_truncated, "o", out),
            (result.stderr, result.stderr_truncated, "e", err),
        ):
            written = letter * count + newline
            if len(written) <= 100:
                assert (text, truncated) == (written, False)
            else:
                middle = f"\n[... {len(written) - 100} bytes left out ...]\n"
                assert (text, truncated) == (written[:50] + middle + written[-50:], True)


@pytest.mark.parametrize("extra", range(8))
@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_no_character_is_cut(evaluator: Evaluator, character: str, extra: int) -> None:
    code = f"print('x' * {extra} + {character!r} * 500, end='')"
    result = evaluator.evaluate(code, limits=Limits(output_bytes=101))
    head, _, rest = result.stdout.partition("\n[... ")
    missing, _, tail = rest.partition(" bytes left out ...]\n")
    assert result.stdout_truncated
    assert head == "x" * extra + character * ((50 - extra) // len(character.encode()))
    assert tail == character * (51 // len(character.encode()))
    size = extra + 500 * len(character.encode())
    assert int(missing) == size - len(head.encode()) - len(tail.encode())


def test_the_least_output(evaluator: Evaluator) -> None:
    result = evaluator.evaluate("print('abc')\n7", limits=Limits(output_bytes=1))
    assert (result.status, result.value) == (Status.OK, 7)
    assert result.stdout == "\n[... 3 bytes left out ...]\n\n"
    for language in ("python", "javascript"):
        result = evaluator.evaluate("10 + 1", language=language, limits=Limits(output_bytes=1))
        assert (result.status, result.value_json) == (Status.OUTPUT_EXCEEDED, b"")
        assert result.error
        assert result.error.message


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
def test_an_exit_has_no_value_that_breaks_the_limit(evaluator: Evaluator, most: int) -> None:
    for code in ("import os\nos._exit(0)", "x = 1\nNone", "pass"):
        result = evaluator.evaluate(code, limits=Limits(output_bytes=most))
        assert result.status is (Status.OK if most >= 4 else Status.OUTPUT_EXCEEDED), code


@pytest.mark.parametrize("language", PRINT)
def test_the_value_up_to_its_last_byte(evaluator: Evaluator, language: str) -> None:
    code = {"python": "'x' * 998", "javascript": "'x'.repeat(998)"}[language]
    result = evaluator.evaluate(code, language=language, limits=Limits(output_bytes=1000))
    assert (result.status, result.value) == (Status.OK, "x" * 998)
    result = evaluator.evaluate(code, language=language, limits=Limits(output_bytes=999))
    assert result.status is Status.OUTPUT_EXCEEDED
    result = evaluator.evaluate(code.replace("x", "é"), language=language, limits=Limits(output_bytes=1000))
    assert result.status is Status.OUTPUT_EXCEEDED


def test_invalid_utf_8_is_replaced(evaluator: Evaluator) -> None:
    code = "import os\nos.write(1, b'a\\xff\\xfe\\xc3')\nos.write(1, b'\\xa9\\xed\\xa0\\x80z')\nNone"
    result = evaluator.evaluate(code)
    assert result.stdout == b"a\xff\xfe\xc3\xa9\xed\xa0\x80z".decode("utf-8", "replace")
    code = "import os\nos.write(2, b'\\xff' * 100_000)\nNone"
    result = evaluator.evaluate(code, limits=Limits(output_bytes=1000))
    assert result.stderr == "\ufffd" * 500 + "\n[... 99000 bytes left out ...]\n" + "\ufffd" * 500
