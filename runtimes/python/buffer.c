/* A run of bytes that grows up to a limit. */
#include "image.h"

#include <stdlib.h>
#include <string.h>

void
buffer_start(buffer *self, char *storage, size_t room, size_t length, size_t limit)
{
    *self = (buffer){.bytes = storage, .room = room, .length = length, .limit = limit};
}

static bool
buffer_grow(buffer *self, size_t needed)
{
    size_t room = self->room;
    while (room < needed) {
        room *= 2;
    }
    char *bytes = realloc(self->heap, room);
    if (bytes == NULL) {
        self->failed = true;
        return false;
    }
    if (self->heap == NULL) {
        memcpy(bytes, self->bytes, self->length);
    }
    self->bytes = self->heap = bytes;
    self->room = room;
    return true;
}

void
buffer_end(buffer *self)
{
    free(self->heap);
    *self = (buffer){0};
}

bool
buffer_append(buffer *self, const char *bytes, size_t length)
{
    if (length > self->limit - self->length) {
        self->over = true;
        return false;
    }
    if (self->length + length > self->room && !buffer_grow(self, self->length + length)) {
        return false;
    }
    memcpy(self->bytes + self->length, bytes, length);
    self->length += length;
    return true;
}
