/* vae_tiny.c: AutoencoderTiny (TAESD, github.com/madebyollin/taesd): encoder and decoder of plain 3x3 convolutions.
 * Calls the layers. Keys of weights count the layers, those without weights too: "decoder.layers.2.conv.4.bias". */
#include "layers.h"
#include "nn.h"

static const struct mg_conv2d same_size = {.stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};

/* Convolution and activation. ReLU is a part of the convolution, the others are a pass of their own. */
static mg_value activated(struct mg_graph *graph, const struct mg_vae_tiny_config *config, mg_value x,
                          int64_t channels) {
    struct mg_conv2d params = same_size;
    params.relu = config->activation == MG_ACT_RELU;
    x = mg_layer_convolve(graph, x, channels, true, MG_NONE, MG_NONE, &params);
    return params.relu ? x : mg_op_activation(graph, x, config->activation);
}

/* Three convolutions around a shortcut. What follows the sum is ReLU whatever the configured activation is. */
static mg_value block(struct mg_graph *graph, const struct mg_vae_tiny_config *config, mg_value x) {
    const int64_t channels = mg_graph_dim(graph, x)[3];
    struct mg_conv2d last = same_size;
    last.relu = true;
    mg_value y = x;
    for (int i = 0; i < 3; i++) {
        size_t outer = mg_graph_push(graph, "conv.%d", 2 * i);
        y = i < 2 ? activated(graph, config, y, channels)
                  : mg_layer_convolve(graph, y, channels, true, x, MG_NONE, &last);
        mg_graph_pop(graph, outer);
    }
    return y;
}

/* `count` blocks, of which the first is layer *layer; moves *layer behind them. */
static mg_value stage(struct mg_graph *graph, const struct mg_vae_tiny_config *config, mg_value x, int count,
                      int *layer) {
    for (int i = 0; i < count; i++) {
        size_t outer = mg_graph_push(graph, "layers.%d", (*layer)++);
        x = block(graph, config, x);
        mg_graph_pop(graph, outer);
    }
    return x;
}

static mg_value convolve(struct mg_graph *graph, mg_value x, int layer, int64_t channels, bool bias,
                         const struct mg_conv2d *params) {
    size_t outer = mg_graph_push(graph, "layers.%d", layer);
    x = mg_layer_convolve(graph, x, channels, bias, MG_NONE, MG_NONE, params);
    mg_graph_pop(graph, outer);
    return x;
}

mg_value mg_vae_tiny_encode_build(struct mg_graph *graph, const struct mg_vae_tiny_config *config, mg_value x) {
    if (mg_graph_dim(graph, x)[3] != config->in_channels)
        return mg_graph_fail(graph, MG_ERR_ARGUMENT, "the tiny autoencoder encodes %d channels, not %lld",
                             config->in_channels, (long long)mg_graph_dim(graph, x)[3]);
    struct mg_conv2d halve = same_size;
    halve.stride = 2;
    int layer = 0;
    size_t outer = mg_graph_push(graph, "encoder");
    x = mg_op_affine(graph, x, 0.5f, 0.5f); /* [-1, 1] to [0, 1] */
    for (int i = 0; i < config->encoder_stages; i++) {
        x = convolve(graph, x, layer++, config->encoder_channels, i == 0, i ? &halve : &same_size);
        x = stage(graph, config, x, config->encoder_blocks[i], &layer);
    }
    x = convolve(graph, x, layer, config->latent_channels, true, &same_size);
    mg_graph_pop(graph, outer);
    return x;
}

/* Bends latents into (-3, 3). */
static mg_value clamp(struct mg_graph *graph, mg_value z) {
    z = mg_op_activation(graph, mg_op_scale(graph, z, 1.0f / 3.0f), MG_ACT_TANH);
    return mg_op_scale(graph, z, 3.0f);
}

mg_value mg_vae_tiny_decode_build(struct mg_graph *graph, const struct mg_vae_tiny_config *config, mg_value z) {
    if (mg_graph_dim(graph, z)[3] != config->latent_channels)
        return mg_graph_fail(graph, MG_ERR_ARGUMENT, "the tiny autoencoder decodes %d channels, not %lld",
                             config->latent_channels, (long long)mg_graph_dim(graph, z)[3]);
    size_t outer = mg_graph_push(graph, "decoder"), first = mg_graph_push(graph, "layers.0");
    mg_value x = activated(graph, config, clamp(graph, z), config->decoder_channels);
    mg_graph_pop(graph, first);
    int layer = 2; /* 1 is the activation */
    for (int i = 0; i < config->decoder_stages - 1; i++) {
        x = stage(graph, config, x, config->decoder_blocks[i], &layer);
        struct mg_conv2d enlarge = same_size;
        enlarge.upsampled_h = config->upsampling * mg_graph_dim(graph, x)[1];
        enlarge.upsampled_w = config->upsampling * mg_graph_dim(graph, x)[2];
        x = convolve(graph, x, layer + 1, config->decoder_channels, false, &enlarge); /* `layer` is the upsampling */
        layer += 2;
    }
    x = stage(graph, config, x, config->decoder_blocks[config->decoder_stages - 1], &layer);
    x = convolve(graph, x, layer, config->out_channels, true, &same_size);
    mg_graph_pop(graph, outer);
    return mg_op_affine(graph, x, 2.0f, -1.0f); /* [0, 1] to [-1, 1] */
}
