/* stored_tensors.h: the tensors of mapped files, indexed by key: what safetensors.c fills and checkpoint.c finds in. Knows
 * core and files. */
#ifndef MG_STORED_TENSORS_H
#define MG_STORED_TENSORS_H
#include "file.h"

/* One stored tensor, pointing into a mapping. Stored shapes may have any number of dimensions up to 8; a dimension may
 * be 0, and the others of such a shape are then not bounded. `data` may have any alignment: writers pad the header so
 * that it is aligned to 8, but nothing in the format says so. Read through memcpy or test the address first. */
struct mg_stored_tensor {
    const char *key;
    int stored_dtype;       /* mg_dtype, or -1 for a type that is not floating point (e.g. I64 position_ids) */
    const char *dtype_text; /* "F32", "I64", ... as in the file */
    int ndim;
    int64_t dim[8];
    const void *data;
    size_t bytes;
    int file; /* index into files */
    /* Of a packed checkpoint (packed_file.h), where ndim and dim are the network's and the data is `layout`'s. */
    const char *layout; /* NULL: as the type says */
    uint32_t checksum;
};

struct mg_stored_tensors {
    struct mg_file *files;
    int num_files;
    struct mg_stored_tensor *list;
    size_t count;
    struct mg_arena arena;          /* keys */
    void *index;                    /* the tensors in the order of their keys */
    const struct mg_json *metadata; /* of the file parsed last; NULL if it has none */
    size_t header_bytes;            /* of that file */
    bool is_view;                   /* files belong to another */
};

/* Maps one more file; its number is num_files - 1 then. */
mg_status mg_stored_add_file(struct mg_stored_tensors *stored, const char *path, struct mg_err *err);
/* Room for `more` further tensors. */
mg_status mg_stored_reserve(struct mg_stored_tensors *stored, size_t more, struct mg_err *err);
/* All tensors are there: sorts their keys. `name` (of a folder or a file) is for messages. MG_ERR_CHECKPOINT for a key that is
 * there twice. */
mg_status mg_stored_index(struct mg_stored_tensors *stored, const char *name, struct mg_err *err);
/* The tensors whose keys begin with `prefix`, without it. `whole` must outlive the view. */
mg_status mg_stored_view(struct mg_stored_tensors *out, const struct mg_stored_tensors *whole, const char *prefix,
                         const char *name, struct mg_err *err);
const struct mg_stored_tensor *mg_stored_find(const struct mg_stored_tensors *stored, const char *key); /* or NULL */
void mg_stored_free(struct mg_stored_tensors *stored);
#endif
