/* Bytes, as swc's memory holds them, and what swc and guard.wat offer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

IMPORT("swc", "transformSync") extern void swc_transform(void *result, uint32_t code, uint32_t options);
IMPORT("swc", "__wbindgen_export_2") extern void *swc_allocate(size_t size, size_t align);
IMPORT("swc", "__wbindgen_export_3") extern void *swc_resize(void *old, size_t old_size, size_t size, size_t align);
IMPORT("swc", "__wbindgen_add_to_stack_pointer") extern void *swc_stack(int32_t delta);
IMPORT("swc", "__set_stack_limits") extern void swc_set_stack_limits(void *highest, void *lowest);
IMPORT("env", "fail") extern _Noreturn void fail(const char *why, size_t length);

#define FAIL(text) fail(text, sizeof(text) - 1)

static void copy(void *to, const void *from, size_t length)
{
    __builtin_memcpy(to, from, length);
}

/* ---- bytes --------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *data;
    size_t length;
} Text;

#define TEXT(literal) ((Text){ literal, sizeof(literal) - 1 })

static bool same(Text a, Text b)
{
    size_t i;

    if (a.length != b.length)
        return false;
    for (i = 0; i < a.length; i++)
        if (a.data[i] != b.data[i])
            return false;
    return true;
}

/* Grows without bound: what fills it is bounded, and so is the guest's memory. */
typedef struct {
    char *data;
    size_t length, capacity;
} Buffer;

static char *room(Buffer *b, size_t more)
{
    size_t capacity;

    if (more > b->capacity - b->length) {
        if (more > (1u << 30))
            FAIL("a buffer grew beyond reason");
        capacity = 2 * b->capacity + more + 256;
        b->data = b->data ? swc_resize(b->data, b->capacity, capacity, 1) : swc_allocate(capacity, 1);
        b->capacity = capacity;
    }
    return b->data + b->length;
}

static void put(Buffer *b, Text text)
{
    copy(room(b, text.length), text.data, text.length);
    b->length += text.length;
}

static void put_byte(Buffer *b, char byte)
{
    *room(b, 1) = byte;
    b->length++;
}

static void put_number(Buffer *b, uint32_t number)
{
    char digits[10];
    size_t at = sizeof digits;

    do
        digits[--at] = '0' + number % 10;
    while (number /= 10);
    put(b, (Text){ digits + at, sizeof digits - at });
}

static void put_json(Buffer *b, Text text)
{
    static const char hex[] = "0123456789abcdef";
    size_t i;

    put_byte(b, '"');
    for (i = 0; i < text.length; i++) {
        unsigned char c = text.data[i];
        char *to = room(b, 6);
        if (c >= ' ' && c != '"' && c != '\\') {
            *to = c;
            b->length++;
        } else if (c == '\n' || c == '"' || c == '\\') {
            to[0] = '\\';
            to[1] = c == '\n' ? 'n' : c;
            b->length += 2;
        } else {
            copy(to, "\\u00", 4);
            to[4] = hex[c >> 4];
            to[5] = hex[c & 15];
            b->length += 6;
        }
    }
    put_byte(b, '"');
}
