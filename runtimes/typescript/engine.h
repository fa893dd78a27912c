/* As much of a JavaScript engine as swc needs: a table of values, and the functions that swc calls to look into them.
 *
 * swc knows values by their index. The table only grows, and is forgotten with its instance.
 */
#pragma once

#include "bytes.h"

/* ---- values of the engine that swc believes in ---------------------------------------------------------------- */

typedef enum { UNDEFINED, NULL_VALUE, BOOLEAN, NUMBER, STRING, OBJECT, ARRAY } Kind;

typedef struct {
    Kind kind;
    Text text;       /* of a STRING */
    double number;   /* of a NUMBER or BOOLEAN */
    uint32_t length; /* of an ARRAY */
} Value;

/* The numbers that wasm-bindgen gives to constants; other values come after them. */
enum { IS_UNDEFINED = 128, IS_NULL, IS_TRUE, IS_FALSE, FIRST_FREE, MOST_VALUES = 4096, MOST_FIELDS = 256 };

static Value values[MOST_VALUES];
static uint32_t next_value = FIRST_FREE;

/* Of objects, whose keys are strings, and of arrays, whose keys are indices. */
static struct {
    uint32_t object, key, value;
} fields[MOST_FIELDS];
static uint32_t field_count;

static uint32_t add(Value value)
{
    if (next_value == MOST_VALUES)
        FAIL("the front end asked for too many values");
    values[next_value] = value;
    return next_value++;
}

static const Value *look(uint32_t index)
{
    if (index < IS_UNDEFINED || index >= next_value)
        FAIL("the front end named a value that is not there");
    return &values[index];
}

static uint32_t string(Text text)
{
    return add((Value){ .kind = STRING, .text = text });
}

static uint32_t object(void)
{
    return add((Value){ .kind = OBJECT });
}

static void set(uint32_t in, uint32_t key, uint32_t value)
{
    if (field_count == MOST_FIELDS)
        FAIL("the front end set too many fields");
    fields[field_count].object = in;
    fields[field_count].key = key;
    fields[field_count++].value = value;
}

static uint32_t get(uint32_t from, Text key)
{
    uint32_t i;

    for (i = 0; i < field_count; i++)
        if (fields[i].object == from && same(look(fields[i].key)->text, key))
            return fields[i].value;
    return IS_UNDEFINED;
}

static Text get_text(uint32_t from, Text key)
{
    return look(get(from, key))->text;
}

static uint32_t get_number(uint32_t from, Text key)
{
    double number = look(get(from, key))->number;
    return number >= 0 && number < 4e9 ? (uint32_t)number : 0;
}

/* Objects live for one translation. Values stay: swc keeps some names for ever, and an instance translates twice. */
static void forget_objects(void)
{
    field_count = 0;
    values[IS_NULL].kind = NULL_VALUE;
    values[IS_TRUE] = (Value){ .kind = BOOLEAN, .number = 1 };
    values[IS_FALSE].kind = BOOLEAN;
}

/* ---- what swc imports ------------------------------------------------------------------------------------------ */

EXPORT("__wbindgen_object_drop_ref") void object_drop_ref(uint32_t index)
{
}

EXPORT("__wbindgen_object_clone_ref") uint32_t object_clone_ref(uint32_t index)
{
    return index;
}

EXPORT("__wbindgen_string_new") uint32_t string_new(const char *data, size_t length)
{
    char *own = swc_allocate(length ? length : 1, 1);

    copy(own, data, length);
    return string((Text){ own, length });
}

EXPORT("__wbindgen_error_new") uint32_t error_new(const char *data, size_t length)
{
    uint32_t error = object();

    set(error, string(TEXT("message")), string_new(data, length));
    return error;
}

EXPORT("__wbindgen_number_new") uint32_t number_new(double number)
{
    return add((Value){ .kind = NUMBER, .number = number });
}

EXPORT("__wbindgen_number_get") void number_get(struct { int32_t there; double number; } *out, uint32_t index)
{
    const Value *value = look(index);

    out->there = value->kind == NUMBER;
    out->number = value->number;
}

EXPORT("__wbindgen_string_get") void string_get(Text *out, uint32_t index)
{
    const Value *value = look(index);

    *out = (Text){ NULL, 0 };
    if (value->kind == STRING) {
        char *theirs = swc_allocate(value->text.length ? value->text.length : 1, 1);
        copy(theirs, value->text.data, value->text.length);
        *out = (Text){ theirs, value->text.length };
    }
}

EXPORT("__wbindgen_boolean_get") int boolean_get(uint32_t index)
{
    return look(index)->kind == BOOLEAN ? (int)look(index)->number : 2;
}

EXPORT("__wbindgen_is_undefined") int is_undefined(uint32_t index)
{
    return look(index)->kind == UNDEFINED;
}

EXPORT("__wbindgen_is_string") int is_string(uint32_t index)
{
    return look(index)->kind == STRING;
}

EXPORT("__wbindgen_is_object") int is_object(uint32_t index)
{
    return look(index)->kind >= OBJECT;
}

EXPORT("__wbindgen_is_bigint") int is_bigint(uint32_t index)
{
    return 0;
}

EXPORT("__wbindgen_is_function") int is_function(uint32_t index)
{
    return 0;
}

EXPORT("__wbindgen_is_falsy") int is_falsy(uint32_t index)
{
    const Value *value = look(index);

    switch (value->kind) {
    case STRING: return !value->text.length;
    case BOOLEAN:
    case NUMBER: return !value->number;
    case OBJECT:
    case ARRAY: return 0;
    default: return 1;
    }
}

EXPORT("__wbindgen_in") int has_field(uint32_t key, uint32_t in)
{
    return get(in, look(key)->text) != IS_UNDEFINED;
}

static int is_nothing(uint32_t index)
{
    return look(index)->kind <= NULL_VALUE;
}

EXPORT("__wbindgen_jsval_loose_eq") int loose_eq(uint32_t a, uint32_t b)
{
    const Value *left = look(a), *right = look(b);

    if (is_nothing(a) || is_nothing(b))
        return is_nothing(a) && is_nothing(b);
    if (left->kind != right->kind)
        return 0;
    if (left->kind == STRING)
        return same(left->text, right->text);
    return left->kind >= OBJECT ? a == b : left->number == right->number;
}

EXPORT("__wbg_getwithrefkey_1dc361bd10053bfe") uint32_t get_with_ref_key(uint32_t from, uint32_t key)
{
    return get(from, look(key)->text);
}

EXPORT("__wbg_get_67b2ba62fc30de12") uint32_t reflect_get(uint32_t from, uint32_t key)
{
    return get_with_ref_key(from, key);
}

EXPORT("__wbg_new_405e22f390576ce2") uint32_t new_object(void)
{
    return object();
}

EXPORT("__wbg_set_3f1d0b984ed272ed") void set_field(uint32_t in, uint32_t key, uint32_t value)
{
    set(in, key, value);
}

static uint32_t array_of(uint32_t first, uint32_t second)
{
    uint32_t array = add((Value){ .kind = ARRAY, .length = 2 });

    set(array, 0, first);
    set(array, 1, second);
    return array;
}

EXPORT("__wbg_entries_3265d4158b33e5dc") uint32_t entries(uint32_t of)
{
    uint32_t i, all = add((Value){ .kind = ARRAY }), fields_before = field_count;

    for (i = 0; i < fields_before; i++)
        if (fields[i].object == of)
            set(all, values[all].length++, array_of(fields[i].key, fields[i].value));
    return all;
}

EXPORT("__wbg_length_e2d2a49132c1b256") uint32_t array_length(uint32_t index)
{
    return look(index)->length;
}

EXPORT("__wbg_get_b9b93047fe3cf45b") uint32_t get_element(uint32_t from, uint32_t at)
{
    uint32_t i;

    for (i = 0; i < field_count; i++)
        if (fields[i].object == from && fields[i].key == at)
            return fields[i].value;
    return IS_UNDEFINED;
}

EXPORT("__wbg_isArray_a1eab7e0d067391b") int is_array(uint32_t index)
{
    return look(index)->kind == ARRAY;
}

EXPORT("__wbg_instanceof_Map_f3469ce2244d2430") int is_map(uint32_t index)
{
    return 0;
}

/* A name that no object here has. */
EXPORT("__wbg_iterator_9a24c88df860dc65") uint32_t iterator_symbol(void)
{
    return string(TEXT("Symbol.iterator"));
}

EXPORT("__wbg_instanceof_Uint8Array_17156bcf118086a9") int is_bytes(uint32_t index)
{
    return 0;
}

EXPORT("__wbg_instanceof_ArrayBuffer_e14585432e3737fc") int is_array_buffer(uint32_t index)
{
    return 0;
}

EXPORT("__wbindgen_debug_string") void debug_string(Text *out, uint32_t index)
{
    FAIL("the front end was given an option that it does not know");
}
