/* checkpoint.h: the tensors of one component folder (unet/, vae/, text_encoder/): a safetensors file or a sharded set
 * behind *.safetensors.index.json, memory-mapped, every header field checked. */
#ifndef MG_CHECKPOINT_H
#define MG_CHECKPOINT_H
#include "stored_tensors.h"

struct mg_checkpoint {
    char *folder; /* or file */
    struct mg_stored_tensors stored;
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
#endif
