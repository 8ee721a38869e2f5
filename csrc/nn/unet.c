/* unet.c: UNet2DConditionModel: levels of resnets and transformers down, a middle, and up again past the skip
 * connections. Calls the layers. Keys of weights are those of diffusers. */
#include "config.h"
#include "layers.h"
#include "nn.h"

struct unet {
    struct mg_graph *graph;
    const struct mg_unet_config *config;
    mg_value time; /* SiLU of the time embedding: no block uses it otherwise */
    mg_value text;
    mg_value skips[1 + MG_MAX_LEVELS * (MG_MAX_LAYERS + 1)];
    int num_skips;
};

/* Of labels that are known, so that all of it is folded to a constant. */
static mg_value embed_class(struct mg_graph *graph, const struct mg_unet_config *config, int64_t channels) {
    mg_value labels = mg_graph_constant(graph, config->class_labels, 1, 1, 1, config->class_channels);
    size_t outer = mg_graph_push(graph, "class_embedding");
    mg_value c = mg_layer_linear_few_rows(graph, "linear_1", labels, channels, true, MG_NONE, MG_ACT_SILU);
    c = mg_layer_linear_few_rows(graph, "linear_2", c, channels, true, MG_NONE, MG_ACT_NONE);
    mg_graph_pop(graph, outer);
    return c;
}

static mg_value embed_time(struct mg_graph *graph, const struct mg_unet_config *config, mg_value timesteps) {
    const struct mg_time_embedding params = {.channels = config->channels[0],
                                             .flip_sin_to_cos = config->flip_sin_to_cos,
                                             .frequency_shift = config->frequency_shift,
                                             .max_period = 10000.0f};
    int64_t channels = 4 * config->channels[0];
    mg_value t = mg_op_time_embedding(graph, timesteps, &params);
    size_t outer = mg_graph_push(graph, "time_embedding");
    t = mg_layer_linear_few_rows(graph, "linear_1", t, channels, true, MG_NONE, MG_ACT_SILU);
    t = mg_layer_linear_few_rows(graph, "linear_2", t, channels, true, MG_NONE,
                                 config->class_channels ? MG_ACT_NONE : MG_ACT_SILU);
    mg_graph_pop(graph, outer);
    if (!config->class_channels)
        return t;
    return mg_op_activation(graph, mg_op_add(graph, t, embed_class(graph, config, channels)), MG_ACT_SILU);
}

static mg_value resnet(struct unet *unet, mg_value x, int index, int level) {
    const struct mg_unet_config *config = unet->config;
    size_t outer = mg_graph_push(unet->graph, "resnets.%d", index);
    mg_graph_begin_segment(unet->graph);
    x = mg_layer_resnet(unet->graph, x, config->channels[level], config->norm_groups, config->norm_epsilon, unet->time);
    mg_graph_end_segment(unet->graph);
    mg_graph_pop(unet->graph, outer);
    return x;
}

static mg_value transformer(struct unet *unet, mg_value x, int index, int level) {
    const struct mg_unet_config *config = unet->config;
    const struct mg_transformer params = {.heads = config->heads[level],
                                          .layers = config->transformer_layers[level],
                                          .groups = config->norm_groups,
                                          .linear_projection = config->linear_projection,
                                          .frames = config->frames ? config->frames : 1};
    size_t outer = mg_graph_push(unet->graph, "attentions.%d", index);
    mg_graph_begin_segment(unet->graph);
    x = mg_layer_transformer(unet->graph, x, unet->text, &params);
    mg_graph_end_segment(unet->graph);
    mg_graph_pop(unet->graph, outer);
    return x;
}

static mg_value keep(struct unet *unet, mg_value x) {
    unet->skips[unet->num_skips++] = x;
    return x;
}

static mg_value down(struct unet *unet, mg_value x, int level) {
    const struct mg_unet_config *config = unet->config;
    size_t outer = mg_graph_push(unet->graph, "down_blocks.%d", level);
    for (int i = 0; i < config->layers_per_block[level]; i++) {
        x = resnet(unet, x, i, level);
        if (config->attention_down[level])
            x = transformer(unet, x, i, level);
        keep(unet, x);
    }
    if (level + 1 < config->num_levels)
        x = keep(unet, mg_layer_downsample(unet->graph, x, true));
    mg_graph_pop(unet->graph, outer);
    return x;
}

static mg_value middle(struct unet *unet, mg_value x) {
    int deepest = unet->config->num_levels - 1;
    size_t outer = mg_graph_push(unet->graph, "mid_block");
    x = resnet(unet, x, 0, deepest);
    x = transformer(unet, x, 0, deepest);
    x = resnet(unet, x, 1, deepest);
    mg_graph_pop(unet->graph, outer);
    return x;
}

static mg_value up(struct unet *unet, mg_value x, int block) {
    const struct mg_unet_config *config = unet->config;
    int level = config->num_levels - 1 - block;
    size_t outer = mg_graph_push(unet->graph, "up_blocks.%d", block);
    for (int i = 0; i <= config->layers_per_block[level]; i++) {
        x = mg_op_concat(unet->graph, x, unet->skips[--unet->num_skips]);
        x = resnet(unet, x, i, level);
        if (config->attention_up[block])
            x = transformer(unet, x, i, level);
    }
    if (level > 0) {
        /* To the size of the next skip connection: a level of odd size was not exactly twice the one below. */
        const int64_t *size = mg_graph_dim(unet->graph, unet->skips[unet->num_skips - 1]);
        x = mg_layer_upsample(unet->graph, x, size[1], size[2]);
    }
    mg_graph_pop(unet->graph, outer);
    return x;
}

mg_value mg_unet_build(struct mg_graph *graph, const struct mg_unet_config *config, mg_value sample, mg_value timesteps,
                       mg_value text) {
    struct unet unet = {.graph = graph, .config = config, .text = text};
    unet.time = embed_time(graph, config, timesteps);
    if (mg_graph_dim(graph, sample)[3] != config->in_channels)
        return mg_graph_fail(graph, MG_ERR_ARGUMENT, "the UNet takes %d channels, not %lld", config->in_channels,
                             (long long)mg_graph_dim(graph, sample)[3]);
    if (mg_graph_dim(graph, text)[3] != config->cross_attention_dim)
        return mg_graph_fail(graph, MG_ERR_ARGUMENT, "the UNet takes a text embedding of %d channels, not %lld",
                             config->cross_attention_dim, (long long)mg_graph_dim(graph, text)[3]);
    mg_value x = mg_layer_conv3x3(graph, "conv_in", sample, config->channels[0], MG_NONE, MG_NONE);
    keep(&unet, x);
    for (int level = 0; level < config->num_levels; level++)
        x = down(&unet, x, level);
    if (config->has_mid_block)
        x = middle(&unet, x);
    for (int block = 0; block < config->num_levels; block++)
        x = up(&unet, x, block);
    x = mg_layer_groupnorm(graph, "conv_norm_out", x, config->norm_groups, config->norm_epsilon, true);
    return mg_layer_conv3x3(graph, "conv_out", x, config->out_channels, MG_NONE, MG_NONE);
}
