"""NumPy's arrays and scalars in the real Python image: what arrives in a snippet, and what of its values comes back."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import running_service
from wasmeval import (
    Array,
    AsyncClient,
    Client,
    Deterministic,
    Evaluation,
    Evaluator,
    InvalidArgument,
    Limits,
    Recording,
    Result,
    Status,
)

TABLE = Array("float64", (2, 3), struct.pack("<6d", *range(6)))
IMPORT = "import numpy as np\n"


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1) as evaluator:
        yield evaluator


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running_service() as service, Client(service.target) as client:
        yield client


def array_of(result: Result) -> Array:
    assert result.array is not None, result
    return result.array


# ---- inputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        Array("bool", (3,), b"\0\1\1"),
        Array("int8", (2, 2), b"\xff\0\1\2"),
        Array(">i4", (2,), struct.pack(">2i", -1, 7)),
        Array("uint64", (1,), b"\xff" * 8),
        Array("float16", (2,), struct.pack("<2e", 1.5, -2)),
        Array(">f8", (1, 1, 1), struct.pack(">d", 1 / 3)),
        Array("complex64", (1,), struct.pack("<2f", 1, 2)),
        Array(">c16", (), struct.pack(">2d", 1, 2)),
        Array("<M8[ns]", (2,), struct.pack("<2q", 1, -(2**63))),
        Array("<m8[25s]", (1,), struct.pack("<q", 3)),
        Array("<M8", (1,), struct.pack("<q", -(2**63))),
        Array("|S3", (2,), b"ab\0abc"),
        Array(">U2", (1,), "é\0".encode("utf-32-be")),
        Array("<i4", (0, 3), b""),
        Array("<f8", (1,) * 64, bytes(8)),
    ],
    ids=lambda array: f"{array.dtype}-{len(array.shape)}",
)
def test_an_array_arrives_as_it_is_and_comes_back(evaluator: Evaluator, array: Array) -> None:
    code = "import hashlib\nx.dtype.str, list(x.shape), x.tobytes().hex(), type(x).__name__, x.flags.c_contiguous"
    told = evaluator.evaluate(code, inputs={"x": array}).value
    assert told == [array.dtype, list(array.shape), array.data.hex(), "ndarray", True]
    assert array_of(evaluator.evaluate("x", inputs={"x": array})) == array


def test_a_snippet_may_change_its_arrays(evaluator: Evaluator) -> None:
    code = "x[0, 1] = 9\nx.flags.aligned and x.flags.writeable, x.tolist(), (x.T @ y).tolist()"
    result = evaluator.evaluate(code, inputs={"x": TABLE, "y": Array("<i2", (2,), struct.pack("<2h", 1, 2))})
    assert result.value == [True, [[0, 9, 2], [3, 4, 5]], [6, 17, 12]]
    assert TABLE.tolist()[0][1] == 1


@pytest.mark.parametrize("length", range(17))
def test_elements_are_aligned_whatever_stands_before_them(evaluator: Evaluator, length: int) -> None:
    inputs: dict[str, Any] = {"x": TABLE, "y" * (length + 1): Array("int8", (length,), b"a" * length)}
    if length % 2:
        inputs["text"] = "t" * length
    result = evaluator.evaluate(f"#{'c' * length}\nx.ctypes.data % 16, x.sum()", inputs=inputs)
    assert result.value == [0, 15]


def test_other_inputs_stand_beside_them(evaluator: Evaluator) -> None:
    result = evaluator.evaluate("x * n + len(text)", inputs={"x": TABLE, "n": 2, "text": "ab"})
    assert result.value == [[2, 4, 6], [8, 10, 12]]


def test_a_large_array_goes_both_ways(evaluator: Evaluator) -> None:
    array = Array("<i8", (1 << 18,), struct.pack(f"<{1 << 18}q", *range(1 << 18)))
    limits = Limits(output_bytes=4 << 20)
    result = evaluator.evaluate("x[::-1]", inputs={"x": array}, limits=limits)
    assert array_of(result).tolist() == list(range(1 << 18))[::-1]
    assert result.value["type"] == "ndarray"
    assert not result.value_is_json


def test_an_array_waits_for_the_files_that_go_before_it(evaluator: Evaluator) -> None:
    code = "for each in range(40): open(f'{each}.bin', 'wb').write(bytes(1 << 18))\nx"
    array = Array("<f8", (1 << 16,), struct.pack("<d", math.pi) * (1 << 16))
    result = evaluator.evaluate(code, inputs={"x": array}, outputs=["*.bin"])
    assert array_of(result) == array
    assert len(result.files) == 40
    assert evaluator.evaluate("1+1").value == 2


def test_only_python_has_them(evaluator: Evaluator) -> None:
    for language in ("javascript", "typescript"):
        with pytest.raises(InvalidArgument, match="javascript has no arrays of NumPy's"):
            evaluator.evaluate("1", language=language, inputs={"x": TABLE})


def test_a_name_is_one_thing(evaluator: Evaluator) -> None:
    with pytest.raises(InvalidArgument, match=r"tools\[0\].name: 'x' is the name of an input too"):
        evaluator.evaluate("1", inputs={"x": TABLE}, tools={"x": lambda: 1})


# ---- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("np.int64(5)", 5),
        ("np.uint64(2**64 - 1)", 2**64 - 1),
        ("np.int8(-3)", -3),
        ("np.float64(0.1)", 0.1),
        ("np.float32(0.1)", 0.10000000149011612),
        ("np.float16(1.5)", 1.5),
        ("np.longdouble(0.5)", 0.5),
        ("np.float64('nan')", math.nan),
        ("np.bool_(True)", True),
        ("np.str_('é')", "é"),
        ("np.array(5)[()]", 5),
        ("[np.int64(1), {'k': (np.float32(2), np.bool_(0))}]", [1, {"k": [2.0, False]}]),
        ("[np.arange(3), {'k': np.eye(2)}]", [[0, 1, 2], {"k": [[1.0, 0.0], [0.0, 1.0]]}]),
        ("np.array([1, 'x', None, [2.5]], object)", [1, "x", None, [2.5]]),
        ("np.array(['a'], np.dtypes.StringDType())", ["a"]),
        ("{'a': np.array([[True], [False]])}", {"a": [[True], [False]]}),
        ("[np.zeros((0, 3)), np.zeros((2, 0))]", [[], [[], []]]),
    ],
)
def test_scalars_and_arrays_are_json(evaluator: Evaluator, code: str, value: object) -> None:
    result = evaluator.evaluate(IMPORT + code)
    assert repr(result.value) == repr(value), result
    assert result.value_is_json
    assert result.array is None


@pytest.mark.parametrize(
    ("code", "kind", "has_array"),
    [
        ("np.complex128(1j)", "complex128", False),
        ("np.datetime64('2020-01-01', 'ns')", "datetime64", False),
        ("np.timedelta64(3, 'ns')", "timedelta64", False),
        ("np.bytes_(b'x')", "bytes_", False),
        ("np.void(b'x')", "void", False),
        ("np.array([1j])", "ndarray", True),
        ("np.array(['2020-01-01'], 'M8[ns]')", "ndarray", True),
        ("np.array([b'a'])", "ndarray", True),
        ("np.array([3], 'm8[ns]')", "ndarray", True),
        ("np.ma.array([1, 2], mask=[0, 1])", "MaskedArray", False),
        ("np.arange(10001)", "ndarray", True),
        ("np.zeros((10001, 0))", "ndarray", True),
        ("np.array([object()])", "ndarray", False),
        ("[np.array([1j])]", "list", False),
        ("[np.ma.array([1])]", "list", False),
        ("[np.arange(5001)] * 2", "list", False),
        ("a = np.empty(1, object)\na[0] = a\n[a]", "list", False),
        ("np.longdouble([1] * 10001)", "ndarray", False),
    ],
)
def test_what_json_cannot_say_is_a_repr(evaluator: Evaluator, code: str, kind: str, has_array: bool) -> None:
    result = evaluator.evaluate(IMPORT + code)
    assert (result.status, result.value_is_json, result.value["type"]) == (Status.OK, False, kind)
    assert (result.array is not None) == has_array


def test_ten_thousand_elements_are_lists_and_one_more_is_not(evaluator: Evaluator) -> None:
    for shape, is_json in (("10000", True), ("100, 100", True), ("10001", False), ("2, 5001", False)):
        result = evaluator.evaluate(IMPORT + f"np.zeros(({shape}))")
        assert result.value_is_json is is_json
        assert len(array_of(result).data) == 8 * math.prod(map(int, shape.split(",")))
    assert evaluator.evaluate(IMPORT + "[np.zeros(5000, 'i1')] * 2").value == [[0] * 5000] * 2


@pytest.mark.parametrize(
    ("code", "shape", "items"),
    [
        ("np.arange(10).reshape(2, 5).T[::2]", (3, 2), [[0, 5], [2, 7], [4, 9]]),
        ("np.arange(3)[::-1]", (3,), [2, 1, 0]),
        ("np.broadcast_to(np.int64(7), (2, 2))", (2, 2), [[7, 7], [7, 7]]),
        ("np.array(5)", (), 5),
        ("np.matrix([[1, 2]])", (1, 2), [[1, 2]]),
        ("class Mine(np.ndarray): pass\nnp.arange(2).view(Mine)", (2,), [0, 1]),
        ("y = np.asfortranarray([[1, 2], [3, 4]])", (2, 2), [[1, 2], [3, 4]]),
    ],
)
def test_an_array_comes_in_c_order(
    evaluator: Evaluator, code: str, shape: tuple[int, ...], items: object
) -> None:
    result = evaluator.evaluate(IMPORT + code)
    assert (array_of(result).shape, array_of(result).tolist(), result.value) == (shape, items, items)


def test_values_and_arrays_together_keep_output_bytes(evaluator: Evaluator) -> None:
    size = len(json.dumps([0] * 100)) + 100
    for limit, status in ((size, Status.OK), (size - 1, Status.OUTPUT_EXCEEDED)):
        result = evaluator.evaluate(IMPORT + "np.zeros(100, 'i1')", limits=Limits(output_bytes=limit))
        assert result.status is status, limit
        assert (result.array is not None) == result.ok
    result = evaluator.evaluate(IMPORT + "np.zeros(1 << 20)")
    assert result.status is Status.OUTPUT_EXCEEDED
    assert result.error and "output_bytes" in result.error.message


def test_a_tool_is_given_and_gives_lists(evaluator: Evaluator) -> None:
    seen: list[object] = []

    def scale(values: list[float], factor: int) -> list[float]:
        seen.append((values, factor))
        return [factor * each for each in values]

    code = IMPORT + "scale(x[0], np.int8(3))"
    result = evaluator.evaluate(code, inputs={"x": TABLE}, tools={"scale": scale})
    assert (result.value, seen) == ([0, 3, 6], [([0.0, 1.0, 2.0], 3)])


# ---- sessions ----------------------------------------------------------------------------------------------------


def test_a_session_keeps_arrays_of_its_steps(evaluator: Evaluator) -> None:
    with evaluator.session("python") as session:
        session.evaluate("y = x", inputs={"x": TABLE})
        session.evaluate(f"z = '{'q' * 1000}'", inputs={"w": Array("int8", (500,), b"w" * 500)})
        result = session.evaluate("y[0] += x[0]\ny.flags.owndata, y.tolist()", inputs={"x": TABLE})
        assert result.value == [True, [[0, 2, 4], [3, 4, 5]]]
        assert array_of(session.evaluate("y")).tolist() == [[0, 2, 4], [3, 4, 5]]
        assert array_of(session.evaluate("w")) == Array("int8", (500,), b"w" * 500)
        with session.fork() as other:
            assert array_of(other.evaluate("y[1]")).tolist() == [3, 4, 5]


# ---- exact repetition --------------------------------------------------------------------------------------------


def test_a_replay_has_the_same_arrays(evaluator: Evaluator, tmp_path: Path) -> None:
    inputs = {"y": Array("int8", (2,), b"ab"), "x": TABLE}
    result = evaluator.evaluate("x * 3", inputs=inputs, deterministic=True)
    assert result.receipt and result.recording
    result.recording.save(tmp_path / "recording.json")
    again = evaluator.replay(Recording.load(tmp_path / "recording.json"))
    assert (again.is_same, again.is_sealed, again.result.array) == (True, True, result.array)

    in_other_order = evaluator.evaluate("x * 3", inputs=dict(reversed(inputs.items())), deterministic=True)
    assert in_other_order.receipt == result.receipt
    told = json.loads((tmp_path / "recording.json").read_text())
    told["request"]["arrays"]["x"][2] = told["request"]["arrays"]["x"][2].replace("A", "B", 1)
    changed = evaluator.replay(Recording.of(told))
    assert any(text.startswith("inputs: ") for text in changed.differences)
    assert "array: other bytes, dtype or shape" in changed.differences


def test_a_step_of_a_session_is_recorded_with_its_arrays(evaluator: Evaluator) -> None:
    held = bytearray(b"ab")
    with evaluator.session("python", deterministic=True) as session:
        given = Array.over("|u1", (2,), memoryview(held))
        step = session.evaluate("x[::-1]", inputs={"x": given})
        held[:] = b"xy"
        assert step.recording
        assert evaluator.replay(step.recording).is_same
    assert array_of(step).data == b"ba"


def test_receipts_tell_arrays_apart(evaluator: Evaluator) -> None:
    def receipt(code: str, **inputs: Array) -> tuple[str, str]:
        receipt = evaluator.evaluate(code, inputs=inputs, deterministic=Deterministic()).receipt
        assert receipt
        return receipt.inputs, receipt.output

    data = bytes(range(8))
    inputs = [
        receipt("None", x=array)[0]
        for array in (
            Array("<i8", (1,), data),
            Array(">i8", (1,), data),
            Array("<i4", (2,), data),
            Array("<i8", (), data),
        )
    ]
    assert len({*inputs, receipt("None", y=Array("<i8", (1,), data))[0], receipt("None")[0]}) == 6
    # The same JSON, of other dtypes.
    outputs = [receipt(IMPORT + f"np.arange(3, dtype='{dtype}')")[1] for dtype in ("i4", "i8", ">i8")]
    assert len({*outputs, receipt("[0, 1, 2]")[1]}) == 4


def test_a_known_answer_has_its_array(evaluator: Evaluator) -> None:
    given = [
        evaluator.evaluate("x + 1", inputs={"x": TABLE}, deterministic=True, cache=True) for _ in range(2)
    ]
    assert [result.cached for result in given] == [False, True]
    assert array_of(given[0]) == array_of(given[1])


# ---- over a service ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [6, 125_000])
def test_a_service_takes_and_gives_them_whatever_the_call(client: Client, count: int) -> None:
    array = Array("<f8", (count,), struct.pack(f"<{count}d", *map(float, range(count))))
    code, inputs, limits = "x * 2", {"x": array, "n": 1}, Limits(output_bytes=4 << 20)
    evaluation = Evaluation(code, inputs=inputs, limits=limits)
    printed: list[str] = []
    with client.session() as session:
        results = [
            client.evaluate(code, inputs=inputs, limits=limits),
            *client.evaluate_batch([evaluation, evaluation]),
            client.evaluate(
                f"print(1)\n{code}",
                inputs=inputs,
                limits=limits,
                on_output=lambda *told: printed.append(told[1]),
            ),
            session.evaluate(code, inputs=inputs, limits=limits),
            client.evaluate(code, inputs=inputs, limits=limits, deterministic=True),
        ]
    wanted = [2.0 * each for each in range(count)]
    for result in results:
        assert array_of(result).tolist() == wanted
        assert result.value_is_json == (count <= 10_000)
    assert "".join(printed) == "1\n"
    assert client.replay(*filter(None, [results[-1].recording])).is_same


def test_async_clients_have_them_too(client: Client) -> None:
    async def evaluate() -> Result:
        async with AsyncClient(client._target) as other:
            return await other.evaluate("x.T", inputs={"x": TABLE})

    assert array_of(asyncio.run(evaluate())).shape == (3, 2)


def test_a_service_says_what_is_wrong(client: Client) -> None:
    many = {f"x{number}": Array("|u1", (1 << 20,), bytes(1 << 20)) for number in range(9)}
    with pytest.raises(InvalidArgument, match="more than 8388608 bytes together with inputs"):
        client.evaluate("1", inputs=many)
    with pytest.raises(InvalidArgument, match=r"arrays\.x: javascript has no arrays"):
        client.evaluate("1", language="javascript", inputs={"x": TABLE})


def test_results_keep_their_order_in_a_batch(client: Client) -> None:
    evaluations = [Evaluation("x", inputs={"x": Array("|u1", (n,), bytes([n]) * n)}) for n in range(5)]
    results = client.evaluate_batch(evaluations)
    assert list(itertools.chain(*(array_of(result).tolist() for result in results))) == [
        1,
        2,
        2,
        *[3] * 3,
        *[4] * 4,
    ]
