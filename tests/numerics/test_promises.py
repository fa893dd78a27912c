"""Promises of docs/numpy.md beside right numbers: entropy, files, memory, and what is absent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wasmeval import Evaluator, Limits, Status


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(workers=1, vm=False) as found:
        yield found


DRAWS = (
    "np.random.rand()",
    "np.random.randint(2**62)",
    "float(np.random.normal())",
    "int(np.random.get_state()[1][7])",
    "float(np.random.default_rng().random())",
    "float(np.random.RandomState().rand())",
    "float(np.random.Generator(np.random.SFC64()).random())",
    "int(np.random.permutation(10**6)[0])",
)


@pytest.mark.parametrize("draw", DRAWS)
def test_no_two_evaluations_share_a_random_number(evaluator: Evaluator, draw: str) -> None:
    drawn = [evaluator.evaluate(f"import numpy as np\n{draw}").value for _ in range(6)]
    assert None not in drawn
    assert len(set(drawn)) == len(drawn)


def here_and_in_a_fork(evaluator: Evaluator, before: str, code: str) -> tuple[Any, Any]:
    """What `code` gives in a session that ran `before`, and in a fork that it makes then."""
    with evaluator.session() as session:
        session.evaluate(f"import numpy as np\n{before}").raise_for_status()
        with session.fork() as copy:
            here, there = (each.evaluate(code) for each in (session, copy))
    here.raise_for_status()
    there.raise_for_status()
    return here.value, there.value


def test_a_fork_of_a_session_draws_other_numbers_and_keeps_a_seed_of_its_own(evaluator: Evaluator) -> None:
    before = "np.random.rand(3)\nmine = np.random.RandomState(5)\nmine.rand()"
    here, there = here_and_in_a_fork(evaluator, before, "float(np.random.rand()), float(mine.rand())")
    assert here[0] != there[0]
    assert here[1] == there[1]


def test_a_fork_shares_no_kept_number_and_disturbs_no_generator_of_the_snippet(evaluator: Evaluator) -> None:
    before = (
        "np.random.randn()\n"
        "mine = [np.random.RandomState(), np.random.Generator(np.random.MT19937()), np.random.default_rng()]"
    )
    code = "float(np.random.randn()), [float(each.normal()) for each in mine]"
    here, there = here_and_in_a_fork(evaluator, before, code)
    assert here[0] != there[0]
    assert here[1] == there[1]


def test_a_seed_lasts_through_a_fork(evaluator: Evaluator) -> None:
    before = "np.random.seed(1)\nnp.random.randn()"
    here, there = here_and_in_a_fork(evaluator, before, "float(np.random.randn())")
    assert here == there


SEEDED = """
import numpy as np
np.random.seed(0)
[float(np.random.rand()), int(np.random.randint(2**40)), *map(int, np.random.binomial(np.arange(3, 6), 0.5))]
"""


def test_a_seed_gives_what_it_gives_on_every_64_bit_machine(evaluator: Evaluator) -> None:
    assert evaluator.evaluate(SEEDED).value == [0.5488135039273248, 506137267392, 2, 2, 2]


def test_repetition_draws_the_same_numbers(evaluator: Evaluator) -> None:
    code = "import numpy as np\nfloat(np.random.rand()), float(np.random.default_rng().random())"
    first, second = (evaluator.evaluate(code, deterministic=True).value for _ in range(2))
    assert first == second


FILES = """
import numpy as np
a = np.arange(6.0)
a.tofile("a.bin")
with open("a.bin", "rb") as file:
    two, at, rest = np.fromfile(file, count=2), file.tell(), np.fromfile(file)
with open("a.txt", "w") as file:
    file.write("# ")
    a.tofile(file, sep=",", format="%g")
    file.write(" end")
np.save("a.npy", a.reshape(2, 3))
np.savez_compressed("a.npz", a=a, b=np.array(["x", "y"]))
np.savetxt("table.txt", a.reshape(2, 3))
open("empty", "wb").close()
with np.load("a.npz") as both:
    b = both["b"].tolist()
with open("a.txt", "rb") as file:
    file.seek(2)
    text = np.fromfile(file, sep=",", count=6)
[two.tolist(), at, rest.tolist(), open("a.txt").read(), text.tolist(),
 np.load("a.npy").tolist(), b, np.loadtxt("table.txt").tolist(), np.fromfile("empty").tolist()]
"""


def test_files_are_written_and_read(evaluator: Evaluator) -> None:
    table = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert evaluator.evaluate(FILES).value == [
        [0.0, 1.0],
        16,
        [2.0, 3.0, 4.0, 5.0],
        "# 0,1,2,3,4,5 end",
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        table,
        ["x", "y"],
        table,
        [],
    ]


def test_a_large_array_is_written_and_read_whole(evaluator: Evaluator) -> None:
    code = """
import numpy as np
a = np.arange(300_000.0)
a.tofile("a.bin")
with open("b.bin", "wb") as file:
    file.write(b"head")
    a.tofile(file)
    file.write(b"tail")
(np.fromfile("a.bin") == a).all(), open("b.bin", "rb").read() == b"head" + a.tobytes() + b"tail"
"""
    assert evaluator.evaluate(code).value == [True, True]


SIGNED = """
import inspect
import numpy as np
[str(inspect.signature(np.random.rand)), np.argmax.__doc__.split()[:3], str(inspect.signature(sorted)), len.__doc__]
"""


def test_what_is_written_in_c_has_docstrings_and_signatures(evaluator: Evaluator) -> None:
    assert evaluator.evaluate(SIGNED).value == [
        "(*args)",
        ["Returns", "the", "indices"],
        "(iterable, /, *, key=None, reverse=False)",
        "Return the number of items in a container.",
    ]


TOO_LARGE = (
    "np.zeros(2**31)",
    "np.zeros((2**20, 2**20))",
    "np.arange(1e12)",
    "np.ones(10**9)",
    "np.random.rand(10**8)",
    "np.ones(20_000_000) + 1",
    "np.fft.fft(np.ones(8_000_003, 'f4'))",
    "np.fft.rfft(np.ones((1000, 20_000)))",
    "np.unique(np.arange(6_000_000))",
    "np.unique(np.arange(4_000_000) * 1j)",
    "np.sort(np.ones(2**24))",
    "np.linalg.svd(np.ones((3000, 4000)))",
    "np.array(['x' * 10**6] * 100)",
    "np.repeat(np.arange(4), 2**30)",
    "np.repeat([1, 2], np.int64(2**32))",
    "np.bincount([2**32])",
    "np.strings.ljust(np.array(['ab'], 'T'), 2**31 + 5)",
    "np.strings.center(np.array(['ab'], 'T'), 2**31 + 5)",
    "np.strings.multiply(np.array(['ab'], 'T'), 2**40)",
    "np.strings.zfill(np.array(['-12'], 'T'), 2**40)",
)


def test_a_transform_takes_no_more_than_fits(evaluator: Evaluator) -> None:
    assert evaluator.evaluate("import numpy as np\nnp.fft.fft(np.ones(3_000_000)).size").value == 3_000_000


@pytest.mark.parametrize("code", TOO_LARGE)
def test_what_is_too_large_is_a_memory_error(evaluator: Evaluator, code: str) -> None:
    caught = f"import numpy as np\ntry:\n    {code}\nexcept MemoryError:\n    x = 'caught'\nx"
    assert evaluator.evaluate(caught).value == "caught"
    assert evaluator.evaluate(f"import numpy as np\n{code}").status == Status.MEMORY_EXCEEDED


def test_a_set_of_values_that_does_not_fit_is_a_memory_error(evaluator: Evaluator) -> None:
    """The tables of `unique` are C++: what they cannot have must not end the instance."""
    code = "import numpy as np\nnp.unique(np.arange(1_300_000) * 1j).size"
    tight = evaluator.evaluate(code, limits=Limits(memory_bytes=96 << 20))
    assert tight.status == Status.MEMORY_EXCEEDED
    assert evaluator.evaluate(code).value == 1_300_000


INDICES = """
import numpy as np
a = np.arange(5)
far = np.array([2**32])
asked = [lambda: a[far], lambda: a.take(far), lambda: a.put(far, 1),
         lambda: np.partition(a, far), lambda: np.add.reduceat(a, far), lambda: a[np.array([2**63], np.uint64)]]
told = []
for ask in asked:
    try:
        told.append(str(ask()))
    except (IndexError, ValueError) as error:
        told.append("out of bounds" in str(error).replace("-", " "))
told
"""


def test_an_index_beyond_32_bits_is_none(evaluator: Evaluator) -> None:
    assert evaluator.evaluate(INDICES).value == [True] * 6


def test_indices_are_told_as_64_bits(evaluator: Evaluator) -> None:
    code = """
import numpy as np
a = np.array([3, 1, 2])
found = [np.argsort(a), np.nonzero(a)[0], np.where(a > 1)[0], np.searchsorted(a, [1]), np.bincount(a), np.argmax(a),
         np.unravel_index([1], (2, 2))[0], np.ravel_multi_index(([1], [1]), (2, 2)), np.lexsort((a, a)),
         np.unique(a, return_inverse=True)[1], np.digitize([1], [0, 2]), np.strings.str_len(np.array(["a"])),
         np.argpartition(a, 1), np.count_nonzero(np.eye(3), axis=0), np.array(1), np.arange(3), np.int_(1), np.intp(1)]
{each.dtype.name for each in found}.pop(), len({each.dtype for each in found})
"""
    assert evaluator.evaluate(code).value == ["int64", 1]


@pytest.mark.parametrize(
    ("code", "need"),
    [
        ("np.memmap('x', shape=3, mode='w+')", "needs mapped files (mmap)"),
        ("np.load('x', mmap_mode='r')", "needs mapped files (mmap)"),
        ("import numpy.f2py", "numpy.f2py"),
        ("import numpy.ctypeslib\nnp.ctypeslib.load_library('x', '.')", "ctypes is not available"),
    ],
)
def test_what_is_absent_says_so(evaluator: Evaluator, code: str, need: str) -> None:
    saved = "import numpy as np\nwith open('x', 'wb') as file: np.save(file, np.ones(3))"
    result = evaluator.evaluate(f"{saved}\n{code}")
    assert result.status in (Status.UNSUPPORTED, Status.ERROR)
    assert result.error is not None
    assert need in result.error.message


DEEP = (
    "def f(n): return np.apply_along_axis(lambda row: f(n + 1), 0, np.ones((2, 2)))\nf(0)",
    "a = np.array(None)\nfor _ in range(5000): b = np.empty(1, object); b[0] = a; a = b\nrepr(a)",
)


@pytest.mark.parametrize("code", DEEP)
def test_deep_recursion_is_an_exception(evaluator: Evaluator, code: str) -> None:
    result = evaluator.evaluate(f"import numpy as np\n{code}")
    assert result.status == Status.ERROR
    assert result.error is not None
    assert result.error.type == "RecursionError"
