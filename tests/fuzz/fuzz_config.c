/* fuzz_config.c: any JSON as the configuration of a network or a scheduler; the first byte says which. A network that is
 * accepted says the shapes of its weights, a scheduler the factors of every step. */
#include <stdlib.h>
#include <string.h>

#include "../../csrc/include/marigold.h"
#include "fuzz.h"

static const char *const networks[] = {"unet", "vae", "text_encoder"};
enum { NETWORKS = 3, MOST_STEPS = 50 };

static void count(void *user, const char *key, const int64_t *shape, int ndim) {
    int64_t *numbers = user;
    for (int i = 0; i < ndim; i++)
        *numbers += shape[i] > 0 && strlen(key) > 0;
}

static void schedule(const char *text, size_t size, struct mg_err *err) {
    mg_scheduler *scheduler = NULL;
    const mg_status status = mg_scheduler_create(&scheduler, text, size, err);
    fuzz_check(status, err);
    int steps = 1 + (int)(size % MOST_STEPS);
    if (!status && !mg_scheduler_set_timesteps(scheduler, steps, err)) {
        mg_scheduler_timesteps(scheduler, &steps);
        for (int step = 0; step < steps; step++) {
            struct mg_step_coefficients factors;
            const struct mg_step_options options = {.has_last_estimate = step > 0};
            fuzz_check(mg_scheduler_step_coefficients(&factors, scheduler, step, &options, err), err);
        }
    }
    mg_scheduler_destroy(scheduler);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct mg_err err;
    int64_t numbers = 0;
    if (!size)
        return 0;
    const int which = data[0] % (NETWORKS + 1);
    char *text = malloc(size); /* of its own, so that a byte too far is seen */
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    if (which < NETWORKS)
        fuzz_check(mg_declared_weights(networks[which], text, size - 1, "config.json", count, &numbers, &err), &err);
    else
        schedule(text, size - 1, &err);
    free(text);
    return 0;
}
