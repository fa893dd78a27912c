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
    {"elsewhere", elsewhere, METH_O, NULL}, /* METH_VARARGS once */
    {NULL}
};
"""


OTHER = """
NPY_NO_EXPORT PyObject *
elsewhere(PyObject *self, PyObject *NPY_UNUSED(args))
{
}

static PyObject *
right(PyObject *self)
{
}
"""


def _wrong(folder: Path, **texts: str) -> list[str]:
    for name, text in texts.items():
        (folder / f"{name}.c").write_text(text)
    return list(_wrong_methods(sorted(folder.iterdir())))


def test_a_method_of_another_shape_than_its_flags_is_found(tmp_path: Path) -> None:
    assert _wrong(tmp_path, a=SOURCE, b=OTHER) == [
        "method lonely: lonely has 1 parameters, METH_NOARGS has 2",
        "method wide: right has 4 parameters, METH_KEYWORDS | METH_VARARGS has 3",
    ]


def test_a_method_whose_function_is_not_found_is_told(tmp_path: Path) -> None:
    hidden = OTHER.replace("NPY_NO_EXPORT", "static")
    for others in ({}, {"b": hidden}):
        assert "method elsewhere: elsewhere is not found" in _wrong(tmp_path, a=SOURCE, **others)


def test_a_table_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    table = (
        "#define entry(name) {#name, (PyCFunction)name, METH_O}\nstatic PyMethodDef methods[] = {entry(a)};\n"
    )
    assert _wrong(tmp_path, a=table) == ["a.c: of 1 flags of methods 0 stand where they can be read"]


def test_a_template_is_no_function(tmp_path: Path) -> None:
    template = (
        '\nstatic PyObject *\n@name@_f(void)\n{\n}\nstatic PyMethodDef m[] = {{"f", @name@_f, METH_O}};\n'
    )
    assert _wrong(tmp_path, a=template) == ["a.c: of 1 flags of methods 0 stand where they can be read"]
