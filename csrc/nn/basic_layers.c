/* basic_layers.c: convolutions, linear layers and norms with their weights, under the names that diffusers and
 * transformers give them. Calls the builders of graph/. */
#include "layers.h"

static mg_value vector(struct mg_graph *graph, const char *key, int64_t count) {
    return mg_graph_weight(graph, key, 1, &count);
}

mg_value mg_layer_convolve(struct mg_graph *graph, mg_value x, int64_t channels, bool bias, mg_value residual,
                           mg_value channel_vector, const struct mg_conv2d *params) {
    const int64_t dim[] = {channels, mg_graph_dim(graph, x)[3], 3, 3};
    mg_value weight = mg_graph_weight(graph, "weight", 4, dim);
    mg_value offset = bias ? vector(graph, "bias", channels) : MG_NONE;
    return mg_op_conv2d(graph, x, weight, offset, residual, channel_vector, params);
}

mg_value mg_layer_conv3x3(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, mg_value residual,
                          mg_value channel_vector) {
    const struct mg_conv2d params = {.stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    size_t outer = mg_graph_push(graph, "%s", name);
    mg_value out = mg_layer_convolve(graph, x, channels, true, residual, channel_vector, &params);
    mg_graph_pop(graph, outer);
    return out;
}

static mg_value linear(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, bool bias,
                       mg_value residual, const struct mg_linear *params) {
    const int64_t dim[] = {channels, mg_graph_dim(graph, x)[3]};
    size_t outer = mg_graph_push(graph, "%s", name);
    mg_value weight = mg_graph_weight(graph, "weight", 2, dim);
    mg_value offset = bias ? vector(graph, "bias", channels) : MG_NONE;
    mg_value out = mg_op_linear(graph, x, weight, offset, residual, params);
    mg_graph_pop(graph, outer);
    return out;
}

mg_value mg_layer_linear(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, bool bias,
                         mg_value residual, mg_activation activation) {
    return linear(graph, name, x, channels, bias, residual, &(struct mg_linear){.activation = activation});
}

mg_value mg_layer_linear_few_rows(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, bool bias,
                                  mg_value residual, mg_activation activation) {
    return linear(graph, name, x, channels, bias, residual,
                  &(struct mg_linear){.activation = activation, .few_rows = true});
}

mg_value mg_layer_conv1x1(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, mg_value residual) {
    const int64_t dim[] = {channels, mg_graph_dim(graph, x)[3], 1, 1};
    size_t outer = mg_graph_push(graph, "%s", name);
    mg_value weight = mg_graph_weight(graph, "weight", 4, dim), bias = vector(graph, "bias", channels);
    mg_value out = mg_op_linear(graph, x, weight, bias, residual, &(struct mg_linear){.activation = MG_ACT_NONE});
    mg_graph_pop(graph, outer);
    return out;
}

mg_value mg_layer_groupnorm(struct mg_graph *graph, const char *name, mg_value x, int groups, float epsilon,
                            bool silu) {
    int64_t channels = mg_graph_dim(graph, x)[3];
    size_t outer = mg_graph_push(graph, "%s", name);
    mg_value gamma = vector(graph, "weight", channels), beta = vector(graph, "bias", channels);
    mg_value out = mg_op_groupnorm(graph, x, gamma, beta, groups, epsilon, silu);
    mg_graph_pop(graph, outer);
    return out;
}

mg_value mg_layer_layernorm(struct mg_graph *graph, const char *name, mg_value x, float epsilon) {
    int64_t channels = mg_graph_dim(graph, x)[3];
    size_t outer = mg_graph_push(graph, "%s", name);
    mg_value gamma = vector(graph, "weight", channels), beta = vector(graph, "bias", channels);
    mg_value out = mg_op_layernorm(graph, x, gamma, beta, epsilon);
    mg_graph_pop(graph, outer);
    return out;
}
