/* resample.c: the convolutions between two levels of a network. Calls the builders of graph/. */
#include "layers.h"

static mg_value convolve(struct mg_graph *graph, mg_value x, const struct mg_conv2d *params) {
    size_t outer = mg_graph_push(graph, "conv");
    mg_value out = mg_layer_convolve(graph, x, mg_graph_dim(graph, x)[3], true, MG_NONE, MG_NONE, params);
    mg_graph_pop(graph, outer);
    return out;
}

mg_value mg_layer_downsample(struct mg_graph *graph, mg_value x, bool pad_before) {
    size_t outer = mg_graph_push(graph, "downsamplers.0");
    mg_value out =
        convolve(graph, x,
                 &(struct mg_conv2d){
                     .stride = 2, .pad_top = pad_before, .pad_left = pad_before, .pad_bottom = 1, .pad_right = 1});
    mg_graph_pop(graph, outer);
    return out;
}

mg_value mg_layer_upsample(struct mg_graph *graph, mg_value x, int64_t h, int64_t w) {
    size_t outer = mg_graph_push(graph, "upsamplers.0");
    mg_value out = convolve(graph, x,
                            &(struct mg_conv2d){.stride = 1,
                                                .pad_top = 1,
                                                .pad_left = 1,
                                                .pad_bottom = 1,
                                                .pad_right = 1,
                                                .upsampled_h = h,
                                                .upsampled_w = w});
    mg_graph_pop(graph, outer);
    return out;
}
