/* openblas.c: the products of few rows by OpenBLAS, for comparisons and for processors that its kernels suit better:
 * MARIGOLD_BLAS=openblas. Calls the dynamic linker. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

/* As the package scipy-openblas32 builds it; marigold_c/_openblas.py has loaded that one. */
#define LIBRARY_NAME "libscipy_openblas.so"

/* The values of CBLAS. */
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef void set_num_threads_fn(int num_threads);

/* Written by whoever opens a context, with the same address each time. */
static sgemm_fn *_Atomic sgemm;

static void dot_rows(int64_t m, int64_t n, int64_t k, const float *a, const float *w, float *c, int64_t ldc) {
    sgemm(ROW_MAJOR, NO_TRANS, TRANS, (int)m, (int)n, (int)k, 1.0f, a, (int)k, w, (int)k, 0.0f, c, (int)ldc);
}

static void sum_rows(int64_t m, int64_t n, int64_t k, const float *a, const float *b, int64_t ldb, float *c,
                     int64_t ldc, bool accumulate) {
    sgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, (int)m, (int)n, (int)k, 1.0f, a, (int)k, b, (int)ldb, accumulate ? 1.0f : 0.0f,
          c, (int)ldc);
}

mg_status mg_cpu_choose_blas(struct mg_cpu_kernels *kernels, struct mg_err *err) {
    const char *wanted = getenv("MARIGOLD_BLAS");
    if (!wanted || !*wanted)
        return MG_OK;
    if (strcmp(wanted, "openblas") != 0)
        return mg_fail(err, MG_ERR_DEVICE, "MARIGOLD_BLAS is \"%s\"; expected openblas, or nothing", wanted);
    /* Never unloaded: tables of open contexts point into it. */
    void *library = dlopen(LIBRARY_NAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library)
        return mg_fail(err, MG_ERR_DEVICE, "MARIGOLD_BLAS: %s; pip install 'marigold-c[openblas]'", dlerror());
    sgemm_fn *product = (sgemm_fn *)dlsym(library, "scipy_cblas_sgemm");
    set_num_threads_fn *set_num_threads = (set_num_threads_fn *)dlsym(library, "scipy_openblas_set_num_threads");
    dlclose(library);
    if (!product || !set_num_threads)
        return mg_fail(err, MG_ERR_DEVICE, "MARIGOLD_BLAS: " LIBRARY_NAME " lacks scipy_cblas_sgemm");
    /* Tiles are shared out by the drivers; a tile is multiplied by the thread that owns it. */
    set_num_threads(1);
    sgemm = product;
    kernels->dot_rows = dot_rows;
    kernels->sum_rows = sum_rows;
    return MG_OK;
}
