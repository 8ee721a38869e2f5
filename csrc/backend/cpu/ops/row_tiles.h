/* row_tiles.h: how products of many rows with a weight in panels are cut into tasks: tiles of rows of one image times groups of
 * panels. Borders depend on the shape of one image only. Private to backend/cpu/ops; used by direct.c and linear.c. */
#ifndef MG_ROW_TILES_H
#define MG_ROW_TILES_H
#include "../cpu.h"

enum {
    MG_ROW_TILE = 192,      /* rows of a task: a panel is read once for so many of them */
    MG_ROW_MULTIPLE = 12,   /* rows of the kernel's largest register tile */
    MG_GROUP_COLUMNS = 640, /* columns of a task: rows times columns of partial sums stay in the second-level cache */
    MG_DEPTH_CHUNK = 512,   /* rows of a panel that are multiplied at once: a chunk of a panel is 64 KiB */
    MG_LEAST_TASKS = 4      /* of one image, where there are columns enough: few threads share them evenly */
};

struct mg_row_tiles {
    int64_t rows, columns, panel, panels;
    int64_t tile, tiles;   /* rows of a tile, number of tiles */
    int64_t group, groups; /* panels of a group, number of groups */
};

static inline struct mg_row_tiles mg_row_tiles_of(int64_t rows, int64_t columns, int64_t panel) {
    struct mg_row_tiles t = {.rows = rows, .columns = columns, .panel = panel, .panels = mg_ceil_div(columns, panel)};
    t.tiles = mg_ceil_div(rows, MG_ROW_TILE);
    t.tile = mg_ceil_div(mg_ceil_div(rows, t.tiles), MG_ROW_MULTIPLE) * MG_ROW_MULTIPLE;
    t.tiles = mg_ceil_div(rows, t.tile);
    t.groups = mg_ceil_div(t.panels * panel, MG_GROUP_COLUMNS);
    if (t.tiles * t.groups < MG_LEAST_TASKS)
        t.groups = mg_ceil_div(MG_LEAST_TASKS, t.tiles);
    if (t.groups > t.panels)
        t.groups = t.panels;
    t.group = mg_ceil_div(t.panels, t.groups);
    t.groups = mg_ceil_div(t.panels, t.group);
    return t;
}

/* Task `index` of all images: groups outermost, so that the panels of one are read for all rows while they are in cache. */
struct mg_row_task {
    int64_t image, row, rows; /* first row within the image */
    int64_t panel, panels;    /* first panel */
    int64_t column, columns;  /* first column; without the padding of the last panel */
};

static inline struct mg_row_task mg_row_task_at(const struct mg_row_tiles *t, int64_t index, int64_t images) {
    struct mg_row_task task = {.panel = index / (images * t->tiles) * t->group};
    index %= images * t->tiles;
    task.image = index / t->tiles;
    task.row = index % t->tiles * t->tile;
    task.rows = t->rows - task.row < t->tile ? t->rows - task.row : t->tile;
    task.panels = t->panels - task.panel < t->group ? t->panels - task.panel : t->group;
    task.column = task.panel * t->panel;
    task.columns =
        t->columns - task.column < task.panels * t->panel ? t->columns - task.column : task.panels * t->panel;
    return task;
}

/* Floats of a task's partial sums. */
static inline size_t mg_row_product_floats(const struct mg_row_tiles *t) {
    return (size_t)(t->tile * t->group * t->panel);
}

/* A weight in panels, as the products read it. */
struct mg_row_weight {
    const struct mg_cpu_kernels *kernels;
    struct mg_weight_layout layout;
    struct mg_panels panels;
    const char *data;
};

static inline struct mg_row_weight mg_row_weight_of(const struct mg_context *context, const struct mg_op_shape *op,
                                                    const void *data) {
    struct mg_row_weight w = {
        .kernels = mg_cpu_kernels_of(context), .layout = mg_cpu_weight_layout(context, op, 1), .data = data};
    (void)mg_panels_of(&w.panels, w.layout, &op->in[1]); /* refused when the weight is bound, if not addressable */
    return w;
}

/* product = (begin ? product : 0) + the task's rows, elements begin .. begin+k of each, times the same rows of its panels.
 * rows: of the weight's element type (bytes around 128 for int8, whose products stay integers). */
static inline void mg_row_multiply(const struct mg_row_weight *w, const struct mg_row_task *task, int64_t group,
                                   const void *rows, int64_t ld, int64_t begin, int64_t k, float *product) {
    const int64_t panel = w->layout.panel, ldc = group * panel, bytes = (int64_t)mg_dtype_bytes(w->layout.dtype);
    const int64_t ldb = (int64_t)w->panels.panel_bytes / bytes;
    const void *b = w->data + (size_t)task->panel * w->panels.panel_bytes + begin * panel * bytes;
    if (w->layout.dtype == MG_BF16)
        w->kernels->product_bf16(task->rows, k, task->panels, rows, ld, b, ldb, product, ldc, begin > 0);
    else if (w->layout.dtype == MG_I8)
        w->kernels->product_u8i8(task->rows, k, task->panels, rows, ld, b, ldb, (int32_t *)product, ldc, begin > 0);
    else
        for (int64_t p = 0; p < task->panels; p++)
            w->kernels->product_f32(task->rows, k, rows, ld, (const float *)b + p * ldb, product + p * panel, ldc,
                                    begin > 0);
}
#endif
