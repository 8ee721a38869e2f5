/* checkpoint.c: finds the weight files of a component folder (one safetensors file, or an index with shards), maps
 * them and indexes their tensors by key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "json.h"
#include "safetensors.h"

/* ---- files ---- */
static mg_status open_file(struct mg_checkpoint *checkpoint, const char *path, struct mg_err *err) {
    MG_TRY(mg_stored_add_file(&checkpoint->stored, path, err));
    return mg_safetensors_parse(&checkpoint->stored, checkpoint->stored.num_files - 1, err);
}

const struct mg_stored_tensor *mg_checkpoint_find(const struct mg_checkpoint *checkpoint, const char *key) {
    return mg_stored_find(&checkpoint->stored, key);
}

static bool is_plain_name(const char *name) {
    return name[0] && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

static mg_status open_shard(struct mg_checkpoint *checkpoint, const struct mg_json *name, const char *index_path,
                            struct mg_err *err) {
    char text[256];
    if (name->type != MG_JSON_STRING || strlen(name->string) != name->length || !is_plain_name(name->string))
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: %s is no name of a shard in the same folder", index_path,
                       mg_json_text(text, sizeof text, name));
    char *path;
    MG_TRY(mg_path_join(&path, checkpoint->folder, name->string, err));
    mg_status status = MG_OK;
    for (int i = 0; i < checkpoint->stored.num_files; i++)
        if (!strcmp(checkpoint->stored.files[i].path, path))
            goto done;
    if (mg_file_exists(path))
        status = open_file(checkpoint, path, err);
    else
        status = mg_fail(err, MG_ERR_CHECKPOINT, "%s: the shard \"%s\" is not there", index_path, name->string);
done:
    mg_free(path);
    return status;
}

/* Every key must be in the shard that the index names. */
static mg_status check_weight_map(const struct mg_checkpoint *checkpoint, const struct mg_json *map,
                                  const char *index_path, struct mg_err *err) {
    for (size_t i = 0; i < map->length; i++) {
        const struct mg_stored_tensor *tensor = mg_checkpoint_find(checkpoint, map->keys[i]);
        const char *shard = map->children[i].string, *path = tensor ? checkpoint->stored.files[tensor->file].path : "";
        const char *base = strrchr(path, '/');
        if (!tensor || strcmp(base ? base + 1 : path, shard))
            return mg_fail(err, MG_ERR_CHECKPOINT, "%s: tensor \"%.200s\" is not in the shard \"%s\"", index_path,
                           map->keys[i], shard);
    }
    return MG_OK;
}

static mg_status open_sharded(struct mg_checkpoint *checkpoint, const char *index_path, struct mg_err *err) {
    const struct mg_json *index;
    MG_TRY(mg_json_read_file(&index, &checkpoint->stored.arena, index_path, err));
    const struct mg_json *map = mg_json_get(index, "weight_map");
    if (!map || map->type != MG_JSON_OBJECT || !map->length)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"weight_map\" is missing or empty", index_path);
    for (size_t i = 0; i < map->length; i++)
        MG_TRY(open_shard(checkpoint, &map->children[i], index_path, err));
    MG_TRY(mg_stored_index(&checkpoint->stored, checkpoint->folder, err));
    return check_weight_map(checkpoint, map, index_path, err);
}

/* ---- which files to look for ---- */
enum { MAX_VARIANT = 64, MAX_NAME = 256 };

static const struct {
    const char *plain, *variant; /* printf forms of stem, and of stem and variant */
    bool sharded;
} file_names[] = {
    {"%s.safetensors", "%s.%s.safetensors", false},
    {"%s.safetensors.index.json", "%s.safetensors.index.%s.json", true},
    {NULL, "%s.%s.safetensors.index.json", true},
};
static const char *const stems[] = {"diffusion_pytorch_model", "model"};

static bool name_file(char *out, size_t bytes, size_t form, const char *stem, const char *variant) {
    const char *format = variant ? file_names[form].variant : file_names[form].plain;
    if (!format)
        return false;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int length = snprintf(out, bytes, format, stem, variant);
#pragma GCC diagnostic pop
    return length > 0 && (size_t)length < bytes;
}

/* Weights that this reader does not take: Python pickles, which run code when opened. */
static mg_status has_pickled(bool *out, const char *folder, const char *variant, struct mg_err *err) {
    static const char *const pickled[] = {"diffusion_pytorch_model", "pytorch_model"};
    *out = false;
    for (size_t i = 0; i < sizeof pickled / sizeof pickled[0]; i++) {
        char name[MAX_NAME], *path;
        snprintf(name, sizeof name, "%s%s%s.bin", pickled[i], variant ? "." : "", variant ? variant : "");
        MG_TRY(mg_path_join(&path, folder, name, err));
        *out = *out || mg_file_exists(path);
        mg_free(path);
    }
    return MG_OK;
}

static mg_status none_found(const char *folder, const char *variant, const char *looked_for, struct mg_err *err) {
    bool pickled;
    MG_TRY(has_pickled(&pickled, folder, variant, err));
    return mg_fail(err, MG_ERR_CHECKPOINT, "%s: no weights%s%s%s; looked for %s%s", folder,
                   variant ? " of variant \"" : "", variant ? variant : "", variant ? "\"" : "", looked_for,
                   pickled ? " (only pickled .bin weights are there; convert them to safetensors)" : "");
}

static mg_status open_first(struct mg_checkpoint *checkpoint, const char *variant, struct mg_err *err) {
    char name[MAX_NAME], looked_for[2048] = "";
    size_t length = 0;
    for (size_t s = 0; s < sizeof stems / sizeof stems[0]; s++)
        for (size_t form = 0; form < sizeof file_names / sizeof file_names[0]; form++) {
            if (!name_file(name, sizeof name, form, stems[s], variant))
                continue;
            char *path;
            MG_TRY(mg_path_join(&path, checkpoint->folder, name, err));
            mg_status status = MG_OK;
            bool found = mg_file_exists(path);
            if (found && file_names[form].sharded)
                status = open_sharded(checkpoint, path, err);
            else if (found && (status = open_file(checkpoint, path, err)) == MG_OK)
                status = mg_stored_index(&checkpoint->stored, checkpoint->folder, err);
            mg_free(path);
            if (found)
                return status;
            int added = snprintf(looked_for + length, sizeof looked_for - length, "%s%s", length ? ", " : "", name);
            length += added > 0 && length + (size_t)added < sizeof looked_for ? (size_t)added : 0;
        }
    return none_found(checkpoint->folder, variant, looked_for, err);
}

mg_status mg_checkpoint_has(bool *out, const char *folder, const char *variant, struct mg_err *err) {
    char name[MAX_NAME];
    *out = false;
    for (size_t s = 0; s < sizeof stems / sizeof stems[0]; s++)
        for (size_t form = 0; form < sizeof file_names / sizeof file_names[0]; form++) {
            char *path;
            if (!name_file(name, sizeof name, form, stems[s], variant))
                continue;
            MG_TRY(mg_path_join(&path, folder, name, err));
            *out = *out || mg_file_exists(path);
            mg_free(path);
        }
    return MG_OK;
}

static mg_status begin(struct mg_checkpoint *out, const char *folder, struct mg_err *err) {
    void *copy;
    *out = (struct mg_checkpoint){0};
    mg_arena_init(&out->stored.arena);
    MG_TRY(mg_alloc(&copy, strlen(folder) + 1, "a folder name", err));
    out->folder = strcpy(copy, folder);
    return MG_OK;
}

mg_status mg_checkpoint_open(struct mg_checkpoint *out, const char *folder, const char *variant, struct mg_err *err) {
    MG_TRY(begin(out, folder, err));
    mg_status status;
    if (variant && (!is_plain_name(variant) || strlen(variant) > MAX_VARIANT))
        status = mg_fail(err, MG_ERR_ARGUMENT, "variant \"%.200s\" is no plain name such as \"fp16\"", variant);
    else
        status = open_first(out, variant, err);
    if (status != MG_OK)
        mg_checkpoint_close(out);
    return status;
}

mg_status mg_checkpoint_open_file(struct mg_checkpoint *out, const char *path, struct mg_err *err) {
    MG_TRY(begin(out, path, err));
    mg_status status = open_file(out, path, err);
    if (status == MG_OK)
        status = mg_stored_index(&out->stored, out->folder, err);
    if (status != MG_OK)
        mg_checkpoint_close(out);
    return status;
}

mg_status mg_checkpoint_view(struct mg_checkpoint *out, const struct mg_checkpoint *whole, const char *prefix,
                             struct mg_err *err) {
    MG_TRY(begin(out, whole->folder, err));
    const mg_status status = mg_stored_view(&out->stored, &whole->stored, prefix, out->folder, err);
    if (status != MG_OK)
        mg_checkpoint_close(out);
    return status;
}

void mg_checkpoint_close(struct mg_checkpoint *checkpoint) {
    mg_stored_free(&checkpoint->stored);
    mg_free(checkpoint->folder);
    *checkpoint = (struct mg_checkpoint){0};
}

void mg_checkpoint_release(const struct mg_checkpoint *checkpoint, const struct mg_stored_tensor *tensor) {
    mg_file_release(&checkpoint->stored.files[tensor->file], tensor->data, tensor->bytes);
}
