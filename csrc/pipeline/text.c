/* text.c: the embedding of the empty prompt, the only one that is ever asked for: computed when a folder is opened, after which the
 * text encoder is closed again; read from a packed file, which has it in the place of the encoder. Calls nn, source.c. */
#include <stdlib.h>

#include "pipeline.h"

static mg_status alloc_text(struct mg_pipeline *p, int64_t tokens, int64_t channels, struct mg_err *err) {
    p->text_tokens = tokens;
    p->text_channels = channels;
    return mg_alloc((void **)&p->text, (size_t)(tokens * channels) * sizeof(float), "the text embedding", err);
}

static mg_status run_text_encoder(struct mg_pipeline *p, struct mg_weights *weights,
                                  const struct mg_clip_config *config, const int64_t *ids, int64_t tokens,
                                  struct mg_err *err) {
    struct mg_graph graph;
    struct mg_plan *plan = NULL;
    float *values = NULL;
    mg_status status;
    mg_graph_init(&graph, weights, err);
    mg_graph_output(&graph, "text", mg_clip_build(&graph, config, mg_graph_input(&graph, "ids", 1, 1, tokens, 1)));
    status = mg_graph_failed(&graph) ? mg_graph_status(&graph) : mg_weights_check(weights, err);
    if (status != MG_OK) {
        mg_graph_free(&graph);
        return status;
    }
    MG_TRY_GOTO(mg_plan_create(&plan, &graph, &p->context, err));
    MG_TRY_GOTO(alloc_text(p, tokens, config->hidden, err));
    MG_TRY_GOTO(mg_alloc_floats(&values, 1, (size_t)tokens, "the ids of the text", err));
    for (int64_t i = 0; i < tokens; i++)
        values[i] = (float)ids[i];
    MG_TRY_GOTO(
        mg_plan_run(plan, &(struct mg_binding){"ids", values}, 1, &(struct mg_binding){"text", p->text}, 1, err));
done:
    mg_plan_destroy(plan);
    mg_free(values);
    return status;
}

static mg_status check_tokens(int64_t tokens, const struct mg_clip_config *clip, const char *path, struct mg_err *err) {
    if (tokens >= MG_TEXT_TOKENS && tokens <= clip->max_positions)
        return MG_OK;
    return mg_fail(err, MG_ERR_ARGUMENT, "text_tokens is %lld; %s has places for %d to %lld", (long long)tokens, path,
                   MG_TEXT_TOKENS, (long long)clip->max_positions);
}

static mg_status embed_empty_prompt(struct mg_pipeline *p, int64_t tokens, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    char *tokenizer = NULL;
    const char *path;
    struct mg_weights weights = {0};
    struct mg_clip_config clip;
    const struct mg_json *config;
    int64_t *ids = NULL;
    size_t mapped = p->context.weights_mapped, packed = p->context.weights_packed;
    mg_status status;
    MG_TRY_GOTO(mg_source_config(&config, &path, &p->source, "text_encoder/config.json", &arena, err));
    MG_TRY_GOTO(mg_clip_config_read(&clip, config, path, err));
    if (clip.hidden != p->unet.cross_attention_dim) {
        status = mg_fail(err, MG_ERR_UNSUPPORTED, "%s: hidden_size %lld differs from the UNet's cross_attention_dim %d",
                         path, (long long)clip.hidden, p->unet.cross_attention_dim);
        goto done;
    }
    MG_TRY_GOTO(check_tokens(tokens, &clip, path, err));
    MG_TRY_GOTO(mg_alloc((void **)&ids, (size_t)tokens * sizeof *ids, "the ids of the text", err));
    MG_TRY_GOTO(mg_path_join(&tokenizer, p->source.path, "tokenizer", err));
    MG_TRY_GOTO(mg_clip_empty_prompt(ids, tokens, tokenizer, &clip, err));
    MG_TRY_GOTO(mg_source_weights(&weights, &p->source, "text_encoder", "text_encoder", err));
    weights.alias = mg_clip_weight_alias;
    weights.may_ignore = mg_clip_may_ignore;
    MG_TRY_GOTO(run_text_encoder(p, &weights, &clip, ids, tokens, err));
    p->text_encoder_parameters = weights.parameters;
done:
    mg_weights_close(&weights);
    p->context.weights_mapped = mapped;
    p->context.weights_packed = packed;
    mg_free(tokenizer);
    mg_free(ids);
    mg_arena_free(&arena);
    return status;
}

/* How many tokens a packed file has embedded; those with two do not say so. */
static mg_status stored_tokens(int64_t *out, const struct mg_pipeline *p, struct mg_err *err) {
    const struct mg_json *text = mg_packed_text(&p->source.packed, MG_TOKENS_KEY);
    char *end = "";
    *out = text ? strtol(text->string, &end, 10) : MG_TEXT_TOKENS;
    if (*end || *out < MG_TEXT_TOKENS || *out > 1 << 20)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: its %s is \"%.40s\"", p->source.path, MG_TOKENS_KEY, text->string);
    return MG_OK;
}

static mg_status read_empty_prompt(struct mg_pipeline *p, int64_t asked, struct mg_err *err) {
    struct mg_weights weights;
    int64_t tokens;
    int index;
    mg_status status;
    MG_TRY(stored_tokens(&tokens, p, err));
    if (asked && asked != tokens)
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "text_tokens is %lld: %s was packed with %lld; pack another from the original checkpoint",
                       (long long)asked, p->source.path, (long long)tokens);
    MG_TRY(mg_source_weights(&weights, &p->source, "text_encoder", "text_encoder", err));
    MG_TRY_GOTO(mg_weights_declare(&index, &weights, MG_EMPTY_PROMPT_KEY, 2,
                                   (int64_t[]){tokens, p->unet.cross_attention_dim}, err));
    MG_TRY_GOTO(mg_weights_check(&weights, err));
    MG_TRY_GOTO(mg_weights_choose(&weights, index, (struct mg_weight_layout){0}, err));
    MG_TRY_GOTO(alloc_text(p, tokens, p->unet.cross_attention_dim, err));
    MG_TRY_GOTO(mg_weights_pack(p->text, &weights, index, 1, err));
done:
    mg_weights_close(&weights);
    return status;
}

mg_status mg_text_open(struct mg_pipeline *pipeline, int64_t tokens, struct mg_err *err) {
    return pipeline->source.is_packed
               ? read_empty_prompt(pipeline, tokens, err)
               : embed_empty_prompt(pipeline, tokens ? tokens : pipeline->family->text_tokens, err);
}
