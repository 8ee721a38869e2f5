/* cpu_features.c: which instruction sets this processor, and its operating system, let us use.
 *
 * The processor is asked itself: what compilers offer for it (__builtin_cpu_supports) reads variables of their run-time
 * libraries, which zig's leaves empty. */
#include <string.h>

#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { EAX, EBX, ECX, EDX, REGISTERS };

/* A bit of what CPUID says in a register of a leaf and its part. */
struct feature {
    unsigned leaf, part;
    int place;
    unsigned bit;
};

static const struct feature fma = {1, 0, ECX, 12}, osxsave = {1, 0, ECX, 27}, avx2 = {7, 0, EBX, 5},
                            avx512f = {7, 0, EBX, 16}, avx512dq = {7, 0, EBX, 17}, avx512bw = {7, 0, EBX, 30},
                            avx512vl = {7, 0, EBX, 31}, avx512vnni = {7, 0, ECX, 11}, avx512bf16 = {7, 1, EAX, 5},
                            avxvnni = {7, 1, EAX, 4}, amx_bf16 = {7, 0, EDX, 22}, amx_tile = {7, 0, EDX, 24},
                            amx_int8 = {7, 0, EDX, 25};
/* Registers that the operating system keeps for each thread (XCR0). */
enum { YMM = 0x6, ZMM = 0xe6, TILES = 0x60000 };

static bool has(struct feature f) {
    unsigned found[REGISTERS] = {0};
    return __get_cpuid_count(f.leaf, f.part, &found[EAX], &found[EBX], &found[ECX], &found[EDX]) &&
           found[f.place] >> f.bit & 1;
}

static bool keeps(unsigned registers) {
    unsigned low, high;
    if (!has(osxsave))
        return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & registers) == registers;
}

static bool has_avx2(void) { return keeps(YMM) && has(avx2) && has(fma); }

static bool has_avxvnni(void) { return has_avx2() && has(avxvnni); }

static bool has_avx512(void) {
    return keeps(ZMM) && has_avx2() && has(avx512f) && has(avx512vl) && has(avx512bw) && has(avx512dq);
}

static bool has_avx512vnni(void) { return has_avx512() && has(avx512vnni); }

static bool has_avx512bf16(void) { return has_avx512vnni() && has(avx512bf16); }

/* Linux grants the tiles' 8 KiB to a process that asks (Documentation/arch/x86/xstate.rst), and then to all its threads and
 * children. It refuses where a thread has an alternate signal stack without room for them. What is granted stays granted. */
static bool grants_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

static bool has_amx(void) {
    return keeps(ZMM | TILES) && has_avx512bf16() && has(amx_tile) && has(amx_bf16) && has(amx_int8) && grants_tiles();
}
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>

/* Bits of the kernel's words about the processor (Documentation/arch/arm64/elf_hwcaps.rst), which older headers lack. */
enum { ASIMDDP = 1u << 20 /* of AT_HWCAP */, I8MM = 1u << 13, BF16 = 1u << 14 /* of AT_HWCAP2 */ };

static bool has_dotprod(void) { return getauxval(AT_HWCAP) & ASIMDDP; }
static bool has_bf16(void) { return getauxval(AT_HWCAP2) & BF16; }
static bool has_i8mm(void) { return getauxval(AT_HWCAP2) & I8MM; }
#elif defined(__APPLE__)
#include <sys/sysctl.h>

static bool has_feature(const char *name) {
    int found = 0;
    size_t bytes = sizeof found;
    return !sysctlbyname(name, &found, &bytes, NULL, 0) && found;
}

static bool has_dotprod(void) { return has_feature("hw.optional.arm.FEAT_DotProd"); }
static bool has_bf16(void) { return has_feature("hw.optional.arm.FEAT_BF16"); }
static bool has_i8mm(void) { return has_feature("hw.optional.arm.FEAT_I8MM"); }
#else
static bool has_dotprod(void) { return false; }
static bool has_bf16(void) { return false; }
static bool has_i8mm(void) { return false; }
#endif

static bool has_neon(void) { return true; }
static bool has_neon_dotprod(void) { return has_dotprod(); }
static bool has_neon_bf16(void) { return has_dotprod() && has_bf16(); }
static bool has_neon_i8mm(void) { return has_neon_bf16() && has_i8mm(); }
#endif

static bool has_scalar(void) { return true; }

/* The best last. */
static const struct {
    const char *name;
    bool (*is_there)(void);
} instruction_sets[] = {
    {"scalar", has_scalar},
#if defined(__x86_64__)
    {"avx2", has_avx2},
    {"avxvnni", has_avxvnni},
    {"avx512", has_avx512},
    {"avx512vnni", has_avx512vnni},
    {"avx512bf16", has_avx512bf16},
    {"amx", has_amx},
#elif defined(__aarch64__)
    {"neon", has_neon},           {"neon_dotprod", has_neon_dotprod},
    {"neon_bf16", has_neon_bf16}, {"neon_i8mm", has_neon_i8mm},
#endif
};
enum { SETS = sizeof instruction_sets / sizeof instruction_sets[0] };

bool mg_cpu_has(const char *isa) {
    for (int i = 0; i < SETS; i++)
        if (!strcmp(isa, instruction_sets[i].name))
            return instruction_sets[i].is_there();
    return false;
}

const char *mg_isa(int index) {
    for (int i = 0; i < SETS; i++)
        if (instruction_sets[i].is_there() && index-- == 0)
            return instruction_sets[i].name;
    return NULL;
}

const char *mg_best_isa(void) {
    for (int i = SETS - 1; i > 0; i--)
        if (instruction_sets[i].is_there())
            return instruction_sets[i].name;
    return instruction_sets[0].name;
}
