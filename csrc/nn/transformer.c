/* transformer.c: Transformer2DModel of the UNet: self-attention, cross-attention to the text and a gated feed-forward
 * layer, on the cells of a feature map.
 *
 * Keys and values of the cross-attention depend on the text alone: with a constant text they are computed when the
 * graph is planned. */
#include "layers.h"

static const float group_epsilon = 1e-6f, layer_epsilon = 1e-5f; /* fixed in the architecture, in no configuration */

static mg_value key_or_value(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, bool words) {
    return words ? mg_layer_linear_few_rows(graph, name, x, channels, false, MG_NONE, MG_ACT_NONE)
                 : mg_layer_linear(graph, name, x, channels, false, MG_NONE, MG_ACT_NONE);
}

/* x + attention of norm(x) to `context`; MG_NONE: to norm(x) itself, that of `frames` samples together. */
static mg_value attend(struct mg_graph *graph, const char *norm, const char *name, mg_value x, mg_value context,
                       int heads, int64_t frames) {
    int64_t channels = mg_graph_dim(graph, x)[3];
    mg_value y = mg_layer_layernorm(graph, norm, x, layer_epsilon);
    mg_value seen = context == MG_NONE ? y : context;
    size_t outer = mg_graph_push(graph, "%s", name);
    mg_value q = mg_layer_linear(graph, "to_q", y, channels, false, MG_NONE, MG_ACT_NONE);
    mg_value k = key_or_value(graph, "to_k", seen, channels, context != MG_NONE);
    mg_value v = key_or_value(graph, "to_v", seen, channels, context != MG_NONE);
    y = mg_op_joined_attention(graph, q, k, v, heads, frames);
    y = mg_layer_linear(graph, "to_out.0", y, channels, true, x, MG_ACT_NONE);
    mg_graph_pop(graph, outer);
    return y;
}

static mg_value feed_forward(struct mg_graph *graph, mg_value x) {
    int64_t channels = mg_graph_dim(graph, x)[3];
    mg_value y = mg_layer_layernorm(graph, "norm3", x, layer_epsilon);
    y = mg_layer_linear(graph, "ff.net.0.proj", y, 8 * channels, true, MG_NONE, MG_ACT_NONE);
    return mg_layer_linear(graph, "ff.net.2", mg_op_geglu(graph, y), channels, true, x, MG_ACT_NONE);
}

static mg_value project(struct mg_graph *graph, const char *name, mg_value x, mg_value residual, bool linear) {
    int64_t channels = mg_graph_dim(graph, x)[3];
    return linear ? mg_layer_linear(graph, name, x, channels, true, residual, MG_ACT_NONE)
                  : mg_layer_conv1x1(graph, name, x, channels, residual);
}

mg_value mg_layer_transformer(struct mg_graph *graph, mg_value x, mg_value text, const struct mg_transformer *params) {
    mg_value y = mg_layer_groupnorm(graph, "norm", x, params->groups, group_epsilon, false);
    y = project(graph, "proj_in", y, MG_NONE, params->linear_projection);
    for (int i = 0; i < params->layers; i++) {
        size_t outer = mg_graph_push(graph, "transformer_blocks.%d", i);
        y = attend(graph, "norm1", "attn1", y, MG_NONE, params->heads, params->frames);
        y = attend(graph, "norm2", "attn2", y, text, params->heads, 1);
        y = feed_forward(graph, y);
        mg_graph_pop(graph, outer);
    }
    return project(graph, "proj_out", y, x, params->linear_projection);
}
