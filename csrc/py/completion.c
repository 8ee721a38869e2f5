/* completion.c: Pipeline.complete: an image and measured points in, one engine run without the GIL, metres out. */
#include <string.h>

#include "binding.h"

/* The Python objects of one call, and what the engine sees of them. */
struct completion_arguments {
    PyObject *image, *sparse, *latents, *scheduler, *progress; /* borrowed from the caller */
    PyArrayObject *image_array, *sparse_array, *latents_array;
    struct mg_completion_params params;
};

static bool take_recompute(mg_recompute *out, const char *name) {
    static const char *const choices[] = {[MG_RECOMPUTE_AUTO] = "auto",
                                          [MG_RECOMPUTE_OFF] = "off",
                                          [MG_RECOMPUTE_UNET] = "unet",
                                          [MG_RECOMPUTE_ON] = "on"};
    for (*out = MG_RECOMPUTE_AUTO; *out <= MG_RECOMPUTE_ON; (*out)++)
        if (!strcmp(choices[*out], name))
            return true;
    PyErr_Format(PyExc_ValueError, "recompute \"%s\" is unknown; known: auto, off, unet, on", name);
    return false;
}

static bool parse_arguments(struct completion_arguments *a, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"image",
                            "sparse_depth",
                            "latents",
                            "scheduler",
                            "num_inference_steps",
                            "ensemble_size",
                            "processing_resolution",
                            "latent_rate",
                            "affine_rate",
                            "recompute",
                            "progress",
                            NULL};
    struct mg_completion_params *p = &a->params;
    mg_completion_params_init(p);
    long long resolution = p->processing_resolution;
    const char *recompute = "auto";
    a->progress = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$iiLddsO:complete", names, &a->image, &a->sparse, &a->latents,
                                     &a->scheduler, &p->num_inference_steps, &p->ensemble_size, &resolution,
                                     &p->latent_rate, &p->affine_rate, &recompute, &a->progress))
        return false;
    p->processing_resolution = resolution;
    return take_recompute(&p->recompute, recompute);
}

/* The engine reads points and latents through bare pointers: their shapes are checked here. */
static bool take_arrays(struct completion_arguments *a, struct mgpy_pipeline *self, const struct mgpy_state *state) {
    struct mg_completion_params *p = &a->params;
    struct mg_pipeline_info info;
    struct mg_geometry geometry;
    if (!(a->image_array = mgpy_image_array(a->image, &p->image)))
        return false;
    mg_pipeline_get_info(self->handle, &info);
    if (!mgpy_take_geometry(&geometry, self, p->image.h, p->image.w, p->processing_resolution, MG_PRESET_DIFFUSERS,
                            state))
        return false;
    a->sparse_array = mgpy_float_array(a->sparse, 2, "sparse_depth", "H, W");
    if (!a->sparse_array || !mgpy_check_shape(a->sparse_array, (int64_t[]){p->image.h, p->image.w}, "sparse_depth"))
        return false;
    a->latents_array = mgpy_take_latents(a->latents, "latents", p->ensemble_size, info.latent_channels, &geometry);
    if (!a->latents_array)
        return false;
    p->sparse_depth = mgpy_floats(a->sparse_array);
    p->latents = mgpy_floats(a->latents_array);
    return true;
}

static PyObject *result_tuple(const struct mg_completion *result, int members) {
    const npy_intp map[] = {result->h, result->w}, affine[] = {members, 2};
    return Py_BuildValue("NNN", mgpy_copied_array(result->depth, 2, map, NPY_FLOAT32),
                         mgpy_copied_array(result->uncertainty, 2, map, NPY_FLOAT32),
                         mgpy_copied_array(result->affine, 2, affine, NPY_FLOAT64));
}

PyObject *mgpy_pipeline_complete(PyObject *object, PyObject *args, PyObject *kwargs) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    struct mgpy_state *state = mgpy_state_of(object);
    struct completion_arguments a = {0};
    struct mgpy_call call;
    struct mg_completion result = {0};
    struct mg_err err;
    PyObject *out = NULL;
    if (!state || mgpy_refuse_busy(self->call, "pipeline") || !parse_arguments(&a, args, kwargs))
        return NULL;
    if (!take_arrays(&a, self, state) || !mgpy_take_scheduler(&a.params.scheduler, a.scheduler, state))
        goto done;
    a.params.progress = mgpy_progress;
    a.params.progress_user = self;
    mgpy_mark_scheduler(a.scheduler, &call);
    /* Converting the arguments may have run Python code, so the pipeline is asked again. */
    if (mgpy_call_begin(self, &call, a.progress)) {
        const mg_status status = mg_pipeline_complete(&result, self->handle, &a.params, &err);
        if (mgpy_call_end(self, &call, status, &err))
            out = result_tuple(&result, a.params.ensemble_size);
    }
    mgpy_mark_scheduler(a.scheduler, NULL);
    mg_completion_free(&result);
done:
    mgpy_release(a.image_array);
    mgpy_release(a.sparse_array);
    mgpy_release(a.latents_array);
    return out;
}
