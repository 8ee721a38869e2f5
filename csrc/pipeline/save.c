/* save.c: writes an opened pipeline as one packed file: configurations, every weight as this pipeline's backend reads
 * it, and the embedding of the empty prompt in the place of the text encoder. Calls source.c, stages.c, graph/weights,
 * io/packed_file. One weight is in memory at a time. */
#include <stdio.h>
#include <string.h>

#include "pipeline.h"

static mg_status add_text(struct mg_packed_writer *writer, const char *key, const char *text, struct mg_err *err) {
    return mg_packed_writer_text(writer, key, text, strlen(text), err);
}

static mg_status add_configs(struct mg_packed_writer *writer, const struct mg_pipeline *p, struct mg_err *err) {
    static const char *const names[] = {"model_index.json", "scheduler/scheduler_config.json"};
    struct mg_arena arena;
    const char *text, *label;
    size_t length;
    mg_status status = MG_OK;
    mg_arena_init(&arena);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        MG_TRY_GOTO(mg_source_text(&text, &length, &label, &p->source, names[i], &arena, err));
        MG_TRY_GOTO(mg_packed_writer_text(writer, names[i], text, length, err));
    }
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "vae/config.json" : "unet/config.json";
        const struct mg_source *other = i ? &p->other_vae : &p->other_unet;
        MG_TRY_GOTO(mg_network_config_text(&text, &length, &label, p, other, name, &arena, err));
        MG_TRY_GOTO(mg_packed_writer_text(writer, name, text, length, err));
    }
    if (p->boosting.is_open) {
        const char *name = "boosting_unet/config.json";
        MG_TRY_GOTO(mg_source_text(&text, &length, &label, &p->source, name, &arena, err));
        MG_TRY_GOTO(mg_packed_writer_text(writer, name, text, length, err));
    }
done:
    mg_arena_free(&arena);
    return status;
}

static struct mg_tensor text_shape(const struct mg_pipeline *p) {
    return (struct mg_tensor){.dtype = MG_F32, .ndim = 2, .dim = {p->text_tokens, p->text_channels}};
}

static mg_status declare(struct mg_packed_writer *writer, const struct mg_weights *weights, struct mg_err *err) {
    char layout[MG_LAYOUT_TEXT];
    for (size_t i = 0; i < weights->count; i++) {
        const struct mg_weight *weight = &weights->list[i];
        const size_t bytes = mg_weights_packed_bytes(weights, (int)i);
        if (bytes == SIZE_MAX)
            return mg_fail(err, MG_ERR_MEMORY, "weight \"%s\" cannot be addressed", weight->key);
        MG_TRY(mg_packed_writer_declare(writer, weights->component, weight->key, mg_layout_text(layout, weight->layout),
                                        &weight->shape, bytes, err));
    }
    return MG_OK;
}

static mg_status append(struct mg_packed_writer *writer, const struct mg_weights *weights,
                        const struct mg_context *context, struct mg_err *err) {
    mg_status status = MG_OK;
    void *packed = NULL;
    for (size_t i = 0; i < weights->count; i++) {
        const size_t bytes = mg_weights_packed_bytes(weights, (int)i);
        MG_TRY_GOTO(mg_context_poll(context, err));
        MG_TRY_GOTO(mg_alloc(&packed, bytes, weights->list[i].key, err));
        MG_TRY_GOTO(mg_weights_pack(packed, weights, (int)i, context->num_threads, err));
        MG_TRY_GOTO(mg_packed_writer_append(writer, packed, bytes, err));
        mg_free(packed);
        packed = NULL;
    }
done:
    mg_free(packed);
    return status;
}

/* Where model_index.json does not say it: what is predicted, and how. */
static mg_status add_kind(struct mg_packed_writer *writer, const struct mg_pipeline *p, const char *prediction_type,
                          struct mg_err *err) {
    char tokens[32];
    if (p->family != mg_family_of_name("marigold")) {
        MG_TRY(add_text(writer, MG_FAMILY_KEY, p->family->name, err));
        MG_TRY(add_text(writer, MG_TASK_KEY, p->task->name, err));
    }
    if (p->boosting.is_open) {
        char inputs[MG_BOOSTING_INPUTS_TEXT];
        mg_boosting_inputs_text(inputs, &p->boosting);
        MG_TRY(add_text(writer, MG_BOOSTING_INPUTS_KEY, inputs, err));
    }
    if (p->text_tokens != MG_TEXT_TOKENS) {
        snprintf(tokens, sizeof tokens, "%lld", (long long)p->text_tokens);
        MG_TRY(add_text(writer, MG_TOKENS_KEY, tokens, err));
    }
    return prediction_type ? add_text(writer, MG_PREDICTION_KEY, prediction_type, err) : MG_OK;
}

static mg_status write_all(struct mg_packed_writer *writer, const struct mg_pipeline *p, const char *licence,
                           const char *prediction_type, struct mg_err *err) {
    char layout[MG_LAYOUT_TEXT];
    const struct mg_tensor text = text_shape(p);
    MG_TRY(add_text(writer, "dtype", p->precision->name, err));
    MG_TRY(add_text(writer, "isa", p->context.isa, err));
    if (licence)
        MG_TRY(add_text(writer, "licence", licence, err));
    MG_TRY(add_kind(writer, p, prediction_type, err));
    MG_TRY(add_configs(writer, p, err));
    MG_TRY(declare(writer, &p->unet_weights, err));
    MG_TRY(declare(writer, &p->boosting.weights, err)); /* none where it is not open */
    MG_TRY(declare(writer, &p->vae_weights, err));
    MG_TRY(mg_packed_writer_declare(writer, "text_encoder", MG_EMPTY_PROMPT_KEY,
                                    mg_layout_text(layout, (struct mg_weight_layout){0}), &text, mg_tensor_bytes(&text),
                                    err));
    MG_TRY(mg_packed_writer_begin(writer, err));
    MG_TRY(append(writer, &p->unet_weights, &p->context, err));
    MG_TRY(append(writer, &p->boosting.weights, &p->context, err));
    MG_TRY(append(writer, &p->vae_weights, &p->context, err));
    MG_TRY(mg_packed_writer_append(writer, p->text, mg_tensor_bytes(&text), err));
    return mg_packed_writer_finish(writer, err);
}

mg_status mg_pipeline_save(mg_pipeline *pipeline, const char *path, const char *licence, const char *prediction_type,
                           bool replace, struct mg_err *err) {
    struct mg_packed_writer *writer;
    mg_status status;
    MG_TRY(mg_pipeline_enter(pipeline, err));
    MG_TRY_GOTO(mg_alloc((void **)&writer, sizeof *writer, "a file", err));
    status = mg_stages_choose_layouts(pipeline, err);
    if (status == MG_OK)
        status = mg_packed_writer_open(writer, path, replace, err);
    if (status == MG_OK) {
        status = write_all(writer, pipeline, licence, prediction_type, err);
        mg_packed_writer_close(writer);
    }
    mg_free(writer);
done:
    mg_pipeline_leave(pipeline);
    return status;
}

mg_status mg_packed_file_verify(const char *path, mg_poll_fn poll, void *poll_user, struct mg_err *err) {
    struct mg_packed_file file;
    MG_TRY(mg_packed_open(&file, path, err));
    mg_status status = mg_packed_check(&file, poll, poll_user, err);
    mg_packed_close(&file);
    return status;
}
