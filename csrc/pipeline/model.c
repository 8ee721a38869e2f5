/* model.c: opens a checkpoint as a pipeline: configurations, task and family, weights, scheduler, the embedding of the empty prompt.
 * Calls source.c, families.c, boosting.c, nn, stages.c, text.c, the scheduler. */
#include <stdlib.h>
#include <string.h>

#include "pipeline.h"
#include "../schedule/scheduler.h"

void mg_pipeline_params_init(struct mg_pipeline_params *params) {
    *params = (struct mg_pipeline_params){.dtype = "auto", .device = "cpu"};
}

/* ---- configurations ---- */
/* What was asked for, or else what the checkpoint itself says: as a text of a packed file, or in its model_index.json. */
static mg_status asked_or_stated(const char **out, const char *asked, const char *key, const struct mg_pipeline *p,
                                 const struct mg_json *index, const char *path, struct mg_err *err) {
    const struct mg_json *text = p->source.is_packed ? mg_packed_text(&p->source.packed, key) : NULL;
    *out = asked ? asked : text ? text->string : NULL;
    return *out ? MG_OK : mg_json_get_string(out, index, key, NULL, path, err);
}

static mg_status find_task(struct mg_pipeline *p, const char *asked, const struct mg_json *index, const char *path,
                           struct mg_err *err) {
    const char *name;
    p->task = mg_task_of_class(p->class_name);
    if (p->task && !asked)
        return MG_OK;
    MG_TRY(asked_or_stated(&name, asked, MG_TASK_KEY, p, index, path, err));
    p->task = name ? mg_task_of_name(name) : NULL;
    if (p->task)
        return MG_OK;
    if (name)
        return mg_fail(err, MG_ERR_ARGUMENT, "the task \"%s\" is unknown; known: %s", name, mg_task_names());
    if (p->family || mg_family_has_class(p->class_name))
        return mg_fail(err, MG_ERR_ARGUMENT,
                       "%s: _class_name \"%s\" does not say what is predicted: a task must be given: %s", path,
                       p->class_name, mg_task_names());
    return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: _class_name \"%s\" is not supported; supported: %s", path,
                   p->class_name, mg_task_class_names());
}

static mg_status find_stated_family(struct mg_pipeline *p, const char *asked, const struct mg_json *index,
                                    const char *path, struct mg_err *err) {
    const char *name;
    MG_TRY(asked_or_stated(&name, asked, MG_FAMILY_KEY, p, index, path, err));
    p->family = name ? mg_family_of_name(name) : NULL;
    if (name && !p->family)
        return mg_fail(err, MG_ERR_ARGUMENT, "the family \"%s\" is unknown; known: %s", name, mg_family_names());
    return MG_OK;
}

/* A folder with a pipeline.py of its own names the module before the class. */
static mg_status read_class_name(const char **out, const struct mg_json *index, const char *path, struct mg_err *err) {
    const struct mg_json *value = mg_json_get(index, "_class_name");
    if (!value || value->type != MG_JSON_ARRAY || value->length != 2 || value->children[1].type != MG_JSON_STRING)
        return mg_json_get_string(out, index, "_class_name", "", path, err);
    *out = value->children[1].string;
    return MG_OK;
}

static mg_status read_model_index(struct mg_pipeline *p, const struct mg_pipeline_params *params, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    const char *path, *class_name, *inputs;
    const struct mg_json *index;
    int64_t steps, resolution;
    mg_status status;
    MG_TRY_GOTO(mg_source_config(&index, &path, &p->source, "model_index.json", &arena, err));
    MG_TRY_GOTO(read_class_name(&class_name, index, path, err));
    MG_TRY_GOTO(mg_alloc((void **)&p->class_name, strlen(class_name) + 1, "a name", err));
    strcpy(p->class_name, class_name);
    MG_TRY_GOTO(find_stated_family(p, params->family, index, path, err));
    MG_TRY_GOTO(find_task(p, params->task, index, path, err));
    MG_TRY_GOTO(mg_json_get_int(&steps, index, "default_denoising_steps", 0, 0, 1000, path, err));
    MG_TRY_GOTO(mg_json_get_int(&resolution, index, "default_processing_resolution", -1, -1, 1 << 20, path, err));
    p->default_steps = (int)steps;
    p->default_resolution = resolution;
    MG_TRY_GOTO(mg_json_get_bool(&p->full_z, index, "use_full_z_range", true, path, err));
    MG_TRY_GOTO(asked_or_stated(&inputs, params->boosting_inputs, MG_BOOSTING_INPUTS_KEY, p, index, path, err));
    MG_TRY_GOTO(mg_boosting_set_inputs(&p->boosting, inputs, err));
done:
    mg_arena_free(&arena);
    return status;
}

/* ---- the networks ---- */

mg_status mg_network_config_text(const char **text, size_t *length, const char **label, const struct mg_pipeline *p,
                                 const struct mg_source *other, const char *name, struct mg_arena *arena,
                                 struct mg_err *err) {
    const bool replaced = other->path != NULL;
    return mg_source_text(text, length, label, replaced ? other : &p->source,
                          replaced && !other->is_packed ? "config.json" : name, arena, err);
}

/* The checkpoint's own UNet, or the one that replaces it. */
static mg_status open_unet(struct mg_pipeline *p, const char *other, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    const char *text, *path;
    size_t length;
    const struct mg_json *config;
    mg_status status;
    if (other)
        MG_TRY_GOTO(mg_source_open(&p->other_unet, other, p->source.variant, err));
    MG_TRY_GOTO(mg_network_config_text(&text, &length, &path, p, &p->other_unet, "unet/config.json", &arena, err));
    MG_TRY_GOTO(mg_json_parse(&config, &arena, text, length, path, err));
    MG_TRY_GOTO(mg_unet_config_read(&p->unet, config, path, err));
    MG_TRY_GOTO(
        mg_source_weights(&p->unet_weights, other ? &p->other_unet : &p->source, "unet", other ? "" : "unet", err));
done:
    mg_arena_free(&arena);
    return status;
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
    MG_TRY_GOTO(mg_network_config_text(&text, &length, &path, p, &p->other_vae, "vae/config.json", &arena, err));
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

/* The family that was named, or else the one whose class and UNet these are. A class of no family, with a task that was asked for,
 * is taken as Marigold's. */
static mg_status choose_family(struct mg_pipeline *p, struct mg_err *err) {
    const int latent = p->vae.latent_channels, inputs = p->unet.in_channels / latent;
    const bool known = !mg_task_of_class(p->class_name) && mg_family_has_class(p->class_name);
    if (!p->family && known)
        p->family = mg_family_of_class(p->class_name, inputs, p->other_unet.path != NULL);
    if (!p->family && known)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "%s: _class_name \"%s\" with a UNet of in_channels %d and latents of %d channels is no family "
                       "of Marigold's relatives; families to name: %s",
                       p->source.path, p->class_name, p->unet.in_channels, latent, mg_family_names());
    if (!p->family)
        p->family = mg_family_of_name("marigold");
    p->head = p->family->head;
    p->head.full_z = p->full_z;
    if (!p->default_steps)
        p->default_steps = p->family->default_steps;
    if (p->default_resolution < 0)
        p->default_resolution = p->family->default_resolution;
    return MG_OK;
}

/* The UNet sees the latents that its family says, one for each target where that is the sample. */
static mg_status check_channels(struct mg_pipeline *p, struct mg_err *err) {
    int latent = p->vae.latent_channels, targets = p->unet.out_channels / latent;
    p->num_targets = p->task->num_targets ? p->task->num_targets : targets;
    const int inputs = latent * mg_family_input_latents(p->family, p->num_targets);
    if (!p->num_targets || p->unet.out_channels != p->num_targets * latent || p->unet.in_channels != inputs)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "unet/config.json: in_channels %d and out_channels %d do not fit %s with latents of %d channels "
                       "(wanted: %d and %d)",
                       p->unet.in_channels, p->unet.out_channels, p->task->class_names[0], latent, inputs,
                       latent * p->num_targets);
    if (p->unet.class_channels != p->family->class_channels)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "unet/config.json: a class embedding of %d inputs, of which family %s has %d",
                       p->unet.class_channels, p->family->name, p->family->class_channels);
    memcpy(p->unet.class_labels, p->family->class_labels, sizeof p->unet.class_labels);
    if (p->family->headless && !p->source.is_packed &&
        !mg_checkpoint_find(&p->unet_weights.checkpoint, "conv_out.weight"))
        return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: the UNet has no conv_out: %s is not supported",
                       p->other_unet.path ? p->other_unet.path : p->source.path, p->family->headless);
    return MG_OK;
}

static mg_status open_scheduler(struct mg_pipeline *p, bool any_class, struct mg_err *err) {
    struct mg_arena arena;
    mg_arena_init(&arena);
    const char *text, *label;
    size_t length;
    mg_status status;
    MG_TRY_GOTO(mg_source_text(&text, &length, &label, &p->source, "scheduler/scheduler_config.json", &arena, err));
    MG_TRY_GOTO((any_class || p->family->samples_by_ddim ? mg_scheduler_create_levels
                                                         : mg_scheduler_create)(&p->scheduler, text, length, err));
    if (p->family->samples_by_ddim)
        p->scheduler->spacing = MG_SPACING_TRAILING;
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
    p->vae_tiling = MG_VAE_TILING_AUTO;
    MG_TRY_GOTO(open_source(p, params, err));
    MG_TRY_GOTO(open_context(p, params, err));
    MG_TRY_GOTO(read_model_index(p, params, err));
    MG_TRY_GOTO(mg_source_check_variant(&p->source, err));
    MG_TRY_GOTO(open_unet(p, params->unet, err));
    MG_TRY_GOTO(open_vae(p, params->vae, err));
    if (params->boosting)
        MG_TRY_GOTO(mg_boosting_open(p, err));
    widen(p, params->widen_to_targets);
    MG_TRY_GOTO(choose_family(p, err));
    MG_TRY_GOTO(check_channels(p, err));
    if (params->boosting)
        MG_TRY_GOTO(mg_boosting_check(p, err));
    MG_TRY_GOTO(mg_stages_check_weights(p, err));
    MG_TRY_GOTO(open_scheduler(p, params->any_scheduler, err));
    MG_TRY_GOTO(mg_text_open(p, params->text_tokens, err));
    p->vae_tile = MG_VAE_TILE / p->vae.scale;
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
    mg_weights_close(&pipeline->boosting.weights);
    mg_weights_close(&pipeline->vae_weights);
    mg_source_close(&pipeline->source);
    mg_source_close(&pipeline->other_vae);
    mg_source_close(&pipeline->other_unet);
    mg_free(pipeline->class_name);
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
        .family = p->family->name,
        .restriction = p->family->restriction,
        .samples_by_ddim = p->family->samples_by_ddim,
        .default_denoising_steps = p->default_steps,
        .default_processing_resolution = p->default_resolution,
        .num_targets = p->num_targets,
        .prediction_channels = p->task->prediction_channels,
        .latent_channels = p->vae.latent_channels,
        .vae_scale = p->vae.scale,
        .scaling_factor = p->vae.scaling_factor,
        .vae_tiling = p->vae_tiling,
        .vae_tiled = p->vae_tiled,
        .unet_in_channels = p->unet.in_channels,
        .unet_out_channels = p->unet.out_channels,
        .text_tokens = p->text_tokens,
        .text_channels = p->text_channels,
        .dtype = p->precision->name,
        .isa = p->context.isa,
        .num_threads = p->context.num_threads,
        .unet_parameters = p->unet_weights.parameters,
        .boosting_unet_parameters = p->boosting.weights.parameters,
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
    pipeline->vae_tiled = false;
    return MG_OK;
}

void mg_pipeline_leave(struct mg_pipeline *pipeline) { atomic_flag_clear(&pipeline->busy); }
