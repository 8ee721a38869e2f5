/* nn_ext.c: runs one network from its folder, and reads configurations and tokenizers, for tests/test_nn.py and
 * tests/oracle/test_nn.py. Arrays come in through the buffer protocol and go out as (shape, bytes of float32). */
#include <string.h>

#include "../../csrc/nn/nn.h"
#include "test_ext.h"

enum kind { UNET, VAE_ENCODE, VAE_DECODE, VAE_TINY_ENCODE, VAE_TINY_DECODE, CLIP };
enum { MAX_ARRAYS = 3, DECLARING_SIZE = 1 << (MG_MAX_LEVELS - 1) };

struct job {
    struct mg_err err;
    enum kind kind;
    struct mg_arena arena;
    struct mg_context context;
    struct mg_weights weights;
    struct mg_graph graph;
    struct mg_plan *plan;
    union {
        struct mg_unet_config unet;
        struct mg_vae_config vae;
        struct mg_vae_tiny_config vae_tiny;
        struct mg_clip_config clip;
    } config;
    Py_buffer view[MAX_ARRAYS];
    int num_arrays;
    int64_t dim[MAX_ARRAYS][4]; /* as the graph declares its inputs */
    int64_t frames;             /* of a video, of the UNet's samples */
};

static const char *const input_names[][MAX_ARRAYS] = {[UNET] = {"sample", "timesteps", "text"},
                                                      [VAE_ENCODE] = {"x"},
                                                      [VAE_DECODE] = {"z"},
                                                      [VAE_TINY_ENCODE] = {"x"},
                                                      [VAE_TINY_DECODE] = {"z"},
                                                      [CLIP] = {"ids"}};

static struct job *job_create(enum kind kind) {
    struct job *job;
    if (mg_alloc_zeroed((void **)&job, sizeof *job, "a test", NULL)) {
        PyErr_NoMemory();
        return NULL;
    }
    job->kind = kind;
    job->context.num_threads = 1;
    mg_arena_init(&job->arena);
    return job;
}

static void job_free(struct job *job) {
    mg_plan_destroy(job->plan);
    mg_graph_free(&job->graph);
    mg_weights_close(&job->weights);
    mg_context_release(&job->context);
    if (job->context.backend)
        job->context.backend->close(&job->context);
    mg_arena_free(&job->arena);
    for (int i = 0; i < job->num_arrays; i++)
        PyBuffer_Release(&job->view[i]);
    mg_free(job);
}

/* ---- building ---- */
static mg_status read_config(struct job *job, const struct mg_json *json, const char *name) {
    switch (job->kind) {
    case UNET:
        return mg_unet_config_read(&job->config.unet, json, name, &job->err);
    case CLIP:
        return mg_clip_config_read(&job->config.clip, json, name, &job->err);
    case VAE_TINY_ENCODE:
    case VAE_TINY_DECODE:
        return mg_vae_tiny_config_read(&job->config.vae_tiny, json, name, &job->err);
    default:
        return mg_vae_config_read(&job->config.vae, json, name, &job->err);
    }
}

static mg_status build(struct job *job) {
    struct mg_graph *g = &job->graph;
    mg_value in[MAX_ARRAYS] = {MG_NONE, MG_NONE, MG_NONE}, out = MG_NONE;
    mg_graph_init(g, &job->weights, &job->err);
    for (int i = 0; i < MAX_ARRAYS && input_names[job->kind][i]; i++) {
        const int64_t *d = job->dim[i];
        in[i] = mg_graph_input(g, input_names[job->kind][i], d[0], d[1], d[2], d[3]);
    }
    switch (job->kind) {
    case UNET:
        out = mg_unet_build(g, &job->config.unet, mg_op_nchw_to_nhwc(g, in[0]), in[1], in[2]);
        break;
    case VAE_ENCODE:
        out = mg_vae_encode_build(g, &job->config.vae, mg_op_nchw_to_nhwc(g, in[0]));
        break;
    case VAE_DECODE:
        out = mg_vae_decode_build(g, &job->config.vae, mg_op_nchw_to_nhwc(g, in[0]));
        break;
    case VAE_TINY_ENCODE:
        out = mg_vae_tiny_encode_build(g, &job->config.vae_tiny, mg_op_nchw_to_nhwc(g, in[0]));
        break;
    case VAE_TINY_DECODE:
        out = mg_vae_tiny_decode_build(g, &job->config.vae_tiny, mg_op_nchw_to_nhwc(g, in[0]));
        break;
    case CLIP:
        out = mg_clip_build(g, &job->config.clip, in[0]);
        break;
    }
    mg_graph_output(g, "out", job->kind == CLIP ? out : mg_op_nhwc_to_nchw(g, out));
    return mg_graph_status(g);
}

static int64_t input_channels(const struct job *job) {
    switch (job->kind) {
    case UNET:
        return job->config.unet.in_channels;
    case VAE_ENCODE:
        return job->config.vae.in_channels;
    case VAE_DECODE:
        return job->config.vae.latent_channels;
    case VAE_TINY_ENCODE:
        return job->config.vae_tiny.in_channels;
    case VAE_TINY_DECODE:
        return job->config.vae_tiny.latent_channels;
    case CLIP:
        break;
    }
    return 1;
}

/* Declares all weights of the component, on a graph of a size that every network accepts. */
static mg_status declare(struct job *job) {
    const enum kind kind = job->kind;
    const int64_t size = DECLARING_SIZE;
    int64_t given[MAX_ARRAYS][4];
    mg_status status = MG_OK;
    memcpy(given, job->dim, sizeof given);
    for (int pass = 0; pass < 2 && status == MG_OK; pass++) {
        if (kind == VAE_ENCODE || kind == VAE_DECODE)
            job->kind = pass ? VAE_DECODE : VAE_ENCODE;
        else if (kind == VAE_TINY_ENCODE || kind == VAE_TINY_DECODE)
            job->kind = pass ? VAE_TINY_DECODE : VAE_TINY_ENCODE;
        const int64_t image[4] = {1, input_channels(job), size, size}, one[4] = {1, 1, 1, 1}, ids[4] = {1, 1, 2, 1};
        const int64_t text[4] = {1, 1, 2, kind == UNET ? job->config.unet.cross_attention_dim : 1};
        memcpy(job->dim[0], kind == CLIP ? ids : image, sizeof image);
        memcpy(job->dim[1], one, sizeof one);
        memcpy(job->dim[2], text, sizeof text);
        status = build(job);
        mg_graph_free(&job->graph);
    }
    job->kind = kind;
    memcpy(job->dim, given, sizeof given);
    return status;
}

/* ---- running ---- */
static bool take_array(struct job *job, PyObject *object, int ndim) {
    Py_buffer *view = &job->view[job->num_arrays];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT))
        return false;
    int64_t *d = job->dim[job->num_arrays++];
    if (view->ndim != ndim || strcmp(view->format, "f")) {
        PyErr_Format(PyExc_ValueError, "a float32 array of %d dimensions was expected", ndim);
        return false;
    }
    const Py_ssize_t *s = view->shape;
    const int64_t one[4] = {s[0], 1, 1, 1}, three[4] = {s[0], 1, s[ndim > 1 ? 1 : 0], s[ndim > 2 ? 2 : 0]};
    if (job->kind == CLIP)
        memcpy(d, (int64_t[4]){1, 1, s[0], 1}, 4 * sizeof *d);
    else if (ndim == 4)
        for (int i = 0; i < 4; i++)
            d[i] = s[i];
    else
        memcpy(d, ndim == 1 ? one : three, 4 * sizeof *d);
    return true;
}

static mg_status open_component(struct job *job, const char *folder, const char *variant) {
    char *path = NULL;
    const struct mg_json *json;
    mg_status status;
    struct mg_err *err = &job->err;
    MG_TRY_GOTO(mg_path_join(&path, folder, "config.json", err));
    MG_TRY_GOTO(mg_json_read_file(&json, &job->arena, path, err));
    MG_TRY_GOTO(read_config(job, json, path));
    MG_TRY_GOTO(mg_weights_open(&job->weights, "component", folder, variant, err));
    if (job->kind == CLIP) {
        job->weights.alias = mg_clip_weight_alias;
        job->weights.may_ignore = mg_clip_may_ignore;
    } else if (job->kind == VAE_ENCODE || job->kind == VAE_DECODE) {
        job->weights.alias = mg_vae_weight_alias;
    }
    MG_TRY_GOTO(declare(job));
    MG_TRY_GOTO(mg_weights_check(&job->weights, err));
done:
    mg_free(path);
    return status;
}

static mg_status plan_network(struct job *job, const char *backend, const char *isa, int64_t shape[4]) {
    const struct mg_backend *found;
    MG_TRY(mg_backend_find(&found, backend, &job->err));
    MG_TRY(found->open(&job->context, isa, &job->err));
    job->context.backend = found;
    if (job->kind == UNET)
        job->config.unet.frames = job->frames;
    MG_TRY(build(job));
    memcpy(shape, mg_graph_dim(&job->graph, job->graph.outputs[0]), 4 * sizeof *shape);
    return mg_plan_create(&job->plan, &job->graph, &job->context, &job->err);
}

static PyObject *run_plan(struct job *job, const int64_t shape[4]) {
    struct mg_binding in[MAX_ARRAYS];
    for (int i = 0; i < job->num_arrays; i++)
        in[i] = (struct mg_binding){input_names[job->kind][i], job->view[i].buf};
    const struct mg_tensor tensor = {.dtype = MG_F32, .ndim = 4, .dim = {shape[0], shape[1], shape[2], shape[3]}};
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)mg_tensor_bytes(&tensor));
    if (!bytes)
        return NULL;
    const struct mg_binding out = {"out", PyBytes_AS_STRING(bytes)};
    if (mg_plan_run(job->plan, in, job->num_arrays, &out, 1, &job->err)) {
        Py_DECREF(bytes);
        return mg_test_raise(&job->err);
    }
    return Py_BuildValue("(LLLL)N", (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3],
                         bytes);
}

static PyObject *run_network(enum kind kind, const char *format, PyObject *args) {
    const char *folder, *variant, *backend, *isa;
    int threads;
    PyObject *array[MAX_ARRAYS] = {NULL};
    long long frames = 1;
    bool parsed = kind == UNET ? PyArg_ParseTuple(args, format, &folder, &variant, &array[0], &array[1], &array[2],
                                                  &backend, &isa, &threads, &frames)
                               : PyArg_ParseTuple(args, format, &folder, &variant, &array[0], &backend, &isa, &threads);
    struct job *job = parsed ? job_create(kind) : NULL;
    if (!job)
        return NULL;
    static const int ndim[][MAX_ARRAYS] = {[UNET] = {4, 1, 3},      [VAE_ENCODE] = {4},      [VAE_DECODE] = {4},
                                           [VAE_TINY_ENCODE] = {4}, [VAE_TINY_DECODE] = {4}, [CLIP] = {1}};
    PyObject *result = NULL;
    int64_t shape[4];
    bool taken = true;
    job->context.num_threads = threads;
    job->frames = frames;
    for (int i = 0; i < MAX_ARRAYS && array[i] && taken; i++)
        taken = take_array(job, array[i], ndim[kind][i]);
    if (taken && (open_component(job, folder, variant) || plan_network(job, backend, isa, shape)))
        mg_test_raise(&job->err);
    else if (taken)
        result = run_plan(job, shape);
    job_free(job);
    return result;
}

static PyObject *unet_run(PyObject *self, PyObject *args) {
    (void)self;
    return run_network(UNET, "szOOOszi|L", args);
}

static PyObject *vae_encode_run(PyObject *self, PyObject *args) {
    (void)self;
    return run_network(VAE_ENCODE, "szOszi", args);
}

static PyObject *vae_decode_run(PyObject *self, PyObject *args) {
    (void)self;
    return run_network(VAE_DECODE, "szOszi", args);
}

static PyObject *vae_tiny_encode_run(PyObject *self, PyObject *args) {
    (void)self;
    return run_network(VAE_TINY_ENCODE, "szOszi", args);
}

static PyObject *vae_tiny_decode_run(PyObject *self, PyObject *args) {
    (void)self;
    return run_network(VAE_TINY_DECODE, "szOszi", args);
}

static PyObject *clip_run(PyObject *self, PyObject *args) {
    (void)self;
    return run_network(CLIP, "szOszi", args);
}

/* ---- configurations, without files ---- */
static PyObject *list_weights(const struct mg_weights *weights) {
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < weights->count; i++) {
        const struct mg_tensor *shape = &weights->list[i].shape;
        PyObject *tuple = PyTuple_New(shape->ndim);
        for (int d = 0; tuple && d < shape->ndim; d++)
            PyTuple_SET_ITEM(tuple, d, PyLong_FromLongLong(shape->dim[d]));
        if (!tuple || PyErr_Occurred() || PyDict_SetItemString(dict, weights->list[i].key, tuple))
            Py_CLEAR(dict);
        Py_XDECREF(tuple);
    }
    return dict;
}

static enum kind kind_of(const char *name) {
    static const struct {
        const char *name;
        enum kind kind;
    } kinds[] = {{"unet", UNET}, {"vae", VAE_ENCODE}, {"vae_tiny", VAE_TINY_ENCODE}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(kinds[i].name, name))
            return kinds[i].kind;
    return CLIP;
}

static PyObject *network_weights(PyObject *self, PyObject *args) {
    (void)self;
    const char *name, *text;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "ss#", &name, &text, &bytes))
        return NULL;
    struct job *job = job_create(kind_of(name));
    if (!job)
        return NULL;
    const struct mg_json *json;
    PyObject *result = NULL;
    if (mg_json_parse(&json, &job->arena, text, (size_t)bytes, "config.json", &job->err) ||
        read_config(job, json, "config.json") || declare(job))
        mg_test_raise(&job->err);
    else
        result = list_weights(&job->weights);
    job_free(job);
    return result;
}

static PyObject *empty_prompt(PyObject *self, PyObject *args) {
    (void)self;
    const char *folder;
    long long vocabulary;
    if (!PyArg_ParseTuple(args, "sL", &folder, &vocabulary))
        return NULL;
    struct job *job = job_create(CLIP);
    if (!job)
        return NULL;
    int64_t ids[2];
    job->config.clip.vocabulary = vocabulary;
    PyObject *result = NULL;
    if (mg_clip_empty_prompt(ids, 2, folder, &job->config.clip, &job->err))
        mg_test_raise(&job->err);
    else
        result = Py_BuildValue("(LL)", (long long)ids[0], (long long)ids[1]);
    job_free(job);
    return result;
}

PyMethodDef mg_test_nn_methods[] = {
    {"unet_run", unet_run, METH_VARARGS,
     "unet_run(folder, variant, sample NCHW, timesteps, text NTD, backend, isa, threads, frames=1) -> (shape, bytes)"},
    {"vae_encode_run", vae_encode_run, METH_VARARGS,
     "vae_encode_run(folder, variant, x NCHW, backend, isa, threads) -> (shape, bytes)"},
    {"vae_decode_run", vae_decode_run, METH_VARARGS,
     "vae_decode_run(folder, variant, z NCHW, backend, isa, threads) -> (shape, bytes)"},
    {"vae_tiny_encode_run", vae_tiny_encode_run, METH_VARARGS,
     "vae_tiny_encode_run(folder, variant, x NCHW, backend, isa, threads) -> (shape, bytes)"},
    {"vae_tiny_decode_run", vae_tiny_decode_run, METH_VARARGS,
     "vae_tiny_decode_run(folder, variant, z NCHW, backend, isa, threads) -> (shape, bytes)"},
    {"clip_run", clip_run, METH_VARARGS, "clip_run(folder, variant, ids T, backend, isa, threads) -> (shape, bytes)"},
    {"network_weights", network_weights, METH_VARARGS,
     "network_weights(\"unet\" | \"vae\" | \"vae_tiny\" | \"clip\", config) -> {key: shape}"},
    {"empty_prompt", empty_prompt, METH_VARARGS, "empty_prompt(tokenizer_folder, vocabulary) -> (begin, end)"},
    {NULL, NULL, 0, NULL},
};
