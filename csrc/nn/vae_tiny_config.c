/* vae_tiny_config.c: reads the configuration of an AutoencoderTiny as diffusers understands it. */
#include <string.h>

#include "config.h"
#include "nn.h"

/* Whatever is not listed must be null, false, zero or empty: shift_factor. */
static const struct mg_config_rule rules[] = {
    {"in_channels", "3"},
    {"out_channels", "3"},
    {"latent_channels", NULL},
    {"encoder_block_out_channels", NULL},
    {"decoder_block_out_channels", NULL},
    {"num_encoder_blocks", NULL},
    {"num_decoder_blocks", NULL},
    {"upsampling_scaling_factor", NULL},
    {"scaling_factor", NULL},
    {"act_fn", "\"relu\"|\"silu\"|\"swish\"|\"gelu\""},
    {"upsample_fn", "\"nearest\""},
    /* without effect: the first repeats decoder_block_out_channels, latents are not stored as bytes here */
    {"block_out_channels", NULL},
    {"latent_magnitude", NULL},
    {"latent_shift", NULL},
    {"force_upcast", NULL},
    {NULL, NULL},
};

static mg_status read_half(int *stages, int *channels, int *blocks, const struct mg_json *config,
                           const char *channels_key, const char *blocks_key, const int *default_blocks,
                           const char *name, struct mg_err *err) {
    static const int default_channels[] = {64, 64, 64, 64};
    int widths[MG_MAX_LEVELS], counts = 4;
    *stages = 4;
    MG_TRY(mg_config_list(widths, stages, MG_MAX_LEVELS, config, channels_key, default_channels, 1, MG_MAX_CHANNELS,
                          name, err));
    MG_TRY(mg_config_list(blocks, &counts, MG_MAX_LEVELS, config, blocks_key, default_blocks, 0, MG_MAX_LAYERS, name,
                          err));
    if (counts != *stages)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\" is of %d items, \"%s\" of %d; both count the stages", name,
                       blocks_key, counts, channels_key, *stages);
    /* No layer leads from one width to another. */
    for (int i = 1; i < *stages; i++)
        if (widths[i] != widths[0])
            return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\"[%d] is %d; [0] is %d, and all must be equal", name,
                           channels_key, i, widths[i], widths[0]);
    *channels = widths[0];
    return MG_OK;
}

/* The image must come back in the size that went in. */
static mg_status read_scale(struct mg_vae_tiny_config *out, const struct mg_json *config, const char *name,
                            struct mg_err *err) {
    int64_t enlarged = 1;
    MG_TRY(mg_config_int(&out->upsampling, config, "upsampling_scaling_factor", 2, 1, 1 << (MG_MAX_LEVELS - 1), name,
                         err));
    out->scale = 1 << (out->encoder_stages - 1);
    for (int i = 1; i < out->decoder_stages; i++)
        enlarged *= out->upsampling;
    if (enlarged != out->scale)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "%s: the decoder enlarges %lld times (\"upsampling_scaling_factor\" %d, %d stages), the encoder "
                       "reduces %d times (%d stages), which is not supported",
                       name, (long long)enlarged, out->upsampling, out->decoder_stages, out->scale,
                       out->encoder_stages);
    return MG_OK;
}

static mg_activation activation_of(const char *act_fn) {
    if (!strcmp(act_fn, "relu"))
        return MG_ACT_RELU;
    return strcmp(act_fn, "gelu") ? MG_ACT_SILU : MG_ACT_GELU;
}

mg_status mg_vae_tiny_config_read(struct mg_vae_tiny_config *out, const struct mg_json *config, const char *name,
                                  struct mg_err *err) {
    static const int encoder_blocks[] = {1, 3, 3, 3}, decoder_blocks[] = {3, 3, 3, 1};
    const char *act_fn;
    memset(out, 0, sizeof *out);
    MG_TRY(mg_config_accept(config, "_class_name", "\"AutoencoderTiny\"", name, err));
    MG_TRY(mg_config_check(config, rules, name, err));
    out->in_channels = out->out_channels = 3; /* pictures; the rules refuse anything else */
    MG_TRY(mg_config_int(&out->latent_channels, config, "latent_channels", 4, 1, MG_MAX_CHANNELS, name, err));
    MG_TRY(read_half(&out->encoder_stages, &out->encoder_channels, out->encoder_blocks, config,
                     "encoder_block_out_channels", "num_encoder_blocks", encoder_blocks, name, err));
    MG_TRY(read_half(&out->decoder_stages, &out->decoder_channels, out->decoder_blocks, config,
                     "decoder_block_out_channels", "num_decoder_blocks", decoder_blocks, name, err));
    MG_TRY(read_scale(out, config, name, err));
    MG_TRY(mg_json_get_string(&act_fn, config, "act_fn", "relu", name, err));
    out->activation = activation_of(act_fn);
    return mg_config_scaling_factor(&out->scaling_factor, config, 1.0, name, err);
}
