/* What is done to the heap once, before the build takes the memory. */
#include "image.h"
#include "pycore_interp.h"
#include "pycore_object.h"
#include "pycore_obmalloc.h"
#include "pycore_pystate.h"

#include <stdlib.h>
#include <string.h>

/* ---- immortal objects ---- */

static struct {
    PyObject **objects;
    size_t count, room, done;
} pending;

static int
make_immortal(PyObject *object, void *unused)
{
    (void)unused;
    if (object == NULL || _Py_IsImmortal(object)) {
        return 0;
    }
    object->ob_refcnt = _Py_IMMORTAL_REFCNT;
    pending.done++;
    if (pending.count == pending.room) {
        pending.room = pending.room ? pending.room * 2 : 1 << 16;
        pending.objects = realloc(pending.objects, pending.room * sizeof *pending.objects);
        if (pending.objects == NULL) {
            abort();
        }
    }
    pending.objects[pending.count++] = object;
    return 0;
}

static void
visit_code(PyCodeObject *code)
{
    PyObject *parts[] = {
        code->co_consts, code->co_names, code->co_exceptiontable, code->co_localsplusnames, code->co_localspluskinds,
        code->co_filename, code->co_name, code->co_qualname, code->co_linetable,
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        make_immortal(parts[i], NULL);
    }
}

/* `tp_traverse` says what garbage collection needs; names in dicts and the parts of code objects come on top. */
static void
visit_parts(PyObject *object)
{
    if (PyCode_Check(object)) {
        visit_code((PyCodeObject *)object);
    } else if (PyTuple_Check(object)) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++) {
            make_immortal(PyTuple_GET_ITEM(object, i), NULL);
        }
    } else if (PyObject_IS_GC(object) && Py_TYPE(object)->tp_traverse) {
        Py_TYPE(object)->tp_traverse(object, make_immortal, NULL);
    }
    if (PyDict_Check(object)) {
        PyObject *key, *value;
        for (Py_ssize_t at = 0; PyDict_Next(object, &at, &key, &value);) {
            make_immortal(key, NULL);
        }
    }
}

static int
visit_tracked(PyObject *object, void *unused)
{
    make_immortal(object, unused);
    visit_parts(object);
    return 1;
}

size_t
immortalise(void)
{
    PyInterpreterState *interp = _PyInterpreterState_GET();
    PyUnstable_GC_VisitObjects(visit_tracked, NULL);
    PyObject *strings = _Py_INTERP_CACHED_OBJECT(interp, interned_strings), *key, *value;
    for (Py_ssize_t at = 0; strings && PyDict_Next(strings, &at, &key, &value);) {
        make_immortal(key, NULL);
    }
    while (pending.count) {
        visit_parts(pending.objects[--pending.count]);
    }
    free(pending.objects);
    pending.objects = NULL;
    return pending.done;
}

/* ---- holes ---- */

/* Blocks that pages of the image have room for would each dirty another page. So every hole is taken for good, and
 * the evaluation's own allocations come one after the other from fresh memory at the end of the heap. */

/* pymalloc's holes: the rest of each pool that is in use, then every free pool, up to a new arena. */
static void
fill_small_blocks(void)
{
    PyInterpreterState *interp = _PyInterpreterState_GET();
    struct _obmalloc_mgmt *manager = &interp->obmalloc->mgmt;
    size_t arenas = manager->narenas_currently_allocated;
    for (size_t size = 512; size > 0; size -= ALIGNMENT) {
        for (;;) {
            void *block = PyObject_Malloc(size);
            poolp pool = _Py_ALIGN_DOWN(block, POOL_SIZE);
            if (pool->ref.count == 1) {
                PyObject_Free(block);
                break;
            }
            memset(block, 0, size);
        }
    }
    while (manager->narenas_currently_allocated == arenas) {
        memset(PyObject_Malloc(512), 0, 512);
    }
}

void
fill_heap_holes(void)
{
    heap_fill_holes();
    fill_small_blocks();
}
