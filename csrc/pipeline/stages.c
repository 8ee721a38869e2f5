/* stages.c: the graphs of a pipeline's stages, planned on first use for a size and kept, least recently used out first.
 */
#include <string.h>

#include "pipeline.h"

/* The border between what is outside of the networks (planes, N C H W, float32) and inside (N H W C, in the pipeline's precision):
 * everything enters and leaves by these. */
static mg_value planes_in(struct mg_graph *g, const char *name, int64_t n, int64_t c, int64_t h, int64_t w) {
    return mg_op_nchw_to_nhwc(g, mg_graph_input(g, name, n, c, h, w));
}

static mg_value inside(struct mg_graph *g, mg_value x) { return mg_op_cast(g, x, g->precision.activations); }
static mg_value outside(struct mg_graph *g, mg_value x) { return mg_op_cast(g, x, MG_F32); }

static mg_value planes_out(struct mg_graph *g, const char *name, mg_value value) {
    const mg_value planes = mg_op_nhwc_to_nchw(g, value);
    mg_graph_output(g, name, planes);
    return planes;
}

static mg_value scaled(struct mg_graph *g, mg_value x, float factor) {
    return factor == 1.0f ? x : mg_op_scale(g, x, factor);
}

static void build_encode(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    mg_value x = planes_in(g, "x", key->n, p->vae.image_channels, key->h, key->w);
    mg_value mean = outside(g, mg_autoencoder_encode_build(g, &p->vae, inside(g, x)));
    planes_out(g, "latent", scaled(g, mean, key->factor));
}

static void build_decode(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    mg_value z = scaled(g, planes_in(g, "latent", key->n, p->vae.latent_channels, key->h, key->w), key->factor);
    planes_out(g, "image", outside(g, mg_autoencoder_decode_build(g, &p->vae, inside(g, z))));
}

static void build_decoder_gradient(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    mg_value latent = mg_graph_input(g, "latent", key->n, p->vae.latent_channels, key->h, key->w), gradient;
    mg_value z = mg_op_scale(g, mg_op_nchw_to_nhwc(g, latent), (float)(1.0 / p->vae.scaling_factor));
    mg_value image = planes_out(g, "image", outside(g, mg_autoencoder_decode_build(g, &p->vae, inside(g, z))));
    mg_graph_backward(g, image, mg_graph_seed(g, "gradient", image), &latent, 1, &gradient, key->recompute);
    mg_graph_output(g, "latent_gradient", gradient);
}

static void build_encoder_gradient(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    mg_value x = planes_in(g, "x", key->n, p->vae.image_channels, key->h, key->w);
    mg_value moments = planes_out(g, "moments", outside(g, mg_vae_moments_build(g, &p->vae.kl, inside(g, x))));
    mg_graph_backward(g, moments, mg_graph_seed(g, "gradient", moments), NULL, 0, NULL, key->recompute);
}

static mg_value text_constant(struct mg_graph *g, struct mg_pipeline *p) {
    return mg_graph_constant(g, p->text, 1, 1, p->text_tokens, p->text_channels);
}

/* ---- the UNet, or the boosting UNet where the weights are its ---- */
static bool boosts(const struct mg_pipeline *p, const struct mg_stage_key *key) {
    return key->weights == &p->boosting.weights;
}

static const struct mg_unet_config *unet_of(const struct mg_pipeline *p, const struct mg_stage_key *key) {
    return boosts(p, key) ? &p->boosting.unet : &p->unet;
}

static mg_value unet(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key, mg_value sample,
                     mg_value timesteps, mg_value text) {
    struct mg_unet_config config = *unet_of(p, key);
    config.frames = key->frames;
    const mg_value output = mg_unet_build(g, &config, inside(g, sample), timesteps, text);
    return planes_out(g, "output", outside(g, output));
}

static mg_value latent_in(struct mg_graph *g, const struct mg_pipeline *p, const struct mg_stage_key *key,
                          mg_unet_input input) {
    return planes_in(g, input == MG_INPUT_COARSE ? "coarse_latent" : "image_latent", key->n, p->vae.latent_channels,
                     key->h, key->w);
}

/* One step of the loop: the UNet sees the latents of its family side by side. */
static mg_value denoised(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key, mg_value sample) {
    const mg_unet_input *inputs = boosts(p, key) ? p->boosting.inputs : p->family->inputs;
    mg_value seen = MG_NONE;
    for (int i = 0; i < MG_UNET_INPUTS && inputs[i] != MG_INPUT_NONE; i++) {
        mg_value next = inputs[i] == MG_INPUT_SAMPLE ? mg_op_nchw_to_nhwc(g, sample) : latent_in(g, p, key, inputs[i]);
        seen = i ? mg_op_concat(g, seen, next) : next;
    }
    return unet(g, p, key, seen, mg_graph_input(g, "timestep", 1, 1, 1, 1), text_constant(g, p));
}

static mg_value sample_in(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    return mg_graph_input(g, "sample", key->n, unet_of(p, key)->out_channels, key->h, key->w);
}

static void build_denoise(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    const bool takes_sample = boosts(p, key) || mg_family_takes_sample(p->family);
    denoised(g, p, key, takes_sample ? sample_in(g, p, key) : MG_NONE);
}

static void build_denoise_gradient(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    mg_value sample = sample_in(g, p, key), gradient;
    const mg_value output = denoised(g, p, key, sample);
    mg_graph_backward(g, output, mg_graph_seed(g, "gradient", output), &sample, 1, &gradient, key->recompute);
    mg_graph_output(g, "sample_gradient", gradient);
}

static void build_unet(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    mg_value sample = planes_in(g, "sample", key->n, unet_of(p, key)->in_channels, key->h, key->w);
    mg_value timesteps = mg_graph_input(g, "timesteps", key->n, 1, 1, 1);
    mg_value text = mg_graph_input(g, "text", key->text_n, 1, key->text_tokens, p->unet.cross_attention_dim);
    unet(g, p, key, sample, timesteps, text);
}

static mg_value estimated(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    mg_value sample = planes_in(g, "sample", key->n, unet_of(p, key)->in_channels, key->h, key->w);
    return unet(g, p, key, sample, mg_graph_input(g, "timesteps", key->n, 1, 1, 1), text_constant(g, p));
}

static void build_estimate(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    estimated(g, p, key);
}

static void build_train(struct mg_graph *g, struct mg_pipeline *p, const struct mg_stage_key *key) {
    const mg_value output = estimated(g, p, key);
    mg_graph_backward(g, output, mg_graph_seed(g, "gradient", output), NULL, 0, NULL, key->recompute);
}

static const struct {
    void (*build)(struct mg_graph *, struct mg_pipeline *, const struct mg_stage_key *);
    bool is_unet;
} stages[] = {
    [MG_STAGE_ENCODE] = {build_encode, false},
    [MG_STAGE_DENOISE] = {build_denoise, true},
    [MG_STAGE_DENOISE_GRADIENT] = {build_denoise_gradient, true},
    [MG_STAGE_DECODE] = {build_decode, false},
    [MG_STAGE_UNET] = {build_unet, true},
    [MG_STAGE_TRAIN] = {build_train, true},
    [MG_STAGE_ESTIMATE] = {build_estimate, true},
    [MG_STAGE_DECODER_GRADIENT] = {build_decoder_gradient, false},
    [MG_STAGE_ENCODER_GRADIENT] = {build_encoder_gradient, false},
};

static bool same_key(const struct mg_stage_key *a, const struct mg_stage_key *b) {
    return a->stage == b->stage && a->n == b->n && a->h == b->h && a->w == b->w && a->recompute == b->recompute &&
           a->floor == b->floor && a->factor == b->factor && a->text_n == b->text_n &&
           a->text_tokens == b->text_tokens && a->weights == b->weights && a->frames == b->frames;
}

static void build(struct mg_graph *graph, struct mg_pipeline *pipeline, const struct mg_stage_key *key,
                  struct mg_err *err) {
    struct mg_weights *weights = stages[key->stage].is_unet ? &pipeline->unet_weights : &pipeline->vae_weights;
    mg_graph_init(graph, key->weights ? key->weights : weights, err);
    graph->precision = *pipeline->precision;
    graph->floor = key->floor;
    graph->fuses_attention_gradient = pipeline->context.backend->fuses_attention_gradient;
    stages[key->stage].build(graph, pipeline, key);
}

static void release_unets(const struct mg_pipeline *pipeline) {
    mg_weights_release(&pipeline->unet_weights);
    if (pipeline->boosting.is_open)
        mg_weights_release(&pipeline->boosting.weights);
}

mg_status mg_stage_plan(struct mg_plan **out, struct mg_pipeline *pipeline, const struct mg_stage_key *key,
                        struct mg_err *err) {
    int oldest = 0;
    /* The decoder's activations are the peak of a run: the UNet's mapped weights need not lie beside them. */
    if (!stages[key->stage].is_unet)
        release_unets(pipeline);
    for (int i = 0; i < MG_KEPT_PLANS; i++) {
        if (pipeline->kept[i].plan && same_key(&pipeline->kept[i].key, key)) {
            pipeline->kept[i].used = ++pipeline->clock;
            *out = pipeline->kept[i].plan;
            return MG_OK;
        }
        if (pipeline->kept[i].used < pipeline->kept[oldest].used)
            oldest = i;
    }
    struct mg_graph graph;
    struct mg_plan *plan;
    build(&graph, pipeline, key, err);
    MG_TRY(mg_plan_create(&plan, &graph, &pipeline->context, err));
    mg_plan_destroy(pipeline->kept[oldest].plan);
    pipeline->kept[oldest].key = *key;
    pipeline->kept[oldest].plan = *out = plan;
    pipeline->kept[oldest].used = ++pipeline->clock;
    return MG_OK;
}

bool mg_stage_is_planned(const struct mg_pipeline *pipeline, const struct mg_stage_key *key) {
    for (int i = 0; i < MG_KEPT_PLANS; i++)
        if (pipeline->kept[i].plan && same_key(&pipeline->kept[i].key, key))
            return true;
    return false;
}

mg_status mg_stage_bytes(size_t *out, struct mg_pipeline *pipeline, const struct mg_stage_key *key,
                         struct mg_err *err) {
    struct mg_graph graph;
    build(&graph, pipeline, key, err);
    return mg_graph_bytes(out, &graph, &pipeline->context, err);
}

void mg_stages_free(struct mg_pipeline *pipeline) {
    for (int i = 0; i < MG_KEPT_PLANS; i++)
        mg_plan_destroy(pipeline->kept[i].plan);
}

/* Builds a network, so that its weights are declared and perhaps have layouts; nothing is computed. */
static mg_status visit(struct mg_pipeline *pipeline, const struct mg_stage_key *key, bool choose_layouts,
                       struct mg_err *err) {
    struct mg_graph graph;
    build(&graph, pipeline, key, err);
    mg_status status = mg_graph_status(&graph);
    if (status == MG_OK && choose_layouts)
        status = mg_graph_choose_layouts(&graph, &pipeline->context, err);
    mg_graph_free(&graph);
    return status;
}

/* A size that every number of levels can halve. */
enum { SMALLEST = 1 << (MG_MAX_LEVELS - 1) };

static mg_status visit_networks(struct mg_pipeline *pipeline, bool choose_layouts, struct mg_err *err) {
    const struct {
        mg_stage stage;
        struct mg_weights *weights;
    } declaring[] = {{MG_STAGE_UNET, NULL},
                     {MG_STAGE_ENCODE, NULL},
                     {MG_STAGE_DECODE, NULL},
                     {MG_STAGE_UNET, &pipeline->boosting.weights}};
    for (int i = 0; i < (pipeline->boosting.is_open ? 4 : 3); i++) {
        /* of the latent or of the image: either will do */
        struct mg_stage_key key = {.stage = declaring[i].stage,
                                   .weights = declaring[i].weights,
                                   .n = 1,
                                   .h = SMALLEST,
                                   .w = SMALLEST,
                                   .factor = 1.0f,
                                   .text_n = 1,
                                   .text_tokens = MG_TEXT_TOKENS};
        MG_TRY(visit(pipeline, &key, choose_layouts, err));
    }
    return MG_OK;
}

mg_status mg_stages_choose_layouts(struct mg_pipeline *pipeline, struct mg_err *err) {
    return visit_networks(pipeline, true, err);
}

mg_status mg_stages_check_weights(struct mg_pipeline *pipeline, struct mg_err *err) {
    MG_TRY(visit_networks(pipeline, false, err));
    MG_TRY(mg_weights_check(&pipeline->unet_weights, err));
    if (pipeline->boosting.is_open)
        MG_TRY(mg_weights_check(&pipeline->boosting.weights, err));
    return mg_weights_check(&pipeline->vae_weights, err);
}

mg_status mg_stages_bind_other_unet(struct mg_weights *weights, struct mg_pipeline *pipeline, struct mg_err *err) {
    const struct mg_stage_key key = {
        .stage = MG_STAGE_ESTIMATE, .n = 1, .h = SMALLEST, .w = SMALLEST, .weights = weights};
    MG_TRY(visit(pipeline, &key, false, err));
    MG_TRY(mg_weights_check(weights, err));
    MG_TRY(visit(pipeline, &key, true, err));
    for (size_t i = 0; i < weights->count; i++)
        MG_TRY(mg_weights_bind(weights, (int)i, &pipeline->context, err));
    return MG_OK;
}
