/* backend.h: the table of functions behind which a device runs operations. A backend knows core and graph/op.h. */
#ifndef MG_BACKEND_H
#define MG_BACKEND_H
#include "../graph/op.h"

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

struct mg_backend {
    const char *name;
    /* Fills context->backend_state and context->isa. `isa` NULL: the best of this processor. */
    mg_status (*open)(struct mg_context *context, const char *isa, struct mg_err *err);
    void (*close)(struct mg_context *context);
    struct mg_weight_layout (*weight_layout)(const struct mg_context *context, const struct mg_op_shape *op, int slot);
    /* Scratch bytes that run() needs, for context->num_threads threads. Checked arithmetic: SIZE_MAX means too large. */
    size_t (*workspace_bytes)(const struct mg_context *context, const struct mg_op_shape *op);
    /* NULL, or how an output may follow upon input 0 in its memory: if that input dies here, may begin so many bytes before it
     * and overlap it. 0: it may not. Worth it for large maps only: it keeps the operation to one order. */
    size_t (*trailing_gap)(const struct mg_context *context, const struct mg_op_shape *op);
    /* Cannot fail: shapes and memory were checked when the graph was built and planned. */
    void (*run)(const struct mg_context *context, const struct mg_op_call *call);
    /* NULL, or what this machine reaches, measured for about `seconds`: out->products and out->copy. */
    mg_status (*measure)(const struct mg_context *context, double seconds, struct mg_machine_speed *out,
                         struct mg_err *err);
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

/* "cpu" | "ref"; MG_ERR_DEVICE naming the known ones otherwise. */
mg_status mg_backend_find(const struct mg_backend **out, const char *name, struct mg_err *err);
extern const struct mg_backend mg_backend_ref, mg_backend_cpu;
#endif
