/* unet_config.c: reads unet/config.json as diffusers' UNet2DConditionModel understands it. */
#include <math.h>
#include <string.h>

#include "config.h"
#include "nn.h"

/* Whatever is not listed must be null, false, zero or empty; that covers other class embeddings, additional embeddings, other
 * attention and the rest of what the model class can do and Stable Diffusion 1 and 2 do not use. */
static const struct mg_config_rule rules[] = {
    {"in_channels", NULL},
    {"out_channels", NULL},
    {"block_out_channels", NULL},
    {"down_block_types", NULL},
    {"up_block_types", NULL},
    {"mid_block_type", NULL},
    {"layers_per_block", NULL},
    {"transformer_layers_per_block", NULL},
    {"attention_head_dim", NULL},
    {"num_attention_heads", NULL},
    {"cross_attention_dim", NULL},
    {"norm_num_groups", NULL},
    {"norm_eps", NULL},
    {"use_linear_projection", NULL},
    {"flip_sin_to_cos", NULL},
    {"freq_shift", NULL},
    {"class_embed_type", "\"projection\""},
    {"projection_class_embeddings_input_dim", NULL},
    /* without effect on inference in float32, or on these blocks */
    {"sample_size", NULL},
    {"dropout", NULL},
    {"upcast_attention", NULL},
    {"addition_embed_type_num_heads", NULL},
    /* written beside the model's own keys when its moving average was saved */
    {"decay", NULL},
    {"inv_gamma", NULL},
    {"min_decay", NULL},
    {"optimization_step", NULL},
    {"power", NULL},
    {"update_after_step", NULL},
    {"use_ema_warmup", NULL},
    {"act_fn", "\"silu\"|\"swish\""},
    {"downsample_padding", "1"},
    {"mid_block_scale_factor", "1"},
    {"resnet_out_scale_factor", "1"},
    {"resnet_time_scale_shift", "\"default\""},
    {"time_embedding_type", "\"positional\""},
    {"attention_type", "\"default\""},
    {"conv_in_kernel", "3"},
    {"conv_out_kernel", "3"},
    {NULL, NULL},
};

static mg_status read_mid_block(struct mg_unet_config *out, const struct mg_json *config, const char *name,
                                struct mg_err *err) {
    const struct mg_json *value = mg_json_get(config, "mid_block_type");
    out->has_mid_block = !value || value->type != MG_JSON_NULL;
    return mg_config_accept(config, "mid_block_type", "\"UNetMidBlock2DCrossAttn\"", name, err);
}

static mg_status read_blocks(struct mg_unet_config *out, const struct mg_json *config, const char *name,
                             struct mg_err *err) {
    static const char *const down[] = {"DownBlock2D", "CrossAttnDownBlock2D"};
    static const char *const up[] = {"UpBlock2D", "CrossAttnUpBlock2D"};
    int down_type[MG_MAX_LEVELS], up_type[MG_MAX_LEVELS];
    MG_TRY(mg_config_blocks(down_type, out->num_levels, config, "down_block_types", down, 2, name, err));
    MG_TRY(mg_config_blocks(up_type, out->num_levels, config, "up_block_types", up, 2, name, err));
    for (int i = 0; i < out->num_levels; i++) {
        out->attention_down[i] = down_type[i] == 1;
        out->attention_up[i] = up_type[i] == 1;
    }
    MG_TRY(mg_config_levels(out->layers_per_block, out->num_levels, config, "layers_per_block", 2, 1, MG_MAX_LAYERS,
                            name, err));
    MG_TRY(mg_config_levels(out->transformer_layers, out->num_levels, config, "transformer_layers_per_block", 1, 0,
                            MG_MAX_LAYERS, name, err));
    return read_mid_block(out, config, name, err);
}

static bool attends(const struct mg_unet_config *config, int level) {
    int deepest = config->num_levels - 1;
    return config->attention_down[level] || config->attention_up[deepest - level] ||
           (level == deepest && config->has_mid_block);
}

/* In this model class "attention_head_dim" has always meant the number of heads; its channels are what follows from it.
 * "num_attention_heads", where given, takes precedence. */
static mg_status read_attention(struct mg_unet_config *out, const struct mg_json *config, const char *name,
                                struct mg_err *err) {
    const struct mg_json *given = mg_json_get(config, "num_attention_heads");
    const char *key = given && given->type != MG_JSON_NULL ? "num_attention_heads" : "attention_head_dim";
    const struct mg_json *value = mg_json_get(config, key);
    if (value && value->type == MG_JSON_NULL)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\" is null; a whole number or a list was expected", name, key);
    MG_TRY(mg_config_levels(out->heads, out->num_levels, config, key, 8, 1, MG_MAX_CHANNELS, name, err));
    for (int i = 0; i < out->num_levels; i++)
        if (attends(out, i) && out->channels[i] % out->heads[i])
            return mg_fail(err, MG_ERR_CHECKPOINT,
                           "%s: \"block_out_channels\"[%d] is %lld, not divisible by \"%s\" %d (the number of heads)",
                           name, i, (long long)out->channels[i], key, out->heads[i]);
    int channels[MG_MAX_LEVELS];
    MG_TRY(mg_config_levels(channels, out->num_levels, config, "cross_attention_dim", 1280, 1, MG_MAX_CHANNELS, name,
                            err));
    for (int i = 1; i < out->num_levels; i++)
        if (channels[i] != channels[0])
            return mg_fail(err, MG_ERR_UNSUPPORTED,
                           "%s: \"cross_attention_dim\" is %d at one level and %d at another, which is not supported",
                           name, channels[0], channels[i]);
    out->cross_attention_dim = channels[0];
    return mg_json_get_bool(&out->linear_projection, config, "use_linear_projection", false, name, err);
}

static mg_status read_time_embedding(struct mg_unet_config *out, const struct mg_json *config, const char *name,
                                     struct mg_err *err) {
    double shift;
    MG_TRY(mg_json_get_bool(&out->flip_sin_to_cos, config, "flip_sin_to_cos", true, name, err));
    MG_TRY(mg_json_get_double(&shift, config, "freq_shift", 0, name, err));
    if (out->channels[0] % 2)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"block_out_channels\"[0] is %lld; an odd number is not supported",
                       name, (long long)out->channels[0]);
    if (fabs(shift) >= (double)(out->channels[0] / 2))
        return mg_fail(err, MG_ERR_CHECKPOINT,
                       "%s: \"freq_shift\" is %g; its size must be below half of \"block_out_channels\"[0], %lld", name,
                       shift, (long long)out->channels[0]);
    out->frequency_shift = (float)shift;
    return MG_OK;
}

static mg_status read_class_embedding(struct mg_unet_config *out, const struct mg_json *config, const char *name,
                                      struct mg_err *err) {
    const struct mg_json *type = mg_json_get(config, "class_embed_type");
    if (!type || type->type == MG_JSON_NULL)
        return MG_OK;
    return mg_config_int(&out->class_channels, config, "projection_class_embeddings_input_dim", 0, 1,
                         MG_MAX_CLASS_CHANNELS, name, err);
}

mg_status mg_unet_config_read(struct mg_unet_config *out, const struct mg_json *config, const char *name,
                              struct mg_err *err) {
    double epsilon;
    memset(out, 0, sizeof *out);
    MG_TRY(mg_config_accept(config, "_class_name", "\"UNet2DConditionModel\"", name, err));
    MG_TRY(mg_config_check(config, rules, name, err));
    MG_TRY(mg_config_int(&out->in_channels, config, "in_channels", 4, 1, MG_MAX_CHANNELS, name, err));
    MG_TRY(mg_config_int(&out->out_channels, config, "out_channels", 4, 1, MG_MAX_CHANNELS, name, err));
    MG_TRY(mg_config_groups(&out->norm_groups, config, name, err));
    MG_TRY(mg_json_get_double(&epsilon, config, "norm_eps", 1e-5, name, err));
    if (!((float)epsilon > 0.0f && epsilon <= 1.0))
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"norm_eps\" is %g; a number in (0, 1] was expected", name,
                       epsilon);
    out->norm_epsilon = (float)epsilon;
    MG_TRY(mg_config_channels(out->channels, &out->num_levels, MG_MAX_LEVELS, out->norm_groups, config, name, err));
    MG_TRY(read_blocks(out, config, name, err));
    MG_TRY(read_attention(out, config, name, err));
    MG_TRY(read_class_embedding(out, config, name, err));
    return read_time_embedding(out, config, name, err);
}
