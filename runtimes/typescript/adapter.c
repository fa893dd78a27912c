/* The TypeScript front end's side of the guest ABI (runtimes/abi.md): one call translates one snippet to JavaScript.
 *
 * swc was made to be driven by JavaScript: it takes and gives objects of a JavaScript engine by number and calls that
 * engine to look into them. engine.h stands in for it, over swc's own memory.
 *
 * All this is linked above swc's data (see recipe.py) and allocates with swc's allocator. Where it gives up, it throws, and
 * guard.wat catches: nothing below returns to swc after `fail`.
 */
#include "engine.h"

enum { ABI_VERSION = 1, REQUEST_HEADER = 16, REPLY_HEADER = 32 };
enum { MAX_MESSAGE = 8192, LONGEST_EXCERPT = 400 };
typedef enum { OUTCOME_VALUE = 0, OUTCOME_RAISED = 1, OUTCOME_NO_MEMORY = 4 } Outcome;

/* What a translation may be larger than its source by; docs/typescript.md says so. */
enum { MOST_TIMES = 4, MOST_MORE = 65536 };

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
