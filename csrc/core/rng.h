/* rng.h: random numbers for calls that have entered their generator, or have one of their own. Knows core alone. */
#ifndef MG_RNG_H
#define MG_RNG_H
#include "handle.h"

/* MG_ERR_BUSY while another call draws; see handle.h. */
mg_status mg_generator_enter(mg_generator *generator, const void *call, struct mg_err *err);
void mg_generator_leave(mg_generator *generator, const void *call);

/* As mg_generator_randn, mg_generator_rand and mg_generator_randint. */
void mg_rng_randn(mg_generator *generator, float *out, size_t count);
void mg_rng_rand(mg_generator *generator, float *out, size_t count);
void mg_rng_randint(mg_generator *generator, int64_t *out, size_t count, uint32_t high);
#endif
