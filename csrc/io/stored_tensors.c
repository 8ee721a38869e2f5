/* stored_tensors.c: a growing list of tensors in mapped files, and the search for a key. */
#include "stored_tensors.h"

#include <stdlib.h>
#include <string.h>

mg_status mg_stored_add_file(struct mg_stored_tensors *stored, const char *path, struct mg_err *err) {
    void *files;
    MG_TRY(mg_alloc(&files, (size_t)(stored->num_files + 1) * sizeof *stored->files, "a list of files", err));
    if (stored->num_files)
        memcpy(files, stored->files, (size_t)stored->num_files * sizeof *stored->files);
    mg_free(stored->files);
    stored->files = files;
    MG_TRY(mg_file_open(&stored->files[stored->num_files], path, err));
    stored->num_files++;
    return MG_OK;
}

mg_status mg_stored_reserve(struct mg_stored_tensors *stored, size_t more, struct mg_err *err) {
    size_t count, bytes;
    if (!mg_size_add(&count, stored->count, more) || !mg_size_mul(&bytes, count, sizeof *stored->list))
        return mg_fail(err, MG_ERR_MEMORY, "%s: too many tensors", stored->files[0].path);
    void *bigger;
    MG_TRY(mg_alloc(&bigger, bytes, "the table of a checkpoint", err));
    if (stored->count)
        memcpy(bigger, stored->list, stored->count * sizeof *stored->list);
    mg_free(stored->list);
    stored->list = bigger;
    return MG_OK;
}

/* ---- the index of keys: sorted, because hostile keys can make a hash table slow, but not a search by halves ---- */
static int compare_keys(const void *a, const void *b) {
    const struct mg_stored_tensor *const *left = a, *const *right = b;
    return strcmp((*left)->key, (*right)->key);
}

mg_status mg_stored_index(struct mg_stored_tensors *stored, const char *name, struct mg_err *err) {
    const struct mg_stored_tensor **index;
    MG_TRY(mg_alloc(&stored->index, stored->count * sizeof *index, "an index of keys", err));
    index = stored->index;
    for (size_t i = 0; i < stored->count; i++)
        index[i] = &stored->list[i];
    qsort(index, stored->count, sizeof *index, compare_keys);
    for (size_t i = 1; i < stored->count; i++)
        if (!strcmp(index[i - 1]->key, index[i]->key))
            return mg_fail(err, MG_ERR_CHECKPOINT, "%s: tensor \"%.200s\" is in two shards", name, index[i]->key);
    return MG_OK;
}

const struct mg_stored_tensor *mg_stored_find(const struct mg_stored_tensors *stored, const char *key) {
    const struct mg_stored_tensor wanted = {.key = key}, *pointer = &wanted, *const *found = NULL;
    if (stored->index)
        found = bsearch(&pointer, stored->index, stored->count, sizeof pointer, compare_keys);
    return found ? *found : NULL;
}

mg_status mg_stored_view(struct mg_stored_tensors *out, const struct mg_stored_tensors *whole, const char *prefix,
                         const char *name, struct mg_err *err) {
    const size_t length = strlen(prefix);
    *out = (struct mg_stored_tensors){.files = whole->files, .num_files = whole->num_files, .is_view = true};
    mg_arena_init(&out->arena);
    MG_TRY(mg_stored_reserve(out, whole->count, err));
    for (size_t i = 0; i < whole->count; i++) {
        if (strncmp(whole->list[i].key, prefix, length))
            continue;
        out->list[out->count] = whole->list[i];
        out->list[out->count++].key += length;
    }
    return mg_stored_index(out, name, err);
}

void mg_stored_free(struct mg_stored_tensors *stored) {
    if (!stored->is_view) {
        for (int i = 0; i < stored->num_files; i++)
            mg_file_close(&stored->files[i]);
        mg_free(stored->files);
    }
    mg_free(stored->list);
    mg_free(stored->index);
    mg_arena_free(&stored->arena);
    *stored = (struct mg_stored_tensors){0};
}
