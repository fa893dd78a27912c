/* CPython as a wasmeval image: the exports of ../abi.md and the way of one evaluation.
 *
 * The snippet is parsed once; its last statement is changed in the syntax tree so that its value is kept; the code runs
 * straight from C, so that no frame of ours stands in a traceback. The failure path is Python (report.py): it may be
 * slow, and it is the interpreter's own `traceback` module that writes the text.
 */
#include "image.h"
#include "pycore_asdl.h"
#include "pycore_ast.h"
#include "pycore_compile.h"
#include "pycore_interp.h"
#include "pycore_parser.h"
#include "pycore_pyarena.h"
#include "pycore_pylifecycle.h"
#include "pycore_pystate.h"

#include <stdlib.h>
#include <string.h>

enum {
    REQUEST_HEADER_BYTES = 16,
    REQUEST_HAS_CONTEXT = 1,
    REQUEST_IS_STEP = 2,
    REQUEST_RENEWS_ENTROPY = 4,
    REQUEST_HAS_ARRAYS = 8,
    ARRAYS_ALIGNMENT = 16,
    STATIC_REQUEST_BYTES = 6 << 10,
    STATIC_REPLY_BYTES = 2 << 10,
    /* freed when memory ran out, so that the failure can still be told */
    RESERVE_BYTES = 384 << 10,
};

typedef struct {
    uint32_t flags, value_limit, code_length, inputs_length;
    char *code;
    const char *inputs;
    char *arrays;
    uint32_t arrays_length;
} request;

/* Both buffers of a small evaluation lie side by side: two or three pages in all. */
static struct {
    char request[STATIC_REQUEST_BYTES], reply[STATIC_REPLY_BYTES];
} storage __attribute__((aligned(4096)));

static char *request_bytes = storage.request;
static size_t request_room = STATIC_REQUEST_BYTES;
static char *memory_reserve;

/* made once, in the snapshot */
static PyObject *file_name, *main_name, *value_name, *flush_name, *builtins_name, *builtins;
static PyObject *inputs_loader, *offer, *report, *first_stdout, *first_stderr;

/* of a session; NULL and 0 before its first step */
static PyObject *session_globals;
static unsigned steps;

/* what the last step left for its reply */
static PyObject *told;
static char *reply_heap;

extern unsigned wasmeval_entropy_age;  /* patches/01 */

/* ---- request and reply ---- */

static uint32_t
load_u32(const char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* They begin, behind what fills up, where every element lies as the machine wants it. */
static bool
find_arrays(request *self, uint32_t length)
{
    uint32_t before = REQUEST_HEADER_BYTES + self->code_length + self->inputs_length;
    uint32_t start = (before + ARRAYS_ALIGNMENT - 1) / ARRAYS_ALIGNMENT * ARRAYS_ALIGNMENT;
    if (start < before || start > length) {
        return false;
    }
    self->arrays = request_bytes + start;
    self->arrays_length = length - start;
    return true;
}

/* The header is the host's own work; it is checked all the same, as reading past the buffer helps nobody. */
static bool
read_request(request *self, uint32_t length)
{
    const char *frame = request_bytes;
    if (length < REQUEST_HEADER_BYTES || length >= request_room || frame[0] != 1 || frame[1] != 0) {
        return false;
    }
    self->flags = (uint8_t)frame[2];
    self->value_limit = load_u32(frame + 4);
    self->code_length = load_u32(frame + 8);
    self->inputs_length = load_u32(frame + 12);
    self->arrays_length = 0;
    self->code = request_bytes + REQUEST_HEADER_BYTES;
    self->inputs = self->code + self->code_length;
    uint32_t rest = length - REQUEST_HEADER_BYTES;
    if (self->code_length > rest || self->inputs_length > rest - self->code_length) {
        return false;
    }
    rest -= self->code_length + self->inputs_length;
    return self->flags & REQUEST_HAS_ARRAYS ? find_arrays(self, length) : rest == 0;
}

typedef struct {
    uint32_t outcome, flags, line, column;
    const char *type, *message, *traceback;
    size_t type_length, message_length, traceback_length;
    size_t array_length;  /* of the record behind the value; there are no texts then */
} ending;

static uint64_t
write_reply(buffer *out, const ending *end)
{
    if (end->outcome != OUTCOME_VALUE) {
        out->length = REPLY_HEADER_BYTES;
    }
    uint32_t header[8] = {
        end->outcome, end->flags, (uint32_t)(out->length - REPLY_HEADER_BYTES - end->array_length),
        (uint32_t)end->type_length, (uint32_t)end->message_length, (uint32_t)end->traceback_length, end->line,
        end->column,
    };
    out->limit = SIZE_MAX;
    if (!buffer_append(out, end->type, end->type_length) || !buffer_append(out, end->message, end->message_length) ||
        !buffer_append(out, end->traceback, end->traceback_length)) {
        out->length = REPLY_HEADER_BYTES;  /* only the outcome is left to tell */
        header[2] = header[3] = header[4] = header[5] = 0;
    }
    memcpy(out->bytes, header, sizeof header);
    return (uint64_t)(uintptr_t)out->bytes << 32 | out->length;
}

static void
say(ending *end, const char *type, const char *message)
{
    end->type = type, end->type_length = strlen(type);
    end->message = message, end->message_length = strlen(message);
}

/* ---- the snippet's own module and code ---- */

/* The evaluation's `__main__`, as a script has it; a session's, once it has begun. Borrowed; NULL with an exception. */
static PyObject *
main_globals(const request *self)
{
    if (session_globals != NULL && self->flags & REQUEST_IS_STEP) {
        return session_globals;
    }
    PyObject *module = PyModule_NewObject(main_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *globals = PyModule_GetDict(module);
    PyInterpreterState *interp = _PyInterpreterState_GET();
    int failed = PyDict_SetItem(globals, builtins_name, builtins) < 0 ||
                 PyDict_SetItem(interp->imports.modules, main_name, module) < 0;
    if (!failed && self->flags & REQUEST_IS_STEP) {
        session_globals = Py_NewRef(globals);
    }
    Py_DECREF(module);
    return failed ? NULL : globals;
}

/* What the code is called in tracebacks: each step of a session has a name of its own, and its lines stay known. */
static bool
name_snippet(const request *self)
{
    snippet_source = self->code;
    snippet_source_length = self->code_length;
    if ((self->flags & REQUEST_IS_STEP) == 0) {
        return true;
    }
    PyObject *name = PyUnicode_FromFormat("<step %u>", ++steps);
    PyObject *text = PyUnicode_DecodeUTF8(self->code, (Py_ssize_t)self->code_length, "replace");
    if (step_sources == NULL) {
        step_sources = PyDict_New();
    }
    bool kept = name && text && step_sources && PyDict_SetItem(step_sources, name, text) == 0;
    if (kept) {
        Py_SETREF(file_name, Py_NewRef(name));
    }
    Py_XDECREF(name);
    Py_XDECREF(text);
    return kept;
}

/* Numbers have any length here, whatever the snippet's limit is. */
PyObject *
decode_value(const char *bytes, size_t length)
{
    PyObject *text = PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)length, NULL);
    if (text == NULL) {
        return NULL;
    }
    PyInterpreterState *interp = _PyInterpreterState_GET();
    int digits = interp->long_state.max_str_digits;
    interp->long_state.max_str_digits = 0;
    PyObject *value = PyObject_CallOneArg(inputs_loader, text);
    interp->long_state.max_str_digits = digits;
    Py_DECREF(text);
    return value;
}

/* Asks the host what the evaluation was given beside its inputs, and puts the tools among it into `globals`. */
static bool
add_context(PyObject *globals, const request *self)
{
    if ((self->flags & REQUEST_HAS_CONTEXT) == 0) {
        return true;
    }
    PyObject *done = PyObject_CallOneArg(offer, globals);
    Py_XDECREF(done);
    return done != NULL;
}

/* Puts the inputs, one JSON object, into `globals`. */
static bool
add_inputs(PyObject *globals, const request *self)
{
    if (self->inputs_length == 0) {
        return true;
    }
    PyObject *inputs = decode_value(self->inputs, self->inputs_length);
    bool added = inputs != NULL && PyDict_Update(globals, inputs) == 0;
    Py_XDECREF(inputs);
    return added;
}

/* Puts the arrays among the inputs into `globals`: as views of the request where it stays, which is no session's. */
static bool
add_input_arrays(PyObject *globals, const request *self)
{
    return self->arrays_length == 0 ||
           add_arrays(globals, self->arrays, self->arrays_length, self->flags & REQUEST_IS_STEP);
}

/* Changes the last statement so that its value is kept. Returns the name that will hold it (borrowed), or NULL. */
static PyObject *
keep_last_value(mod_ty module, PyArena *arena)
{
    asdl_stmt_seq *body = module->v.Module.body;
    Py_ssize_t count = asdl_seq_LEN(body);
    if (count == 0) {
        return NULL;
    }
    stmt_ty last = asdl_seq_GET(body, count - 1);
    expr_ty target = NULL;
    if (last->kind == Assign_kind && asdl_seq_LEN(last->v.Assign.targets) == 1) {
        target = asdl_seq_GET(last->v.Assign.targets, 0);
    } else if (last->kind == AugAssign_kind) {
        target = last->v.AugAssign.target;
    } else if (last->kind == AnnAssign_kind && last->v.AnnAssign.value != NULL) {
        target = last->v.AnnAssign.target;
    } else if (last->kind == Expr_kind) {
        expr_ty value = last->v.Expr.value;
        asdl_expr_seq *targets = _Py_asdl_expr_seq_new(1, arena);
        target = targets ? _PyAST_Name(value_name, Store, value->lineno, value->col_offset, value->end_lineno,
                                       value->end_col_offset, arena) : NULL;
        if (target == NULL) {
            return NULL;
        }
        asdl_seq_SET(targets, 0, target);
        asdl_seq_SET(body, count - 1, _PyAST_Assign(targets, value, NULL, last->lineno, last->col_offset,
                                                    last->end_lineno, last->end_col_offset, arena));
    }
    return target != NULL && target->kind == Name_kind ? target->v.Name.id : NULL;
}

/* A new reference to the code, or NULL with an exception; `kept` is the name that will hold its value. */
static PyCodeObject *
compile_snippet(const char *code, PyObject **kept)
{
    PyCompilerFlags flags = {.cf_flags = PyCF_SOURCE_IS_UTF8 | PyCF_IGNORE_COOKIE, .cf_feature_version = PY_MINOR_VERSION};
    PyArena *arena = _PyArena_New();
    if (arena == NULL) {
        return NULL;
    }
    PyCodeObject *compiled = NULL;
    mod_ty module = _PyParser_ASTFromString(code, file_name, Py_file_input, &flags, arena);
    if (module != NULL) {
        *kept = Py_XNewRef(keep_last_value(module, arena));
        if (!PyErr_Occurred()) {
            compiled = _PyAST_Compile(module, file_name, &flags, -1, arena);
        }
    }
    _PyArena_Free(arena);
    return compiled;
}

/* Runs the snippet. A new reference to its value, or NULL with an exception. */
static PyObject *
run_snippet(const request *self)
{
    PyObject *globals = main_globals(self), *kept = NULL;
    if (globals == NULL || !add_context(globals, self) || !add_inputs(globals, self) ||
        !add_input_arrays(globals, self)) {
        return NULL;
    }
    self->code[self->code_length] = '\0';  /* the inputs, or the arrays' first record, began here; they have been read */
    if (!name_snippet(self)) {
        return NULL;
    }
    PyCodeObject *code = compile_snippet(self->code, &kept);
    PyObject *done = code ? PyEval_EvalCode((PyObject *)code, globals, globals) : NULL;
    Py_XDECREF(code);
    if (done == NULL) {
        Py_XDECREF(kept);
        return NULL;
    }
    Py_DECREF(done);
    PyObject *value = NULL;
    if (kept == value_name) {
        PyDict_Pop(globals, kept, &value);
    } else if (kept != NULL) {
        value = Py_XNewRef(PyDict_GetItemWithError(globals, kept));
    }
    Py_XDECREF(kept);
    if (value == NULL) {
        PyErr_Clear();
        value = Py_NewRef(Py_None);
    }
    return value;
}

/* ---- endings ---- */

static PyObject *
text_of(PyObject *report_result, Py_ssize_t index, const char **bytes, size_t *length, size_t limit)
{
    PyObject *text = PyTuple_GET_ITEM(report_result, index);
    *bytes = PyBytes_AS_STRING(text);
    *length = (size_t)PyBytes_GET_SIZE(text) < limit ? (size_t)PyBytes_GET_SIZE(text) : limit;
    return text;
}

/* What is left to say when report.py itself failed: no traceback, but always an ending. */
static void
describe_plainly(ending *end, PyObject *raised)
{
    PyErr_Clear();
    bool memory = PyErr_GivenExceptionMatches(raised, PyExc_MemoryError);
    end->outcome = memory ? OUTCOME_MEMORY : OUTCOME_RAISED;
    say(end, Py_TYPE(raised)->tp_name, memory ? "memory ran out" : "");
    end->type_length = end->type_length < TYPE_BYTES ? end->type_length : TYPE_BYTES;
}

/* The report's bytes stay alive with the instance, or until a session's next step. */
static void
describe_exception(ending *end)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (PyErr_GivenExceptionMatches(raised, PyExc_MemoryError)) {
        free(memory_reserve);
        memory_reserve = NULL;
    }
    PyObject *arguments[] = {raised, file_name};
    PyObject *result = PyObject_Vectorcall(report, arguments, 2, NULL);
    if (result == NULL) {
        describe_plainly(end, raised);
        return;
    }
    told = result;
    end->outcome = (uint32_t)PyLong_AsLong(PyTuple_GET_ITEM(result, 0));
    text_of(result, 1, &end->type, &end->type_length, TYPE_BYTES);
    text_of(result, 2, &end->message, &end->message_length, MESSAGE_BYTES);
    text_of(result, 3, &end->traceback, &end->traceback_length, TRACEBACK_BYTES);
    end->line = (uint32_t)PyLong_AsLong(PyTuple_GET_ITEM(result, 4));
    end->column = (uint32_t)PyLong_AsLong(PyTuple_GET_ITEM(result, 5));
    PyErr_Clear();
}

static void
describe_value(ending *end, buffer *out, PyObject *value, uint32_t value_limit)
{
    encoding result = encode_value(out, value);
    if (result == NOT_JSON) {
        out->length = REPLY_HEADER_BYTES;
        end->flags = FLAG_NOT_JSON;
        result = encode_repr(out, value);
    }
    size_t value_end = out->length;
    if (result == ENCODED) {
        result = append_array(out, value);
        end->flags |= result == ENCODED ? FLAG_HAS_ARRAY | FLAG_IS_ELSEWHERE : 0;
        end->array_length = out->length - value_end;
        result = result == NOT_JSON ? ENCODED : result;
    }
    if (result == TOO_LARGE) {
        static char message[64];
        PyOS_snprintf(message, sizeof message, "the value is larger than output_bytes (%u)", value_limit);
        end->outcome = OUTCOME_TOO_LARGE;
        end->flags = 0;
        end->array_length = 0;
        say(end, "ValueTooLarge", message);
    } else if (result != ENCODED) {
        end->outcome = OUTCOME_MEMORY;
        end->flags = 0;
        end->array_length = 0;
        say(end, "MemoryError", "memory ran out while the value was encoded");
    }
}

static void
flush(PyObject *stream)
{
    PyObject *result = stream ? PyObject_CallMethodNoArgs(stream, flush_name) : NULL;
    Py_XDECREF(result);
    PyErr_Clear();
}

/* What an interpreter does as it ends: exit functions, then the streams. Objects are not torn down. A session's step is
 * no end: its exit functions wait, for ever, as those of a process that is killed do. */
static void
finish_snippet(bool is_step)
{
    PyInterpreterState *interp = _PyInterpreterState_GET();
    if (!is_step && interp->atexit.ncallbacks > 0) {
        _PyAtExit_Call(interp);
        PyErr_Clear();
    }
    PyObject *now_stdout = PySys_GetObject("stdout"), *now_stderr = PySys_GetObject("stderr");
    if (now_stdout != first_stdout && now_stdout != Py_None) {
        flush(now_stdout);
    }
    if (now_stderr != first_stderr && now_stderr != Py_None) {
        flush(now_stderr);
    }
    flush(first_stdout);
    flush(first_stderr);
}

/* Gives back what the last step's reply was made of, and takes memory for the next failure again. */
static void
begin_step(const request *self)
{
    Py_CLEAR(told);
    forget_array();
    free(reply_heap);
    reply_heap = NULL;
    if (memory_reserve == NULL) {
        memory_reserve = malloc(RESERVE_BYTES);
    }
    if (self->flags & REQUEST_RENEWS_ENTROPY) {
        wasmeval_entropy_age++;
    }
}

/* ---- exports ---- */

__attribute__((export_name("wasmeval_reserve"))) char *
wasmeval_reserve(uint32_t length)
{
    size_t needed = (size_t)length + 1;
    if (needed > request_room) {
        if (request_bytes != storage.request) {
            free(request_bytes);
        }
        request_bytes = malloc(needed);
        request_room = request_bytes ? needed : 0;
    }
    return request_bytes;
}

__attribute__((export_name("wasmeval_evaluate"))) uint64_t
wasmeval_evaluate(uint32_t length)
{
    ending end = {0};
    request asked;
    buffer out;
    buffer_start(&out, storage.reply, sizeof storage.reply, REPLY_HEADER_BYTES, SIZE_MAX);
    if (!read_request(&asked, length)) {
        end.outcome = OUTCOME_RAISED;
        say(&end, "ProtocolError", "the request is not a frame of ABI version 1");
        return write_reply(&out, &end);
    }
    if (asked.value_limit < SIZE_MAX - REPLY_HEADER_BYTES) {
        out.limit = REPLY_HEADER_BYTES + asked.value_limit;
    }
    bool is_step = asked.flags & REQUEST_IS_STEP;
    if (is_step) {
        begin_step(&asked);
    }
    PyObject *value = run_snippet(&asked);
    if (value == NULL) {
        describe_exception(&end);
        if (end.outcome == OUTCOME_VALUE) {
            encode_value(&out, Py_None);  /* sys.exit(0) */
        }
    } else {
        describe_value(&end, &out, value, asked.value_limit);
        Py_DECREF(value);
    }
    finish_snippet(is_step);
    uint64_t written = write_reply(&out, &end);
    reply_heap = out.heap;
    return written;
}

/* ---- the build's one call ---- */

static void
fail(const char *step)
{
    fprintf(stderr, "the image cannot be prepared: %s\n", step);
    if (PyErr_Occurred()) {
        PyErr_Print();
    }
    abort();
}

static void
start_interpreter(void)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    if (PyStatus_Exception(Py_PreInitialize(&before)) ||
        PyImport_AppendInittab("_wasmeval", init_wasmeval_module) < 0 || !add_numpy_modules()) {
        fail("pre-initialisation");
    }
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.install_signal_handlers = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.use_hash_seed = 1;
    config.hash_seed = 20;
    config.module_search_paths_set = 1;
    PyConfig_SetString(&config, &config.program_name, L"");
    PyConfig_SetString(&config, &config.executable, L"");
    PyConfig_SetString(&config, &config.home, L"/usr");
    PyConfig_SetString(&config, &config.stdio_encoding, L"utf-8");
    PyConfig_SetString(&config, &config.stdio_errors, L"strict");
    PyWideStringList_Append(&config.module_search_paths, L"/usr/lib/python3.13");
    PyStatus status = Py_InitializeFromConfig(&config);
    if (PyStatus_Exception(status)) {
        fail(status.err_msg ? status.err_msg : "initialisation");
    }
    PyConfig_Clear(&config);
}

static PyObject *
interned(const char *text)
{
    PyObject *name = PyUnicode_InternFromString(text);
    if (name == NULL) {
        fail(text);
    }
    return name;
}

/* Each snippet of `boot.WARM_UP` takes the way of a request, so that caches and specialised bytecode are in the image. */
static void
warm_up(PyObject *boot)
{
    PyObject *snippets = PyObject_GetAttrString(boot, "WARM_UP");
    if (snippets == NULL) {
        fail("boot.WARM_UP");
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(snippets); i++) {
        Py_ssize_t length;
        const char *frame = PyBytes_AsString(PyList_GET_ITEM(snippets, i));
        length = PyBytes_Size(PyList_GET_ITEM(snippets, i));
        memcpy(wasmeval_reserve((uint32_t)length), frame, (size_t)length);
        wasmeval_evaluate((uint32_t)length);
    }
    Py_DECREF(snippets);
}

static PyObject *
boot_attribute(PyObject *boot, const char *name)
{
    PyObject *value = PyObject_GetAttrString(boot, name);
    if (value == NULL) {
        fail(name);
    }
    return value;
}

extern void __wasilibc_reset_preopens(void) __attribute__((weak));

/* Starts and warms the interpreter; the build takes the memory afterwards and drops this export. */
__attribute__((export_name("wasmeval_prepare"))) void
wasmeval_prepare(void)
{
    start_interpreter();
    file_name = interned("<snippet>");
    main_name = interned("__main__");
    value_name = interned("<value>");
    flush_name = interned("flush");
    builtins_name = interned("__builtins__");
    builtins = PyImport_ImportModule("builtins");
    PyObject *boot = PyImport_ImportModule("_wasmeval_boot");
    if (boot == NULL) {
        fail("boot.py");
    }
    inputs_loader = boot_attribute(boot, "load_inputs");
    offer = boot_attribute(boot, "offer");
    report = boot_attribute(boot, "report");
    first_stdout = boot_attribute(boot, "stdout");
    first_stderr = boot_attribute(boot, "stderr");
    if (!prepare_arrays()) {
        fail("NumPy's C API");
    }
    warm_up(boot);
    PyObject *finished = PyObject_CallMethod(boot, "finish", NULL);
    if (finished == NULL) {
        fail("boot.finish");
    }
    Py_DECREF(finished);
    Py_DECREF(boot);
    if (request_bytes != storage.request) {
        free(request_bytes);
        request_bytes = storage.request;
        request_room = STATIC_REQUEST_BYTES;
    }
    memset(&storage, 0, sizeof storage);
    wasmeval_entropy_age++;  /* what was drawn so far is every instance's */
    snippet_source = "";
    snippet_source_length = 0;
    PyGC_Collect();
    fprintf(stderr, "%zu objects made immortal\n", immortalise());
    memory_reserve = malloc(RESERVE_BYTES);
    fill_heap_holes();
    fflush(stdout);
    fflush(stderr);
    if (__wasilibc_reset_preopens) {
        __wasilibc_reset_preopens();
    }
}
