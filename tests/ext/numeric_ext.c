/* numeric_ext.c: random numbers, resizing, preprocessing and schedulers for the tests, arrays as bytes. */
#include <string.h>

#include "../../csrc/pipeline/pipeline.h"
#include "test_ext.h"

/* ---- random numbers ---- */
/* randn(seed, counts) -> one bytes object of float32 for each count, drawn one after the other. */
static PyObject *randn(PyObject *module, PyObject *args) {
    unsigned long long seed;
    PyObject *counts, *draws;
    static struct mg_err err; /* 32 KiB; calls hold the GIL */
    mg_generator *generator;
    (void)module;
    if (!PyArg_ParseTuple(args, "KO!:randn", &seed, &PyList_Type, &counts))
        return NULL;
    if (mg_generator_create(&generator, seed, &err) != MG_OK)
        return mg_test_raise(&err);
    draws = PyList_New(0);
    for (Py_ssize_t i = 0; draws && i < PyList_GET_SIZE(counts); i++) {
        Py_ssize_t count = PyNumber_AsSsize_t(PyList_GET_ITEM(counts, i), PyExc_OverflowError);
        PyObject *draw = PyErr_Occurred() ? NULL : PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(float));
        if (draw)
            mg_generator_randn(generator, (float *)PyBytes_AS_STRING(draw), (size_t)count, &err);
        if (!draw || PyList_Append(draws, draw))
            Py_CLEAR(draws);
        Py_XDECREF(draw);
    }
    mg_generator_destroy(generator);
    return draws;
}

/* ---- images ---- */
static bool bytes_fit(const Py_buffer *buffer, const long long shape[4], Py_ssize_t item) {
    Py_ssize_t bytes = item;
    for (int i = 0; i < 4; i++)
        if (shape[i] > 0 && __builtin_mul_overflow(bytes, (Py_ssize_t)shape[i], &bytes))
            return false;
    /* Sizes below one go through: the engine must refuse them before it reads. */
    return shape[0] < 1 || shape[1] < 1 || shape[2] < 1 || shape[3] < 1 || bytes == buffer->len;
}

static PyObject *new_floats(long long a, long long b, long long c, long long d) {
    Py_ssize_t bytes = sizeof(float);
    const long long shape[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (__builtin_mul_overflow(bytes, shape[i] > 0 ? (Py_ssize_t)shape[i] : 1, &bytes))
            return PyErr_NoMemory();
    return PyBytes_FromStringAndSize(NULL, bytes);
}

/* resize(float32 bytes, (n, c, h, w), (out_h, out_w), mode, antialias) -> float32 bytes (n, c, out_h, out_w) */
static PyObject *resize(PyObject *module, PyObject *args) {
    Py_buffer in;
    long long shape[4], h, w;
    const char *mode_name;
    int antialias;
    static struct mg_err err;
    mg_resample mode;
    PyObject *out = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*(LLLL)(LL)sp:resize", &in, shape, shape + 1, shape + 2, shape + 3, &h, &w,
                          &mode_name, &antialias))
        return NULL;
    mg_status status = mg_resample_from_name(&mode, mode_name, "mode", &err);
    if (status != MG_OK)
        mg_test_raise(&err);
    else if (!bytes_fit(&in, shape, sizeof(float)))
        PyErr_SetString(PyExc_TypeError, "the bytes do not fit the shape");
    else if ((out = new_floats(shape[0], shape[1], h, w)) &&
             mg_resize((float *)PyBytes_AS_STRING(out), in.buf, shape[0], shape[1], shape[2], shape[3], h, w, mode,
                       antialias, &err) != MG_OK) {
        Py_CLEAR(out);
        mg_test_raise(&err);
    }
    PyBuffer_Release(&in);
    return out;
}

static PyObject *geometry_tuple(const struct mg_geometry *g) {
    return Py_BuildValue("LLLLLL", (long long)g->h, (long long)g->w, (long long)g->resized_h, (long long)g->resized_w,
                         (long long)g->padded_h, (long long)g->padded_w);
}

/* geometry(h, w, processing_resolution, vae_scale, preset) -> (h, w, resized_h, resized_w, padded_h, padded_w) */
static PyObject *geometry(PyObject *module, PyObject *args) {
    long long h, w, resolution, vae_scale;
    const char *preset_name;
    mg_preset preset;
    struct mg_geometry g;
    static struct mg_err err;
    (void)module;
    if (!PyArg_ParseTuple(args, "LLLLs:geometry", &h, &w, &resolution, &vae_scale, &preset_name))
        return NULL;
    if (mg_preset_from_name(&preset, preset_name, &err) != MG_OK ||
        mg_geometry_of(&g, h, w, resolution, vae_scale, preset, &err) != MG_OK)
        return mg_test_raise(&err);
    return geometry_tuple(&g);
}

/* preprocess(bytes, "u8" | "u16" | "f32", (n, h, w, c), geometry, mode, preset) -> float32 bytes
 * (n, 3, padded_h, padded_w) */
static PyObject *preprocess(PyObject *module, PyObject *args) {
    static const struct {
        const char *name;
        mg_pixel_type type;
        Py_ssize_t bytes;
    } pixels[] = {{"u8", MG_PIXEL_U8, 1}, {"u16", MG_PIXEL_U16, 2}, {"f32", MG_PIXEL_F32, 4}};
    Py_buffer in;
    const char *pixel, *mode_name, *preset_name;
    long long s[4], g[6];
    static struct mg_err err;
    mg_resample mode;
    PyObject *out = NULL;
    size_t kind = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*s(LLLL)(LLLLLL)ss:preprocess", &in, &pixel, s, s + 1, s + 2, s + 3, g, g + 1, g + 2,
                          g + 3, g + 4, g + 5, &mode_name, &preset_name))
        return NULL;
    while (kind < 2 && strcmp(pixels[kind].name, pixel))
        kind++;
    const struct mg_image image = {in.buf, pixels[kind].type, s[0], s[1], s[2], s[3]};
    struct mg_geometry where = {
        .h = g[0], .w = g[1], .resized_h = g[2], .resized_w = g[3], .padded_h = g[4], .padded_w = g[5]};
    if (mg_resample_from_name(&mode, mode_name, "mode", &err) != MG_OK ||
        mg_preset_from_name(&where.preset, preset_name, &err) != MG_OK)
        mg_test_raise(&err);
    else if (!bytes_fit(&in, s, pixels[kind].bytes))
        PyErr_SetString(PyExc_TypeError, "the bytes do not fit the shape");
    else if ((out = new_floats(s[0], 3, g[4], g[5])) &&
             mg_preprocess((float *)PyBytes_AS_STRING(out), &image, &where, mode, &err) != MG_OK) {
        Py_CLEAR(out);
        mg_test_raise(&err);
    }
    PyBuffer_Release(&in);
    return out;
}

/* ---- schedulers ---- */
static PyObject *factors_of(mg_scheduler *scheduler, int step, bool has_last, double eta, struct mg_err *err) {
    const struct mg_step_options options = {.eta = eta, .has_last_estimate = has_last};
    struct mg_step_coefficients c;
    if (mg_scheduler_step_coefficients(&c, scheduler, step, &options, err) != MG_OK)
        return mg_test_raise(err);
    return Py_BuildValue("(ddddddd)", (double)c.sample_factor, (double)c.model_factor, (double)c.noise_factor,
                         (double)c.origin_sample_factor, (double)c.origin_model_factor, (double)c.last_estimate_factor,
                         (double)c.input_factor);
}

static PyObject *steps_of(mg_scheduler *scheduler, double eta, struct mg_err *err) {
    int count;
    const double *timesteps = mg_scheduler_timesteps(scheduler, &count);
    PyObject *steps = PyList_New(0);
    for (int i = 0; steps && i < count; i++) {
        PyObject *factors = factors_of(scheduler, i, true, eta, err);
        PyObject *step = factors ? Py_BuildValue("(dN)", timesteps[i], factors) : NULL;
        if (!step || PyList_Append(steps, step))
            Py_CLEAR(steps);
        Py_XDECREF(step);
    }
    return steps;
}

static PyObject *describe(mg_scheduler *scheduler, double eta, struct mg_err *err) {
    PyObject *steps = steps_of(scheduler, eta, err);
    if (!steps)
        return NULL;
    Py_ssize_t bytes = mg_scheduler_num_train_timesteps(scheduler) * (Py_ssize_t)sizeof(float);
    return Py_BuildValue("(sdy#N)", mg_scheduler_class_name(scheduler), mg_scheduler_init_noise_sigma(scheduler),
                         (const char *)mg_scheduler_alphas_cumprod(scheduler), bytes, steps);
}

/* scheduler(config text, num_inference_steps, eta) -> (class name, init_noise_sigma, alphas_cumprod as float32 bytes,
 * [(timestep, factors), ...]) */
static PyObject *scheduler(PyObject *module, PyObject *args) {
    const char *config;
    Py_ssize_t bytes;
    int count;
    double eta;
    static struct mg_err err;
    mg_scheduler *made;
    PyObject *result;
    (void)module;
    if (!PyArg_ParseTuple(args, "s#id:scheduler", &config, &bytes, &count, &eta))
        return NULL;
    if (mg_scheduler_create(&made, config, (size_t)bytes, &err) != MG_OK)
        return mg_test_raise(&err);
    result = mg_scheduler_set_timesteps(made, count, &err) == MG_OK ? describe(made, eta, &err) : mg_test_raise(&err);
    mg_scheduler_destroy(made);
    return result;
}

/* step_factors(config text, list of num_inference_steps, timestep): the factors at a time step that the caller names,
 * after any number of calls of set_timesteps, which may fail. */
static PyObject *step_factors(PyObject *module, PyObject *args) {
    const char *config;
    Py_ssize_t bytes;
    PyObject *counts, *result;
    double timestep;
    int step;
    static struct mg_err err;
    mg_scheduler *made;
    (void)module;
    if (!PyArg_ParseTuple(args, "s#O!d:step_factors", &config, &bytes, &PyList_Type, &counts, &timestep))
        return NULL;
    if (mg_scheduler_create(&made, config, (size_t)bytes, &err) != MG_OK)
        return mg_test_raise(&err);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(counts); i++)
        (void)mg_scheduler_set_timesteps(made, (int)PyLong_AsLong(PyList_GET_ITEM(counts, i)), &err);
    result = mg_scheduler_step_of(&step, made, timestep, &err) == MG_OK ? factors_of(made, step, true, 0.0, &err)
                                                                        : mg_test_raise(&err);
    mg_scheduler_destroy(made);
    return result;
}

/* scheduler_step(sample, estimate or None, output, noise or None, seven factors) -> (next sample, next estimate or None) */
static PyObject *scheduler_step(PyObject *module, PyObject *args) {
    const char *sample, *estimate, *output, *noise;
    Py_ssize_t bytes, estimate_bytes, output_bytes, noise_bytes;
    struct mg_step_coefficients k;
    (void)module;
    if (!PyArg_ParseTuple(args, "y#z#y#z#(fffffff):scheduler_step", &sample, &bytes, &estimate, &estimate_bytes,
                          &output, &output_bytes, &noise, &noise_bytes, &k.sample_factor, &k.model_factor,
                          &k.noise_factor, &k.origin_sample_factor, &k.origin_model_factor, &k.last_estimate_factor,
                          &k.input_factor))
        return NULL;
    PyObject *next = PyBytes_FromStringAndSize(sample, bytes);
    PyObject *last = estimate ? PyBytes_FromStringAndSize(estimate, bytes) : NULL;
    if (!next || (estimate && !last)) {
        Py_XDECREF(next);
        Py_XDECREF(last);
        return NULL;
    }
    mg_scheduler_step((float *)PyBytes_AS_STRING(next), last ? (float *)PyBytes_AS_STRING(last) : NULL,
                      (const float *)output, (const float *)noise, (size_t)bytes / sizeof(float), &k);
    return Py_BuildValue("(NN)", next, last ? last : Py_NewRef(Py_None));
}

/* ---- heads ---- */
/* head(task, decoded planes, channels, full_z) -> the map's planes */
static PyObject *head(PyObject *module, PyObject *args) {
    const char *name, *decoded;
    Py_ssize_t bytes;
    long long channels;
    int full_z;
    (void)module;
    if (!PyArg_ParseTuple(args, "sy#Lp:head", &name, &decoded, &bytes, &channels, &full_z))
        return NULL;
    const struct mg_task *task = mg_task_of_name(name);
    const struct mg_head_options options = {.full_z = full_z};
    const int64_t pixels = bytes / (Py_ssize_t)sizeof(float) / channels;
    PyObject *out = PyBytes_FromStringAndSize(NULL, task->prediction_channels * pixels * (Py_ssize_t)sizeof(float));
    if (out)
        task->head((float *)PyBytes_AS_STRING(out), (const float *)decoded, channels, pixels, &options);
    return out;
}

PyMethodDef mg_test_numeric_methods[] = {
    {"randn", randn, METH_VARARGS, "Draws from the random stream, one after the other."},
    {"resize", resize, METH_VARARGS, "Resize planes."},
    {"geometry", geometry, METH_VARARGS, "Where an image lands in the network."},
    {"preprocess", preprocess, METH_VARARGS, "An image as the VAE wants it."},
    {"scheduler", scheduler, METH_VARARGS, "Noise levels, time steps and factors of a schedule."},
    {"scheduler_step", scheduler_step, METH_VARARGS, "A step on arrays."},
    {"head", head, METH_VARARGS, "A map of decoded planes."},
    {"step_factors", step_factors, METH_VARARGS, "Factors of one step."},
    {NULL, NULL, 0, NULL}};
