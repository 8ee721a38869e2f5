/* packed_file.h: a whole checkpoint in one file whose weights lie as the kernels read them.
 *
 * It is a valid safetensors file. Each weight is a tensor COMPONENT.KEY of type U8, its bytes filled up with zeros to 64.
 * __metadata__ holds, in this order first: "crc32", the checksum of the header with these eight digits as zeros;
 * "format" and "version"; then, in any order, configurations under their file names in a folder ("unet/config.json"), other
 * texts, and for each tensor under its name "CHECKSUM LAYOUT DIM,DIM,...": CRC-32 of the tensor with its zeros, the layout
 * as backend/layout_text.c writes it, and the shape that the network knows the weight by.
 *
 * Opening checks the header only, its checksum included: reading every byte of the weights would take longer than the
 * first prediction. mg_packed_verify reads them. */
#ifndef MG_PACKED_FILE_H
#define MG_PACKED_FILE_H
#include "checkpoint.h"
#include "crc32.h"
#include "json.h"
#include "safetensors_writer.h"

/* ---- reading ---- */
struct mg_packed_file {
    struct mg_checkpoint
        tensors; /* keys COMPONENT.KEY; shapes as the network knows them, `layout` and `checksum` set */
};
/* MG_ERR_CHECKPOINT for a file that is damaged, or that is none of these; MG_ERR_UNSUPPORTED for another version. */
mg_status mg_packed_open(struct mg_packed_file *out, const char *path, struct mg_err *err);
void mg_packed_close(struct mg_packed_file *file);
/* A text of __metadata__, or NULL. */
const struct mg_json *mg_packed_text(const struct mg_packed_file *file, const char *key);
/* The tensors of a component under their KEYs. The file must outlive them. */
mg_status mg_packed_component(struct mg_checkpoint *out, const struct mg_packed_file *file, const char *component,
                              struct mg_err *err);
/* Reads all tensors and compares their checksums; MG_ERR_CHECKPOINT names those that differ. poll: NULL, or asked between
 * tensors whether to stop. */
mg_status mg_packed_check(const struct mg_packed_file *file, mg_poll_fn poll, void *poll_user, struct mg_err *err);

/* ---- writing: texts and declarations, then begin, then the data in the order of the declarations ---- */
struct mg_packed_writer {
    struct mg_safetensors_writer file;
    struct mg_crc32 crc;
    size_t *places; /* in the header, of the checksum of each tensor */
    size_t declared, capacity, written;
};
mg_status mg_packed_writer_open(struct mg_packed_writer *out, const char *path, bool replace, struct mg_err *err);
mg_status mg_packed_writer_text(struct mg_packed_writer *writer, const char *key, const char *text, size_t length,
                                struct mg_err *err);
mg_status mg_packed_writer_declare(struct mg_packed_writer *writer, const char *component, const char *key,
                                   const char *layout, const struct mg_tensor *shape, size_t bytes, struct mg_err *err);
mg_status mg_packed_writer_begin(struct mg_packed_writer *writer, struct mg_err *err);
mg_status mg_packed_writer_append(struct mg_packed_writer *writer, const void *data, size_t bytes, struct mg_err *err);
mg_status mg_packed_writer_finish(struct mg_packed_writer *writer, struct mg_err *err);
/* What is not finished is gone. */
void mg_packed_writer_close(struct mg_packed_writer *writer);
#endif
