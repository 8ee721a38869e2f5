/* cpu_features.c: which instruction sets this processor, and its operating system, let us use. Called by cpu_backend.c
 * and, through marigold.h, by anyone; calls nothing. */
#include <string.h>

#include "cpu.h"

bool mg_cpu_has(const char *isa) {
    if (!strcmp(isa, "scalar"))
        return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(isa, "avx2"))
        return avx2;
    if (!strcmp(isa, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#endif
    return false;
}

const char *mg_best_isa(void) {
    if (mg_cpu_has("avx512"))
        return "avx512";
    return mg_cpu_has("avx2") ? "avx2" : "scalar";
}
