/* malloc and its kin for an image: two-level segregated fit over one growing memory.
 *
 * The C library of the tool chain keeps power-of-two classes: twice the memory for large blocks, and small ones spread
 * over a page for each class. Here blocks are split and merged, a block at the heap's end grows in place, and fresh
 * memory is handed out in order, so that one evaluation touches few pages. Every operation takes constant time.
 * Source: Masmano et al., "TLSF: a new dynamic memory allocator for real-time systems", 2004.
 *
 * A block is a header and its payload. Blocks tile the heap from `first` to `top`; a free one is in exactly one list,
 * two free ones are never neighbours, and what lies above `top` belongs to no block.
 */
#include "image.h"

#include <errno.h>
#include <string.h>
#include <wchar.h>

typedef struct block {
    uint32_t below;  /* size of the block before this one; 0 for the first of a region */
    uint32_t size;   /* with its header; the lowest bit says that it is free */
    struct block *next, *previous;  /* only while it is free */
} block;

enum {
    FREE = 1,
    HEADER_BYTES = 8,
    GRAIN = 16,
    /* second-level lists for each power of two */
    STEPS_LOG2 = 4,
    STEPS = 1 << STEPS_LOG2,
    POWERS = 32,
    WASM_PAGE = 65536,
    /* one step of growth: a compromise between calls of memory.grow and memory that a limit counts for nothing */
    GROWTH_BYTES = 1 << 19,
};

extern char __heap_base;

static struct {
    uint32_t powers, steps[POWERS];
    block *lists[POWERS][STEPS];
    uintptr_t first;         /* the first block of the topmost region */
    uintptr_t top, end;      /* what was never handed out, or came back */
    uintptr_t touched;       /* everything from here on is still zero */
    uint32_t below_top;      /* size of the block that ends at `top`; 0 when there is none */
} heap;

/* ---- lists of free blocks ---- */

static uint32_t
block_size(const block *self)
{
    return self->size & ~(uint32_t)FREE;
}

static void
list_of(uint32_t size, uint32_t *power, uint32_t *step)
{
    *power = 31 - (uint32_t)__builtin_clz(size);
    *step = (size >> (*power - STEPS_LOG2)) & (STEPS - 1);
}

static void
insert(block *self)
{
    uint32_t power, step;
    list_of(block_size(self), &power, &step);
    self->size |= FREE;
    self->previous = NULL;
    self->next = heap.lists[power][step];
    if (self->next) {
        self->next->previous = self;
    }
    heap.lists[power][step] = self;
    heap.steps[power] |= 1u << step;
    heap.powers |= 1u << power;
}

static void
take_out(block *self)
{
    uint32_t power, step;
    list_of(block_size(self), &power, &step);
    if (self->next) {
        self->next->previous = self->previous;
    }
    if (self->previous) {
        self->previous->next = self->next;
    } else {
        heap.lists[power][step] = self->next;
        if (!self->next && !(heap.steps[power] &= ~(1u << step))) {
            heap.powers &= ~(1u << power);
        }
    }
    self->size &= ~(uint32_t)FREE;
}

/* A free block of at least `size`, out of its list; NULL when only the top can give one. */
static block *
find(uint32_t size)
{
    uint32_t power, step;
    /* rounded up to the next list, each of whose blocks is large enough */
    uint32_t rounded = size + (1u << (31 - (uint32_t)__builtin_clz(size) - STEPS_LOG2)) - 1;
    if (rounded < size) {
        return NULL;
    }
    list_of(rounded, &power, &step);
    uint32_t steps = heap.steps[power] & (~0u << step);
    if (!steps) {
        uint32_t powers = power < 31 ? heap.powers & (~0u << (power + 1)) : 0;
        if (!powers) {
            return NULL;
        }
        power = (uint32_t)__builtin_ctz(powers);
        steps = heap.steps[power];
    }
    block *found = heap.lists[power][__builtin_ctz(steps)];
    take_out(found);
    return found;
}

/* ---- the heap's end ---- */

static block *
following(block *self)
{
    return (block *)((char *)self + block_size(self));
}

/* Notes the size of the block that ends where `self` begins its neighbour. */
static void
link_size(block *self)
{
    uintptr_t after = (uintptr_t)following(self);
    if (after == heap.top) {
        heap.below_top = block_size(self);
    } else {
        ((block *)after)->below = block_size(self);
    }
}

static bool
grow(uint32_t needed)
{
    uint64_t wanted = ((uint64_t)needed + WASM_PAGE - 1) / WASM_PAGE;
    uint64_t pages = wanted < GROWTH_BYTES / WASM_PAGE ? GROWTH_BYTES / WASM_PAGE : wanted;
    size_t before = SIZE_MAX;
    if (pages <= 65536) {
        before = __builtin_wasm_memory_grow(0, pages);
    }
    if (before == SIZE_MAX && wanted < pages) {
        before = __builtin_wasm_memory_grow(0, pages = wanted);
    }
    if (before == SIZE_MAX) {
        return false;
    }
    uintptr_t start = before * WASM_PAGE;
    if (start != heap.end) {  /* somebody else grew the memory: a new region begins */
        heap.first = heap.top = start + HEADER_BYTES;
        heap.below_top = 0;
        heap.touched = start;
    }
    heap.end = start + (uintptr_t)(pages * WASM_PAGE - 1) + 1;
    if (heap.end == 0) {
        heap.end = start + (uintptr_t)(pages * WASM_PAGE - WASM_PAGE);  /* the last page would end at 2^32 */
    }
    return heap.end - heap.top >= needed;
}

static void
start_heap(void)
{
    heap.first = heap.top = (((uintptr_t)&__heap_base + GRAIN - 1) & ~(uintptr_t)(GRAIN - 1)) + HEADER_BYTES;
    heap.end = __builtin_wasm_memory_size(0) * WASM_PAGE;
    heap.touched = heap.first;
}

static block *
take_from_top(uint32_t size)
{
    if (heap.first == 0) {
        start_heap();
    }
    /* the second test is for the region's first block after growth elsewhere */
    if (heap.end - heap.top < size && (!grow(size - (uint32_t)(heap.end - heap.top)) && !grow(size))) {
        return NULL;
    }
    block *taken = (block *)heap.top;
    taken->below = heap.below_top;
    taken->size = size;
    heap.top += size;
    heap.below_top = size;
    return taken;
}

static void
give_back(block *self)
{
    uintptr_t self_end = (uintptr_t)following(self);
    if (heap.touched < self_end) {
        heap.touched = self_end;
    }
    if (self->below) {
        block *before = (block *)((char *)self - self->below);
        if (before->size & FREE) {
            take_out(before);
            before->size += block_size(self);
            self = before;
        }
    }
    if (self_end == heap.top) {
        heap.top = (uintptr_t)self;
        heap.below_top = self->below;
        return;
    }
    block *after = (block *)self_end;
    if (after->size & FREE) {
        take_out(after);
        self->size += block_size(after);
    }
    link_size(self);
    insert(self);
}

/* Cuts `self` to `size` and gives the rest back, when the rest is worth a block. */
static void
trim(block *self, uint32_t size)
{
    uint32_t rest = block_size(self) - size;
    if (rest < 2 * GRAIN) {
        return;
    }
    self->size = size;
    block *cut = following(self);
    cut->below = size;
    cut->size = rest;
    link_size(cut);
    give_back(cut);
}

/* ---- the C library's names ---- */

static uint32_t
size_for(size_t length)
{
    if (length > UINT32_MAX - 2 * GRAIN) {
        return 0;
    }
    uint32_t size = ((uint32_t)length + HEADER_BYTES + GRAIN - 1) & ~(uint32_t)(GRAIN - 1);
    return size < 2 * GRAIN ? 2 * GRAIN : size;
}

static block *
block_of(void *payload)
{
    return (block *)((char *)payload - HEADER_BYTES);
}

static block *
allocate(size_t length)
{
    uint32_t size = size_for(length);
    block *found = size ? find(size) : NULL;
    if (found) {
        trim(found, size);
    } else if (!size || !(found = take_from_top(size))) {
        errno = ENOMEM;
    }
    return found;
}

static void
note_touched(block *self)
{
    uintptr_t end = (uintptr_t)following(self);
    if (heap.touched < end) {
        heap.touched = end;
    }
}

void *
malloc(size_t length)
{
    block *found = allocate(length);
    if (!found) {
        return NULL;
    }
    note_touched(found);
    return (char *)found + HEADER_BYTES;
}

void
free(void *payload)
{
    if (payload) {
        give_back(block_of(payload));
    }
}

/* Memory above `touched` is zero as the host made it, and stays untouched here. */
void *
calloc(size_t count, size_t each)
{
    size_t length;
    if (__builtin_mul_overflow(count, each, &length)) {
        errno = ENOMEM;
        return NULL;
    }
    block *found = allocate(length);
    if (!found) {
        return NULL;
    }
    uintptr_t start = (uintptr_t)found + HEADER_BYTES;
    size_t used = heap.touched > start ? heap.touched - start : 0;
    memset((char *)start, 0, used < length ? used : length);
    note_touched(found);
    return (char *)start;
}

/* Grows `self` to `size` where it lies, into the top or a free neighbour. */
static bool
grow_in_place(block *self, uint32_t size)
{
    block *after = following(self);
    uint32_t have = block_size(self);
    if ((uintptr_t)after == heap.top) {
        uint32_t more = size - have;
        if (heap.end - heap.top < more) {
            uintptr_t top = heap.top;
            if (!grow(more - (uint32_t)(heap.end - heap.top)) || heap.top != top) {
                return false;
            }
        }
        heap.top += more;
        self->size = heap.below_top = size;
        return true;
    }
    if (!(after->size & FREE) || have + block_size(after) < size) {
        return false;
    }
    take_out(after);
    self->size = have + block_size(after);
    link_size(self);
    trim(self, size);
    return true;
}

void *
realloc(void *payload, size_t length)
{
    if (!payload) {
        return malloc(length);
    }
    block *self = block_of(payload);
    uint32_t size = size_for(length), have = block_size(self);
    if (size && size <= have) {
        trim(self, size);
        return payload;
    }
    if (size && grow_in_place(self, size)) {
        note_touched(self);
        return payload;
    }
    void *moved = malloc(length);
    if (moved) {
        memcpy(moved, payload, have - HEADER_BYTES);
        free(payload);
    }
    return moved;
}

/* The part before the aligned address goes back as a block of its own. */
void *
aligned_alloc(size_t alignment, size_t length)
{
    if (alignment <= GRAIN) {
        return malloc(length);
    }
    if (length > UINT32_MAX - alignment - 4 * GRAIN) {
        errno = ENOMEM;
        return NULL;
    }
    char *payload = malloc(length + alignment + 2 * GRAIN);
    if (!payload) {
        return NULL;
    }
    uintptr_t address = ((uintptr_t)payload + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (address != (uintptr_t)payload) {
        if (address - (uintptr_t)payload < 2 * GRAIN) {
            address += alignment;
        }
        block *whole = block_of(payload), *aligned = block_of((void *)address);
        uint32_t front = (uint32_t)((char *)aligned - (char *)whole);
        aligned->below = front;
        aligned->size = block_size(whole) - front;
        link_size(aligned);
        whole->size = front;
        give_back(whole);
    }
    trim(block_of((void *)address), size_for(length));
    return (void *)address;
}

int
posix_memalign(void **result, size_t alignment, size_t length)
{
    *result = aligned_alloc(alignment, length);
    return *result ? 0 : ENOMEM;
}

size_t
malloc_usable_size(void *payload)
{
    return payload ? block_size(block_of(payload)) - HEADER_BYTES : 0;
}

/* The C library's own copies of these call its own malloc, whatever is linked; what they return would come to our free. */

char *
strndup(const char *text, size_t limit)
{
    size_t length = strnlen(text, limit);
    char *copy = malloc(length + 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *
strdup(const char *text)
{
    return strndup(text, strlen(text));
}

wchar_t *
wcsdup(const wchar_t *text)
{
    size_t bytes = (wcslen(text) + 1) * sizeof *text;
    wchar_t *copy = malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

/* ---- the snapshot ---- */

/* Every hole becomes a block that nobody has, so that an evaluation allocates from the top alone. */
void
heap_fill_holes(void)
{
    for (uintptr_t at = heap.first; at < heap.top; at += block_size((block *)at)) {
        block *self = (block *)at;
        if (self->size & FREE) {
            take_out(self);
            memset((char *)self + HEADER_BYTES, 0, self->size - HEADER_BYTES);
        }
    }
    memset((char *)heap.top, 0, heap.touched > heap.top ? heap.touched - heap.top : 0);
    heap.touched = heap.top;
}
