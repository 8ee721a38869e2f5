/* image_metrics.c: PSNR, and SSIM (Wang, Bovik, Sheikh and Simoncelli 2004) with the constants and the window of
 * torchmetrics, for images with values from 0 to 1. */
#include <math.h>

#include "../core/thread_pool.h"
#include "evaluation.h"

double mg_psnr(const float *prediction, const float *target, const uint8_t *mask, int64_t count) {
    double parts[MG_SUM_CHUNKS] = {0}, sum = 0;
    int64_t counted = 0;
    for (int chunk = 0; chunk < MG_SUM_CHUNKS; chunk++)
        for (int64_t i = mg_chunk_begin(count, chunk); i < mg_chunk_begin(count, chunk + 1); i++) {
            const double difference = (double)prediction[i] - (double)target[i];
            if (!mask || mask[i]) {
                parts[chunk] += difference * difference;
                counted++;
            }
        }
    for (int chunk = 0; chunk < MG_SUM_CHUNKS; chunk++)
        sum += parts[chunk];
    return 10.0 * log10((double)counted / sum);
}

/* ---- SSIM: means of both images, their squares and their product under a Gaussian; images are reflected at their borders,
 * which are counted like all else ---- */
enum { WINDOW = 11, REACH = WINDOW / 2, MEANS = 5, BAND = 16, ROWS = BAND + WINDOW - 1 };
static const double SIGMA = 1.5, LUMINANCE = 0.01 * 0.01, CONTRAST = 0.03 * 0.03;

struct ssim {
    const float *prediction, *target;
    const uint8_t *mask; /* where it is 0 both images are */
    int64_t h, w, c;
    double window[WINDOW];
};

static void fill_window(double window[WINDOW]) {
    double sum = 0;
    for (int i = 0; i < WINDOW; i++) {
        const double distance = (i - WINDOW / 2) / SIGMA;
        sum += window[i] = exp(-0.5 * distance * distance);
    }
    for (int i = 0; i < WINDOW; i++)
        window[i] /= sum;
}

/* Position -1 is 1, and so on, as far as the window reaches. */
static int64_t reflected(int64_t at, int64_t size) {
    const int64_t inside = at < 0 ? -at : at;
    return inside < size ? inside : 2 * (size - 1) - inside;
}

/* One row of one channel: out[MEANS][w], filtered along the row. line: 2 * (w + WINDOW - 1). */
static void filter_row(double *out, const struct ssim *s, int64_t row, int64_t channel, double *line) {
    const int64_t columns = s->w, padded = s->w + WINDOW - 1;
    double *x = line, *y = line + padded;
    for (int64_t i = 0; i < padded; i++) {
        const int64_t at = (reflected(row, s->h) * s->w + reflected(i - REACH, s->w)) * s->c + channel;
        const bool seen = !s->mask || s->mask[at];
        x[i] = seen ? (double)s->prediction[at] : 0.0;
        y[i] = seen ? (double)s->target[at] : 0.0;
    }
    for (int64_t i = 0; i < columns; i++) {
        double means[MEANS] = {0};
        for (int k = 0; k < WINDOW; k++) {
            const double a = x[i + k], b = y[i + k], weight = s->window[k];
            means[0] += weight * a;
            means[1] += weight * b;
            means[2] += weight * a * a;
            means[3] += weight * b * b;
            means[4] += weight * a * b;
        }
        for (int m = 0; m < MEANS; m++)
            out[m * columns + i] = means[m];
    }
}

static double similarity(const double m[MEANS]) {
    const double xx = fmax(m[2] - m[0] * m[0], 0.0), yy = fmax(m[3] - m[1] * m[1], 0.0), xy = m[4] - m[0] * m[1];
    return (2.0 * m[0] * m[1] + LUMINANCE) * (2.0 * xy + CONTRAST) /
           ((m[0] * m[0] + m[1] * m[1] + LUMINANCE) * (xx + yy + CONTRAST));
}

/* The sum over output rows begin..end of one channel. rows: ROWS rows of MEANS * columns; line as filter_row. */
static double band_sum(const struct ssim *s, int64_t channel, int64_t begin, int64_t end, double *rows, double *line) {
    const int64_t columns = s->w, length = MEANS * columns;
    double sum = 0;
    for (int64_t r = begin; r < end + WINDOW - 1; r++)
        filter_row(rows + (r - begin) * length, s, r - REACH, channel, line);
    for (int64_t r = 0; r < end - begin; r++)
        for (int64_t i = 0; i < columns; i++) {
            double means[MEANS] = {0};
            for (int k = 0; k < WINDOW; k++)
                for (int m = 0; m < MEANS; m++)
                    means[m] += s->window[k] * rows[(r + k) * length + m * columns + i];
            sum += similarity(means);
        }
    return sum;
}

struct job {
    const struct ssim *s;
    double *sums, *scratch;
    size_t thread; /* numbers of each thread's scratch */
    int64_t bands;
};

static void sum_bands(const void *user, int64_t first, int64_t last, int thread) {
    const struct job *job = user;
    double *mine = job->scratch + (size_t)thread * job->thread;
    for (int64_t i = first; i < last; i++) {
        const int64_t begin = i % job->bands * BAND, end = begin + BAND < job->s->h ? begin + BAND : job->s->h;
        job->sums[i] = band_sum(job->s, i / job->bands, begin, end, mine, mine + ROWS * MEANS * job->s->w);
    }
}

mg_status mg_ssim(double *out, const float *prediction, const float *target, const uint8_t *mask, int64_t h, int64_t w,
                  int64_t c, int num_threads, struct mg_err *err) {
    struct ssim s = {.prediction = prediction, .target = target, .mask = mask, .h = h, .w = w, .c = c};
    MG_TRY(mg_check_threads(num_threads, err));
    if (h <= REACH || w <= REACH)
        return mg_fail(err, MG_ERR_ARGUMENT, "SSIM reflects %d pixels at each border; the images are %lld x %lld",
                       REACH, (long long)h, (long long)w);
    const int64_t bands = (h + BAND - 1) / BAND, row = w + WINDOW - 1;
    const int threads = mg_threads_or_all(num_threads);
    const size_t thread = (size_t)(ROWS * MEANS * w + 2 * row);
    double *scratch, sum = 0;
    fill_window(s.window);
    MG_TRY(mg_alloc((void **)&scratch, ((size_t)threads * thread + (size_t)(bands * c)) * sizeof *scratch,
                    "the means of an image", err));
    double *sums = scratch + (size_t)threads * thread;
    mg_parallel_for(threads, bands * c, sum_bands,
                    &(struct job){.s = &s, .sums = sums, .scratch = scratch, .thread = thread, .bands = bands});
    for (int64_t job = 0; job < bands * c; job++)
        sum += sums[job];
    mg_free(scratch);
    *out = sum / (double)(h * w * c);
    return MG_OK;
}
