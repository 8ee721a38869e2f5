/* marigold.h: the only public C header of marigold_c.
 *
 * Estimate depth from a photograph, in ten lines:
 *
 *     struct mg_err err;
 *     struct mg_pipeline_params open_params; mg_pipeline_params_init(&open_params);
 *     open_params.folder = "marigold-depth-v1-1";
 *     mg_pipeline *pipe; struct mg_result result;
 *     if (mg_pipeline_open(&pipe, &open_params, &err)) return puts(err.message);
 *     struct mg_run_params run; mg_run_params_init(&run);
 *     run.image = (struct mg_image){.data = pixels, .type = MG_PIXEL_U8, .n = 1, .h = height, .w = width, .c = 3};
 *     if (mg_pipeline_run(&result, pipe, &run, &err)) return puts(err.message);
 *     // result.prediction: float32 (1, height, width, 1) in [0, 1], 0 near, 1 far
 *     mg_result_free(&result); mg_pipeline_close(pipe);
 *
 * Every fallible function returns mg_status (MG_OK is 0) and takes struct mg_err last. Handles are opaque.
 * A handle may be used by one thread at a time: a second one gets MG_ERR_BUSY from functions that return mg_status; what
 * the others return may change while a call is under way, and no handle may be destroyed then. Different handles are
 * independent. A run uses the generators and the scheduler that it is given.
 * Arrays are float32, C-contiguous; shape letters: N image, E ensemble member, T target (map of an intrinsic
 * decomposition), H W pixels, h w latent cells, C channel.
 */
#ifndef MARIGOLD_H
#define MARIGOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mg_status {
    MG_OK = 0,
    MG_ERR_ARGUMENT,    /* a bad argument: Python ValueError */
    MG_ERR_CHECKPOINT,  /* a damaged or hostile file: CheckpointError */
    MG_ERR_UNSUPPORTED, /* an architecture that is not built: NotImplementedError */
    MG_ERR_DEVICE,      /* the device is missing or failed: DeviceError */
    MG_ERR_MEMORY,      /* MemoryError */
    MG_ERR_IO,          /* the operating system refused a file: OSError, errno in mg_err.os_errno */
    MG_ERR_NOT_FINITE,  /* a loss or gradients that are no finite numbers: NotFiniteError */
    MG_ERR_CANCELLED,   /* the poll callback asked to stop: KeyboardInterrupt */
    MG_ERR_BUSY         /* the handle is in use by another thread: RuntimeError */
} mg_status;

enum { MG_ERR_MESSAGE_BYTES = 32768 };

struct mg_err {
    mg_status status;
    int os_errno;
    char message[MG_ERR_MESSAGE_BYTES]; /* UTF-8, names the file, tensor or argument, with the numbers */
};

/* ---- random numbers: the stream of torch.Generator("cpu") ---- */
typedef struct mg_generator mg_generator;
mg_status mg_generator_create(mg_generator **out, uint64_t seed, struct mg_err *err);
void mg_generator_destroy(mg_generator *generator);
mg_status mg_generator_seed(mg_generator *generator, uint64_t seed, struct mg_err *err);
/* Fills out[0..count) with what torch.randn(count, generator=...) returns next (within 2e-6). */
mg_status mg_generator_randn(mg_generator *generator, float *out, size_t count, struct mg_err *err);
/* The same for torch.rand: uniform in [0, 1), 24 bits each. */
mg_status mg_generator_rand(mg_generator *generator, float *out, size_t count, struct mg_err *err);
/* The same for torch.randint(0, high, (count,)); high 1 to 2^28. */
mg_status mg_generator_randint(mg_generator *generator, int64_t *out, size_t count, uint32_t high, struct mg_err *err);
/* Annealed multi-resolution noise of Marigold's fine-tuning (arXiv 2312.02145): randn plus fields of ever lower resolution,
 * level i bilinearly enlarged and times strength[sample]^i, all divided by the standard deviation of the batch. out (N, C,
 * H, W), of two numbers or more; strength[n] in [0, 1]. */
mg_status mg_multi_resolution_noise(float *out, int64_t n, int64_t c, int64_t h, int64_t w, const float *strength,
                                    mg_generator *generator, struct mg_err *err);
/* The state in the bytes of torch.Generator.get_state(), but for the seed in the first eight, which are left alone. */
enum { MG_GENERATOR_STATE_BYTES = 5056 };
mg_status mg_generator_get_state(mg_generator *generator, uint8_t out[MG_GENERATOR_STATE_BYTES], struct mg_err *err);
mg_status mg_generator_set_state(mg_generator *generator, const uint8_t state[MG_GENERATOR_STATE_BYTES],
                                 struct mg_err *err);

/* ---- images ---- */
typedef enum mg_pixel_type { MG_PIXEL_U8, MG_PIXEL_U16, MG_PIXEL_F32 } mg_pixel_type;

/* A batch of images, C-contiguous (N, H, W, C); integers span [0, max], floats [0, 1]. */
struct mg_image {
    const void *data;
    mg_pixel_type type;
    int64_t n, h, w, c;
};

typedef enum mg_resample {
    MG_RESAMPLE_NEAREST,
    MG_RESAMPLE_NEAREST_EXACT,
    MG_RESAMPLE_BILINEAR,
    MG_RESAMPLE_BICUBIC,
    MG_RESAMPLE_AREA,
    MG_RESAMPLE_DEFAULT /* within mg_run_params only: that of the checkpoint's family */
} mg_resample;

/* "nearest", "nearest-exact", "bilinear", "bicubic", "area"; else MG_ERR_ARGUMENT naming `argument`. */
mg_status mg_resample_from_name(mg_resample *out, const char *name, const char *argument, struct mg_err *err);

/* Resize (N, C, H, W) planes as torch.nn.functional.interpolate(x, (out_h, out_w), mode, antialias=antialias,
 * align_corners=False). antialias only with bilinear and bicubic, and
 * sides of 2^23 pixels at most: beyond, float32, in which torch places a filter, tells neighbours no longer apart. */
mg_status mg_resize(float *out, const float *in, int64_t n, int64_t c, int64_t in_h, int64_t in_w, int64_t out_h,
                    int64_t out_w, mg_resample mode, bool antialias, struct mg_err *err);

/* Colours of `count` values, 8 bits of red, green and blue each; `out` has 3 * count bytes. For both, values lie in
 * [0, 1]. */
/* Between `stop_count` (at least 1) colours (r, g, b) in [0, 1] at equal distances, rounded down. Values beyond the ends
 * take the colour of the end, what is no number the first. In float32, as diffusers' MarigoldImageProcessor. */
void mg_colormap_linear(uint8_t *out, const float *values, int64_t count, const float *stops, int64_t stop_count);
/* One of `size` (at least 1) colours, as matplotlib's Colormap. The table has size + 3 rows: the colours, then those of
 * values below 0, above 1, and of what is no number. */
void mg_colormap_listed(uint8_t *out, const float *values, int64_t count, const uint8_t *table, int64_t size);

/* Whose resizing and padding a run repeats; the two references differ. */
typedef enum mg_preset {
    MG_PRESET_DIFFUSERS, /* floats are resized; padded to multiples of the VAE's scale; outputs without antialiasing */
    MG_PRESET_PAPER /* prs-eth/Marigold: 8-bit pixels are resized; no padding, the VAE floors; outputs antialiased */
} mg_preset;
/* "diffusers", "paper"; else MG_ERR_ARGUMENT. */
mg_status mg_preset_from_name(mg_preset *out, const char *name, struct mg_err *err);

/* Where an image of size (h, w) lands in the network: resized to (resized_h, resized_w), padded right and bottom to
 * (padded_h, padded_w), encoded to a latent of (latent_h, latent_w); of the decoded maps (output_h, output_w) are kept.
 * vae_scale: pixels of a latent cell's side. processing_resolution 0 keeps the image's size. */
struct mg_geometry {
    mg_preset preset;
    int64_t h, w, resized_h, resized_w, padded_h, padded_w, latent_h, latent_w, output_h, output_w;
};
mg_status mg_geometry_of(struct mg_geometry *out, int64_t h, int64_t w, int64_t processing_resolution,
                         int64_t vae_scale, mg_preset preset, struct mg_err *err);

/* Pixels to the network's input (N, 3, geometry.padded_h, geometry.padded_w) in [-1, 1]: grey to three channels, resize
 * (antialiased if bilinear or bicubic), pad by replication, in the order of the geometry's preset. The paper's resizing
 * rounds 8-bit pixels to 8 bits again. Floats outside [0, 1] or NaN are refused. */
mg_status mg_preprocess(float *out, const struct mg_image *image, const struct mg_geometry *geometry, mg_resample mode,
                        struct mg_err *err);

/* ---- schedulers ---- */
typedef struct mg_scheduler mg_scheduler;
/* config_json: the text of scheduler_config.json, "_class_name" DDIMScheduler, LCMScheduler, EulerDiscreteScheduler or
 * DPMSolverMultistepScheduler. MG_ERR_UNSUPPORTED names the option that is not supported. */
mg_status mg_scheduler_create(mg_scheduler **out, const char *config_json, size_t config_bytes, struct mg_err *err);
void mg_scheduler_destroy(mg_scheduler *scheduler);
const char *mg_scheduler_class_name(const mg_scheduler *scheduler);
/* The deviation of the noise that such a schedule begins with; after set_timesteps that of its time steps. Pipelines begin
 * with unit noise. */
double mg_scheduler_init_noise_sigma(const mg_scheduler *scheduler);
int mg_scheduler_num_train_timesteps(const mg_scheduler *scheduler);
/* num_train_timesteps values of the cumulative product of alphas (after any zero-terminal-SNR rescaling). */
const float *mg_scheduler_alphas_cumprod(const mg_scheduler *scheduler);
mg_status mg_scheduler_set_timesteps(mg_scheduler *scheduler, int num_inference_steps, struct mg_err *err);
/* The time steps in order of use; *count of them. Valid until the next set_timesteps. */
const double *mg_scheduler_timesteps(const mg_scheduler *scheduler, int *count);
bool mg_scheduler_has_whole_timesteps(const mg_scheduler *scheduler); /* all are integers */
/* Whether steps after the first need the estimate that the step before gave (a multistep method). */
bool mg_scheduler_uses_last_estimate(const mg_scheduler *scheduler);
/* The place of a time step in that list. MG_ERR_ARGUMENT if it is not there. */
mg_status mg_scheduler_step_of(int *step, const mg_scheduler *scheduler, double timestep, struct mg_err *err);
/* One step: the next sample = sample_factor*sample + model_factor*model_output + noise_factor*noise +
 * last_estimate_factor*last_estimate, and the estimate of the clean sample (LCM: denoised) = origin_sample_factor*sample +
 * origin_model_factor*model_output. A network of that scheduler's own kind would see input_factor*sample; pipelines show it
 * the sample, as diffusers' of Marigold. */
struct mg_step_coefficients {
    float input_factor;
    float sample_factor, model_factor, noise_factor, last_estimate_factor;
    float origin_sample_factor, origin_model_factor;
};
struct mg_step_options {
    double eta;             /* DDIM only: 0 is deterministic */
    bool has_last_estimate; /* false: a multistep method begins here */
};
/* Of step `step`, from 0, of the time steps that are set. */
mg_status mg_scheduler_step_coefficients(struct mg_step_coefficients *out, mg_scheduler *scheduler, int step,
                                         const struct mg_step_options *options, struct mg_err *err);
/* Takes the step: sample[0..count) becomes the next one, and `estimate` (NULL, or the last estimate) this step's. noise may be
 * NULL if noise_factor is 0. The same bits on every processor. */
void mg_scheduler_step(float *sample, float *estimate, const float *output, const float *noise, size_t count,
                       const struct mg_step_coefficients *coefficients);

/* Called on the calling thread between operations; a non-zero return cancels the run (MG_ERR_CANCELLED). */
typedef int (*mg_poll_fn)(void *user);

/* ---- ensembling: many predictions of one scene to one, with an uncertainty ---- */
/* More members are refused by the functions below. */
enum { MG_MAX_MEMBERS = 256 };
typedef enum mg_reduction { MG_REDUCE_DEFAULT, MG_REDUCE_MEDIAN, MG_REDUCE_MEAN, MG_REDUCE_CLOSEST } mg_reduction;
typedef enum mg_solver { MG_SOLVER_CLOSED_FORM, MG_SOLVER_REFERENCE } mg_solver;
/* "median", "mean", "closest"; "closed-form", "reference"; else MG_ERR_ARGUMENT. */
mg_status mg_reduction_from_name(mg_reduction *out, const char *name, struct mg_err *err);
mg_status mg_solver_from_name(mg_solver *out, const char *name, struct mg_err *err);

struct mg_ensemble_depth_params {
    bool scale_invariant, shift_invariant; /* true, true: affine-invariant depth */
    mg_reduction reduction;                /* median or mean; DEFAULT only within mg_run_params: the task's own */
    mg_solver solver;                      /* of the alignment; the four values below but max_res: reference only */
    double regularizer_strength;           /* 0.02 */
    int max_iter;                          /* 2 */
    double tol;                            /* 1e-3 */
    int64_t max_res;                       /* longer side at which members are aligned: 1024; 0: their own */
    int num_threads;                       /* 0: all processors allowed to this process */
    mg_poll_fn poll;                       /* NULL, or asked now and then whether to stop */
    void *poll_user;
};
void mg_ensemble_depth_params_init(struct mg_ensemble_depth_params *params);
/* depth (E, h, w) -> out (h, w) in [0, 1]; uncertainty NULL or (h, w). */
mg_status mg_ensemble_depth(float *out, float *uncertainty, const float *depth, int64_t members, int64_t h, int64_t w,
                            const struct mg_ensemble_depth_params *params, struct mg_err *err);
/* normals (E, 3, h, w), unit vectors -> out (3, h, w); uncertainty NULL or (h, w), mean angle / pi. reduction: closest
 * (to the mean) or mean. */
mg_status mg_ensemble_normals(float *out, float *uncertainty, const float *normals, int64_t members, int64_t h,
                              int64_t w, mg_reduction reduction, int num_threads, struct mg_err *err);
/* targets (E, elements) -> out (elements); uncertainty NULL or (elements). reduction: median or mean. */
mg_status mg_ensemble_intrinsics(float *out, float *uncertainty, const float *targets, int64_t members,
                                 int64_t elements, mg_reduction reduction, int num_threads, struct mg_err *err);

/* The snippets of a video: `length` frames each, `dilation` apart, at every place where they fit; those of the first dilation, then of
 * the next. The maps of a snippet follow one another. */
enum { MG_MAX_SNIPPET_LENGTH = 4, MG_MAX_DILATIONS = 8 };
struct mg_snippets {
    int64_t frames, length;   /* of the video, of a snippet: 2 to MG_MAX_SNIPPET_LENGTH */
    const int64_t *dilations; /* one of them is 1 */
    int num_dilations;
};
/* MG_ERR_ARGUMENT: fewer frames than a snippet has, a dilation with which none fits, none that is 1. */
mg_status mg_check_snippets(const struct mg_snippets *snippets, struct mg_err *err);
int64_t mg_snippets_count(const struct mg_snippets *snippets);
int64_t mg_snippets_with_dilation(const struct mg_snippets *snippets, int64_t dilation);
struct mg_ensemble_snippets_params {
    int iterations;  /* of Adam: 2000 */
    double rate;     /* 1e-3 */
    int num_threads; /* 0: all processors allowed to this process */
    mg_poll_fn poll; /* NULL, or asked now and then whether to stop */
    void *poll_user;
};
void mg_ensemble_snippets_params_init(struct mg_ensemble_snippets_params *params);
/* Co-alignment (RollingDepth, arXiv 2411.19189): a scale and a shift for each snippet (mg_snippets_count of them), found on every tenth
 * row and column, under which the snippets' maps (count, length, h, w) agree best about each frame, near values (disparity) and far ones
 * alike; out (frames, h, w) are the means of the aligned maps, stretched to [0, 1] over the whole video. scale and shift are those of the
 * maps less their least value. */
mg_status mg_ensemble_snippets(float *out, double *scale, double *shift, const float *maps,
                               const struct mg_snippets *snippets, int64_t h, int64_t w,
                               const struct mg_ensemble_snippets_params *params, struct mg_err *err);

/* ---- evaluation: fitting a prediction to a ground truth, comparing both. Maps (h, w); mask NULL, or not 0 where a pixel
 * counts. num_threads 1 to 4096, 0: all processors; it changes no bit of a result. ---- */
/* The quantity that a prediction is an affine function of. */
typedef enum mg_space { MG_SPACE_DEPTH, MG_SPACE_DISPARITY, MG_SPACE_LOG } mg_space;
/* "depth", "disparity", "log"; else MG_ERR_ARGUMENT. */
mg_status mg_space_from_name(mg_space *out, const char *name, struct mg_err *err);
/* Least squares of scale * prediction + shift to target (depth), 1 / target (disparity) or log(target) (log) over the
 * valid pixels; all maps (h, w). aligned is depth again: the fit itself, 1 / max(fit, 1e-3), exp(fit). Valid: mask is
 * NULL or not 0 there, both values are finite; disparity also needs prediction > 0 and target > 0, log needs target > 0.
 * max_resolution 0, or a longer side of more is reduced to it by a factor, by which the fit samples the columns (nearest)
 * but not the rows: what the paper's code does. A prediction that is constant over the valid pixels gets scale 0 and the
 * mean as its shift. MG_ERR_ARGUMENT: no valid pixel. */
mg_status mg_align_least_squares(float *aligned, double *scale, double *shift, const float *prediction,
                                 const float *target, const uint8_t *mask, int64_t h, int64_t w, mg_space space,
                                 int64_t max_resolution, int num_threads, struct mg_err *err);
/* The same fit by random sample consensus (Fischler and Bolles 1981): 1000 lines through two samples drawn from `seed`; a
 * sample agrees with a line that is nearer than the median absolute deviation of the targets; least squares over those
 * that agree with the best line. */
mg_status mg_align_ransac(float *aligned, double *scale, double *shift, const float *prediction, const float *target,
                          const uint8_t *mask, int64_t h, int64_t w, mg_space space, int64_t max_resolution,
                          uint64_t seed, int num_threads, struct mg_err *err);
/* aligned = scale * prediction, of the target's median over the valid pixels. MG_ERR_ARGUMENT: no valid pixel, or the
 * prediction's median is 0. */
mg_status mg_align_median(float *aligned, double *scale, const float *prediction, const float *target,
                          const uint8_t *mask, int64_t h, int64_t w, int64_t max_resolution, int num_threads,
                          struct mg_err *err);

/* Depth maps, in metres where it matters; the names are those of prs-eth/Marigold. With d = log(prediction) - log(target):
 * log10 is the mean |d| / log(10), silog_rmse 100 sqrt(mean d^2 - (mean d)^2), i_rmse of 1 / depth. deltaN_acc: the share
 * of pixels whose ratio, the larger of both ways, is below 1.25^N (in float32). What is not a positive number gives what
 * the formulas give: NaN or infinity in the means, not within in the shares of NaN. */
struct mg_depth_metrics {
    int64_t pixels;
    double abs_relative_difference, squared_relative_difference, rmse_linear, rmse_log, log10;
    double delta1_acc, delta2_acc, delta3_acc, i_rmse, silog_rmse;
};
/* MG_ERR_ARGUMENT: no pixel counts. */
mg_status mg_depth_metrics(struct mg_depth_metrics *out, const float *prediction, const float *target,
                           const uint8_t *mask, int64_t pixels, int num_threads, struct mg_err *err);

/* Angles in degrees between vectors (pixels, 3), of the pixels that count and whose true vector has a length, one after
 * the other at out (room for `pixels`), *count of them. A prediction without a length is at 90 degrees. */
mg_status mg_angular_errors(float *out, int64_t *count, const float *prediction, const float *target,
                            const uint8_t *mask, int64_t pixels, int num_threads, struct mg_err *err);
struct mg_angle_statistics {
    int64_t pixels;
    double mean, median, rmse;
    double percent_below[5]; /* 5, 7.5, 11.25, 22.5, 30 degrees */
};
/* Leaves the errors in another order. MG_ERR_ARGUMENT: count 0. */
mg_status mg_angle_statistics(struct mg_angle_statistics *out, float *errors, int64_t count, struct mg_err *err);

/* Peak signal-to-noise ratio in dB of values in [0, 1]; infinite if all are equal, NaN if none counts. */
double mg_psnr(const float *prediction, const float *target, const uint8_t *mask, int64_t count);
/* Structural similarity (Wang et al. 2004) of images (h, w, c) with values in [0, 1], as torchmetrics has it: Gaussian windows
 * of 11 x 11 pixels, deviation 1.5, around every pixel, the images reflected at their borders; mask (h, w, c): where it is
 * 0, both images are taken as 0. MG_ERR_ARGUMENT: a side of less than 6. */
mg_status mg_ssim(double *out, const float *prediction, const float *target, const uint8_t *mask, int64_t h, int64_t w,
                  int64_t c, int num_threads, struct mg_err *err);

/* ---- pipelines ---- */
typedef struct mg_pipeline mg_pipeline;

/* Called after each denoising step, of a refinement after each tile of it: `done` of `total` over the whole run. */
typedef void (*mg_progress_fn)(void *user, int done, int total);

struct mg_pipeline_params {
    const char *folder;  /* a diffusers folder, or a file that mg_pipeline_save wrote */
    const char *variant; /* NULL, or "fp16" */
    const char *task;    /* NULL: the one model_index.json names; else "depth" | "normals" | "intrinsics" */
    /* NULL: as model_index.json and the UNet's configuration say; else "marigold", "e2e-ft", "lotus-d", "lotus-g", "genpercept" or "rollingdepth":
     * what the UNet is given, and what its output means */
    const char *family;
    const char *vae;  /* NULL: the checkpoint's; else a folder with another autoencoder (TAESD) */
    const char *unet; /* NULL: the checkpoint's; else a folder with another one (GenPercept, over Stable Diffusion) */
    /* false; true: for depth in high resolution: the checkpoint's boosting_unet is opened, too, which must be there. The latents that it
     * is given, in order: NULL: as the checkpoint says, else "image,coarse,sample". */
    bool boosting;
    const char *boosting_inputs;
    int64_t text_tokens; /* of the empty prompt; 0: two, or as packed; up to the encoder's places, 77: padded */
    const char *dtype;   /* "float32", or "auto" (NULL): the file's own, float32 for a folder */
    const char *device;  /* "cpu"; "cuda", "cuda:1": a GPU; "ref": the slow oracle */
    const char *isa;     /* NULL: the best this processor has; "scalar" | "avx2" | "avx512" */
    int num_threads;     /* 0: all processors allowed to this process */
    bool
        any_scheduler; /* false; true: of the scheduler only the noise levels matter, so that all of diffusers' for discrete time
                            steps are taken (DDPM, PNDM, Euler, ...); those that are not known here sample as DDIM */
    int widen_to_targets; /* 0; else a text-to-image UNet is widened to so many maps for one image (-1: the task's number) */
    mg_poll_fn poll;      /* NULL, or see above; used by every call on this pipeline */
    void *poll_user;
};
void mg_pipeline_params_init(struct mg_pipeline_params *params);
mg_status mg_pipeline_open(mg_pipeline **out, const struct mg_pipeline_params *params, struct mg_err *err);
void mg_pipeline_close(mg_pipeline *pipeline);

/* Writes the pipeline as one packed file, a valid safetensors file that mg_pipeline_open maps and uses in place: every
 * weight in the order in which this pipeline's instruction set reads it (others re-order it when they open it), the
 * embedding of the empty prompt, the configurations, `licence` (NULL or a text), and `prediction_type` (NULL, or what the maps are
 * where model_index.json does not say it: "disparity"). The file appears whole or not at all; replace false: MG_ERR_IO (EEXIST) if
 * there is one. */
mg_status mg_pipeline_save(mg_pipeline *pipeline, const char *path, const char *licence, const char *prediction_type,
                           bool replace, struct mg_err *err);
/* Reads such a file whole and compares every checksum (opening compares the header's only): MG_ERR_CHECKPOINT if it is
 * damaged. */
mg_status mg_packed_file_verify(const char *path, mg_poll_fn poll, void *poll_user, struct mg_err *err);

/* Whether images too large for one tile go through the VAE in tiles that overlap by a quarter and are faded into each other, as diffusers'
 * AutoencoderKL.enable_tiling: less memory, and results that are near to those of whole images. */
typedef enum mg_vae_tiling {
    MG_VAE_TILING_AUTO, /* where the free memory of the device, or this process' own, does not hold the whole */
    MG_VAE_TILING_OFF,
    MG_VAE_TILING_ON
} mg_vae_tiling;
struct mg_pipeline_info {
    const char *task;            /* "depth", "normals", "intrinsics" */
    const char *class_name;      /* of the task: "MarigoldDepthPipeline", ... */
    const char *family;          /* "marigold", ... */
    const char *restriction;     /* NULL, or what the licence of its family's weights forbids */
    bool samples_by_ddim;        /* whatever scheduler is configured: DDIM with trailing time steps stands for it */
    int default_denoising_steps; /* 0: model_index.json names none */
    int64_t default_processing_resolution; /* -1: model_index.json names none */
    int num_targets;                       /* predicted maps per image */
    int prediction_channels;               /* channels of one map */
    int latent_channels;                   /* of the VAE */
    int vae_scale;                         /* pixels per latent cell, 8 for four VAE levels */
    double scaling_factor;
    mg_vae_tiling vae_tiling;
    bool vae_tiled; /* whether the latest call coded images in tiles */
    int unet_in_channels, unet_out_channels;
    int64_t text_tokens, text_channels; /* of the empty-prompt embedding */
    const char *dtype;                  /* precision in use */
    const char *isa;                    /* in use */
    int num_threads;
    int64_t unet_parameters, boosting_unet_parameters, vae_parameters, text_encoder_parameters;
};
/* A pipeline begins with MG_VAE_TILING_AUTO and tiles of 768 pixels. tile_size: a multiple of four latent cells. */
mg_status mg_pipeline_set_vae_tiling(mg_pipeline *pipeline, mg_vae_tiling tiling, int64_t tile_size,
                                     struct mg_err *err);
void mg_pipeline_get_info(const mg_pipeline *pipeline, struct mg_pipeline_info *out);
/* The family of a checkpoint by the _class_name of its model_index.json, and the latents that its UNet takes (in_channels over the
 * VAE's latent_channels); `replaced`: the UNet is not the folder's own. NULL: none that is known. */
const char *mg_family_of_checkpoint(const char *class_name, int input_latents, bool replaced);

/* What the boosting UNet of a pipeline makes finer (Marigold-HR, arXiv 2505.09358): maps of depth, in tiles of the latents that overlap.
 * In each step the tiles' outputs are blended by weights that fall to a tile's border; noise and steps are of the whole. */
struct mg_refinement {
    const float
        *coarse; /* NULL: an ordinary run; else (N, coarse_h, coarse_w) in [0, 1], enlarged to the run's resolution */
    int64_t coarse_h, coarse_w;
    int64_t tile_size;    /* pixels: 768; a multiple of the VAE's scale */
    int64_t tile_overlap; /* pixels, the same; -1: half of a tile */
};

struct mg_run_params {
    struct mg_image image;
    int num_inference_steps;                     /* 0: the default of the checkpoint */
    int ensemble_size;                           /* 1 */
    int64_t processing_resolution;               /* -1: the default of the checkpoint; 0: the image's own */
    bool match_input_resolution;                 /* true */
    mg_resample resample_input, resample_output; /* bilinear; default */
    int batch_size;                           /* UNet passes of up to so many samples; 0: what a GPU's memory holds */
    mg_preset preset;                         /* diffusers */
    struct mg_ensemble_depth_params ensemble; /* of ensemble_size > 1; normals and intrinsics: its reduction only */
    bool output_uncertainty;                  /* needs ensemble_size > 1 */
    /* NULL, or (N*E, num_targets*latent_channels, h, w): the sample to begin with, which else is drawn: normal numbers */
    const float *latents;
    mg_generator *const *generators; /* NULL, one, or N*E of them */
    int num_generators;
    mg_scheduler *scheduler; /* NULL: the checkpoint's own; the run calls set_timesteps on it */
    bool output_latent;
    struct mg_refinement refinement;
    mg_progress_fn progress;
    void *progress_user;
};
void mg_run_params_init(struct mg_run_params *params);

struct mg_result {
    float *prediction;  /* (N*T, H, W, C) */
    float *uncertainty; /* NULL or (N*T, H, W, 1), for intrinsics (N*T, H, W, 3) */
    float *latent;      /* NULL or (N*E, T*latent_channels, h, w) */
    int64_t prediction_shape[4], uncertainty_shape[4], latent_shape[4];
};
mg_status mg_pipeline_run(struct mg_result *out, mg_pipeline *pipeline, const struct mg_run_params *params,
                          struct mg_err *err);
void mg_result_free(struct mg_result *result);

/* ---- depth completion: metres for every pixel from measured points ---- */
/* What each guided step computes twice, so as not to hold it in memory meanwhile. Results are the same to the bit. */
typedef enum mg_recompute {
    MG_RECOMPUTE_AUTO, /* the first of the others that the free memory of the device, or this process' own, holds */
    MG_RECOMPUTE_OFF,  /* nothing: the activations of the UNet and of the decoder are in memory together */
    MG_RECOMPUTE_UNET, /* the UNet forward, as the decoder's activations take the place of its own */
    MG_RECOMPUTE_ON    /* that, and within both networks all but the inputs of their layers */
} mg_recompute;
struct mg_completion_params {
    struct mg_image image;         /* one */
    const float *sparse_depth;     /* (H, W), metres; 0: not measured. Two points at least, at different depths */
    const float *latents;          /* (E, latent_channels, h, w), normal numbers, of mg_geometry_of(preset diffusers) */
    int ensemble_size;             /* E: 1 */
    int num_inference_steps;       /* 50 */
    int64_t processing_resolution; /* 768; 0: the image's own */
    double latent_rate;            /* 0.05, of Adam on the latent; 0.005 on scale and shift: */
    double affine_rate;
    mg_recompute recompute;  /* MG_RECOMPUTE_AUTO */
    mg_scheduler *scheduler; /* NULL: the checkpoint's; a DDIMScheduler, on which set_timesteps is called */
    mg_progress_fn progress; /* after each step of each member */
    void *progress_user;
};
void mg_completion_params_init(struct mg_completion_params *params);
struct mg_completion {
    float *depth;       /* (H, W), metres: of several members the median of each pixel */
    float *uncertainty; /* NULL, or of several members (H, W): the median absolute deviation, metres */
    double *affine;     /* (E, 2): metres = affine[0] * depth in [0, 1] + affine[1], of each member */
    int64_t h, w;
};
/* Marigold-DC (arXiv 2412.13389): each step of the denoising decodes its preview, and moves latent, scale and shift along the
 * gradient of mean |e| + mean e^2 over the measured points, through decoder and UNet. For checkpoints of depth in "float32" or
 * "bfloat16". MG_ERR_ARGUMENT names what is wrong with the points; MG_ERR_NOT_FINITE the step whose loss is no number. */
mg_status mg_pipeline_complete(struct mg_completion *out, mg_pipeline *pipeline,
                               const struct mg_completion_params *params, struct mg_err *err);
void mg_completion_free(struct mg_completion *completion);

/* ---- videos: depth that agrees over time ---- */
/* The latents of images as a run encodes them: out (N, latent_channels, h, w), of mg_geometry_of(preset diffusers). */
mg_status mg_pipeline_encode(float *out, mg_pipeline *pipeline, const struct mg_image *image,
                             int64_t processing_resolution, mg_resample resample, struct mg_err *err);
struct mg_video_params {
    const float *image_latents;  /* (frames, latent_channels, h, w), of mg_pipeline_encode */
    const float *noise;          /* (latent_channels, h, w), normal numbers: each frame starts from the same */
    struct mg_geometry geometry; /* of the frames */
    struct mg_snippets snippets;
    int num_inference_steps; /* 1 */
    int refinement_steps; /* 0: none; each is a pass over snippets of all dilations from refinement_dilation (6) down to 1 */
    int refinement_dilation;
    int alignment_iterations; /* 2000 */
    mg_scheduler *scheduler;  /* NULL: the checkpoint's; a DDIMScheduler, on which set_timesteps is called */
    mg_progress_fn progress;  /* after each pass of the UNet over a snippet */
    void *progress_user;
};
void mg_video_params_init(struct mg_video_params *params);
/* RollingDepth (arXiv 2411.19189): the frames of a snippet are denoised together, each token attending to those of all of them; the
 * snippets are aligned with each other (mg_ensemble_snippets); refinement encodes the result, adds noise and denoises it again,
 * averaging over snippets at every step. out (frames, geometry.output_h, geometry.output_w) in [0, 1]. For checkpoints of family
 * "rollingdepth", of depth or disparity. */
mg_status mg_pipeline_predict_video(float *out, mg_pipeline *pipeline, const struct mg_video_params *params,
                                    struct mg_err *err);

/* The pieces, NCHW float32. The caller gives output arrays of the stated size. */
/* out: (N, latent_channels, H/vae_scale, W/vae_scale), the posterior's mean, unscaled; x: (N, 3, H, W) in [-1, 1]. */
mg_status mg_pipeline_vae_encode(float *out, mg_pipeline *pipeline, const float *x, int64_t n, int64_t h, int64_t w,
                                 struct mg_err *err);
/* out: (N, 3, h*vae_scale, w*vae_scale); z: (N, latent_channels, h, w), unscaled. */
mg_status mg_pipeline_vae_decode(float *out, mg_pipeline *pipeline, const float *z, int64_t n, int64_t h, int64_t w,
                                 struct mg_err *err);
/* out: (N, unet_out_channels, h, w); sample: (N, unet_in_channels, h, w); timesteps: N values; embedding: (embedding_n,
 * tokens, text_channels), embedding_n is N or 1. */
mg_status mg_pipeline_unet(float *out, mg_pipeline *pipeline, const float *sample, int64_t n, int64_t h, int64_t w,
                           const float *timesteps, const float *embedding, int64_t embedding_n, int64_t tokens,
                           struct mg_err *err);
/* (1, text_tokens, text_channels), owned by the pipeline. */
const float *mg_pipeline_empty_text_embedding(const mg_pipeline *pipeline);

struct mg_memory_stats {
    size_t weights_mapped; /* bytes of the checkpoint used in place */
    size_t weights_packed; /* bytes of weights converted or re-ordered into memory of our own */
    size_t activations;    /* the activation arena */
    size_t workspace;      /* scratch of the operations */
    size_t training;       /* gradients and the optimiser's state */
    size_t peak;           /* largest sum of the above so far */
};
void mg_pipeline_memory(const mg_pipeline *pipeline, struct mg_memory_stats *out);

/* Told of one weight: its name in diffusers' layout and its shape. */
typedef void (*mg_declared_weight_fn)(void *user, const char *key, const int64_t *shape, int ndim);
/* The weights of "unet", "vae" or, where it is open, "boosting_unet". MG_ERR_ARGUMENT: another component. */
mg_status mg_pipeline_weights(mg_pipeline *pipeline, const char *component, mg_declared_weight_fn found, void *user,
                              struct mg_err *err);
/* One of them as the checkpoint has it, converted to float32: out has its shape. Of a packed file those are its rounded
 * weights. MG_ERR_ARGUMENT: there is none of this name. */
mg_status mg_pipeline_read_weight(float *out, mg_pipeline *pipeline, const char *component, const char *key,
                                  struct mg_err *err);

/* ---- new checkpoints ---- */
/* The weights of the network that a configuration describes, in the order of the network. component: "unet", "vae" or
 * "text_encoder"; config: JSON; name: of the file, for messages. */
mg_status mg_declared_weights(const char *component, const char *config, size_t length, const char *name,
                              mg_declared_weight_fn found, void *user, struct mg_err *err);

/* ---- training: the UNet of a checkpoint, or its autoencoder ---- */
typedef struct mg_trainer mg_trainer;
typedef enum mg_optimizer { MG_OPTIMIZER_ADAM, MG_OPTIMIZER_ADAMW } mg_optimizer;
/* "adam", "adamw"; else MG_ERR_ARGUMENT. */
mg_status mg_optimizer_from_name(mg_optimizer *out, const char *name, struct mg_err *err);

/* What the terms of a reconstruction's loss are multiplied by. */
struct mg_reconstruction_weights {
    double absolute, square, edges, divergence;
};

struct mg_trainer_params {
    /* A folder, float32. If its UNet takes and gives one latent only, it is widened to widen_to_targets (-1) of them: the first convolution repeated for the image and each target, and divided by their number; the last
     * convolution and its bias repeated for each target. */
    struct mg_pipeline_params pipeline;
    /* "latent": mean square error of the network's output (arXiv 2312.02145).
     * "e2e": errors of decoded maps in pixels, after one step from a latent of zeros or of noise (2409.11355).
     * "lcm": distillation into a latent consistency model (2310.04378).
     * "refine": that of "latent" for the second UNet of Marigold-HR, the folder's boosting_unet (2505.09358).
     * "autoencoder": the weights of the VAE, not of the UNet, learn to reconstruct images: mg_trainer_reconstruct. */
    const char *objective;
    const char *optimizer;        /* "adam"; "adamw" decays the weights themselves, not through the gradient */
    double beta1, beta2, epsilon; /* 0.9, 0.999, 1e-8 */
    double weight_decay;          /* 0 */
    double max_gradient_norm;     /* 0: gradients are not clipped; else the most that the norm of all may be */
    bool zero_terminal_snr;       /* true: the schedule is rescaled so that the last time step is pure noise */
    bool recompute;               /* false; true keeps only the inputs of the UNet's layers and computes them twice */
    /* true; false: gradients are never in memory all together, but each weight moves as soon as its own is whole. Then there is
     * mg_trainer_train_step alone: no sums over batches or processes, no clipping; not for "autoencoder". */
    bool keep_gradients;
    /* "lcm" only. The teacher: the checkpoint that the training began with (NULL: `folder`). After each step the average of the
     * weights becomes ema_decay (0.95) times itself, plus the rest times the weights. The time steps are the last ones of
     * num_ddim_timesteps (5) equal parts of the schedule: 199, 399, ... 999. */
    const char *teacher;
    double ema_decay;
    int num_ddim_timesteps;
    struct mg_reconstruction_weights reconstruction; /* "autoencoder" only: 1, 0, 1, 1e-4 */
    const char *pixel_loss; /* "e2e" only. NULL or "task": the task's own; for depth also "absolute", "sink" (below) */
};
void mg_trainer_params_init(struct mg_trainer_params *params);
mg_status mg_trainer_open(mg_trainer **out, const struct mg_trainer_params *params, struct mg_err *err);
void mg_trainer_close(mg_trainer *trainer);
/* Its pipeline, which predicts with the weights as they are; owned by the trainer. */
const mg_pipeline *mg_trainer_pipeline(const mg_trainer *trainer);

/* Latents (N, C, h, w), scaled as the UNet takes them. */
struct mg_training_batch {
    const float *image_latent;          /* C = latent_channels */
    const float *coarse_latent;         /* "refine" alone, else NULL: the same, of a coarse prediction */
    const float *target_latent, *noise; /* C = unet_out_channels */
    const int64_t *timesteps;           /* N, from 0 to num_train_timesteps - 1 */
    const uint8_t *mask;                /* NULL, or (N, mask_channels, h, w): cells that count */
    int64_t mask_channels;              /* 1, or unet_out_channels */
    int64_t n, h, w;
    double weight; /* of this batch's gradients: 1 / batches where several make a step */
    /* "e2e", which takes these, image_latent and noise (NULL: zeros) and nothing else: the others are NULL. Truths (N,
     * pixel_channels, pixel_h, pixel_w), h and w times the autoencoder's scale; 1 channel of depth in any unit, 3 of a normal
     * (x, y, z; none where the vector is 0) or 3 of each intrinsic image, in [-1, 1]. Mask: NULL, or (N, 1, pixel_h, pixel_w);
     * what it leaves out may be anything. */
    const float *pixel_target;
    const uint8_t *pixel_mask;
    int64_t pixel_channels, pixel_h, pixel_w;
};
/* "latent", "refine": the noise is mixed into the target at its time step; the network, which sees the image's latent beside it
 * (and the coarse prediction's), should give what the scheduler's prediction_type asks for. *loss: the mean over cells of the squared difference.
 * "e2e": the clean latent that the network makes of zeros, or of noise, at the last time step is decoded. *loss: the mean over
 * all valid pixels of the batch; depth: |scale * depth + shift - truth|, depth the mean of the channels clipped to [-1, 1],
 * scale and shift fitted to each image by least squares (the gradient goes through them, too; both are 0 for a constant map);
 * normals: the angle in radians; intrinsic images: the absolute difference.
 * pixel_loss "absolute": |depth - truth|, depth the mean of the channels, plus half of |the difference of neighbours' errors| along
 * both axes, of all pixels and of every second, fourth and eighth (gradient matching of MegaDepth and MiDaS). The truth lies in the
 * map's own range: neither scale nor shift is fitted, so near and far cannot change places, as they can in the task's own.
 * pixel_loss "sink": the mean over blocks of 5 x 5 pixels of the cost of transporting depths of the map to those of the truth, which
 * must lie in the map's own range (a value beyond [-20, 20] is MG_ERR_ARGUMENT): neither scale nor shift is fitted.
 * "lcm": *loss: the mean over cells of the pseudo-Huber error (c = 0.001) between where the network and where the teacher's step
 * and the average of the weights end. MG_ERR_ARGUMENT for other time steps than those of the distillation.
 *
 * The loss is without the weight; its gradients are added to those of earlier calls. The same result for any number of threads.
 * After a cancelled or failed call the gradients are worthless: mg_trainer_clear_gradients. */
mg_status mg_trainer_forward_backward(double *loss, mg_trainer *trainer, const struct mg_training_batch *batch,
                                      struct mg_err *err);
/* For objective "autoencoder". */
struct mg_reconstruction_batch {
    const float *image; /* (N, 3, h, w) in [-1, 1]; h and w multiples of the autoencoder's scale */
    const float
        *noise; /* (N, latent_channels, h / scale, w / scale), normal; NULL: the mean is decoded, not a sample */
    int64_t n, h, w;
    double weight; /* of this batch's gradients */
};
struct mg_reconstruction_loss {
    double total; /* the weighted sum of the following */
    double absolute,
        square;   /* means of |d| and d^2, d the reconstruction less the image; |d| is sqrt(d^2 + 1e-6) - 1e-3 */
    double edges; /* mean |d(x + 1) - d(x)| plus mean |d(y + 1) - d(y)|, as it is, halved and quartered: their mean */
    double divergence; /* of the posterior from the normal distribution, for one number of the latent */
};
/* Encodes images, decodes a sample of the posterior (diffusers' AutoencoderKL) and compares both; the gradients of all weights of
 * the autoencoder are added to those of earlier calls. The same result for any number of threads. */
mg_status mg_trainer_reconstruct(struct mg_reconstruction_loss *loss, mg_trainer *trainer,
                                 const struct mg_reconstruction_batch *batch, struct mg_err *err);
/* Moves the weights along the gradients, which become 0. *norm: of the gradients, before they were clipped.
 * MG_ERR_NOT_FINITE, and nothing moves, if the gradients are not finite. */
mg_status mg_trainer_step(double *norm, mg_trainer *trainer, double learning_rate, struct mg_err *err);
mg_status mg_trainer_clear_gradients(mg_trainer *trainer, struct mg_err *err);
/* mg_trainer_forward_backward and mg_trainer_step of one batch; the only way where gradients are not kept. Then it moves weights
 * by the same numbers to the bit, cannot be stopped once it does, and in float32 *norm differs by rounding.
 * MG_ERR_NOT_FINITE: the loss, and nothing moves; or the gradients. Where these are not kept, some weights have moved then, and
 * the trainer refuses everything else. */
mg_status mg_trainer_train_step(double *loss, double *norm, mg_trainer *trainer, const struct mg_training_batch *batch,
                                double learning_rate, struct mg_err *err);

/* For sums over several processes. All gradients lie in one block of *count numbers, in an order that the layouts of the
 * weights decide. MG_ERR_UNSUPPORTED: they lie in the memory of a device. */
mg_status mg_trainer_gradients(float **block, int64_t *count, const mg_trainer *trainer, struct mg_err *err);
/* To be called before a mg_trainer_forward_backward that another thread follows by mg_trainer_gradients_done: so many
 * numbers from the beginning of the block its backward pass has added to for the last time. What is still missing when it
 * returns, it does not add to. */
mg_status mg_trainer_follow_gradients(mg_trainer *trainer, struct mg_err *err);
int64_t mg_trainer_gradients_done(const mg_trainer *trainer);
/* The same for gradients in the memory of GPUs, one for each process, by NCCL. One process names the group, and every one joins
 * it by that name, which returns when all have; then they sum, each time all of them. MG_ERR_UNSUPPORTED: not on this device. */
enum { MG_GRADIENT_GROUP_NAME = 128 };
mg_status mg_trainer_name_group(char name[MG_GRADIENT_GROUP_NAME], const mg_trainer *trainer, struct mg_err *err);
mg_status mg_trainer_join_group(mg_trainer *trainer, const char name[MG_GRADIENT_GROUP_NAME], int rank, int size,
                                struct mg_err *err);
mg_status mg_trainer_sum_gradients(mg_trainer *trainer, struct mg_err *err);

/* Parameters in the order of the network. */
int mg_trainer_num_parameters(const mg_trainer *trainer);
/* The name that diffusers gives parameter `index`. */
const char *mg_trainer_parameter(const mg_trainer *trainer, int index, int64_t shape[4], int *ndim);
typedef enum mg_parameter_part {
    MG_PART_VALUE,
    MG_PART_GRADIENT,
    MG_PART_M,
    MG_PART_V,
    MG_PART_AVERAGE
} mg_parameter_part;
/* In the order of a checkpoint; m and v are Adam's moments, the average is that of "lcm" (else zeros, and MG_ERR_ARGUMENT). */
mg_status mg_trainer_read(float *out, mg_trainer *trainer, int index, mg_parameter_part part, struct mg_err *err);
mg_status mg_trainer_write(mg_trainer *trainer, int index, mg_parameter_part part, const float *data,
                           struct mg_err *err);
/* Steps so far, by which Adam corrects its moments. */
int64_t mg_trainer_steps(const mg_trainer *trainer);
mg_status mg_trainer_set_steps(mg_trainer *trainer, int64_t steps, struct mg_err *err);

/* ---- this machine ---- */
/* Processors this process may use: those of its affinity mask, and no more than its control groups' quota, rounded up. */
int mg_available_threads(void);
/* The instruction sets of this processor for which there are kernels, from the least ("scalar") to the best; NULL after
 * the last. */
const char *mg_isa(int index);
const char *mg_best_isa(void);
const char *mg_version(void);

enum mg_speed_type { MG_SPEED_F32, MG_SPEED_BF16, MG_SPEED_I8, MG_SPEED_TYPES };
struct mg_machine_speed {
    const char *isa; /* measured */
    int num_threads;
    /* Multiplications and additions a second, all threads together: the kernels' matrix products on data in the first-level
     * cache, by type of the factors. */
    double products[MG_SPEED_TYPES];
    double copy; /* bytes a second from memory to memory, reading and writing both counted */
};
/* Takes about `seconds` (0 < seconds <= 60) and 256 MiB. num_threads 0: all processors allowed to this process; isa NULL:
 * the best that this processor has, else MG_ERR_DEVICE if it lacks it. */
mg_status mg_measure_machine(struct mg_machine_speed *out, int num_threads, const char *isa, double seconds,
                             struct mg_err *err);

#ifdef __cplusplus
}
#endif
#endif
