/* The module `_wasmeval`: what of the host a library of the image may ask for. Snippets do not see it by default. */
#include "image.h"

__attribute__((import_module("wasmeval"), import_name("host_call"))) extern int32_t host_call(const char *, int32_t);
__attribute__((import_module("wasmeval"), import_name("host_read"))) extern void host_read(char *);

enum { NOTHING_UNDER_WAY = -2 };

const char *snippet_source = "";
size_t snippet_source_length;
PyObject *step_sources;

PyDoc_STRVAR(call_host_doc, "call_host(request: bytes) -> bytes or None\n\n"
                            "Asks for an operation of the guest ABI. None when nothing is under way that could end;\n"
                            "NotImplementedError when the host offers no such operation to this evaluation.");

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
    if (length == NOTHING_UNDER_WAY) {
        Py_RETURN_NONE;
    }
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

/* Raises `error` (a reference that is taken) marked with what this runtime would need. Returns NULL. */
static PyObject *
raise_marked(PyObject *error, PyObject *need)
{
    if (error != NULL && (need == NULL || PyObject_SetAttrString(error, "_wasmeval_need", need) == 0)) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    Py_XDECREF(error);
    return NULL;
}

/* `self` is (exception class, its arguments, the need). Being C, it leaves no frame of ours in a traceback. */
static PyObject *
raise_refusal(PyObject *self, PyObject *args, PyObject *keywords)
{
    (void)args, (void)keywords;
    PyObject *error = PyObject_CallObject(PyTuple_GET_ITEM(self, 0), PyTuple_GET_ITEM(self, 1));
    return raise_marked(error, PyTuple_GET_ITEM(self, 2));
}

/* A module's `__getattr__`: `self` is (module, names whose absence is to be explained, the need). */
static PyObject *
raise_absence(PyObject *self, PyObject *name)
{
    PyObject *module = PyTuple_GET_ITEM(self, 0);
    PyObject *error = PyObject_CallFunction(
        PyExc_AttributeError, "N", PyUnicode_FromFormat("module '%s' has no attribute %R", PyModule_GetName(module), name));
    if (error == NULL || PyObject_SetAttrString(error, "name", name) < 0 || PyObject_SetAttrString(error, "obj", module) < 0) {
        Py_XDECREF(error);
        return NULL;
    }
    int explained = PySequence_Contains(PyTuple_GET_ITEM(self, 1), name);
    return raise_marked(error, explained == 1 ? PyTuple_GET_ITEM(self, 2) : NULL);
}

static PyMethodDef refused = {"refused", (PyCFunction)(void (*)(void))raise_refusal, METH_VARARGS | METH_KEYWORDS, NULL};

PyDoc_STRVAR(refusal_doc, "refusal(error, arguments, need) -> function\n\n"
                          "A function that raises `error(*arguments)`, marked with what this runtime would need.");

static PyObject *
refusal(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *error, *arguments, *need;
    if (!PyArg_ParseTuple(args, "OO!U:refusal", &error, &PyTuple_Type, &arguments, &need)) {
        return NULL;
    }
    return PyCFunction_New(&refused, args);
}

static PyMethodDef absent = {"__getattr__", raise_absence, METH_O, NULL};

PyDoc_STRVAR(absence_doc, "absence(module, names, need) -> function\n\n"
                          "A `__getattr__` for `module` whose AttributeError says for `names` what they would need.");

static PyObject *
absence(PyObject *unused, PyObject *args)
{
    (void)unused;
    PyObject *module, *names, *need;
    if (!PyArg_ParseTuple(args, "O!OU:absence", &PyModule_Type, &module, &names, &need)) {
        return NULL;
    }
    return PyCFunction_New(&absent, args);
}

PyDoc_STRVAR(source_doc, "source(name: str) -> str or None\n\n"
                         "The text of the snippet, or of the session's step, of that name: `linecache` shows its lines in\n"
                         "tracebacks. None when there is no such.");

static PyObject *
source(PyObject *module, PyObject *name)
{
    (void)module;
    if (step_sources != NULL) {
        PyObject *text = PyDict_GetItemWithError(step_sources, name);
        if (text != NULL || PyErr_Occurred()) {
            return Py_XNewRef(text);
        }
    }
    if (!PyUnicode_Check(name) || !PyUnicode_EqualToUTF8(name, "<snippet>")) {
        Py_RETURN_NONE;
    }
    return PyUnicode_DecodeUTF8(snippet_source, (Py_ssize_t)snippet_source_length, "replace");
}

PyDoc_STRVAR(encode_doc, "encode(value) -> bytes or None\n\n"
                         "`value` as JSON by the rules of an evaluation's value; None when it is not JSON.");

static PyObject *
encode_json(PyObject *module, PyObject *value)
{
    (void)module;
    char storage[512];
    buffer out;
    buffer_start(&out, storage, sizeof storage, 0, INT32_MAX);
    encoding result = encode_value(&out, value);
    PyObject *bytes = NULL;
    if (result == ENCODED) {
        bytes = PyBytes_FromStringAndSize(out.bytes, (Py_ssize_t)out.length);
    } else {
        bytes = result == NOT_JSON ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    buffer_end(&out);
    return bytes;
}

PyDoc_STRVAR(decode_doc, "decode(text: bytes) -> object\n\nThe value of a JSON text, as an evaluation's inputs are read.");

static PyObject *
decode_json(PyObject *module, PyObject *text)
{
    (void)module;
    Py_buffer bytes;
    if (PyObject_GetBuffer(text, &bytes, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *value = decode_value(bytes.buf, (size_t)bytes.len);
    PyBuffer_Release(&bytes);
    return value;
}

static PyMethodDef methods[] = {
    {"call_host", call_host, METH_O, call_host_doc},
    {"encode", encode_json, METH_O, encode_doc},
    {"decode", decode_json, METH_O, decode_doc},
    {"absence", absence, METH_VARARGS, absence_doc},
    {"refusal", refusal, METH_VARARGS, refusal_doc},
    {"source", source, METH_O, source_doc},
    {0},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_wasmeval", .m_size = -1, .m_methods = methods,
};

PyObject *
init_wasmeval_module(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddFunctions(module, tool_methods) < 0) {
        Py_CLEAR(module);
    }
    return module;
}
