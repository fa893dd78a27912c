/* Host operations (runtimes/abi.md, "Host operations"): tools, HTTP, and waiting for them.
 *
 * A call only begins here and is counted; the loop in reactor.c waits for the outcomes and hands each to the boot
 * library, which knows the promises. What the host answers is trusted as far as memory goes: its lengths are its own.
 */
#include <stdlib.h>
#include <string.h>

#include "reactor.h"

#define IMPORT(name) __attribute__((import_module("wasmeval"), import_name(name)))

IMPORT("host_call") extern int32_t host_call(const void *ptr, uint32_t len);
IMPORT("host_read") extern void host_read(void *ptr);

enum { OP_CONTEXT, OP_CALL, OP_HTTP, OP_READ, OP_DROP, OP_WAIT };
enum { OUTCOME_HEADER = 8 };

uint32_t calls_under_way;

typedef struct {
    const void *bytes;
    size_t length;
} Part;

/* Asks for an operation. The length of the answer; negative when there is none, -3 when memory is short for the asking. */
static int32_t operate(uint8_t operation, const Part *parts, int count)
{
    size_t length = 1;
    uint8_t *frame, *at;
    int32_t answer;
    int i;

    for (i = 0; i < count; i++)
        length += parts[i].length;
    frame = malloc(length);
    if (!frame)
        return -3;
    frame[0] = operation;
    for (i = 0, at = frame + 1; i < count; at += parts[i++].length)
        memcpy(at, parts[i].bytes, parts[i].length);
    answer = host_call(frame, length);
    free(frame);
    return answer;
}

/* The answer to `begin`: the number of the call, 0 when the host does not take it. */
static JSValue begun(JSContext *c, int32_t answer)
{
    uint32_t number = 0;

    if (answer == -3)
        return JS_ThrowOutOfMemory(c);
    if (answer == sizeof(number))
        host_read(&number);
    if (number)
        calls_under_way++;
    return JS_NewUint32(c, number);
}

/* beginCall(json) */
static JSValue native_begin_call(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    Part part;
    int32_t answer;

    part.bytes = JS_ToCStringLen(c, &part.length, argv[0]);
    if (!part.bytes)
        return JS_EXCEPTION;
    answer = operate(OP_CALL, &part, 1);
    JS_FreeCString(c, part.bytes);
    return begun(c, answer);
}

/* beginHttp(head, buffer, offset, length): the head is JSON, the rest the body */
static JSValue native_begin_http(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint8_t *body;
    size_t body_length, head_length;
    uint32_t field;
    const char *head;
    int32_t answer;

    if (!bytes_argument(c, argv + 1, &body, &body_length))
        return JS_EXCEPTION;
    head = JS_ToCStringLen(c, &head_length, argv[0]);
    if (!head)
        return JS_EXCEPTION;
    field = head_length;
    answer = operate(OP_HTTP, (Part[]){ { &field, 4 }, { head, head_length }, { body, body_length } }, 3);
    JS_FreeCString(c, head);
    return begun(c, answer);
}

/* beginRead(stream, most) */
static JSValue native_begin_read(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint32_t fields[2];

    if (JS_ToUint32(c, &fields[0], argv[0]) || JS_ToUint32(c, &fields[1], argv[1]))
        return JS_EXCEPTION;
    return begun(c, operate(OP_READ, (Part[]){ { fields, 8 } }, 1));
}

/* drop(number, whether it is a call whose outcome has not come) */
static JSValue native_drop(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint32_t number;

    if (JS_ToUint32(c, &number, argv[0]))
        return JS_EXCEPTION;
    if (operate(OP_DROP, (Part[]){ { &number, 4 } }, 1) == -3)
        return JS_ThrowOutOfMemory(c);
    if (JS_ToBool(c, argv[1]) && calls_under_way)
        calls_under_way--;
    return JS_UNDEFINED;
}

/* json(value): its text, null when JSON cannot say it */
static JSValue native_json(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    bool no_memory;
    size_t length;
    char *text = json_text(argv[0], &length, &no_memory);
    JSValue v;

    if (!text)
        return no_memory ? JS_ThrowOutOfMemory(c) : JS_NULL;
    v = JS_NewStringLen(c, text, length);
    free(text);
    return v;
}

/* parse(buffer, offset, length): the value of JSON text */
static JSValue native_parse(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint8_t *bytes;
    size_t length;

    if (!bytes_argument(c, argv, &bytes, &length))
        return JS_EXCEPTION;
    return json_value((const char *)bytes, length);
}

static const JSCFunctionListEntry natives[] = {
    JS_CFUNC_DEF("beginCall", 1, native_begin_call), JS_CFUNC_DEF("beginHttp", 4, native_begin_http),
    JS_CFUNC_DEF("beginRead", 2, native_begin_read), JS_CFUNC_DEF("drop", 2, native_drop),
    JS_CFUNC_DEF("json", 1, native_json),            JS_CFUNC_DEF("parse", 3, native_parse),
};

void add_call_natives(JSContext *c, JSValueConst object)
{
    JS_SetPropertyFunctionList(c, object, natives, sizeof(natives) / sizeof(natives[0]));
}

JSValue host_context(JSContext *c)
{
    int32_t length = operate(OP_CONTEXT, NULL, 0);
    char *text;
    JSValue v;

    if (length == -3)
        return JS_ThrowOutOfMemory(c);
    if (length < 0)
        return JS_NULL;
    text = js_malloc(c, (size_t)length + 1);
    if (!text)
        return JS_EXCEPTION;
    host_read(text);
    v = json_value(text, length);
    js_free(c, text);
    return v;
}

JSValue host_wait(JSContext *c, int64_t ns)
{
    uint32_t any = 0, number;
    int32_t length = operate(OP_WAIT, (Part[]){ { &ns, 8 }, { &any, 4 } }, 2);
    uint8_t *answer;
    JSValue parts[3];

    if (length == -3)
        return JS_ThrowOutOfMemory(c);
    if (length < OUTCOME_HEADER) {
        if (length >= 0)
            return JS_UNDEFINED;
        calls_under_way = 0;
        return JS_NULL;
    }
    answer = js_malloc(c, length);
    if (!answer)
        return JS_EXCEPTION;
    host_read(answer);
    calls_under_way--;
    memcpy(&number, answer, 4);
    parts[0] = JS_NewUint32(c, number);
    parts[1] = JS_NewInt32(c, answer[4]);
    memmove(answer, answer + OUTCOME_HEADER, length - OUTCOME_HEADER);
    parts[2] = buffer_of(c, answer, length - OUTCOME_HEADER);
    if (JS_IsException(parts[2]))
        return JS_EXCEPTION;
    return JS_NewArrayFrom(c, 3, parts);
}
