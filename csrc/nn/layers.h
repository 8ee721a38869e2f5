/* layers.h: the layers that the networks share, each a function that declares its weights and records its operations.
 * Private to nn/. Weights are declared below the graph's key prefix; `name` is one more step of it ("conv1"). */
#ifndef MG_LAYERS_H
#define MG_LAYERS_H
#include "../graph/graph.h"

/* ---- basic_layers.c ---- */
/* 3x3; its weights lie directly below the graph's key prefix. residual and channel_vector may be MG_NONE. */
mg_value mg_layer_convolve(struct mg_graph *graph, mg_value x, int64_t channels, bool bias, mg_value residual,
                           mg_value channel_vector, const struct mg_conv2d *params);
/* 3x3 with one cell of padding. residual and channel_vector may be MG_NONE. */
mg_value mg_layer_conv3x3(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, mg_value residual,
                          mg_value channel_vector);
mg_value mg_layer_linear(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, bool bias,
                         mg_value residual, mg_activation activation);
/* The same for time steps and words, of which there are few. */
mg_value mg_layer_linear_few_rows(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, bool bias,
                                  mg_value residual, mg_activation activation);
/* A 1x1 convolution: the same computation, but the checkpoint holds its weight as (K, C, 1, 1). */
mg_value mg_layer_conv1x1(struct mg_graph *graph, const char *name, mg_value x, int64_t channels, mg_value residual);
mg_value mg_layer_groupnorm(struct mg_graph *graph, const char *name, mg_value x, int groups, float epsilon, bool silu);
mg_value mg_layer_layernorm(struct mg_graph *graph, const char *name, mg_value x, float epsilon);

/* ---- resample.c ---- */
/* Halves height and width. The UNet pads all around; the VAE (pad_before false) right and bottom only. */
mg_value mg_layer_downsample(struct mg_graph *graph, mg_value x, bool pad_before);
mg_value mg_layer_upsample(struct mg_graph *graph, mg_value x, int64_t h, int64_t w);

/* ---- resnet.c ---- */
/* time: SiLU of the time embedding (N or 1,1,1,E), or MG_NONE for a block without one. */
mg_value mg_layer_resnet(struct mg_graph *graph, mg_value x, int64_t channels, int groups, float epsilon,
                         mg_value time);

/* ---- transformer.c ---- */
struct mg_transformer {
    int heads, layers, groups;
    bool linear_projection;
    int64_t frames; /* successive samples whose tokens attend to each other; 1: each sample by itself */
};
/* x (N,H,W,C), text (N or 1,1,T,D) -> (N,H,W,C). */
mg_value mg_layer_transformer(struct mg_graph *graph, mg_value x, mg_value text, const struct mg_transformer *params);
#endif
