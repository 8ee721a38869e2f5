/* trainer.c: the type Trainer: opening, gradients of a batch, steps, parameters. */
#include <string.h>

#include "binding.h"

static bool open_trainer(struct mgpy_trainer *self, struct mg_trainer_params *params) {
    struct mg_err err;
    struct mgpy_call call;
    params->pipeline.poll = mgpy_poll;
    params->pipeline.poll_user = &self->pipeline;
    if (!mgpy_call_begin(&self->pipeline, &call, NULL))
        return false;
    mg_status status = mg_trainer_open(&self->handle, params, &err);
    return mgpy_call_end(&self->pipeline, &call, status, &err);
}

static PyObject *trainer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"folder",
                            "variant",
                            "dtype",
                            "device",
                            "isa",
                            "num_threads",
                            "task",
                            "objective",
                            "optimizer",
                            "betas",
                            "epsilon",
                            "weight_decay",
                            "max_gradient_norm",
                            "zero_terminal_snr",
                            "recompute",
                            "keep_gradients",
                            "num_targets",
                            "teacher",
                            "ema_decay",
                            "num_ddim_timesteps",
                            "reconstruction",
                            "pixel_loss",
                            NULL};
    struct mg_trainer_params params;
    PyObject *folder = NULL, *teacher = NULL;
    int zero_terminal_snr = 1, recompute = 0, keep_gradients = 1;
    mg_trainer_params_init(&params);
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "O&|$zzzzizss(dd)dddpppiO&di(dddd)z:Trainer", names, PyUnicode_FSConverter, &folder,
            &params.pipeline.variant, &params.pipeline.dtype, &params.pipeline.device, &params.pipeline.isa,
            &params.pipeline.num_threads, &params.pipeline.task, &params.objective, &params.optimizer, &params.beta1,
            &params.beta2, &params.epsilon, &params.weight_decay, &params.max_gradient_norm, &zero_terminal_snr,
            &recompute, &keep_gradients, &params.pipeline.widen_to_targets, PyUnicode_FSConverter, &teacher,
            &params.ema_decay, &params.num_ddim_timesteps, &params.reconstruction.absolute,
            &params.reconstruction.square, &params.reconstruction.edges, &params.reconstruction.divergence,
            &params.pixel_loss)) {
        Py_XDECREF(folder);
        Py_XDECREF(teacher);
        return NULL;
    }
    params.pipeline.folder = PyBytes_AsString(folder);
    params.teacher = teacher ? PyBytes_AsString(teacher) : NULL;
    params.zero_terminal_snr = zero_terminal_snr;
    params.recompute = recompute;
    params.keep_gradients = keep_gradients;
    struct mgpy_trainer *self = (struct mgpy_trainer *)PyType_GenericAlloc(type, 0);
    if (self)
        self->pipeline.kind = "trainer";
    if (self && !open_trainer(self, &params))
        Py_CLEAR(self);
    Py_DECREF(folder);
    Py_XDECREF(teacher);
    return (PyObject *)self;
}

static void trainer_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    mg_trainer_close(((struct mgpy_trainer *)object)->handle);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* ---- a batch ---- */
/* In the order of forward_backward's arguments, but for `weight` after the mask. */
enum { IMAGE, TARGET, NOISE, TIMESTEPS, MASK, PIXEL_TARGET, PIXEL_MASK, COARSE, NUM_ARRAYS };

static PyArrayObject *whole_numbers(PyObject *object, int64_t samples) {
    PyArrayObject *array = (PyArrayObject *)PyArray_FROM_OTF(object, NPY_INT64, NPY_ARRAY_CARRAY_RO);
    if (!array)
        return NULL;
    if (PyArray_NDIM(array) == 1 && PyArray_DIM(array, 0) == samples)
        return array;
    PyErr_Format(PyExc_ValueError, "`timesteps` must hold one whole number for each of the %lld samples",
                 (long long)samples);
    Py_DECREF(array);
    return NULL;
}

static PyArrayObject *mask_of(PyObject *object, const char *name, const char *channels, int64_t n, int64_t h,
                              int64_t w) {
    PyArrayObject *mask = (PyArrayObject *)PyArray_FROM_OTF(object, NPY_BOOL, NPY_ARRAY_CARRAY_RO);
    if (!mask)
        return NULL;
    if (PyArray_NDIM(mask) == 4 && PyArray_DIM(mask, 0) == n && PyArray_DIM(mask, 2) == h && PyArray_DIM(mask, 3) == w)
        return mask;
    PyErr_Format(PyExc_ValueError, "`%s` must be (%lld, %s, %lld, %lld), as what it masks", name, (long long)n,
                 channels, (long long)h, (long long)w);
    Py_DECREF(mask);
    return NULL;
}

/* One of the arrays of latents; None is left out. */
static bool take_latent(PyArrayObject **out, PyObject *object, const char *name, const int64_t shape[4]) {
    if (object == Py_None)
        return true;
    *out = mgpy_float_array(object, 4, name, "N, C, h, w");
    return *out && mgpy_check_shape(*out, shape, name);
}

static bool take_latents(struct mg_training_batch *batch, PyArrayObject *arrays[NUM_ARRAYS],
                         const struct mg_pipeline_info *info, PyObject *const objects[NUM_ARRAYS]) {
    if (!(arrays[IMAGE] = mgpy_float_array(objects[IMAGE], 4, "image_latent", "N, C, h, w")))
        return false;
    const npy_intp *d = PyArray_DIMS(arrays[IMAGE]);
    const int64_t image[] = {d[0], info->latent_channels, d[2], d[3]};
    const int64_t latent[] = {d[0], info->unet_out_channels, d[2], d[3]};
    batch->n = d[0];
    batch->h = d[2];
    batch->w = d[3];
    if (!mgpy_check_shape(arrays[IMAGE], image, "image_latent") ||
        !take_latent(&arrays[TARGET], objects[TARGET], "target_latent", latent) ||
        !take_latent(&arrays[NOISE], objects[NOISE], "noise", latent) ||
        !take_latent(&arrays[COARSE], objects[COARSE], "coarse_latent", image))
        return false;
    if (objects[TIMESTEPS] != Py_None && !(arrays[TIMESTEPS] = whole_numbers(objects[TIMESTEPS], d[0])))
        return false;
    return objects[MASK] == Py_None ||
           (arrays[MASK] = mask_of(objects[MASK], "mask", "1 or C", batch->n, batch->h, batch->w));
}

static bool take_pixels(struct mg_training_batch *batch, PyArrayObject *arrays[NUM_ARRAYS],
                        PyObject *const objects[NUM_ARRAYS]) {
    if (objects[PIXEL_TARGET] == Py_None) {
        if (objects[PIXEL_MASK] == Py_None)
            return true;
        PyErr_SetString(PyExc_ValueError, "`pixel_mask` is given without `pixel_target`");
        return false;
    }
    if (!(arrays[PIXEL_TARGET] = mgpy_float_array(objects[PIXEL_TARGET], 4, "pixel_target", "N, C, H, W")))
        return false;
    const npy_intp *d = PyArray_DIMS(arrays[PIXEL_TARGET]);
    if (d[0] != batch->n) {
        PyErr_Format(PyExc_ValueError, "`pixel_target` has %lld samples; expected %lld, as `image_latent`",
                     (long long)d[0], (long long)batch->n);
        return false;
    }
    batch->pixel_channels = d[1];
    batch->pixel_h = d[2];
    batch->pixel_w = d[3];
    if (objects[PIXEL_MASK] == Py_None)
        return true;
    const int64_t mask[] = {d[0], 1, d[2], d[3]};
    arrays[PIXEL_MASK] = mask_of(objects[PIXEL_MASK], "pixel_mask", "1", d[0], d[2], d[3]);
    return arrays[PIXEL_MASK] && mgpy_check_shape(arrays[PIXEL_MASK], mask, "pixel_mask");
}

static void *data_of(PyArrayObject *array) { return array ? PyArray_DATA(array) : NULL; }

static bool take_batch(struct mg_training_batch *batch, PyArrayObject *arrays[NUM_ARRAYS],
                       const struct mg_pipeline_info *info, PyObject *const objects[NUM_ARRAYS]) {
    if (!take_latents(batch, arrays, info, objects) || !take_pixels(batch, arrays, objects))
        return false;
    batch->image_latent = data_of(arrays[IMAGE]);
    batch->target_latent = data_of(arrays[TARGET]);
    batch->noise = data_of(arrays[NOISE]);
    batch->timesteps = data_of(arrays[TIMESTEPS]);
    batch->mask = data_of(arrays[MASK]);
    batch->mask_channels = arrays[MASK] ? PyArray_DIM(arrays[MASK], 1) : 0;
    batch->pixel_target = data_of(arrays[PIXEL_TARGET]);
    batch->pixel_mask = data_of(arrays[PIXEL_MASK]);
    batch->coarse_latent = data_of(arrays[COARSE]);
    return true;
}

/* forward_backward, or with a learning rate train_step: what it returns. */
static PyObject *learn(struct mgpy_trainer *self, PyObject *const objects[NUM_ARRAYS], double weight,
                       const double *learning_rate) {
    PyArrayObject *arrays[NUM_ARRAYS] = {NULL};
    struct mg_training_batch batch = {.weight = weight};
    struct mg_pipeline_info info;
    struct mgpy_call call;
    struct mg_err err;
    double loss, norm = 0.0;
    PyObject *result = NULL;
    mg_pipeline_get_info(mg_trainer_pipeline(self->handle), &info);
    if (take_batch(&batch, arrays, &info, objects) && mgpy_call_begin(&self->pipeline, &call, NULL)) {
        mg_status status = learning_rate
                               ? mg_trainer_train_step(&loss, &norm, self->handle, &batch, *learning_rate, &err)
                               : mg_trainer_forward_backward(&loss, self->handle, &batch, &err);
        if (mgpy_call_end(&self->pipeline, &call, status, &err))
            result = learning_rate ? Py_BuildValue("dd", loss, norm) : PyFloat_FromDouble(loss);
    }
    for (int i = 0; i < NUM_ARRAYS; i++)
        mgpy_release(arrays[i]);
    return result;
}

static PyObject *trainer_forward_backward(PyObject *object, PyObject *args) {
    PyObject *objects[NUM_ARRAYS];
    double weight;
    if (!PyArg_ParseTuple(args, "OOOOOdOOO:forward_backward", &objects[IMAGE], &objects[TARGET], &objects[NOISE],
                          &objects[TIMESTEPS], &objects[MASK], &weight, &objects[PIXEL_TARGET], &objects[PIXEL_MASK],
                          &objects[COARSE]))
        return NULL;
    return learn((struct mgpy_trainer *)object, objects, weight, NULL);
}

static PyObject *trainer_train_step(PyObject *object, PyObject *args) {
    PyObject *objects[NUM_ARRAYS];
    double learning_rate;
    if (!PyArg_ParseTuple(args, "OOOOOOOOd:train_step", &objects[IMAGE], &objects[TARGET], &objects[NOISE],
                          &objects[TIMESTEPS], &objects[MASK], &objects[PIXEL_TARGET], &objects[PIXEL_MASK],
                          &objects[COARSE], &learning_rate))
        return NULL;
    return learn((struct mgpy_trainer *)object, objects, 1.0, &learning_rate);
}

static PyObject *trainer_step(PyObject *object, PyObject *args) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    struct mgpy_call call;
    struct mg_err err;
    double learning_rate, norm;
    if (!PyArg_ParseTuple(args, "d:step", &learning_rate) || !mgpy_call_begin(&self->pipeline, &call, NULL))
        return NULL;
    mg_status status = mg_trainer_step(&norm, self->handle, learning_rate, &err);
    return mgpy_call_end(&self->pipeline, &call, status, &err) ? PyFloat_FromDouble(norm) : NULL;
}

/* None, or the exception of a call that has ended. */
static PyObject *end(struct mgpy_trainer *self, struct mgpy_call *call, mg_status status, const struct mg_err *err) {
    if (!mgpy_call_end(&self->pipeline, call, status, err))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *trainer_clear_gradients(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    struct mgpy_call call;
    struct mg_err err;
    if (!mgpy_call_begin(&self->pipeline, &call, NULL))
        return NULL;
    return end(self, &call, mg_trainer_clear_gradients(self->handle, &err), &err);
}

/* ---- sums over processes ---- */
/* The block itself, not a copy; it keeps the trainer alive. */
static PyObject *trainer_gradient_block(PyObject *object, PyObject *Py_UNUSED(unused)) {
    float *block;
    int64_t count;
    struct mg_err err;
    if (mg_trainer_gradients(&block, &count, ((struct mgpy_trainer *)object)->handle, &err) != MG_OK) {
        struct mgpy_state *state = mgpy_state_of(object);
        return state ? mgpy_raise(state, &err) : NULL;
    }
    npy_intp length = (npy_intp)count;
    PyObject *array = PyArray_SimpleNewFromData(1, &length, NPY_FLOAT32, block);
    if (!array)
        return NULL;
    Py_INCREF(object);
    if (PyArray_SetBaseObject((PyArrayObject *)array, object) == 0)
        return array;
    Py_DECREF(array);
    return NULL;
}

static PyObject *trainer_follow_gradients(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    struct mgpy_call call;
    struct mg_err err;
    if (!mgpy_call_begin(&self->pipeline, &call, NULL))
        return NULL;
    return end(self, &call, mg_trainer_follow_gradients(self->handle, &err), &err);
}

/* While another thread trains. */
static PyObject *trainer_gradients_done(PyObject *object, PyObject *Py_UNUSED(unused)) {
    return PyLong_FromLongLong(mg_trainer_gradients_done(((struct mgpy_trainer *)object)->handle));
}

static PyObject *raised(PyObject *object, const struct mg_err *err) {
    struct mgpy_state *state = mgpy_state_of(object);
    return state ? mgpy_raise(state, err) : NULL;
}

static PyObject *trainer_name_group(PyObject *object, PyObject *Py_UNUSED(unused)) {
    char name[MG_GRADIENT_GROUP_NAME];
    struct mg_err err;
    if (mg_trainer_name_group(name, ((struct mgpy_trainer *)object)->handle, &err) != MG_OK)
        return raised(object, &err);
    return PyBytes_FromStringAndSize(name, sizeof name);
}

static PyObject *trainer_join_group(PyObject *object, PyObject *args) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    const char *name;
    Py_ssize_t length;
    int rank, size;
    struct mgpy_call call;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "y#ii:join_group", &name, &length, &rank, &size))
        return NULL;
    if (length != MG_GRADIENT_GROUP_NAME || rank < 0 || rank >= size)
        return PyErr_Format(PyExc_ValueError, "a name of %zd bytes, process %d of %d", length, rank, size);
    if (!mgpy_call_begin(&self->pipeline, &call, NULL))
        return NULL;
    return end(self, &call, mg_trainer_join_group(self->handle, name, rank, size, &err), &err);
}

static PyObject *trainer_sum_gradients(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    struct mgpy_call call;
    struct mg_err err;
    if (!mgpy_call_begin(&self->pipeline, &call, NULL))
        return NULL;
    return end(self, &call, mg_trainer_sum_gradients(self->handle, &err), &err);
}

static PyObject *trainer_isa(PyObject *object, void *Py_UNUSED(closure)) {
    struct mg_pipeline_info info;
    mg_pipeline_get_info(mg_trainer_pipeline(((struct mgpy_trainer *)object)->handle), &info);
    return PyUnicode_FromString(info.isa ? info.isa : "");
}

/* ---- parameters ---- */
static bool part_of(mg_parameter_part *part, const char *name) {
    static const char *const names[] = {"value", "gradient", "m", "v", "average"};
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++)
        if (!strcmp(names[i], name)) {
            *part = (mg_parameter_part)i;
            return true;
        }
    PyErr_Format(PyExc_ValueError, "a parameter has no \"%s\"", name);
    return false;
}

static int shape_of(const struct mgpy_trainer *self, int index, npy_intp dims[4]) {
    int64_t shape[4];
    int ndim;
    mg_trainer_parameter(self->handle, index, shape, &ndim);
    for (int d = 0; d < ndim; d++)
        dims[d] = (npy_intp)shape[d];
    return ndim;
}

static bool check_index(const struct mgpy_trainer *self, int index) {
    if (index >= 0 && index < mg_trainer_num_parameters(self->handle))
        return true;
    PyErr_Format(PyExc_IndexError, "there is no parameter %d", index);
    return false;
}

static PyObject *trainer_names(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    const int count = mg_trainer_num_parameters(self->handle);
    PyObject *list = PyList_New(count);
    for (int i = 0; list && i < count; i++) {
        int64_t shape[4];
        int ndim;
        PyObject *name = PyUnicode_FromString(mg_trainer_parameter(self->handle, i, shape, &ndim));
        if (name)
            PyList_SetItem(list, i, name);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *trainer_shape(PyObject *object, PyObject *args) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    npy_intp dims[4];
    int index;
    if (!PyArg_ParseTuple(args, "i:shape", &index) || !check_index(self, index))
        return NULL;
    const int ndim = shape_of(self, index, dims);
    PyObject *shape = PyTuple_New(ndim);
    for (int d = 0; shape && d < ndim; d++)
        PyTuple_SetItem(shape, d, PyLong_FromLongLong(dims[d]));
    if (PyErr_Occurred())
        Py_CLEAR(shape);
    return shape;
}

static PyObject *trainer_read(PyObject *object, PyObject *args) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    const char *name;
    mg_parameter_part part;
    npy_intp dims[4];
    int index;
    struct mgpy_call call;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "is:read", &index, &name) || !part_of(&part, name) || !check_index(self, index))
        return NULL;
    PyArrayObject *out = mgpy_new_floats(shape_of(self, index, dims), dims);
    if (out && mgpy_call_begin(&self->pipeline, &call, NULL)) {
        const mg_status status = mg_trainer_read(mgpy_floats(out), self->handle, index, part, &err);
        if (mgpy_call_end(&self->pipeline, &call, status, &err))
            return (PyObject *)out;
    }
    mgpy_release(out);
    return NULL;
}

static PyObject *trainer_write(PyObject *object, PyObject *args) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    const char *name;
    mg_parameter_part part;
    npy_intp dims[4];
    int index;
    PyObject *source, *result = NULL;
    struct mgpy_call call;
    struct mg_err err;
    if (!PyArg_ParseTuple(args, "isO:write", &index, &name, &source) || !part_of(&part, name) ||
        !check_index(self, index))
        return NULL;
    const int ndim = shape_of(self, index, dims);
    PyArrayObject *array =
        (PyArrayObject *)PyArray_FROM_OTF(source, NPY_FLOAT32, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED);
    if (!array)
        return NULL;
    if (PyArray_NDIM(array) != ndim || !PyArray_CompareLists(PyArray_DIMS(array), dims, ndim)) {
        Py_DECREF(array);
        return PyErr_Format(PyExc_ValueError, "parameter %d has another shape", index);
    }
    /* Converting the array may have run Python code, which may have begun another call. */
    if (mgpy_call_begin(&self->pipeline, &call, NULL))
        result = end(self, &call, mg_trainer_write(self->handle, index, part, mgpy_floats(array), &err), &err);
    Py_DECREF(array);
    return result;
}

static PyObject *trainer_get_steps(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(mg_trainer_steps(((struct mgpy_trainer *)object)->handle));
}

static int trainer_set_steps(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    const long long steps = value ? PyLong_AsLongLong(value) : -1;
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    struct mg_err err;
    if (PyErr_Occurred() || mgpy_refuse_busy(self->pipeline.call, "trainer"))
        return -1;
    if (mg_trainer_set_steps(self->handle, steps, &err) == MG_OK)
        return 0;
    raised(object, &err);
    return -1;
}

static PyObject *trainer_memory(PyObject *object, PyObject *Py_UNUSED(unused)) {
    struct mgpy_trainer *self = (struct mgpy_trainer *)object;
    struct mg_memory_stats m;
    if (mgpy_refuse_busy(self->pipeline.call, "trainer"))
        return NULL;
    mg_pipeline_memory(mg_trainer_pipeline(self->handle), &m);
    return mgpy_memory_dict(&m);
}

static PyMethodDef trainer_methods[] = {
    {"forward_backward", trainer_forward_backward, METH_VARARGS,
     "forward_backward(image_latent, target_latent, noise, timesteps, mask, weight, pixel_target, pixel_mask, "
     "coarse_latent): the "
     "loss."},
    {"reconstruct", mgpy_trainer_reconstruct, METH_VARARGS,
     "reconstruct(images, noise or None, weight): the terms of the loss, by name."},
    {"step", trainer_step, METH_VARARGS, "step(learning_rate): the norm of the gradients, which become 0."},
    {"train_step", trainer_train_step, METH_VARARGS,
     "train_step(image_latent, target_latent, noise, timesteps, mask, pixel_target, pixel_mask, coarse_latent, "
     "learning_rate): the "
     "loss and the norm of the gradients."},
    {"clear_gradients", trainer_clear_gradients, METH_NOARGS, "Gradients become 0."},
    {"gradient_block", trainer_gradient_block, METH_NOARGS, "The memory of all gradients, as they lie."},
    {"follow_gradients", trainer_follow_gradients, METH_NOARGS, "Before a batch that gradients_done follows."},
    {"gradients_done", trainer_gradients_done, METH_NOARGS,
     "How many numbers at the beginning of gradient_block the batch that another thread learns has added to for the "
     "last "
     "time."},
    {"name_group", trainer_name_group, METH_NOARGS, "A new group of processes that sum gradients on their GPUs."},
    {"join_group", trainer_join_group, METH_VARARGS, "join_group(name, rank, size): returns when all have joined."},
    {"sum_gradients", trainer_sum_gradients, METH_NOARGS, "Gradients become their sums over the group."},
    {"names", trainer_names, METH_NOARGS, "Names of the parameters, in their order."},
    {"shape", trainer_shape, METH_VARARGS, "shape(index)"},
    {"read", trainer_read, METH_VARARGS, "read(index, \"value\" | \"gradient\" | \"m\" | \"v\" | \"average\")"},
    {"write", trainer_write, METH_VARARGS, "write(index, part, array)"},
    {"memory", trainer_memory, METH_NOARGS, "Bytes in use."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef trainer_properties[] = {
    {"steps", trainer_get_steps, trainer_set_steps, "Steps of the optimiser so far.", NULL},
    {"isa", trainer_isa, NULL, "The instruction set in use, which decides how gradients lie.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot trainer_slots[] = {{Py_tp_doc, "Trainer(folder, *, ...): a checkpoint whose UNet is trained."},
                                      {Py_tp_new, trainer_new},
                                      {Py_tp_dealloc, trainer_dealloc},
                                      {Py_tp_methods, trainer_methods},
                                      {Py_tp_getset, trainer_properties},
                                      {0, NULL}};

PyType_Spec mgpy_trainer_spec = {.name = "marigold_c._C.Trainer",
                                 .basicsize = sizeof(struct mgpy_trainer),
                                 .flags = Py_TPFLAGS_DEFAULT,
                                 .slots = trainer_slots};
