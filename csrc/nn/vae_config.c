/* vae_config.c: reads vae/config.json as diffusers' AutoencoderKL understands it. */
#include <string.h>

#include "config.h"
#include "nn.h"

/* Whatever is not listed must be null, false, zero or empty: shift_factor, latents_mean, latents_std. */
static const struct mg_config_rule rules[] = {
    {"in_channels", "3"},
    {"out_channels", "3"},
    {"latent_channels", NULL},
    {"block_out_channels", NULL},
    {"down_block_types", NULL},
    {"up_block_types", NULL},
    {"layers_per_block", NULL},
    {"norm_num_groups", NULL},
    {"scaling_factor", NULL},
    {"use_quant_conv", NULL},
    {"use_post_quant_conv", NULL},
    {"mid_block_add_attention", NULL},
    /* without effect on inference in float32 */
    {"sample_size", NULL},
    {"force_upcast", NULL},
    {"act_fn", "\"silu\"|\"swish\""},
    {NULL, NULL},
};

mg_status mg_vae_config_read(struct mg_vae_config *out, const struct mg_json *config, const char *name,
                             struct mg_err *err) {
    static const char *const down[] = {"DownEncoderBlock2D"}, *const up[] = {"UpDecoderBlock2D"};
    int types[MG_MAX_LEVELS];
    memset(out, 0, sizeof *out);
    MG_TRY(mg_config_accept(config, "_class_name", "\"AutoencoderKL\"", name, err));
    MG_TRY(mg_config_check(config, rules, name, err));
    out->in_channels = out->out_channels = 3; /* pictures; the rules refuse anything else */
    MG_TRY(mg_config_int(&out->latent_channels, config, "latent_channels", 4, 1, MG_MAX_CHANNELS / 2, name, err));
    MG_TRY(mg_config_groups(&out->norm_groups, config, name, err));
    MG_TRY(mg_config_channels(out->channels, &out->num_levels, MG_MAX_LEVELS, out->norm_groups, config, name, err));
    MG_TRY(mg_config_blocks(types, out->num_levels, config, "down_block_types", down, 1, name, err));
    MG_TRY(mg_config_blocks(types, out->num_levels, config, "up_block_types", up, 1, name, err));
    MG_TRY(mg_config_int(&out->layers_per_block, config, "layers_per_block", 1, 1, MG_MAX_LAYERS, name, err));
    MG_TRY(mg_json_get_bool(&out->mid_attention, config, "mid_block_add_attention", true, name, err));
    MG_TRY(mg_json_get_bool(&out->quant_conv, config, "use_quant_conv", true, name, err));
    MG_TRY(mg_json_get_bool(&out->post_quant_conv, config, "use_post_quant_conv", true, name, err));
    return mg_config_scaling_factor(&out->scaling_factor, config, 0.18215, name, err);
}
