/* measure.c: what this processor reaches with the kernels' matrix products and in copying: the roofs that operations are
 * measured against. */
#include <string.h>
#include <time.h>

#include "../../../core/thread_pool.h"
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
        p->kernels->product_bf16(ROWS, 2 * STEPS, 1, p->a, 2 * STEPS, p->b, 0, p->c, p->kernels->panel, false);
        break;
    default:
        p->kernels->product_u8i8(ROWS, 4 * STEPS, 1, p->a, 4 * STEPS, p->b, 0, p->c, p->kernels->panel, false);
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

struct speeds {
    const struct mg_cpu_kernels *kernels;
    double seconds, *of_thread;
    char *memory;
    size_t per_thread;
    int type;
};

static void measure_threads(const void *user, int64_t begin, int64_t end, int thread) {
    const struct speeds *s = user;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        char *own = s->memory + (size_t)i * s->per_thread, *b = own + BYTES_OF_A;
        const struct products p = {
            .kernels = s->kernels, .a = own, .b = b, .c = b + STEPS * 4 * (int64_t)s->kernels->panel, .type = s->type};
        s->of_thread[i] = product_speed(&p, s->seconds);
    }
}

/* Each thread for itself and all at once; the sum of their speeds. Zeros are multiplied: no denormals, no NaN. */
static void measure_products(const struct mg_context *context, struct mg_machine_speed *out, struct speeds *s) {
    for (s->type = 0; s->type < MG_SPEED_TYPES; s->type++) {
        mg_parallel_for(context->num_threads, context->num_threads, measure_threads, s);
        out->products[s->type] = 0.0;
        for (int i = 0; i < context->num_threads; i++)
            out->products[s->type] += s->of_thread[i];
    }
}

struct copy {
    char *to;
    const char *from;
    size_t part;
};

static void copy_parts(const void *user, int64_t begin, int64_t end, int thread) {
    const struct copy *c = user;
    (void)thread;
    memcpy(c->to + (size_t)begin * c->part, c->from + (size_t)begin * c->part, (size_t)(end - begin) * c->part);
}

/* The best of several passes: a pass is short, and what else the machine does only slows it down. */
static double copy_speed(const struct mg_context *context, double seconds, char *memory, size_t bytes) {
    const size_t half = bytes / 2, part = half / (size_t)context->num_threads / MG_ALIGNMENT * MG_ALIGNMENT;
    const struct copy copy = {.to = memory + half, .from = memory, .part = part};
    const double begun = now();
    double best = 0.0;
    do {
        const double start = now();
        mg_parallel_for(context->num_threads, context->num_threads, copy_parts, &copy);
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
    double *of_thread = NULL;
    mg_status status;
    MG_TRY(mg_alloc_zeroed((void **)&memory, copied, "memory to copy", err));
    MG_TRY_GOTO(
        mg_alloc((void **)&of_thread, (size_t)context->num_threads * sizeof *of_thread, "speeds of threads", err));
    memset(memory, 0, copied); /* pages of their own, not the one shared page of zeros */
    out->copy = copy_speed(context, seconds / 4, memory, copied);
    measure_products(context, out,
                     &(struct speeds){.kernels = mg_cpu_kernels_of(context),
                                      .seconds = seconds / 4,
                                      .of_thread = of_thread,
                                      .memory = memory,
                                      .per_thread = per_thread});
done:
    mg_free(of_thread);
    mg_free(memory);
    return status;
}
