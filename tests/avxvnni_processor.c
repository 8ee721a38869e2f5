/* avxvnni_processor.c: preloaded, makes this processor one with AVX-VNNI and without AVX-512 (tests/test_avxvnni.py).
 *
 * CPUID faults (ARCH_SET_CPUID) and is answered with other bits. The instructions, in their VEX encoding, are unknown to
 * the processor; what it would have done is done to the registers of the signal's frame. The code that runs is the
 * engine's own, as compiled for such processors. How many of either were computed so is written into the
 * file that AVXVNNI_COUNT names. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Where the frame keeps registers: the processor's XSAVE area, standard format. */
enum { XMM = 160, STATES = 512, UPPER_HALVES = 576, SSE_AND_AVX = 6 };
/* Of leaf 7: AVX-512 in EBX, ECX and EDX of part 0; of part 1 AVX-VNNI and AVX-512 BF16 in EAX. */
enum { ECX_OFF = 1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14, EDX_OFF = 1 << 2 | 1 << 3 | 1 << 8 | 1 << 23 };
static const uint32_t EBX_OFF = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
enum { AVX_VNNI = 1 << 4, AVX512_BF16 = 1 << 5 };

static volatile long of_bytes, of_words; /* how many were computed */

static void trap_cpuid(int on) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on); }

static void give_up(int signal_number) { signal(signal_number, SIG_DFL); }

static void on_cpuid(int number, siginfo_t *info, void *frame) {
    (void)info;
    greg_t *r = ((ucontext_t *)frame)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)r[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {
        give_up(number);
        return;
    }
    const uint32_t leaf = (uint32_t)r[REG_RAX], part = (uint32_t)r[REG_RCX];
    uint32_t a, b, c, d;
    trap_cpuid(0);
    __cpuid_count(leaf, part, a, b, c, d);
    trap_cpuid(1);
    if (leaf == 7 && part == 0) {
        a = a ? a : 1; /* parts */
        b &= ~EBX_OFF;
        c &= ~(uint32_t)ECX_OFF;
        d &= ~(uint32_t)EDX_OFF;
    } else if (leaf == 7 && part == 1) {
        a = (a | AVX_VNNI) & ~(uint32_t)AVX512_BF16;
    }
    r[REG_RAX] = a;
    r[REG_RBX] = b;
    r[REG_RCX] = c;
    r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

static greg_t general(const greg_t *r, int number) {
    static const int places[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return r[places[number]];
}

/* The address that ModRM and what follows it name; *length: of these bytes. */
static const uint8_t *address_of(const greg_t *r, const uint8_t *modrm, int index_high, int base_high, int *length) {
    const int mode = modrm[0] >> 6, low = modrm[0] & 7;
    const uint8_t *next = modrm + 1;
    int64_t address = 0;
    int has_base = 1, base = low | base_high;
    if (low == 4) {
        const int scale = *next >> 6, index = (*next >> 3 & 7) | index_high;
        has_base = !(mode == 0 && (*next & 7) == 5);
        base = (*next & 7) | base_high;
        next++;
        if (index != 4)
            address += general(r, index) << scale;
    } else if (mode == 0 && low == 5) {
        has_base = 0;
    }
    const int bytes = mode == 1 ? 1 : mode == 2 || !has_base ? 4 : 0;
    int32_t moved = 0;
    if (bytes == 1)
        moved = (int8_t)*next;
    else if (bytes == 4)
        memcpy(&moved, next, 4);
    next += bytes;
    address += moved;
    if (has_base)
        address += general(r, base);
    else if (low == 5)
        address += (int64_t)(intptr_t)next; /* from the end of the instruction, which has no immediate */
    *length = (int)(next - modrm);
    return (const uint8_t *)(intptr_t)address;
}

struct vector {
    uint8_t bytes[32];
};

static struct vector read_register(const uint8_t *area, int number) {
    struct vector v = {{0}};
    uint64_t states;
    memcpy(&states, area + STATES, sizeof states);
    memcpy(v.bytes, area + XMM + 16 * number, 16);
    if (states & 4)
        memcpy(v.bytes + 16, area + UPPER_HALVES + 16 * number, 16);
    return v;
}

static void write_register(uint8_t *area, int number, const struct vector *v) {
    uint64_t states;
    memcpy(&states, area + STATES, sizeof states);
    if (!(states & 4))
        memset(area + UPPER_HALVES, 0, 256); /* all were zero, and need not be in the frame */
    states |= SSE_AND_AVX;
    memcpy(area + STATES, &states, sizeof states);
    memcpy(area + XMM + 16 * number, v->bytes, 16);
    memcpy(area + UPPER_HALVES + 16 * number, v->bytes + 16, 16);
}

/* One 32-bit lane: unsigned by signed bytes, or signed 16-bit integers; sums wrap around. */
static uint32_t lane(uint32_t sum, const uint8_t *x, const uint8_t *y, int bytes) {
    if (bytes) {
        for (int i = 0; i < 4; i++)
            sum += (uint32_t)(x[i] * (int8_t)y[i]);
        return sum;
    }
    for (int i = 0; i < 4; i += 2)
        sum += (uint32_t)((int16_t)(x[i] | x[i + 1] << 8) * (int16_t)(y[i] | y[i + 1] << 8));
    return sum;
}

static void on_unknown(int number, siginfo_t *info, void *frame) {
    (void)info;
    mcontext_t *machine = &((ucontext_t *)frame)->uc_mcontext;
    const uint8_t *code = (const uint8_t *)machine->gregs[REG_RIP];
    /* VEX of three bytes, map 0F38, prefix 66, W0; vpdpbusd or vpdpwssd. */
    if (code[0] != 0xc4 || (code[1] & 31) != 2 || (code[2] & 0x83) != 1 || (code[3] != 0x50 && code[3] != 0x52)) {
        give_up(number);
        return;
    }
    uint8_t *area = (uint8_t *)machine->fpregs;
    const int reg = (code[4] >> 3 & 7) | (code[1] & 0x80 ? 0 : 8), first = ~code[2] >> 3 & 15, wide = code[2] >> 2 & 1;
    const int index_high = code[1] & 0x40 ? 0 : 8, base_high = code[1] & 0x20 ? 0 : 8;
    struct vector sum = read_register(area, reg), x = read_register(area, first), y;
    int length = 1;
    if (code[4] >> 6 == 3)
        y = read_register(area, (code[4] & 7) | base_high);
    else
        memcpy(y.bytes, address_of(machine->gregs, code + 4, index_high, base_high, &length), wide ? 32 : 16);
    for (int i = 0; i < 32; i += 4) {
        uint32_t old, now = 0;
        memcpy(&old, sum.bytes + i, 4);
        if (i < 16 || wide)
            now = lane(old, x.bytes + i, y.bytes + i, code[3] == 0x50);
        memcpy(sum.bytes + i, &now, 4);
    }
    write_register(area, reg, &sum);
    machine->gregs[REG_RIP] += 4 + length;
    __atomic_fetch_add(code[3] == 0x50 ? &of_bytes : &of_words, 1, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER};
    action.sa_sigaction = on_cpuid;
    sigaction(SIGSEGV, &action, NULL);
    action.sa_sigaction = on_unknown;
    sigaction(SIGILL, &action, NULL);
    trap_cpuid(1);
}

__attribute__((destructor)) static void end(void) {
    const char *name = getenv("AVXVNNI_COUNT");
    FILE *file = name ? fopen(name, "w") : NULL;
    if (file) {
        fprintf(file, "%ld %ld\n", of_bytes, of_words);
        fclose(file);
    }
}
