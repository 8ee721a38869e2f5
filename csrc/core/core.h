/* core.h: errors, checked sizes, tensor descriptors, arenas. Knows no room of the engine. */
#ifndef MG_CORE_H
#define MG_CORE_H

#include <stdarg.h>
#include <string.h>

#include "../include/marigold.h"

/* ---- errors: formatted once, where the fault is ---- */
#if defined(__GNUC__)
#define MG_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define MG_PRINTF(a, b)
#endif

/* Sets err (which may be NULL) and returns `status`, so that a caller writes `return mg_fail(err, ...)`. */
mg_status mg_fail(struct mg_err *err, mg_status status, const char *format, ...) MG_PRINTF(3, 4);
/* MG_ERR_IO (MG_ERR_MEMORY for ENOMEM) with strerror(os_errno) appended. */
mg_status mg_fail_errno(struct mg_err *err, int os_errno, const char *format, ...) MG_PRINTF(3, 4);
void mg_err_clear(struct mg_err *err);
/* Bytes of the well-formed UTF-8 sequence (RFC 3629) that begins at text, or 0; left > 0 bytes may be read. */
size_t mg_utf8_length(const unsigned char *text, size_t left);

#define MG_TRY(call)                                                                                                   \
    do {                                                                                                               \
        mg_status mg_try_status_ = (call);                                                                             \
        if (mg_try_status_ != MG_OK)                                                                                   \
            return mg_try_status_;                                                                                     \
    } while (0)

/* For functions with one cleanup label: needs `mg_status status` and label `done`. */
#define MG_TRY_GOTO(call)                                                                                              \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != MG_OK)                                                                                           \
            goto done;                                                                                                 \
    } while (0)

/* ---- checked arithmetic: false on overflow, *out then untouched ---- */
static inline bool mg_size_mul(size_t *out, size_t a, size_t b) { return !__builtin_mul_overflow(a, b, out); }
static inline bool mg_size_add(size_t *out, size_t a, size_t b) { return !__builtin_add_overflow(a, b, out); }

/* ---- memory ---- */
enum { MG_ALIGNMENT = 64 };
static inline size_t mg_aligned(size_t bytes) { return (bytes + MG_ALIGNMENT - 1) / MG_ALIGNMENT * MG_ALIGNMENT; }
/* 64-byte aligned; `what` names the purpose in the error. Bytes 0 gives a valid pointer. */
mg_status mg_alloc(void **out, size_t bytes, const char *what, struct mg_err *err);
mg_status mg_alloc_zeroed(void **out, size_t bytes, const char *what, struct mg_err *err);
/* count * floats of 4 bytes, checked. */
mg_status mg_alloc_floats(float **out, int64_t count, size_t floats, const char *what, struct mg_err *err);
void mg_free(void *p);

/* A list of blocks freed together: parsers and graph builders draw many small pieces from one. */
struct mg_arena {
    struct mg_arena_block *head;
    size_t bytes; /* handed out so far */
};
void mg_arena_init(struct mg_arena *arena);
void *mg_arena_alloc(struct mg_arena *arena, size_t bytes); /* zeroed, 16-byte aligned; NULL when out of memory */
char *mg_arena_strdup(struct mg_arena *arena, const char *text, size_t length); /* NUL-terminated copy, or NULL */
void mg_arena_free(struct mg_arena *arena);

/* ---- tensor descriptors ---- */
typedef enum mg_dtype { MG_F32, MG_F16, MG_BF16, MG_I8, MG_DTYPE_COUNT } mg_dtype;
const char *mg_dtype_name(mg_dtype dtype); /* "float32", ... */
size_t mg_dtype_bytes(mg_dtype dtype);
/* The upper half of a float32. A type of its own, so that it is never taken for an integer. */
typedef struct {
    uint16_t bits;
} mg_bf16;
static inline float mg_f32_of_bf16(mg_bf16 x) {
    const uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
/* To the nearest, ties to even; NaN stays NaN. */
static inline mg_bf16 mg_bf16_of_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (mg_bf16){(uint16_t)(x != x ? bits >> 16 | 0x40 : rounded)};
}
/* IEEE 754's half, likewise. */
typedef struct {
    uint16_t bits;
} mg_f16;
float mg_f32_of_f16(mg_f16 x);
mg_f16 mg_f16_of_f32(float x); /* to the nearest, ties to even; infinite beyond 65504 */
/* dst[i] = (float)src[i] for any floating type. */
void mg_convert_to_f32(float *dst, const void *src, mg_dtype dtype, size_t count);
/* dst[i] = src[i] rounded to float32 (copied), float16 or bfloat16. */
void mg_convert_from_f32(void *dst, mg_dtype dtype, const float *src, size_t count);

enum { MG_MAX_DIMS = 4 };

/* Activations are always four-dimensional N H W C; weights have one (C), two (K, C) or four (K, C, R, S) dimensions as
 * in the checkpoint. */
struct mg_tensor {
    mg_dtype dtype;
    int ndim;
    int64_t dim[MG_MAX_DIMS];
};
int64_t mg_tensor_count(const struct mg_tensor *tensor); /* elements; shapes are checked when the tensor is made */
size_t mg_tensor_bytes(const struct mg_tensor *tensor);
/* Refuses negative or zero dimensions, and element or byte counts that overflow. */
mg_status mg_tensor_check(const struct mg_tensor *tensor, const char *what, struct mg_err *err);
bool mg_tensor_same_shape(const struct mg_tensor *a, const struct mg_tensor *b);
bool mg_tensor_same_kind(const struct mg_tensor *a, const struct mg_tensor *b); /* shape and type */
/* "[1, 72, 96, 320]" into buffer; returns buffer. */
enum { MG_SHAPE_TEXT = 96 };
const char *mg_shape_text(char buffer[MG_SHAPE_TEXT], int ndim, const int64_t *dim);

/* ---- context: one per pipeline ---- */
struct mg_backend;
struct mg_context;

/* Memory of a device of its own: a backend's open() puts its table into the context. Copies and operations happen in the
 * order of the calls. upload() has read the host's bytes when it returns; download() has written them, and reports what
 * failed of the operations before. */
struct mg_device_memory {
    mg_status (*alloc)(void **out, const struct mg_context *context, size_t bytes, const char *what,
                       struct mg_err *err);
    void (*free)(const struct mg_context *context, void *block);
    mg_status (*upload)(const struct mg_context *context, void *device, const void *host, size_t bytes,
                        struct mg_err *err);
    mg_status (*download)(const struct mg_context *context, void *host, const void *device, size_t bytes,
                          struct mg_err *err);
    mg_status (*clear)(const struct mg_context *context, void *device, size_t bytes, struct mg_err *err); /* zeros */
    mg_status (*available)(size_t *bytes, const struct mg_context *context, struct mg_err *err); /* for alloc() */
};

struct mg_context {
    int num_threads;
    const struct mg_backend *backend;
    void *backend_state;                   /* the backend's own, e.g. the chosen kernel table */
    const struct mg_device_memory *memory; /* NULL: operations work in the host's memory */
    int device;                            /* which of several alike: 1 for "cuda:1" */
    const char *isa;
    mg_poll_fn poll;
    void *poll_user;
    /* The activation arena and the workspace of operations: grown between runs, never inside one. */
    void *activations;
    size_t activation_bytes;
    void *workspace;
    size_t workspace_bytes;
    size_t weights_mapped, weights_packed, peak;
    size_t training; /* bytes of gradients and of the optimiser's state */
};
/* Grows the arena and the workspace to at least these sizes (contents are lost). */
mg_status mg_context_reserve(struct mg_context *context, size_t activation_bytes, size_t workspace_bytes,
                             struct mg_err *err);
void mg_context_release(struct mg_context *context);
/* Memory where the context's operations work, and copies to and from it; the host's own without a device. */
mg_status mg_context_alloc(void **out, const struct mg_context *context, size_t bytes, const char *what,
                           struct mg_err *err);
void mg_context_free(const struct mg_context *context, void *block); /* NULL is allowed */
mg_status mg_context_clear(const struct mg_context *context, void *block, size_t bytes, struct mg_err *err);
mg_status mg_context_upload(const struct mg_context *context, void *to, const void *host, size_t bytes,
                            struct mg_err *err);
mg_status mg_context_download(const struct mg_context *context, void *host, const void *from, size_t bytes,
                              struct mg_err *err);
void mg_context_note_peak(struct mg_context *context);
/* MG_ERR_CANCELLED when the poll callback asks to stop. */
mg_status mg_context_poll(const struct mg_context *context, struct mg_err *err);

/* A caller's num_threads: 0 is all processors allowed to this process. MG_ERR_ARGUMENT: negative, or so many that the operating
 * system may have no room for them. */
enum { MG_MOST_THREADS = 4096 };
static inline mg_status mg_check_threads(int num_threads, struct mg_err *err) {
    if (num_threads >= 0 && num_threads <= MG_MOST_THREADS)
        return MG_OK;
    return mg_fail(err, MG_ERR_ARGUMENT, "num_threads is %d; allowed: 1 to %d, 0 for all", num_threads,
                   MG_MOST_THREADS);
}
static inline int mg_threads_or_all(int num_threads) { return num_threads > 0 ? num_threads : mg_available_threads(); }

/* Functions of plain loops that the compiler vectorises are compiled for several instruction sets, chosen at start-up. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define MG_VECTORISED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MG_VECTORISED
#endif
#endif
