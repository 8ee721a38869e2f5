/* precision.c: the table of precisions: what a pipeline opened with a dtype computes with.
 *
 * Sums, statistics, softmax and the schedule are float32 in every row, and so are time and text embeddings. */
#include <string.h>

#include "pipeline.h"

/* Measured on the trained checkpoints of the package: the VAE's convolutions in int8 triple the error of the whole pipeline (the
 * encoder's above all), and hold a tenth of the weights; the UNet's first and last convolutions see few channels, whose errors
 * nothing averages out. These stay in the activations' type. */
static const char *const int8_exceptions[] = {"encoder.", "decoder.", "quant_conv.", "conv_in.", "conv_out.", NULL};

static const struct mg_precision precisions[] = {
    {.name = "float32", .activations = MG_F32, .weights = MG_F32},
    {.name = "float16", .activations = MG_F16, .weights = MG_F16},
    {.name = "bfloat16", .activations = MG_BF16, .weights = MG_BF16},
    {.name = "int8", .activations = MG_BF16, .weights = MG_I8, .exceptions = int8_exceptions},
};

const struct mg_precision *mg_precision_of_name(const char *name) {
    for (size_t i = 0; i < sizeof precisions / sizeof precisions[0]; i++)
        if (!strcmp(precisions[i].name, name))
            return &precisions[i];
    return NULL;
}
