/* op.h: the operation record, all that a backend sees of a graph. Knows core only. */
#ifndef MG_OP_H
#define MG_OP_H
#include "../core/core.h"

typedef enum mg_op_kind {
#define MG_OP(ID, name, inputs, required, alias, meaning) MG_OP_##ID,
#include "ops.def"
#undef MG_OP
    MG_OP_COUNT
} mg_op_kind;

enum { MG_MAX_INPUTS = 5 };

typedef enum mg_activation {
    MG_ACT_NONE,
    MG_ACT_SILU,
    MG_ACT_GELU,
    MG_ACT_QUICK_GELU,
    MG_ACT_RELU,
    MG_ACT_TANH
} mg_activation;

/* Output height = (h + pad_top + pad_bottom - R) / stride + 1, where h is upsampled_h if not 0, else the input's. The
 * upsampling is nearest: source row = min(floor(row * (float)in_h / h), in_h - 1), in float32 as in torch. */
struct mg_conv2d {
    int stride;
    int pad_top, pad_left, pad_bottom, pad_right;
    int64_t upsampled_h, upsampled_w;
    bool relu;
};
struct mg_linear {
    mg_activation activation;
    bool few_rows; /* of time steps or words, never of pixels: the weight is read once and not worth re-ordering */
};
struct mg_groupnorm {
    int groups;
    float epsilon;
    bool silu;
};
struct mg_layernorm {
    float epsilon;
};
struct mg_attention {
    int heads;
    float scale;
    bool causal; /* token i sees tokens 0..i */
};
struct mg_slice {
    int64_t begin, count;
};
struct mg_scale {
    float factor, offset;
};
/* frequency i of half = C/2: exp(-log(max_period) * i / (half - frequency_shift)); flip: cosines first. */
struct mg_time_embedding {
    int64_t channels;
    bool flip_sin_to_cos;
    float frequency_shift;
    float max_period;
};

union mg_op_params {
    struct mg_conv2d conv2d;
    struct mg_linear linear;
    struct mg_groupnorm groupnorm;
    struct mg_layernorm layernorm;
    struct mg_attention attention;
    mg_activation activation;
    struct mg_slice slice;
    struct mg_scale scale; /* MG_OP_SCALE; the type that MG_OP_CAST makes is that of `out` */
    struct mg_time_embedding time_embedding;
};

/* Gradients take the parameters of the forward operation: conv2d and linear for those of their inputs and weights, and so on.
 * vector_gradient and channel_pad take a slice.
 *
 * The gradient of a parameter is float32 and lies in the layout of the parameter: see mg_backend.weight_layout. */

/* Everything a backend needs to plan an operation: kind, parameters, shapes and types (ndim 0: the slot is empty).
 * Activations are float32, bfloat16 or, on a GPU, float16, and an operation's output has the type of its first input, but for casts. The type of
 * a weight in slot 1 of conv2d and linear is what its elements may be rounded to: that of x, or int8. Vectors (biases, gamma,
 * beta), channel vectors and factors are float32; keys and values of attention may differ from the queries. */
struct mg_op_shape {
    mg_op_kind kind;
    union mg_op_params params;
    struct mg_tensor in[MG_MAX_INPUTS];
    struct mg_tensor out;
};

/* ... and to run it. in[i] is NULL for an empty slot. */
struct mg_op_call {
    const struct mg_op_shape *op;
    const void *in[MG_MAX_INPUTS];
    void *out;
    void *workspace; /* as many bytes as workspace_bytes() asked for, 64-byte aligned; NULL if none */
};

struct mg_op_info {
    const char *name;
    int inputs;
    unsigned required, alias;
    const char *meaning;
    bool is_gradient; /* only training records it */
};
const struct mg_op_info *mg_op_info_of(mg_op_kind kind);
#endif
