/* family.h: how the checkpoints of one method wire Marigold's networks: what the UNet sees, when, and what its output is. A
 * family is a row of the table in families.c; nothing else asks for one by its name. Private to pipeline and train. */
#ifndef MG_FAMILY_H
#define MG_FAMILY_H
#include "../nn/nn.h"
#include "heads.h"

/* What the UNet sees, side by side: the image's latent, the sample that becomes the prediction, and (a boosting UNet's alone) the
 * latent of a coarse prediction. */
typedef enum mg_unet_input { MG_INPUT_NONE, MG_INPUT_IMAGE, MG_INPUT_SAMPLE, MG_INPUT_COARSE } mg_unet_input;
enum { MG_UNET_INPUTS = 3 };
/* Of the empty prompt without padding: its begin and its end. */
enum { MG_TEXT_TOKENS = 2 };

struct mg_family {
    const char *name; /* "lotus-d" */
    /* Of model_index.json, but for the tasks' own (tasks.c), which are Marigold's. The UNet of a class must take as many latents
     * as the row says. */
    const char *class_names[3];
    /* NULL, or the class of folders in which this family's UNet takes the place of another. */
    const char *base_class;
    mg_unet_input inputs[MG_UNET_INPUTS]; /* in the order of the UNet's channels */
    bool starts_from_zeros;               /* the sample, where none is given; else noise */
    bool joins_frames;                    /* of a video, in self-attention */
    int text_tokens;                      /* of the empty prompt, where no number is asked for; more than 2: padded */
    /* 0: the output goes through the scheduler's steps. Else there is one pass, at `timestep`, and the prediction's latent is this
     * times the output. */
    float output_factor;
    double timestep;
    /* Of the scheduler's configuration only noise levels and prediction type count, of whatever class it is: DDIM in trailing time
     * steps takes its place. */
    bool samples_by_ddim;
    int class_channels; /* of the UNet's class embedding, 0: it has none; and what it is given */
    float class_labels[MG_MAX_CLASS_CHANNELS];
    int default_steps; /* where model_index.json names none; 0 and -1: an error then */
    int64_t default_resolution;
    mg_resample resample_output; /* where none is asked for */
    struct mg_head_options head;
    const char *headless;    /* NULL, or the variant whose UNet ends before its last convolution, for a message */
    const char *restriction; /* NULL, or what the licence of its weights forbids */
};

const struct mg_family *mg_family_of_name(const char *name);
/* The family of a checkpoint whose model_index.json names a class and whose UNet takes `input_latents`; `replaced`: the UNet is
 * not the folder's own. NULL: none. */
const struct mg_family *mg_family_of_class(const char *class_name, int input_latents, bool replaced);
/* Whether a class is that of any family. */
bool mg_family_has_class(const char *class_name);
/* How many latents its UNet takes for each image, one for each of the maps predicted. */
int mg_family_input_latents(const struct mg_family *family, int targets);
/* Whether there is a sample to begin with. */
bool mg_family_takes_sample(const struct mg_family *family);
/* All names, for a message. */
const char *mg_family_names(void);
#endif
