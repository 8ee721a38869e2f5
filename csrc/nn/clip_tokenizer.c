/* clip_tokenizer.c: the ids of the empty prompt, the only text that Marigold's networks ever see: begin, end, and for some as much
 * padding as the encoder has room for. Their names are in tokenizer_config.json or special_tokens_map.json, their ids in vocab.json or tokenizer.json; which of
 * these files exist depends on the version of transformers that wrote the folder. Calls io. */
#include <string.h>

#include "nn.h"

struct tokenizer {
    struct mg_arena arena;
    const struct mg_json *config, *map, *vocab, *tokenizer; /* NULL: there is no such file */
};

static mg_status read_optional(const struct mg_json **out, struct mg_arena *arena, const char *folder, const char *file,
                               struct mg_err *err) {
    char *path;
    mg_status status = MG_OK;
    *out = NULL;
    MG_TRY(mg_path_join(&path, folder, file, err));
    if (mg_file_exists(path))
        status = mg_json_read_file(out, arena, path, err);
    mg_free(path);
    return status;
}

static mg_status open_tokenizer(struct tokenizer *t, const char *folder, struct mg_err *err) {
    MG_TRY(read_optional(&t->config, &t->arena, folder, "tokenizer_config.json", err));
    MG_TRY(read_optional(&t->map, &t->arena, folder, "special_tokens_map.json", err));
    MG_TRY(read_optional(&t->vocab, &t->arena, folder, "vocab.json", err));
    MG_TRY(read_optional(&t->tokenizer, &t->arena, folder, "tokenizer.json", err));
    if (!t->vocab && !t->tokenizer)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: has neither vocab.json nor tokenizer.json", folder);
    return MG_OK;
}

/* A token is written as "text" or as {"content": "text", ...}. */
static const char *token_text(const struct mg_json *object, const char *key) {
    const struct mg_json *value = mg_json_get(object, key);
    if (value && value->type == MG_JSON_OBJECT)
        value = mg_json_get(value, "content");
    return value && value->type == MG_JSON_STRING ? value->string : NULL;
}

static const char *token_name(const struct tokenizer *t, const char *key, const char *fallback) {
    const char *name = token_text(t->config, key);
    if (!name)
        name = token_text(t->map, key);
    return name ? name : fallback;
}

static const struct mg_json *find_id(const struct tokenizer *t, const char *token) {
    const struct mg_json *id = mg_json_get(t->vocab, token);
    if (!id)
        id = mg_json_get(mg_json_get(mg_json_get(t->tokenizer, "model"), "vocab"), token);
    const struct mg_json *added = mg_json_get(t->tokenizer, "added_tokens");
    for (size_t i = 0; !id && added && added->type == MG_JSON_ARRAY && i < added->length; i++) {
        const char *text = token_text(&added->children[i], "content");
        if (text && !strcmp(text, token))
            id = mg_json_get(&added->children[i], "id");
    }
    return id;
}

static mg_status token_id(int64_t *out, const struct tokenizer *t, const char *key, const char *fallback,
                          const char *folder, const struct mg_clip_config *config, struct mg_err *err) {
    const char *token = token_name(t, key, fallback);
    const struct mg_json *id = find_id(t, token);
    char text[64];
    if (!id)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: the %s \"%.200s\" is neither in vocab.json nor in tokenizer.json",
                       folder, key, token);
    if (id->type != MG_JSON_NUMBER || !id->is_integer || id->integer < 0 || id->integer >= config->vocabulary)
        return mg_fail(err, MG_ERR_CHECKPOINT,
                       "%s: the id of the %s \"%.200s\" is %s; the text encoder has embeddings for 0 to %lld", folder,
                       key, token, mg_json_text(text, sizeof text, id), (long long)config->vocabulary - 1);
    *out = id->integer;
    return MG_OK;
}

mg_status mg_clip_empty_prompt(int64_t *ids, int64_t count, const char *tokenizer_folder,
                               const struct mg_clip_config *config, struct mg_err *err) {
    struct tokenizer t = {0};
    mg_status status;
    mg_arena_init(&t.arena);
    MG_TRY_GOTO(open_tokenizer(&t, tokenizer_folder, err));
    MG_TRY_GOTO(token_id(&ids[0], &t, "bos_token", "<|startoftext|>", tokenizer_folder, config, err));
    MG_TRY_GOTO(token_id(&ids[1], &t, "eos_token", "<|endoftext|>", tokenizer_folder, config, err));
    if (count > 2)
        MG_TRY_GOTO(token_id(&ids[2], &t, "pad_token", "<|endoftext|>", tokenizer_folder, config, err));
    for (int64_t i = 3; i < count; i++)
        ids[i] = ids[2];
done:
    mg_arena_free(&t.arena);
    return status;
}
