/* Python values as JSON, straight into the reply.
 *
 * The tree is walked by C recursion to VALUE_DEPTH. Little runs code of the guest here: `items()` of a dict subclass,
 * `__index__` and `__float__` of a subclass of NumPy's scalars, and `__repr__` of what is not JSON.
 */
#include "image.h"
#include "pycore_interp.h"
#include "pycore_long.h"
#include "pycore_pystate.h"

#include <math.h>
#include <string.h>

static encoding encode(buffer *out, PyObject *value, int depth);

static encoding
failure(buffer *out)
{
    return out->failed ? NO_MEMORY : TOO_LARGE;
}

static encoding
append(buffer *out, const char *bytes, size_t length)
{
    return buffer_append(out, bytes, length) ? ENCODED : failure(out);
}

/* An exception of our own making: memory that was short, or a value that cannot be said. */
static encoding
from_exception(void)
{
    bool memory = PyErr_ExceptionMatches(PyExc_MemoryError);
    PyErr_Clear();
    return memory ? NO_MEMORY : NOT_JSON;
}

static size_t
escaped(char *out, Py_UCS4 character)
{
    static const char hex[] = "0123456789abcdef";
    const char *plain = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (; *plain; plain += 2) {
        if ((Py_UCS4)plain[0] == character) {
            out[0] = '\\', out[1] = plain[1];
            return 2;
        }
    }
    out[0] = '\\', out[1] = 'u';
    for (int digit = 0; digit < 4; digit++) {
        out[2 + digit] = hex[(character >> (12 - 4 * digit)) & 15];
    }
    return 6;
}

static size_t
utf8(char *out, Py_UCS4 character)
{
    if (character < 0x20 || character == '"' || character == '\\' || (character >= 0xd800 && character < 0xe000)) {
        return escaped(out, character);
    }
    if (character < 0x80) {
        out[0] = (char)character;
        return 1;
    }
    if (character < 0x800) {
        out[0] = (char)(0xc0 | character >> 6), out[1] = (char)(0x80 | (character & 63));
        return 2;
    }
    if (character < 0x10000) {
        out[0] = (char)(0xe0 | character >> 12), out[1] = (char)(0x80 | (character >> 6 & 63));
        out[2] = (char)(0x80 | (character & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | character >> 18), out[1] = (char)(0x80 | (character >> 12 & 63));
    out[2] = (char)(0x80 | (character >> 6 & 63)), out[3] = (char)(0x80 | (character & 63));
    return 4;
}

static encoding
encode_string(buffer *out, PyObject *text)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    char part[512];
    size_t filled = 0;
    part[filled++] = '"';
    for (Py_ssize_t i = 0; i < length; i++) {
        if (filled > sizeof part - 8) {
            if (!buffer_append(out, part, filled)) {
                return failure(out);
            }
            filled = 0;
        }
        filled += utf8(part + filled, PyUnicode_READ(kind, data, i));
    }
    part[filled++] = '"';
    return append(out, part, filled);
}

/* Decimal digits without the interpreter's limit on them; the quadratic part of that work is the guest's own fuel. */
static encoding
encode_big_integer(buffer *out, PyObject *value)
{
    /* 0.30103 > log10(2): what is surely too long is never converted */
    double digits = (double)_PyLong_NumBits(value) * 0.30103 - 1;
    if (digits > (double)(out->limit - out->length)) {
        out->over = true;
        return TOO_LARGE;
    }
    PyInterpreterState *interp = _PyInterpreterState_GET();
    int limit = interp->long_state.max_str_digits;
    interp->long_state.max_str_digits = 0;
    PyObject *text = PyLong_Type.tp_repr(value);
    interp->long_state.max_str_digits = limit;
    if (text == NULL) {
        return from_exception();
    }
    encoding result = append(out, PyUnicode_DATA(text), (size_t)PyUnicode_GET_LENGTH(text));
    Py_DECREF(text);
    return result;
}

static encoding
encode_integer(buffer *out, PyObject *value)
{
    int overflow;
    long long small = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) {
        return encode_big_integer(out, value);
    }
    char digits[24];
    char *start = digits + sizeof digits;
    unsigned long long rest = small < 0 ? 0ULL - (unsigned long long)small : (unsigned long long)small;
    do {
        *--start = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (small < 0) {
        *--start = '-';
    }
    return append(out, start, (size_t)(digits + sizeof digits - start));
}

static encoding
encode_float(buffer *out, double number)
{
    if (isnan(number)) {
        return append(out, "NaN", 3);
    }
    if (isinf(number)) {
        return number > 0 ? append(out, "Infinity", 8) : append(out, "-Infinity", 9);
    }
    char *text = PyOS_double_to_string(number, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (text == NULL) {
        return from_exception();
    }
    encoding result = append(out, text, strlen(text));
    PyMem_Free(text);
    return result;
}

/* A list may shrink while the items of a dict subclass run, so its size is read anew each time. */
static encoding
encode_array(buffer *out, PyObject *array, int depth)
{
    encoding result = append(out, "[", 1);
    for (Py_ssize_t i = 0; result == ENCODED && i < Py_SIZE(array); i++) {
        PyObject *item = PyList_Check(array) ? PyList_GET_ITEM(array, i) : PyTuple_GET_ITEM(array, i);
        Py_INCREF(item);
        if (i) {
            result = append(out, ", ", 2);
        }
        if (result == ENCODED) {
            result = encode(out, item, depth);
        }
        Py_DECREF(item);
    }
    return result == ENCODED ? append(out, "]", 1) : result;
}

static encoding
encode_pair(buffer *out, PyObject *key, PyObject *value, bool first, int depth)
{
    if (!PyUnicode_Check(key)) {
        return NOT_JSON;
    }
    encoding result = first ? ENCODED : append(out, ", ", 2);
    if (result == ENCODED) {
        result = encode_string(out, key);
    }
    if (result == ENCODED) {
        result = append(out, ": ", 2);
    }
    return result == ENCODED ? encode(out, value, depth) : result;
}

/* A subclass says its own items and their order (OrderedDict.move_to_end). */
static encoding
encode_mapping_items(buffer *out, PyObject *mapping, int depth)
{
    PyObject *items = PyMapping_Items(mapping);
    if (items == NULL) {
        return from_exception();
    }
    encoding result = append(out, "{", 1);
    for (Py_ssize_t i = 0; result == ENCODED && i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        result = PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2
                     ? encode_pair(out, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1), i == 0, depth)
                     : NOT_JSON;
    }
    Py_DECREF(items);
    return result == ENCODED ? append(out, "}", 1) : result;
}

static encoding
encode_dict(buffer *out, PyObject *dict, int depth)
{
    if (!PyDict_CheckExact(dict)) {
        return encode_mapping_items(out, dict, depth);
    }
    encoding result = append(out, "{", 1);
    PyObject *key, *value;
    bool first = true;
    for (Py_ssize_t at = 0; result == ENCODED && PyDict_Next(dict, &at, &key, &value); first = false) {
        Py_INCREF(key);
        Py_INCREF(value);
        result = encode_pair(out, key, value, first, depth);
        Py_DECREF(key);
        Py_DECREF(value);
    }
    return result == ENCODED ? append(out, "}", 1) : result;
}

/* What is JSON by another name: scalars and arrays of NumPy's. */
static encoding
encode_plain(buffer *out, PyObject *value, int depth)
{
    size_t room = ARRAY_ELEMENTS - out->array_elements, left = room;
    PyObject *plain = plain_value(value, &left);
    if (plain == NULL) {
        return PyErr_Occurred() ? from_exception() : NOT_JSON;
    }
    out->array_elements += room - left;
    encoding result = encode(out, plain, depth);
    Py_DECREF(plain);
    return result;
}

static encoding
encode(buffer *out, PyObject *value, int depth)
{
    if (value == Py_None) {
        return append(out, "null", 4);
    }
    if (PyBool_Check(value)) {
        return value == Py_True ? append(out, "true", 4) : append(out, "false", 5);
    }
    if (PyUnicode_Check(value)) {
        return encode_string(out, value);
    }
    if (PyLong_Check(value)) {
        return encode_integer(out, value);
    }
    if (PyFloat_Check(value)) {
        return encode_float(out, PyFloat_AS_DOUBLE(value));
    }
    if (depth == VALUE_DEPTH) {
        return NOT_JSON;
    }
    if (PyList_Check(value) || PyTuple_Check(value)) {
        return encode_array(out, value, depth + 1);
    }
    return PyDict_Check(value) ? encode_dict(out, value, depth + 1) : encode_plain(out, value, depth);
}

encoding
encode_value(buffer *out, PyObject *value)
{
    return encode(out, value, 0);
}

/* `<Point object, repr failed: ValueError: text>`, or NULL with an exception when even that cannot be made. */
static PyObject *
describe_failed_repr(PyObject *value)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *text = PyUnicode_FromFormat("<%s object, repr failed: %s: %S>", Py_TYPE(value)->tp_name,
                                          Py_TYPE(raised)->tp_name, raised);
    if (text == NULL) {
        PyErr_Clear();
        text = PyUnicode_FromFormat("<%s object, repr failed: %s>", Py_TYPE(value)->tp_name, Py_TYPE(raised)->tp_name);
    }
    Py_DECREF(raised);
    return text;
}

static encoding
encode_repr_members(buffer *out, PyObject *repr, PyObject *type)
{
    encoding result = append(out, "{\"repr\": ", 9);
    if (result == ENCODED) {
        result = encode_string(out, repr);
    }
    if (result == ENCODED) {
        result = append(out, ", \"type\": ", 10);
    }
    if (result == ENCODED) {
        result = encode_string(out, type);
    }
    return result == ENCODED ? append(out, "}", 1) : result;
}

encoding
encode_repr(buffer *out, PyObject *value)
{
    PyObject *repr = PyObject_Repr(value);
    if (repr == NULL) {
        repr = describe_failed_repr(value);
    }
    PyObject *type = repr ? PyType_GetName(Py_TYPE(value)) : NULL;
    encoding result = type ? encode_repr_members(out, repr, type) : (PyErr_Clear(), NO_MEMORY);
    Py_XDECREF(repr);
    Py_XDECREF(type);
    return result;
}
