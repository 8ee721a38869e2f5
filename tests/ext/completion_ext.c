/* completion_ext.c: the gradient of one guided step, before Adam and the schedule hide it. */
#include "../../csrc/completion/completion.h"
#include "test_ext.h"

static mg_status find_gradient(struct mg_preview_loss *loss, struct mg_guidance *g, const float *image_latent,
                               const float *sample, const float *sparse, const struct mg_geometry *geometry,
                               const struct mg_affine *roots, double timestep, struct mg_err *err) {
    struct mg_pipeline *p = g->pipeline;
    const mg_scheduler *s = p->scheduler;
    struct mg_clean_estimate e;
    g->latent_h = geometry->latent_h;
    g->latent_w = geometry->latent_w;
    g->latent_floats = (size_t)(g->latent_h * g->latent_w * p->vae.latent_channels);
    g->pixels = g->latent_h * g->latent_w * p->vae.scale * p->vae.scale;
    MG_TRY(mg_points_find(&g->points, sparse, geometry, g->latent_w * p->vae.scale, err));
    MG_TRY(mg_guidance_alloc(g, err));
    MG_TRY(mg_alloc_floats(&g->image_latent, 1, g->latent_floats, "an image latent", err));
    memcpy(g->image_latent, image_latent, g->latent_floats * sizeof(float));
    MG_TRY(
        mg_scheduler_clean_estimate(&e, s->prediction, s->alphas_cumprod[(int64_t)timestep], (int64_t)timestep, err));
    return mg_guidance_gradient(loss, g, sample, roots, (float)timestep, &e, err);
}

static PyObject *guidance_gradient(PyObject *self, PyObject *args) {
    (void)self;
    struct mg_pipeline_params params;
    struct mg_err *err;
    struct mg_guidance g = {0};
    struct mg_preview_loss loss;
    struct mg_geometry geometry;
    struct mg_affine roots;
    Py_buffer image, sample, sparse;
    long long h, w, resolution;
    double timestep;
    int recompute; /* enum mg_recompute */
    PyObject *result = NULL;
    mg_pipeline_params_init(&params);
    if (!PyArg_ParseTuple(args, "szzziy*y*y*LLLdddi", &params.folder, &params.vae, &params.device, &params.isa,
                          &params.num_threads, &image, &sample, &sparse, &h, &w, &resolution, &roots.scale,
                          &roots.shift, &timestep, &recompute))
        return NULL;
    g.recompute = (mg_recompute)recompute;
    if (mg_alloc((void **)&err, sizeof *err, "an error", NULL))
        PyErr_NoMemory();
    else if (mg_pipeline_open(&g.pipeline, &params, err) ||
             mg_geometry_of(&geometry, h, w, resolution, g.pipeline->vae.scale, MG_PRESET_DIFFUSERS, err) ||
             find_gradient(&loss, &g, image.buf, sample.buf, sparse.buf, &geometry, &roots, timestep, err))
        mg_test_raise(err);
    else
        result = Py_BuildValue("(y#dddy#)", (const char *)g.gradient, (Py_ssize_t)(g.latent_floats * sizeof(float)),
                               loss.loss, loss.by_roots.scale, loss.by_roots.shift, (const char *)g.output,
                               (Py_ssize_t)(g.latent_floats * sizeof(float)));
    mg_guidance_free(&g);
    mg_pipeline_close(g.pipeline);
    mg_free(err);
    PyBuffer_Release(&image);
    PyBuffer_Release(&sample);
    PyBuffer_Release(&sparse);
    return result;
}

PyMethodDef mg_test_completion_methods[] = {
    {"guidance_gradient", guidance_gradient, METH_VARARGS,
     "guidance_gradient(folder, other vae, device, isa, threads, image latent, sample, sparse depth, h, w, processing "
     "resolution, scale, shift, time step, recompute) -> (bytes of the gradient of the sample, loss, its derivatives "
     "by scale and shift, bytes of the network's output)"},
    {NULL, NULL, 0, NULL},
};
