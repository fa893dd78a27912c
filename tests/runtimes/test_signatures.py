"""The gates for calls through pointers of another type: each finds what it is for."""

from __future__ import annotations

from pathlib import Path

from runtimes.python.signatures import _wrong_casts, _wrong_methods

WARNING = (
    "../src/numpy/numpy/a.c:12:5: warning: cast from '{}' (aka 'x') to '{}' (aka 'y') converts to incompatible "
    "function type [-Wcast-function-type-mismatch]\n"
)


def test_a_cast_between_function_types_is_found() -> None:
    wrong = WARNING.format("PyObject *(*)(PyObject *)", "getter")
    meant = WARNING.format("PyObject *(*)(PyObject *, PyObject *, PyObject *)", "PyCFunction")
    assert list(_wrong_casts(wrong + meant)) == ["a.c:12: PyObject *(*)(PyObject *) as getter"]


SOURCE = """
static PyObject *
right(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
}

static PyObject *
lonely(PyObject *NPY_UNUSED(self))
{
}

static PyMethodDef methods[] = {
    {"right", (PyCFunction)right,
        METH_FASTCALL | METH_KEYWORDS, NULL},
    {"lonely", (PyCFunction)(void(*)(void))lonely, METH_NOARGS, NULL},
    {"wide", (PyCFunction)right, METH_VARARGS | METH_KEYWORDS, NULL},
    {"elsewhere", elsewhere, METH_O, NULL},
    {NULL}
};
"""


def test_a_method_of_another_shape_than_its_flags_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(SOURCE)
    assert list(_wrong_methods(tmp_path)) == [
        "method lonely: lonely has 1 parameters, METH_NOARGS has 2",
        "method wide: right has 4 parameters, METH_KEYWORDS | METH_VARARGS has 3",
    ]
