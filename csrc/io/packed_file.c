/* packed_file.c: opens a packed checkpoint and checks its header. Calls checkpoint.c, json.c, crc32.c. The file is
 * untrusted: whether a tensor is as long as its layout says is checked by graph/weights. */
#include "packed_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packed_format.h"

const struct mg_json *mg_packed_text(const struct mg_packed_file *file, const char *key) {
    return mg_json_get(file->tensors.stored.metadata, key);
}

static bool is_text(const struct mg_json *value, const char *text) {
    return value && value->length == strlen(text) && !memcmp(value->string, text, value->length);
}

/* Eight digits; 0 where there are others (the caller compares). */
static bool read_digits(uint32_t *out, const char *text) {
    *out = 0;
    for (int i = 0; i < MG_PACKED_DIGITS; i++) {
        const char c = text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        *out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

static mg_status check_format(const struct mg_packed_file *file, struct mg_err *err) {
    const struct mg_json *version = mg_packed_text(file, "version");
    char text[80] = "no version";
    if (!is_text(mg_packed_text(file, "format"), MG_PACKED_FORMAT))
        return mg_fail(err, MG_ERR_CHECKPOINT,
                       "%s: a safetensors file, but not one that `marigold convert` made from a whole checkpoint",
                       file->tensors.folder);
    if (!is_text(version, MG_PACKED_VERSION))
        return mg_fail(
            err, MG_ERR_UNSUPPORTED, "%s: a packed checkpoint of version %s; this version reads %s: convert anew",
            file->tensors.folder, version ? mg_json_text(text, sizeof text, version) : text, MG_PACKED_VERSION);
    return MG_OK;
}

/* The header's own checksum: of the header with zeros for its digits. */
static mg_status check_header(const struct mg_packed_file *file, const struct mg_crc32 *crc, struct mg_err *err) {
    const struct mg_file *mapped = &file->tensors.stored.files[0];
    const char *header = (const char *)mapped->data + 8;
    const size_t before = strlen(MG_PACKED_BEGINNING), digits_end = before + MG_PACKED_DIGITS;
    const size_t length = file->tensors.stored.header_bytes;
    uint32_t stated;
    if (length < digits_end || memcmp(header, MG_PACKED_BEGINNING, before) || !read_digits(&stated, header + before))
        return mg_fail(err, MG_ERR_CHECKPOINT,
                       "%s: the header does not begin with its checksum; was the file written again?", mapped->path);
    uint32_t found = mg_crc32_add(crc, 0, header, before);
    found = mg_crc32_add(crc, found, MG_PACKED_NO_CHECKSUM, MG_PACKED_DIGITS);
    found = mg_crc32_add(crc, found, header + digits_end, length - digits_end);
    if (found != stated)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: the header is damaged: its CRC-32 is %08x, it says %08x",
                       mapped->path, (unsigned)found, (unsigned)stated);
    return MG_OK;
}

/* ---- what is noted of a tensor: "CHECKSUM LAYOUT DIM,DIM,..." ---- */
/* Notes by key, sorted: one after the other they would be looked up in the square of their number. */
struct note {
    const char *key;
    const struct mg_json *text;
};

static int compare_notes(const void *a, const void *b) {
    return strcmp(((const struct note *)a)->key, ((const struct note *)b)->key);
}

static mg_status sort_notes(struct note **out, const struct mg_json *metadata, struct mg_err *err) {
    MG_TRY(mg_alloc((void **)out, metadata->length * sizeof **out, "notes of tensors", err));
    for (size_t i = 0; i < metadata->length; i++)
        (*out)[i] = (struct note){metadata->keys[i], &metadata->children[i]};
    qsort(*out, metadata->length, sizeof **out, compare_notes);
    return MG_OK;
}

static bool read_shape(struct mg_stored_tensor *out, const char *text) {
    for (out->ndim = 0; out->ndim < MG_MAX_DIMS; out->ndim++) {
        char *end;
        if (*text < '1' || *text > '9')
            return false;
        const long long dim = strtoll(text, &end, 10); /* too large: LLONG_MAX, which fits no network */
        out->dim[out->ndim] = dim;
        text = end + 1;
        if (*end != ',')
            return out->ndim++, *end == '\0';
    }
    return false;
}

static mg_status read_note(struct mg_stored_tensor *tensor, const struct mg_packed_file *file, const struct note *notes,
                           struct mg_arena *arena, struct mg_err *err) {
    const struct note *found = bsearch(&(struct note){.key = tensor->key}, notes, file->tensors.stored.metadata->length,
                                       sizeof *notes, compare_notes);
    const struct mg_json *note = found ? found->text : NULL;
    const char *layout = note ? note->string + MG_PACKED_DIGITS + 1 : NULL;
    const char *end = note && note->length > MG_PACKED_DIGITS ? strchr(layout, ' ') : NULL;
    char text[120] = "missing";
    if (!end || strlen(note->string) != note->length || note->string[MG_PACKED_DIGITS] != ' ' ||
        !read_digits(&tensor->checksum, note->string) || !read_shape(tensor, end + 1))
        return mg_fail(
            err, MG_ERR_CHECKPOINT,
            "%s: tensor \"%.200s\": its note in __metadata__ is %s; checksum, layout and shape were expected",
            file->tensors.folder, tensor->key, note ? mg_json_text(text, sizeof text, note) : text);
    tensor->layout = mg_arena_strdup(arena, layout, (size_t)(end - layout));
    if (!tensor->layout)
        return mg_fail(err, MG_ERR_MEMORY, "no memory for the layout of tensor \"%.200s\"", tensor->key);
    return MG_OK;
}

static mg_status read_all_notes(struct mg_packed_file *file, const struct note *notes, struct mg_err *err) {
    const struct mg_file *mapped = &file->tensors.stored.files[0];
    for (size_t i = 0; i < file->tensors.stored.count; i++) {
        struct mg_stored_tensor *tensor = &file->tensors.stored.list[i];
        const size_t offset = (size_t)((const unsigned char *)tensor->data - mapped->data);
        if (strcmp(tensor->dtype_text, "U8") || offset % MG_SAFETENSORS_ALIGNMENT)
            return mg_fail(err, MG_ERR_CHECKPOINT,
                           "%s: tensor \"%.200s\" is %s at byte %zu; U8 at a multiple of %d was expected", mapped->path,
                           tensor->key, tensor->dtype_text, offset, MG_SAFETENSORS_ALIGNMENT);
        MG_TRY(read_note(tensor, file, notes, &file->tensors.stored.arena, err));
    }
    return MG_OK;
}

static mg_status read_notes(struct mg_packed_file *file, struct mg_err *err) {
    struct note *notes;
    MG_TRY(sort_notes(&notes, file->tensors.stored.metadata, err));
    const mg_status status = read_all_notes(file, notes, err);
    mg_free(notes);
    return status;
}

mg_status mg_packed_open(struct mg_packed_file *out, const char *path, struct mg_err *err) {
    struct mg_crc32 *crc = NULL;
    mg_status status;
    *out = (struct mg_packed_file){0};
    MG_TRY(mg_checkpoint_open_file(&out->tensors, path, err));
    MG_TRY_GOTO(mg_alloc((void **)&crc, sizeof *crc, "a checksum", err));
    mg_crc32_init(crc);
    MG_TRY_GOTO(check_format(out, err));
    MG_TRY_GOTO(check_header(out, crc, err));
    MG_TRY_GOTO(read_notes(out, err));
done:
    mg_free(crc);
    if (status != MG_OK)
        mg_packed_close(out);
    return status;
}

void mg_packed_close(struct mg_packed_file *file) { mg_checkpoint_close(&file->tensors); }

mg_status mg_packed_component(struct mg_checkpoint *out, const struct mg_packed_file *file, const char *component,
                              struct mg_err *err) {
    char prefix[MG_PACKED_NAME];
    snprintf(prefix, sizeof prefix, "%s.", component);
    return mg_checkpoint_view(out, &file->tensors, prefix, err);
}

mg_status mg_packed_check(const struct mg_packed_file *file, mg_poll_fn poll, void *poll_user, struct mg_err *err) {
    struct mg_crc32 *crc;
    mg_status status = MG_OK;
    MG_TRY(mg_alloc((void **)&crc, sizeof *crc, "a checksum", err));
    mg_crc32_init(crc);
    for (size_t i = 0; i < file->tensors.stored.count && status == MG_OK; i++) {
        const struct mg_stored_tensor *tensor = &file->tensors.stored.list[i];
        const uint32_t found = mg_crc32_add(crc, 0, tensor->data, tensor->bytes);
        if (found != tensor->checksum)
            status =
                mg_fail(err, MG_ERR_CHECKPOINT,
                        "%s: tensor \"%.200s\" is damaged: the CRC-32 of its %zu bytes is %08x, the header says %08x",
                        file->tensors.folder, tensor->key, tensor->bytes, (unsigned)found, (unsigned)tensor->checksum);
        else if (poll && poll(poll_user))
            status = mg_fail(err, MG_ERR_CANCELLED, "cancelled");
        mg_checkpoint_release(&file->tensors, tensor);
    }
    mg_free(crc);
    return status;
}
