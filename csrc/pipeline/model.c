/* model.c: opens a checkpoint as a pipeline: configurations, weights, scheduler, the embedding of the empty prompt.
 * Calls source.c, nn, stages.c, the scheduler. */
#include <stdlib.h>
#include <string.h>

#include "pipeline.h"
#include "../schedule/scheduler.h"

void mg_pipeline_params_init(struct mg_pipeline_params *params) {
    *params = (struct mg_pipeline_params){.dtype = "auto", .device = "cpu"};
}

/* ---- configurations ---- */
static mg_status find_task(struct mg_pipeline *p, const char *asked, const struct mg_json *index, const char *path,
                           struct mg_err *err) {
    const char *class_name;
    MG_TRY(mg_json_get_string(&class_name, index, "_class_name", "", path, err));
    p->task = asked ? mg_task_of_name(asked) : mg_task_of_class(class_name);
    if (p->task)
        return MG_OK;
    if (asked)
        return mg_fail(err, MG_ERR_ARGUMENT, "the task \"%s\" is unknown; known: %s", asked, mg_task_names());
    return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: _class_name \"%s\" is not supported; supported: %s", path, class_name,
                   mg_task_class_names());
}

static mg_status read_model_index(struct mg_pipeline *p, const char *task, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    const char *path;
    const struct mg_json *index;
    int64_t steps, resolution;
    mg_status status;
    MG_TRY_GOTO(mg_source_config(&index, &path, &p->source, "model_index.json", &arena, err));
    MG_TRY_GOTO(find_task(p, task, index, path, err));
    MG_TRY_GOTO(mg_json_get_int(&steps, index, "default_denoising_steps", 0, 0, 1000, path, err));
    MG_TRY_GOTO(mg_json_get_int(&resolution, index, "default_processing_resolution", -1, -1, 1 << 20, path, err));
    p->default_steps = (int)steps;
    p->default_resolution = resolution;
    MG_TRY_GOTO(mg_json_get_bool(&p->head.full_z, index, "use_full_z_range", true, path, err));
done:
    mg_arena_free(&arena);
    return status;
}

/* ---- the networks ---- */

static mg_status open_unet(struct mg_pipeline *p, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    const char *path;
    const struct mg_json *config;
    mg_status status;
    MG_TRY_GOTO(mg_source_config(&config, &path, &p->source, "unet/config.json", &arena, err));
    MG_TRY_GOTO(mg_unet_config_read(&p->unet, config, path, err));
    MG_TRY_GOTO(mg_source_weights(&p->unet_weights, &p->source, "unet", "unet", err));
done:
    mg_arena_free(&arena);
    return status;
}

mg_status mg_vae_config_text(const char **text, size_t *length, const char **label, const struct mg_pipeline *p,
                             struct mg_arena *arena, struct mg_err *err) {
    const bool replaced = p->other_vae.path != NULL;
    const char *name = replaced && !p->other_vae.is_packed ? "config.json" : "vae/config.json";
    return mg_source_text(text, length, label, replaced ? &p->other_vae : &p->source, name, arena, err);
}

/* The checkpoint's own autoencoder, or the one that replaces it. */
static mg_status open_vae(struct mg_pipeline *p, const char *other, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    const char *text, *path;
    size_t length;
    const struct mg_json *config;
    mg_status status;
    if (other)
        MG_TRY_GOTO(mg_source_open(&p->other_vae, other, NULL, err));
    MG_TRY_GOTO(mg_vae_config_text(&text, &length, &path, p, &arena, err));
    MG_TRY_GOTO(mg_json_parse(&config, &arena, text, length, path, err));
    MG_TRY_GOTO(mg_autoencoder_read(&p->vae, config, path, err));
    MG_TRY_GOTO(mg_source_weights(&p->vae_weights, other ? &p->other_vae : &p->source, "vae", other ? "" : "vae", err));
    if (!p->vae.is_tiny)
        p->vae_weights.alias = mg_vae_weight_alias;
done:
    mg_arena_free(&arena);
    return status;
}

bool mg_unet_may_widen(const char *key) {
    return !strcmp(key, "conv_in.weight") || !strcmp(key, "conv_out.weight") || !strcmp(key, "conv_out.bias");
}

/* A text-to-image UNet, as wide as the task needs it. */
static void widen(struct mg_pipeline *p, int targets) {
    const int latent = p->vae.latent_channels;
    targets = targets < 0 ? p->task->num_targets : targets;
    if (!targets || p->unet.in_channels != latent || p->unet.out_channels != latent)
        return;
    p->unet.in_channels = latent * (1 + targets);
    p->unet.out_channels = latent * targets;
    p->unet_weights.may_repeat = mg_unet_may_widen;
}

/* The marigold UNet sees the image latent and one latent for each target. */
static mg_status check_channels(struct mg_pipeline *p, struct mg_err *err) {
    int latent = p->vae.latent_channels, targets = p->unet.out_channels / latent;
    p->num_targets = p->task->num_targets ? p->task->num_targets : targets;
    if (!p->num_targets || p->unet.out_channels != p->num_targets * latent ||
        p->unet.in_channels != latent + p->unet.out_channels)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "unet/config.json: in_channels %d and out_channels %d do not fit %s with latents of %d channels "
                       "(wanted: %d and %d)",
                       p->unet.in_channels, p->unet.out_channels, p->task->class_names[0], latent,
                       latent * (1 + p->num_targets), latent * p->num_targets);
    return MG_OK;
}

static mg_status run_text_encoder(struct mg_pipeline *p, struct mg_weights *weights,
                                  const struct mg_clip_config *config, const int64_t ids[MG_TEXT_TOKENS],
                                  struct mg_err *err) {
    struct mg_graph graph;
    struct mg_plan *plan = NULL;
    float values[2] = {(float)ids[0], (float)ids[1]};
    mg_status status;
    mg_graph_init(&graph, weights, err);
    mg_graph_output(&graph, "text", mg_clip_build(&graph, config, mg_graph_input(&graph, "ids", 1, 1, 2, 1)));
    status = mg_graph_failed(&graph) ? mg_graph_status(&graph) : mg_weights_check(weights, err);
    if (status != MG_OK) {
        mg_graph_free(&graph);
        return status;
    }
    p->text_tokens = MG_TEXT_TOKENS;
    p->text_channels = config->hidden;
    MG_TRY_GOTO(mg_plan_create(&plan, &graph, &p->context, err));
    MG_TRY_GOTO(mg_alloc((void **)&p->text, 2 * (size_t)config->hidden * sizeof(float), "the text embedding", err));
    MG_TRY_GOTO(
        mg_plan_run(plan, &(struct mg_binding){"ids", values}, 1, &(struct mg_binding){"text", p->text}, 1, err));
done:
    mg_plan_destroy(plan);
    return status;
}

/* Only the empty prompt is ever asked for: its embedding is computed here and the text encoder closed again. */
static mg_status embed_empty_prompt(struct mg_pipeline *p, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    char *tokenizer = NULL;
    const char *path;
    struct mg_weights weights = {0};
    struct mg_clip_config clip;
    const struct mg_json *config;
    int64_t ids[MG_TEXT_TOKENS];
    size_t mapped = p->context.weights_mapped, packed = p->context.weights_packed;
    mg_status status;
    MG_TRY_GOTO(mg_source_config(&config, &path, &p->source, "text_encoder/config.json", &arena, err));
    MG_TRY_GOTO(mg_clip_config_read(&clip, config, path, err));
    if (clip.hidden != p->unet.cross_attention_dim) {
        status = mg_fail(err, MG_ERR_UNSUPPORTED, "%s: hidden_size %lld differs from the UNet's cross_attention_dim %d",
                         path, (long long)clip.hidden, p->unet.cross_attention_dim);
        goto done;
    }
    MG_TRY_GOTO(mg_path_join(&tokenizer, p->source.path, "tokenizer", err));
    MG_TRY_GOTO(mg_clip_empty_prompt(ids, tokenizer, &clip, err));
    MG_TRY_GOTO(mg_source_weights(&weights, &p->source, "text_encoder", "text_encoder", err));
    weights.alias = mg_clip_weight_alias;
    weights.may_ignore = mg_clip_may_ignore;
    MG_TRY_GOTO(run_text_encoder(p, &weights, &clip, ids, err));
    p->text_encoder_parameters = weights.parameters;
done:
    mg_weights_close(&weights);
    p->context.weights_mapped = mapped;
    p->context.weights_packed = packed;
    mg_free(tokenizer);
    mg_arena_free(&arena);
    return status;
}

/* A packed file has the embedding in the place of the text encoder. */
static mg_status read_empty_prompt(struct mg_pipeline *p, struct mg_err *err) {
    struct mg_weights weights;
    int index;
    mg_status status;
    MG_TRY(mg_source_weights(&weights, &p->source, "text_encoder", "text_encoder", err));
    MG_TRY_GOTO(mg_weights_declare(&index, &weights, MG_EMPTY_PROMPT_KEY, 2,
                                   (int64_t[]){MG_TEXT_TOKENS, p->unet.cross_attention_dim}, err));
    MG_TRY_GOTO(mg_weights_check(&weights, err));
    MG_TRY_GOTO(mg_weights_choose(&weights, index, (struct mg_weight_layout){0}, err));
    MG_TRY_GOTO(mg_alloc((void **)&p->text, mg_weights_packed_bytes(&weights, index), "the text embedding", err));
    MG_TRY_GOTO(mg_weights_pack(p->text, &weights, index, 1, err));
    p->text_tokens = MG_TEXT_TOKENS;
    p->text_channels = p->unet.cross_attention_dim;
done:
    mg_weights_close(&weights);
    return status;
}

static mg_status open_scheduler(struct mg_pipeline *p, bool any_class, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    const char *text, *label;
    size_t length;
    mg_status status;
    MG_TRY_GOTO(mg_source_text(&text, &length, &label, &p->source, "scheduler/scheduler_config.json", &arena, err));
    MG_TRY_GOTO((any_class ? mg_scheduler_create_levels : mg_scheduler_create)(&p->scheduler, text, length, err));
done:
    mg_arena_free(&arena);
    return status;
}

/* ---- context and handle ---- */
/* That asked for; "auto" is a packed file's own, chosen when it was made, and float32 for a folder. */
static mg_status choose_precision(struct mg_pipeline *p, const char *asked, struct mg_err *err) {
    const bool is_auto = !asked || !strcmp(asked, "auto");
    const struct mg_json *stored = p->source.is_packed ? mg_packed_text(&p->source.packed, "dtype") : NULL;
    char text[80] = "missing";
    if (!is_auto && !mg_precision_of_name(asked))
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "dtype \"%s\" is not supported; supported: float32, float16 (on a GPU), bfloat16, int8, auto",
                       asked);
    if (!p->source.is_packed) {
        p->precision = mg_precision_of_name(is_auto ? "float32" : asked);
        return MG_OK;
    }
    p->precision = stored ? mg_precision_of_name(stored->string) : NULL;
    if (!p->precision)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: its dtype is %s; known: float32, float16, bfloat16, int8",
                       p->source.path, stored ? mg_json_text(text, sizeof text, stored) : text);
    if (!is_auto && strcmp(asked, p->precision->name))
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "dtype \"%s\": %s was packed as %s; pack another from the original checkpoint, or give \"auto\"",
                       asked, p->source.path, p->precision->name);
    return MG_OK;
}

static mg_status open_source(struct mg_pipeline *p, const struct mg_pipeline_params *params, struct mg_err *err) {
    if (!params->folder)
        return mg_fail(err, MG_ERR_ARGUMENT, "no checkpoint folder is given");
    MG_TRY(mg_source_open(&p->source, params->folder, params->variant, err));
    return choose_precision(p, params->dtype, err);
}

static mg_status open_context(struct mg_pipeline *p, const struct mg_pipeline_params *params, struct mg_err *err) {
    MG_TRY(mg_check_threads(params->num_threads, err));
    p->context.num_threads = mg_threads_or_all(params->num_threads);
    p->context.poll = params->poll;
    p->context.poll_user = params->poll_user;
    MG_TRY(mg_backend_open(&p->context, params->device ? params->device : "cpu", params->isa, err));
    const struct mg_backend *backend = p->context.backend;
    if (backend->check_type)
        return backend->check_type(&p->context, p->precision->activations, err);
    if (p->precision->activations == MG_F16)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "dtype \"float16\" is not supported on device \"%s\"; there: float32, bfloat16, int8",
                       backend->name);
    return MG_OK;
}

mg_status mg_pipeline_open(mg_pipeline **out, const struct mg_pipeline_params *params, struct mg_err *err) {
    struct mg_pipeline *p;
    mg_status status;
    *out = NULL;
    MG_TRY(mg_alloc_zeroed((void **)&p, sizeof *p, "a pipeline", err));
    atomic_flag_clear(&p->busy);
    MG_TRY_GOTO(open_source(p, params, err));
    MG_TRY_GOTO(open_context(p, params, err));
    MG_TRY_GOTO(read_model_index(p, params->task, err));
    MG_TRY_GOTO(mg_source_check_variant(&p->source, err));
    MG_TRY_GOTO(open_unet(p, err));
    MG_TRY_GOTO(open_vae(p, params->vae, err));
    widen(p, params->widen_to_targets);
    MG_TRY_GOTO(check_channels(p, err));
    MG_TRY_GOTO(mg_stages_check_weights(p, err));
    MG_TRY_GOTO(open_scheduler(p, params->any_scheduler, err));
    MG_TRY_GOTO(p->source.is_packed ? read_empty_prompt(p, err) : embed_empty_prompt(p, err));
    *out = p;
done:
    if (status != MG_OK)
        mg_pipeline_close(p);
    return status;
}

void mg_pipeline_close(mg_pipeline *pipeline) {
    if (!pipeline)
        return;
    mg_stages_free(pipeline);
    mg_weights_close(&pipeline->unet_weights);
    mg_weights_close(&pipeline->vae_weights);
    mg_source_close(&pipeline->source);
    mg_source_close(&pipeline->other_vae);
    mg_scheduler_destroy(pipeline->scheduler);
    mg_free(pipeline->text);
    mg_context_release(&pipeline->context);
    if (pipeline->context.backend)
        pipeline->context.backend->close(&pipeline->context);
    mg_free(pipeline);
}

void mg_pipeline_get_info(const mg_pipeline *p, struct mg_pipeline_info *out) {
    *out = (struct mg_pipeline_info){
        .task = p->task->name,
        .class_name = p->task->class_names[0],
        .default_denoising_steps = p->default_steps,
        .default_processing_resolution = p->default_resolution,
        .num_targets = p->num_targets,
        .prediction_channels = p->task->prediction_channels,
        .latent_channels = p->vae.latent_channels,
        .vae_scale = p->vae.scale,
        .scaling_factor = p->vae.scaling_factor,
        .unet_in_channels = p->unet.in_channels,
        .unet_out_channels = p->unet.out_channels,
        .text_tokens = p->text_tokens,
        .text_channels = p->text_channels,
        .dtype = p->precision->name,
        .isa = p->context.isa,
        .num_threads = p->context.num_threads,
        .unet_parameters = p->unet_weights.parameters,
        .vae_parameters = p->vae_weights.parameters,
        .text_encoder_parameters = p->text_encoder_parameters,
    };
}

const float *mg_pipeline_empty_text_embedding(const mg_pipeline *pipeline) { return pipeline->text; }

void mg_pipeline_memory(const mg_pipeline *p, struct mg_memory_stats *out) {
    *out = (struct mg_memory_stats){.weights_mapped = p->context.weights_mapped,
                                    .weights_packed = p->context.weights_packed,
                                    .activations = p->context.activation_bytes,
                                    .workspace = p->context.workspace_bytes,
                                    .training = p->context.training,
                                    .peak = p->context.peak};
}

mg_status mg_pipeline_enter(struct mg_pipeline *pipeline, struct mg_err *err) {
    if (atomic_flag_test_and_set(&pipeline->busy))
        return mg_fail(err, MG_ERR_BUSY, "this pipeline is already running in another thread; open a second one");
    return MG_OK;
}

void mg_pipeline_leave(struct mg_pipeline *pipeline) { atomic_flag_clear(&pipeline->busy); }
