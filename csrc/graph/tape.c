/* tape.c: appends the backward pass to a recorded network: walks its operations backwards and calls, for each, the
 * builders of its gradients. Layers are written once, forward only. Calls gradient_builders.c and builders.c.
 *
 * Nothing here places memory: what a backward operation reads lives until then, and the planner sees it as any other tensor.
 * To save memory some values are not kept but computed again when a gradient first asks for them: the outputs of cheap
 * operations always, and with `recompute` all values of a segment that no operation outside of it reads. */
#include "builders.h"

struct tape {
    struct mg_graph *graph;
    int num_ops, num_nodes; /* of the forward pass */
    bool recompute;
    /* By node of the forward pass: */
    bool *needed;       /* a trained weight or a wanted input, or depends on one */
    bool *crosses;      /* read outside the segment that makes it */
    mg_value *gradient; /* so far; for weights the memory it is added to */
    mg_value *again;    /* the value computed again, or MG_NONE */
};

/* ---- values of the forward pass, as the backward pass reads them ---- */

/* One pass over memory, whose inputs are kept anyhow, for their own gradients; or a linear layer that makes more than it
 * reads: the first of a feed-forward layer costs a hundredth of the whole and is as large as all the rest of it. */
static bool is_cheap(const struct mg_op_shape *op) {
    switch (op->kind) {
    case MG_OP_LINEAR:
        return !op->params.linear.few_rows && op->out.dim[3] > op->in[0].dim[3];
    case MG_OP_GROUPNORM:
    case MG_OP_LAYERNORM:
    case MG_OP_GEGLU:
    case MG_OP_ACTIVATION:
    case MG_OP_CONCAT:
    case MG_OP_CHANNEL_SLICE:
    case MG_OP_SCALE:
    case MG_OP_CAST:
        return true;
    default:
        return false;
    }
}

static bool is_dropped(const struct tape *tape, mg_value value) {
    const struct mg_node *node = &tape->graph->nodes[value];
    if (node->role != MG_ROLE_ACTIVATION || node->constant)
        return false;
    const struct mg_graph_op *op = &tape->graph->ops[node->producer];
    return is_cheap(&op->shape) || (tape->recompute && op->segment && !tape->crosses[value]);
}

/* The value, or its copy: recorded now, when it was dropped and nobody has asked before. */
static mg_value kept(struct tape *tape, mg_value value) {
    if (value == MG_NONE || !is_dropped(tape, value))
        return value;
    if (tape->again[value] != MG_NONE)
        return tape->again[value];
    const struct mg_graph_op op = tape->graph->ops[tape->graph->nodes[value].producer];
    mg_value in[MG_MAX_INPUTS];
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        in[slot] = kept(tape, op.in[slot]);
    return tape->again[value] = mg_graph_append(tape->graph, &op.shape, in);
}

/* ---- sums of gradients ---- */
static bool needs(const struct tape *tape, mg_value value) { return value != MG_NONE && tape->needed[value]; }

/* Another operation that reads `value` contributes to its gradient. */
static void contribute(struct tape *tape, mg_value value, mg_value gradient) {
    if (!needs(tape, value))
        return;
    mg_value *sum = &tape->gradient[value];
    *sum = *sum == MG_NONE ? gradient : mg_op_add(tape->graph, gradient, *sum);
}

/* Where gradients of a weight are added; MG_NONE if it is not trained. */
static mg_value *parameter(struct tape *tape, mg_value weight) {
    if (!needs(tape, weight))
        return NULL;
    mg_value *sum = &tape->gradient[weight];
    if (*sum == MG_NONE)
        *sum = mg_graph_parameter_gradient(tape->graph, weight);
    return sum;
}

static void contribute_vector(struct tape *tape, mg_value weight, mg_value dy, int64_t begin, int64_t count) {
    mg_value *sum = parameter(tape, weight);
    if (sum)
        *sum = mg_op_vector_gradient(tape->graph, dy, *sum, begin, count);
}

static void contribute_bias(struct tape *tape, mg_value bias, mg_value dy) {
    contribute_vector(tape, bias, dy, 0, mg_graph_dim(tape->graph, dy)[2]);
}

/* The gradient of what was broadcast over images or pixels is the sum of theirs. */
static void contribute_reduced(struct tape *tape, mg_value value, mg_value dy) {
    if (!needs(tape, value))
        return;
    const int64_t *big = mg_graph_dim(tape->graph, dy), *dim = mg_graph_dim(tape->graph, value);
    if (big[0] != dim[0] || big[1] != dim[1] || big[2] != dim[2])
        dy = mg_op_reduce(tape->graph, dy, dim[0], dim[1], dim[2]);
    contribute(tape, value, mg_op_cast(tape->graph, dy, tape->graph->nodes[value].tensor.dtype));
}

/* ---- the rules: op is a copy, for the list grows ---- */
typedef void rule(struct tape *tape, const struct mg_graph_op *op, mg_value dy);

static void of_conv2d(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const struct mg_conv2d *p = &op->shape.params.conv2d;
    struct mg_graph *graph = tape->graph;
    const mg_value x = op->in[0];
    if (p->relu) /* positive where the sum was */
        dy = mg_op_activation_gradient(graph, kept(tape, op->out), dy, MG_ACT_RELU);
    contribute(tape, op->in[3], dy);
    contribute_bias(tape, op->in[2], dy);
    contribute_reduced(tape, op->in[4], dy);
    mg_value *sum = parameter(tape, op->in[1]);
    if (sum)
        *sum = mg_op_conv2d_weight_gradient(graph, kept(tape, x), dy, *sum, p);
    if (!needs(tape, x))
        return;
    const int64_t *size = op->shape.in[0].dim;
    if (!p->upsampled_h && !p->upsampled_w) {
        tape->gradient[x] = mg_op_conv2d_input_gradient(graph, dy, op->in[1], tape->gradient[x], size[1], size[2], p);
        return;
    }
    dy = mg_op_conv2d_input_gradient(graph, dy, op->in[1], MG_NONE, p->upsampled_h ? p->upsampled_h : size[1],
                                     p->upsampled_w ? p->upsampled_w : size[2], p);
    contribute(tape, x, mg_op_nearest_gradient(graph, dy, size[1], size[2]));
}

static void of_linear(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const struct mg_linear *p = &op->shape.params.linear;
    struct mg_graph *graph = tape->graph;
    const mg_value x = op->in[0];
    contribute(tape, op->in[3], dy);
    if (p->activation != MG_ACT_NONE) { /* what went into it was not kept */
        struct mg_linear plain = *p;
        plain.activation = MG_ACT_NONE;
        const mg_value sums = mg_op_linear(graph, kept(tape, x), op->in[1], op->in[2], MG_NONE, &plain);
        dy = mg_op_activation_gradient(graph, sums, dy, p->activation);
    }
    contribute_bias(tape, op->in[2], dy);
    mg_value *sum = parameter(tape, op->in[1]);
    if (sum)
        *sum = mg_op_linear_weight_gradient(graph, kept(tape, x), dy, *sum, p);
    if (needs(tape, x))
        tape->gradient[x] = mg_op_linear_input_gradient(graph, dy, op->in[1], tape->gradient[x], p);
}

static void of_groupnorm(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const struct mg_groupnorm *p = &op->shape.params.groupnorm;
    const mg_value x = kept(tape, op->in[0]), gamma = op->in[1], beta = op->in[2];
    const mg_value sums = mg_op_groupnorm_sums(tape->graph, x, gamma, beta, dy, p);
    contribute_vector(tape, beta, sums, 2, 1);
    contribute_vector(tape, gamma, sums, 3, 1);
    if (needs(tape, op->in[0]))
        contribute(tape, op->in[0], mg_op_groupnorm_gradient(tape->graph, x, gamma, beta, dy, sums, p));
}

static void of_layernorm(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const float epsilon = op->shape.params.layernorm.epsilon;
    const mg_value x = kept(tape, op->in[0]), gamma = op->in[1], beta = op->in[2];
    if (needs(tape, gamma) || needs(tape, beta)) {
        const mg_value sums = mg_op_layernorm_sums(tape->graph, x, dy, epsilon);
        contribute_vector(tape, beta, sums, 0, 1);
        contribute_vector(tape, gamma, sums, 1, 1);
    }
    if (needs(tape, op->in[0]))
        contribute(tape, op->in[0], mg_op_layernorm_gradient(tape->graph, x, gamma, dy, epsilon));
}

/* One operation for all three, where the backend has it. */
static void of_self_attention(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const int64_t channels = op->shape.in[0].dim[3];
    const mg_value all =
        mg_op_self_attention_gradient(tape->graph, kept(tape, op->in[0]), kept(tape, op->in[1]), kept(tape, op->in[2]),
                                      kept(tape, op->out), dy, &op->shape.params.attention);
    for (int slot = 0; slot < 3; slot++)
        if (needs(tape, op->in[slot]))
            contribute(tape, op->in[slot], mg_op_channel_slice(tape->graph, all, slot * channels, channels));
}

static void of_attention(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const struct mg_attention *p = &op->shape.params.attention;
    struct mg_graph *graph = tape->graph;
    if (op->shape.in[0].dim[0] != graph->nodes[op->in[0]].tensor.dim[0]) {
        mg_graph_fail(graph, MG_ERR_UNSUPPORTED, "attention over the frames of a video has no gradient");
        return;
    }
    if (graph->fuses_attention_gradient && !p->causal && mg_tensor_same_kind(&op->shape.in[0], &op->shape.in[1])) {
        of_self_attention(tape, op, dy);
        return;
    }
    const mg_value q = kept(tape, op->in[0]), k = kept(tape, op->in[1]), v = kept(tape, op->in[2]);
    const mg_value rows = mg_op_attention_rows(graph, q, k, kept(tape, op->out), dy, p);
    if (needs(tape, op->in[0]))
        contribute(tape, op->in[0], mg_op_attention_query_gradient(graph, q, k, v, dy, rows, p));
    if (!needs(tape, op->in[1]) && !needs(tape, op->in[2]))
        return;
    const mg_value both = mg_op_attention_key_value_gradient(graph, q, k, v, dy, rows, p);
    const int64_t channels = op->shape.in[1].dim[3];
    if (needs(tape, op->in[1]))
        contribute(tape, op->in[1], mg_op_channel_slice(graph, both, 0, channels));
    if (needs(tape, op->in[2]))
        contribute(tape, op->in[2], mg_op_channel_slice(graph, both, channels, channels));
}

static void of_geglu(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    contribute(tape, op->in[0], mg_op_geglu_gradient(tape->graph, kept(tape, op->in[0]), dy));
}

static void of_activation(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const mg_value x = kept(tape, op->in[0]);
    contribute(tape, op->in[0], mg_op_activation_gradient(tape->graph, x, dy, op->shape.params.activation));
}

static void of_concat(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    const int64_t a = op->shape.in[0].dim[3], b = op->shape.in[1].dim[3];
    if (needs(tape, op->in[0]))
        contribute(tape, op->in[0], mg_op_channel_slice(tape->graph, dy, 0, a));
    if (needs(tape, op->in[1]))
        contribute(tape, op->in[1], mg_op_channel_slice(tape->graph, dy, a, b));
}

static void of_channel_slice(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    contribute(tape, op->in[0],
               mg_op_channel_pad(tape->graph, dy, op->shape.params.slice.begin, op->shape.in[0].dim[3]));
}

static void of_scale(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    contribute(tape, op->in[0], mg_op_scale(tape->graph, dy, op->shape.params.scale.factor));
}

static void of_cast(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    contribute(tape, op->in[0], mg_op_cast(tape->graph, dy, op->shape.in[0].dtype));
}

static void of_add(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    contribute(tape, op->in[0], dy);
    contribute_reduced(tape, op->in[1], dy);
}

static void of_nchw_to_nhwc(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    contribute(tape, op->in[0], mg_op_nhwc_to_nchw(tape->graph, dy));
}

static void of_nhwc_to_nchw(struct tape *tape, const struct mg_graph_op *op, mg_value dy) {
    contribute(tape, op->in[0], mg_op_nchw_to_nhwc(tape->graph, dy));
}

/* NULL: no gradient passes through. */
static rule *const rules[MG_OP_COUNT] = {
    [MG_OP_CONV2D] = of_conv2d,
    [MG_OP_LINEAR] = of_linear,
    [MG_OP_GROUPNORM] = of_groupnorm,
    [MG_OP_LAYERNORM] = of_layernorm,
    [MG_OP_ATTENTION] = of_attention,
    [MG_OP_GEGLU] = of_geglu,
    [MG_OP_ACTIVATION] = of_activation,
    [MG_OP_CONCAT] = of_concat,
    [MG_OP_CHANNEL_SLICE] = of_channel_slice,
    [MG_OP_SCALE] = of_scale,
    [MG_OP_CAST] = of_cast,
    [MG_OP_ADD] = of_add,
    [MG_OP_NCHW_TO_NHWC] = of_nchw_to_nhwc,
    [MG_OP_NHWC_TO_NCHW] = of_nhwc_to_nchw,
};

/* ---- the walk ---- */
static bool tape_init(struct tape *tape, struct mg_graph *graph, const mg_value *wanted, int count) {
    const size_t nodes = (size_t)graph->num_nodes;
    tape->needed = mg_arena_alloc(&graph->arena, nodes * sizeof *tape->needed);
    tape->crosses = mg_arena_alloc(&graph->arena, nodes * sizeof *tape->crosses);
    tape->gradient = mg_arena_alloc(&graph->arena, nodes * sizeof *tape->gradient);
    tape->again = mg_arena_alloc(&graph->arena, nodes * sizeof *tape->again);
    if (!tape->needed || !tape->crosses || !tape->gradient || !tape->again) {
        mg_graph_fail(graph, MG_ERR_MEMORY, "no memory for a backward pass");
        return false;
    }
    for (mg_value v = 0; v < graph->num_nodes; v++) {
        const struct mg_node *node = &graph->nodes[v];
        tape->gradient[v] = tape->again[v] = MG_NONE;
        tape->needed[v] = node->role == MG_ROLE_WEIGHT && node->weights->trained;
    }
    for (int i = 0; i < count; i++)
        tape->needed[wanted[i]] = true;
    for (int i = 0; i < graph->num_ops; i++)
        for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
            const struct mg_graph_op *op = &graph->ops[i];
            const mg_value in = op->in[slot];
            if (in == MG_NONE)
                continue;
            tape->needed[op->out] |= tape->needed[in];
            if (graph->nodes[in].producer >= 0)
                tape->crosses[in] |= graph->ops[graph->nodes[in].producer].segment != op->segment;
        }
    for (int i = 0; i < graph->num_outputs; i++)
        tape->crosses[graph->outputs[i]] = true;
    return true;
}

void mg_graph_backward(struct mg_graph *graph, mg_value output, mg_value seed, const mg_value *wanted, int count,
                       mg_value *gradients, bool recompute) {
    struct tape tape = {
        .graph = graph, .num_ops = graph->num_ops, .num_nodes = graph->num_nodes, .recompute = recompute};
    for (int i = 0; i < count; i++)
        gradients[i] = MG_NONE;
    if (mg_graph_failed(graph) || !tape_init(&tape, graph, wanted, count))
        return;
    graph->forward_ops = graph->num_ops;
    tape.gradient[output] = seed;
    for (int i = tape.num_ops - 1; i >= 0 && !mg_graph_failed(graph); i--) {
        const struct mg_graph_op op = graph->ops[i];
        const mg_value dy = tape.gradient[op.out];
        if (dy == MG_NONE || !tape.needed[op.out])
            continue;
        if (!rules[op.shape.kind]) {
            mg_graph_fail(graph, MG_ERR_UNSUPPORTED, "%s has no gradient", mg_op_info_of(op.shape.kind)->name);
            return;
        }
        rules[op.shape.kind](&tape, &op, dy);
    }
    for (int i = 0; i < count; i++)
        gradients[i] = tape.gradient[wanted[i]];
}
