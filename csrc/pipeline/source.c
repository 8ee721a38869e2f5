/* source.c: configurations and weights out of a folder or a packed file. Calls io, graph/weights. */
#include "source.h"

#include <string.h>
#include <sys/stat.h>

enum { LARGEST_CONFIG = 64 << 20 };

/* A variant that no component has is a mistake, not a reason to open others. */
mg_status mg_source_check_variant(const struct mg_source *source, struct mg_err *err) {
    static const char *const components[] = {"unet", "vae", "text_encoder"};
    bool any = !source->variant;
    if (any)
        return MG_OK;
    if (!source->variant[0] || strpbrk(source->variant, "/."))
        return mg_fail(err, MG_ERR_ARGUMENT, "variant \"%.200s\" is no plain name such as \"fp16\"", source->variant);
    if (source->is_packed)
        return mg_fail(err, MG_ERR_ARGUMENT, "variant \"%.200s\": %s is a packed file, which has no variants",
                       source->variant, source->path);
    for (size_t i = 0; !any && i < sizeof components / sizeof components[0]; i++) {
        char *folder;
        MG_TRY(mg_path_join(&folder, source->path, components[i], err));
        mg_status status = mg_checkpoint_has(&any, folder, source->variant, err);
        mg_free(folder);
        MG_TRY(status);
    }
    if (!any)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: no component has weights of variant \"%s\"", source->path,
                       source->variant);
    return MG_OK;
}

static mg_status copy_text(char **out, const char *text, struct mg_err *err) {
    MG_TRY(mg_alloc((void **)out, strlen(text) + 1, "a file name", err));
    strcpy(*out, text);
    return MG_OK;
}

mg_status mg_source_open(struct mg_source *out, const char *path, const char *variant, struct mg_err *err) {
    struct stat info;
    mg_status status;
    *out = (struct mg_source){.is_packed = stat(path, &info) == 0 && !S_ISDIR(info.st_mode)};
    MG_TRY_GOTO(copy_text(&out->path, path, err));
    if (variant)
        MG_TRY_GOTO(copy_text(&out->variant, variant, err));
    if (out->is_packed)
        MG_TRY_GOTO(mg_packed_open(&out->packed, path, err));
done:
    if (status != MG_OK)
        mg_source_close(out);
    return status;
}

void mg_source_close(struct mg_source *source) {
    if (source->is_packed)
        mg_packed_close(&source->packed);
    mg_free(source->path);
    mg_free(source->variant);
    *source = (struct mg_source){0};
}

static mg_status file_text(const char **text, size_t *length, const char *path, struct mg_arena *arena,
                           struct mg_err *err) {
    struct mg_file file;
    mg_status status = MG_OK;
    MG_TRY(mg_file_open(&file, path, err));
    if (file.bytes > LARGEST_CONFIG)
        status = mg_fail(err, MG_ERR_CHECKPOINT, "%s: %zu bytes of JSON; at most %d are read", path, file.bytes,
                         LARGEST_CONFIG);
    else if (!(*text = mg_arena_strdup(arena, file.data ? (const char *)file.data : "", file.bytes)))
        status = mg_fail(err, MG_ERR_MEMORY, "%s: no memory for %zu bytes", path, file.bytes);
    *length = file.bytes;
    mg_file_close(&file);
    return status;
}

mg_status mg_source_text(const char **text, size_t *length, const char **label, const struct mg_source *source,
                         const char *name, struct mg_arena *arena, struct mg_err *err) {
    char *joined;
    MG_TRY(mg_path_join(&joined, source->path, name, err));
    *label = mg_arena_strdup(arena, joined, strlen(joined));
    mg_free(joined);
    if (!*label)
        return mg_fail(err, MG_ERR_MEMORY, "no memory for a file name");
    if (!source->is_packed)
        return file_text(text, length, *label, arena, err);
    const struct mg_json *value = mg_packed_text(&source->packed, name);
    if (!value)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: __metadata__ has no \"%s\"", source->path, name);
    *text = value->string;
    *length = value->length;
    return MG_OK;
}

mg_status mg_source_config(const struct mg_json **out, const char **label, const struct mg_source *source,
                           const char *name, struct mg_arena *arena, struct mg_err *err) {
    const char *text;
    size_t length = 0;
    MG_TRY(mg_source_text(&text, &length, label, source, name, arena, err));
    return mg_json_parse(out, arena, text, length, *label, err);
}

/* Those of the variant asked for, or the default ones where the component has no such variant; where none is asked for,
 * the default ones or else "fp16". So folders open in which one component was replaced. */
mg_status mg_source_weights(struct mg_weights *out, const struct mg_source *source, const char *component,
                            const char *subfolder, struct mg_err *err) {
    if (source->is_packed)
        return mg_weights_open_packed(out, component, &source->packed, err);
    const char *variant = source->variant, *second = variant ? NULL : "fp16";
    bool has_first, has_second;
    char *folder;
    mg_status status;
    MG_TRY(mg_path_join(&folder, source->path, subfolder, err));
    MG_TRY_GOTO(mg_checkpoint_has(&has_first, folder, variant, err));
    MG_TRY_GOTO(mg_checkpoint_has(&has_second, folder, second, err));
    MG_TRY_GOTO(mg_weights_open(out, component, folder, !has_first && has_second ? second : variant, err));
done:
    mg_free(folder);
    return status;
}
