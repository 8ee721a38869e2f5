/* measure.c: what this processor reaches with the kernels' matrix products and in copying: the roofs that operations are
 * measured against. Called by cpu_backend.c; calls the kernel table. */
#include <string.h>
#include <time.h>

#include "../cpu.h"

/* A block of A and one panel of B stay in a core's first-level cache (12 + 24 KiB). One call takes about 5 microseconds. */
enum { ROWS = 24, STEPS = 192, BYTES_OF_A = ROWS * STEPS * 4 };

struct products {
    const struct mg_cpu_kernels *kernels;
    void *a, *b, *c;
    int type; /* of enum mg_speed_type */
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A step multiplies four bytes, whatever the type. */
static void multiply(const struct products *p) {
    switch (p->type) {
    case MG_SPEED_F32:
        p->kernels->product_f32(ROWS, STEPS, p->a, STEPS, p->b, p->c, p->kernels->panel, false);
        break;
    case MG_SPEED_BF16:
        p->kernels->product_bf16(ROWS, 2 * STEPS, p->a, 2 * STEPS, p->b, p->c, p->kernels->panel, false);
        break;
    default:
        p->kernels->product_u8i8(ROWS, 4 * STEPS, p->a, 4 * STEPS, p->b, p->c, p->kernels->panel, false);
    }
}

/* Operations a second of one thread. */
static double product_speed(const struct products *p, double seconds) {
    static const int elements[MG_SPEED_TYPES] = {1, 2, 4};
    const double operations = 2.0 * ROWS * STEPS * elements[p->type] * p->kernels->panel;
    int64_t calls = 0;
    multiply(p); /* wakes the units for wide vectors */
    const double begun = now();
    double taken;
    do {
        for (int i = 0; i < 64; i++)
            multiply(p);
        calls += 64;
        taken = now() - begun;
    } while (taken < seconds);
    return operations * (double)calls / taken;
}

/* Each thread for itself and all at once; the sum of their speeds. Zeros are multiplied: no denormals, no NaN. */
static void measure_products(const struct mg_context *context, double seconds, struct mg_machine_speed *out,
                             char *memory, size_t per_thread) {
    for (int type = 0; type < MG_SPEED_TYPES; type++) {
        double sum = 0.0;
#pragma omp parallel for num_threads(context->num_threads) schedule(static, 1) reduction(+ : sum)
        for (int thread = 0; thread < context->num_threads; thread++) {
            char *own = memory + (size_t)thread * per_thread;
            const int64_t panel_bytes = STEPS * 4 * (int64_t)mg_cpu_kernels_of(context)->panel;
            const struct products p = {mg_cpu_kernels_of(context), own, own + BYTES_OF_A,
                                       own + BYTES_OF_A + panel_bytes, type};
            sum += product_speed(&p, seconds);
        }
        out->products[type] = sum;
    }
}

/* The best of several passes: a pass is short, and what else the machine does only slows it down. */
static double copy_speed(const struct mg_context *context, double seconds, char *memory, size_t bytes) {
    const size_t half = bytes / 2, part = half / (size_t)context->num_threads / MG_ALIGNMENT * MG_ALIGNMENT;
    const double begun = now();
    double best = 0.0;
    do {
        const double start = now();
#pragma omp parallel for num_threads(context->num_threads) schedule(static, 1)
        for (int thread = 0; thread < context->num_threads; thread++)
            memcpy(memory + half + (size_t)thread * part, memory + (size_t)thread * part, part);
        const double speed = 2.0 * (double)part * context->num_threads / (now() - start);
        best = speed > best ? speed : best;
    } while (now() - begun < seconds);
    return best;
}

mg_status mg_cpu_measure(const struct mg_context *context, double seconds, struct mg_machine_speed *out,
                         struct mg_err *err) {
    const size_t panel = (size_t)mg_cpu_kernels_of(context)->panel;
    const size_t per_thread = BYTES_OF_A + STEPS * 4 * panel + ROWS * panel * sizeof(float);
    const size_t copied = (size_t)256 << 20; /* many times what caches hold */
    char *memory;
    MG_TRY(mg_alloc_zeroed((void **)&memory, copied, "memory to copy", err));
    memset(memory, 0, copied); /* pages of their own, not the one shared page of zeros */
    out->copy = copy_speed(context, seconds / 4, memory, copied);
    measure_products(context, seconds / 4, out, memory, per_thread);
    mg_free(memory);
    return MG_OK;
}
