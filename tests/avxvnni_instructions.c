/* avxvnni_instructions.c: vpdpbusd and vpdpwssd with each form of an operand beside plain loops; prints "equal", or which
 * differs (tests/test_avxvnni.py). */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct vector {
    uint8_t bytes[32];
};

static struct vector sum, x;
static struct vector y __asm__("avxvnni_y") __attribute__((used, aligned(32)));

/* The registers that the forms below name all lead to y. */
#define RUN(instruction, source, first, result)                                                                        \
    __asm__ volatile("vmovdqu %0, %%ymm12\n vmovdqu %1, %%ymm3\n vmovdqu %2, %%ymm14\n vmovdqu %2, %%ymm5\n"           \
                     "lea avxvnni_y(%%rip), %%r12\n mov %%r12, %%r13\n lea -104(%%r12), %%rax\n mov $5, %%r9d\n"       \
                     "lea 99993(%%r12), %%rsi\n mov $7, %%edi\n mov %%r12, %%r10\n shr $1, %%r10\n"                    \
                     "%{vex%} " instruction " " source ", " first ", " result "\n vmovdqu %%ymm12, %0\n"               \
                     : "+m"(sum)                                                                                       \
                     : "m"(x), "m"(y)                                                                                  \
                     : "rax", "rsi", "rdi", "r9", "r10", "r12", "r13", "xmm3", "xmm5", "xmm12", "xmm14")

enum { BYTES = 1, WIDE = 2 };

static struct vector expected(int kind) {
    struct vector result = {{0}};
    for (int i = 0; i < (kind & WIDE ? 32 : 16); i += 4) {
        int32_t old;
        memcpy(&old, sum.bytes + i, 4);
        int64_t total = old;
        for (int k = 0; kind & BYTES && k < 4; k++)
            total += x.bytes[i + k] * (int8_t)y.bytes[i + k];
        for (int k = 0; !(kind & BYTES) && k < 4; k += 2) {
            int16_t one, other;
            memcpy(&one, x.bytes + i + k, 2);
            memcpy(&other, y.bytes + i + k, 2);
            total += (int64_t)one * other;
        }
        const uint32_t wrapped = (uint32_t)total;
        memcpy(result.bytes + i, &wrapped, 4);
    }
    return result;
}

static void fill(struct vector *v, uint32_t *state, int round) {
    for (int i = 0; i < 32; i++) {
        *state = *state * 1664525u + 1013904223u;
        v->bytes[i] = round ? (uint8_t)(*state >> 24) : (uint8_t)(i & 1 ? 0x80 : 0); /* first: the largest products */
    }
}

#define CHECK(kind, instruction, source, first, result)                                                                \
    for (int round = 0; round < 20; round++) {                                                                         \
        fill(&sum, &state, round);                                                                                     \
        fill(&x, &state, round);                                                                                       \
        fill(&y, &state, round);                                                                                       \
        const struct vector wanted = expected(kind);                                                                   \
        RUN(instruction, source, first, result);                                                                       \
        if (memcmp(&wanted, &sum, sizeof sum)) {                                                                       \
            puts(instruction " " source);                                                                              \
            return 1;                                                                                                  \
        }                                                                                                              \
    }

#define FORMS(kind, instruction)                                                                                       \
    CHECK(kind, instruction, "%%ymm14", "%%ymm3", "%%ymm12")                                                           \
    CHECK(kind, instruction, "%%ymm5", "%%ymm3", "%%ymm12")                                                            \
    CHECK(kind, instruction, "(%%r12)", "%%ymm3", "%%ymm12")                                                           \
    CHECK(kind, instruction, "(%%r13)", "%%ymm3", "%%ymm12")                                                           \
    CHECK(kind, instruction, "64(%%rax,%%r9,8)", "%%ymm3", "%%ymm12")                                                  \
    CHECK(kind, instruction, "-100000(%%rsi,%%rdi)", "%%ymm3", "%%ymm12")                                              \
    CHECK(kind, instruction, "(,%%r10,2)", "%%ymm3", "%%ymm12")                                                        \
    CHECK(kind, instruction, "avxvnni_y(%%rip)", "%%ymm3", "%%ymm12")

int main(void) {
    uint32_t state = 1;
    FORMS(BYTES | WIDE, "vpdpbusd")
    FORMS(WIDE, "vpdpwssd")
    CHECK(BYTES, "vpdpbusd", "%%xmm14", "%%xmm3", "%%xmm12")
    CHECK(0, "vpdpwssd", "avxvnni_y(%%rip)", "%%xmm3", "%%xmm12")
    puts("equal");
    return 0;
}
