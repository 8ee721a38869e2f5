/* pipeline_run.c: Pipeline.run: arguments in, one engine run without the GIL, arrays out. */
#include "binding.h"

/* The Python objects of one run, and what the engine sees of them. */
struct run_arguments {
    PyObject *image, *latents, *generators, *scheduler, *progress, *coarse; /* borrowed from the caller */
    const char *resample_input, *resample_output, *preset, *reduction, *solver;
    PyArrayObject *image_array, *latents_array, *coarse_array;
    PyObject *generator_sequence;
    mg_generator **generator_handles;
    struct mg_run_params params;
};

static bool parse_arguments(struct run_arguments *a, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"image",
                            "num_inference_steps",
                            "ensemble_size",
                            "processing_resolution",
                            "match_input_resolution",
                            "resample_method_input",
                            "resample_method_output",
                            "batch_size",
                            "latents",
                            "generators",
                            "scheduler",
                            "output_latent",
                            "progress",
                            "preset",
                            "output_uncertainty",
                            "reduction",
                            "solver",
                            "scale_invariant",
                            "shift_invariant",
                            "regularizer_strength",
                            "max_iter",
                            "tol",
                            "max_res",
                            "coarse",
                            "tile_size",
                            "tile_overlap",
                            NULL};
    struct mg_run_params *p = &a->params;
    struct mg_ensemble_depth_params *e = &p->ensemble;
    mg_run_params_init(p);
    long long resolution = -1, max_res = e->max_res, tile = p->refinement.tile_size;
    long long overlap = p->refinement.tile_overlap;
    int match = 1, latent = 0, uncertainty = 0, scale = 1, shift = 1;
    a->latents = a->generators = a->scheduler = a->progress = a->coarse = Py_None;
    a->resample_input = "bilinear";
    a->preset = "diffusers";
    a->solver = "closed-form";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$iiLpsziOOOpOspzsppdidLOLL:run", names, &a->image,
                                     &p->num_inference_steps, &p->ensemble_size, &resolution, &match,
                                     &a->resample_input, &a->resample_output, &p->batch_size, &a->latents,
                                     &a->generators, &a->scheduler, &latent, &a->progress, &a->preset, &uncertainty,
                                     &a->reduction, &a->solver, &scale, &shift, &e->regularizer_strength, &e->max_iter,
                                     &e->tol, &max_res, &a->coarse, &tile, &overlap))
        return false;
    p->processing_resolution = resolution;
    p->match_input_resolution = match;
    p->output_latent = latent;
    p->output_uncertainty = uncertainty;
    e->scale_invariant = scale;
    e->shift_invariant = shift;
    e->max_res = max_res;
    p->refinement.tile_size = tile;
    p->refinement.tile_overlap = overlap;
    return true;
}

/* What is given by name. */
static bool take_choices(struct run_arguments *a, const struct mgpy_state *state) {
    struct mg_run_params *p = &a->params;
    struct mg_err err;
    if (mg_resample_from_name(&p->resample_input, a->resample_input, "resample_method_input", &err) == MG_OK &&
        (!a->resample_output ||
         mg_resample_from_name(&p->resample_output, a->resample_output, "resample_method_output", &err) == MG_OK) &&
        mg_preset_from_name(&p->preset, a->preset, &err) == MG_OK &&
        mg_solver_from_name(&p->ensemble.solver, a->solver, &err) == MG_OK &&
        (!a->reduction || mg_reduction_from_name(&p->ensemble.reduction, a->reduction, &err) == MG_OK))
        return true;
    mgpy_raise(state, &err);
    return false;
}

static bool take_images(struct run_arguments *a, struct mgpy_pipeline *self, const struct mgpy_state *state) {
    struct mg_run_params *p = &a->params;
    if (!(a->image_array = mgpy_image_array(a->image, &p->image)))
        return false;
    if (a->latents == Py_None)
        return true;
    /* The engine reads latents through a bare pointer: their shape is checked here. */
    struct mg_pipeline_info info;
    struct mg_geometry geometry;
    mg_pipeline_get_info(self->handle, &info);
    if (!mgpy_take_geometry(&geometry, self, p->image.h, p->image.w, p->processing_resolution, p->preset, state))
        return false;
    a->latents_array =
        mgpy_take_latents(a->latents, "latents", p->image.n * p->ensemble_size, info.unet_out_channels, &geometry);
    if (!a->latents_array)
        return false;
    p->latents = mgpy_floats(a->latents_array);
    return true;
}

static bool take_coarse(struct run_arguments *a) {
    struct mg_run_params *p = &a->params;
    if (a->coarse == Py_None)
        return true;
    a->coarse_array = mgpy_float_array(a->coarse, 3, "coarse", "N, H, W");
    if (!a->coarse_array)
        return false;
    const npy_intp *dims = PyArray_DIMS(a->coarse_array);
    if (dims[0] != p->image.n) {
        PyErr_Format(PyExc_ValueError, "`coarse` has shape (%zd, %zd, %zd) for %lld images", (Py_ssize_t)dims[0],
                     (Py_ssize_t)dims[1], (Py_ssize_t)dims[2], (long long)p->image.n);
        return false;
    }
    p->refinement.coarse = mgpy_floats(a->coarse_array);
    p->refinement.coarse_h = dims[1];
    p->refinement.coarse_w = dims[2];
    return true;
}

/* A generator may stand in the list more than once. */
static bool take_generators(struct run_arguments *a, const struct mgpy_state *state) {
    if (a->generators == Py_None)
        return true;
    a->generator_sequence = PySequence_Tuple(a->generators);
    if (!a->generator_sequence)
        return false;
    const Py_ssize_t count = PyTuple_Size(a->generator_sequence);
    if (count < 1 || count > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "`generators` has %zd elements", count);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(a->generator_sequence, i);
        if (!PyObject_TypeCheck(item, state->generator_type)) {
            PyErr_Format(PyExc_ValueError, "Unsupported generator type: %R.", (PyObject *)Py_TYPE(item));
            return false;
        }
    }
    a->generator_handles = PyMem_New(mg_generator *, (size_t)count);
    if (!a->generator_handles) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        a->generator_handles[i] = ((struct mgpy_generator *)PyTuple_GetItem(a->generator_sequence, i))->handle;
    a->params.generators = a->generator_handles;
    a->params.num_generators = (int)count;
    return true;
}

static void release_arguments(struct run_arguments *a) {
    mgpy_release(a->image_array);
    mgpy_release(a->latents_array);
    mgpy_release(a->coarse_array);
    Py_XDECREF(a->generator_sequence);
    PyMem_Free(a->generator_handles);
}

/* ---- results: arrays that lie on the engine's memory, kept by a capsule ---- */
static void free_result_capsule(PyObject *capsule) {
    struct mg_result *result = PyCapsule_GetPointer(capsule, NULL);
    mg_result_free(result);
    PyMem_Free(result);
}

static PyObject *keep_result(const struct mg_result *result) {
    struct mg_result *kept = PyMem_New(struct mg_result, 1);
    if (!kept)
        return PyErr_NoMemory();
    *kept = *result;
    PyObject *capsule = PyCapsule_New(kept, NULL, free_result_capsule);
    if (!capsule)
        PyMem_Free(kept);
    return capsule;
}

static PyObject *array_on(float *data, const int64_t shape[4], PyObject *capsule) {
    if (!data)
        Py_RETURN_NONE;
    npy_intp dims[4] = {shape[0], shape[1], shape[2], shape[3]};
    PyObject *array = PyArray_SimpleNewFromData(4, dims, NPY_FLOAT32, data);
    if (array && PyArray_SetBaseObject((PyArrayObject *)array, Py_NewRef(capsule)) < 0)
        Py_CLEAR(array);
    return array;
}

static PyObject *result_tuple(struct mg_result *result) {
    PyObject *capsule = keep_result(result);
    if (!capsule) {
        mg_result_free(result);
        return NULL;
    }
    PyObject *out = Py_BuildValue("NNN", array_on(result->prediction, result->prediction_shape, capsule),
                                  array_on(result->uncertainty, result->uncertainty_shape, capsule),
                                  array_on(result->latent, result->latent_shape, capsule));
    Py_DECREF(capsule);
    return out;
}

PyObject *mgpy_pipeline_run(PyObject *object, PyObject *args, PyObject *kwargs) {
    struct mgpy_pipeline *self = (struct mgpy_pipeline *)object;
    struct mgpy_state *state = mgpy_state_of(object);
    struct run_arguments a = {0};
    struct mgpy_call call;
    struct mg_result result;
    struct mg_err err;
    PyObject *out = NULL;
    if (!state || mgpy_refuse_busy(self->call, "pipeline") || !parse_arguments(&a, args, kwargs))
        return NULL;
    if (!take_choices(&a, state) || !take_images(&a, self, state) || !take_coarse(&a) || !take_generators(&a, state) ||
        !mgpy_take_scheduler(&a.params.scheduler, a.scheduler, state))
        goto done;
    a.params.progress = mgpy_progress;
    a.params.progress_user = self;
    /* Converting the arguments may have run Python code, so the pipeline is asked again. */
    mgpy_mark_scheduler(a.scheduler, &call);
    if (mgpy_call_begin(self, &call, a.progress)) {
        mg_status status = mg_pipeline_run(&result, self->handle, &a.params, &err);
        if (mgpy_call_end(self, &call, status, &err))
            out = result_tuple(&result);
        else if (status == MG_OK)
            mg_result_free(&result);
    }
    mgpy_mark_scheduler(a.scheduler, NULL);
done:
    release_arguments(&a);
    return out;
}
