/* gradient_builders.c: one builder per operation that only training records: checks the shapes of its inputs, infers
 * the shape of its output. The parameters are those of the forward operation. */
#include "builders.h"

static bool same_pixels(const struct mg_tensor *a, const struct mg_tensor *b) {
    return a->dim[0] == b->dim[0] && a->dim[1] == b->dim[1] && a->dim[2] == b->dim[2];
}

static bool is_vector(const struct mg_tensor *tensor, int64_t channels) {
    return tensor->ndim == 1 && tensor->dim[0] == channels;
}

/* Records an operation that adds to a parameter's gradient, in place. */
static mg_value add_to_parameter(struct mg_graph *graph, const struct mg_op_shape *op, const mg_value *in,
                                 mg_value sum) {
    mg_value out = mg_graph_append(graph, op, in);
    if (out == MG_NONE)
        return MG_NONE;
    struct mg_node *node = &graph->nodes[out], *parameter = &graph->nodes[sum];
    node->role = MG_ROLE_GRADIENT;
    node->constant = false;
    node->weight = parameter->weight;
    node->weights = parameter->weights;
    return out;
}

/* ---- convolution and linear ---- */
mg_value mg_op_conv2d_input_gradient(struct mg_graph *graph, mg_value dy, mg_value weight, mg_value sum, int64_t h,
                                     int64_t w, const struct mg_conv2d *params) {
    MG_OP_INPUTS(dy, weight, sum, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_CONV2D_INPUT_GRADIENT, in))
        return MG_NONE;
    op.params.conv2d = *params;
    op.in[1].dtype = op.in[0].dtype;
    const struct mg_tensor *k = &op.in[1];
    if (k->ndim != 4 || k->dim[0] != op.in[0].dim[3])
        return mg_op_refuse(graph, &op, "the weight must be (K, C, R, S) with K the channels of dy");
    op.out.dim[1] = h;
    op.out.dim[2] = w;
    op.out.dim[3] = k->dim[1];
    const int64_t span_h = h + params->pad_top + params->pad_bottom - k->dim[2];
    const int64_t span_w = w + params->pad_left + params->pad_right - k->dim[3];
    if (span_h < 0 || span_w < 0 || span_h / params->stride + 1 != op.in[0].dim[1] ||
        span_w / params->stride + 1 != op.in[0].dim[2])
        return mg_op_refuse(graph, &op, "dy has not the size that the convolution makes of this input");
    if (op.in[2].ndim && !mg_tensor_same_kind(&op.in[2], &op.out))
        return mg_op_refuse(graph, &op, "the sum must have the shape of the output");
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_conv2d_weight_gradient(struct mg_graph *graph, mg_value x, mg_value dy, mg_value sum,
                                      const struct mg_conv2d *params) {
    MG_OP_INPUTS(x, dy, sum, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_CONV2D_WEIGHT_GRADIENT, in))
        return MG_NONE;
    op.params.conv2d = *params;
    op.out = op.in[2];
    if (op.out.ndim != 4 || op.out.dim[0] != op.in[1].dim[3] || op.out.dim[1] != op.in[0].dim[3] ||
        op.in[0].dim[0] != op.in[1].dim[0])
        return mg_op_refuse(graph, &op, "the sum must be (K, C, R, S) with x's C and dy's K, and the batches agree");
    return add_to_parameter(graph, &op, in, sum);
}

mg_value mg_op_linear_input_gradient(struct mg_graph *graph, mg_value dy, mg_value weight, mg_value sum,
                                     const struct mg_linear *params) {
    MG_OP_INPUTS(dy, weight, sum, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_LINEAR_INPUT_GRADIENT, in))
        return MG_NONE;
    op.params.linear = *params;
    op.in[1].dtype = op.in[0].dtype;
    if (op.in[1].ndim < 2 || op.in[1].dim[0] != op.in[0].dim[3])
        return mg_op_refuse(graph, &op, "the weight must be (K, C) with K the channels of dy");
    op.out.dim[3] = op.in[1].dim[1];
    if (op.in[2].ndim && !mg_tensor_same_kind(&op.in[2], &op.out))
        return mg_op_refuse(graph, &op, "the sum must have the shape of the output");
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_linear_weight_gradient(struct mg_graph *graph, mg_value x, mg_value dy, mg_value sum,
                                      const struct mg_linear *params) {
    MG_OP_INPUTS(x, dy, sum, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_LINEAR_WEIGHT_GRADIENT, in))
        return MG_NONE;
    op.params.linear = *params;
    op.out = op.in[2];
    if (op.out.ndim < 2 || op.out.dim[0] != op.in[1].dim[3] || op.out.dim[1] != op.in[0].dim[3] ||
        !same_pixels(&op.in[0], &op.in[1]))
        return mg_op_refuse(graph, &op, "the sum must be (K, C) with x's C and dy's K, and both have the same pixels");
    return add_to_parameter(graph, &op, in, sum);
}

/* ---- sums ---- */
mg_value mg_op_vector_gradient(struct mg_graph *graph, mg_value dy, mg_value sum, int64_t begin, int64_t count) {
    MG_OP_INPUTS(dy, sum, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_VECTOR_GRADIENT, in))
        return MG_NONE;
    op.params.slice = (struct mg_slice){.begin = begin, .count = count};
    op.out = op.in[1];
    if (!is_vector(&op.out, op.in[0].dim[3]) || begin < 0 || count < 1 || begin > op.in[0].dim[2] - count)
        return mg_op_refuse(graph, &op, "the sum must have C elements, and the columns lie within the width");
    return add_to_parameter(graph, &op, in, sum);
}

mg_value mg_op_reduce(struct mg_graph *graph, mg_value x, int64_t n, int64_t h, int64_t w) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_REDUCE, in))
        return MG_NONE;
    const int64_t wanted[] = {n, h, w};
    for (int d = 0; d < 3; d++) {
        if (wanted[d] != 1 && wanted[d] != op.in[0].dim[d])
            return mg_op_refuse(graph, &op, "the result must have the size of the input or 1");
        op.out.dim[d] = wanted[d];
    }
    op.out.dtype = MG_F32;
    return mg_graph_append(graph, &op, in);
}

/* ---- normalisation ---- */
mg_value mg_op_groupnorm_sums(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, mg_value dy,
                              const struct mg_groupnorm *params) {
    MG_OP_INPUTS(x, gamma, beta, dy, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_GROUPNORM_SUMS, in))
        return MG_NONE;
    op.params.groupnorm = *params;
    const int64_t channels = op.in[0].dim[3];
    if (!mg_tensor_same_shape(&op.in[0], &op.in[3]) || !is_vector(&op.in[1], channels) ||
        !is_vector(&op.in[2], channels))
        return mg_op_refuse(graph, &op, "dy must have the shape of x, gamma and beta C elements");
    op.out = (struct mg_tensor){.dtype = MG_F32, .ndim = 4, .dim = {op.in[0].dim[0], 1, 4, channels}};
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_groupnorm_gradient(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, mg_value dy,
                                  mg_value sums, const struct mg_groupnorm *params) {
    MG_OP_INPUTS(x, gamma, beta, dy, sums);
    if (!mg_op_begin(graph, &op, MG_OP_GROUPNORM_GRADIENT, in))
        return MG_NONE;
    op.params.groupnorm = *params;
    const struct mg_tensor *s = &op.in[4];
    if (!mg_tensor_same_shape(&op.in[0], &op.in[3]) || s->dim[0] != op.in[0].dim[0] || s->dim[1] != 1 ||
        s->dim[2] != 4 || s->dim[3] != op.in[0].dim[3])
        return mg_op_refuse(graph, &op, "dy must have the shape of x, the sums (N, 1, 4, C)");
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_layernorm_sums(struct mg_graph *graph, mg_value x, mg_value dy, float epsilon) {
    MG_OP_INPUTS(x, dy, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_LAYERNORM_SUMS, in))
        return MG_NONE;
    op.params.layernorm.epsilon = epsilon;
    if (!mg_tensor_same_shape(&op.in[0], &op.in[1]))
        return mg_op_refuse(graph, &op, "dy must have the shape of x");
    op.out = (struct mg_tensor){.dtype = MG_F32, .ndim = 4, .dim = {op.in[0].dim[0], 1, 2, op.in[0].dim[3]}};
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_layernorm_gradient(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value dy, float epsilon) {
    MG_OP_INPUTS(x, gamma, dy, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_LAYERNORM_GRADIENT, in))
        return MG_NONE;
    op.params.layernorm.epsilon = epsilon;
    if (!mg_tensor_same_shape(&op.in[0], &op.in[2]) || !is_vector(&op.in[1], op.in[0].dim[3]))
        return mg_op_refuse(graph, &op, "dy must have the shape of x, gamma C elements");
    return mg_graph_append(graph, &op, in);
}

/* ---- attention ---- */
mg_value mg_op_attention_rows(struct mg_graph *graph, mg_value q, mg_value k, mg_value out, mg_value dy,
                              const struct mg_attention *params) {
    MG_OP_INPUTS(q, k, out, dy, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_ATTENTION_ROWS, in))
        return MG_NONE;
    op.params.attention = *params;
    if (!mg_tensor_same_shape(&op.in[0], &op.in[2]) || !mg_tensor_same_shape(&op.in[0], &op.in[3]) ||
        op.in[1].dim[3] != op.in[0].dim[3])
        return mg_op_refuse(graph, &op, "the output and dy must have the shape of q, and k its channels");
    op.out.dtype = MG_F32;
    op.out.dim[3] = 2 * params->heads;
    return mg_graph_append(graph, &op, in);
}

/* What both gradients of attention read. */
static bool begin_attention(struct mg_graph *graph, struct mg_op_shape *op, mg_op_kind kind, const mg_value *in,
                            const struct mg_attention *params) {
    if (!mg_op_begin(graph, op, kind, in))
        return false;
    op->params.attention = *params;
    const struct mg_tensor *q = &op->in[0], *k = &op->in[1], *rows = &op->in[4];
    if (mg_tensor_same_shape(k, &op->in[2]) && mg_tensor_same_shape(q, &op->in[3]) && k->dim[3] == q->dim[3] &&
        (k->dim[0] == 1 || k->dim[0] == q->dim[0]) && same_pixels(q, rows) && rows->dim[3] == 2 * params->heads)
        return true;
    mg_op_refuse(graph, op, "k and v must have one shape, q and dy another, and the rows (N, H, W, 2 heads)");
    return false;
}

mg_value mg_op_attention_query_gradient(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, mg_value dy,
                                        mg_value rows, const struct mg_attention *params) {
    MG_OP_INPUTS(q, k, v, dy, rows);
    if (!begin_attention(graph, &op, MG_OP_ATTENTION_QUERY_GRADIENT, in, params))
        return MG_NONE;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_attention_key_value_gradient(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, mg_value dy,
                                            mg_value rows, const struct mg_attention *params) {
    MG_OP_INPUTS(q, k, v, dy, rows);
    if (!begin_attention(graph, &op, MG_OP_ATTENTION_KEY_VALUE_GRADIENT, in, params))
        return MG_NONE;
    op.out = op.in[1];
    op.out.dim[3] *= 2;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_self_attention_gradient(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, mg_value out,
                                       mg_value dy, const struct mg_attention *params) {
    MG_OP_INPUTS(q, k, v, out, dy);
    if (!mg_op_begin(graph, &op, MG_OP_SELF_ATTENTION_GRADIENT, in))
        return MG_NONE;
    op.params.attention = *params;
    for (int slot = 1; slot < MG_MAX_INPUTS; slot++)
        if (!mg_tensor_same_kind(&op.in[0], &op.in[slot]) || params->causal)
            return mg_op_refuse(graph, &op, "all inputs must have one shape and type, and every query sees every key");
    op.out.dim[3] *= 3;
    return mg_graph_append(graph, &op, in);
}

/* ---- pointwise, pixels and channels ---- */
mg_value mg_op_geglu_gradient(struct mg_graph *graph, mg_value x, mg_value dy) {
    MG_OP_INPUTS(x, dy, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_GEGLU_GRADIENT, in))
        return MG_NONE;
    if (!same_pixels(&op.in[0], &op.in[1]) || op.in[0].dim[3] != 2 * op.in[1].dim[3])
        return mg_op_refuse(graph, &op, "x must have the pixels of dy and twice its channels");
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_activation_gradient(struct mg_graph *graph, mg_value x, mg_value dy, mg_activation activation) {
    MG_OP_INPUTS(x, dy, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_ACTIVATION_GRADIENT, in))
        return MG_NONE;
    op.params.activation = activation;
    if (!mg_tensor_same_shape(&op.in[0], &op.in[1]))
        return mg_op_refuse(graph, &op, "dy must have the shape of x");
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_nearest_gradient(struct mg_graph *graph, mg_value dy, int64_t h, int64_t w) {
    MG_OP_INPUTS(dy, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_NEAREST_GRADIENT, in))
        return MG_NONE;
    op.out.dim[1] = h;
    op.out.dim[2] = w;
    return mg_graph_append(graph, &op, in);
}

mg_value mg_op_channel_pad(struct mg_graph *graph, mg_value x, int64_t begin, int64_t channels) {
    MG_OP_INPUTS(x, MG_NONE, MG_NONE, MG_NONE, MG_NONE);
    if (!mg_op_begin(graph, &op, MG_OP_CHANNEL_PAD, in))
        return MG_NONE;
    if (begin < 0 || begin > channels - op.in[0].dim[3])
        return mg_op_refuse(graph, &op, "the channels must lie within those of the result");
    op.params.slice = (struct mg_slice){.begin = begin, .count = op.in[0].dim[3]};
    op.out.dim[3] = channels;
    return mg_graph_append(graph, &op, in);
}
