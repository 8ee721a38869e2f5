/* backend.h: the table of functions behind which a device runs operations. A backend knows core and op. */
#ifndef MG_BACKEND_H
#define MG_BACKEND_H
#include "../op/op.h"

/* How a backend wants a weight: as stored, converted to float32, or re-ordered and perhaps rounded. One weight may be wanted
 * in one layout only; the first operation that uses it decides. */
struct mg_weight_layout {
    int panel;      /* 0: float32 in the order of the checkpoint; used in place when the file holds float32.
                     * Else: the weight (K, C) or (K, C, R, S) as a matrix of R*S*C rows (position in the window, then channel)
                     * and K columns, cut into panels of so many columns, zeros past K. */
    int group;      /* consecutive channels that lie side by side: a panel is [R*S][ceil(C/group)][panel][group] */
    mg_dtype dtype; /* of the elements: MG_F32, MG_BF16, or MG_I8 with a scale for each column */
};

/* Where the parts of a weight in panels lie. */
struct mg_panels {
    int64_t channels; /* C rounded up to whole groups */
    int64_t rows;     /* of a panel: R*S*channels */
    int64_t count;    /* panels */
    size_t panel_bytes;
    size_t scales, sums; /* MG_I8: offsets of float scales[count*panel] and int32 sums of a column's elements */
    size_t bytes;        /* of the whole */
};
/* False if the bytes cannot be addressed. layout.panel > 0. */
bool mg_panels_of(struct mg_panels *out, struct mg_weight_layout layout, const struct mg_tensor *shape);
bool mg_same_layout(struct mg_weight_layout a, struct mg_weight_layout b);

/* One step of Adam (arXiv 1412.6980), or AdamW (1711.05101) if the decay is decoupled. With g the gradient times
 * gradient_factor (plus decay * w if not decoupled): m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g g;
 * w = w (1 - learning_rate decay, if decoupled) - learning_rate / correction1 * m / (sqrt(v) / sqrt(correction2) + epsilon). */
struct mg_adam {
    float learning_rate, beta1, beta2, epsilon, decay;
    bool decoupled;
    float gradient_factor;
    float correction1, correction2; /* 1 - beta^step */
};

enum { MG_GROUP_NAME = 128 };

struct mg_backend {
    const char *name;
    bool trains;                   /* runs gradients, too */
    bool fuses_attention_gradient; /* has self_attention_gradient */
    /* Fills context->backend_state, context->isa and, for a device with memory of its own, context->memory. `isa` NULL: the
     * best of this processor. */
    mg_status (*open)(struct mg_context *context, const char *isa, struct mg_err *err);
    /* After everything in the context's memory is freed; also if open failed. */
    void (*close)(struct mg_context *context);
    /* NULL (float32 and bfloat16), or whether activations may be of this type on this device. */
    mg_status (*check_type)(const struct mg_context *context, mg_dtype activations, struct mg_err *err);
    struct mg_weight_layout (*weight_layout)(const struct mg_context *context, const struct mg_op_shape *op, int slot);
    /* Scratch bytes that run() needs, for context->num_threads threads. Checked arithmetic: SIZE_MAX means too large. */
    size_t (*workspace_bytes)(const struct mg_context *context, const struct mg_op_shape *op);
    /* NULL, or how many bytes before input 0, in the same memory, the output may begin, if that input dies here:
     *
     *     address  --->
     *     input              | row 0 | row 1 | row 2 | row 3 | ...
     *     output   | row 0 | row 1 | row 2 | row 3 | ...
     *              |<- gap ->|
     *
     * A row of the output is written over rows of the input that no later row reads: the gap holds what the first rows still
     * need. 0: it may not. Worth it for large maps only, as it keeps the operation to one order of rows. */
    size_t (*trailing_gap)(const struct mg_context *context, const struct mg_op_shape *op);
    /* Cannot fail: shapes and memory were checked when the graph was built and planned. Only a device may, and
     * tells it in finish(). It may still be at work when run() returns. */
    void (*run)(const struct mg_context *context, const struct mg_op_call *call);
    /* NULL, or waits for the operations so far and tells what failed of them since the last call. */
    mg_status (*finish)(const struct mg_context *context, struct mg_err *err);
    /* NULL, or for a device that repeats a list of calls with less effort than it makes them. If record() begins a recording,
     * run() notes a call instead of making it until recorded(), which must follow; replay() makes all of them, on the memory
     * that they were noted with. forget() gives the recording back. */
    mg_status (*record)(bool *begun, const struct mg_context *context, struct mg_err *err);
    mg_status (*recorded)(void **recording, const struct mg_context *context, struct mg_err *err);
    void (*replay)(const struct mg_context *context, void *recording);
    void (*forget)(const struct mg_context *context, void *recording);
    /* NULL, or what this machine reaches, measured for about `seconds`: out->products and out->copy. */
    mg_status (*measure)(const struct mg_context *context, double seconds, struct mg_machine_speed *out,
                         struct mg_err *err);
    /* Where `trains`. One step on `count` numbers, whose gradients become 0. */
    void (*adam)(const struct mg_context *context, float *weight, float *gradient, float *m, float *v, int64_t count,
                 const struct mg_adam *params);
    /* The same for any number of threads. */
    double (*sum_of_squares)(const struct mg_context *context, const float *x, int64_t count);
    /* average = keep * average + take * x, of `count` numbers. */
    void (*average)(const struct mg_context *context, float *average, const float *x, int64_t count, float keep,
                    float take);
    /* NULL where weights lie in the host's memory, for which mg_repack_weight does it; or brings the float32 panels that are
     * trained into the layout of the same panels that operations read, of two bytes an element, rounded. */
    void (*round_weight)(const struct mg_context *context, void *out, struct mg_weight_layout layout,
                         const struct mg_tensor *shape, const float *master);
    /* NULL, or for devices of several processes that train together, one each. One of them makes the name of the group, which
     * reaches the others somehow; join() returns when all have called it. sum() replaces x by its sum over all processes, to
     * the same bits in each, and waits for it; if it fails, the group is of no more use. leave() waits for nobody: it is
     * for when all processes know that the last sum is done, or after a failure. */
    mg_status (*group_name)(char name[MG_GROUP_NAME], struct mg_err *err);
    mg_status (*join)(void **group, const struct mg_context *context, const char name[MG_GROUP_NAME], int rank,
                      int size, struct mg_err *err);
    mg_status (*sum)(const struct mg_context *context, void *group, float *x, int64_t count, struct mg_err *err);
    void (*leave)(const struct mg_context *context, void *group);
};

/* Bytes of a weight in a layout; SIZE_MAX if they cannot be addressed. */
size_t mg_packed_bytes(struct mg_weight_layout layout, const struct mg_tensor *shape);
/* Brings a weight into a layout, converting from `dtype`. int8: round(w * 127 / largest of the column). */
void mg_pack_weight(void *out, struct mg_weight_layout layout, const struct mg_tensor *shape, const void *data,
                    mg_dtype dtype, int num_threads);

/* The reverse: the weight as float32 in the order of the checkpoint. */
void mg_unpack_weight(float *out, const struct mg_tensor *shape, const void *packed, struct mg_weight_layout from,
                      int num_threads);
/* From one layout into another. With the same type in both: what mg_pack_weight makes of the original, bit by bit. */
void mg_repack_weight(void *out, struct mg_weight_layout layout, const struct mg_tensor *shape, const void *packed,
                      struct mg_weight_layout from, int num_threads);

/* ---- layout_text.c: "float32", or type, panel and group as in "bfloat16/32/2" ---- */
enum { MG_LAYOUT_TEXT = 64 };
const char *mg_layout_text(char buffer[MG_LAYOUT_TEXT], struct mg_weight_layout layout); /* returns buffer */
/* False for what mg_layout_text never writes, and for layouts that no backend asks for. */
bool mg_layout_read(struct mg_weight_layout *out, const char *text);

/* "cpu" | "ref" | "cuda", the last also with a number ("cuda:1"); MG_ERR_DEVICE naming the known ones otherwise, or what
 * a device lacks. */
mg_status mg_backend_find(const struct mg_backend **out, const char *name, struct mg_err *err);
/* Finds the backend of a device and opens it for the context. */
mg_status mg_backend_open(struct mg_context *context, const char *device, const char *isa, struct mg_err *err);

/* ---- library.c ---- */
/* The CUDA backend: libmarigold_cuda.so beside the engine, or the file that MARIGOLD_CUDA_LIBRARY names. It stays loaded.
 * MG_ERR_DEVICE if it is not there, lacks a library, or was built with another version of the engine. */
mg_status mg_cuda_library_load(const struct mg_backend **out, struct mg_err *err);

extern const struct mg_backend mg_backend_ref, mg_backend_cpu;
#endif
