/* resnet.c: ResnetBlock2D: norm, SiLU, convolution, twice, around a shortcut. */
#include "layers.h"

mg_value mg_layer_resnet(struct mg_graph *graph, mg_value x, int64_t channels, int groups, float epsilon,
                         mg_value time) {
    /* The shortcut comes first: x is then read for the last time by the norm, which takes its memory over. */
    mg_value shortcut = x;
    if (mg_graph_dim(graph, x)[3] != channels)
        shortcut = mg_layer_conv1x1(graph, "conv_shortcut", x, channels, MG_NONE);
    mg_value shift = MG_NONE;
    if (time != MG_NONE)
        shift = mg_layer_linear_few_rows(graph, "time_emb_proj", time, channels, true, MG_NONE, MG_ACT_NONE);
    mg_value y = mg_layer_groupnorm(graph, "norm1", x, groups, epsilon, true);
    y = mg_layer_conv3x3(graph, "conv1", y, channels, MG_NONE, shift);
    y = mg_layer_groupnorm(graph, "norm2", y, groups, epsilon, true);
    return mg_layer_conv3x3(graph, "conv2", y, channels, shortcut, MG_NONE);
}
