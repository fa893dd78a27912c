/* The TypeScript front end's side of the guest ABI (runtimes/abi.md): one call translates one snippet to JavaScript.
 *
 * swc was made to be driven by JavaScript: it takes and gives objects of a JavaScript engine by number and calls that
 * engine to look into them. This file is as much of such an engine as swc needs, over swc's own memory: a table of
 * values that only grows, and is forgotten with its instance.
 *
 * It is linked above swc's data (see recipe.py) and allocates with swc's allocator. Where it gives up, it throws, and
 * guard.wat catches: nothing below returns to swc after `fail`.
 */
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

enum { ABI_VERSION = 1, REQUEST_HEADER = 16, REPLY_HEADER = 32 };
enum { MAX_MESSAGE = 8192, LONGEST_EXCERPT = 400 };
typedef enum { OUTCOME_VALUE = 0, OUTCOME_RAISED = 1, OUTCOME_NO_MEMORY = 4 } Outcome;

/* What a translation may be larger than its source by; docs/typescript.md says so. */
enum { MOST_TIMES = 4, MOST_MORE = 65536 };

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

/* ---- one translation ------------------------------------------------------------------------------------------- */

static void option(uint32_t in, Text name, uint32_t value)
{
    set(in, string(name), value);
}

/* `strip` leaves every character where it was; otherwise code is written anew, with a source map. */
static uint32_t options(bool strip)
{
    uint32_t all = object(), parser = object(), transform = object();

    option(all, TEXT("mode"), string(strip ? TEXT("strip-only") : TEXT("transform")));
    option(all, TEXT("filename"), string(TEXT("<snippet>")));
    option(all, TEXT("sourceMap"), strip ? IS_FALSE : IS_TRUE);
    /* JavaScript runs as a script here, which would stumble over them with a message of its own. */
    option(parser, TEXT("decorators"), IS_FALSE);
    option(parser, TEXT("tsx"), IS_FALSE);
    option(all, TEXT("parser"), parser);
    /* An import of a value stays, in both modes, and is refused by JavaScript with the module's name. */
    option(transform, TEXT("verbatimModuleSyntax"), IS_TRUE);
    option(transform, TEXT("noEmptyExport"), IS_TRUE);
    /* A member of an enum that is put in as a number has no place in the source map. */
    option(transform, TEXT("tsEnumIsMutable"), IS_TRUE);
    option(all, TEXT("transform"), transform);
    return all;
}

typedef struct {
    bool failed;
    uint32_t value; /* the output's object, or the error's */
} Answer;

static Answer ask_swc(Text code, bool strip)
{
    struct {
        uint32_t output, error, failed, unused;
    } *result = swc_stack(-16);
    Answer answer;

    swc_transform(result, string(code), options(strip));
    answer = (Answer){ result->failed, result->failed ? result->error : result->output };
    swc_stack(16);
    return answer;
}

/* ---- the source map, made easy to look into -------------------------------------------------------------------- */

/* The digits of a mapping, from base64 with a continuation bit; -1 at the end of one. */
static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int32_t read_difference(const char **at, const char *end)
{
    uint32_t value = 0, shift = 0;
    int d;

    while (*at < end && (d = digit(**at)) >= 0) {
        ++*at;
        value |= (uint32_t)(d & 31) << (shift < 30 ? shift : 30);
        shift += 5;
        if (d < 32)
            break;
    }
    return value & 1 ? -(int32_t)(value >> 1) : (int32_t)(value >> 1);
}

static Text mappings_of(Text map)
{
    static const Text name = { "\"mappings\":\"", 12 };
    size_t i, end;

    for (i = map.length; i-- > 0;)
        if (map.length - i >= name.length && same((Text){ map.data + i, name.length }, name)) {
            for (end = i += name.length; end < map.length && map.data[end] != '"';)
                end++;
            return (Text){ map.data + i, end - i };
        }
    return (Text){ NULL, 0 };
}

/* Writes one segment: the column it begins at, the line and column it came from, all from 1. */
static void put_segment(Buffer *out, int32_t column, int32_t line, int32_t from)
{
    put_number(out, (uint32_t)column + 1);
    put_byte(out, ',');
    put_number(out, (uint32_t)line + 1);
    put_byte(out, ',');
    put_number(out, (uint32_t)from + 1);
}

/* A list with a text for each line of the output: its segments, with semicolons between them. The differences that
 * a source map is made of would have to be added up from its beginning to know any one of them.
 * Source: https://tc39.es/ecma426/ */
static void put_lines(Buffer *out, Text mappings)
{
    const char *at = mappings.data, *end = mappings.data + mappings.length;
    int32_t column = 0, line = 0, from = 0;
    bool first = true;

    put(out, TEXT("[\""));
    while (at < end) {
        if (*at == ';') {
            put(out, TEXT("\",\""));
            column = 0;
            first = true;
            at++;
        } else if (digit(*at) < 0) {
            at++;
        } else {
            column += read_difference(&at, end);
            if (at == end || digit(*at) < 0)
                continue; /* code that comes from nowhere */
            read_difference(&at, end); /* the source: there is one */
            line += read_difference(&at, end);
            from += read_difference(&at, end);
            if (at < end && digit(*at) >= 0)
                read_difference(&at, end); /* a name */
            if (!first)
                put_byte(out, ';');
            first = false;
            put_segment(out, column, line, from);
        }
    }
    put(out, TEXT("\"]"));
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

static uint64_t finish(char *frame, Outcome outcome, const uint32_t lengths[4], uint32_t line, uint32_t column)
{
    uint32_t header[8] = { outcome, 0, lengths[0], lengths[1], lengths[2], lengths[3], line, column };

    copy(frame, header, sizeof header);
    return (uint64_t)(uintptr_t)frame << 32
        | (REPLY_HEADER + lengths[0] + lengths[1] + lengths[2] + lengths[3]);
}

static Text cut(Text text, size_t most)
{
    if (text.length > most)
        for (text.length = most; text.length && (text.data[text.length] & 0xC0) == 0x80;)
            text.length--;
    return text;
}

static Buffer new_frame(void)
{
    Buffer frame = { NULL, 0, 0 };

    room(&frame, REPLY_HEADER);
    frame.length = REPLY_HEADER;
    return frame;
}

static Text line_of(Text code, uint32_t line)
{
    size_t start = 0, end;

    while (--line && start < code.length)
        while (start < code.length && code.data[start++] != '\n')
            ;
    for (end = start; end < code.length && code.data[end] != '\n';)
        end++;
    if (end > start && code.data[end - 1] == '\r')
        end--;
    return (Text){ code.data + start, end - start };
}

/* The line and a mark below the column, as JavaScript's own errors have them (runtimes/javascript/boot/report.js). */
static void put_excerpt(Buffer *out, Text source, uint32_t line, uint32_t column)
{
    put(out, TEXT("<snippet>:"));
    put_number(out, line);
    put_byte(out, '\n');
    if (source.length > LONGEST_EXCERPT)
        return;
    put(out, source);
    put_byte(out, '\n');
    while (--column)
        put_byte(out, ' ');
    put(out, TEXT("^\n\n"));
}

/* The byte at a column, which counts characters; 0 past the end. */
static char at_column(Text source, uint32_t column)
{
    size_t i;

    for (i = 0; i < source.length; i++)
        if ((source.data[i] & 0xC0) != 0x80 && --column == 0)
            return source.data[i];
    return 0;
}

static uint64_t raised(Text code, Text type, Text message, uint32_t line, uint32_t column)
{
    Buffer frame = new_frame();
    Text source = line ? line_of(code, line) : (Text){ NULL, 0 };
    uint32_t lengths[4] = { 0, type.length, 0, 0 }, start;

    if (column > source.length + 1)
        column = source.length + 1;
    message = cut(message, MAX_MESSAGE);
    lengths[2] = message.length;
    put(&frame, type);
    put(&frame, message);
    start = frame.length;
    if (line)
        put_excerpt(&frame, source, line, column);
    put(&frame, type);
    put(&frame, TEXT(": "));
    put(&frame, message);
    if (line) {
        put(&frame, TEXT("\n    at <snippet>:"));
        put_number(&frame, line);
        put_byte(&frame, ':');
        put_number(&frame, column);
    }
    lengths[3] = frame.length - start;
    return finish(frame.data, OUTCOME_RAISED, lengths, line, column);
}

static uint64_t syntax_error(Text code, uint32_t error)
{
    Text message = get_text(error, TEXT("message"));
    uint32_t line = get_number(error, TEXT("startLine")), column = get_number(error, TEXT("startColumn")) + 1;

    if (!message.length)
        message = TEXT("the TypeScript front end refused the snippet without a reason");
    if (line && at_column(line_of(code, line), column) == '@')
        message = TEXT("decorators are not supported; call the function on the class or the member instead");
    return raised(code, TEXT("SyntaxError"), message, line, line ? column : 0);
}

static uint64_t too_large(Text code, size_t length)
{
    Buffer message = { NULL, 0, 0 };

    put(&message, TEXT("the translation to JavaScript has "));
    put_number(&message, length);
    put(&message, TEXT(" bytes, or its source map more than fit; a snippet of "));
    put_number(&message, code.length);
    put(&message, TEXT(" bytes may have "));
    put_number(&message, MOST_TIMES * code.length + MOST_MORE);
    put(&message, TEXT(": write it in fewer nested parts"));
    return raised(code, TEXT("RangeError"), (Text){ message.data, message.length }, 0, 0);
}

/* `{"code": ..., "lines": ...}`; docs/typescript.md has its meaning. */
static uint64_t translated(Text code, uint32_t output, uint32_t value_limit)
{
    Text script = get_text(output, TEXT("code")), map = get_text(output, TEXT("map"));
    Buffer frame;
    uint32_t lengths[4] = { 0, 0, 0, 0 };

    if (script.length > MOST_TIMES * code.length + MOST_MORE)
        return too_large(code, script.length);
    frame = new_frame();
    room(&frame, script.length + script.length / 8 + 64);
    put(&frame, TEXT("{\"code\":"));
    put_json(&frame, script);
    put(&frame, TEXT(",\"lines\":"));
    if (map.length)
        put_lines(&frame, mappings_of(map));
    else
        put(&frame, TEXT("null"));
    put_byte(&frame, '}');
    lengths[0] = frame.length - REPLY_HEADER;
    if (lengths[0] > value_limit)
        return too_large(code, script.length);
    return finish(frame.data, OUTCOME_VALUE, lengths, 0, 0);
}

/* ---- the guest ABI --------------------------------------------------------------------------------------------- */

static Buffer request;

EXPORT("build_start") void build_start(char *highest, char *lowest)
{
    swc_set_stack_limits(highest, lowest);
}

EXPORT("reserve") char *reserve(uint32_t length)
{
    request.length = 0;
    return room(&request, length ? length : 1);
}

EXPORT("evaluate") uint64_t evaluate(uint32_t length)
{
    struct __attribute__((packed)) {
        uint16_t version, flags;
        uint32_t value_limit, code_length, inputs_length;
    } header;
    Text code;
    Answer answer;

    if (length < REQUEST_HEADER || length > request.capacity)
        FAIL("the request is no frame");
    copy(&header, request.data, sizeof header);
    if (header.version != ABI_VERSION || header.code_length > length - REQUEST_HEADER)
        FAIL("the request is no frame of this version");
    code = (Text){ request.data + REQUEST_HEADER, header.code_length };
    forget_objects();
    answer = ask_swc(code, true);
    if (answer.failed && same(get_text(answer.value, TEXT("code")), TEXT("UnsupportedSyntax")))
        answer = ask_swc(code, false);
    if (answer.failed)
        return syntax_error(code, answer.value);
    return translated(code, answer.value, header.value_limit);
}

/* What guard.wat calls when swc or this file gave up. Allocates nothing: there may be no memory. */
EXPORT("failed") uint64_t failed(const char *why, int32_t length)
{
    static char frame[REPLY_HEADER + 256];
    Outcome outcome = OUTCOME_RAISED;
    Text type = TEXT("InternalError"), message = TEXT("the TypeScript front end broke down over this snippet");
    uint32_t lengths[4] = { 0, 0, 0, 0 };

    if (length > 0) {
        message = (Text){ why, length < 200 ? length : 200 };
    } else if (length < 0) {
        type = TEXT("RangeError");
        message = TEXT("the snippet is nested too deeply for the TypeScript front end");
    } else if (__builtin_wasm_memory_grow(0, 64) == (size_t)-1) {
        outcome = OUTCOME_NO_MEMORY;
        type = TEXT("OutOfMemory");
        message = TEXT("translating the snippet needs more memory than it may have");
    }
    lengths[1] = type.length;
    lengths[2] = message.length;
    copy(frame + REPLY_HEADER, type.data, type.length);
    copy(frame + REPLY_HEADER + type.length, message.data, message.length);
    return finish(frame, outcome, lengths, 0, 0);
}
