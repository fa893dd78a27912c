/* NumPy's arrays and scalars, as inputs and as values. Nothing of NumPy is touched where there are none: the C API is
 * looked up in the build, and what is an array is told by its type's address.
 */
#include "image.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include <string.h>

enum {
    RECORD_BYTES = 16,
    RECORD_ALIGNMENT = 16,
    DTYPE_BYTES = 64,
};

/* The words of a record of abi.md. */
typedef struct {
    uint32_t name_length, dtype_length, dimensions, data_length;
} record;

static PyTypeObject *masked_type;

/* whose elements the host reads where they lie */
static PyArrayObject *told_array;

bool
prepare_arrays(void)
{
    if (PyArray_ImportNumPyAPI() < 0) {
        return false;
    }
    PyObject *module = PyImport_ImportModule("numpy.ma");
    masked_type = module ? (PyTypeObject *)PyObject_GetAttrString(module, "MaskedArray") : NULL;
    Py_XDECREF(module);
    return masked_type != NULL;
}

static size_t
aligned(size_t length)
{
    return (length + RECORD_ALIGNMENT - 1) / RECORD_ALIGNMENT * RECORD_ALIGNMENT;
}

/* ---- inputs ---- */

/* Whether elements of this type may travel: those that are nothing but their bytes, alike on every machine. */
static bool
is_carried(PyArray_Descr *dtype)
{
    int number = dtype->type_num;
    bool plain = number <= NPY_ULONGLONG || number == NPY_HALF || number == NPY_FLOAT || number == NPY_DOUBLE ||
                 number == NPY_CFLOAT || number == NPY_CDOUBLE;
    bool wide = number == NPY_STRING || number == NPY_UNICODE || number == NPY_DATETIME || number == NPY_TIMEDELTA;
    return (plain || wide) && PyDataType_ELSIZE(dtype) > 0;
}

static bool
refuse(const char *what)
{
    if (!PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "the request has an array with %s", what);
    }
    return false;
}

/* Reads the shape, if it and the dtype say as many bytes as there are. */
static bool
read_shape(const char *bytes, const record *head, PyArray_Descr *dtype, npy_intp *shape)
{
    uint64_t size = (uint64_t)PyDataType_ELSIZE(dtype);
    for (uint32_t axis = 0; axis < head->dimensions; axis++) {
        uint64_t length;
        memcpy(&length, bytes + sizeof length * axis, sizeof length);
        if (length > NPY_MAX_INTP || size * length > UINT32_MAX) {
            return refuse("a shape too large for memory");
        }
        size *= length;
        shape[axis] = (npy_intp)length;
    }
    return size == head->data_length || refuse("other bytes than its shape says");
}

/* A new array over `data`, or over a copy of it. */
static PyObject *
make_array(PyArray_Descr *dtype, const record *head, const npy_intp *shape, char *data, bool copies)
{
    void *place = copies ? NULL : data;
    Py_INCREF(dtype);
    PyObject *array = PyArray_NewFromDescr(&PyArray_Type, dtype, (int)head->dimensions, shape, NULL, place,
                                           copies ? 0 : NPY_ARRAY_CARRAY, NULL);
    if (array != NULL && copies) {
        memcpy(PyArray_DATA((PyArrayObject *)array), data, head->data_length);
    }
    return array;
}

static bool
add_array(PyObject *globals, const record *head, const char *shape_bytes, const char *words, char *data, bool copies)
{
    npy_intp shape[NPY_MAXDIMS];
    PyArray_Descr *dtype = NULL;
    PyObject *text = PyUnicode_DecodeASCII(words + head->name_length, head->dtype_length, NULL);
    PyObject *name = PyUnicode_DecodeUTF8(words, head->name_length, NULL);
    PyObject *array = NULL;
    if (text == NULL || name == NULL || !PyArray_DescrConverter(text, &dtype) || !is_carried(dtype)) {
        refuse("a dtype that is not carried");
    } else if (read_shape(shape_bytes, head, dtype, shape)) {
        array = make_array(dtype, head, shape, data, copies);
    }
    bool added = array != NULL && PyDict_SetItem(globals, name, array) == 0;
    Py_XDECREF(text);
    Py_XDECREF(name);
    Py_XDECREF(dtype);
    Py_XDECREF(array);
    return added;
}

bool
add_arrays(PyObject *globals, char *records, size_t length, bool copies)
{
    while (length > 0) {
        record head;
        if (length < RECORD_BYTES) {
            return refuse("a record that is cut");
        }
        memcpy(&head, records, sizeof head);
        if (head.dimensions > NPY_MAXDIMS || head.dtype_length > DTYPE_BYTES || head.name_length > length ||
            head.data_length > length) {
            return refuse("lengths that cannot be");
        }
        char *shape = records + RECORD_BYTES, *words = shape + sizeof(uint64_t) * head.dimensions;
        size_t before = aligned((size_t)(words - records) + head.name_length + head.dtype_length);
        size_t whole = before + aligned(head.data_length);
        if (whole > length) {
            return refuse("a record that is cut");
        }
        if (!add_array(globals, &head, shape, words, records + before, copies)) {
            return false;
        }
        records += whole;
        length -= whole;
    }
    return true;
}

/* ---- values ---- */

static bool
is_array(PyObject *value)
{
    return PyArray_Check(value) && !PyObject_TypeCheck(value, masked_type);
}

/* How many objects the nested lists of an array take at most along one of its levels. */
static size_t
breadth(PyArrayObject *array)
{
    size_t most = 1, product = 1;
    for (int axis = 0; axis < PyArray_NDIM(array) && product > 0; axis++) {
        product *= (size_t)PyArray_DIM(array, axis);
        if (product > ARRAY_ELEMENTS) {
            return SIZE_MAX;
        }
        most = product > most ? product : most;
    }
    return most;
}

/* Times are their own reprs: their lists are numbers or dates, as their unit will have it. */
static PyObject *
list_of(PyArrayObject *array, size_t *room)
{
    size_t needed = breadth(array);
    if (PyArray_ISDATETIME(array) || needed > *room) {
        return NULL;
    }
    *room -= needed;
    return PyArray_ToList(array);
}

PyObject *
plain_value(PyObject *value, size_t *room)
{
    if (is_array(value)) {
        return list_of((PyArrayObject *)value, room);
    }
    if (!PyArray_IsScalar(value, Generic) || PyArray_IsScalar(value, Timedelta)) {
        return NULL;
    }
    if (PyArray_IsScalar(value, Bool)) {
        int truth = PyObject_IsTrue(value);
        return truth < 0 ? NULL : PyBool_FromLong(truth);
    }
    if (PyArray_IsScalar(value, Integer)) {
        return PyNumber_Index(value);
    }
    return PyArray_IsScalar(value, Floating) ? PyNumber_Float(value) : NULL;
}

/* The record of an array whose elements lie side by side, and stay where they are. */
static encoding
append_record(buffer *out, PyArrayObject *array, const char *dtype, size_t dtype_length)
{
    static const char zeros[RECORD_ALIGNMENT];
    int dimensions = PyArray_NDIM(array);
    record head = {0, (uint32_t)dtype_length, (uint32_t)dimensions, (uint32_t)PyArray_NBYTES(array)};
    bool written = buffer_append(out, (const char *)&head, sizeof head);
    for (int axis = 0; axis < dimensions; axis++) {
        uint64_t extent = (uint64_t)PyArray_DIM(array, axis);
        written = written && buffer_append(out, (const char *)&extent, sizeof extent);
    }
    size_t words = RECORD_BYTES + sizeof(uint64_t) * (size_t)dimensions + dtype_length;
    uint32_t address = (uint32_t)(uintptr_t)PyArray_DATA(array);
    written = written && buffer_append(out, dtype, dtype_length) &&
              buffer_append(out, zeros, aligned(words) - words) &&
              buffer_append(out, (const char *)&address, sizeof address);
    return written ? ENCODED : NO_MEMORY;
}

/* False for most values, without a look at NumPy. */
static bool
may_be_array(PyObject *value)
{
    unsigned long json = Py_TPFLAGS_LONG_SUBCLASS | Py_TPFLAGS_UNICODE_SUBCLASS | Py_TPFLAGS_LIST_SUBCLASS |
                         Py_TPFLAGS_TUPLE_SUBCLASS | Py_TPFLAGS_DICT_SUBCLASS;
    return value != Py_None && !PyFloat_CheckExact(value) && !PyType_HasFeature(Py_TYPE(value), json);
}

encoding
append_array(buffer *out, PyObject *value)
{
    if (!may_be_array(value) || !is_array(value) || !is_carried(PyArray_DESCR((PyArrayObject *)value))) {
        return NOT_JSON;
    }
    if ((size_t)PyArray_NBYTES((PyArrayObject *)value) > out->limit - out->length) {
        return TOO_LARGE;
    }
    PyObject *text = PyObject_GetAttrString((PyObject *)PyArray_DESCR((PyArrayObject *)value), "str");
    Py_ssize_t length = 0;
    const char *dtype = text ? PyUnicode_AsUTF8AndSize(text, &length) : NULL;
    told_array = dtype ? (PyArrayObject *)PyArray_GETCONTIGUOUS((PyArrayObject *)value) : NULL;
    encoding result = NO_MEMORY;
    if (told_array != NULL && length <= DTYPE_BYTES) {
        out->limit = SIZE_MAX;  /* the elements count, and are not in it */
        result = append_record(out, told_array, dtype, (size_t)length);
    }
    PyErr_Clear();
    Py_XDECREF(text);
    return result;
}

void
forget_array(void)
{
    Py_CLEAR(told_array);
}
