/* source.h: where a checkpoint's parts come from: a folder in diffusers layout, or one packed file. Configurations have
 * the names of files in a folder ("unet/config.json") in both. Private to pipeline and train. */
#ifndef MG_SOURCE_H
#define MG_SOURCE_H
#include "../nn/nn.h"

struct mg_source {
    char *path;
    char *variant; /* NULL: the default weights */
    bool is_packed;
    struct mg_packed_file packed;
};
/* path: a folder, or a file of `marigold convert`. The weights of a packed source are read until it is closed. */
mg_status mg_source_open(struct mg_source *out, const char *path, const char *variant, struct mg_err *err);
/* Refuses a variant that no component has. */
mg_status mg_source_check_variant(const struct mg_source *source, struct mg_err *err);
void mg_source_close(struct mg_source *source);
/* The text of a configuration, in `arena`; `*label` names it in messages. */
mg_status mg_source_text(const char **text, size_t *length, const char **label, const struct mg_source *source,
                         const char *name, struct mg_arena *arena, struct mg_err *err);
/* The same, parsed. */
mg_status mg_source_config(const struct mg_json **out, const char **label, const struct mg_source *source,
                           const char *name, struct mg_arena *arena, struct mg_err *err);
/* The weights in a folder's subfolder ("" for itself) or of a packed file's component; `component` names them. */
mg_status mg_source_weights(struct mg_weights *out, const struct mg_source *source, const char *component,
                            const char *subfolder, struct mg_err *err);
#endif
