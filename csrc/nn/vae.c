/* vae.c: AutoencoderKL: the encoder's mean and the decoder. Calls the layers. Keys of weights are those of diffusers;
 * older files name the attention's differently (mg_vae_weight_alias). */
#include <stdio.h>
#include <string.h>

#include "layers.h"
#include "nn.h"

static const float epsilon = 1e-6f; /* fixed in the architecture, in no configuration */

static mg_value resnet(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x, int index, int level) {
    size_t outer = mg_graph_push(graph, "resnets.%d", index);
    mg_graph_begin_segment(graph);
    x = mg_layer_resnet(graph, x, config->channels[level], config->norm_groups, epsilon, MG_NONE);
    mg_graph_end_segment(graph);
    mg_graph_pop(graph, outer);
    return x;
}

/* One head over all cells. */
static mg_value attention(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x) {
    int64_t channels = mg_graph_dim(graph, x)[3];
    size_t outer = mg_graph_push(graph, "attentions.0");
    mg_value y = mg_layer_groupnorm(graph, "group_norm", x, config->norm_groups, epsilon, false);
    mg_value q = mg_layer_linear(graph, "to_q", y, channels, true, MG_NONE, MG_ACT_NONE);
    mg_value k = mg_layer_linear(graph, "to_k", y, channels, true, MG_NONE, MG_ACT_NONE);
    mg_value v = mg_layer_linear(graph, "to_v", y, channels, true, MG_NONE, MG_ACT_NONE);
    y = mg_op_attention(graph, q, k, v, 1, false);
    y = mg_layer_linear(graph, "to_out.0", y, channels, true, x, MG_ACT_NONE);
    mg_graph_pop(graph, outer);
    return y;
}

static mg_value middle(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x) {
    int deepest = config->num_levels - 1;
    size_t outer = mg_graph_push(graph, "mid_block");
    x = resnet(graph, config, x, 0, deepest);
    if (config->mid_attention)
        x = attention(graph, config, x);
    x = resnet(graph, config, x, 1, deepest);
    mg_graph_pop(graph, outer);
    return x;
}

static mg_value finish(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x, int64_t channels) {
    x = mg_layer_groupnorm(graph, "conv_norm_out", x, config->norm_groups, epsilon, true);
    return mg_layer_conv3x3(graph, "conv_out", x, channels, MG_NONE, MG_NONE);
}

static mg_value encoder(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x) {
    size_t outer = mg_graph_push(graph, "encoder");
    x = mg_layer_conv3x3(graph, "conv_in", x, config->channels[0], MG_NONE, MG_NONE);
    for (int level = 0; level < config->num_levels; level++) {
        size_t block = mg_graph_push(graph, "down_blocks.%d", level);
        for (int i = 0; i < config->layers_per_block; i++)
            x = resnet(graph, config, x, i, level);
        if (level + 1 < config->num_levels)
            x = mg_layer_downsample(graph, x, false);
        mg_graph_pop(graph, block);
    }
    x = finish(graph, config, middle(graph, config, x), 2 * (int64_t)config->latent_channels);
    mg_graph_pop(graph, outer);
    return x;
}

mg_value mg_vae_moments_build(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x) {
    if (mg_graph_dim(graph, x)[3] != config->in_channels)
        return mg_graph_fail(graph, MG_ERR_ARGUMENT, "the VAE encodes %d channels, not %lld", config->in_channels,
                             (long long)mg_graph_dim(graph, x)[3]);
    x = encoder(graph, config, x);
    return config->quant_conv ? mg_layer_conv1x1(graph, "quant_conv", x, 2 * (int64_t)config->latent_channels, MG_NONE)
                              : x;
}

mg_value mg_vae_encode_build(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x) {
    return mg_op_channel_slice(graph, mg_vae_moments_build(graph, config, x), 0, config->latent_channels);
}

static mg_value decoder(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x) {
    size_t outer = mg_graph_push(graph, "decoder");
    x = mg_layer_conv3x3(graph, "conv_in", x, config->channels[config->num_levels - 1], MG_NONE, MG_NONE);
    x = middle(graph, config, x);
    for (int level = config->num_levels - 1; level >= 0; level--) {
        size_t block = mg_graph_push(graph, "up_blocks.%d", config->num_levels - 1 - level);
        for (int i = 0; i <= config->layers_per_block; i++)
            x = resnet(graph, config, x, i, level);
        if (level > 0)
            x = mg_layer_upsample(graph, x, 2 * mg_graph_dim(graph, x)[1], 2 * mg_graph_dim(graph, x)[2]);
        mg_graph_pop(graph, block);
    }
    x = finish(graph, config, x, config->out_channels);
    mg_graph_pop(graph, outer);
    return x;
}

mg_value mg_vae_decode_build(struct mg_graph *graph, const struct mg_vae_config *config, mg_value z) {
    if (mg_graph_dim(graph, z)[3] != config->latent_channels)
        return mg_graph_fail(graph, MG_ERR_ARGUMENT, "the VAE decodes %d channels, not %lld", config->latent_channels,
                             (long long)mg_graph_dim(graph, z)[3]);
    if (config->post_quant_conv)
        z = mg_layer_conv1x1(graph, "post_quant_conv", z, config->latent_channels, MG_NONE);
    return decoder(graph, config, z);
}

bool mg_vae_weight_alias(char *out, size_t bytes, const char *key, int n) {
    static const struct {
        const char *name, *deprecated;
    } names[] = {{".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
    if (n > 0)
        return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *at = strstr(key, names[i].name);
        if (!at)
            continue;
        int length =
            snprintf(out, bytes, "%.*s%s%s", (int)(at - key), key, names[i].deprecated, at + strlen(names[i].name));
        return length > 0 && (size_t)length < bytes;
    }
    return false;
}
