/* memory.c: aligned blocks and arenas. Nothing allocates while an operation runs. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core.h"

enum { HUGE_PAGE = 2 << 20, ARENA_BLOCK = 64 << 10, ARENA_ALIGNMENT = 16 };

mg_status mg_alloc(void **out, size_t bytes, const char *what, struct mg_err *err) {
    size_t alignment = bytes >= 4 * (size_t)HUGE_PAGE ? HUGE_PAGE : MG_ALIGNMENT, padded;
    *out = NULL;
    if (!mg_size_add(&padded, bytes ? bytes : 1, alignment - 1))
        return mg_fail(err, MG_ERR_MEMORY, "%zu bytes for %s cannot be addressed", bytes, what);
    padded = padded / alignment * alignment;
    void *block = aligned_alloc(alignment, padded);
    if (!block)
        return mg_fail(err, MG_ERR_MEMORY, "no memory for %s: %zu bytes", what, bytes);
#ifdef MADV_HUGEPAGE
    /* Large tensors are walked with long strides: huge pages spare most address translations. Advice only. */
    if (alignment == HUGE_PAGE)
        madvise(block, padded, MADV_HUGEPAGE);
#endif
    *out = block;
    return MG_OK;
}

mg_status mg_alloc_zeroed(void **out, size_t bytes, const char *what, struct mg_err *err) {
    MG_TRY(mg_alloc(out, bytes, what, err));
    memset(*out, 0, bytes);
    return MG_OK;
}

mg_status mg_alloc_floats(float **out, int64_t count, size_t floats, const char *what, struct mg_err *err) {
    size_t bytes;
    if (!mg_size_mul(&bytes, (size_t)count, floats) || !mg_size_mul(&bytes, bytes, sizeof(float)))
        return mg_fail(err, MG_ERR_MEMORY, "%s cannot be addressed", what);
    return mg_alloc((void **)out, bytes, what, err);
}

void mg_free(void *p) { free(p); }

struct mg_arena_block {
    struct mg_arena_block *next;
    size_t used, size; /* of data */
    _Alignas(ARENA_ALIGNMENT) unsigned char data[];
};

void mg_arena_init(struct mg_arena *arena) { *arena = (struct mg_arena){0}; }

void *mg_arena_alloc(struct mg_arena *arena, size_t bytes) {
    size_t needed, total;
    if (!mg_size_add(&needed, bytes ? bytes : 1, ARENA_ALIGNMENT - 1))
        return NULL;
    needed = needed / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    struct mg_arena_block *block = arena->head;
    if (!block || block->size - block->used < needed) {
        size_t size = needed > ARENA_BLOCK ? needed : ARENA_BLOCK;
        if (!mg_size_add(&total, size, sizeof *block) || !(block = calloc(1, total)))
            return NULL;
        block->size = size;
        block->next = arena->head;
        arena->head = block;
    }
    void *piece = block->data + block->used;
    block->used += needed;
    arena->bytes += needed;
    return piece;
}

char *mg_arena_strdup(struct mg_arena *arena, const char *text, size_t length) {
    char *copy = length < SIZE_MAX ? mg_arena_alloc(arena, length + 1) : NULL;
    if (copy)
        memcpy(copy, text, length);
    return copy;
}

void mg_arena_free(struct mg_arena *arena) {
    while (arena->head) {
        struct mg_arena_block *next = arena->head->next;
        free(arena->head);
        arena->head = next;
    }
    arena->bytes = 0;
}
