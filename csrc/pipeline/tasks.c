/* tasks.c: the table of tasks. A new kind of map is a row here and, if its post-processing is new, a function in heads.c. */
#include <string.h>

#include "pipeline.h"

static mg_status depth_ensemble(float *out, float *uncertainty, const float *maps, int64_t members, int64_t channels,
                                int64_t h, int64_t w, const struct mg_ensemble_depth_params *params,
                                struct mg_err *err) {
    (void)channels;
    return mg_ensemble_depth(out, uncertainty, maps, members, h, w, params, err);
}

static mg_status normals_ensemble(float *out, float *uncertainty, const float *maps, int64_t members, int64_t channels,
                                  int64_t h, int64_t w, const struct mg_ensemble_depth_params *params,
                                  struct mg_err *err) {
    (void)channels;
    return mg_ensemble_normals(out, uncertainty, maps, members, h, w, params->reduction, params->num_threads, err);
}

static mg_status intrinsics_ensemble(float *out, float *uncertainty, const float *maps, int64_t members,
                                     int64_t channels, int64_t h, int64_t w,
                                     const struct mg_ensemble_depth_params *params, struct mg_err *err) {
    return mg_ensemble_intrinsics(out, uncertainty, maps, members, channels * h * w, params->reduction,
                                  params->num_threads, err);
}

static const struct mg_task tasks[] = {
    {.name = "depth",
     .class_names = {"MarigoldDepthPipeline", "MarigoldPipeline", "MarigoldDepthHRPipeline"},
     .prediction_channels = 1,
     .uncertainty_channels = 1,
     .num_targets = 1,
     .minimum = 0.0f,
     .reduction = MG_REDUCE_MEDIAN,
     .head = mg_depth_head,
     .ensemble = depth_ensemble},
    {.name = "normals",
     .class_names = {"MarigoldNormalsPipeline"},
     .prediction_channels = 3,
     .uncertainty_channels = 1,
     .num_targets = 1,
     .minimum = -1.0f,
     .are_directions = true,
     .reduction = MG_REDUCE_CLOSEST,
     .head = mg_normals_head,
     .ensemble = normals_ensemble},
    {.name = "intrinsics",
     .class_names = {"MarigoldIntrinsicsPipeline", "MarigoldIIDPipeline"},
     .prediction_channels = 3,
     .uncertainty_channels = 3,
     .num_targets = 0,
     .minimum = 0.0f,
     .reduction = MG_REDUCE_MEDIAN,
     .head = mg_intrinsics_head,
     .ensemble = intrinsics_ensemble},
};
enum { NUM_TASKS = sizeof tasks / sizeof tasks[0] };

const struct mg_task *mg_task_of_class(const char *class_name) {
    for (int i = 0; i < NUM_TASKS; i++)
        for (int name = 0; name < MG_TASK_CLASS_NAMES && tasks[i].class_names[name]; name++)
            if (!strcmp(tasks[i].class_names[name], class_name))
                return &tasks[i];
    return NULL;
}

const struct mg_task *mg_task_of_name(const char *name) {
    for (int i = 0; i < NUM_TASKS; i++)
        if (!strcmp(tasks[i].name, name))
            return &tasks[i];
    return NULL;
}

const char *mg_task_class_names(void) {
    return "MarigoldDepthPipeline, MarigoldDepthHRPipeline, MarigoldNormalsPipeline, MarigoldIntrinsicsPipeline";
}

const char *mg_task_names(void) { return "depth, normals, intrinsics"; }
