/* align_snippets.c: a scale and a shift for every snippet, so that the snippets agree about each frame: the co-alignment of
 * RollingDepth (arXiv 2411.19189, as its authors' code has it), by Adam. Calls snippets.c.
 *
 * The loss of a frame is the distance of its maps from their mean, which is taken as given, over the mean of that; once of the aligned
 * values and once of their reciprocals. Frames are shared out to threads; each leaves the derivatives by scale and shift of its own
 * maps, which are added up in the order of the snippets. Products are not fused (setup.py), so that every processor gets the same bits:
 * an absolute value has a derivative that jumps. */
#include <math.h>
#include <string.h>

#include "../core/adam.h"
#include "../core/thread_pool.h"
#include "snippets.h"

/* BLOCK: pixels of all maps of a frame that are worked on at once. LANES: partial sums of each map. */
enum { BLOCK = 64, LANES = 8, MOST_MAPS = MG_MAX_DILATIONS * MG_MAX_SNIPPET_LENGTH, POLL_INTERVAL = 16 };

static const double least_value = 1e-3; /* below, a value has the reciprocal of this one */
static const double beta1 = 0.5, beta2 = 0.9;
static const double small_scale_weight = 0.1, shift_weight = 10.0;

int64_t mg_samples_stride(int64_t pixels) { return (pixels + BLOCK - 1) / BLOCK * BLOCK; }

struct derivatives {
    double by_scale, by_shift;
};

struct problem {
    const struct mg_snippets *snippets;
    const double *samples;
    int64_t pixels, stride;
    const double *scale, *shift;     /* of snippets */
    struct derivatives *derivatives; /* of maps */
};

/* ---- one block of one frame ---- */
/* Of one map: values, and what they and their reciprocals add to the derivatives. */
struct block {
    double value[BLOCK], reciprocal[BLOCK];
};
struct partial_sums {
    double by_scale[LANES], by_shift[LANES], reciprocal_by_scale[LANES], reciprocal_by_shift[LANES];
};

MG_VECTORISED static void align_block(struct block *restrict b, const double *restrict x, double scale, double shift) {
    for (int i = 0; i < BLOCK; i++) {
        const double value = x[i] * scale + shift;
        b->value[i] = value;
        b->reciprocal[i] = 1.0 / (value > least_value ? value : least_value);
    }
}

MG_VECTORISED static void mean_of_blocks(struct block *restrict mean, const struct block *blocks, int64_t count) {
    *mean = (struct block){0};
    for (int64_t c = 0; c < count; c++)
        for (int i = 0; i < BLOCK; i++) {
            mean->value[i] += blocks[c].value[i];
            mean->reciprocal[i] += blocks[c].reciprocal[i];
        }
    for (int i = 0; i < BLOCK; i++) {
        mean->value[i] /= (double)count;
        mean->reciprocal[i] /= (double)count;
    }
}

/* counts: 1 of a pixel, 0 behind the last. */
MG_VECTORISED static void add_block(struct partial_sums *restrict sums, const struct block *restrict b,
                                    const struct block *restrict mean, const double *restrict x,
                                    const double *restrict counts) {
    for (int begin = 0; begin < BLOCK; begin += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            const int i = begin + lane;
            const double side =
                (b->value[i] > mean->value[i] ? counts[i] : 0.0) - (b->value[i] < mean->value[i] ? counts[i] : 0.0);
            const double reciprocal_side = (b->reciprocal[i] > mean->reciprocal[i] ? counts[i] : 0.0) -
                                           (b->reciprocal[i] < mean->reciprocal[i] ? counts[i] : 0.0);
            const double slope =
                b->value[i] >= least_value ? -reciprocal_side * b->reciprocal[i] * b->reciprocal[i] : 0.0;
            sums->by_scale[lane] += side * x[i];
            sums->by_shift[lane] += side;
            sums->reciprocal_by_scale[lane] += slope * x[i];
            sums->reciprocal_by_shift[lane] += slope;
        }
}

static double sum_of_lanes(const double *lanes) {
    double sum = 0.0;
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

/* ---- one frame ---- */
struct frame {
    struct mg_frame_map maps[MOST_MAPS];
    int64_t count;
    struct block blocks[MOST_MAPS], mean;
    struct partial_sums sums[MOST_MAPS];
    double magnitude, reciprocal_magnitude; /* sums of the means' */
};

static void add_pixels(struct frame *f, const struct problem *p, int64_t begin) {
    double counts[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        counts[i] = begin + i < p->pixels ? 1.0 : 0.0;
    for (int64_t c = 0; c < f->count; c++)
        align_block(&f->blocks[c], p->samples + f->maps[c].map * p->stride + begin, p->scale[f->maps[c].snippet],
                    p->shift[f->maps[c].snippet]);
    mean_of_blocks(&f->mean, f->blocks, f->count);
    for (int i = 0; i < BLOCK; i++) {
        f->magnitude += counts[i] * fabs(f->mean.value[i]);
        f->reciprocal_magnitude += counts[i] * f->mean.reciprocal[i];
    }
    for (int64_t c = 0; c < f->count; c++)
        add_block(&f->sums[c], &f->blocks[c], &f->mean, p->samples + f->maps[c].map * p->stride + begin, counts);
}

/* The loss is a mean over every dilation, position and frame, also where no snippet has such a map. A frame of nothing but zeros,
 * whose mean nothing can be divided by, says nothing. */
static void differentiate_frame(struct frame *f, const struct problem *p, int64_t frame) {
    const struct mg_snippets *s = p->snippets;
    f->count = mg_snippets_of_frame(f->maps, s, frame);
    f->magnitude = f->reciprocal_magnitude = 0.0;
    memset(f->sums, 0, (size_t)f->count * sizeof *f->sums);
    for (int64_t begin = 0; begin < p->pixels; begin += BLOCK)
        add_pixels(f, p, begin);
    const double cells = (double)(s->num_dilations * s->length * s->frames);
    const double factor = f->magnitude > 0.0 ? 1.0 / (f->magnitude * cells) : 0.0;
    const double reciprocal_factor = 1.0 / (f->reciprocal_magnitude * cells);
    for (int64_t c = 0; c < f->count; c++) {
        const struct partial_sums *sums = &f->sums[c];
        p->derivatives[f->maps[c].map] =
            (struct derivatives){.by_scale = factor * sum_of_lanes(sums->by_scale) +
                                             reciprocal_factor * sum_of_lanes(sums->reciprocal_by_scale),
                                 .by_shift = factor * sum_of_lanes(sums->by_shift) +
                                             reciprocal_factor * sum_of_lanes(sums->reciprocal_by_shift)};
    }
}

static void differentiate_frames(const void *user, int64_t first, int64_t end, int thread) {
    (void)thread;
    struct frame f;
    for (int64_t frame = first; frame < end; frame++)
        differentiate_frame(&f, user, frame);
}

/* ---- the steps ---- */
struct moments {
    double scale_m, scale_v, shift_m, shift_v;
};

/* With the soft constraints: a scale should not be less than 1, a shift be small; means over the snippets of a dilation. */
static void move_snippet(double *scale, double *shift, struct moments *m, const struct derivatives *maps,
                         int64_t length, int64_t snippets, const struct mg_scalar_adam *adam) {
    struct derivatives d = {.by_scale = -2.0 * small_scale_weight * fmax(0.0, 1.0 - *scale) / (double)snippets,
                            .by_shift = 2.0 * shift_weight * *shift / (double)snippets};
    for (int64_t i = 0; i < length; i++) {
        d.by_scale += maps[i].by_scale;
        d.by_shift += maps[i].by_shift;
    }
    *scale += mg_scalar_adam_step(adam, &m->scale_m, &m->scale_v, d.by_scale);
    *shift += mg_scalar_adam_step(adam, &m->shift_m, &m->shift_v, d.by_shift);
}

static void move_all(double *scale, double *shift, struct moments *moments, const struct problem *p, double rate,
                     int step) {
    const struct mg_snippets *s = p->snippets;
    const struct mg_scalar_adam adam = mg_scalar_adam_of(rate, beta1, beta2, step);
    int64_t at = 0;
    for (int i = 0; i < s->num_dilations; i++) {
        const int64_t count = mg_snippets_with_dilation(s, s->dilations[i]);
        for (int64_t end = at + count; at < end; at++)
            move_snippet(&scale[at], &shift[at], &moments[at], p->derivatives + at * s->length, s->length, count,
                         &adam);
    }
}

mg_status mg_align_snippets(double *scale, double *shift, const double *samples, int64_t pixels, int64_t stride,
                            const struct mg_snippets *snippets, const struct mg_ensemble_snippets_params *params,
                            struct mg_err *err) {
    const int64_t count = mg_snippets_count(snippets);
    const int threads = mg_threads_or_all(params->num_threads);
    struct problem p = {
        .snippets = snippets, .samples = samples, .pixels = pixels, .stride = stride, .scale = scale, .shift = shift};
    struct moments *moments = NULL;
    mg_status status;
    for (int64_t i = 0; i < count; i++) {
        scale[i] = 1.0;
        shift[i] = 0.0;
    }
    MG_TRY_GOTO(mg_alloc_zeroed((void **)&moments, (size_t)count * sizeof *moments, "the snippets' moments", err));
    MG_TRY_GOTO(mg_alloc((void **)&p.derivatives, (size_t)(count * snippets->length) * sizeof *p.derivatives,
                         "the snippets' derivatives", err));
    for (int step = 1; step <= params->iterations; step++) {
        if (step % POLL_INTERVAL == 0 && params->poll && params->poll(params->poll_user)) {
            status = mg_fail(err, MG_ERR_CANCELLED, "cancelled while snippets were aligned");
            goto done;
        }
        mg_parallel_for(threads, snippets->frames, differentiate_frames, &p);
        move_all(scale, shift, moments, &p, params->rate, step);
    }
done:
    mg_free(moments);
    mg_free(p.derivatives);
    return status;
}
