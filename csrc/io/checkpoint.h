/* checkpoint.h: the tensors of one component folder (unet/, vae/, text_encoder/): a safetensors file or a sharded set
 * behind *.safetensors.index.json, memory-mapped, every header field checked. Called by graph/weights. */
#ifndef MG_CHECKPOINT_H
#define MG_CHECKPOINT_H
#include "../core/core.h"
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

struct mg_checkpoint {
    char *folder;
    struct mg_file *files;
    int num_files;
    struct mg_stored_tensor *tensors;
    size_t num_tensors;
    struct mg_arena arena;          /* keys */
    void *index;                    /* the tensors in the order of their keys */
    const struct mg_json *metadata; /* of the file parsed last; NULL if it has none */
    size_t header_bytes;            /* of that file */
    bool is_view;                   /* files belong to another */
};

/* Looks in `folder` for, in order and for stem in {"diffusion_pytorch_model", "model"}: STEM[.VARIANT].safetensors,
 * then STEM.safetensors.index[.VARIANT].json / STEM[.VARIANT].safetensors.index.json with its shards. variant NULL
 * means none. MG_ERR_CHECKPOINT lists the names it looked for when none exists, and says so when only .bin files are
 * there. */
mg_status mg_checkpoint_open(struct mg_checkpoint *out, const char *folder, const char *variant, struct mg_err *err);
/* One safetensors file. */
mg_status mg_checkpoint_open_file(struct mg_checkpoint *out, const char *path, struct mg_err *err);
/* The tensors whose keys begin with `prefix`, without it. `whole` must outlive the view. */
mg_status mg_checkpoint_view(struct mg_checkpoint *out, const struct mg_checkpoint *whole, const char *prefix,
                             struct mg_err *err);
/* Whether mg_checkpoint_open would find files to open. */
mg_status mg_checkpoint_has(bool *out, const char *folder, const char *variant, struct mg_err *err);
void mg_checkpoint_close(struct mg_checkpoint *checkpoint);
const struct mg_stored_tensor *mg_checkpoint_find(const struct mg_checkpoint *checkpoint,
                                                  const char *key); /* or NULL */
/* Lets the kernel drop the pages of one tensor from this process (they stay readable). */
void mg_checkpoint_release(const struct mg_checkpoint *checkpoint, const struct mg_stored_tensor *tensor);

/* Appends the tensors of one safetensors image to the checkpoint; exposed for the tests of hostile input. */
mg_status mg_safetensors_parse(struct mg_checkpoint *into, int file, struct mg_err *err);
#endif
