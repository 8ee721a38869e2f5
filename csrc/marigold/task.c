/* task.c: the table of tasks. A new kind of map is a row here and, if its post-processing is new, an operation. */
#include <string.h>

#include "pipeline.h"

static const struct mg_task tasks[] = {
    {.name = "depth",
     .class_name = "MarigoldDepthPipeline",
     .prediction_channels = 1,
     .num_targets = 1,
     .head = mg_op_depth_head},
};

const struct mg_task *mg_task_find(const char *class_name, const char **known) {
    if (known)
        *known = "MarigoldDepthPipeline";
    for (size_t i = 0; i < sizeof tasks / sizeof tasks[0]; i++)
        if (!strcmp(tasks[i].class_name, class_name))
            return &tasks[i];
    return NULL;
}
