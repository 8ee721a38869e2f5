/* pipeline.c: the type Pipeline: opening, facts, memory. Running is in pipeline_run.c, the pieces in pipeline_pieces.c.
 */
#include <string.h>

#include "binding.h"

static bool open_pipeline(struct mgpy_pipeline *self, struct mg_pipeline_params *params) {
    struct mg_err err;
    struct mgpy_call call;
    params->poll = mgpy_poll;
    params->poll_user = self;
    if (!mgpy_call_begin(self, &call, NULL))
        return false;
    mg_status status = mg_pipeline_open(&self->handle, params, &err);
    return mgpy_call_end(self, &call, status, &err);
}

static PyObject *pipeline_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"folder", "variant", "dtype", "device",      "isa",      "num_threads",     "task",
                            "vae",    "family",  "unet",  "text_tokens", "boosting", "boosting_inputs", NULL};
    struct mg_pipeline_params params;
    PyObject *folder = NULL, *vae = NULL, *unet = NULL;
    long long text_tokens = 0;
    int boosting = 0;
    mg_pipeline_params_init(&params);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$zzzzizO&zO&Lpz:Pipeline", names, PyUnicode_FSConverter, &folder,
                                     &params.variant, &params.dtype, &params.device, &params.isa, &params.num_threads,
                                     &params.task, PyUnicode_FSConverter, &vae, &params.family, PyUnicode_FSConverter,
                                     &unet, &text_tokens, &boosting, &params.boosting_inputs)) {
        Py_XDECREF(folder);
        Py_XDECREF(vae);
        Py_XDECREF(unet);
        return NULL;
    }
    params.folder = PyBytes_AsString(folder);
    params.vae = vae ? PyBytes_AsString(vae) : NULL;
    params.unet = unet ? PyBytes_AsString(unet) : NULL;
    params.text_tokens = text_tokens;
    params.boosting = boosting;
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)PyType_GenericAlloc(type, 0);
    if (self)
        self->kind = "pipeline";
    if (self && !open_pipeline(self, &params))
        Py_CLEAR(self);
    Py_DECREF(folder);
    Py_XDECREF(vae);
    Py_XDECREF(unet);
    return (PyObject *)self;
}

static void pipeline_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    mg_pipeline_close(((struct mgpy_pipeline *)object)->handle);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *pipeline_info(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mg_pipeline_info i;
    mg_pipeline_get_info(((struct mgpy_pipeline *)object)->handle, &i);
    return Py_BuildValue(
        "{s:s,s:s,s:s,s:z,s:N,s:i,s:L,s:i,s:i,s:i,s:i,s:d,s:N,s:i,s:i,s:L,s:L,s:s,s:s,s:i,s:L,s:L,s:L,s:L}", "task",
        i.task, "class_name", i.class_name, "family", i.family, "restriction", i.restriction, "samples_by_ddim",
        PyBool_FromLong(i.samples_by_ddim), "default_denoising_steps", i.default_denoising_steps,
        "default_processing_resolution", (long long)i.default_processing_resolution, "num_targets", i.num_targets,
        "prediction_channels", i.prediction_channels, "latent_channels", i.latent_channels, "vae_scale", i.vae_scale,
        "scaling_factor", i.scaling_factor, "vae_tiled", PyBool_FromLong(i.vae_tiled), "unet_in_channels",
        i.unet_in_channels, "unet_out_channels", i.unet_out_channels, "text_tokens", (long long)i.text_tokens,
        "text_channels", (long long)i.text_channels, "dtype", i.dtype, "isa", i.isa, "num_threads", i.num_threads,
        "unet_parameters", (long long)i.unet_parameters, "boosting_unet_parameters",
        (long long)i.boosting_unet_parameters, "vae_parameters", (long long)i.vae_parameters, "text_encoder_parameters",
        (long long)i.text_encoder_parameters);
}

PyObject *mgpy_memory_dict(const struct mg_memory_stats *m) {
    return Py_BuildValue("{s:n,s:n,s:n,s:n,s:n,s:n}", "weights_mapped", (Py_ssize_t)m->weights_mapped, "weights_packed",
                         (Py_ssize_t)m->weights_packed, "activations", (Py_ssize_t)m->activations, "workspace",
                         (Py_ssize_t)m->workspace, "training", (Py_ssize_t)m->training, "peak", (Py_ssize_t)m->peak);
}

static PyObject *pipeline_memory(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    struct mg_memory_stats m;
    if (mgpy_refuse_busy(self->call, "pipeline"))
        return NULL;
    mg_pipeline_memory(self->handle, &m);
    return mgpy_memory_dict(&m);
}

static PyObject *pipeline_set_vae_tiling(PyObject *object, PyObject *args) {
    static const struct {
        const char *name;
        mg_vae_tiling tiling;
    } choices[] = {{"auto", MG_VAE_TILING_AUTO}, {"off", MG_VAE_TILING_OFF}, {"on", MG_VAE_TILING_ON}};
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    struct mgpy_state *state = mgpy_state_of(object);
    struct mg_err err;
    const char *name;
    long long tile_size;
    size_t i = 0;
    if (!state || mgpy_refuse_busy(self->call, "pipeline") ||
        !PyArg_ParseTuple(args, "sL:set_vae_tiling", &name, &tile_size))
        return NULL;
    while (i < sizeof choices / sizeof *choices && strcmp(choices[i].name, name))
        i++;
    if (i == sizeof choices / sizeof *choices)
        return PyErr_Format(PyExc_ValueError, "tiling \"%s\" is unknown; known: auto, off, on", name);
    if (mg_pipeline_set_vae_tiling(self->handle, choices[i].tiling, tile_size, &err) != MG_OK)
        return mgpy_raise(state, &err);
    Py_RETURN_NONE;
}

static PyObject *pipeline_save(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"path", "licence", "replace", "prediction_type", NULL};
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    PyObject *path = NULL;
    const char *licence = NULL, *prediction_type = NULL;
    int replace = 0;
    struct mg_err err;
    struct mgpy_call call;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$zpz:save", names, PyUnicode_FSConverter, &path, &licence,
                                     &replace, &prediction_type)) {
        Py_XDECREF(path);
        return NULL;
    }
    bool saved = mgpy_call_begin(self, &call, NULL);
    if (saved) {
        mg_status status =
            mg_pipeline_save(self->handle, PyBytes_AsString(path), licence, prediction_type, replace, &err);
        saved = mgpy_call_end(self, &call, status, &err);
    }
    Py_DECREF(path);
    if (!saved)
        return NULL;
    Py_RETURN_NONE;
}

/* The GIL is held, and a call sets and clears `call` with the GIL held: it cannot end meanwhile. */
static PyObject *pipeline_cancel(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_call *call = ((struct mgpy_pipeline *)object)->call;
    if (call)
        atomic_store(&call->cancelled, true);
    return PyBool_FromLong(call != NULL);
}

static PyMethodDef pipeline_methods[] = {
    {"run", (PyCFunction)(void (*)(void))mgpy_pipeline_run, METH_VARARGS | METH_KEYWORDS,
     "run(image, *, ...): (prediction, uncertainty or None, latent or None)."},
    {"complete", (PyCFunction)(void (*)(void))mgpy_pipeline_complete, METH_VARARGS | METH_KEYWORDS,
     "complete(image, sparse_depth, latents, scheduler, *, ...): (metres, uncertainty or None, (E, 2) scales and "
     "shifts)."},
    {"encode", mgpy_pipeline_encode, METH_VARARGS,
     "encode(image, processing_resolution): (N, C, h, w), latents as a run makes them."},
    {"predict_video", (PyCFunction)(void (*)(void))mgpy_pipeline_predict_video, METH_VARARGS | METH_KEYWORDS,
     "predict_video(image_latents, noise, scheduler, height, width, dilations, *, ...): (N, h, w) in [0, 1], at the "
     "processing resolution."},
    {"vae_encode", mgpy_pipeline_vae_encode, METH_O, "vae_encode(x): mean of the posterior, unscaled."},
    {"vae_decode", mgpy_pipeline_vae_decode, METH_O, "vae_decode(z): images from unscaled latents."},
    {"unet", mgpy_pipeline_unet, METH_VARARGS, "unet(sample, timesteps, encoder_hidden_states)"},
    {"empty_text_embedding", mgpy_pipeline_empty_text_embedding, METH_NOARGS, "(1, tokens, channels)"},
    {"save", (PyCFunction)(void (*)(void))pipeline_save, METH_VARARGS | METH_KEYWORDS,
     "save(path, *, licence, replace, prediction_type): writes one packed file."},
    {"weights", mgpy_pipeline_weights, METH_VARARGS,
     "weights(component) -> dict: the shapes of the weights of \"unet\", \"vae\" or \"boosting_unet\" by name."},
    {"read_weight", mgpy_pipeline_read_weight, METH_VARARGS,
     "read_weight(component, name): one of them, as the checkpoint has it, in float32."},
    {"set_vae_tiling", pipeline_set_vae_tiling, METH_VARARGS,
     "set_vae_tiling(tiling, tile_size): \"auto\", \"on\" or \"off\"; pixels."},
    {"info", pipeline_info, METH_NOARGS, "Facts of the checkpoint and of this process."},
    {"memory", pipeline_memory, METH_NOARGS, "Bytes in use."},
    {"cancel", pipeline_cancel, METH_NOARGS,
     "Ends the call of another thread with KeyboardInterrupt; whether there was one."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot pipeline_slots[] = {
    {Py_tp_doc,
     "Pipeline(folder, *, variant, dtype, device, isa, num_threads, task, vae, family, unet, text_tokens, boosting, "
     "boosting_inputs): an "
     "opened checkpoint."},
    {Py_tp_new, pipeline_new},
    {Py_tp_dealloc, pipeline_dealloc},
    {Py_tp_methods, pipeline_methods},
    {0, NULL}};

PyType_Spec mgpy_pipeline_spec = {.name = "marigold_c._C.Pipeline",
                                  .basicsize = sizeof(struct mgpy_pipeline),
                                  .flags = Py_TPFLAGS_DEFAULT,
                                  .slots = pipeline_slots};
