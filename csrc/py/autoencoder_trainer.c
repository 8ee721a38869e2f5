/* autoencoder_trainer.c: the method of the type Trainer that learns from images. Listed in trainer.c;
 * marigold_c/training/trainer.py wraps it. */
#include "binding.h"

static bool take_images(struct mg_reconstruction_batch *batch, PyArrayObject *arrays[2],
                        const struct mg_pipeline_info *info, PyObject *images, PyObject *noise) {
    if (!(arrays[0] = mgpy_float_array(images, 4, "images", "N, 3, H, W")))
        return false;
    const npy_intp *d = PyArray_DIMS(arrays[0]);
    const int64_t image[] = {d[0], 3, d[2], d[3]};
    const int64_t latent[] = {d[0], info->latent_channels, d[2] / info->vae_scale, d[3] / info->vae_scale};
    if (!mgpy_check_shape(arrays[0], image, "images"))
        return false;
    if (noise != Py_None && (!(arrays[1] = mgpy_float_array(noise, 4, "noise", "N, C, h, w")) ||
                             !mgpy_check_shape(arrays[1], latent, "noise")))
        return false;
    batch->image = mgpy_floats(arrays[0]);
    batch->noise = arrays[1] ? mgpy_floats(arrays[1]) : NULL;
    batch->n = d[0];
    batch->h = d[2];
    batch->w = d[3];
    return true;
}

PyObject *mgpy_trainer_reconstruct(PyObject *object, PyObject *args) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    PyObject *images, *noise, *result = NULL;
    PyArrayObject *arrays[2] = {NULL, NULL};
    struct mg_reconstruction_batch batch = {0};
    struct mg_reconstruction_loss loss;
    struct mg_pipeline_info info;
    struct mgpy_call call;
    struct mg_err err;
    mg_pipeline_get_info(mg_trainer_pipeline(self->handle), &info);
    if (PyArg_ParseTuple(args, "OOd:reconstruct", &images, &noise, &batch.weight) &&
        take_images(&batch, arrays, &info, images, noise) && mgpy_call_begin(&self->pipeline, &call, NULL)) {
        mg_status status = mg_trainer_reconstruct(&loss, self->handle, &batch, &err);
        if (mgpy_call_end(&self->pipeline, &call, status, &err))
            result = Py_BuildValue("{s:d,s:d,s:d,s:d,s:d}", "total", loss.total, "absolute", loss.absolute, "square",
                                   loss.square, "edges", loss.edges, "divergence", loss.divergence);
    }
    mgpy_release(arrays[0]);
    mgpy_release(arrays[1]);
    return result;
}
