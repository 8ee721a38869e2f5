/* safetensors_writer.h: writes a safetensors file tensor by tensor, so that the whole is never in memory. Everything is
 * declared first, since the header comes first; then the data follows in the same order. The file gets its name when it
 * is whole: until then it has none, or, where the file system cannot do that, NAME.PID.partial. */
#ifndef MG_SAFETENSORS_WRITER_H
#define MG_SAFETENSORS_WRITER_H
#include "../core/core.h"

struct mg_writer_text {
    char *data;
    size_t length, capacity;
};

struct mg_safetensors_writer {
    char *path, *partial;
    int descriptor;
    bool replace, is_named;                  /* is_named: `partial` exists */
    struct mg_writer_text metadata, tensors; /* the two parts of the header while it is declared */
    struct mg_writer_text header;            /* the whole of it, from `begin` on */
    uint64_t declared, written;              /* bytes of data */
};

/* Of every tensor's data, from the beginning of the file. */
enum { MG_SAFETENSORS_ALIGNMENT = MG_ALIGNMENT };

/* replace false: MG_ERR_IO with EEXIST if there is a file. Never over what is not a regular file. */
mg_status mg_safetensors_writer_open(struct mg_safetensors_writer *out, const char *path, bool replace,
                                     struct mg_err *err);
/* Adds an entry to __metadata__; the keys must differ. value[0..length) is UTF-8. `*place` (may be NULL) is where in the
 * header a value without quotes, backslashes and control characters will stand. */
mg_status mg_safetensors_writer_metadata(size_t *place, struct mg_safetensors_writer *writer, const char *key,
                                         const char *value, size_t length, struct mg_err *err);
/* Adds a tensor of type U8 with one dimension: `bytes` and the zeros that fill up the alignment, as the format allows no
 * gaps. */
mg_status mg_safetensors_writer_declare(struct mg_safetensors_writer *writer, const char *key, size_t bytes,
                                        struct mg_err *err);
/* Writes the header, padded with blanks. It may be changed in place (header.data, without the eight bytes of its length)
 * until `finish`, which writes it again. */
mg_status mg_safetensors_writer_begin(struct mg_safetensors_writer *writer, struct mg_err *err);
/* Writes data[0..bytes) as the next tensor, with its zeros. */
mg_status mg_safetensors_writer_append(struct mg_safetensors_writer *writer, const void *data, size_t bytes,
                                       struct mg_err *err);
/* All is written: gives the file its name. */
mg_status mg_safetensors_writer_finish(struct mg_safetensors_writer *writer, struct mg_err *err);
/* Frees the writer; what is not finished is gone. */
void mg_safetensors_writer_close(struct mg_safetensors_writer *writer);
#endif
