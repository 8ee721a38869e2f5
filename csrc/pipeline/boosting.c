/* boosting.c: the second UNet of Marigold-HR (arXiv 2505.09358), which sees the latent of a coarse prediction beside those of the image
 * and of the sample: its configuration, its weights, the order of its latents. Calls source.c. */
#include <stdio.h>
#include <string.h>

#include "pipeline.h"

static const char *const input_names[] = {
    [MG_INPUT_IMAGE] = "image", [MG_INPUT_SAMPLE] = "sample", [MG_INPUT_COARSE] = "coarse"};
/* That of BetterDepth (arXiv 2407.17952), whose training is Marigold-HR's. */
#define USUAL_INPUTS "image,coarse,sample"
#define CONFIG "boosting_unet/config.json"

static mg_unet_input input_of_name(const char *name, size_t length) {
    for (int i = MG_INPUT_IMAGE; i <= MG_INPUT_COARSE; i++)
        if (strlen(input_names[i]) == length && !strncmp(input_names[i], name, length))
            return (mg_unet_input)i;
    return MG_INPUT_NONE;
}

mg_status mg_boosting_set_inputs(struct mg_boosting *boosting, const char *text, struct mg_err *err) {
    const char *rest = text ? text : USUAL_INPUTS;
    int seen = 0, count = 0;
    for (; count < MG_UNET_INPUTS; count++) {
        const size_t length = strcspn(rest, ",");
        boosting->inputs[count] = input_of_name(rest, length);
        seen |= 1 << boosting->inputs[count];
        rest += length;
        if (*rest != ',')
            break;
        rest++;
    }
    if (count == MG_UNET_INPUTS - 1 && !*rest &&
        seen == (1 << MG_INPUT_IMAGE | 1 << MG_INPUT_SAMPLE | 1 << MG_INPUT_COARSE))
        return MG_OK;
    return mg_fail(err, MG_ERR_ARGUMENT,
                   "boosting_inputs \"%.80s\": expected \"image\", \"coarse\" and \"sample\" in some order, as \"%s\"",
                   text ? text : "", USUAL_INPUTS);
}

void mg_boosting_inputs_text(char out[MG_BOOSTING_INPUTS_TEXT], const struct mg_boosting *boosting) {
    snprintf(out, MG_BOOSTING_INPUTS_TEXT, "%s,%s,%s", input_names[boosting->inputs[0]],
             input_names[boosting->inputs[1]], input_names[boosting->inputs[2]]);
}

/* Why there is none is another thing than a file that cannot be read. */
static mg_status check_there(const struct mg_source *source, struct mg_err *err) {
    bool there = source->is_packed && mg_packed_text(&source->packed, CONFIG);
    if (!source->is_packed) {
        char *path;
        MG_TRY(mg_path_join(&path, source->path, CONFIG, err));
        there = mg_file_exists(path);
        mg_free(path);
    }
    return there ? MG_OK
                 : mg_fail(err, MG_ERR_CHECKPOINT, "%s: has no boosting_unet, the second UNet of Marigold-HR",
                           source->path);
}

mg_status mg_boosting_open(struct mg_pipeline *p, struct mg_err *err) {
    struct mg_arena arena;
    const struct mg_json *config;
    const char *path;
    mg_status status;
    mg_arena_init(&arena);
    MG_TRY_GOTO(check_there(&p->source, err));
    MG_TRY_GOTO(mg_source_config(&config, &path, &p->source, CONFIG, &arena, err));
    MG_TRY_GOTO(mg_unet_config_read(&p->boosting.unet, config, path, err));
    MG_TRY_GOTO(mg_source_weights(&p->boosting.weights, &p->source, "boosting_unet", "boosting_unet", err));
    p->boosting.is_open = true;
done:
    mg_arena_free(&arena);
    return status;
}

mg_status mg_boosting_check(const struct mg_pipeline *p, struct mg_err *err) {
    const struct mg_unet_config *second = &p->boosting.unet;
    const int latent = p->vae.latent_channels;
    if (strcmp(p->task->name, "depth") || p->family->output_factor != 0.0f)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       "%s: a boosting_unet refines depth that is denoised in steps, not %s of family %s",
                       p->source.path, p->task->name, p->family->name);
    if (second->in_channels != MG_UNET_INPUTS * latent || second->out_channels != latent)
        return mg_fail(err, MG_ERR_UNSUPPORTED,
                       CONFIG ": in_channels %d and out_channels %d do not fit latents of %d channels "
                              "of image, coarse prediction and sample (wanted: %d and %d)",
                       second->in_channels, second->out_channels, latent, MG_UNET_INPUTS * latent, latent);
    if (second->class_channels)
        return mg_fail(err, MG_ERR_UNSUPPORTED, CONFIG ": a class embedding of %d inputs; expected none",
                       second->class_channels);
    if (second->cross_attention_dim != p->unet.cross_attention_dim)
        return mg_fail(err, MG_ERR_UNSUPPORTED, CONFIG ": cross_attention_dim %d differs from the UNet's, %d",
                       second->cross_attention_dim, p->unet.cross_attention_dim);
    return MG_OK;
}
