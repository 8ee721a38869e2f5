/* families.c: the table of families. A new one is a row here, and a row of what is published in marigold_c/loading/families.py. */
#include "family.h"

#include <string.h>

/* sin and cos of (1, 0), the task "predict" of Lotus; (0, 1) would be its other one, to reconstruct the image. */
#define LOTUS_PREDICTS                                                                                                 \
    { 0.8414709848f, 0.0f, 0.5403023059f, 1.0f }

static const struct mg_family families[] = {
    /* arXiv 2312.02145, 2505.09358. */
    {.name = "marigold",
     .inputs = {MG_INPUT_IMAGE, MG_INPUT_SAMPLE},
     .text_tokens = MG_TEXT_TOKENS,
     .default_resolution = -1,
     .resample_output = MG_RESAMPLE_BILINEAR},
    /* Martin Garcia et al., arXiv 2409.11355: Marigold's or Stable Diffusion's layout; one step from zeros. */
    {.name = "e2e-ft",
     .class_names = {"StableDiffusionPipeline"},
     .inputs = {MG_INPUT_IMAGE, MG_INPUT_SAMPLE},
     .text_tokens = MG_TEXT_TOKENS,
     .starts_from_zeros = true,
     .samples_by_ddim = true,
     .default_steps = 1,
     .default_resolution = 768,
     .resample_output = MG_RESAMPLE_BILINEAR,
     .head = {.stretches = true, .leaves_unclipped = true}},
    /* He et al., arXiv 2409.18124: the UNet gives the clean latent; of the image alone, or of image and noise. */
    {.name = "lotus-d",
     .class_names = {"DirectRegressionPipeline", "LotusDPipeline"},
     .inputs = {MG_INPUT_IMAGE},
     .text_tokens = MG_TEXT_TOKENS,
     .output_factor = 1.0f,
     .timestep = 999.0,
     .samples_by_ddim = true,
     .class_channels = 4,
     .class_labels = LOTUS_PREDICTS,
     .default_steps = 1,
     .default_resolution = 768,
     .resample_output = MG_RESAMPLE_NEAREST_EXACT,
     .head = {.clips_channels = true}},
    {.name = "lotus-g",
     .class_names = {"DirectDiffusionY0Pipeline", "LotusGPipeline"},
     .inputs = {MG_INPUT_IMAGE, MG_INPUT_SAMPLE},
     .text_tokens = MG_TEXT_TOKENS,
     .output_factor = 1.0f,
     .timestep = 999.0,
     .samples_by_ddim = true,
     .class_channels = 4,
     .class_labels = LOTUS_PREDICTS,
     .default_steps = 1,
     .default_resolution = 768,
     .resample_output = MG_RESAMPLE_NEAREST_EXACT,
     .head = {.clips_channels = true}},
    /* Xu et al., arXiv 2403.06090: v-prediction without any signal left at time step 1, so the clean latent is -v. */
    {.name = "genpercept",
     .class_names = {"GenPerceptPipeline"},
     .base_class = "StableDiffusionPipeline",
     .inputs = {MG_INPUT_IMAGE},
     .text_tokens = MG_TEXT_TOKENS,
     .output_factor = -1.0f,
     .timestep = 1.0,
     .samples_by_ddim = true,
     .default_steps = 1,
     .default_resolution = 768,
     .resample_output = MG_RESAMPLE_BILINEAR,
     .headless = "GenPercept with a DPT head",
     .restriction = "free for non-commercial use only; for other use its authors are to be asked"},
    /* Ke et al., arXiv 2411.19189: Marigold's networks for the frames of a video. An image is a video of one frame. */
    {.name = "rollingdepth",
     .class_names = {"RollingDepthPipeline"},
     .inputs = {MG_INPUT_IMAGE, MG_INPUT_SAMPLE},
     .text_tokens = MG_TEXT_TOKENS,
     .joins_frames = true,
     .default_steps = 1,
     .default_resolution = 768,
     .resample_output = MG_RESAMPLE_BILINEAR,
     .head = {.stretches = true, .leaves_depth_unclipped = true}},
};
enum { NUM_FAMILIES = sizeof families / sizeof families[0] };

const struct mg_family *mg_family_of_name(const char *name) {
    for (int i = 0; i < NUM_FAMILIES; i++)
        if (!strcmp(families[i].name, name))
            return &families[i];
    return NULL;
}

static bool is_of(const struct mg_family *family, const char *class_name, bool replaced) {
    for (int i = 0; i < 3 && family->class_names[i]; i++)
        if (!strcmp(family->class_names[i], class_name))
            return true;
    return replaced && family->base_class && !strcmp(family->base_class, class_name);
}

const struct mg_family *mg_family_of_class(const char *class_name, int input_latents, bool replaced) {
    for (int i = 0; i < NUM_FAMILIES; i++)
        if (is_of(&families[i], class_name, replaced) && mg_family_input_latents(&families[i], 1) == input_latents)
            return &families[i];
    return NULL;
}

bool mg_family_has_class(const char *class_name) {
    for (int i = 0; i < NUM_FAMILIES; i++)
        if (is_of(&families[i], class_name, true))
            return true;
    return false;
}

const char *mg_family_of_checkpoint(const char *class_name, int input_latents, bool replaced) {
    const struct mg_family *family = mg_family_of_class(class_name, input_latents, replaced);
    return family ? family->name : NULL;
}

int mg_family_input_latents(const struct mg_family *family, int targets) {
    int latents = 0;
    for (int i = 0; i < MG_UNET_INPUTS; i++)
        latents += family->inputs[i] == MG_INPUT_IMAGE ? 1 : family->inputs[i] == MG_INPUT_SAMPLE ? targets : 0;
    return latents;
}

bool mg_family_takes_sample(const struct mg_family *family) {
    for (int i = 0; i < MG_UNET_INPUTS; i++)
        if (family->inputs[i] == MG_INPUT_SAMPLE)
            return true;
    return false;
}

const char *mg_family_names(void) { return "marigold, e2e-ft, lotus-d, lotus-g, genpercept, rollingdepth"; }
