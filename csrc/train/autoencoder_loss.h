/* autoencoder_loss.h: how a reconstruction is judged, with derivatives. Arrays in, numbers out: for autoencoder_trainer.c. Private
 * to train. */
#ifndef MG_AUTOENCODER_LOSS_H
#define MG_AUTOENCODER_LOSS_H
#include "../include/marigold.h"

/* Where the absolute value's corner is rounded off. */
#define MG_RECONSTRUCTION_CORNER 1e-3
/* Times that images are halved for the term of gradients, the original size included. */
enum { MG_RECONSTRUCTION_SCALES = 3 };

/* The terms of images (planes, h, w) that should be `wanted`; *gradient: of their weighted sum by the image. `difference` and
 * `scratch` are overwritten: as many numbers as an image has, and half as many. */
void mg_reconstruction_terms(struct mg_reconstruction_loss *loss, float *gradient, const float *image,
                             const float *wanted, int64_t planes, int64_t h, int64_t w,
                             const struct mg_reconstruction_weights *weights, float *difference, float *scratch);
/* A sample of the posterior whose mean and log variance lie one after the other for each image (n, 2 * count): z =
 * mean + exp(log variance / 2) * noise. noise NULL: the mean. */
void mg_posterior_sample(float *z, const float *moments, const float *noise, int64_t n, int64_t count);
/* The divergence from the normal distribution, in nats for one number of the latent, and the gradient of the whole loss by the
 * moments, in their place, from that by z. */
double mg_posterior_gradient(float *moments, const float *z_gradient, const float *noise, int64_t n, int64_t count,
                             double weight);
#endif
