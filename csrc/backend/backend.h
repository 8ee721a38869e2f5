/* backend.h: the table of functions behind which a device runs operations. A backend knows core and graph/op.h. */
#ifndef MG_BACKEND_H
#define MG_BACKEND_H
#include "../graph/op.h"

/* How a backend wants a weight: as stored, converted to float32, or re-ordered. One weight may be wanted in one layout
 * only; the first operation that uses it decides. */
struct mg_weight_layout {
    int panel; /* 0: float32 in the order of the checkpoint; used in place when the file holds float32.
                * Else: the weight (K, C) or (K, C, R, S) as a matrix of R*S*C rows (position in the window, then channel)
                * and K columns, cut into panels of so many columns: [ceil(K/panel)][R*S*C][panel], zeros past K. */
};

struct mg_backend {
    const char *name;
    /* Fills context->backend_state and context->isa. `isa` NULL: the best of this processor. */
    mg_status (*open)(struct mg_context *context, const char *isa, struct mg_err *err);
    void (*close)(struct mg_context *context);
    struct mg_weight_layout (*weight_layout)(const struct mg_context *context, const struct mg_op_shape *op, int slot);
    /* Scratch bytes that run() needs, for context->num_threads threads. Checked arithmetic: SIZE_MAX means too large. */
    size_t (*workspace_bytes)(const struct mg_context *context, const struct mg_op_shape *op);
    /* Cannot fail: shapes and memory were checked when the graph was built and planned. */
    void (*run)(const struct mg_context *context, const struct mg_op_call *call);
};

/* Floats of a weight in a layout; SIZE_MAX if they cannot be addressed. */
size_t mg_packed_floats(struct mg_weight_layout layout, const struct mg_tensor *shape);
/* Brings a weight into a layout, converting to float32. */
void mg_pack_weight(float *out, struct mg_weight_layout layout, const struct mg_tensor *shape, const void *data,
                    mg_dtype dtype, int num_threads);

/* "cpu" | "ref"; MG_ERR_DEVICE naming the known ones otherwise. */
mg_status mg_backend_find(const struct mg_backend **out, const char *name, struct mg_err *err);
extern const struct mg_backend mg_backend_ref, mg_backend_cpu;
#endif
