/* nn.h: networks assembled from diffusers configurations. Builders record into a graph; a NULL-weights dry run is not
 * needed: weights are declared as the layers are built. */
#ifndef MG_NN_H
#define MG_NN_H
#include "../graph/graph.h"
#include "../io/json.h"

enum { MG_MAX_LEVELS = 8, MG_MAX_CLASS_CHANNELS = 16 };

/* UNet2DConditionModel with cross-attention blocks (SD 1.x, SD 2.x). */
struct mg_unet_config {
    int in_channels, out_channels;
    int num_levels;
    int64_t channels[MG_MAX_LEVELS];    /* block_out_channels */
    bool attention_down[MG_MAX_LEVELS]; /* CrossAttnDownBlock2D, by level from the top */
    bool attention_up[MG_MAX_LEVELS];   /* CrossAttnUpBlock2D, by up block (from the bottom) */
    int heads[MG_MAX_LEVELS];           /* attention_head_dim: the number of heads, by level */
    int layers_per_block[MG_MAX_LEVELS];
    int transformer_layers[MG_MAX_LEVELS];
    int cross_attention_dim;
    int norm_groups;
    float norm_epsilon;
    bool linear_projection;
    bool flip_sin_to_cos;
    float frequency_shift;
    bool has_mid_block;
    /* class_embed_type "projection": its inputs, 0 without one; and their values, which are no part of the configuration: whoever
     * builds the network says them. */
    int class_channels;
    float class_labels[MG_MAX_CLASS_CHANNELS];
    /* No part of the configuration either: successive samples are so many frames of one video, and self-attention joins the tokens of
     * all of them (RollingDepth, arXiv 2411.19189); 0 or 1: each sample is by itself. */
    int64_t frames;
};
/* `name` is the file name for messages. Unsupported values: MG_ERR_UNSUPPORTED naming key and value. */
mg_status mg_unet_config_read(struct mg_unet_config *out, const struct mg_json *config, const char *name,
                              struct mg_err *err);
/* sample (N,h,w,in_channels), timesteps (N or 1,1,1,1), text (N or 1,1,tokens,cross_attention_dim) -> (N,h,w,out).
 * Any h, w >= 1: upsampling goes to the size of the skip connection, as diffusers' forward does. */
mg_value mg_unet_build(struct mg_graph *graph, const struct mg_unet_config *config, mg_value sample, mg_value timesteps,
                       mg_value text);

/* AutoencoderKL. */
struct mg_vae_config {
    int in_channels, out_channels, latent_channels;
    int num_levels;
    int64_t channels[MG_MAX_LEVELS];
    int layers_per_block;
    int norm_groups;
    bool mid_attention;
    bool quant_conv, post_quant_conv;
    double scaling_factor;
};
mg_status mg_vae_config_read(struct mg_vae_config *out, const struct mg_json *config, const char *name,
                             struct mg_err *err);
/* x (N,H,W,3) -> mean and log variance of the posterior (N,H/8,W/8,2 * latent_channels), unscaled. */
mg_value mg_vae_moments_build(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x);
/* The mean alone. */
mg_value mg_vae_encode_build(struct mg_graph *graph, const struct mg_vae_config *config, mg_value x);
mg_value mg_vae_decode_build(struct mg_graph *graph, const struct mg_vae_config *config, mg_value z);
bool mg_vae_weight_alias(char *out, size_t bytes, const char *key, int n); /* for struct mg_weights.alias */

/* AutoencoderTiny (TAESD). All stages of the encoder have one width, and all of the decoder. */
struct mg_vae_tiny_config {
    int in_channels, out_channels, latent_channels;
    int encoder_stages, decoder_stages;
    int encoder_channels, decoder_channels;
    int encoder_blocks[MG_MAX_LEVELS], decoder_blocks[MG_MAX_LEVELS]; /* residual blocks, by stage in order of data */
    int upsampling; /* factor between two stages of the decoder; the encoder halves */
    int scale;      /* pixels of the image per cell of the latent, along each side */
    mg_activation activation;
    double scaling_factor;
};
mg_status mg_vae_tiny_config_read(struct mg_vae_tiny_config *out, const struct mg_json *config, const char *name,
                                  struct mg_err *err);
/* x (N,H,W,3) in [-1, 1] -> latents (N,ceil(H/scale),ceil(W/scale),latent_channels), unscaled; any H, W >= 1. */
mg_value mg_vae_tiny_encode_build(struct mg_graph *graph, const struct mg_vae_tiny_config *config, mg_value x);
/* z (N,h,w,latent_channels), unscaled -> image (N,h*scale,w*scale,3) in about [-1, 1], not clipped. */
mg_value mg_vae_tiny_decode_build(struct mg_graph *graph, const struct mg_vae_tiny_config *config, mg_value z);

/* Either of them, by the configuration's _class_name. */
struct mg_autoencoder {
    bool is_tiny;
    struct mg_vae_config kl;
    struct mg_vae_tiny_config tiny;
    int image_channels, latent_channels;
    int scale; /* pixels per latent cell, along each side */
    double scaling_factor;
};
mg_status mg_autoencoder_read(struct mg_autoencoder *out, const struct mg_json *config, const char *name,
                              struct mg_err *err);
/* x (N,H,W,3) in [-1, 1] -> latents, unscaled; z, unscaled -> image in about [-1, 1]. */
mg_value mg_autoencoder_encode_build(struct mg_graph *graph, const struct mg_autoencoder *vae, mg_value x);
mg_value mg_autoencoder_decode_build(struct mg_graph *graph, const struct mg_autoencoder *vae, mg_value z);

/* CLIPTextModel. */
struct mg_clip_config {
    int64_t hidden, intermediate, vocabulary, max_positions;
    int heads, layers;
    float epsilon;
    mg_activation activation;
};
mg_status mg_clip_config_read(struct mg_clip_config *out, const struct mg_json *config, const char *name,
                              struct mg_err *err);
/* ids (1,1,T,1) as floats holding whole numbers -> last hidden state after the final LayerNorm, (1,1,T,hidden).
 * key_prefix: "text_model." or "", whichever the file uses. */
mg_value mg_clip_build(struct mg_graph *graph, const struct mg_clip_config *config, mg_value ids);
bool mg_clip_weight_alias(char *out, size_t bytes, const char *key, int n);
bool mg_clip_may_ignore(const char *key);
/* `count` (2 or more) ids of the empty prompt [BOS, EOS, PAD, PAD, ...], from tokenizer/ (tokenizer_config.json,
 * special_tokens_map.json, vocab.json or tokenizer.json), checked against the vocabulary size. */
mg_status mg_clip_empty_prompt(int64_t *ids, int64_t count, const char *tokenizer_folder,
                               const struct mg_clip_config *config, struct mg_err *err);
#endif
