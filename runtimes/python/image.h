/* What the C files of the Python image share. See ../abi.md for the words. */
#ifndef WASMEVAL_IMAGE_H
#define WASMEVAL_IMAGE_H

#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/* outcomes and flags of a reply */
enum { OUTCOME_VALUE, OUTCOME_RAISED, OUTCOME_TOO_LARGE, OUTCOME_UNSUPPORTED, OUTCOME_MEMORY };
enum { FLAG_NOT_JSON = 1, FLAG_HAS_ARRAY = 2, FLAG_IS_ELSEWHERE = 4 };

enum {
    REPLY_HEADER_BYTES = 32,
    TYPE_BYTES = 256,
    MESSAGE_BYTES = 8192,
    TRACEBACK_BYTES = 32768,
    /* deeper values are not JSON: `_VALUE_DEPTH` of the host's decoder must be at least this */
    VALUE_DEPTH = 256,
    /* of all arrays of a value, as nested lists */
    ARRAY_ELEMENTS = 10000,
};

/* ---- buffer.c: bytes of one reply or one request ---- */

/* A growing run of bytes. It starts in storage of the caller's and moves to the heap only when it must. */
typedef struct {
    char *bytes, *heap;
    size_t length, room;
    size_t limit;   /* the most bytes it may hold; appending beyond sets `over` */
    bool over, failed;
    size_t array_elements;  /* that the value in it has in arrays so far */
} buffer;

void buffer_start(buffer *self, char *storage, size_t room, size_t length, size_t limit);
/* False when the limit is passed (`over`) or memory is short (`failed`); the buffer stays as it was. */
bool buffer_append(buffer *self, const char *bytes, size_t length);
/* Gives the heap back. The reply's buffer is not ended: the instance lives for one evaluation. */
void buffer_end(buffer *self);

/* ---- values.c: Python values as JSON ---- */

typedef enum { ENCODED, NOT_JSON, TOO_LARGE, NO_MEMORY } encoding;

/* Appends `value` as JSON. NOT_JSON and the failures leave a part of it behind: the caller cuts the buffer back. */
encoding encode_value(buffer *out, PyObject *value);
/* Appends `{"repr": ..., "type": ...}`; an exception of the value's own __repr__ becomes part of the text. */
encoding encode_repr(buffer *out, PyObject *value);

/* ---- arrays.c: NumPy's ---- */

/* Looks up what of NumPy this needs, in the build. False with an exception. */
bool prepare_arrays(void);
/* Puts the arrays of a request, `length` bytes of records, into `globals`: copies, or views of these bytes. False with
 * an exception. */
bool add_arrays(PyObject *globals, char *records, size_t length, bool copies);
/* A new reference to what JSON has for a scalar of NumPy's, or to the lists of an array with no more elements than
 * `room`, which are taken from it. NULL for anything else, and with an exception when memory is short. */
PyObject *plain_value(PyObject *value, size_t *room);
/* Appends the record of an array, with the address of its elements, which stay there. NOT_JSON when `value` is none that
 * can have one. */
encoding append_array(buffer *out, PyObject *value);
/* Lets go of them. */
void forget_array(void);

/* ---- reactor.c ---- */

/* A new reference to the value of a JSON text, whose numbers have any length; NULL with an exception. */
PyObject *decode_value(const char *bytes, size_t length);

/* ---- host.c: the module _wasmeval ---- */

extern const char *snippet_source;
extern size_t snippet_source_length;
/* of a session: the name of each of its steps -> its text; NULL before the first */
extern PyObject *step_sources;
PyObject *init_wasmeval_module(void);

/* ---- tools.c: functions without frames ---- */

extern PyMethodDef tool_methods[];

/* ---- numpy.c ---- */

/* Adds NumPy's extension modules to the built-in ones, before the interpreter starts. False when memory is short. */
bool add_numpy_modules(void);

/* ---- heap.c: malloc ---- */

/* Takes every free block out of use, so that what an evaluation allocates lies together. */
void heap_fill_holes(void);

/* ---- snapshot.c: what happens once, before the memory is taken ---- */

/* Makes every reachable object immortal, so that reference counts dirty no page of the image. Returns their number. */
size_t immortalise(void);
/* The same for pymalloc's pools and for the heap below them. */
void fill_heap_holes(void);

#endif
