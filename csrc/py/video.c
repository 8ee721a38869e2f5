/* video.c: Pipeline.encode and Pipeline.predict_video: the frames of a video one by one to latents, all latents to depth. */
#include "binding.h"

PyObject *mgpy_pipeline_encode(PyObject *object, PyObject *args) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    struct mgpy_state *state = mgpy_state_of(object);
    struct mgpy_call call;
    struct mg_pipeline_info info;
    struct mg_geometry geometry;
    struct mg_image image;
    struct mg_err err;
    PyObject *image_object;
    PyArrayObject *out = NULL;
    long long resolution;
    if (!state || !PyArg_ParseTuple(args, "OL:encode", &image_object, &resolution))
        return NULL;
    PyArrayObject *pixels = mgpy_image_array(image_object, &image);
    if (!pixels)
        return NULL;
    mg_pipeline_get_info(self->handle, &info);
    if (mgpy_take_geometry(&geometry, self, image.h, image.w, resolution, MG_PRESET_DIFFUSERS, state))
        out = mgpy_new_floats(4, (npy_intp[]){image.n, info.latent_channels, geometry.latent_h, geometry.latent_w});
    if (out && !mgpy_call_begin(self, &call, NULL)) {
        Py_CLEAR(out);
    } else if (out) {
        const mg_status status =
            mg_pipeline_encode(mgpy_floats(out), self->handle, &image, resolution, MG_RESAMPLE_BILINEAR, &err);
        if (!mgpy_call_end(self, &call, status, &err))
            Py_CLEAR(out);
    }
    Py_DECREF(pixels);
    return (PyObject *)out;
}

/* The Python objects of one call, and what the engine sees of them. */
struct video_arguments {
    PyObject *image_latents, *noise, *scheduler, *dilations, *progress; /* borrowed from the caller */
    PyArrayObject *latents_array, *noise_array;
    long long height, width, resolution;
    int64_t dilation_list[MG_MAX_DILATIONS];
    struct mg_video_params params;
};

static bool parse_arguments(struct video_arguments *a, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"image_latents",
                            "noise",
                            "scheduler",
                            "height",
                            "width",
                            "dilations",
                            "processing_resolution",
                            "snippet_length",
                            "num_inference_steps",
                            "refinement_steps",
                            "refinement_dilation",
                            "alignment_iterations",
                            "progress",
                            NULL};
    struct mg_video_params *p = &a->params;
    mg_video_params_init(p);
    long long length = p->snippets.length;
    a->progress = Py_None;
    a->resolution = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOLLO|$LLiiiiO:predict_video", names, &a->image_latents, &a->noise,
                                     &a->scheduler, &a->height, &a->width, &a->dilations, &a->resolution, &length,
                                     &p->num_inference_steps, &p->refinement_steps, &p->refinement_dilation,
                                     &p->alignment_iterations, &a->progress))
        return false;
    p->snippets.length = length;
    return true;
}

static bool take_arrays(struct video_arguments *a, const struct mgpy_pipeline *self, const struct mgpy_state *state) {
    struct mg_video_params *p = &a->params;
    struct mg_pipeline_info info;
    mg_pipeline_get_info(self->handle, &info);
    if (!mgpy_take_geometry(&p->geometry, self, a->height, a->width, a->resolution, MG_PRESET_DIFFUSERS, state) ||
        !mgpy_take_dilations(&p->snippets, a->dilation_list, a->dilations))
        return false;
    a->latents_array = mgpy_float_array(a->image_latents, 4, "image_latents", "N, C, h, w");
    if (!a->latents_array)
        return false;
    const npy_intp frames = PyArray_DIM(a->latents_array, 0);
    const int64_t shape[4] = {frames, info.latent_channels, p->geometry.latent_h, p->geometry.latent_w};
    if (!mgpy_check_shape(a->latents_array, shape, "image_latents") ||
        !(a->noise_array = mgpy_take_latents(a->noise, "noise", 1, info.latent_channels, &p->geometry)))
        return false;
    p->snippets.frames = frames;
    p->image_latents = mgpy_floats(a->latents_array);
    p->noise = mgpy_floats(a->noise_array);
    return true;
}

static PyObject *predict(struct video_arguments *a, struct mgpy_pipeline *self) {
    struct mgpy_call call;
    struct mg_err err;
    const struct mg_geometry *g = &a->params.geometry;
    PyArrayObject *out = mgpy_new_floats(3, (npy_intp[]){a->params.snippets.frames, g->output_h, g->output_w});
    if (!out)
        return NULL;
    mgpy_mark_scheduler(a->scheduler, &call);
    /* Converting the arguments may have run Python code, so the pipeline is asked again. */
    if (mgpy_call_begin(self, &call, a->progress)) {
        const mg_status status = mg_pipeline_predict_video(mgpy_floats(out), self->handle, &a->params, &err);
        if (!mgpy_call_end(self, &call, status, &err))
            Py_CLEAR(out);
    } else {
        Py_CLEAR(out);
    }
    mgpy_mark_scheduler(a->scheduler, NULL);
    return (PyObject *)out;
}

PyObject *mgpy_pipeline_predict_video(PyObject *object, PyObject *args, PyObject *kwargs) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    struct mgpy_state *state = mgpy_state_of(object);
    struct video_arguments a = {0};
    PyObject *out = NULL;
    if (!state || mgpy_refuse_busy(self->call, "pipeline") || !parse_arguments(&a, args, kwargs))
        return NULL;
    a.params.progress = mgpy_progress;
    a.params.progress_user = self;
    if (take_arrays(&a, self, state) && mgpy_take_scheduler(&a.params.scheduler, a.scheduler, state))
        out = predict(&a, self);
    mgpy_release(a.latents_array);
    mgpy_release(a.noise_array);
    return out;
}
