/* What the parts of the reactor share: values as JSON (reactor.c), host operations (calls.c), files (files.c). */
#ifndef REACTOR_H
#define REACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quickjs.h"

/* ---- reactor.c ---- */

/* `v` as JSON text in a block of malloc, its length in `*length`. NULL when JSON cannot say it; `*no_memory` then tells
 * whether that was for want of memory. Nothing is thrown. */
char *json_text(JSValueConst v, size_t *length, bool *no_memory);

/* The value of JSON text, by the rules of the inputs. Throws a SyntaxError for what is none. */
JSValue json_value(const char *text, size_t length);

/* Lone surrogates become U+FFFD, which has as many bytes as they have in the engine's encoding. */
void replace_lone_surrogates(uint8_t *s, size_t n);

/* The bytes that arguments buffer, offset and length cover; false when it has thrown. */
bool bytes_argument(JSContext *c, JSValueConst *argv, uint8_t **bytes, size_t *length);

/* An ArrayBuffer that takes over a block of js_malloc. */
JSValue buffer_of(JSContext *c, uint8_t *block, size_t length);

/* ---- calls.c ---- */

void add_call_natives(JSContext *c, JSValueConst natives);

/* How many calls the snippet has begun whose outcomes it has not had. */
extern uint32_t calls_under_way;

/* What this evaluation is given, a parsed `context`; null when the host has none. */
JSValue host_context(JSContext *c);

/* Waits for any call, `ns` at most; negative without end. [number, kind, ArrayBuffer] of the one that ended, undefined when
 * time was up, null when nothing is under way. */
JSValue host_wait(JSContext *c, int64_t ns);

/* ---- files.c ---- */

void add_file_natives(JSContext *c, JSValueConst natives);

#endif
