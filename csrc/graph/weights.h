/* weights.h: the parameters of one network: which keys its layers declare, what the checkpoint has for them, and the
 * form in which the backend wants them. */
#ifndef MG_WEIGHTS_H
#define MG_WEIGHTS_H
#include "../backend/backend.h"
#include "../io/checkpoint.h"
#include "../io/packed_file.h"

struct mg_weight {
    const char *key;
    struct mg_tensor shape;                /* as declared; dtype MG_F32 */
    const struct mg_stored_tensor *stored; /* NULL: missing */
    bool misshapen;
    const void *ready; /* NULL until bound; in the mapping, or in `packed` */
    void *packed;
    bool repeated; /* larger than what is stored: see mg_weights.may_repeat */
    /* Trained weights, once bound: the values that an optimiser changes, and sums of gradients; both in the layout of the weight
     * but float32. `packed` is the master itself where that is its layout. Moving weights have a master only. */
    float *master, *gradient;
    struct mg_weight_layout layout; /* once has_layout */
    bool has_layout;
};

struct mg_weights {
    const char *component; /* "unet": prefix of messages */
    struct mg_checkpoint checkpoint;
    struct mg_weight *list;
    size_t count, capacity;
    struct mg_arena arena;
    const struct mg_context *context; /* NULL, or that in whose memory weights were made ready */
    int64_t parameters;               /* elements declared */
    float *masters, *gradients;       /* of all trained weights, a block each: see mg_weights_bind */
    int64_t block_count;              /* numbers in a block, padding included */
    /* To be set before the first graph: weights are no constants (nothing made of them is folded), are never used in place,
     * and have gradients. */
    bool trained;
    /* The same, with masters and without gradients: weights that follow others, such as their average. */
    bool moving;
    /* Of trained weights: there is no block of gradients. A gradient lives in the memory of a plan's activations, from the first
     * operation that adds to it (before which it becomes 0) to when gradient_done is told of it. */
    bool passes_gradients;
    /* NULL, or told during a backward pass that no operation after this one adds to the gradient of weight `index` or reads the
     * weight. */
    void (*gradient_done)(void *user, int index, float *gradient);
    void *gradient_user;
    /* NULL, or tells that a weight may be declared a whole number of times larger than it is stored: it is repeated along both
     * axes, and divided by the number of times along the second. */
    bool (*may_repeat)(const char *key);
    /* NULL, or other names under which older files hold a key (deprecated attention names): returns false when `n` is
     * past the last alias. */
    bool (*alias)(char *out, size_t bytes, const char *key, int n);
    /* NULL, or tells that an undeclared tensor of the file may be ignored (buffers such as position_ids). */
    bool (*may_ignore)(const char *key);
};
mg_status mg_weights_open(struct mg_weights *out, const char *component, const char *folder, const char *variant,
                          struct mg_err *err);
/* The same over a component of a packed file (io/packed_file.h), which must outlive it. */
mg_status mg_weights_open_packed(struct mg_weights *out, const char *component, const struct mg_packed_file *file,
                                 struct mg_err *err);
void mg_weights_close(struct mg_weights *weights);
/* Index of the weight `key`, declared now or earlier. A second declaration must have the same shape. */
mg_status mg_weights_declare(int *index, struct mg_weights *weights, const char *key, int ndim, const int64_t *dim,
                             struct mg_err *err);
/* After every layer has declared its weights once: one error that lists all missing, misshapen and unused tensors. */
mg_status mg_weights_check(const struct mg_weights *weights, struct mg_err *err);
/* The layout in which weight `index` is wanted; a second one must be the same. */
mg_status mg_weights_choose(struct mg_weights *weights, int index, struct mg_weight_layout layout, struct mg_err *err);
/* Bytes of weight `index` in the layout chosen; SIZE_MAX if they cannot be addressed. */
size_t mg_weights_packed_bytes(const struct mg_weights *weights, int index);
/* The layout of masters and gradients: that of the weight, but float32. Its bytes, padding included, which stays 0. */
struct mg_weight_layout mg_weights_master_layout(const struct mg_weights *weights, int index);
size_t mg_weights_master_bytes(const struct mg_weights *weights, int index);
/* After the master of weight `index` was changed: what operations read follows, rounded. A device may still be at work then,
 * and tells in its finish() what failed. */
void mg_weights_follow_master(const struct mg_weights *weights, int index);
/* What binding the weights that have a layout will still allocate. */
size_t mg_weights_unbound_bytes(const struct mg_weights *weights, const struct mg_context *context);
/* Brings weight `index` from the file into the layout chosen, into mg_weights_packed_bytes bytes at `out`. */
mg_status mg_weights_pack(void *out, const struct mg_weights *weights, int index, int num_threads, struct mg_err *err);
/* The same, into float32 in the order of the checkpoint: what an unpacked checkpoint holds. */
mg_status mg_weights_unpack(float *out, const struct mg_weights *weights, int index, int num_threads,
                            struct mg_err *err);
/* Makes weight `index` ready in the layout chosen: in place where the file has it so. Accounts bytes in the context.
 * Masters and gradients: the first trained weight makes the memory of all whose layout is chosen by then, the last declared
 * first. That is about the order in which a backward pass is done with them, and the same for every size of the images. */
mg_status mg_weights_bind(struct mg_weights *weights, int index, struct mg_context *context, struct mg_err *err);
/* Lets the kernel drop the pages of weights used in place, while another network runs: they are read again from the file (the
 * page cache) when next needed. */
void mg_weights_release(const struct mg_weights *weights);
#endif
