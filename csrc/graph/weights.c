/* weights.c: declares, checks and binds the parameters of one network. Calls io/checkpoint and the packing of backend/.
 * Not thread-safe: a network belongs to one pipeline. */
#include "weights.h"

#include <stdio.h>
#include <string.h>

mg_status mg_weights_open(struct mg_weights *out, const char *component, const char *folder, const char *variant,
                          struct mg_err *err) {
    memset(out, 0, sizeof *out);
    out->component = component;
    mg_arena_init(&out->arena);
    return mg_checkpoint_open(&out->checkpoint, folder, variant, err);
}

mg_status mg_weights_open_packed(struct mg_weights *out, const char *component, const struct mg_packed_file *file,
                                 struct mg_err *err) {
    memset(out, 0, sizeof *out);
    out->component = component;
    mg_arena_init(&out->arena);
    return mg_packed_component(&out->checkpoint, file, component, err);
}

void mg_weights_close(struct mg_weights *weights) {
    for (size_t i = 0; i < weights->count; i++)
        if (weights->list[i].packed && weights->list[i].packed != weights->list[i].master)
            mg_context_free(weights->context, weights->list[i].packed);
    if (weights->masters)
        mg_context_free(weights->context, weights->masters);
    if (weights->gradients)
        mg_context_free(weights->context, weights->gradients);
    mg_free(weights->list);
    mg_arena_free(&weights->arena);
    mg_checkpoint_close(&weights->checkpoint);
    memset(weights, 0, sizeof *weights);
}

static const struct mg_stored_tensor *find_stored(const struct mg_weights *weights, const char *key) {
    if (!weights->checkpoint.stored.count)
        return NULL;
    const struct mg_stored_tensor *found = mg_checkpoint_find(&weights->checkpoint, key);
    char alias[512];
    for (int n = 0; !found && weights->alias && weights->alias(alias, sizeof alias, key, n); n++)
        found = mg_checkpoint_find(&weights->checkpoint, alias);
    return found;
}

/* Older files keep a linear weight (K, C) as a 1x1 convolution (K, C, 1, 1), and the reverse: the same memory. */
static bool same_but_for_ones(const struct mg_tensor *shape, const struct mg_stored_tensor *stored) {
    int common = shape->ndim < stored->ndim ? shape->ndim : stored->ndim;
    for (int d = 0; d < common; d++)
        if (shape->dim[d] != stored->dim[d])
            return false;
    for (int d = common; d < shape->ndim; d++)
        if (shape->dim[d] != 1)
            return false;
    for (int d = common; d < stored->ndim; d++)
        if (stored->dim[d] != 1)
            return false;
    return common > 0;
}

static bool has_shape(const struct mg_stored_tensor *stored, const struct mg_tensor *shape) {
    return stored->ndim == shape->ndim && !memcmp(stored->dim, shape->dim, (size_t)shape->ndim * sizeof *shape->dim);
}

static bool can_be_repeated(const struct mg_weights *weights, const struct mg_weight *weight) {
    const struct mg_stored_tensor *stored = weight->stored;
    if (!weights->may_repeat || !weights->may_repeat(weight->key) || !stored || stored->layout ||
        stored->stored_dtype < 0 || stored->ndim != weight->shape.ndim)
        return false;
    for (int d = 0; d < stored->ndim; d++)
        if (stored->dim[d] < 1 ||
            (d < 2 ? weight->shape.dim[d] % stored->dim[d] : weight->shape.dim[d] - stored->dim[d]))
            return false;
    return true;
}

static mg_status grow(struct mg_weights *weights, struct mg_err *err) {
    if (weights->count < weights->capacity)
        return MG_OK;
    size_t capacity = weights->capacity ? weights->capacity * 2 : 256;
    void *list;
    MG_TRY(mg_alloc(&list, capacity * sizeof *weights->list, "the list of weights", err));
    if (weights->count)
        memcpy(list, weights->list, weights->count * sizeof *weights->list);
    mg_free(weights->list);
    weights->list = list;
    weights->capacity = capacity;
    return MG_OK;
}

mg_status mg_weights_declare(int *index, struct mg_weights *weights, const char *key, int ndim, const int64_t *dim,
                             struct mg_err *err) {
    struct mg_tensor shape = {.dtype = MG_F32, .ndim = ndim};
    memcpy(shape.dim, dim, (size_t)ndim * sizeof *dim);
    MG_TRY(mg_tensor_check(&shape, key, err));
    for (size_t i = 0; i < weights->count; i++) {
        if (strcmp(weights->list[i].key, key))
            continue;
        if (!mg_tensor_same_shape(&weights->list[i].shape, &shape))
            return mg_fail(err, MG_ERR_ARGUMENT, "weight \"%s\" is declared twice with different shapes", key);
        *index = (int)i;
        return MG_OK;
    }
    MG_TRY(grow(weights, err));
    struct mg_weight *weight = &weights->list[weights->count];
    *weight = (struct mg_weight){.shape = shape, .key = mg_arena_strdup(&weights->arena, key, strlen(key))};
    if (!weight->key)
        return mg_fail(err, MG_ERR_MEMORY, "no memory for the weight key \"%s\"", key);
    weight->stored = find_stored(weights, key);
    weight->misshapen = weight->stored && !(weight->stored->layout ? has_shape(weight->stored, &shape)
                                                                   : weight->stored->stored_dtype >= 0 &&
                                                                         same_but_for_ones(&shape, weight->stored));
    weight->repeated = weight->misshapen && can_be_repeated(weights, weight);
    weight->misshapen = weight->misshapen && !weight->repeated;
    weights->parameters += mg_tensor_count(&shape);
    *index = (int)weights->count++;
    return MG_OK;
}

/* ---- the report: counts first, then as many names as the message holds ---- */
struct report {
    char text[MG_ERR_MESSAGE_BYTES - 1024];
    size_t length;
    size_t missing, misshapen, unused;
};

static void report_line(struct report *report, const char *format, ...) MG_PRINTF(2, 3);
static void report_line(struct report *report, const char *format, ...) {
    size_t room = sizeof report->text - report->length;
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(report->text + report->length, room, format, arguments);
    va_end(arguments);
    if (added > 0 && (size_t)added < room)
        report->length += (size_t)added;
    else
        report->text[report->length] = '\0';
}

static bool is_declared(const struct mg_weights *weights, const struct mg_stored_tensor *stored) {
    for (size_t i = 0; i < weights->count; i++)
        if (weights->list[i].stored == stored)
            return true;
    return false;
}

static void report_declared(struct report *report, const struct mg_weights *weights) {
    char wanted[MG_SHAPE_TEXT], found[MG_SHAPE_TEXT];
    for (size_t i = 0; i < weights->count; i++) {
        const struct mg_weight *weight = &weights->list[i];
        mg_shape_text(wanted, weight->shape.ndim, weight->shape.dim);
        if (!weight->stored) {
            report->missing++;
            report_line(report, "\n  missing: %s %s", weight->key, wanted);
        } else if (weight->misshapen) {
            report->misshapen++;
            report_line(report, "\n  misshapen: %s is %s %s, the configuration asks for %s", weight->key,
                        weight->stored->dtype_text, mg_shape_text(found, weight->stored->ndim, weight->stored->dim),
                        wanted);
        }
    }
}

/* A packed weight must be as long as its layout says, or kernels would read beyond it. */
static mg_status check_packed(const struct mg_weights *weights, const struct mg_weight *weight, struct mg_err *err) {
    const struct mg_stored_tensor *stored = weight->stored;
    struct mg_weight_layout layout;
    if (!mg_layout_read(&layout, stored->layout))
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: tensor \"%s.%s\" is in the unknown layout \"%.60s\"",
                       weights->checkpoint.folder, weights->component, weight->key, stored->layout);
    const size_t bytes = mg_packed_bytes(layout, &weight->shape);
    if (stored->bytes < bytes || stored->bytes - bytes >= MG_SAFETENSORS_ALIGNMENT)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: tensor \"%s.%s\" has %zu bytes; its shape in layout %s has %zu",
                       weights->checkpoint.folder, weights->component, weight->key, stored->bytes, stored->layout,
                       bytes);
    return MG_OK;
}

mg_status mg_weights_check(const struct mg_weights *weights, struct mg_err *err) {
    struct report *report;
    for (size_t i = 0; i < weights->count; i++) {
        const struct mg_weight *weight = &weights->list[i];
        if (weight->stored && weight->stored->layout && !weight->misshapen)
            MG_TRY(check_packed(weights, weight, err));
    }
    MG_TRY(mg_alloc_zeroed((void **)&report, sizeof *report, "a report on weights", err));
    report_declared(report, weights);
    for (size_t i = 0; i < weights->checkpoint.stored.count; i++) {
        const struct mg_stored_tensor *stored = &weights->checkpoint.stored.list[i];
        if (is_declared(weights, stored) || (weights->may_ignore && weights->may_ignore(stored->key)))
            continue;
        report->unused++;
        report_line(report, "\n  unused: %s", stored->key);
    }
    mg_status status = MG_OK;
    if (report->missing || report->misshapen || report->unused)
        status = mg_fail(err, MG_ERR_CHECKPOINT,
                         "%s: the weights in %s do not fit its config.json: %zu missing, %zu misshapen, %zu unused%s",
                         weights->component, weights->checkpoint.folder, report->missing, report->misshapen,
                         report->unused, report->text);
    mg_free(report);
    return status;
}

mg_status mg_weights_choose(struct mg_weights *weights, int index, struct mg_weight_layout layout, struct mg_err *err) {
    struct mg_weight *weight = &weights->list[index];
    if (weight->has_layout && !mg_same_layout(weight->layout, layout))
        return mg_fail(err, MG_ERR_UNSUPPORTED, "weight \"%s\" is wanted in two layouts", weight->key);
    weight->layout = layout;
    weight->has_layout = true;
    return MG_OK;
}

size_t mg_weights_packed_bytes(const struct mg_weights *weights, int index) {
    return mg_packed_bytes(weights->list[index].layout, &weights->list[index].shape);
}

/* Whether the file has the weight in this layout. */
static bool is_in_place(const struct mg_weight *weight, struct mg_weight_layout layout) {
    struct mg_weight_layout stored;
    if (weight->repeated)
        return false;
    if (weight->stored->layout)
        return mg_layout_read(&stored, weight->stored->layout) && mg_same_layout(stored, layout);
    const bool aligned = ((uintptr_t)weight->stored->data & (sizeof(float) - 1)) == 0;
    return !layout.panel && weight->stored->stored_dtype == MG_F32 && aligned;
}

/* Of the stored weight (K0, C0, ...): element (k, c) is (k % K0, c % C0), divided by C / C0. */
static mg_status pack_repeated(void *out, const struct mg_weight *weight, struct mg_weight_layout layout,
                               int num_threads, struct mg_err *err) {
    const struct mg_stored_tensor *stored = weight->stored;
    const int64_t window = weight->shape.ndim > 2 ? weight->shape.dim[2] * weight->shape.dim[3] : 1;
    const int64_t k0 = stored->dim[0], c0 = stored->ndim > 1 ? stored->dim[1] : 1;
    const int64_t k = weight->shape.dim[0], c = stored->ndim > 1 ? weight->shape.dim[1] : 1;
    const float share = 1.0f / (float)(c / c0);
    float *one = NULL, *all = NULL;
    mg_status status;
    MG_TRY_GOTO(mg_alloc((void **)&one, (size_t)(k0 * c0 * window) * sizeof *one, weight->key, err));
    MG_TRY_GOTO(mg_alloc((void **)&all, mg_tensor_bytes(&weight->shape), weight->key, err));
    mg_convert_to_f32(one, stored->data, (mg_dtype)stored->stored_dtype, (size_t)(k0 * c0 * window));
    for (int64_t i = 0; i < k * c * window; i++)
        all[i] = share * one[((i / (c * window) % k0) * c0 + i / window % c % c0) * window + i % window];
    mg_pack_weight(out, layout, &weight->shape, all, MG_F32, num_threads);
done:
    mg_free(one);
    mg_free(all);
    return status;
}

/* From the file into any layout. */
static mg_status pack(void *out, const struct mg_weights *weights, int index, struct mg_weight_layout layout,
                      int num_threads, struct mg_err *err) {
    const struct mg_weight *weight = &weights->list[index];
    struct mg_weight_layout stored = {0};
    if (weight->repeated)
        return pack_repeated(out, weight, layout, num_threads, err);
    if (weight->stored->layout && !mg_layout_read(&stored, weight->stored->layout))
        return mg_fail(err, MG_ERR_CHECKPOINT, "weight \"%s\" is in the unknown layout \"%.60s\"", weight->key,
                       weight->stored->layout);
    if (!weight->stored->layout)
        mg_pack_weight(out, layout, &weight->shape, weight->stored->data, (mg_dtype)weight->stored->stored_dtype,
                       num_threads);
    else if (mg_same_layout(layout, stored))
        memcpy(out, weight->stored->data, mg_packed_bytes(layout, &weight->shape));
    else
        mg_repack_weight(out, layout, &weight->shape, weight->stored->data, stored, num_threads);
    mg_checkpoint_release(&weights->checkpoint, weight->stored);
    return MG_OK;
}

mg_status mg_weights_pack(void *out, const struct mg_weights *weights, int index, int num_threads, struct mg_err *err) {
    return pack(out, weights, index, weights->list[index].layout, num_threads, err);
}

mg_status mg_weights_unpack(float *out, const struct mg_weights *weights, int index, int num_threads,
                            struct mg_err *err) {
    return pack(out, weights, index, (struct mg_weight_layout){0}, num_threads, err);
}

/* From the file into memory where the operations of the context work. For a device the mapping itself is read where it has the
 * layout wanted. */
static mg_status fill(void *out, const struct mg_weights *weights, int index, struct mg_weight_layout layout,
                      const struct mg_context *context, struct mg_err *err) {
    const struct mg_weight *weight = &weights->list[index];
    const size_t bytes = mg_packed_bytes(layout, &weight->shape);
    void *packed = NULL;
    mg_status status;
    if (!context->memory)
        return pack(out, weights, index, layout, context->num_threads, err);
    if (!is_in_place(weight, layout)) {
        MG_TRY_GOTO(mg_alloc(&packed, bytes, weight->key, err));
        MG_TRY_GOTO(pack(packed, weights, index, layout, context->num_threads, err));
    }
    MG_TRY_GOTO(mg_context_upload(context, out, packed ? packed : weight->stored->data, bytes, err));
    mg_checkpoint_release(&weights->checkpoint, weight->stored);
done:
    mg_free(packed);
    return status;
}

struct mg_weight_layout mg_weights_master_layout(const struct mg_weights *weights, int index) {
    const struct mg_weight_layout layout = weights->list[index].layout;
    const bool is_rounded = layout.panel && layout.dtype != MG_F32;
    return is_rounded ? (struct mg_weight_layout){.panel = layout.panel, .group = 1, .dtype = MG_F32} : layout;
}

size_t mg_weights_master_bytes(const struct mg_weights *weights, int index) {
    return mg_packed_bytes(mg_weights_master_layout(weights, index), &weights->list[index].shape);
}

static bool changes(const struct mg_weights *weights) { return weights->trained || weights->moving; }

/* The blocks of masters and of gradients. */
static mg_status allocate_masters(struct mg_weights *weights, struct mg_context *context, struct mg_err *err) {
    size_t total = 0, next = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const size_t bytes = weights->list[i].has_layout ? mg_weights_master_bytes(weights, (int)i) : 0;
        if (bytes > SIZE_MAX / 2 - total)
            return mg_fail(err, MG_ERR_MEMORY, "gradients cannot be addressed");
        total += mg_aligned(bytes);
    }
    MG_TRY(mg_context_alloc((void **)&weights->masters, context, total, "weights", err));
    MG_TRY(mg_context_clear(context, weights->masters, total, err));
    if (weights->trained && !weights->passes_gradients) {
        MG_TRY(mg_context_alloc((void **)&weights->gradients, context, total, "gradients", err));
        MG_TRY(mg_context_clear(context, weights->gradients, total, err));
        context->training += total;
    }
    weights->block_count = (int64_t)(total / sizeof(float));
    for (size_t i = weights->count; i-- > 0;)
        if (weights->list[i].has_layout) {
            weights->list[i].master = weights->masters + next;
            weights->list[i].gradient = weights->gradients ? weights->gradients + next : NULL;
            next += mg_aligned(mg_weights_master_bytes(weights, (int)i)) / sizeof(float);
        }
    return MG_OK;
}

void mg_weights_follow_master(const struct mg_weights *weights, int index) {
    const struct mg_weight *weight = &weights->list[index];
    const struct mg_context *context = weights->context;
    if (weight->packed == weight->master)
        return;
    if (context->backend->round_weight)
        context->backend->round_weight(context, weight->packed, weight->layout, &weight->shape, weight->master);
    else
        mg_repack_weight(weight->packed, weight->layout, &weight->shape, weight->master,
                         mg_weights_master_layout(weights, index), context->num_threads);
}

/* The master, and what operations read of it. */
static mg_status bind_changing(struct mg_weights *weights, int index, struct mg_context *context, size_t bytes,
                               struct mg_err *err) {
    struct mg_weight *weight = &weights->list[index];
    const struct mg_weight_layout layout = mg_weights_master_layout(weights, index);
    MG_TRY(fill(weight->master, weights, index, layout, context, err));
    context->weights_packed += bytes;
    if (mg_same_layout(layout, weight->layout)) {
        weight->packed = weight->master;
    } else {
        context->training += mg_weights_master_bytes(weights, index);
        MG_TRY(mg_context_alloc(&weight->packed, context, bytes, weight->key, err));
        mg_weights_follow_master(weights, index);
        if (context->backend->finish)
            MG_TRY(context->backend->finish(context, err));
    }
    weight->ready = weight->packed;
    return MG_OK;
}

mg_status mg_weights_bind(struct mg_weights *weights, int index, struct mg_context *context, struct mg_err *err) {
    struct mg_weight *weight = &weights->list[index];
    if (weight->ready)
        return MG_OK;
    if (!weight->stored || weight->misshapen)
        return mg_fail(err, MG_ERR_CHECKPOINT, "weight \"%s\" is missing or misshapen", weight->key);
    const size_t bytes = mg_weights_packed_bytes(weights, index);
    if (bytes == SIZE_MAX)
        return mg_fail(err, MG_ERR_MEMORY, "weight \"%s\" cannot be addressed", weight->key);
    weights->context = context;
    MG_TRY(mg_context_poll(context, err)); /* all together they may take seconds */
    if (changes(weights) && !weights->masters)
        MG_TRY(allocate_masters(weights, context, err));
    if (changes(weights) && !weight->master)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "the layout of weight \"%s\" was chosen after others were bound",
                       weight->key);
    if (changes(weights)) {
        MG_TRY(bind_changing(weights, index, context, bytes, err));
    } else if (!context->memory && is_in_place(weight, weight->layout)) {
        weight->ready = weight->stored->data;
        context->weights_mapped += bytes;
    } else {
        if (!weight->packed)
            MG_TRY(mg_context_alloc(&weight->packed, context, bytes, weight->key, err));
        MG_TRY(fill(weight->packed, weights, index, weight->layout, context, err));
        weight->ready = weight->packed;
        context->weights_packed += bytes;
    }
    mg_context_note_peak(context);
    return MG_OK;
}

size_t mg_weights_unbound_bytes(const struct mg_weights *weights, const struct mg_context *context) {
    size_t sum = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const struct mg_weight *weight = &weights->list[i];
        if (weight->has_layout && !weight->ready && (context->memory || !is_in_place(weight, weight->layout)))
            sum += mg_weights_packed_bytes(weights, (int)i);
    }
    return sum;
}

void mg_weights_release(const struct mg_weights *weights) {
    for (size_t i = 0; i < weights->count; i++)
        if (weights->list[i].ready && !weights->list[i].packed)
            mg_checkpoint_release(&weights->checkpoint, weights->list[i].stored);
}
