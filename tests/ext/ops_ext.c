/* ops_ext.c: runs one operation on one backend, for tests/test_ops.py, and times it, for benchmarks/ops.py.
 *
 * The shape of the output comes from the real builder, in a scratch graph; the backend is then called as the executor
 * calls it, but on memory that shows mistakes: outputs and scratch start as NaN, every block is fenced, and inputs must
 * come back unchanged. */
#include <string.h>
#include <time.h>

#include "../../csrc/graph/graph.h"
#include "test_ext.h"

static int dtype_of(const char *name) {
    int dtype = 0;
    while (dtype < MG_DTYPE_COUNT && strcmp(mg_dtype_name((mg_dtype)dtype), name))
        dtype++;
    return dtype;
}

/* ---- fenced memory ---- */
enum { FENCE = 4 * MG_ALIGNMENT, FENCE_BYTE = 0xff }; /* as floats: NaN, so that a read past the end shows as well */

struct block {
    unsigned char *memory;
    void *device; /* NULL, or the same, fences included, in the memory of the backend's device */
    size_t bytes;
};

static mg_status block_create(struct block *block, size_t bytes, const char *what, struct mg_err *err) {
    void *memory;
    block->bytes = bytes;
    MG_TRY(mg_alloc(&memory, bytes + 2 * FENCE, what, err));
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
    *block = (struct block){0};
}

static mg_status block_check(const struct block *block, const char *what, struct mg_err *err) {
    for (size_t i = 0; block->memory && i < FENCE; i++)
        if (block->memory[i] != FENCE_BYTE || block->memory[FENCE + block->bytes + i] != FENCE_BYTE)
            return mg_fail(err, MG_ERR_BUSY, "%s was written outside its %zu bytes, %zu bytes from the %s", what,
                           block->bytes, block->memory[i] != FENCE_BYTE ? FENCE - i : i,
                           block->memory[i] != FENCE_BYTE ? "begin" : "end");
    return MG_OK;
}

/* ---- one run ---- */
enum { MAX_REPEATS = 64 };

struct run {
    struct mg_err *err;
    struct mg_graph graph;
    struct mg_weights weights;
    struct mg_context context;
    bool opened;
    bool half, mixed;   /* activations are of two bytes; but for the keys and values of attention */
    mg_dtype half_type; /* which */
    mg_op_kind kind;
    Py_buffer view[MG_MAX_INPUTS]; /* obj NULL: the slot is empty */
    mg_value in[MG_MAX_INPUTS];
    struct block input[MG_MAX_INPUTS], out, workspace;
    int repeats;                 /* how often the operation runs */
    double seconds[MAX_REPEATS]; /* of each */
};

static mg_status kind_of(mg_op_kind *kind, const char *name, struct mg_err *err) {
    for (int i = 0; i < MG_OP_COUNT; i++)
        if (!strcmp(mg_op_info_of((mg_op_kind)i)->name, name)) {
            *kind = (mg_op_kind)i;
            return MG_OK;
        }
    return mg_fail(err, MG_ERR_ARGUMENT, "no operation is called \"%s\"", name);
}

static bool is_weight(mg_op_kind kind, int slot, int ndim) {
    return ndim == 1 || ((kind == MG_OP_CONV2D || kind == MG_OP_LINEAR) && slot == 1) ||
           (kind == MG_OP_TOKEN_EMBEDDING && slot > 0);
}

/* ---- parameters: a dict of exactly the names of the builder ---- */
typedef mg_value build_fn(struct run *run, PyObject *params);

static bool parse(PyObject *params, const char *format, char **names, ...) {
    PyObject *nothing = PyTuple_New(0);
    if (!nothing)
        return false;
    va_list arguments;
    va_start(arguments, names);
    int parsed = PyArg_VaParseTupleAndKeywords(nothing, params, format, names, arguments);
    va_end(arguments);
    Py_DECREF(nothing);
    return parsed;
}
#define NAMES(...)                                                                                                     \
    (char *[]) { __VA_ARGS__, NULL }

static mg_value build_conv2d(struct run *run, PyObject *params) {
    struct mg_conv2d p = {.stride = 1};
    long long h = 0, w = 0;
    int relu = 0;
    if (!parse(params, "|iiiiiLLp",
               NAMES("stride", "pad_top", "pad_left", "pad_bottom", "pad_right", "upsampled_h", "upsampled_w", "relu"),
               &p.stride, &p.pad_top, &p.pad_left, &p.pad_bottom, &p.pad_right, &h, &w, &relu))
        return MG_NONE;
    p.relu = relu;
    p.upsampled_h = h;
    p.upsampled_w = w;
    return mg_op_conv2d(&run->graph, run->in[0], run->in[1], run->in[2], run->in[3], run->in[4], &p);
}

static mg_value build_linear(struct run *run, PyObject *params) {
    int activation = MG_ACT_NONE, few_rows = 0;
    if (!parse(params, "|ip", NAMES("activation", "few_rows"), &activation, &few_rows))
        return MG_NONE;
    return mg_op_linear(&run->graph, run->in[0], run->in[1], run->in[2], run->in[3],
                        &(struct mg_linear){.activation = (mg_activation)activation, .few_rows = few_rows});
}

static mg_value build_groupnorm(struct run *run, PyObject *params) {
    int groups, silu = 0;
    float epsilon;
    if (!parse(params, "if|p", NAMES("groups", "epsilon", "silu"), &groups, &epsilon, &silu))
        return MG_NONE;
    return mg_op_groupnorm(&run->graph, run->in[0], run->in[1], run->in[2], groups, epsilon, silu);
}

static mg_value build_layernorm(struct run *run, PyObject *params) {
    float epsilon;
    if (!parse(params, "f", NAMES("epsilon"), &epsilon))
        return MG_NONE;
    return mg_op_layernorm(&run->graph, run->in[0], run->in[1], run->in[2], epsilon);
}

static mg_value build_attention(struct run *run, PyObject *params) {
    int heads, causal = 0;
    if (!parse(params, "i|p", NAMES("heads", "causal"), &heads, &causal))
        return MG_NONE;
    return mg_op_attention(&run->graph, run->in[0], run->in[1], run->in[2], heads, causal);
}

static mg_value build_geglu(struct run *run, PyObject *params) {
    return parse(params, "", (char *[]){NULL}) ? mg_op_geglu(&run->graph, run->in[0]) : MG_NONE;
}

static mg_value build_activation(struct run *run, PyObject *params) {
    int activation;
    if (!parse(params, "i", NAMES("activation"), &activation))
        return MG_NONE;
    return mg_op_activation(&run->graph, run->in[0], (mg_activation)activation);
}

static mg_value build_concat(struct run *run, PyObject *params) {
    return parse(params, "", (char *[]){NULL}) ? mg_op_concat(&run->graph, run->in[0], run->in[1]) : MG_NONE;
}

static mg_value build_channel_slice(struct run *run, PyObject *params) {
    long long begin, count;
    if (!parse(params, "LL", NAMES("begin", "count"), &begin, &count))
        return MG_NONE;
    return mg_op_channel_slice(&run->graph, run->in[0], begin, count);
}

static mg_value build_scale(struct run *run, PyObject *params) {
    float factor, offset = 0.0f;
    if (!parse(params, "f|f", NAMES("factor", "offset"), &factor, &offset))
        return MG_NONE;
    return mg_op_affine(&run->graph, run->in[0], factor, offset);
}

static mg_value build_cast(struct run *run, PyObject *params) {
    const char *name;
    if (!parse(params, "s", NAMES("dtype"), &name))
        return MG_NONE;
    const mg_dtype dtype = (mg_dtype)dtype_of(name);
    run->graph.nodes[run->in[0]].tensor.dtype = dtype == MG_F32 ? MG_BF16 : MG_F32;
    return mg_op_cast(&run->graph, run->in[0], dtype);
}

static mg_value build_add(struct run *run, PyObject *params) {
    return parse(params, "", (char *[]){NULL}) ? mg_op_add(&run->graph, run->in[0], run->in[1]) : MG_NONE;
}

static mg_value build_time_embedding(struct run *run, PyObject *params) {
    long long channels;
    int flip;
    struct mg_time_embedding p = {0};
    if (!parse(params, "Lpff", NAMES("channels", "flip_sin_to_cos", "frequency_shift", "max_period"), &channels, &flip,
               &p.frequency_shift, &p.max_period))
        return MG_NONE;
    p.channels = channels;
    p.flip_sin_to_cos = flip;
    return mg_op_time_embedding(&run->graph, run->in[0], &p);
}

static mg_value build_token_embedding(struct run *run, PyObject *params) {
    if (!parse(params, "", (char *[]){NULL}))
        return MG_NONE;
    return mg_op_token_embedding(&run->graph, run->in[0], run->in[1], run->in[2]);
}

static mg_value build_nchw_to_nhwc(struct run *run, PyObject *params) {
    return parse(params, "", (char *[]){NULL}) ? mg_op_nchw_to_nhwc(&run->graph, run->in[0]) : MG_NONE;
}

static mg_value build_nhwc_to_nchw(struct run *run, PyObject *params) {
    return parse(params, "", (char *[]){NULL}) ? mg_op_nhwc_to_nchw(&run->graph, run->in[0]) : MG_NONE;
}

/* Gradients are recorded by the tape and run by gradient_ext.c. */
static build_fn *const builders[MG_OP_COUNT] = {
#define MG_OP(ID, name, inputs, required, alias, meaning) [MG_OP_##ID] = build_##name,
#define MG_GRADIENT_OP(ID, name, inputs, required, alias, meaning) [MG_OP_##ID] = NULL,
#include "../../csrc/op/ops.def"
#undef MG_OP
};

mg_value mg_test_build_op(struct mg_graph *graph, const char *name, const mg_value *in, PyObject *params) {
    struct run *run;
    mg_value out = MG_NONE;
    if (mg_alloc_zeroed((void **)&run, sizeof *run, "a run", graph->err))
        return MG_NONE;
    run->graph = *graph;
    run->err = graph->err;
    memcpy(run->in, in, sizeof run->in);
    if (kind_of(&run->kind, name, graph->err) == MG_OK && builders[run->kind])
        out = builders[run->kind](run, params);
    *graph = run->graph;
    mg_free(run);
    return out;
}

bool mg_test_is_weight(const char *name, int slot, int ndim) {
    mg_op_kind kind = MG_OP_COUNT;
    return kind_of(&kind, name, NULL) == MG_OK && is_weight(kind, slot, ndim);
}

/* ---- the scratch graph ---- */

/* The float32 array given for this slot is an activation in bfloat16. */
static bool is_half(const struct run *run, int slot) {
    if (!run->half || (run->kind == MG_OP_CONV2D && slot == 4))
        return false;
    return !(run->mixed && run->kind == MG_OP_ATTENTION && slot > 0);
}

static bool take_inputs(struct run *run, PyObject *inputs) {
    Py_ssize_t count = PySequence_Size(inputs);
    if (count < 0)
        return false;
    if (count > mg_op_info_of(run->kind)->inputs) {
        PyErr_Format(PyExc_ValueError, "%s has %d inputs", mg_op_info_of(run->kind)->name,
                     mg_op_info_of(run->kind)->inputs);
        return false;
    }
    for (Py_ssize_t slot = 0; slot < count; slot++) {
        PyObject *item = PySequence_GetItem(inputs, slot);
        if (!item)
            return false;
        bool failed =
            item != Py_None && PyObject_GetBuffer(item, &run->view[slot], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0;
        Py_DECREF(item);
        if (failed)
            return false;
        const Py_buffer *view = &run->view[slot];
        if (view->obj && (strcmp(view->format, "f") || view->ndim < 1 || view->ndim > MG_MAX_DIMS)) {
            PyErr_Format(PyExc_ValueError, "input %zd must be float32 of 1 to 4 dimensions", slot);
            return false;
        }
    }
    return true;
}

static void declare_inputs(struct run *run) {
    static const char *const names[MG_MAX_INPUTS] = {"in0", "in1", "in2", "in3", "in4"};
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        const Py_buffer *view = &run->view[slot];
        int64_t dim[MG_MAX_DIMS] = {0};
        run->in[slot] = MG_NONE;
        if (!view->obj)
            continue;
        for (int d = 0; d < view->ndim; d++)
            dim[d] = view->shape[d];
        if (is_weight(run->kind, slot, view->ndim))
            run->in[slot] = mg_graph_weight(&run->graph, names[slot], view->ndim, dim);
        else if (view->ndim == 4) {
            run->in[slot] = mg_graph_input(&run->graph, names[slot], dim[0], dim[1], dim[2], dim[3]);
            if (run->in[slot] != MG_NONE && is_half(run, slot))
                run->graph.nodes[run->in[slot]].tensor.dtype = run->half_type;
        } else
            mg_graph_fail(&run->graph, MG_ERR_ARGUMENT, "input %d must have 4 dimensions", slot);
    }
}

/* ---- the call, as the executor makes it ---- */
static mg_status prepare_input(struct run *run, const struct mg_op_shape *op, int slot) {
    const Py_buffer *view = &run->view[slot];
    struct mg_weight_layout layout = {0};
    size_t bytes = mg_tensor_bytes(&op->in[slot]);
    if (run->graph.nodes[run->in[slot]].role == MG_ROLE_WEIGHT)
        layout = run->context.backend->weight_layout(&run->context, op, slot);
    if (run->graph.nodes[run->in[slot]].role == MG_ROLE_WEIGHT)
        bytes = mg_packed_bytes(layout, &op->in[slot]);
    MG_TRY(block_create(&run->input[slot], bytes, "an input", run->err));
    if (run->graph.nodes[run->in[slot]].role == MG_ROLE_WEIGHT)
        mg_pack_weight(block_data(&run->input[slot]), layout, &op->in[slot], view->buf, MG_F32, 1);
    else
        mg_convert_from_f32(block_data(&run->input[slot]), op->in[slot].dtype, view->buf,
                            (size_t)mg_tensor_count(&op->in[slot]));
    return block_check(&run->input[slot], "a packed weight", run->err);
}

/* An input counts as changed by a write that any later reader would see. */
static mg_status check_input(struct run *run, const struct mg_op_shape *op, int slot) {
    struct block before = run->input[slot];
    run->input[slot] = (struct block){0};
    mg_status status = block_download(&before, &run->context, run->err);
    if (status == MG_OK)
        status = block_check(&before, "an input", run->err);
    if (status == MG_OK)
        status = prepare_input(run, op, slot);
    if (status == MG_OK && memcmp(block_data(&before), block_data(&run->input[slot]), before.bytes))
        status = mg_fail(run->err, MG_ERR_BUSY, "%s changed its input %d", mg_op_info_of(op->kind)->name, slot);
    block_free(&before, &run->context);
    return status;
}

static mg_status run_repeatedly(struct run *run, const struct mg_op_call *call) {
    const struct mg_backend *backend = run->context.backend;
    for (int i = 0; i < run->repeats; i++) {
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        backend->run(&run->context, call);
        if (backend->finish)
            MG_TRY(backend->finish(&run->context, run->err));
        clock_gettime(CLOCK_MONOTONIC, &end);
        run->seconds[i] = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9;
    }
    return MG_OK;
}

/* `alias` of run_op: the output begins in the memory of input 0, a gap before it. */
enum { FOLLOW = -2 };

static mg_status call_backend(struct run *run, const struct mg_op_shape *op, int alias) {
    struct mg_op_call call = {.op = op};
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        if (run->in[slot] != MG_NONE) {
            MG_TRY(prepare_input(run, op, slot));
            MG_TRY(block_upload(&run->input[slot], &run->context, run->err));
            call.in[slot] = block_address(&run->input[slot]);
        }
    size_t gap = 0;
    if (alias == FOLLOW) {
        gap = run->context.backend->trailing_gap ? run->context.backend->trailing_gap(&run->context, op) : 0;
        if (!gap)
            return mg_fail(run->err, MG_ERR_ARGUMENT, "the output of %s may not follow upon its input here",
                           mg_op_info_of(op->kind)->name);
    }
    MG_TRY(block_create(&run->out, gap ? gap + mg_tensor_bytes(&op->in[0]) : mg_tensor_bytes(&op->out), "the output",
                        run->err));
    if (alias >= 0)
        memcpy(block_data(&run->out), block_data(&run->input[alias]), run->out.bytes);
    MG_TRY(block_upload(&run->out, &run->context, run->err));
    call.out = block_address(&run->out);
    if (gap)
        call.in[0] = memcpy((char *)call.out + gap, call.in[0], mg_tensor_bytes(&op->in[0]));
    if (alias >= 0)
        call.in[alias] = call.out;
    size_t workspace_bytes = run->context.backend->workspace_bytes(&run->context, op);
    if (workspace_bytes == SIZE_MAX)
        return mg_fail(run->err, MG_ERR_MEMORY, "the workspace is too large");
    if (workspace_bytes)
        MG_TRY(block_create(&run->workspace, workspace_bytes, "the workspace", run->err));
    MG_TRY(block_upload(&run->workspace, &run->context, run->err));
    call.workspace = block_address(&run->workspace);
    MG_TRY(run_repeatedly(run, &call));
    MG_TRY(block_download(&run->out, &run->context, run->err));
    MG_TRY(block_download(&run->workspace, &run->context, run->err));
    MG_TRY(block_check(&run->out, "the output", run->err));
    MG_TRY(block_check(&run->workspace, "the workspace", run->err));
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++)
        if (run->in[slot] != MG_NONE)
            MG_TRY(check_input(run, op, slot));
    return MG_OK;
}

static mg_status check_alias(const struct run *run, const struct mg_op_shape *op, int alias) {
    if (alias < 0)
        return MG_OK;
    if (alias >= MG_MAX_INPUTS || !(mg_op_info_of(op->kind)->alias >> alias & 1) || run->in[alias] == MG_NONE ||
        !mg_tensor_same_kind(&op->in[alias], &op->out))
        return mg_fail(run->err, MG_ERR_ARGUMENT, "the output of %s may not take over input %d here",
                       mg_op_info_of(op->kind)->name, alias);
    return MG_OK;
}

static PyObject *result_of(const struct run *run, const struct mg_op_shape *op) {
    const size_t count = (size_t)mg_tensor_count(&op->out);
    PyObject *values = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * sizeof(float)));
    if (!values)
        return NULL;
    mg_convert_to_f32((float *)(void *)PyBytes_AS_STRING(values), block_data(&run->out), op->out.dtype, count);
    return Py_BuildValue("((LLLL)N)", (long long)op->out.dim[0], (long long)op->out.dim[1], (long long)op->out.dim[2],
                         (long long)op->out.dim[3], values);
}

static PyObject *build_and_call(struct run *run, const char *backend, const char *isa, PyObject *params, int alias) {
    declare_inputs(run);
    mg_value out = builders[run->kind](run, params);
    if (PyErr_Occurred())
        return NULL;
    if (mg_graph_failed(&run->graph) || out == MG_NONE)
        return mg_test_raise(run->err);
    const struct mg_op_shape *op = &run->graph.ops[run->graph.num_ops - 1].shape;
    if (check_alias(run, op, alias) || mg_backend_find(&run->context.backend, backend, run->err) ||
        run->context.backend->open(&run->context, isa, run->err))
        return mg_test_raise(run->err);
    run->opened = true;
    if (call_backend(run, op, alias))
        return mg_test_raise(run->err);
    return result_of(run, op);
}

static void run_free(struct run *run) {
    for (int slot = 0; slot < MG_MAX_INPUTS; slot++) {
        block_free(&run->input[slot], &run->context);
        PyBuffer_Release(&run->view[slot]);
    }
    block_free(&run->out, &run->context);
    block_free(&run->workspace, &run->context);
    if (run->opened)
        run->context.backend->close(&run->context);
    mg_graph_free(&run->graph);
    mg_weights_close(&run->weights);
    mg_free(run->err);
    mg_free(run);
}

/* ---- the functions ---- */
static PyObject *seconds_of(const struct run *run) {
    PyObject *list = PyList_New(run->repeats);
    for (int i = 0; list && i < run->repeats; i++) {
        PyObject *value = PyFloat_FromDouble(run->seconds[i]);
        if (!value)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, value);
    }
    return list;
}

/* run_op or time_op. */
static PyObject *operate(PyObject *args, const char *format, bool timed) {
    const char *backend, *isa, *name;
    const char *precision = "float32";
    int threads, last = timed ? 1 : -1; /* repeats, or the input whose memory the output takes over */
    PyObject *params, *inputs, *result = NULL;
    if (!PyArg_ParseTuple(args, format, &backend, &isa, &threads, &name, &PyDict_Type, &params, &inputs, &last,
                          &precision))
        return NULL;
    if (timed && (last < 1 || last > MAX_REPEATS))
        return PyErr_Format(PyExc_ValueError, "%d repeats; allowed: 1 to %d", last, MAX_REPEATS);
    struct run *run;
    if (mg_alloc_zeroed((void **)&run, sizeof *run, "a run", NULL))
        return PyErr_NoMemory();
    run->context.num_threads = threads;
    run->repeats = timed ? last : 1;
    if (mg_alloc_zeroed((void **)&run->err, sizeof *run->err, "an error", NULL)) {
        mg_free(run);
        return PyErr_NoMemory();
    }
    mg_graph_init(&run->graph, &run->weights, run->err);
    run->half = strcmp(precision, "float32") != 0;
    run->mixed = !strcmp(precision, "mixed");
    run->half_type = !strcmp(precision, "float16") ? MG_F16 : MG_BF16;
    run->graph.precision.weights = !strcmp(precision, "int8") ? MG_I8 : MG_BF16;
    if (kind_of(&run->kind, name, run->err))
        mg_test_raise(run->err);
    else if (!builders[run->kind])
        PyErr_Format(PyExc_ValueError, "%s is recorded by the tape only", name);
    else if (take_inputs(run, inputs))
        result = build_and_call(run, backend, isa, params, timed ? -1 : last);
    if (result && timed)
        Py_SETREF(result, seconds_of(run));
    run_free(run);
    return result;
}

static PyObject *run_op(PyObject *self, PyObject *args) {
    (void)self;
    return operate(args, "szisO!O|is:run_op", false);
}

static PyObject *time_op(PyObject *self, PyObject *args) {
    (void)self;
    return operate(args, "szisO!Ois:time_op", true);
}

static PyObject *op_table(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    PyObject *table = PyDict_New();
    for (int i = 0; table && i < MG_OP_COUNT; i++) {
        const struct mg_op_info *info = mg_op_info_of((mg_op_kind)i);
        PyObject *row = Py_BuildValue("{s:i,s:I,s:I,s:O}", "inputs", info->inputs, "required", info->required, "alias",
                                      info->alias, "is_gradient", info->is_gradient ? Py_True : Py_False);
        if (!row || PyDict_SetItemString(table, info->name, row))
            Py_CLEAR(table);
        Py_XDECREF(row);
    }
    return table;
}

static PyObject *isas(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    PyObject *list = PyList_New(0);
    const char *name;
    for (int i = 0; list && (name = mg_isa(i)); i++) {
        PyObject *text = PyUnicode_FromString(name);
        if (!text || PyList_Append(list, text))
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

static PyObject *pack_weight(PyObject *self, PyObject *args) {
    (void)self;
    Py_buffer source;
    const char *dtype_name;
    const char *packed_name;
    struct mg_weight_layout layout;
    int offset, num_threads;
    long long k, c, r, s;
    if (!PyArg_ParseTuple(args, "y*isiis(LLLL)i", &source, &offset, &dtype_name, &layout.panel, &layout.group,
                          &packed_name, &k, &c, &r, &s, &num_threads))
        return NULL;
    const int dtype = dtype_of(dtype_name), packed = dtype_of(packed_name);
    layout.dtype = (mg_dtype)packed;
    struct mg_tensor shape = {.dtype = MG_F32, .ndim = 4, .dim = {k, c, r, s}};
    PyObject *result = NULL;
    if (dtype == MG_DTYPE_COUNT || packed == MG_DTYPE_COUNT || offset < 0 ||
        (size_t)source.len < (size_t)offset + (size_t)mg_tensor_count(&shape) * mg_dtype_bytes((mg_dtype)dtype))
        PyErr_SetString(PyExc_ValueError, "unknown type, or the source is too short");
    else if ((result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)mg_packed_bytes(layout, &shape))))
        mg_pack_weight(PyBytes_AS_STRING(result), layout, &shape, (const char *)source.buf + offset, (mg_dtype)dtype,
                       num_threads);
    PyBuffer_Release(&source);
    return result;
}

PyMethodDef mg_test_ops_methods[] = {
    {"run_op", run_op, METH_VARARGS,
     "run_op(backend, isa, threads, name, params, inputs, alias=-1, precision=\"float32\") -> (shape, bytes of "
     "float32); "
     "alias -2: the output follows upon input 0; precision: float32, float16, bfloat16, int8 (weights), mixed "
     "(bfloat16 but for "
     "keys and values)"},
    {"time_op", time_op, METH_VARARGS,
     "time_op(backend, isa, threads, name, params, inputs, repeats, precision) -> seconds of each"},
    {"op_table", op_table, METH_NOARGS, "{name: {inputs, required, alias, is_gradient}} from ops.def"},
    {"isas", isas, METH_NOARGS, "instruction sets of this processor, simplest first"},
    {"pack_weight", pack_weight, METH_VARARGS,
     "pack_weight(source, offset, dtype, columns of a panel or 0, channels of a group, packed dtype, (K, C, R, S), "
     "threads)"
     " -> bytes"},
    {NULL, NULL, 0, NULL},
};
