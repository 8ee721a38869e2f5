/* sink_loss.c: the SinkLoss of Marigold V2: in each block of 5 x 5 pixels the cost of an entropic transport of the predicted depths to
 * the true ones (Sinkhorn's iterations, Cuturi, arXiv 1306.0895), so that an edge that is a pixel off costs little, but a smoothed one
 * much. The gradient goes through the plan of the transport, too.
 *
 * Their code normalises logarithms. Rows and columns of a plan may be scaled at will before they are normalised, so here the plan is
 * left_i kernel_ij right_j, and an iteration two products: the same numbers, for depths that are not far apart. */
#include <math.h>

#include "trainer.h"

enum { SIDE = 5, CELLS = SIDE * SIDE, ITERATIONS = 5 };
static const double temperature = 0.1, smallest_mass = 1e-3;

/* One block: cells of the prediction are rows, cells of the truth columns. */
struct block {
    bool valid[CELLS];
    double predicted[CELLS], truth[CELLS];
    double kernel[CELLS][CELLS];                                  /* exp(-cost / temperature) */
    double left[ITERATIONS][CELLS], right[ITERATIONS + 1][CELLS]; /* right[0] is 1 */
};

static double cost_of(const struct block *b, int i, int j) { return fabs(b->truth[j] - b->predicted[i]); }
static bool both_valid(const struct block *b, int i, int j) { return b->valid[i] && b->valid[j]; }
static double plan_of(const struct block *b, int i, int j) {
    return b->left[ITERATIONS - 1][i] * b->kernel[i][j] * b->right[ITERATIONS][j];
}

/* A pair with an invalid end costs 1e6: nothing goes from a valid row to an invalid column, and an invalid row, all of whose pairs
 * cost the same, goes to all columns alike. */
static void fill_kernel(struct block *b) {
    for (int i = 0; i < CELLS; i++)
        for (int j = 0; j < CELLS; j++)
            b->kernel[i][j] = !b->valid[i] ? 1.0 : b->valid[j] ? exp(-cost_of(b, i, j) / temperature) : 0.0;
}

static void transport(struct block *b) {
    for (int j = 0; j < CELLS; j++)
        b->right[0][j] = 1.0;
    for (int step = 0; step < ITERATIONS; step++) {
        for (int i = 0; i < CELLS; i++) {
            double sum = 0.0;
            for (int j = 0; j < CELLS; j++)
                sum += b->kernel[i][j] * b->right[step][j];
            b->left[step][i] = 1.0 / sum;
        }
        double sums[CELLS] = {0.0};
        for (int i = 0; i < CELLS; i++)
            for (int j = 0; j < CELLS; j++)
                sums[j] += b->kernel[i][j] * b->left[step][i];
        for (int j = 0; j < CELLS; j++)
            b->right[step + 1][j] = 1.0 / sums[j];
    }
}

/* Gradients on their way back: by the kernel, and by the two factors of the plan that are at hand. */
struct slopes {
    double kernel[CELLS][CELLS], left[CELLS], right[CELLS];
};

/* Through one iteration: right = 1 / (kernel' left), left = 1 / (kernel right of the step before). */
static void back_through_step(struct slopes *s, const struct block *b, int step) {
    double of_sums[CELLS];
    for (int j = 0; j < CELLS; j++)
        of_sums[j] = -s->right[j] * b->right[step + 1][j] * b->right[step + 1][j];
    for (int i = 0; i < CELLS; i++)
        for (int j = 0; j < CELLS; j++) {
            s->kernel[i][j] += of_sums[j] * b->left[step][i];
            s->left[i] += of_sums[j] * b->kernel[i][j];
        }
    memset(s->right, 0, sizeof s->right);
    for (int i = 0; i < CELLS; i++) {
        const double of_sum = -s->left[i] * b->left[step][i] * b->left[step][i];
        for (int j = 0; j < CELLS; j++) {
            s->kernel[i][j] += of_sum * b->right[step][j];
            s->right[j] += of_sum * b->kernel[i][j];
        }
    }
    memset(s->left, 0, sizeof s->left);
}

/* The mean cost of the plan's valid pairs, and its gradient by the predicted depths. */
static double block_loss(double slope[CELLS], struct block *b) {
    struct slopes s = {0};
    double mass = 0.0, cost = 0.0;
    fill_kernel(b);
    transport(b);
    for (int i = 0; i < CELLS; i++)
        for (int j = 0; j < CELLS; j++)
            if (both_valid(b, i, j)) {
                mass += plan_of(b, i, j);
                cost += plan_of(b, i, j) * cost_of(b, i, j);
            }
    const double divisor = fmax(mass, smallest_mass), loss = cost / divisor;
    const double *left = b->left[ITERATIONS - 1], *right = b->right[ITERATIONS];
    for (int i = 0; i < CELLS; i++)
        for (int j = 0; j < CELLS; j++)
            if (both_valid(b, i, j)) {
                const double by_plan = (cost_of(b, i, j) - (mass > smallest_mass ? loss : 0.0)) / divisor;
                s.kernel[i][j] = by_plan * left[i] * right[j];
                s.left[i] += by_plan * b->kernel[i][j] * right[j];
                s.right[j] += by_plan * b->kernel[i][j] * left[i];
            }
    for (int step = ITERATIONS - 1; step >= 0; step--)
        back_through_step(&s, b, step);
    for (int i = 0; i < CELLS; i++) {
        slope[i] = 0.0;
        for (int j = 0; j < CELLS; j++)
            if (both_valid(b, i, j)) {
                const double away = b->predicted[i] - b->truth[j];
                const double by_cost = plan_of(b, i, j) / divisor - s.kernel[i][j] * b->kernel[i][j] / temperature;
                slope[i] += by_cost * ((away > 0.0) - (away < 0.0));
            }
    }
    return loss;
}

/* Pixel of a cell in the block at (top, left); -1: beyond the map, which is as if invalid. */
static int64_t pixel_of(int cell, int64_t top, int64_t left, int64_t h, int64_t w) {
    const int64_t y = top + cell / SIDE, x = left + cell % SIDE;
    return y < h && x < w ? y * w + x : -1;
}

static bool has_valid(const uint8_t *valid, int64_t top, int64_t left, int64_t h, int64_t w) {
    for (int cell = 0; cell < CELLS; cell++) {
        const int64_t pixel = pixel_of(cell, top, left, h, w);
        if (pixel >= 0 && valid[pixel])
            return true;
    }
    return false;
}

int64_t mg_sink_loss_blocks(const uint8_t *valid, int64_t h, int64_t w) {
    int64_t count = 0;
    for (int64_t top = 0; top < h; top += SIDE)
        for (int64_t left = 0; left < w; left += SIDE)
            count += has_valid(valid, top, left, h, w);
    return count;
}

static void read_block(struct block *b, const float *depth, const float *target, const uint8_t *valid, int64_t top,
                       int64_t left, int64_t h, int64_t w) {
    for (int cell = 0; cell < CELLS; cell++) {
        const int64_t pixel = pixel_of(cell, top, left, h, w);
        b->valid[cell] = pixel >= 0 && valid[pixel];
        b->predicted[cell] = b->valid[cell] ? depth[pixel] : 0.0;
        b->truth[cell] = b->valid[cell] ? target[pixel] : 0.0;
    }
}

double mg_sink_loss(float *slope, const float *depth, const float *target, const uint8_t *valid, int64_t h, int64_t w,
                    double factor) {
    double sum = 0.0, slopes[CELLS];
    struct block b;
    memset(slope, 0, (size_t)(h * w) * sizeof *slope);
    for (int64_t top = 0; top < h; top += SIDE)
        for (int64_t left = 0; left < w; left += SIDE) {
            if (!has_valid(valid, top, left, h, w))
                continue;
            read_block(&b, depth, target, valid, top, left, h, w);
            sum += block_loss(slopes, &b);
            for (int cell = 0; cell < CELLS; cell++)
                if (b.valid[cell])
                    slope[pixel_of(cell, top, left, h, w)] = (float)(factor * slopes[cell]);
        }
    return sum;
}
