/* builders.c: one builder per operation: checks the shapes of its inputs, infers the shape of its output, records it.
 * The convention for shapes is N H W C; messages show them in that order. */
#include "builders.h"

#include <math.h>
#include <string.h>

/* ---- what every builder shares ---- */

/* Operations at the edges of a network, which have no form for bfloat16. */
static const bool floats_only[MG_OP_COUNT] = {
    [MG_OP_TIME_EMBEDDING] = true,
    [MG_OP_TOKEN_EMBEDDING] = true,
    [MG_OP_NCHW_TO_NHWC] = true,
    [MG_OP_NHWC_TO_NCHW] = true,
};

bool mg_op_begin(struct mg_graph *graph, struct mg_op_shape *op, mg_op_kind kind, const mg_value *in) {
    if (mg_graph_failed(graph))
        return false;
    const struct mg_op_info *info = mg_op_info_of(kind);
    *op = (struct mg_op_shape){.kind = kind};
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        if (in[slot] != MG_NONE)
            op->in[slot] = graph->nodes[in[slot]].tensor;
        else if (info->required >> slot & 1) {
            mg_graph_fail(graph, MG_ERR_ARGUMENT, "%s: input %d is missing", info->name, slot);
            return false;
        }
        if (floats_only[kind] && op->in[slot].ndim && op->in[slot].dtype != MG_F32) {
            mg_graph_fail(graph, MG_ERR_ARGUMENT, "%s: input %d must be float32", info->name, slot);
            return false;
        }
    }
    op->out = op->in[0];
    return true;
}

mg_value mg_op_refuse(struct mg_graph *graph, const struct mg_op_shape *op, const char *why) {
    char text[MG_MAX_INPUTS][MG_SHAPE_TEXT];
    char all[MG_MAX_INPUTS * MG_SHAPE_TEXT] = "";
    size_t length = 0;
    for (int slot = 0; slot < mg_op_info_of(op->kind)->inputs; slot++)
        length += (size_t)snprintf(all + length, sizeof all - length, "%s%s", slot ? ", " : "",
                                   op->in[slot].ndim ? mg_shape_text(text[slot], op->in[slot].ndim, op->in[slot].dim)
                                                     : "none");
    return mg_graph_fail(graph, MG_ERR_ARGUMENT, "%s: %s; the inputs have shapes %s", mg_op_info_of(op->kind)->name,
                         why, all);
}

/* In float32, whatever the type of the activations. */
static bool is_vector(const struct mg_tensor *tensor, int64_t channels) {
    return tensor->ndim == 0 || (tensor->ndim == 1 && tensor->dim[0] == channels && tensor->dtype == MG_F32);
}

static bool broadcasts(const struct mg_tensor *small, const struct mg_tensor *big, int first, int last) {
    for (int d = first; d <= last; d++)
        if (small->dim[d] != 1 && small->dim[d] != big->dim[d])
            return false;
    return true;
}

/* ---- convolution and linear ---- */

/* What the elements of a weight may be rounded to, for activations of type `x`. */
static mg_dtype weight_type(const struct mg_graph *graph, mg_value weight, mg_dtype x) {
    const struct mg_precision *p = &graph->precision;
    const struct mg_node *node = &graph->nodes[weight];
    if (x == MG_F32 || p->weights != MG_I8 || node->role != MG_ROLE_WEIGHT)
        return x;
    const char *key = node->weights->list[node->weight].key;
    for (const char *const *part = p->exceptions; part && *part; part++)
        if (strstr(key, *part))
            return x;
    return MG_I8;
}

static bool window_fits(struct mg_tensor *out, const struct mg_conv2d *p, int64_t h, int64_t w, int64_t r, int64_t s) {
    int64_t span_h = h + p->pad_top + p->pad_bottom - r, span_w = w + p->pad_left + p->pad_right - s;
    if (p->stride < 1 || p->pad_top < 0 || p->pad_left < 0 || p->pad_bottom < 0 || p->pad_right < 0 || span_h < 0 ||
        span_w < 0)
        return false;
    out->dim[1] = span_h / p->stride + 1;
    out->dim[2] = span_w / p->stride + 1;
    return true;
}

mg_value mg_op_conv2d(struct mg_graph *graph, mg_value x, mg_value weight, mg_value bias, mg_value residual,
                      mg_value channel_vector, const struct mg_conv2d *params) {
    MG_OP_INPUTS(x, weight, bias, residual, channel_vector);
    if (!mg_op_begin(graph, &op, MG_OP_CONV2D, in))
        return MG_NONE;
    op.params.conv2d = *params;
    op.in[1].dtype = weight_type(graph, weight, op.in[0].dtype);
    const struct mg_tensor *k = &op.in[1];
    int64_t h = params->upsampled_h ? params->upsampled_h : op.in[0].dim[1];
    int64_t w = params->upsampled_w ? params->upsampled_w : op.in[0].dim[2];
    if (k->ndim != 4 || k->dim[1] != op.in[0].dim[3])
        return mg_op_refuse(graph, &op, "the weight must be (K, C, R, S) with C the input's channels");
    op.out.dim[3] = k->dim[0];
    if (h < 1 || w < 1 || !window_fits(&op.out, params, h, w, k->dim[2], k->dim[3]))
        return mg_op_refuse(graph, &op,
                            "the padded input is smaller than the window, or stride or padding is negative");
    if (!is_vector(&op.in[2], k->dim[0]))
        return mg_op_refuse(graph, &op, "the bias must have K elements");
    if (op.in[3].ndim && !mg_tensor_same_kind(&op.in[3], &op.out))
        return mg_op_refuse(graph, &op, "the residual must have the shape and type of the output");
    const struct mg_tensor *v = &op.in[4];
    if (v->ndim && v->dtype != MG_F32)
        return mg_op_refuse(graph, &op, "the channel vector must be float32");
    if (v->ndim && (v->dim[1] != 1 || v->dim[2] != 1 || v->dim[3] != k->dim[0] || !broadcasts(v, &op.out, 0, 0)))
        return mg_op_refuse(graph, &op, "the channel vector must be (N or 1, 1, 1, K)");
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_linear(struct mg_graph *graph, mg_value x, mg_value weight, mg_value bias, mg_value residual,
                      const struct mg_linear *params) {
    MG_OP_INPUTS(x, weight, bias, residual, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_LINEAR, in))
        return MG_NONE;
    op.params.linear = *params;
    if (params->few_rows && op.in[0].dtype != MG_F32)
        return mg_op_refuse(graph, &op, "few rows must be float32");
    op.in[1].dtype = weight_type(graph, weight, op.in[0].dtype);
    const struct mg_tensor *k = &op.in[1];
    bool matrix = k->ndim == 2 || (k->ndim == 4 && k->dim[2] == 1 && k->dim[3] == 1);
    if (!matrix || k->dim[1] != op.in[0].dim[3])
        return mg_op_refuse(graph, &op, "the weight must be (K, C) with C the input's channels");
    op.out.dim[3] = k->dim[0];
    if (!is_vector(&op.in[2], k->dim[0]))
        return mg_op_refuse(graph, &op, "the bias must have K elements");
    if (op.in[3].ndim && !mg_tensor_same_kind(&op.in[3], &op.out))
        return mg_op_refuse(graph, &op, "the residual must have the shape and type of the output");
    return mg_graph_append(graph, &op, in);
}

/* ---- normalisation ---- */
mg_value mg_op_groupnorm(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, int groups, float epsilon,
                         bool silu) {
    MG_OP_INPUTS(x, gamma, beta, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_GROUPNORM, in))
        return MG_NONE;
    op.params.groupnorm = (struct mg_groupnorm){.groups = groups, .epsilon = epsilon, .silu = silu};
    int64_t channels = op.in[0].dim[3];
    if (groups < 1 || channels % groups || !is_vector(&op.in[1], channels) || !is_vector(&op.in[2], channels))
        return mg_op_refuse(graph, &op, "the channels must divide into the groups, gamma and beta have C elements");
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_layernorm(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, float epsilon) {
    MG_OP_INPUTS(x, gamma, beta, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_LAYERNORM, in))
        return MG_NONE;
    op.params.layernorm.epsilon = epsilon;
    if (!is_vector(&op.in[1], op.in[0].dim[3]) || !is_vector(&op.in[2], op.in[0].dim[3]))
        return mg_op_refuse(graph, &op, "gamma and beta must have C elements");
    return mg_graph_append(graph, &op, in);
}

/* ---- attention ---- */
mg_value mg_op_attention(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, int heads, bool causal) {
    MG_OP_INPUTS(q, k, v, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_ATTENTION, in))
        return MG_NONE;
    int64_t channels = op.in[0].dim[3];
    if (heads < 1 || channels % heads || op.in[1].dim[3] != channels)
        return mg_op_refuse(graph, &op, "q and k must have the same channels, divisible by the number of heads");
    if (!mg_tensor_same_shape(&op.in[1], &op.in[2]) || !broadcasts(&op.in[1], &op.in[0], 0, 0))
        return mg_op_refuse(graph, &op, "k and v must have one shape, and q's batch or a batch of 1");
    if (op.in[1].dtype != op.in[2].dtype || (op.in[1].dtype != op.in[0].dtype && op.in[1].dtype != MG_F32))
        return mg_op_refuse(graph, &op, "k and v must have one type, that of q or float32");
    if (causal && op.in[0].dim[1] * op.in[0].dim[2] != op.in[1].dim[1] * op.in[1].dim[2])
        return mg_op_refuse(graph, &op, "causal attention needs as many keys as queries");
    op.params.attention = (struct mg_attention){
        .heads = heads, .scale = (float)(1.0 / sqrt((double)(channels / heads))), .causal = causal};
    return mg_graph_append(graph, &op, in);
}

/* Samples follow one another in memory, so the tokens of several are those of one that is as many times as high: the operation sees
 * that shape, and the values around it keep theirs. */
mg_value mg_op_joined_attention(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, int heads, int64_t frames) {
    const mg_value out = mg_op_attention(graph, q, k, v, heads, false);
    if (out == MG_NONE || frames == 1)
        return out;
    struct mg_op_shape *op = &graph->ops[graph->num_ops - 1].shape;
    if (frames < 1 || op->in[0].dim[0] % frames || !mg_tensor_same_shape(&op->in[0], &op->in[1]))
        return mg_op_refuse(graph, op, "q, k and v must have one shape, with a batch of whole sequences of frames");
    struct mg_tensor *const joined[] = {&op->in[0], &op->in[1], &op->in[2], &op->out};
    for (size_t i = 0; i < sizeof joined / sizeof joined[0]; i++) {
        joined[i]->dim[0] /= frames;
        joined[i]->dim[1] *= frames;
    }
    return out;
}

/* ---- pointwise and channels ---- */
mg_value mg_op_geglu(struct mg_graph *graph, mg_value x) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_GEGLU, in))
        return MG_NONE;
    if (op.in[0].dim[3] % 2)
        return mg_op_refuse(graph, &op, "the number of channels must be even");
    op.out.dim[3] /= 2;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_activation(struct mg_graph *graph, mg_value x, mg_activation activation) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_ACTIVATION, in))
        return MG_NONE;
    op.params.activation = activation;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_concat(struct mg_graph *graph, mg_value a, mg_value b) {
    MG_OP_INPUTS(a, b, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_CONCAT, in))
        return MG_NONE;
    for (int d = 0; d < 3; d++)
        if (op.in[0].dim[d] != op.in[1].dim[d] || op.in[0].dtype != op.in[1].dtype)
            return mg_op_refuse(graph, &op, "N, H, W and the types must agree");
    op.out.dim[3] += op.in[1].dim[3];
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_channel_slice(struct mg_graph *graph, mg_value x, int64_t begin, int64_t count) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_CHANNEL_SLICE, in))
        return MG_NONE;
    if (begin < 0 || count < 1 || count > op.in[0].dim[3] || begin > op.in[0].dim[3] - count)
        return mg_op_refuse(graph, &op, "the slice must lie within the channels");
    op.params.slice = (struct mg_slice){.begin = begin, .count = count};
    op.out.dim[3] = count;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_affine(struct mg_graph *graph, mg_value x, float factor, float offset) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_SCALE, in))
        return MG_NONE;
    op.params.scale = (struct mg_scale){.factor = factor, .offset = offset};
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_scale(struct mg_graph *graph, mg_value x, float factor) { return mg_op_affine(graph, x, factor, 0.0f); }

mg_value mg_op_cast(struct mg_graph *graph, mg_value x, mg_dtype dtype) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_CAST, in) || op.in[0].dtype == dtype)
        return mg_graph_failed(graph) ? MG_NONE : x;
    if (dtype != MG_F32 && dtype != MG_F16 && dtype != MG_BF16)
        return mg_op_refuse(graph, &op, "activations are float32, float16 or bfloat16");
    op.out.dtype = dtype;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_add(struct mg_graph *graph, mg_value a, mg_value b) {
    MG_OP_INPUTS(a, b, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_ADD, in))
        return MG_NONE;
    if (op.in[0].dim[3] != op.in[1].dim[3] || op.in[0].dtype != op.in[1].dtype ||
        !broadcasts(&op.in[1], &op.in[0], 0, 2))
        return mg_op_refuse(graph, &op,
                            "the second must have the channels and the type of the first, and its N, H, W or 1");
    return mg_graph_append(graph, &op, in);
}

/* ---- embeddings ---- */
mg_value mg_op_time_embedding(struct mg_graph *graph, mg_value timesteps, const struct mg_time_embedding *params) {
    MG_OP_INPUTS(timesteps, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_TIME_EMBEDDING, in))
        return MG_NONE;
    op.params.time_embedding = *params;
    if (op.in[0].dim[1] != 1 || op.in[0].dim[2] != 1 || op.in[0].dim[3] != 1 || params->channels < 2 ||
        params->channels % 2 || (float)params->channels / 2 <= params->frequency_shift)
        return mg_op_refuse(graph, &op, "time steps must be (N, 1, 1, 1), channels even and more than twice the shift");
    op.out.dim[3] = params->channels;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_token_embedding(struct mg_graph *graph, mg_value ids, mg_value table, mg_value positions) {
    MG_OP_INPUTS(ids, table, positions, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_TOKEN_EMBEDDING, in))
        return MG_NONE;
    const struct mg_tensor *t = &op.in[1], *p = &op.in[2];
    if (op.in[0].dim[1] != 1 || op.in[0].dim[3] != 1 || t->ndim != 2 || p->ndim != 2 || t->dim[1] != p->dim[1] ||
        p->dim[0] < op.in[0].dim[2])
        return mg_op_refuse(graph, &op, "ids must be (N, 1, T, 1), tables (V, C) and (at least T, C)");
    op.out.dim[3] = t->dim[1];
    return mg_graph_append(graph, &op, in);
}

/* ---- layout, schedule, heads ---- */
mg_value mg_op_nchw_to_nhwc(struct mg_graph *graph, mg_value x) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_NCHW_TO_NHWC, in))
        return MG_NONE;
    const int64_t *d = op.in[0].dim;
    op.out = (struct mg_tensor){.dtype = MG_F32, .ndim = 4, .dim = {d[0], d[2], d[3], d[1]}};
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_nhwc_to_nchw(struct mg_graph *graph, mg_value x) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_NHWC_TO_NCHW, in))
        return MG_NONE;
    const int64_t *d = op.in[0].dim;
    op.out = (struct mg_tensor){.dtype = MG_F32, .ndim = 4, .dim = {d[0], d[3], d[1], d[2]}};
    return mg_graph_append(graph, &op, in);
}
