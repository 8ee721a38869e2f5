/* gradient_ext.c: the gradients of one forward operation by the tape, for tests/test_gradients.py.
 *
 * The backward pass is recorded as in training; its operations are then run one by one, each on memory that shows mistakes:
 * outputs and scratch begin as NaN, every block is fenced, inputs must not change, and where the output may take over an
 * input the operation runs once more so, with the same result to the bit. */
#include <string.h>

#include "../../csrc/pipeline/pipeline.h"
#include "test_ext.h"

enum { FENCE = 4 * MG_ALIGNMENT, FENCE_BYTE = 0xff };

struct block {
    unsigned char *memory;
    void *device; /* NULL, or the same, fences included, in the memory of the backend's device */
    size_t bytes;
};

static mg_status block_create(struct block *block, size_t bytes, struct mg_err *err) {
    void *memory;
    block->bytes = bytes;
    MG_TRY(mg_alloc(&memory, bytes + 2 * FENCE, "a block", err));
    block->memory = memory;
    memset(block->memory, FENCE_BYTE, bytes + 2 * FENCE);
    return MG_OK;
}

static void *block_data(const struct block *block) { return block->memory ? block->memory + FENCE : NULL; }

/* Where operations find it. */
static void *block_address(const struct block *block) {
    return block->device ? (char *)block->device + FENCE : block_data(block);
}

static mg_status block_upload(struct block *block, const struct mg_context *context, struct mg_err *err) {
    if (!context->memory || !block->memory)
        return MG_OK;
    if (!block->device)
        MG_TRY(mg_context_alloc(&block->device, context, block->bytes + 2 * FENCE, "a block", err));
    return mg_context_upload(context, block->device, block->memory, block->bytes + 2 * FENCE, err);
}

static mg_status block_download(const struct block *block, const struct mg_context *context, struct mg_err *err) {
    return block->device ? mg_context_download(context, block->memory, block->device, block->bytes + 2 * FENCE, err)
                         : MG_OK;
}

static void block_free(struct block *block, const struct mg_context *context) {
    if (block->device)
        mg_context_free(context, block->device);
    mg_free(block->memory);
}

static mg_status block_check(const struct block *block, const char *what, const char *op, struct mg_err *err) {
    for (size_t i = 0; block->memory && i < FENCE; i++)
        if (block->memory[i] != FENCE_BYTE || block->memory[FENCE + block->bytes + i] != FENCE_BYTE)
            return mg_fail(err, MG_ERR_BUSY, "%s wrote outside %s", op, what);
    return MG_OK;
}

struct job {
    struct mg_err err;
    struct mg_graph graph;
    struct mg_weights weights;
    struct mg_context context;
    bool opened;
    const char *name;
    Py_buffer view[MG_MAX_INPUTS], seed;
    mg_value in[MG_MAX_INPUTS], seed_value, out, gradient[MG_MAX_INPUTS];
    struct block *block;  /* by node */
    float start;          /* what gradients of weights are added to */
    mg_dtype activations; /* within; float32 outside */
    bool mixed;           /* but keys and values of attention stay float32, as a text's */
};

static bool take(PyObject *item, Py_buffer *view) {
    if (item == Py_None)
        return true;
    if (PyObject_GetBuffer(item, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT))
        return false;
    if (!strcmp(view->format, "f") && view->ndim >= 1 && view->ndim <= MG_MAX_DIMS)
        return true;
    PyErr_SetString(PyExc_ValueError, "inputs are float32 of 1 to 4 dimensions");
    return false;
}

/* The graph: inputs, the operation, its gradients. */
static bool record(struct job *job, PyObject *params, int recompute) {
    static const char *const names[] = {"in0", "in1", "in2", "in3", "in4"};
    mg_value wanted[MG_MAX_INPUTS], gradients[MG_MAX_INPUTS];
    int count = 0, slots[MG_MAX_INPUTS];
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        int64_t dim[MG_MAX_DIMS] = {0};
        const Py_buffer *view = &job->view[slot];
        job->in[slot] = job->gradient[slot] = MG_NONE;
        if (!view->obj)
            continue;
        for (int d = 0; d < view->ndim; d++)
            dim[d] = view->shape[d];
        if (mg_test_is_weight(job->name, slot, view->ndim)) {
            job->in[slot] = mg_graph_weight(&job->graph, names[slot], view->ndim, dim);
        } else {
            job->in[slot] = mg_graph_input(&job->graph, names[slot], dim[0], dim[1], dim[2], dim[3]);
            slots[count] = slot;
            wanted[count++] = job->in[slot];
        }
    }
    mg_value in[MG_MAX_INPUTS];
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        in[slot] = job->in[slot];
        /* A channel vector is float32, and few rows are. */
        if (in[slot] != MG_NONE && slot < (job->mixed ? 1 : 4) && job->graph.nodes[in[slot]].role == MG_ROLE_INPUT)
            in[slot] = mg_op_cast(&job->graph, in[slot], job->activations);
    }
    job->out = mg_op_cast(&job->graph, mg_test_build_op(&job->graph, job->name, in, params), MG_F32);
    job->seed_value = mg_graph_seed(&job->graph, "seed", job->out);
    mg_graph_backward(&job->graph, job->out, job->seed_value, wanted, count, gradients, recompute);
    for (int i = 0; i < count; i++)
        job->gradient[slots[i]] = gradients[i];
    return !PyErr_Occurred();
}

/* The layout of a weight: as the operations that read it want it. */
static mg_status choose_layouts(struct job *job) {
    return mg_graph_choose_layouts(&job->graph, &job->context, &job->err);
}

static mg_status fill_parameter(struct job *job, mg_value value, const float *data) {
    const struct mg_node *node = &job->graph.nodes[value];
    const struct mg_weight *weight = &job->weights.list[node->weight];
    const struct mg_weight_layout layout =
        data ? weight->layout : mg_weights_master_layout(&job->weights, node->weight);
    struct block *block = &job->block[value];
    float *constant = NULL;
    mg_status status;
    MG_TRY_GOTO(block_create(block, mg_packed_bytes(layout, &weight->shape), &job->err));
    if (!data) {
        const size_t count = (size_t)mg_tensor_count(&weight->shape);
        MG_TRY_GOTO(mg_alloc((void **)&constant, count * sizeof(float), "a gradient", &job->err));
        for (size_t i = 0; i < count; i++)
            constant[i] = job->start;
    }
    mg_pack_weight(block_data(block), layout, &weight->shape, data ? data : constant, MG_F32, 1);
done:
    mg_free(constant);
    return status;
}

/* The first gradient tensor of a weight owns the memory, the others are the same. */
static mg_value owner_of(const struct job *job, mg_value value) {
    const struct mg_node *node = &job->graph.nodes[value];
    if (node->role != MG_ROLE_GRADIENT)
        return value;
    mg_value owner = 0;
    while (job->graph.nodes[owner].role != MG_ROLE_GRADIENT || job->graph.nodes[owner].weight != node->weight)
        owner++;
    return owner;
}

static mg_status fill(struct job *job) {
    for (mg_value v = 0; v < job->graph.num_nodes; v++) {
        const struct mg_node *node = &job->graph.nodes[v];
        const Py_buffer *view = v == job->seed_value ? &job->seed : NULL;
        for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
            if (job->in[slot] == v)
                view = &job->view[slot];
        if (node->role == MG_ROLE_WEIGHT)
            MG_TRY(fill_parameter(job, v, view->buf));
        else if (node->role == MG_ROLE_GRADIENT && owner_of(job, v) == v)
            MG_TRY(fill_parameter(job, v, NULL));
        else if (node->role != MG_ROLE_GRADIENT)
            MG_TRY(block_create(&job->block[v], mg_tensor_bytes(&node->tensor), &job->err));
        if (node->role == MG_ROLE_INPUT) {
            if ((size_t)view->len != job->block[v].bytes)
                return mg_fail(&job->err, MG_ERR_ARGUMENT, "the seed must have the output's shape");
            memcpy(block_data(&job->block[v]), view->buf, job->block[v].bytes);
        }
    }
    return MG_OK;
}

static uint64_t sum_bytes(const struct block *block) {
    uint64_t sum = 1469598103934665603u;
    for (size_t i = 0; i < block->bytes; i++)
        sum = (sum ^ block->memory[FENCE + i]) * 1099511628211u;
    return sum;
}

/* The operation, on its device; `out` is what it writes. */
static mg_status call(struct job *job, const struct mg_op_shape *op, struct mg_op_call *call, const struct block *out) {
    struct block workspace = {0};
    const struct mg_backend *backend = job->context.backend;
    const char *name = mg_op_info_of(op->kind)->name;
    const size_t bytes = job->context.backend->workspace_bytes(&job->context, op);
    call->op = op;
    mg_status status;
    if (bytes)
        MG_TRY_GOTO(block_create(&workspace, bytes, &job->err));
    MG_TRY_GOTO(block_upload(&workspace, &job->context, &job->err));
    call->workspace = block_address(&workspace);
    backend->run(&job->context, call);
    if (backend->finish)
        MG_TRY_GOTO(backend->finish(&job->context, &job->err));
    MG_TRY_GOTO(block_download(out, &job->context, &job->err));
    MG_TRY_GOTO(block_download(&workspace, &job->context, &job->err));
    MG_TRY_GOTO(block_check(&workspace, "its workspace", name, &job->err));
done:
    block_free(&workspace, &job->context);
    return status;
}

/* Once more with the output in the memory of input `slot`. */
static mg_status call_in_place(struct job *job, const struct mg_graph_op *op, const struct mg_op_call *apart, int slot,
                               const struct block *in) {
    struct mg_op_call again = *apart;
    struct block copy = {0};
    const char *name = mg_op_info_of(op->shape.kind)->name;
    const struct block *expected = &job->block[op->out];
    mg_status status;
    MG_TRY_GOTO(block_create(&copy, expected->bytes, &job->err));
    memcpy(block_data(&copy), block_data(in), expected->bytes);
    MG_TRY_GOTO(block_upload(&copy, &job->context, &job->err));
    again.in[slot] = again.out = block_address(&copy);
    MG_TRY_GOTO(call(job, &op->shape, &again, &copy));
    MG_TRY_GOTO(block_check(&copy, "its output", name, &job->err));
    if (memcmp(block_data(&copy), block_data(expected), expected->bytes))
        status = mg_fail(&job->err, MG_ERR_BUSY, "%s gives something else in the memory of its input %d", name, slot);
done:
    block_free(&copy, &job->context);
    return status;
}

static mg_status run_op(struct job *job, const struct mg_graph_op *op) {
    const struct mg_op_info *info = mg_op_info_of(op->shape.kind);
    struct mg_op_call once = {0};
    uint64_t before[MG_MAX_INPUTS] = {0};
    const mg_value out = owner_of(job, op->out);
    MG_TRY(block_upload(&job->block[out], &job->context, &job->err));
    once.out = block_address(&job->block[out]);
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        if (op->in[slot] != MG_NONE) {
            struct block *in = &job->block[owner_of(job, op->in[slot])];
            MG_TRY(block_upload(in, &job->context, &job->err));
            once.in[slot] = block_address(in);
            before[slot] = sum_bytes(in);
        }
    MG_TRY(call(job, &op->shape, &once, &job->block[out]));
    MG_TRY(block_check(&job->block[out], "its output", info->name, &job->err));
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        const mg_value in = op->in[slot] == MG_NONE ? MG_NONE : owner_of(job, op->in[slot]);
        if (in == MG_NONE || in == out)
            continue;
        MG_TRY(block_download(&job->block[in], &job->context, &job->err));
        MG_TRY(block_check(&job->block[in], "an input", info->name, &job->err));
        if (sum_bytes(&job->block[in]) != before[slot])
            return mg_fail(&job->err, MG_ERR_BUSY, "%s changed its input %d", info->name, slot);
        if (info->alias >> slot & 1 && mg_tensor_same_kind(&op->shape.in[slot], &op->shape.out))
            MG_TRY(call_in_place(job, op, &once, slot, &job->block[in]));
    }
    return MG_OK;
}

static mg_status run_all(struct job *job, const char *isa) {
    MG_TRY(mg_graph_status(&job->graph));
    MG_TRY(job->context.backend->open(&job->context, isa, &job->err));
    job->opened = true;
    MG_TRY(choose_layouts(job));
    MG_TRY(
        mg_alloc_zeroed((void **)&job->block, (size_t)job->graph.num_nodes * sizeof *job->block, "blocks", &job->err));
    MG_TRY(fill(job));
    for (int i = 0; i < job->graph.num_ops; i++)
        MG_TRY(run_op(job, &job->graph.ops[i]));
    return MG_OK;
}

static PyObject *bytes_of(struct job *job, mg_value value) {
    if (value == MG_NONE)
        Py_RETURN_NONE;
    const struct mg_node *node = &job->graph.nodes[value];
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)mg_tensor_bytes(&node->tensor));
    if (bytes && node->role == MG_ROLE_GRADIENT)
        mg_unpack_weight((float *)(void *)PyBytes_AS_STRING(bytes), &node->tensor, block_data(&job->block[value]),
                         mg_weights_master_layout(&job->weights, node->weight), 1);
    else if (bytes)
        memcpy(PyBytes_AS_STRING(bytes), block_data(&job->block[value]), job->block[value].bytes);
    return bytes;
}

/* (gradients by slot, names of the operations that ran) */
static PyObject *result_of(struct job *job) {
    PyObject *gradients = PyList_New(MG_MAX_INPUTS), *names = PyList_New(job->graph.num_ops);
    for (int slot = 0; gradients && names && slot < MG_MAX_INPUTS; slot++) {
        mg_value value = job->gradient[slot];
        for (mg_value v = 0; v < job->graph.num_nodes; v++)
            if (job->in[slot] != MG_NONE && job->graph.nodes[v].role == MG_ROLE_GRADIENT && owner_of(job, v) == v &&
                job->graph.nodes[v].weight == job->graph.nodes[job->in[slot]].weight)
                value = v;
        PyList_SET_ITEM(gradients, slot, bytes_of(job, value));
    }
    for (int i = 0; gradients && names && i < job->graph.num_ops; i++)
        PyList_SET_ITEM(names, i, PyUnicode_FromString(mg_op_info_of(job->graph.ops[i].shape.kind)->name));
    return Py_BuildValue("(NN)", gradients, names);
}

static void job_free(struct job *job) {
    for (mg_value v = 0; job->block && v < job->graph.num_nodes; v++)
        block_free(&job->block[v], &job->context);
    mg_free(job->block);
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        PyBuffer_Release(&job->view[slot]);
    PyBuffer_Release(&job->seed);
    if (job->opened)
        job->context.backend->close(&job->context);
    mg_graph_free(&job->graph);
    mg_weights_close(&job->weights);
    mg_free(job);
}

static PyObject *run_gradient(PyObject *self, PyObject *args) {
    (void)self;
    const char *backend, *isa, *name, *precision = "float32";
    PyObject *params, *inputs, *seed, *result = NULL;
    int threads;
    float start = 0.0f;
    struct job *job;
    if (!PyArg_ParseTuple(args, "szisO!O!O|fs", &backend, &isa, &threads, &name, &PyDict_Type, &params, &PyList_Type,
                          &inputs, &seed, &start, &precision))
        return NULL;
    if (mg_alloc_zeroed((void **)&job, sizeof *job, "a job", NULL))
        return PyErr_NoMemory();
    job->name = name;
    job->start = start;
    job->mixed = !strcmp(precision, "mixed");
    job->activations = !strcmp(precision, "float32") ? MG_F32 : !strcmp(precision, "float16") ? MG_F16 : MG_BF16;
    job->context.num_threads = threads;
    mg_graph_init(&job->graph, &job->weights, &job->err);
    job->weights.trained = true;
    bool taken = PyList_GET_SIZE(inputs) <= MG_MAX_INPUTS && take(seed, &job->seed);
    if (taken && mg_backend_find(&job->context.backend, backend, &job->err)) {
        mg_test_raise(&job->err);
        taken = false;
    }
    job->graph.fuses_attention_gradient = taken && job->context.backend->fuses_attention_gradient;
    for (Py_ssize_t i = 0; taken && i < PyList_GET_SIZE(inputs); i++)
        taken = take(PyList_GET_ITEM(inputs, i), &job->view[i]);
    if (taken && record(job, params, 0)) {
        if (run_all(job, isa))
            mg_test_raise(&job->err);
        else
            result = result_of(job);
    }
    job_free(job);
    return result;
}

/* ---- the decoder of a checkpoint, through a plan ---- */
static mg_status decode_gradient(float *out, struct mg_pipeline *p, const float *z, const float *seed,
                                 const int64_t *dim, bool recompute, struct mg_err *err) {
    struct mg_graph graph;
    struct mg_plan *plan;
    mg_value gradient;
    mg_graph_init(&graph, &p->vae_weights, err);
    mg_value input = mg_graph_input(&graph, "z", dim[0], dim[1], dim[2], dim[3]);
    mg_value image = mg_autoencoder_decode_build(&graph, &p->vae, mg_op_nchw_to_nhwc(&graph, input));
    image = mg_op_nhwc_to_nchw(&graph, image);
    mg_graph_backward(&graph, image, mg_graph_seed(&graph, "seed", image), &input, 1, &gradient, recompute);
    mg_graph_output(&graph, "gradient", gradient);
    MG_TRY(mg_plan_create(&plan, &graph, &p->context, err));
    mg_status status = mg_plan_run_forward(plan, &(struct mg_binding){"z", (void *)z}, 1, NULL, 0, err);
    if (status == MG_OK)
        status = mg_plan_run_backward(plan, &(struct mg_binding){"seed", (void *)seed}, 1,
                                      &(struct mg_binding){"gradient", out}, 1, err);
    mg_plan_destroy(plan);
    return status;
}

static PyObject *decoder_gradient(PyObject *self, PyObject *args) {
    (void)self;
    struct mg_pipeline_params params;
    struct mg_err *err;
    mg_pipeline *pipeline = NULL;
    Py_buffer z, seed;
    long long n, c, h, w;
    int recompute;
    mg_pipeline_params_init(&params);
    if (!PyArg_ParseTuple(args, "szzziy*y*(LLLL)p", &params.folder, &params.vae, &params.device, &params.isa,
                          &params.num_threads, &z, &seed, &n, &c, &h, &w, &recompute))
        return NULL;
    PyObject *result = PyBytes_FromStringAndSize(NULL, z.len);
    const int64_t dim[] = {n, c, h, w};
    if (mg_alloc((void **)&err, sizeof *err, "an error", NULL))
        Py_CLEAR(result);
    else if (result && (mg_pipeline_open(&pipeline, &params, err) ||
                        decode_gradient((float *)(void *)PyBytes_AS_STRING(result), pipeline, z.buf, seed.buf, dim,
                                        recompute, err))) {
        mg_test_raise(err);
        Py_CLEAR(result);
    }
    mg_pipeline_close(pipeline);
    mg_free(err);
    PyBuffer_Release(&z);
    PyBuffer_Release(&seed);
    return result;
}

PyMethodDef mg_test_gradient_methods[] = {
    {"decoder_gradient", decoder_gradient, METH_VARARGS,
     "decoder_gradient(folder, other vae, device, isa, threads, z, seed, shape of z, recompute) -> bytes of the "
     "gradient "
     "of z"},
    {"run_gradient", run_gradient, METH_VARARGS,
     "run_gradient(backend, isa, threads, name, params, inputs, seed, start=0, precision=\"float32\") -> (bytes of "
     "the gradient of each input, or None; names of the operations that ran); gradients of weights are added to "
     "`start`; precision: float32, float16, bfloat16, mixed (bfloat16 but for the keys and values of attention)"},
    {NULL, NULL, 0, NULL},
};
