/* The JavaScript runtime's side of the guest ABI (runtimes/abi.md): one call evaluates one snippet.
 *
 * The build calls `build_boot` with the boot library, evaluates warm-up requests, calls `build_settle` and takes the
 * snapshot; only `memory`, `wasmeval_reserve` and `wasmeval_evaluate` stay exported after that. Everything here is
 * written so that hostile code ends as an outcome: no pointer or length below comes from the snippet unchecked.
 */
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

#include "quickjs.h"
#include "reactor.h"

/* Of quickjs.patch. */
extern JSValue JS_PreviewMapIterator(JSContext *ctx, JSValueConst val, bool *is_entries);
extern void JS_ForgetEntropy(JSContext *ctx);

#define EXPORT(name) __attribute__((export_name(name)))

enum { ABI_VERSION = 1, REQUEST_HEADER = 16, REPLY_HEADER = 32 };
enum { HAS_CONTEXT = 1, IS_STEP = 2, RENEWS_ENTROPY = 4 };
enum { MAX_TYPE = 256, MAX_MESSAGE = 8192, MAX_TRACEBACK = 32768 };
enum { MAX_DEPTH = 256, MAX_INPUT_DEPTH = 1000 };

/* The shadow stack of the module has STACK_BYTES (set by the linker); QuickJS raises a RangeError before the last
 * STACK_MARGIN of it, which its C helpers, this file and the error's own report may use. */
#ifndef STACK_BYTES
#define STACK_BYTES (2 * 1024 * 1024)
#endif
#define STACK_MARGIN (256 * 1024)

/* Small snippets must not collect: the first collection comes when the heap has grown by this much. */
#define GC_HEADROOM (8 * 1024 * 1024)

typedef enum { OUTCOME_VALUE, OUTCOME_RAISED, OUTCOME_TOO_LARGE, OUTCOME_UNSUPPORTED, OUTCOME_NO_MEMORY } Outcome;

static JSRuntime *rt;
static JSContext *ctx;
static JSValue global, object_proto;
static JSClassID plain_class;
static struct {
    JSValue inspect, type_name, describe, run_due, resolve, grant, settle, abandon, module_of, without_imports;
} boot;

/* Set by an allocation that failed: QuickJS may throw null when it has no memory for an error. */
static bool allocation_failed;

/* ---- allocation -------------------------------------------------------------------------------------------- */

/* Given back when memory runs out, so that there is some for the error and for the snippet that catches it. The
 * blocks are as large as the allocator's pages, which any size of block can be cut from. */
enum { RESERVE_BLOCKS = 6, RESERVE_BYTES = 60 * 1024 };
static void *reserve[RESERVE_BLOCKS];
static bool reserve_taken;

static void take_reserve(void)
{
    int i;
    for (i = 0; i < RESERVE_BLOCKS; i++)
        if (!reserve[i])
            reserve[i] = malloc(RESERVE_BYTES);
    reserve_taken = true;
}

static void *out_of_memory(void)
{
    int i;
    allocation_failed = true;
    for (i = 0; reserve_taken && i < RESERVE_BLOCKS; i++) {
        free(reserve[i]);
        reserve[i] = NULL;
    }
    reserve_taken = false;
    return NULL;
}

static void *js_alloc_zeroed(void *opaque, size_t count, size_t size)
{
    void *p = calloc(count, size);
    return p || !count || !size ? p : out_of_memory();
}

static void *js_alloc(void *opaque, size_t size)
{
    void *p = malloc(size);
    return p || !size ? p : out_of_memory();
}

static void js_release(void *opaque, void *ptr)
{
    free(ptr);
}

static void *js_resize(void *opaque, void *ptr, size_t size)
{
    void *p = realloc(ptr, size);
    return p || !size ? p : out_of_memory();
}

static size_t js_usable_size(const void *ptr)
{
    return malloc_usable_size((void *)ptr);
}

static const JSMallocFunctions allocator = { js_alloc_zeroed, js_alloc, js_release, js_resize, js_usable_size };

/* ---- a growing byte buffer with a bound ---------------------------------------------------------------------- */

typedef struct {
    uint8_t *data;
    size_t length, capacity;
    size_t limit; /* of length */
} Buffer;

typedef enum { PUT_OK, PUT_TOO_LARGE, PUT_NO_MEMORY, PUT_NOT_JSON } Put;

static Put buffer_room(Buffer *b, size_t more)
{
    size_t capacity;
    uint8_t *data;

    if (more > b->limit - b->length)
        return PUT_TOO_LARGE;
    if (b->length + more <= b->capacity)
        return PUT_OK;
    capacity = b->capacity * 2;
    if (capacity < b->length + more)
        capacity = b->length + more;
    data = realloc(b->data, capacity);
    if (!data)
        return PUT_NO_MEMORY;
    b->data = data;
    b->capacity = capacity;
    return PUT_OK;
}

static Put put(Buffer *b, const void *bytes, size_t length)
{
    Put r = buffer_room(b, length);
    if (r == PUT_OK) {
        memcpy(b->data + b->length, bytes, length);
        b->length += length;
    }
    return r;
}

/* ---- values as JSON -------------------------------------------------------------------------------------------- */

typedef struct {
    Buffer *out;
    void *path[MAX_DEPTH]; /* the objects that enclose the present value, to find cycles */
    unsigned depth;
} Writer;

static Put put_value(Writer *w, JSValueConst v);

static bool is_lone_surrogate(const uint8_t *s)
{
    return s[0] == 0xED && s[1] >= 0xA0;
}

static Put put_quoted(Buffer *out, const uint8_t *s, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    size_t start = 0, i = 0;
    Put r;

    if (n > out->limit)
        return PUT_TOO_LARGE;
    if ((r = put(out, "\"", 1)) != PUT_OK)
        return r;
    while (i < n) {
        uint8_t c = s[i];
        char escape[6] = { '\\', 'u', '0', '0', 0, 0 };
        size_t escape_length = 6, width = 1;

        if (c == '"' || c == '\\') {
            escape[1] = c;
            escape_length = 2;
        } else if (c < 0x20) {
            escape[4] = hex[c >> 4];
            escape[5] = hex[c & 15];
        } else if (c == 0xED && i + 2 < n && is_lone_surrogate(s + i)) {
            unsigned unit = 0xD000 | (s[i + 1] & 0x3F) << 6 | (s[i + 2] & 0x3F);
            escape[2] = 'd';
            escape[3] = hex[unit >> 8 & 15];
            escape[4] = hex[unit >> 4 & 15];
            escape[5] = hex[unit & 15];
            width = 3;
        } else {
            i++;
            continue;
        }
        if ((r = put(out, s + start, i - start)) != PUT_OK || (r = put(out, escape, escape_length)) != PUT_OK)
            return r;
        i += width;
        start = i;
    }
    if ((r = put(out, s + start, n - start)) != PUT_OK)
        return r;
    return put(out, "\"", 1);
}

/* What a failed operation on the value means: no memory, or a getter, proxy or toJSON that threw. */
static Put put_failed(void)
{
    JS_FreeValue(ctx, JS_GetException(ctx));
    return allocation_failed ? PUT_NO_MEMORY : PUT_NOT_JSON;
}

static Put put_string(Buffer *out, JSValueConst v)
{
    size_t n;
    const char *s = JS_ToCStringLen(ctx, &n, v);
    Put r;

    if (!s)
        return put_failed();
    r = put_quoted(out, (const uint8_t *)s, n);
    JS_FreeCString(ctx, s);
    return r;
}

static Put put_number(Buffer *out, JSValueConst v)
{
    size_t n;
    const char *s;
    double d = 0;
    Put r;

    JS_ToFloat64(ctx, &d, v);
    if (d == 0 && __builtin_signbit(d))
        return put(out, "-0.0", 4);
    s = JS_ToCStringLen(ctx, &n, v);
    if (!s)
        return put_failed();
    r = put(out, s, n);
    JS_FreeCString(ctx, s);
    return r;
}

static Put put_bigint(Buffer *out, JSValueConst v)
{
    size_t n;
    const char *s = JS_ToCStringLen(ctx, &n, v);
    Put r;

    if (!s)
        return put_failed();
    r = put(out, s, n);
    JS_FreeCString(ctx, s);
    return r;
}

static Put put_array(Writer *w, JSValueConst v)
{
    int64_t n, i;
    Put r;

    if (JS_GetLength(ctx, v, &n) < 0)
        return put_failed();
    if (n > (int64_t)w->out->limit)
        return PUT_TOO_LARGE;
    r = put(w->out, "[", 1);
    for (i = 0; r == PUT_OK && i < n; i++) {
        JSValue item;
        if (i && (r = put(w->out, ",", 1)) != PUT_OK)
            break;
        item = JS_GetPropertyInt64(ctx, v, i);
        if (JS_IsException(item))
            return put_failed();
        r = put_value(w, item);
        JS_FreeValue(ctx, item);
    }
    return r == PUT_OK ? put(w->out, "]", 1) : r;
}

static Put put_members(Writer *w, JSValueConst v, const JSPropertyEnum *names, uint32_t n)
{
    bool first = true;
    uint32_t i;
    Put r = put(w->out, "{", 1);

    for (i = 0; r == PUT_OK && i < n; i++) {
        JSValue name, item = JS_GetProperty(ctx, v, names[i].atom);
        if (JS_IsException(item))
            return put_failed();
        if (JS_IsUndefined(item))
            continue;
        if (!first)
            r = put(w->out, ",", 1);
        first = false;
        if (r == PUT_OK) {
            name = JS_AtomToString(ctx, names[i].atom);
            r = JS_IsException(name) ? put_failed() : put_string(w->out, name);
            JS_FreeValue(ctx, name);
        }
        if (r == PUT_OK)
            r = put(w->out, ":", 1);
        if (r == PUT_OK)
            r = put_value(w, item);
        JS_FreeValue(ctx, item);
    }
    return r == PUT_OK ? put(w->out, "}", 1) : r;
}

static Put put_plain(Writer *w, JSValueConst v)
{
    JSPropertyEnum *names;
    uint32_t n, i;
    Put r = PUT_OK;

    if (JS_GetOwnPropertyNames(ctx, &names, &n, v, JS_GPN_STRING_MASK | JS_GPN_SYMBOL_MASK | JS_GPN_ENUM_ONLY))
        return put_failed();
    for (i = 0; r == PUT_OK && i < n; i++) {
        JSValue key = JS_AtomToValue(ctx, names[i].atom);
        if (JS_IsSymbol(key))
            r = PUT_NOT_JSON;
        JS_FreeValue(ctx, key);
    }
    if (r == PUT_OK)
        r = put_members(w, v, names, n);
    JS_FreePropertyEnum(ctx, names, n);
    return r;
}

static bool is_array(JSValueConst v)
{
    for (;;) {
        if (!JS_IsProxy(v))
            return JS_IsArray(v);
        JSValue target = JS_GetProxyTarget(ctx, v);
        JS_FreeValue(ctx, target); /* the proxy holds it */
        v = target;
    }
}

/* A plain object is one whose prototype is Object.prototype or null; any other has a class that JSON cannot say. */
static Put put_object(Writer *w, JSValueConst v)
{
    JSValue method, proto;
    void *self = JS_VALUE_GET_PTR(v);
    unsigned i;
    bool plain;
    Put r;

    if (w->depth == MAX_DEPTH)
        return PUT_NOT_JSON;
    for (i = 0; i < w->depth; i++)
        if (w->path[i] == self)
            return PUT_NOT_JSON;
    w->path[w->depth++] = self;
    method = JS_GetPropertyStr(ctx, v, "toJSON");
    if (JS_IsException(method)) {
        r = put_failed();
    } else if (JS_IsFunction(ctx, method)) {
        JSValue said = JS_Call(ctx, method, v, 0, NULL);
        r = JS_IsException(said) ? put_failed() : put_value(w, said);
        JS_FreeValue(ctx, said);
    } else if (is_array(v)) {
        r = put_array(w, v);
    } else if (JS_GetClassID(v) == plain_class || JS_IsProxy(v)) {
        proto = JS_GetPrototype(ctx, v);
        plain = JS_IsNull(proto) || JS_IsStrictEqual(ctx, proto, object_proto);
        r = JS_IsException(proto) ? put_failed() : !plain || JS_IsFunction(ctx, v) ? PUT_NOT_JSON : put_plain(w, v);
        JS_FreeValue(ctx, proto);
    } else {
        r = PUT_NOT_JSON;
    }
    JS_FreeValue(ctx, method);
    w->depth--;
    return r;
}

static Put put_value(Writer *w, JSValueConst v)
{
    if (JS_IsNull(v) || JS_IsUndefined(v))
        return put(w->out, "null", 4);
    if (JS_IsBool(v))
        return JS_VALUE_GET_BOOL(v) ? put(w->out, "true", 4) : put(w->out, "false", 5);
    if (JS_IsNumber(v))
        return put_number(w->out, v);
    if (JS_IsString(v))
        return put_string(w->out, v);
    if (JS_IsBigInt(v))
        return put_bigint(w->out, v);
    if (JS_IsObject(v))
        return put_object(w, v);
    return PUT_NOT_JSON;
}

char *json_text(JSValueConst v, size_t *length, bool *no_memory)
{
    Buffer out = { .limit = INT32_MAX };
    Writer w = { .out = &out };
    Put r;

    allocation_failed = false;
    r = put_value(&w, v);
    *no_memory = r == PUT_NO_MEMORY || r == PUT_TOO_LARGE;
    *length = out.length;
    if (r == PUT_OK)
        return (char *)out.data;
    free(out.data);
    return NULL;
}

/* ---- inputs: JSON with NaN, infinities and integers of any size -------------------------------------------------- */

typedef struct {
    const char *at, *end;
    unsigned depth;
} Reader;

static JSValue read_value(Reader *r);

static JSValue read_failed(void)
{
    return JS_ThrowSyntaxError(ctx, "not JSON, or nested too deeply");
}

static void skip_space(Reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r'))
        r->at++;
}

static bool accept(Reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool accept_word(Reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n))
        return false;
    r->at += n;
    return true;
}

/* QuickJS's own JSON reader unescapes strings that need it. */
static JSValue read_string(Reader *r)
{
    const char *start = r->at;
    bool escaped = false;

    for (r->at++; r->at < r->end && *r->at != '"'; r->at++) {
        if (*r->at == '\\') {
            escaped = true;
            if (++r->at == r->end)
                return read_failed();
        }
    }
    if (r->at >= r->end)
        return read_failed();
    r->at++;
    if (!escaped)
        return JS_NewStringLen(ctx, start + 1, r->at - start - 2);
    {
        /* the parser wants a NUL behind its text */
        size_t n = r->at - start;
        char *copy = js_malloc(ctx, n + 1);
        JSValue v;
        if (!copy)
            return JS_EXCEPTION;
        memcpy(copy, start, n);
        copy[n] = 0;
        v = JS_ParseJSON(ctx, copy, n, "<inputs>");
        js_free(ctx, copy);
        return v;
    }
}

static JSValue read_big_integer(const char *digits, size_t n)
{
    JSValue text = JS_NewStringLen(ctx, digits, n), make, v;
    if (JS_IsException(text))
        return text;
    make = JS_GetPropertyStr(ctx, global, "BigInt");
    v = JS_Call(ctx, make, JS_UNDEFINED, 1, (JSValueConst *)&text);
    JS_FreeValue(ctx, make);
    JS_FreeValue(ctx, text);
    return v;
}

/* An integer that a Number cannot hold exactly becomes a BigInt. */
static JSValue read_number(Reader *r)
{
    const char *start = r->at;
    char text[64], *stop;
    bool integer = true;
    size_t n;
    double d;

    if (*r->at == '-')
        r->at++;
    if (accept_word(r, "Infinity"))
        return JS_NewFloat64(ctx, *start == '-' ? -__builtin_inf() : __builtin_inf());
    for (; r->at < r->end; r->at++) {
        char c = *r->at;
        if (c == '.' || c == 'e' || c == 'E')
            integer = false;
        else if ((c < '0' || c > '9') && c != '+' && c != '-')
            break;
    }
    n = r->at - start;
    if (n == 0 || (*start == '-' && n == 1))
        return read_failed();
    if (integer && n > 15) {
        if (n <= 18) {
            int64_t exact = strtoll(start, NULL, 10);
            if (exact >= -9007199254740991 && exact <= 9007199254740991)
                return JS_NewInt64(ctx, exact);
        }
        return read_big_integer(start, n);
    }
    if (n < sizeof(text)) {
        memcpy(text, start, n);
        text[n] = 0;
        d = strtod(text, &stop);
        if (stop != text + n)
            return read_failed();
    } else {
        char *copy = js_malloc(ctx, n + 1);
        if (!copy)
            return JS_EXCEPTION;
        memcpy(copy, start, n);
        copy[n] = 0;
        d = strtod(copy, NULL);
        js_free(ctx, copy);
    }
    return JS_NewNumber(ctx, d);
}

static JSValue read_array(Reader *r)
{
    JSValue array = JS_NewArray(ctx);
    uint32_t i = 0;

    r->at++;
    if (JS_IsException(array) || accept(r, ']'))
        return array;
    do {
        JSValue item = read_value(r);
        if (JS_IsException(item) || JS_DefinePropertyValueUint32(ctx, array, i++, item, JS_PROP_C_W_E) < 0)
            goto fail;
    } while (accept(r, ','));
    if (accept(r, ']'))
        return array;
    read_failed();
fail:
    JS_FreeValue(ctx, array);
    return JS_EXCEPTION;
}

/* Adds one `"name": value` to the object; inputs themselves are members of the global object. */
static int read_member(Reader *r, JSValueConst object)
{
    JSValue name, item;
    JSAtom atom;

    skip_space(r);
    if (r->at == r->end || *r->at != '"') {
        read_failed();
        return -1;
    }
    name = read_string(r);
    if (JS_IsException(name))
        return -1;
    atom = JS_ValueToAtom(ctx, name);
    JS_FreeValue(ctx, name);
    if (!accept(r, ':')) {
        JS_FreeAtom(ctx, atom);
        read_failed();
        return -1;
    }
    item = read_value(r);
    if (!JS_IsException(item) && JS_DefinePropertyValue(ctx, object, atom, item, JS_PROP_C_W_E) >= 0) {
        JS_FreeAtom(ctx, atom);
        return 0;
    }
    JS_FreeAtom(ctx, atom);
    return -1;
}

static int read_members(Reader *r, JSValueConst object)
{
    r->at++;
    if (accept(r, '}'))
        return 0;
    do {
        if (read_member(r, object))
            return -1;
    } while (accept(r, ','));
    if (accept(r, '}'))
        return 0;
    read_failed();
    return -1;
}

static JSValue read_object(Reader *r)
{
    JSValue object = JS_NewObject(ctx);
    if (!JS_IsException(object) && read_members(r, object)) {
        JS_FreeValue(ctx, object);
        return JS_EXCEPTION;
    }
    return object;
}

static JSValue read_value(Reader *r)
{
    JSValue v;

    skip_space(r);
    if (r->at == r->end || r->depth == MAX_INPUT_DEPTH)
        return read_failed();
    switch (*r->at) {
    case '{':
    case '[':
        r->depth++;
        v = *r->at == '{' ? read_object(r) : read_array(r);
        r->depth--;
        return v;
    case '"':
        return read_string(r);
    case 't':
        return accept_word(r, "true") ? JS_TRUE : read_failed();
    case 'f':
        return accept_word(r, "false") ? JS_FALSE : read_failed();
    case 'n':
        return accept_word(r, "null") ? JS_NULL : read_failed();
    case 'N':
        return accept_word(r, "NaN") ? JS_NAN : read_failed();
    default:
        return read_number(r);
    }
}

static int read_inputs(const char *text, size_t length)
{
    Reader r = { text, text + length, 0 };

    skip_space(&r);
    if (r.at == r.end || *r.at != '{') {
        read_failed();
        return -1;
    }
    return read_members(&r, global);
}

JSValue json_value(const char *text, size_t length)
{
    Reader r = { text, text + length, 0 };
    JSValue v = read_value(&r);

    if (JS_IsException(v))
        return v;
    skip_space(&r);
    if (r.at == r.end)
        return v;
    JS_FreeValue(ctx, v);
    return read_failed();
}

/* ---- what the boot library may call -------------------------------------------------------------------------------- */

void replace_lone_surrogates(uint8_t *s, size_t n)
{
    size_t i;
    for (i = 0; i + 2 < n; i++) {
        if (s[i] == 0xED && s[i + 1] >= 0xA0) {
            memcpy(s + i, "\xEF\xBF\xBD", 3);
            i += 2;
        }
    }
}

static JSValue native_write(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    int32_t fd = 1;
    size_t n;
    char *s;
    __wasi_ciovec_t chunk;

    JS_ToInt32(c, &fd, argv[0]);
    s = (char *)JS_ToCStringLen(c, &n, argv[1]);
    if (!s)
        return JS_EXCEPTION;
    replace_lone_surrogates((uint8_t *)s, n);
    chunk.buf = (const uint8_t *)s;
    chunk.buf_len = n;
    while (chunk.buf_len) {
        __wasi_size_t written = 0;
        if (__wasi_fd_write(fd == 2 ? 2 : 1, &chunk, 1, &written) || !written || written > chunk.buf_len)
            break;
        chunk.buf += written;
        chunk.buf_len -= written;
    }
    JS_FreeCString(c, s);
    return JS_UNDEFINED;
}

static uint64_t clock_ns(__wasi_clockid_t id)
{
    __wasi_timestamp_t t = 0;
    (void)!__wasi_clock_time_get(id, 1, &t);
    return t;
}

static uint64_t started_ns;

/* now(): milliseconds since this evaluation began, by the monotonic clock. */
static JSValue native_now(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    return JS_NewFloat64(c, (double)(clock_ns(__WASI_CLOCKID_MONOTONIC) - started_ns) / 1e6);
}

/* wall(): milliseconds since 1970, with a fraction. */
static JSValue native_wall(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    return JS_NewFloat64(c, (double)(clock_ns(__WASI_CLOCKID_REALTIME) / 1000) / 1e3);
}

static double next_due = -1; /* of a timer or immediate, as now() counts; negative when there is none */
static bool due_holds;       /* whether any of them keeps a finished snippet alive */

static JSValue native_arm(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    due_holds = JS_ToBool(c, argv[1]);
    return JS_ToFloat64(c, &next_due, argv[0]) ? JS_EXCEPTION : JS_UNDEFINED;
}

bool bytes_argument(JSContext *c, JSValueConst *argv, uint8_t **bytes, size_t *length)
{
    uint64_t offset, wanted;
    size_t size;

    if (JS_ToIndex(c, &offset, argv[1]) || JS_ToIndex(c, &wanted, argv[2]))
        return false;
    *length = wanted;
    *bytes = wanted ? JS_GetArrayBuffer(c, &size, argv[0]) : (uint8_t *)"";
    if (!*bytes)
        return false;
    if (wanted && (offset > size || wanted > size - offset)) {
        JS_ThrowRangeError(c, "out of bounds");
        return false;
    }
    *bytes += wanted ? offset : 0;
    return true;
}

static void *resize_block(JSRuntime *runtime, void *opaque, void *block, size_t size)
{
    return js_realloc_rt(runtime, block, size);
}

JSValue buffer_of(JSContext *c, uint8_t *block, size_t length)
{
    JSValue v = JS_NewArrayBuffer(c, block, length, 0, resize_block, NULL, false);
    if (JS_IsException(v))
        js_free(c, block);
    return v;
}

/* entropy(buffer, offset, length) */
static JSValue native_entropy(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    size_t length;
    uint8_t *bytes;

    if (!bytes_argument(c, argv, &bytes, &length))
        return JS_EXCEPTION;
    while (length) {
        size_t n = length < 256 ? length : 256;
        if (getentropy(bytes, n))
            return JS_ThrowInternalError(c, "no entropy");
        bytes += n;
        length -= n;
    }
    return JS_UNDEFINED;
}

/* encode(string): an ArrayBuffer with its UTF-8 */
static JSValue native_encode(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    size_t n;
    char *s = (char *)JS_ToCStringLen(c, &n, argv[0]);
    JSValue v;

    if (!s)
        return JS_EXCEPTION;
    replace_lone_surrogates((uint8_t *)s, n);
    v = JS_NewArrayBufferCopy(c, (const uint8_t *)s, n);
    JS_FreeCString(c, s);
    return v;
}

/* One step of a UTF-8 decoder: reads at most what is there. Returns the number of bytes used; *point is the code
 * point, or -1 for an ill-formed maximal part, or -2 when the sequence is cut off by the end.
 * Source: https://encoding.spec.whatwg.org/#utf-8-decoder */
static size_t utf8_step(const uint8_t *s, size_t n, int32_t *point)
{
    uint8_t c = s[0], low = 0x80, high = 0xBF;
    unsigned need, i;

    if (c < 0x80) {
        *point = c;
        return 1;
    }
    if (c >= 0xC2 && c <= 0xDF) {
        need = 1;
        *point = c & 0x1F;
    } else if (c >= 0xE0 && c <= 0xEF) {
        need = 2;
        *point = c & 0x0F;
        low = c == 0xE0 ? 0xA0 : low;
        high = c == 0xED ? 0x9F : high;
    } else if (c >= 0xF0 && c <= 0xF4) {
        need = 3;
        *point = c & 0x07;
        low = c == 0xF0 ? 0x90 : low;
        high = c == 0xF4 ? 0x8F : high;
    } else {
        *point = -1;
        return 1;
    }
    for (i = 1; i <= need; i++) {
        if (i == n) {
            *point = -2;
            return i;
        }
        if (s[i] < low || s[i] > high) {
            *point = -1;
            return i;
        }
        *point = *point << 6 | (s[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    return need + 1;
}

/* decode(buffer, offset, length, fatal, stream): [string, bytes used], or null when fatal and ill-formed. With
 * stream, a sequence cut off by the end is left over instead of replaced. */
static JSValue native_decode(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    size_t length, i = 0, units = 0;
    bool fatal = JS_ToBool(c, argv[3]), stream = JS_ToBool(c, argv[4]);
    uint8_t *bytes;
    uint16_t *text;
    JSValue parts[2];

    if (!bytes_argument(c, argv, &bytes, &length))
        return JS_EXCEPTION;
    text = js_malloc(c, length * 2 + 2);
    if (!text)
        return JS_EXCEPTION;
    while (i < length) {
        int32_t point;
        size_t used = utf8_step(bytes + i, length - i, &point);
        if (point == -2 && stream)
            break;
        i += used;
        if (point < 0 && fatal) {
            js_free(c, text);
            return JS_NULL;
        }
        if (point < 0)
            point = 0xFFFD;
        if (point >= 0x10000) {
            text[units++] = 0xD7C0 + (point >> 10);
            text[units++] = 0xDC00 | (point & 0x3FF);
        } else {
            text[units++] = point;
        }
    }
    parts[0] = JS_NewStringUTF16(c, text, units);
    js_free(c, text);
    if (JS_IsException(parts[0]))
        return JS_EXCEPTION;
    parts[1] = JS_NewInt64(c, i);
    return JS_NewArrayFrom(c, 2, parts);
}

/* brand(value): the name of the engine's class of an object, whatever its prototype says */
static JSValue native_brand(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    JSClassID id = JS_GetClassID(argv[0]);
    JSAtom name;
    JSValue v;

    if (id == JS_INVALID_CLASS_ID)
        return JS_UNDEFINED;
    if (JS_IsProxy(argv[0]))
        return JS_NewString(c, "Proxy");
    name = JS_GetClassName(JS_GetRuntime(c), id);
    v = JS_AtomToString(c, name);
    JS_FreeAtom(c, name);
    return v;
}

/* promise(p): [state, result] with state 0 pending, 1 fulfilled, 2 rejected */
static JSValue native_promise(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    JSPromiseStateEnum state = JS_PromiseState(c, argv[0]);
    JSValue parts[2] = { JS_NewInt32(c, state), JS_UNDEFINED };

    if (state == JS_PROMISE_FULFILLED || state == JS_PROMISE_REJECTED)
        parts[1] = JS_PromiseResult(c, argv[0]);
    return JS_NewArrayFrom(c, 2, parts);
}

/* target(proxy): what it stands for, without running its traps */
static JSValue native_target(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    return JS_IsProxy(argv[0]) ? JS_GetProxyTarget(c, argv[0]) : JS_UNDEFINED;
}

/* rest(iterator): [items, whether they are entries] of a Map's or Set's iterator, which stays where it is */
static JSValue native_rest(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    bool entries = false;
    JSValue parts[2] = { JS_PreviewMapIterator(c, argv[0], &entries), JS_UNDEFINED };

    if (JS_IsException(parts[0]) || JS_IsUndefined(parts[0]))
        return parts[0];
    parts[1] = JS_NewBool(c, entries);
    return JS_NewArrayFrom(c, 2, parts);
}

static const JSCFunctionListEntry natives[] = {
    JS_CFUNC_DEF("write", 2, native_write),     JS_CFUNC_DEF("now", 0, native_now),
    JS_CFUNC_DEF("wall", 0, native_wall),       JS_CFUNC_DEF("arm", 2, native_arm),
    JS_CFUNC_DEF("entropy", 3, native_entropy), JS_CFUNC_DEF("encode", 1, native_encode),
    JS_CFUNC_DEF("decode", 5, native_decode),   JS_CFUNC_DEF("brand", 1, native_brand),
    JS_CFUNC_DEF("promise", 1, native_promise), JS_CFUNC_DEF("target", 1, native_target),
    JS_CFUNC_DEF("rest", 1, native_rest),
};

/* ---- promises that nobody handles ------------------------------------------------------------------------------------ */

typedef struct Rejection {
    struct Rejection *next;
    JSValue promise, reason;
} Rejection;

static Rejection *rejections; /* in the order of their rejection */

static void track_rejection(JSContext *c, JSValueConst promise, JSValueConst reason, bool handled, void *opaque)
{
    Rejection **at = &rejections, *r;

    while (*at && JS_VALUE_GET_PTR((*at)->promise) != JS_VALUE_GET_PTR(promise))
        at = &(*at)->next;
    if (handled && *at) {
        r = *at;
        *at = r->next;
        JS_FreeValue(c, r->promise);
        JS_FreeValue(c, r->reason);
        free(r);
    } else if (!handled && !*at) {
        r = malloc(sizeof(*r));
        if (!r) {
            allocation_failed = true;
            return;
        }
        r->next = NULL;
        r->promise = JS_DupValue(c, promise);
        r->reason = JS_DupValue(c, reason);
        *at = r;
    }
}

static void forget_rejections(void)
{
    while (rejections) {
        Rejection *r = rejections;
        rejections = r->next;
        JS_FreeValue(ctx, r->promise);
        JS_FreeValue(ctx, r->reason);
        free(r);
    }
}

/* The first rejection that is not of `awaited`, which the evaluation itself looks at. */
static bool unhandled_rejection(JSValueConst awaited, JSValue *reason)
{
    Rejection *r;

    for (r = rejections; r; r = r->next) {
        if (JS_VALUE_GET_PTR(r->promise) != JS_VALUE_GET_PTR(awaited)) {
            *reason = JS_DupValue(ctx, r->reason);
            return true;
        }
    }
    return false;
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

/* Runs microtasks until there are none. False when one of them threw; the error is pending then. */
static bool run_jobs(void)
{
    JSContext *c;
    int r;

    while ((r = JS_ExecutePendingJob(rt, &c)) > 0)
        ;
    return r == 0;
}

/* How long it is until `due`, as now() counts, in nanoseconds; 0 when it is past. */
static int64_t ns_until(double due)
{
    double wait = due - (double)(clock_ns(__WASI_CLOCKID_MONOTONIC) - started_ns) / 1e6;
    return wait > 0 ? (int64_t)(wait * 1e6) + 1 : 0;
}

static void sleep_ns(int64_t ns)
{
    __wasi_subscription_t want = { 0 };
    __wasi_event_t event;
    __wasi_size_t events = 0;

    if (!ns)
        return;
    want.u.tag = __WASI_EVENTTYPE_CLOCK;
    want.u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
    want.u.u.clock.timeout = ns;
    want.u.u.clock.precision = 1;
    (void)!__wasi_poll_oneoff(&want, &event, 1, &events);
}

/* Hands the next outcome of a call to the library, waiting `ns` at most. False when time was up. */
static bool take_outcome(int64_t ns, JSValue *done)
{
    JSValue outcome = host_wait(ctx, ns), parts[3];
    int i;

    *done = outcome;
    if (JS_IsException(outcome) || JS_IsUndefined(outcome))
        return JS_IsException(outcome);
    if (JS_IsNull(outcome)) {
        *done = JS_Call(ctx, boot.abandon, JS_UNDEFINED, 0, NULL);
        return true;
    }
    for (i = 0; i < 3; i++)
        parts[i] = JS_GetPropertyUint32(ctx, outcome, i);
    JS_FreeValue(ctx, outcome);
    *done = JS_Call(ctx, boot.settle, JS_UNDEFINED, 3, (JSValueConst *)parts);
    for (i = 0; i < 3; i++)
        JS_FreeValue(ctx, parts[i]);
    return true;
}

/* One turn of the loop: an outcome or a callback that is due, whichever comes first; when both are there they alternate, so
 * that neither starves the other. False when it threw. */
static bool turn(bool *took_outcome)
{
    bool due = next_due >= 0;
    int64_t ns = due ? ns_until(next_due) : -1;
    JSValue done;

    if (calls_under_way && !(*took_outcome && ns == 0)) {
        *took_outcome = take_outcome(ns, &done);
        if (*took_outcome) {
            JS_FreeValue(ctx, done);
            return !JS_IsException(done);
        }
    } else if (!calls_under_way) {
        sleep_ns(ns);
    }
    *took_outcome = false;
    if (!due)
        return true;
    next_due = -1;
    done = JS_Call(ctx, boot.run_due, JS_UNDEFINED, 0, NULL);
    JS_FreeValue(ctx, done);
    return !JS_IsException(done);
}

/* A thenable that is no promise is adopted by one, as `await` does. */
static JSValue awaitable(JSValue v)
{
    JSValue then;
    bool adopt;

    if (!JS_IsObject(v) || JS_IsPromise(v))
        return v;
    then = JS_GetPropertyStr(ctx, v, "then");
    if (JS_IsException(then)) {
        JS_FreeValue(ctx, v);
        return JS_EXCEPTION;
    }
    adopt = JS_IsFunction(ctx, then);
    JS_FreeValue(ctx, then);
    if (adopt) {
        JSValue promise = JS_Call(ctx, boot.resolve, JS_UNDEFINED, 1, (JSValueConst *)&v);
        JS_FreeValue(ctx, v);
        return promise;
    }
    return v;
}

/* Takes the settled promise of the script or of its completion value one step further. True when `*v` is final. */
static bool advance(JSValue *v, bool *script)
{
    JSPromiseStateEnum state = JS_IsPromise(*v) ? JS_PromiseState(ctx, *v) : JS_PROMISE_NOT_A_PROMISE;
    JSValue result;

    if (state == JS_PROMISE_PENDING)
        return false;
    if (state == JS_PROMISE_NOT_A_PROMISE)
        return true;
    result = JS_PromiseResult(ctx, *v);
    if (state == JS_PROMISE_REJECTED) {
        JS_FreeValue(ctx, *v);
        *v = JS_Throw(ctx, result);
        return true;
    }
    if (!*script) {
        JS_FreeValue(ctx, *v);
        *v = result;
        return true;
    }
    /* the script's own promise has the completion value in a box, so that it is not awaited unseen */
    *script = false;
    JS_FreeValue(ctx, *v);
    *v = awaitable(JS_GetPropertyStr(ctx, result, "value"));
    JS_FreeValue(ctx, result);
    return JS_IsException(*v) || advance(v, script);
}

/* What the code is called in stacks: each step of a session has a name of its own. */
static char file_name[24] = "<snippet>";
static uint32_t steps;

static JSValue compile_and_begin(const char *code, size_t length)
{
    return JS_Eval(ctx, code, length, file_name, JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_ASYNC);
}

/* Begins the script; when it is none because it begins with import statements, what they become. */
static JSValue begin_script(const char *code, size_t length)
{
    JSValue v = compile_and_begin(code, length), error, text, changed;
    const char *s;
    size_t n;

    if (!JS_IsException(v) || allocation_failed || !memmem(code, length, "import", 6))
        return v;
    error = JS_GetException(ctx);
    text = JS_NewStringLen(ctx, code, length);
    changed = JS_Call(ctx, boot.without_imports, JS_UNDEFINED, 1, (JSValueConst *)&text);
    s = JS_IsString(changed) ? JS_ToCStringLen(ctx, &n, changed) : NULL;
    if (s)
        v = compile_and_begin(s, n);
    else
        JS_Throw(ctx, JS_DupValue(ctx, error));
    JS_FreeCString(ctx, s);
    JS_FreeValue(ctx, changed);
    JS_FreeValue(ctx, text);
    JS_FreeValue(ctx, error);
    return v;
}

/* Evaluates the script and everything that it leaves to be done. Returns its completion value, or JS_EXCEPTION. */
static JSValue run_script(const char *code, size_t length)
{
    JSValue v = begin_script(code, length), reason;
    bool script = true, final = false, took_outcome = false;

    while (!JS_IsException(v)) {
        if (!run_jobs())
            break;
        if (!final)
            final = advance(&v, &script);
        if (JS_IsException(v))
            return v;
        if (JS_IsJobPending(rt))
            continue;
        if (unhandled_rejection(final ? JS_UNDEFINED : v, &reason)) {
            JS_Throw(ctx, reason);
            break;
        }
        if (final && !calls_under_way && !(next_due >= 0 && due_holds))
            return v;
        if (next_due < 0 && !calls_under_way) {
            JS_ThrowPlainError(ctx, "top-level await never settles: nothing is left that could settle it");
            break;
        }
        if (!turn(&took_outcome))
            break;
    }
    if (!JS_IsException(v))
        JS_FreeValue(ctx, v);
    return JS_EXCEPTION;
}

/* ---- import() of the modules that `require` knows ------------------------------------------------------------------------ */

static JSValue module_object(const char *name)
{
    JSValue text = JS_NewString(ctx, name), object;

    if (JS_IsException(text))
        return text;
    object = JS_Call(ctx, boot.module_of, JS_UNDEFINED, 1, (JSValueConst *)&text);
    JS_FreeValue(ctx, text);
    return object;
}

/* Calls `put_export` for each member of the module's object, and for the object itself as `default`. */
static int each_export(JSContext *c, JSModuleDef *m, JSValueConst object,
                       int (*put_export)(JSContext *, JSModuleDef *, const char *, JSValue))
{
    JSPropertyEnum *names;
    uint32_t n, i;
    int r = put_export(c, m, "default", JS_DupValue(c, object));

    if (r < 0 || JS_GetOwnPropertyNames(c, &names, &n, object, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    for (i = 0; r >= 0 && i < n; i++) {
        const char *name = JS_AtomToCString(c, names[i].atom);
        r = name ? put_export(c, m, name, JS_GetProperty(c, object, names[i].atom)) : -1;
        JS_FreeCString(c, name);
    }
    JS_FreePropertyEnum(c, names, n);
    return r < 0 ? -1 : 0;
}

static int declare_export(JSContext *c, JSModuleDef *m, const char *name, JSValue value)
{
    JS_FreeValue(c, value);
    return JS_AddModuleExport(c, m, name);
}

static int fill_module(JSContext *c, JSModuleDef *m)
{
    JSAtom atom = JS_GetModuleName(c, m);
    const char *name = JS_AtomToCString(c, atom);
    JSValue object = name ? module_object(name) : JS_EXCEPTION;
    int r = JS_IsException(object) ? -1 : each_export(c, m, object, JS_SetModuleExport);

    JS_FreeValue(c, object);
    JS_FreeCString(c, name);
    JS_FreeAtom(c, atom);
    return r;
}

static JSModuleDef *load_module(JSContext *c, const char *name, void *opaque)
{
    JSValue object = module_object(name);
    JSModuleDef *m = NULL;

    if (JS_IsObject(object)) {
        m = JS_NewCModule(c, name, fill_module);
        if (m && each_export(c, m, object, declare_export))
            m = NULL; /* the context owns it */
    } else if (!JS_IsException(object)) {
        JS_ThrowReferenceError(c, "could not load module '%s'", name);
    }
    JS_FreeValue(c, object);
    return m;
}

/* ---- replies ---------------------------------------------------------------------------------------------------------------- */

static Buffer reply;

static void set_u32(unsigned field, uint32_t n)
{
    memcpy(reply.data + field * 4, &n, 4);
}

static void reply_begin(size_t limit)
{
    reply.length = REPLY_HEADER;
    reply.limit = REPLY_HEADER + limit;
    memset(reply.data, 0, REPLY_HEADER);
}

/* A reply of fixed text; needs no memory beyond what the image reserved. */
static void reply_fixed(Outcome outcome, const char *type, const char *message)
{
    reply_begin(1024);
    set_u32(0, outcome);
    set_u32(3, strlen(type));
    set_u32(4, strlen(message));
    put(&reply, type, strlen(type));
    put(&reply, message, strlen(message));
}

static void reply_no_memory(void)
{
    reply_fixed(OUTCOME_NO_MEMORY, "OutOfMemory", "the snippet needs more memory than it may have");
}

static void reply_too_large(void)
{
    reply_fixed(OUTCOME_TOO_LARGE, "OutputTooLarge", "the value is larger than the limit");
}

/* `{"repr": …, "type": …}` of a value that JSON cannot say */
static Put put_repr(JSValueConst v)
{
    JSValue text = JS_Call(ctx, boot.inspect, JS_UNDEFINED, 1, (JSValueConst *)&v), type = JS_UNDEFINED;
    Put r;

    if (JS_IsException(text)) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        if (allocation_failed)
            return PUT_NO_MEMORY;
        text = JS_NewString(ctx, "[a value that cannot be shown]");
    }
    type = JS_Call(ctx, boot.type_name, JS_UNDEFINED, 1, (JSValueConst *)&v);
    if (JS_IsException(type)) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        type = JS_NewString(ctx, "Object");
    }
    reply.length = REPLY_HEADER;
    r = put(&reply, "{\"repr\":", 8);
    if (r == PUT_OK)
        r = put_string(&reply, text);
    if (r == PUT_OK)
        r = put(&reply, ",\"type\":", 8);
    if (r == PUT_OK)
        r = put_string(&reply, type);
    if (r == PUT_OK)
        r = put(&reply, "}", 1);
    JS_FreeValue(ctx, text);
    JS_FreeValue(ctx, type);
    return r;
}

static void reply_value(JSValueConst v, size_t value_limit)
{
    static Writer w;
    Put r;

    reply_begin(value_limit);
    allocation_failed = false;
    w.out = &reply;
    w.depth = 0;
    r = put_value(&w, v);
    if (r == PUT_NOT_JSON) {
        r = put_repr(v);
        set_u32(1, 1);
    }
    if (r == PUT_OK)
        set_u32(2, reply.length - REPLY_HEADER);
    else if (r == PUT_TOO_LARGE)
        reply_too_large();
    else
        reply_no_memory();
}

/* Appends text of at most `limit` bytes, the middle left out when it has more, and never a part of a character. */
static uint32_t put_cut(JSValueConst v, size_t limit)
{
    static const char gap[] = "\n    ...\n";
    size_t n, head, tail, before = reply.length;
    char *s = (char *)JS_ToCStringLen(ctx, &n, v);

    if (!s) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        return 0;
    }
    replace_lone_surrogates((uint8_t *)s, n);
    if (n <= limit) {
        put(&reply, s, n);
    } else {
        head = limit >= 64 ? (limit - sizeof(gap)) / 2 : limit;
        tail = limit >= 64 ? n - (limit - sizeof(gap)) / 2 : n;
        while (head && (s[head] & 0xC0) == 0x80)
            head--;
        while (tail < n && (s[tail] & 0xC0) == 0x80)
            tail++;
        put(&reply, s, head);
        if (tail < n) {
            put(&reply, gap, sizeof(gap) - 1);
            put(&reply, s + tail, n - tail);
        }
    }
    JS_FreeCString(ctx, s);
    return reply.length - before;
}

static uint32_t get_u32(JSValueConst array, uint32_t i)
{
    JSValue v = JS_GetPropertyUint32(ctx, array, i);
    uint32_t n = 0;
    JS_ToUint32(ctx, &n, v);
    JS_FreeValue(ctx, v);
    return n;
}

/* describe(error, code) gives [outcome, type, message, traceback, line, column]. */
static void reply_described(JSValueConst parts)
{
    static const size_t limits[] = { MAX_TYPE, MAX_MESSAGE, MAX_TRACEBACK };
    unsigned i;

    reply_begin(MAX_TYPE + MAX_MESSAGE + MAX_TRACEBACK);
    if (buffer_room(&reply, MAX_TYPE + MAX_MESSAGE + MAX_TRACEBACK) != PUT_OK) {
        reply_no_memory();
        return;
    }
    set_u32(0, get_u32(parts, 0));
    for (i = 0; i < 3; i++) {
        JSValue text = JS_GetPropertyUint32(ctx, parts, i + 1);
        set_u32(i + 3, put_cut(text, limits[i]));
        JS_FreeValue(ctx, text);
    }
    set_u32(6, get_u32(parts, 4));
    set_u32(7, get_u32(parts, 5));
}

static void reply_error(const char *code, size_t length)
{
    JSValue args[3] = { JS_GetException(ctx), JS_UNDEFINED, JS_UNDEFINED }, parts;
    bool starved = allocation_failed && JS_IsNull(args[0]);

    allocation_failed = false;
    if (starved) {
        reply_no_memory();
        return;
    }
    args[1] = JS_NewStringLen(ctx, code, length);
    args[2] = JS_NewString(ctx, file_name);
    parts = JS_Call(ctx, boot.describe, JS_UNDEFINED, 3, (JSValueConst *)args);
    if (JS_IsException(parts)) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        if (allocation_failed)
            reply_no_memory();
        else
            reply_fixed(OUTCOME_RAISED, "Error", "the error could not be described: describing it threw another");
    } else {
        reply_described(parts);
    }
    JS_FreeValue(ctx, parts);
    JS_FreeValue(ctx, args[0]);
    JS_FreeValue(ctx, args[1]);
    JS_FreeValue(ctx, args[2]);
}

#ifdef PROFILE
/* ---- what instrumented code calls (-fprofile-generate); see profile.py ------------------------------------------------- */

extern char __start___llvm_prf_cnts[], __stop___llvm_prf_cnts[], __start___llvm_prf_data[], __stop___llvm_prf_data[],
    __start___llvm_prf_names[], __stop___llvm_prf_names[];

int __llvm_profile_runtime;

/* Observed values: an open hash table of (record, site, value) -> count. */
enum { OBSERVED = 1 << 18 };
static struct {
    uint32_t record, site;
    uint64_t value, count;
} observed[OBSERVED];

static void observe(uint64_t value, void *record, uint32_t site)
{
    uint32_t key = (uint32_t)(uintptr_t)record, tries;
    uint32_t hash = key * 2654435761u ^ site * 2246822519u ^ (uint32_t)value * 3266489917u;

    hash ^= hash >> 15;
    for (tries = 0; tries < 64; tries++) {
        uint32_t at = (hash + tries) & (OBSERVED - 1);
        if (!observed[at].record) {
            observed[at].record = key;
            observed[at].site = site;
            observed[at].value = value;
        }
        if (observed[at].record == key && observed[at].site == site && observed[at].value == value) {
            observed[at].count++;
            return;
        }
    }
}

void __llvm_profile_instrument_target(uint64_t value, void *record, uint32_t site)
{
    observe(value, record, site);
}

void __llvm_profile_instrument_memop(uint64_t value, void *record, uint32_t site)
{
    observe(value > 1024 ? 1024 : value, record, site);
}

EXPORT("profile_bound") void *profile_bound(uint32_t i)
{
    void *bounds[] = { __start___llvm_prf_cnts,  __stop___llvm_prf_cnts,  __start___llvm_prf_data, __stop___llvm_prf_data,
                       __start___llvm_prf_names, __stop___llvm_prf_names, observed, observed + OBSERVED };
    return bounds[i];
}
#endif

/* ---- exports ------------------------------------------------------------------------------------------------------------------ */

static uint8_t *request;
static uint32_t request_capacity;

EXPORT("wasmeval_reserve") void *wasmeval_reserve(uint32_t length)
{
    /* one byte more: the parser wants a NUL behind the code */
    if (length == UINT32_MAX)
        return NULL;
    if (length + 1 > request_capacity) {
        free(request);
        request = malloc(length + 1);
        request_capacity = request ? length + 1 : 0;
    }
    return request;
}

static uint32_t get_field(uint32_t offset)
{
    uint32_t n;
    memcpy(&n, request + offset, 4);
    return n;
}

/* Tools become global functions, and the library learns what else there is. 0 when all went well. */
static int take_grants(void)
{
    JSValue context = host_context(ctx), done;

    if (JS_IsException(context))
        return -1;
    done = JS_Call(ctx, boot.grant, JS_UNDEFINED, 1, (JSValueConst *)&context);
    JS_FreeValue(ctx, context);
    JS_FreeValue(ctx, done);
    return JS_IsException(done) ? -1 : 0;
}

/* The global scope of a session is that of all its steps. */
static void begin_step(uint32_t flags)
{
    snprintf(file_name, sizeof(file_name), "<step %u>", (unsigned)++steps);
    take_reserve();
    if (flags & RENEWS_ENTROPY)
        JS_ForgetEntropy(ctx);
}

static void evaluate(uint32_t length)
{
    uint32_t flags, value_limit, code_length, inputs_length;
    char *code;
    JSValue v;

    if (length < REQUEST_HEADER || length >= request_capacity || (get_field(0) & 0xFFFF) != ABI_VERSION) {
        reply_fixed(OUTCOME_RAISED, "Error", "malformed request frame");
        return;
    }
    flags = get_field(0) >> 16;
    value_limit = get_field(4);
    code_length = get_field(8);
    inputs_length = get_field(12);
    if (code_length > length - REQUEST_HEADER || inputs_length != length - REQUEST_HEADER - code_length) {
        reply_fixed(OUTCOME_RAISED, "Error", "malformed request frame");
        return;
    }
    code = (char *)request + REQUEST_HEADER;
    if (value_limit > UINT32_MAX - REPLY_HEADER)
        value_limit = UINT32_MAX - REPLY_HEADER;
    if (flags & IS_STEP)
        begin_step(flags);
    if (flags & HAS_CONTEXT && take_grants()) {
        reply_error("", 0);
        return;
    }
    if (inputs_length && read_inputs(code + code_length, inputs_length)) {
        reply_error("", 0);
        return;
    }
    code[code_length] = 0;
    v = run_script(code, code_length);
    if (JS_IsException(v))
        reply_error(code, code_length);
    else
        reply_value(v, value_limit);
    JS_FreeValue(ctx, v);
}

EXPORT("wasmeval_evaluate") uint64_t wasmeval_evaluate(uint32_t length)
{
    JS_UpdateStackTop(rt);
    started_ns = clock_ns(__WASI_CLOCKID_MONOTONIC);
    allocation_failed = false;
    next_due = -1;
    calls_under_way = 0;
    forget_rejections();
    evaluate(length);
    return (uint64_t)(uintptr_t)reply.data << 32 | reply.length;
}

static JSValue take(JSValueConst object, const char *name)
{
    return JS_GetPropertyStr(ctx, object, name);
}

/* Builds the context and evaluates the boot library, `length` bytes at the reserved buffer. 0 when all went well;
 * else the length of a message at the reserved buffer. */
EXPORT("build_boot") uint32_t build_boot(uint32_t length)
{
    JSValue make, natives_object, made = JS_UNDEFINED, object;
    size_t n, size;
    uint8_t *code;
    const char *text;

    rt = JS_NewRuntime2(&allocator, NULL);
    ctx = JS_NewContext(rt);
    JS_AddIntrinsicDOMException(ctx);
    JS_SetMaxStackSize(rt, STACK_BYTES - STACK_MARGIN);
    JS_SetGCThreshold(rt, 64 << 20);
    JS_SetModuleLoaderFunc(rt, NULL, load_module, NULL);
    JS_SetHostPromiseRejectionTracker(rt, track_rejection, NULL);
    reply.data = malloc(2048);
    reply.capacity = 2048;
    global = JS_GetGlobalObject(ctx);
    object = JS_NewObject(ctx);
    plain_class = JS_GetClassID(object);
    object_proto = JS_GetPrototype(ctx, object);
    JS_FreeValue(ctx, object);
    natives_object = JS_NewObject(ctx);
    JS_SetPropertyFunctionList(ctx, natives_object, natives, sizeof(natives) / sizeof(natives[0]));
    add_call_natives(ctx, natives_object);
    add_file_natives(ctx, natives_object);

    request[length] = 0;
    make = JS_Eval(ctx, (char *)request, length, "<boot>", JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_COMPILE_ONLY);
#ifndef KEEP_BOOT_FRAMES
    /* without source and file name: no frame of it in a stack, `[native code]` as its text */
    if (!JS_IsException(make)) {
        code = JS_WriteObject(ctx, &size, make, JS_WRITE_OBJ_BYTECODE | JS_WRITE_OBJ_STRIP_SOURCE | JS_WRITE_OBJ_STRIP_DEBUG);
        JS_FreeValue(ctx, make);
        make = JS_ReadObject(ctx, code, size, JS_READ_OBJ_BYTECODE);
        js_free(ctx, code);
    }
#endif
    if (!JS_IsException(make))
        make = JS_EvalFunction(ctx, make);
    if (!JS_IsException(make))
        made = JS_Call(ctx, make, JS_UNDEFINED, 1, (JSValueConst *)&natives_object);
    if (JS_IsException(make) || JS_IsException(made)) {
        JSValue error = JS_GetException(ctx), stack = take(error, "stack");
        text = JS_ToCStringLen(ctx, &n, stack);
        memcpy(wasmeval_reserve(n), text, n);
        return n;
    }
    boot.inspect = take(made, "inspect");
    boot.type_name = take(made, "typeName");
    boot.describe = take(made, "describe");
    boot.run_due = take(made, "runDue");
    boot.resolve = take(made, "resolve");
    boot.grant = take(made, "grant");
    boot.settle = take(made, "settle");
    boot.abandon = take(made, "abandon");
    boot.module_of = take(made, "moduleOf");
    boot.without_imports = take(made, "withoutImports");
    JS_FreeValue(ctx, made);
    JS_FreeValue(ctx, make);
    JS_FreeValue(ctx, natives_object);
    return 0;
}

/* The last call before the snapshot: collects, and leaves buffers of a size that suits most requests. */
EXPORT("build_settle") void build_settle(void)
{
    JSMemoryUsage usage;

    free(request);
    request = NULL;
    request_capacity = 0;
    wasmeval_reserve(4095);
    memset(request, 0, 4096);
    memset(reply.data, 0, reply.capacity);
    JS_RunGC(rt);
    take_reserve();
    JS_ComputeMemoryUsage(rt, &usage);
    JS_SetGCThreshold(rt, usage.malloc_size + GC_HEADROOM);
    started_ns = 0;
}
