/* packed_writer.c: writes a packed checkpoint. Calls safetensors_writer.c, crc32.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "packed_file.h"
#include "packed_format.h"

mg_status mg_packed_writer_text(struct mg_packed_writer *writer, const char *key, const char *text, size_t length,
                                struct mg_err *err) {
    return mg_safetensors_writer_metadata(NULL, &writer->file, key, text, length, err);
}

static mg_status words(struct mg_packed_writer *writer, const char *key, const char *text, struct mg_err *err) {
    return mg_packed_writer_text(writer, key, text, strlen(text), err);
}

mg_status mg_packed_writer_open(struct mg_packed_writer *out, const char *path, bool replace, struct mg_err *err) {
    mg_status status;
    *out = (struct mg_packed_writer){.file.descriptor = -1};
    mg_crc32_init(&out->crc);
    MG_TRY(mg_safetensors_writer_open(&out->file, path, replace, err));
    MG_TRY_GOTO(words(out, "crc32", MG_PACKED_NO_CHECKSUM, err));
    MG_TRY_GOTO(words(out, "format", MG_PACKED_FORMAT, err));
    MG_TRY_GOTO(words(out, "version", MG_PACKED_VERSION, err));
done:
    if (status != MG_OK)
        mg_packed_writer_close(out);
    return status;
}

static mg_status reserve(struct mg_packed_writer *writer, struct mg_err *err) {
    if (writer->declared < writer->capacity)
        return MG_OK;
    const size_t capacity = writer->capacity ? writer->capacity * 2 : 1024;
    void *bigger;
    MG_TRY(mg_alloc(&bigger, capacity * sizeof *writer->places, "a list of checksums", err));
    if (writer->declared)
        memcpy(bigger, writer->places, writer->declared * sizeof *writer->places);
    mg_free(writer->places);
    writer->places = bigger;
    writer->capacity = capacity;
    return MG_OK;
}

mg_status mg_packed_writer_declare(struct mg_packed_writer *writer, const char *component, const char *key,
                                   const char *layout, const struct mg_tensor *shape, size_t bytes,
                                   struct mg_err *err) {
    char name[MG_PACKED_NAME], note[MG_PACKED_DIGITS + MG_PACKED_LAYOUT_TEXT + MG_SHAPE_TEXT];
    int length = snprintf(name, sizeof name, "%s.%s", component, key);
    if (length < 0 || (size_t)length >= sizeof name)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "weight key \"%s\" is longer than %zu", key, sizeof name - 1);
    length = snprintf(note, sizeof note, "%s %s ", MG_PACKED_NO_CHECKSUM, layout);
    for (int d = 0; d < shape->ndim; d++)
        length += snprintf(note + length, sizeof note - (size_t)length, "%s%" PRId64, d ? "," : "", shape->dim[d]);
    MG_TRY(reserve(writer, err));
    MG_TRY(mg_safetensors_writer_metadata(&writer->places[writer->declared++], &writer->file, name, note,
                                          (size_t)length, err));
    return mg_safetensors_writer_declare(&writer->file, name, bytes, err);
}

mg_status mg_packed_writer_begin(struct mg_packed_writer *writer, struct mg_err *err) {
    return mg_safetensors_writer_begin(&writer->file, err);
}

static void set_checksum(struct mg_packed_writer *writer, size_t place, uint32_t checksum) {
    char digits[MG_PACKED_DIGITS + 1];
    snprintf(digits, sizeof digits, "%08" PRIx32, checksum);
    memcpy(writer->file.header.data + place, digits, MG_PACKED_DIGITS);
}

mg_status mg_packed_writer_append(struct mg_packed_writer *writer, const void *data, size_t bytes, struct mg_err *err) {
    static const char zeros[MG_SAFETENSORS_ALIGNMENT];
    const size_t rest = bytes % MG_SAFETENSORS_ALIGNMENT;
    uint32_t checksum = mg_crc32_add(&writer->crc, 0, data, bytes);
    checksum = mg_crc32_add(&writer->crc, checksum, zeros, rest ? MG_SAFETENSORS_ALIGNMENT - rest : 0);
    set_checksum(writer, writer->places[writer->written++], checksum);
    return mg_safetensors_writer_append(&writer->file, data, bytes, err);
}

mg_status mg_packed_writer_finish(struct mg_packed_writer *writer, struct mg_err *err) {
    const struct mg_writer_text *header = &writer->file.header;
    set_checksum(writer, strlen(MG_PACKED_BEGINNING), mg_crc32_add(&writer->crc, 0, header->data, header->length));
    return mg_safetensors_writer_finish(&writer->file, err);
}

void mg_packed_writer_close(struct mg_packed_writer *writer) {
    mg_safetensors_writer_close(&writer->file);
    mg_free(writer->places);
    writer->places = NULL;
}
