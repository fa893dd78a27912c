/* Functions of the image whose frames a snippet's tracebacks do not show: its tools, and what stands behind them.
 *
 * They stay ordinary functions, with a signature, a name and a docstring; only the way into them is another.
 */
#include "image.h"
#include "pycore_function.h"

/* Whatever was raised, it was raised where the snippet called. */
static PyObject *
without_frames(PyObject *result)
{
    if (result == NULL) {
        PyObject *raised = PyErr_GetRaisedException();
        Py_CLEAR(((PyBaseExceptionObject *)raised)->traceback);
        PyErr_SetRaisedException(raised);
    }
    return result;
}

static PyObject *
call_hidden(PyObject *function, PyObject *const *args, size_t flagged_count, PyObject *keywords)
{
    return without_frames(_PyFunction_Vectorcall(function, args, flagged_count, keywords));
}

PyDoc_STRVAR(hide_doc, "hide(function) -> function\n\nThe same function, which from now on has no frame in a traceback.");

static PyObject *
hide(PyObject *module, PyObject *function)
{
    (void)module;
    if (!PyFunction_Check(function)) {
        return PyErr_Format(PyExc_TypeError, "hide() takes a function, not %R", function);
    }
    PyFunction_SetVectorcall((PyFunctionObject *)function, call_hidden);
    return Py_NewRef(function);
}

/* ---- tools ---- */

static PyObject *caller, *beginner;

static PyObject *
named_arguments(PyObject *const *values, PyObject *keywords)
{
    PyObject *named = PyDict_New();
    for (Py_ssize_t i = 0; named && keywords && i < PyTuple_GET_SIZE(keywords); i++) {
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(keywords, i), values[i]) < 0) {
            Py_CLEAR(named);
        }
    }
    return named;
}

/* The function's own body is empty: calling it checks the arguments as any function's, and no more. */
static PyObject *
delegate(PyObject *handler, PyObject *function, PyObject *const *args, size_t flagged_count, PyObject *keywords)
{
    PyObject *checked = _PyFunction_Vectorcall(function, args, flagged_count, keywords);
    if (checked == NULL) {
        return without_frames(NULL);
    }
    Py_DECREF(checked);
    Py_ssize_t count = PyVectorcall_NARGS(flagged_count);
    PyObject *positional = PyTuple_New(count);
    for (Py_ssize_t i = 0; positional && i < count; i++) {
        PyTuple_SET_ITEM(positional, i, Py_NewRef(args[i]));
    }
    PyObject *named = positional ? named_arguments(args + count, keywords) : NULL;
    PyObject *result = NULL;
    if (named != NULL) {
        result = PyObject_CallFunctionObjArgs(handler, function, positional, named, NULL);
    }
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return without_frames(result);
}

static PyObject *
call_tool(PyObject *function, PyObject *const *args, size_t flagged_count, PyObject *keywords)
{
    return delegate(caller, function, args, flagged_count, keywords);
}

static PyObject *
begin_tool(PyObject *function, PyObject *const *args, size_t flagged_count, PyObject *keywords)
{
    return delegate(beginner, function, args, flagged_count, keywords);
}

PyDoc_STRVAR(set_tool_handlers_doc, "set_tool_handlers(call, begin)\n\n"
                                    "Who is called, with (function, positional, named), for every call of a tool.");

static PyObject *
set_tool_handlers(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *call, *begin;
    if (!PyArg_ParseTuple(args, "OO:set_tool_handlers", &call, &begin)) {
        return NULL;
    }
    Py_XSETREF(caller, Py_NewRef(call));
    Py_XSETREF(beginner, Py_NewRef(begin));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(make_tool_doc, "make_tool(function, begins: bool)\n\n"
                            "Makes `function`, whose body is empty, one that the handler of calls (or of beginnings) answers.");

static PyObject *
make_tool(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *function;
    int begins;
    if (!PyArg_ParseTuple(args, "O!p:make_tool", &PyFunction_Type, &function, &begins)) {
        return NULL;
    }
    if (caller == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "set_tool_handlers() comes first");
        return NULL;
    }
    PyFunction_SetVectorcall((PyFunctionObject *)function, begins ? begin_tool : call_tool);
    Py_RETURN_NONE;
}

PyMethodDef tool_methods[] = {
    {"hide", hide, METH_O, hide_doc},
    {"make_tool", make_tool, METH_VARARGS, make_tool_doc},
    {"set_tool_handlers", set_tool_handlers, METH_VARARGS, set_tool_handlers_doc},
    {0},
};
