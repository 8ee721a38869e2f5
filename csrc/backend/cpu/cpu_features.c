/* cpu_features.c: which instruction sets this processor, and its operating system, let us use. */
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
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (!strcmp(isa, "avx512"))
        return avx512;
    bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    if (!strcmp(isa, "avx512vnni"))
        return vnni;
    if (!strcmp(isa, "avx512bf16"))
        return vnni && __builtin_cpu_supports("avx512bf16");
#endif
    return false;
}

const char *mg_best_isa(void) {
    static const char *const best_first[] = {"avx512bf16", "avx512vnni", "avx512", "avx2"};
    for (size_t i = 0; i < sizeof best_first / sizeof best_first[0]; i++)
        if (mg_cpu_has(best_first[i]))
            return best_first[i];
    return "scalar";
}
