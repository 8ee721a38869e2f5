/* model.c: opens a diffusers folder as a pipeline: configurations, weights, scheduler, the embedding of the empty prompt.
 * Called through marigold.h; calls io, nn, stages.c, the scheduler. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline.h"

void mg_pipeline_params_init(struct mg_pipeline_params *params) {
    *params = (struct mg_pipeline_params){.dtype = "float32", .device = "cpu"};
}

/* ---- JSON files of the folder ---- */
static mg_status read_config(const struct mg_json **out, char **path, struct mg_arena *arena, const char *folder,
                             const char *component, const char *file, struct mg_err *err) {
    char *part = NULL;
    mg_status status;
    *path = NULL;
    MG_TRY_GOTO(mg_path_join(&part, folder, component, err));
    MG_TRY_GOTO(mg_path_join(path, part, file, err));
    MG_TRY_GOTO(mg_json_read_file(out, arena, *path, err));
done:
    mg_free(part);
    return status;
}

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

static mg_status read_model_index(struct mg_pipeline *p, const struct mg_pipeline_params *params, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    char *path = NULL;
    const struct mg_json *index;
    int64_t steps, resolution;
    mg_status status;
    MG_TRY_GOTO(mg_path_join(&path, params->folder, "model_index.json", err));
    MG_TRY_GOTO(mg_json_read_file(&index, &arena, path, err));
    MG_TRY_GOTO(find_task(p, params->task, index, path, err));
    MG_TRY_GOTO(mg_json_get_int(&steps, index, "default_denoising_steps", 0, 0, 1000, path, err));
    MG_TRY_GOTO(mg_json_get_int(&resolution, index, "default_processing_resolution", -1, -1, 1 << 20, path, err));
    p->default_steps = (int)steps;
    p->default_resolution = resolution;
    MG_TRY_GOTO(mg_json_get_bool(&p->full_z, index, "use_full_z_range", true, path, err));
done:
    mg_free(path);
    mg_arena_free(&arena);
    return status;
}

/* ---- the networks ---- */

/* Opens a component's weights: those of the variant asked for, or the default ones where the component has no such
 * variant; where none is asked for, the default ones or else "fp16". So folders open in which one component was
 * replaced. */
static mg_status open_weights(struct mg_weights *weights, const char *component, const char *folder,
                              const char *variant, struct mg_err *err) {
    const char *second = variant ? NULL : "fp16";
    bool has_first, has_second;
    MG_TRY(mg_checkpoint_has(&has_first, folder, variant, err));
    MG_TRY(mg_checkpoint_has(&has_second, folder, second, err));
    return mg_weights_open(weights, component, folder, !has_first && has_second ? second : variant, err);
}

/* A variant that no component has is a mistake, not a reason to open others. */
static mg_status check_variant(const struct mg_pipeline_params *params, struct mg_err *err) {
    static const char *const components[] = {"unet", "vae", "text_encoder"};
    bool any = !params->variant;
    if (!any && (!params->variant[0] || strpbrk(params->variant, "/.")))
        return mg_fail(err, MG_ERR_ARGUMENT, "variant \"%.200s\" is no plain name such as \"fp16\"", params->variant);
    for (size_t i = 0; !any && i < sizeof components / sizeof components[0]; i++) {
        char *folder;
        MG_TRY(mg_path_join(&folder, params->folder, components[i], err));
        mg_status status = mg_checkpoint_has(&any, folder, params->variant, err);
        mg_free(folder);
        MG_TRY(status);
    }
    if (!any)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: no component has weights of variant \"%s\"", params->folder,
                       params->variant);
    return MG_OK;
}

static mg_status open_unet(struct mg_pipeline *p, const struct mg_pipeline_params *params, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    char *path = NULL, *folder = NULL;
    const struct mg_json *config;
    mg_status status;
    MG_TRY_GOTO(read_config(&config, &path, &arena, params->folder, "unet", "config.json", err));
    MG_TRY_GOTO(mg_unet_config_read(&p->unet, config, path, err));
    MG_TRY_GOTO(mg_path_join(&folder, params->folder, "unet", err));
    MG_TRY_GOTO(open_weights(&p->unet_weights, "unet", folder, params->variant, err));
done:
    mg_free(path);
    mg_free(folder);
    mg_arena_free(&arena);
    return status;
}

/* The checkpoint's own autoencoder, or the one that replaces it. */
static mg_status open_vae(struct mg_pipeline *p, const struct mg_pipeline_params *params, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    char *path = NULL, *folder = NULL;
    const struct mg_json *config;
    mg_status status;
    MG_TRY_GOTO(mg_path_join(&folder, params->vae ? params->vae : params->folder, params->vae ? "" : "vae", err));
    MG_TRY_GOTO(mg_path_join(&path, folder, "config.json", err));
    MG_TRY_GOTO(mg_json_read_file(&config, &arena, path, err));
    MG_TRY_GOTO(mg_autoencoder_read(&p->vae, config, path, err));
    MG_TRY_GOTO(open_weights(&p->vae_weights, "vae", folder, params->vae ? NULL : params->variant, err));
    if (!p->vae.is_tiny)
        p->vae_weights.alias = mg_vae_weight_alias;
done:
    mg_free(path);
    mg_free(folder);
    mg_arena_free(&arena);
    return status;
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
                                  const struct mg_clip_config *config, const int64_t ids[2], struct mg_err *err) {
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
    p->text_tokens = 2;
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
static mg_status embed_empty_prompt(struct mg_pipeline *p, const struct mg_pipeline_params *params,
                                    struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    char *path = NULL, *folder = NULL, *tokenizer = NULL;
    struct mg_weights weights = {0};
    struct mg_clip_config clip;
    const struct mg_json *config;
    int64_t ids[2];
    size_t mapped = p->context.weights_mapped, packed = p->context.weights_packed;
    mg_status status;
    MG_TRY_GOTO(read_config(&config, &path, &arena, params->folder, "text_encoder", "config.json", err));
    MG_TRY_GOTO(mg_clip_config_read(&clip, config, path, err));
    if (clip.hidden != p->unet.cross_attention_dim) {
        status = mg_fail(err, MG_ERR_UNSUPPORTED, "%s: hidden_size %lld differs from the UNet's cross_attention_dim %d",
                         path, (long long)clip.hidden, p->unet.cross_attention_dim);
        goto done;
    }
    MG_TRY_GOTO(mg_path_join(&tokenizer, params->folder, "tokenizer", err));
    MG_TRY_GOTO(mg_clip_empty_prompt(ids, tokenizer, &clip, err));
    MG_TRY_GOTO(mg_path_join(&folder, params->folder, "text_encoder", err));
    MG_TRY_GOTO(open_weights(&weights, "text_encoder", folder, params->variant, err));
    weights.alias = mg_clip_weight_alias;
    weights.may_ignore = mg_clip_may_ignore;
    MG_TRY_GOTO(run_text_encoder(p, &weights, &clip, ids, err));
    p->text_encoder_parameters = weights.parameters;
done:
    mg_weights_close(&weights);
    p->context.weights_mapped = mapped;
    p->context.weights_packed = packed;
    mg_free(path);
    mg_free(folder);
    mg_free(tokenizer);
    mg_arena_free(&arena);
    return status;
}

static mg_status open_scheduler(struct mg_pipeline *p, const char *folder, struct mg_err *err) {
    char *part = NULL, *path = NULL;
    struct mg_file file = {0};
    mg_status status;
    MG_TRY_GOTO(mg_path_join(&part, folder, "scheduler", err));
    MG_TRY_GOTO(mg_path_join(&path, part, "scheduler_config.json", err));
    MG_TRY_GOTO(mg_file_open(&file, path, err));
    MG_TRY_GOTO(mg_scheduler_create(&p->scheduler, (const char *)file.data, file.bytes, err));
done:
    mg_file_close(&file);
    mg_free(part);
    mg_free(path);
    return status;
}

/* ---- context and handle ---- */
static mg_status open_context(struct mg_pipeline *p, const struct mg_pipeline_params *params, struct mg_err *err) {
    if (!params->folder)
        return mg_fail(err, MG_ERR_ARGUMENT, "no checkpoint folder is given");
    if (params->dtype && strcmp(params->dtype, "float32") && strcmp(params->dtype, "auto"))
        return mg_fail(err, MG_ERR_UNSUPPORTED, "dtype \"%s\" is not supported; supported: float32, auto",
                       params->dtype);
    if (params->num_threads < 0 || params->num_threads > 4096)
        return mg_fail(err, MG_ERR_ARGUMENT, "num_threads is %d; allowed: 1 to 4096, 0 for all", params->num_threads);
    p->context.num_threads = params->num_threads ? params->num_threads : mg_available_threads();
    p->context.poll = params->poll;
    p->context.poll_user = params->poll_user;
    MG_TRY(mg_backend_find(&p->context.backend, params->device ? params->device : "cpu", err));
    return p->context.backend->open(&p->context, params->isa, err);
}

mg_status mg_pipeline_open(mg_pipeline **out, const struct mg_pipeline_params *params, struct mg_err *err) {
    struct mg_pipeline *p;
    mg_status status;
    *out = NULL;
    MG_TRY(mg_alloc_zeroed((void **)&p, sizeof *p, "a pipeline", err));
    atomic_flag_clear(&p->busy);
    MG_TRY_GOTO(open_context(p, params, err));
    MG_TRY_GOTO(read_model_index(p, params, err));
    MG_TRY_GOTO(check_variant(params, err));
    MG_TRY_GOTO(open_unet(p, params, err));
    MG_TRY_GOTO(open_vae(p, params, err));
    MG_TRY_GOTO(check_channels(p, err));
    MG_TRY_GOTO(mg_stages_check_weights(p, err));
    MG_TRY_GOTO(open_scheduler(p, params->folder, err));
    MG_TRY_GOTO(embed_empty_prompt(p, params, err));
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
    mg_scheduler_destroy(pipeline->scheduler);
    mg_free(pipeline->text);
    if (pipeline->context.backend)
        pipeline->context.backend->close(&pipeline->context);
    mg_context_release(&pipeline->context);
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
                                    .peak = p->context.peak};
}

mg_status mg_pipeline_enter(struct mg_pipeline *pipeline, struct mg_err *err) {
    if (atomic_flag_test_and_set(&pipeline->busy))
        return mg_fail(err, MG_ERR_BUSY, "this pipeline is already running in another thread; open a second one");
    return MG_OK;
}

void mg_pipeline_leave(struct mg_pipeline *pipeline) { atomic_flag_clear(&pipeline->busy); }
