/* graph.h: a network as a flat list of operations, recorded by builders, planned once, run many times.
 *
 * Layers (nn/) call the builders. A builder infers and checks shapes; the first error sticks to the graph, every later
 * builder call returns MG_NONE at once, and mg_graph_status() reports it: layer code needs no error handling of its own.
 * Operations whose inputs are all constants or weights are computed once, when the graph is planned.
 */
#ifndef MG_GRAPH_H
#define MG_GRAPH_H
#include "../op/op.h"
#include "weights.h"

typedef int mg_value; /* index of a tensor in its graph */
enum { MG_NONE = -1 };

/* GRADIENT: of a weight, in memory of the weights' own, to which operations add. */
typedef enum mg_role { MG_ROLE_INPUT, MG_ROLE_CONSTANT, MG_ROLE_WEIGHT, MG_ROLE_ACTIVATION, MG_ROLE_GRADIENT } mg_role;

struct mg_node {
    struct mg_tensor tensor;
    mg_role role;
    bool constant; /* known at planning time */
    bool late;     /* an input that is given to the backward pass */
    int producer;  /* operation index, or -1 */
    int weight;    /* index in `weights`, or -1 */
    struct mg_weights *weights;
    const char *name; /* inputs and outputs */
    const void *data; /* constants: owned by the graph's arena, or folded */
};

struct mg_graph_op {
    struct mg_op_shape shape;
    mg_value in[MG_MAX_INPUTS];
    mg_value out;
    int segment; /* 0, or the number of the segment that may be computed again */
};

enum { MG_MAX_OUTPUTS = 4 };

/* What a network computes with. */
struct mg_precision {
    const char *name;     /* "float32", ... */
    mg_dtype activations; /* MG_F32, MG_BF16 or, on devices that have it, MG_F16 */
    mg_dtype weights;     /* of convolutions and linear layers on bfloat16 activations: MG_BF16 or MG_I8 */
    const char *const
        *exceptions; /* NULL, or parts of keys, NULL at the end: weights that stay in the activations' type */
};

struct mg_graph {
    struct mg_weights *weights;    /* of the layers that follow: may change between networks */
    struct mg_precision precision; /* zeros: float32. To be set before the first layer. */
    bool fuses_attention_gradient; /* of the backend that will run it; to be set before the backward pass */
    struct mg_node *nodes;
    int num_nodes, node_capacity;
    struct mg_graph_op *ops;
    int num_ops, op_capacity;
    size_t floor;              /* where the memory of its activations begins in that which all plans share */
    int forward_ops;           /* operations before the backward pass; 0: there is none */
    int segment, num_segments; /* that being recorded, or 0 */
    mg_value outputs[MG_MAX_OUTPUTS];
    int num_outputs;
    struct mg_arena arena;
    struct mg_err *err; /* the first error */
    char prefix[256];   /* key prefix of the layer being built: "down_blocks.0.resnets.1." */
};

/* err must outlive the graph. weights may be NULL when no layer declares any. */
void mg_graph_init(struct mg_graph *graph, struct mg_weights *weights, struct mg_err *err);
void mg_graph_free(struct mg_graph *graph);
bool mg_graph_failed(const struct mg_graph *graph);
mg_status mg_graph_status(const struct mg_graph *graph);
/* Records an error (formatted) if none is recorded yet; returns MG_NONE. */
mg_value mg_graph_fail(struct mg_graph *graph, mg_status status, const char *format, ...) MG_PRINTF(3, 4);

mg_value mg_graph_input(struct mg_graph *graph, const char *name, int64_t n, int64_t h, int64_t w, int64_t c);
/* Copies the data. */
mg_value mg_graph_constant(struct mg_graph *graph, const float *data, int64_t n, int64_t h, int64_t w, int64_t c);
/* Declares weight PREFIX+key, PREFIX being graph->prefix. */
mg_value mg_graph_weight(struct mg_graph *graph, const char *key, int ndim, const int64_t *dim);
void mg_graph_output(struct mg_graph *graph, const char *name, mg_value value);
const int64_t *mg_graph_dim(const struct mg_graph *graph, mg_value value); /* N, H, W, C; zeros for MG_NONE */

/* Appends "NAME." (formatted) to the key prefix; returns the length to restore with mg_graph_pop. */
size_t mg_graph_push(struct mg_graph *graph, const char *format, ...) MG_PRINTF(2, 3);
void mg_graph_pop(struct mg_graph *graph, size_t length);

/* ---- builders, in the order of ops.def ---- */
mg_value mg_op_conv2d(struct mg_graph *graph, mg_value x, mg_value weight, mg_value bias, mg_value residual,
                      mg_value channel_vector, const struct mg_conv2d *params);
mg_value mg_op_linear(struct mg_graph *graph, mg_value x, mg_value weight, mg_value bias, mg_value residual,
                      const struct mg_linear *params); /* weight (K,C), or (K,C,1,1) of a 1x1 convolution */
mg_value mg_op_groupnorm(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, int groups, float epsilon,
                         bool silu);
mg_value mg_op_layernorm(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, float epsilon);
mg_value mg_op_attention(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, int heads, bool causal);
/* The same for q, k and v of one shape whose batch is sequences of `frames` samples: each token attends to those of all samples of
 * its sequence. Has no gradient. */
mg_value mg_op_joined_attention(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, int heads, int64_t frames);
mg_value mg_op_geglu(struct mg_graph *graph, mg_value x);
mg_value mg_op_activation(struct mg_graph *graph, mg_value x, mg_activation activation);
mg_value mg_op_concat(struct mg_graph *graph, mg_value a, mg_value b);
mg_value mg_op_channel_slice(struct mg_graph *graph, mg_value x, int64_t begin, int64_t count);
mg_value mg_op_scale(struct mg_graph *graph, mg_value x, float factor);                /* offset 0 */
mg_value mg_op_affine(struct mg_graph *graph, mg_value x, float factor, float offset); /* records a scale, too */
mg_value mg_op_cast(struct mg_graph *graph, mg_value x, mg_dtype dtype);               /* x itself if it has the type */
mg_value mg_op_add(struct mg_graph *graph, mg_value a, mg_value b);
mg_value mg_op_time_embedding(struct mg_graph *graph, mg_value timesteps, const struct mg_time_embedding *params);
mg_value mg_op_token_embedding(struct mg_graph *graph, mg_value ids, mg_value table, mg_value positions);
mg_value mg_op_nchw_to_nhwc(struct mg_graph *graph, mg_value x);
mg_value mg_op_nhwc_to_nchw(struct mg_graph *graph, mg_value x);

/* ---- training: tape.c, gradient_builders.c ---- */
/* The operations up to mg_graph_end_segment form a segment, of which a backward pass may keep the inputs only. */
void mg_graph_begin_segment(struct mg_graph *graph);
void mg_graph_end_segment(struct mg_graph *graph);
/* An input for the gradient of `of`, given when the backward pass begins. */
mg_value mg_graph_seed(struct mg_graph *graph, const char *name, mg_value of);
/* Appends the gradients of all operations between `output`, whose gradient is `seed`, and the trained weights and `wanted`
 * inputs: walks the list backwards. Gradients of weights are added to mg_weight.gradient; gradients[i] becomes the gradient
 * of wanted[i], or MG_NONE if the output does not depend on it. What backward operations read of the forward pass lives until
 * then; cheap operations (norms, concatenations, ...) are run again instead, and with `recompute` all of a segment but its
 * inputs: the result is the same to the bit. No operation may be appended afterwards. */
void mg_graph_backward(struct mg_graph *graph, mg_value output, mg_value seed, const mg_value *wanted, int count,
                       mg_value *gradients, bool recompute);
/* The memory to which gradients of a trained weight are added, as a tensor. */
mg_value mg_graph_parameter_gradient(struct mg_graph *graph, mg_value weight);

/* Builders. `sum` may be MG_NONE where it is no parameter gradient; parameter gradients are recorded in place. */
mg_value mg_op_conv2d_input_gradient(struct mg_graph *graph, mg_value dy, mg_value weight, mg_value sum, int64_t h,
                                     int64_t w, const struct mg_conv2d *params); /* h, w: of the upsampled input */
mg_value mg_op_conv2d_weight_gradient(struct mg_graph *graph, mg_value x, mg_value dy, mg_value sum,
                                      const struct mg_conv2d *params);
mg_value mg_op_linear_input_gradient(struct mg_graph *graph, mg_value dy, mg_value weight, mg_value sum,
                                     const struct mg_linear *params);
mg_value mg_op_linear_weight_gradient(struct mg_graph *graph, mg_value x, mg_value dy, mg_value sum,
                                      const struct mg_linear *params);
mg_value mg_op_vector_gradient(struct mg_graph *graph, mg_value dy, mg_value sum, int64_t begin, int64_t count);
mg_value mg_op_reduce(struct mg_graph *graph, mg_value x, int64_t n, int64_t h, int64_t w);
mg_value mg_op_groupnorm_sums(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, mg_value dy,
                              const struct mg_groupnorm *params);
mg_value mg_op_groupnorm_gradient(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value beta, mg_value dy,
                                  mg_value sums, const struct mg_groupnorm *params);
mg_value mg_op_layernorm_sums(struct mg_graph *graph, mg_value x, mg_value dy, float epsilon);
mg_value mg_op_layernorm_gradient(struct mg_graph *graph, mg_value x, mg_value gamma, mg_value dy, float epsilon);
mg_value mg_op_attention_rows(struct mg_graph *graph, mg_value q, mg_value k, mg_value out, mg_value dy,
                              const struct mg_attention *params);
mg_value mg_op_attention_query_gradient(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, mg_value dy,
                                        mg_value rows, const struct mg_attention *params);
mg_value mg_op_attention_key_value_gradient(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, mg_value dy,
                                            mg_value rows, const struct mg_attention *params);
/* Where queries, keys and values have one shape: the three gradients side by side. */
mg_value mg_op_self_attention_gradient(struct mg_graph *graph, mg_value q, mg_value k, mg_value v, mg_value out,
                                       mg_value dy, const struct mg_attention *params);
mg_value mg_op_geglu_gradient(struct mg_graph *graph, mg_value x, mg_value dy);
mg_value mg_op_activation_gradient(struct mg_graph *graph, mg_value x, mg_value dy, mg_activation activation);
mg_value mg_op_nearest_gradient(struct mg_graph *graph, mg_value dy, int64_t h, int64_t w);
mg_value mg_op_channel_pad(struct mg_graph *graph, mg_value x, int64_t begin, int64_t channels);

/* Chooses the layout of every weight that the graph reads (mg_weights_choose), as the context's backend wants it. */
mg_status mg_graph_choose_layouts(const struct mg_graph *graph, const struct mg_context *context, struct mg_err *err);

/* ---- plan and run ---- */
struct mg_plan; /* one graph, planned for one context: offsets in the activation arena, bound weights, constants */

/* Takes the graph over (frees it with the plan, also on failure). Binds weights, folds constants, plans memory and
 * reserves it in the context. */
mg_status mg_plan_create(struct mg_plan **out, struct mg_graph *graph, struct mg_context *context, struct mg_err *err);
void mg_plan_destroy(struct mg_plan *plan);
/* Activations and scratch that a plan of the graph needs, without making it; takes the graph over. */
mg_status mg_graph_bytes(size_t *out, struct mg_graph *graph, struct mg_context *context, struct mg_err *err);
/* Arena bytes; equals the largest sum of live tensors when no gap was needed (tested). */
size_t mg_plan_activation_bytes(const struct mg_plan *plan);
size_t mg_plan_live_bytes(const struct mg_plan *plan); /* lower bound: largest sum of tensors alive at once */
size_t mg_plan_workspace_bytes(const struct mg_plan *plan);
int mg_plan_num_ops(const struct mg_plan *plan);

/* Runs with inputs by name (float32, as many elements as declared) and copies outputs. Polls between operations. */
struct mg_binding {
    const char *name;
    void *data;
};
mg_status mg_plan_run(struct mg_plan *plan, const struct mg_binding *inputs, int num_inputs,
                      const struct mg_binding *outputs, int num_outputs, struct mg_err *err);
/* The same in two parts, for a graph with a backward pass: the second takes the late inputs. Between them the context must
 * run no other plan. Each copies the outputs that it makes. */
mg_status mg_plan_run_forward(struct mg_plan *plan, const struct mg_binding *inputs, int num_inputs,
                              const struct mg_binding *outputs, int num_outputs, struct mg_err *err);
mg_status mg_plan_run_backward(struct mg_plan *plan, const struct mg_binding *inputs, int num_inputs,
                               const struct mg_binding *outputs, int num_outputs, struct mg_err *err);
#endif
