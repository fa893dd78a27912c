/* The module `_wasmeval`: what of the host a library of the image may ask for. Snippets do not see it by default. */
#include "image.h"

__attribute__((import_module("wasmeval"), import_name("host_call"))) extern int32_t host_call(const char *, int32_t);
__attribute__((import_module("wasmeval"), import_name("host_read"))) extern void host_read(char *);

const char *snippet_source = "";
size_t snippet_source_length;

PyDoc_STRVAR(call_host_doc, "call_host(request: bytes) -> bytes\n\n"
                            "Suspends the evaluation until the host has answered.\n"
                            "NotImplementedError when the host offers no such operation.");

static PyObject *
call_host(PyObject *module, PyObject *request)
{
    (void)module;
    Py_buffer bytes;
    if (PyObject_GetBuffer(request, &bytes, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int32_t length = host_call(bytes.buf, (int32_t)bytes.len);
    PyBuffer_Release(&bytes);
    if (length < 0) {
        PyErr_SetString(PyExc_NotImplementedError, "the host offers no such operation");
        return NULL;
    }
    PyObject *answer = PyBytes_FromStringAndSize(NULL, length);
    if (answer != NULL) {
        host_read(PyBytes_AS_STRING(answer));
    }
    return answer;
}

PyDoc_STRVAR(source_doc, "source() -> str\n\nThe text of the snippet: `linecache` shows its lines in tracebacks.");

static PyObject *
source(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyUnicode_DecodeUTF8(snippet_source, (Py_ssize_t)snippet_source_length, "replace");
}

static PyMethodDef methods[] = {
    {"call_host", call_host, METH_O, call_host_doc},
    {"source", source, METH_NOARGS, source_doc},
    {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_wasmeval", .m_size = -1, .m_methods = methods,
};

PyObject *
init_wasmeval_module(void)
{
    return PyModule_Create(&definition);
}
