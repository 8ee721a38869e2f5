/* safetensors.c: reads one mapped safetensors file into a list of stored tensors.
 *
 * Layout: 8 bytes little-endian header length, JSON header {"name": {"dtype", "shape", "data_offsets": [begin, end]},
 * ..., "__metadata__": {...}}, then the data. Nothing is believed: lengths, types, shapes, offsets and their order are
 * checked, and the data must be covered without gaps or overlaps, as the format demands. */
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "safetensors.h"

enum { LONGEST_HEADER = 100 * 1000 * 1000, MAX_DIMS = 8 };

static const struct {
    const char *name;
    size_t bytes;
    int dtype; /* mg_dtype, or -1 */
} stored_types[] = {
    {"F32", 4, MG_F32}, {"F16", 2, MG_F16}, {"BF16", 2, MG_BF16}, {"F64", 8, -1},     {"I64", 8, -1},
    {"I32", 4, -1},     {"I16", 2, -1},     {"I8", 1, -1},        {"U64", 8, -1},     {"U32", 4, -1},
    {"U16", 2, -1},     {"U8", 1, -1},      {"BOOL", 1, -1},      {"F8_E4M3", 1, -1}, {"F8_E5M2", 1, -1},
};

/* One entry of the header: where messages come from. */
struct entry {
    const struct mg_file *file;
    const char *key;
    size_t data_start, data_bytes; /* of the file's data part */
    struct mg_err *err;
};

/* value NULL: the field is missing. */
static mg_status bad(const struct entry *e, const char *field, const struct mg_json *value, const char *wanted) {
    char text[200] = "missing";
    if (value)
        mg_json_text(text, sizeof text, value);
    return mg_fail(e->err, MG_ERR_CHECKPOINT, "%s: tensor \"%.200s\": %s is %s; %s", e->file->path, e->key, field, text,
                   wanted);
}

static bool is_count(const struct mg_json *value) { return value->is_integer && value->integer >= 0; }

static mg_status read_type(struct mg_stored_tensor *out, size_t *element, const struct entry *e,
                           const struct mg_json *value) {
    if (!value || value->type != MG_JSON_STRING)
        return bad(e, "dtype", value, "a string was expected");
    for (size_t i = 0; i < sizeof stored_types / sizeof stored_types[0]; i++)
        if (strlen(stored_types[i].name) == value->length && !strcmp(stored_types[i].name, value->string)) {
            out->stored_dtype = stored_types[i].dtype;
            out->dtype_text = stored_types[i].name;
            *element = stored_types[i].bytes;
            return MG_OK;
        }
    return bad(e, "dtype", value, "no such type is known");
}

static mg_status read_shape(struct mg_stored_tensor *out, size_t *bytes, const struct entry *e,
                            const struct mg_json *value) {
    if (!value || value->type != MG_JSON_ARRAY)
        return bad(e, "shape", value, "a list of whole numbers was expected");
    if (value->length > MAX_DIMS)
        return mg_fail(e->err, MG_ERR_CHECKPOINT, "%s: tensor \"%.200s\": %zu dimensions; at most %d are read",
                       e->file->path, e->key, value->length, MAX_DIMS);
    out->ndim = (int)value->length;
    for (size_t d = 0; d < value->length; d++) {
        const struct mg_json *dim = &value->children[d];
        if (!is_count(dim))
            return bad(e, "shape", value, "a list of whole numbers was expected");
        out->dim[d] = dim->integer;
        if (!mg_size_mul(bytes, *bytes, (size_t)dim->integer))
            return bad(e, "shape", value, "these are more bytes than can be addressed");
    }
    return MG_OK;
}

static mg_status read_offsets(struct mg_stored_tensor *out, size_t bytes, const struct entry *e,
                              const struct mg_json *value) {
    if (!value || value->type != MG_JSON_ARRAY || value->length != 2 || !is_count(&value->children[0]) ||
        !is_count(&value->children[1]) || value->children[0].integer > value->children[1].integer)
        return bad(e, "data_offsets", value, "a list of two whole numbers in order was expected");
    const struct mg_json *begin = &value->children[0], *end = &value->children[1];
    if ((uint64_t)end->integer > e->data_bytes)
        return mg_fail(e->err, MG_ERR_CHECKPOINT,
                       "%s: tensor \"%.200s\": data_offsets [%lld, %lld] lie outside the %zu bytes of data (truncated "
                       "file?)",
                       e->file->path, e->key, (long long)begin->integer, (long long)end->integer, e->data_bytes);
    if ((uint64_t)(end->integer - begin->integer) != bytes)
        return mg_fail(e->err, MG_ERR_CHECKPOINT,
                       "%s: tensor \"%.200s\": data_offsets [%lld, %lld] span %lld bytes, dtype and shape say %zu",
                       e->file->path, e->key, (long long)begin->integer, (long long)end->integer,
                       (long long)(end->integer - begin->integer), bytes);
    out->data = e->file->data + e->data_start + (size_t)begin->integer;
    out->bytes = bytes;
    return MG_OK;
}

static mg_status read_entry(struct mg_stored_tensor *out, const struct entry *e, const struct mg_json *value) {
    if (value->type != MG_JSON_OBJECT)
        return bad(e, "the entry of the header", value, "an object was expected");
    size_t bytes = 0;
    MG_TRY(read_type(out, &bytes, e, mg_json_get(value, "dtype")));
    MG_TRY(read_shape(out, &bytes, e, mg_json_get(value, "shape")));
    return read_offsets(out, bytes, e, mg_json_get(value, "data_offsets"));
}

/* Free text about the file, for people: an object of strings. */
static mg_status check_metadata(const struct mg_file *file, const struct mg_json *value, struct mg_err *err) {
    bool fits = value->type == MG_JSON_OBJECT || value->type == MG_JSON_NULL;
    for (size_t i = 0; fits && i < value->length; i++)
        fits = value->children[i].type == MG_JSON_STRING;
    if (fits)
        return MG_OK;
    char text[200];
    return mg_fail(err, MG_ERR_CHECKPOINT, "%s: __metadata__ is %s; an object of strings was expected", file->path,
                   mg_json_text(text, sizeof text, value));
}

static int by_position(const void *a, const void *b) {
    const struct mg_stored_tensor *left = a, *right = b;
    uintptr_t l = (uintptr_t)left->data, r = (uintptr_t)right->data;
    if (l != r)
        return l < r ? -1 : 1;
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

/* Sorts the new tensors by position and checks that they cover the data without gap or overlap. */
static mg_status check_coverage(struct mg_stored_tensor *tensors, size_t count, const struct entry *file) {
    const unsigned char *at = file->file->data + file->data_start;
    qsort(tensors, count, sizeof *tensors, by_position);
    for (size_t i = 0; i < count; i++) {
        if ((const unsigned char *)tensors[i].data != at)
            return mg_fail(file->err, MG_ERR_CHECKPOINT,
                           "%s: tensor \"%.200s\" begins at byte %td of the data, the one before it ends at %td",
                           file->file->path, tensors[i].key,
                           (const unsigned char *)tensors[i].data - (file->file->data + file->data_start),
                           at - (file->file->data + file->data_start));
        at += tensors[i].bytes;
    }
    size_t covered = (size_t)(at - (file->file->data + file->data_start));
    if (covered != file->data_bytes)
        return mg_fail(file->err, MG_ERR_CHECKPOINT, "%s: %zu bytes of data, of which the header describes %zu",
                       file->file->path, file->data_bytes, covered);
    return MG_OK;
}

static mg_status read_header(const struct mg_json **out, size_t *data_start, struct mg_stored_tensors *into,
                             const struct mg_file *file, struct mg_err *err) {
    uint64_t length = 0;
    if (file->bytes < 8)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: %zu bytes; too short for a safetensors file", file->path,
                       file->bytes);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | file->data[i];
    if (length > file->bytes - 8 && file->bytes > 8 && file->data[8] != '{')
        return mg_fail(err, MG_ERR_CHECKPOINT,
                       "%s: no safetensors file, which would begin with the length of a header and the header's \"{\"",
                       file->path);
    if (length > LONGEST_HEADER || length > file->bytes - 8)
        return mg_fail(
            err, MG_ERR_CHECKPOINT,
            "%s: no safetensors file, or not all of it: the header claims %llu bytes; the file has %zu after the "
            "length, and at most %d are read",
            file->path, (unsigned long long)length, file->bytes - 8, LONGEST_HEADER);
    MG_TRY(mg_json_parse(out, &into->arena, (const char *)file->data + 8, (size_t)length, file->path, err));
    if ((*out)->type != MG_JSON_OBJECT)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: the header is no JSON object", file->path);
    *data_start = 8 + (size_t)length;
    return MG_OK;
}

mg_status mg_safetensors_parse(struct mg_stored_tensors *into, int file_index, struct mg_err *err) {
    const struct mg_file *file = &into->files[file_index];
    const struct mg_json *header;
    size_t data_start = 0;
    MG_TRY(read_header(&header, &data_start, into, file, err));
    MG_TRY(mg_stored_reserve(into, header->length, err));
    struct mg_stored_tensor *first = into->list + into->count;
    struct entry entry = {.file = file, .data_start = data_start, .data_bytes = file->bytes - data_start, .err = err};
    size_t count = 0;
    into->metadata = NULL;
    into->header_bytes = data_start - 8;
    for (size_t i = 0; i < header->length; i++) {
        if (!strcmp(header->keys[i], "__metadata__")) {
            MG_TRY(check_metadata(file, &header->children[i], err));
            into->metadata = &header->children[i];
            continue;
        }
        entry.key = header->keys[i];
        first[count] = (struct mg_stored_tensor){.key = entry.key, .file = file_index};
        MG_TRY(read_entry(&first[count], &entry, &header->children[i]));
        count++;
    }
    MG_TRY(check_coverage(first, count, &entry));
    into->count += count;
    return MG_OK;
}
