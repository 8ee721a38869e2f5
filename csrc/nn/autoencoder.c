/* autoencoder.c: whichever autoencoder a checkpoint has, AutoencoderKL or AutoencoderTiny, as one thing to the
 * pipeline. Calls vae.c and vae_tiny.c. */
#include <string.h>

#include "nn.h"

mg_status mg_autoencoder_read(struct mg_autoencoder *out, const struct mg_json *config, const char *name,
                              struct mg_err *err) {
    const char *class_name;
    memset(out, 0, sizeof *out);
    MG_TRY(mg_json_get_string(&class_name, config, "_class_name", "AutoencoderKL", name, err));
    out->is_tiny = !strcmp(class_name, "AutoencoderTiny");
    if (out->is_tiny) {
        MG_TRY(mg_vae_tiny_config_read(&out->tiny, config, name, err));
        out->image_channels = out->tiny.in_channels;
        out->latent_channels = out->tiny.latent_channels;
        out->scale = out->tiny.scale;
        out->scaling_factor = out->tiny.scaling_factor;
        return MG_OK;
    }
    MG_TRY(mg_vae_config_read(&out->kl, config, name, err));
    out->image_channels = out->kl.in_channels;
    out->latent_channels = out->kl.latent_channels;
    out->scale = 1 << (out->kl.num_levels - 1);
    out->scaling_factor = out->kl.scaling_factor;
    return MG_OK;
}

mg_value mg_autoencoder_encode_build(struct mg_graph *graph, const struct mg_autoencoder *vae, mg_value x) {
    return vae->is_tiny ? mg_vae_tiny_encode_build(graph, &vae->tiny, x) : mg_vae_encode_build(graph, &vae->kl, x);
}

mg_value mg_autoencoder_decode_build(struct mg_graph *graph, const struct mg_autoencoder *vae, mg_value z) {
    return vae->is_tiny ? mg_vae_tiny_decode_build(graph, &vae->tiny, z) : mg_vae_decode_build(graph, &vae->kl, z);
}
