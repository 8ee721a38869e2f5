/* rng.c: the random stream of torch.Generator("cpu"): Mersenne Twister 19937 (Matsumoto and Nishimura 1998) and the
 * ways in which torch makes normal numbers of it.
 *
 * torch.randn takes two paths. From 16 elements on: a float32 uniform (24 bits) for each element, then Box-Muller on
 * blocks of 16, the first half of a block against the second; a tail that is no block is drawn anew as the last 16
 * elements. Below 16: Box-Muller in double precision, one pair at a time, whose second number waits for the next call,
 * whatever is drawn between. */
#include <math.h>
#include <string.h>

#include "rng.h"

enum { STATE = 624, SHIFT = 397, BLOCK = 16 };

struct mg_generator {
    mg_handle_user user;
    uint32_t state[STATE];
    int next; /* first unused word; STATE: all used */
    bool has_waiting;
    double waiting;
};

static void start(mg_generator *generator, uint64_t seed) {
    uint32_t *s = generator->state;
    s[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < STATE; i++)
        s[i] = 1812433253u * (s[i - 1] ^ s[i - 1] >> 30) + i;
    generator->next = STATE;
    generator->has_waiting = false;
}

mg_status mg_generator_create(mg_generator **out, uint64_t seed, struct mg_err *err) {
    MG_TRY(mg_alloc_zeroed((void **)out, sizeof **out, "a random generator", err));
    start(*out, seed);
    return MG_OK;
}

void mg_generator_destroy(mg_generator *generator) { mg_free(generator); }

static void refill(mg_generator *generator) {
    uint32_t *s = generator->state;
    for (int i = 0; i < STATE; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % STATE] & 0x7fffffffu);
        s[i] = s[(i + SHIFT) % STATE] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    generator->next = 0;
}

static uint32_t next_word(mg_generator *generator) {
    if (generator->next == STATE)
        refill(generator);
    uint32_t y = generator->state[generator->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static float next_uniform_float(mg_generator *generator) { return (float)(next_word(generator) & 0xffffff) * 0x1p-24f; }

static double next_uniform_double(mg_generator *generator) {
    uint64_t high = next_word(generator), low = next_word(generator);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

static void normal_block(float block[BLOCK]) {
    for (int i = 0; i < BLOCK / 2; i++) {
        float u1 = 1.0f - block[i], u2 = block[i + BLOCK / 2]; /* u1 in (0, 1]: the logarithm is finite */
        double radius = sqrt(-2.0 * log((double)u1)), angle = 2.0 * 3.14159265358979323846 * (double)u2;
        block[i] = (float)(radius * cos(angle));
        block[i + BLOCK / 2] = (float)(radius * sin(angle));
    }
}

static double next_normal_double(mg_generator *generator) {
    if (generator->has_waiting) {
        generator->has_waiting = false;
        return generator->waiting;
    }
    double u1 = next_uniform_double(generator), u2 = next_uniform_double(generator);
    double radius = sqrt(-2.0 * log1p(-u2)), angle = 2.0 * 3.14159265358979323846 * u1;
    generator->waiting = radius * sin(angle);
    generator->has_waiting = true;
    return radius * cos(angle);
}

void mg_rng_randn(mg_generator *generator, float *out, size_t count) {
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++)
            out[i] = (float)next_normal_double(generator);
        return;
    }
    for (size_t i = 0; i < count; i++)
        out[i] = next_uniform_float(generator);
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK)
        normal_block(out + i);
    if (count % BLOCK) {
        for (int i = 0; i < BLOCK; i++)
            out[count - BLOCK + (size_t)i] = next_uniform_float(generator);
        normal_block(out + count - BLOCK);
    }
}

void mg_rng_rand(mg_generator *generator, float *out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = next_uniform_float(generator);
}

void mg_rng_randint(mg_generator *generator, int64_t *out, size_t count, uint32_t high) {
    for (size_t i = 0; i < count; i++)
        out[i] = (int64_t)(next_word(generator) % high);
}

/* ---- the state as torch stores it ---- */

/* CPUGeneratorImplState of torch 1.3 and later, on 64-bit little-endian machines. */
struct torch_state {
    uint64_t seed;
    int32_t left; /* words until the next refill, and one: 1 refills at once */
    int32_t seeded;
    uint64_t next;
    uint64_t state[STATE];
    double unused_x, waiting, unused_rho;
    int32_t has_waiting;
    float waiting_float;
    uint8_t has_waiting_float;
};
_Static_assert(sizeof(struct torch_state) <= MG_GENERATOR_STATE_BYTES, "torch's state has another size");

static void write_state(const mg_generator *generator, uint8_t out[MG_GENERATOR_STATE_BYTES]) {
    struct torch_state t = {.left = STATE + 1 - generator->next,
                            .seeded = 1,
                            .next = (uint64_t)generator->next,
                            .waiting = generator->has_waiting ? generator->waiting : 0.0,
                            .has_waiting = generator->has_waiting};
    for (int i = 0; i < STATE; i++)
        t.state[i] = generator->state[i];
    memset(out + sizeof t.seed, 0, MG_GENERATOR_STATE_BYTES - sizeof t.seed);
    memcpy(out + sizeof t.seed, (const uint8_t *)&t + sizeof t.seed, sizeof t - sizeof t.seed);
}

static mg_status read_state(mg_generator *generator, const uint8_t state[MG_GENERATOR_STATE_BYTES],
                            struct mg_err *err) {
    struct torch_state t;
    memcpy(&t, state, sizeof t);
    if (t.left < 1 || t.left > STATE || t.next > STATE)
        return mg_fail(err, MG_ERR_ARGUMENT, "the generator's state is damaged: %d words left, %llu used", (int)t.left,
                       (unsigned long long)t.next);
    for (int i = 0; i < STATE; i++)
        generator->state[i] = (uint32_t)t.state[i];
    generator->next = STATE + 1 - t.left;
    generator->has_waiting = t.has_waiting != 0;
    generator->waiting = t.waiting;
    return MG_OK;
}

/* ---- marigold.h: the same, one call at a time ---- */
mg_status mg_generator_enter(mg_generator *generator, const void *call, struct mg_err *err) {
    return mg_handle_enter(&generator->user, call, "generator", err);
}

void mg_generator_leave(mg_generator *generator, const void *call) { mg_handle_leave(&generator->user, call); }

mg_status mg_generator_seed(mg_generator *generator, uint64_t seed, struct mg_err *err) {
    MG_TRY(mg_generator_enter(generator, &seed, err));
    start(generator, seed);
    mg_generator_leave(generator, &seed);
    return MG_OK;
}

mg_status mg_generator_randn(mg_generator *generator, float *out, size_t count, struct mg_err *err) {
    MG_TRY(mg_generator_enter(generator, &count, err));
    mg_rng_randn(generator, out, count);
    mg_generator_leave(generator, &count);
    return MG_OK;
}

mg_status mg_generator_rand(mg_generator *generator, float *out, size_t count, struct mg_err *err) {
    MG_TRY(mg_generator_enter(generator, &count, err));
    mg_rng_rand(generator, out, count);
    mg_generator_leave(generator, &count);
    return MG_OK;
}

mg_status mg_generator_randint(mg_generator *generator, int64_t *out, size_t count, uint32_t high, struct mg_err *err) {
    MG_TRY(mg_generator_enter(generator, &count, err));
    mg_rng_randint(generator, out, count, high);
    mg_generator_leave(generator, &count);
    return MG_OK;
}

mg_status mg_generator_get_state(mg_generator *generator, uint8_t out[MG_GENERATOR_STATE_BYTES], struct mg_err *err) {
    MG_TRY(mg_generator_enter(generator, &out, err));
    write_state(generator, out);
    mg_generator_leave(generator, &out);
    return MG_OK;
}

mg_status mg_generator_set_state(mg_generator *generator, const uint8_t state[MG_GENERATOR_STATE_BYTES],
                                 struct mg_err *err) {
    MG_TRY(mg_generator_enter(generator, &state, err));
    const mg_status status = read_state(generator, state, err);
    mg_generator_leave(generator, &state);
    return status;
}
