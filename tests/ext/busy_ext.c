/* busy_ext.c: what functions of marigold.h return for handles that another call is working on, for tests/test_busy.py. The
 * second call is made by the poll callback, in the middle of the first. */
#include "test_ext.h"

enum { SIDE = 64, LATENT = 8 };

struct handles {
    mg_pipeline *pipeline;
    mg_generator *generator;
    mg_scheduler *scheduler;
    mg_trainer *trainer;
    float *numbers;  /* room for whatever the functions write */
    PyObject *found; /* what they returned, by name; NULL: not asked yet */
};

/* ---- the functions ---- */
static mg_status randn(struct handles *h, struct mg_err *err) {
    return mg_generator_randn(h->generator, h->numbers, 1, err);
}
static mg_status uniform(struct handles *h, struct mg_err *err) {
    return mg_generator_rand(h->generator, h->numbers, 1, err);
}
static mg_status randint(struct handles *h, struct mg_err *err) {
    return mg_generator_randint(h->generator, (int64_t *)h->numbers, 1, 9, err);
}
static mg_status seed(struct handles *h, struct mg_err *err) { return mg_generator_seed(h->generator, 1, err); }
static mg_status get_state(struct handles *h, struct mg_err *err) {
    return mg_generator_get_state(h->generator, (uint8_t *)h->numbers, err);
}
static mg_status set_state(struct handles *h, struct mg_err *err) {
    mg_generator *other;
    MG_TRY(mg_generator_create(&other, 1, err));
    mg_status status = mg_generator_get_state(other, (uint8_t *)h->numbers, err);
    mg_generator_destroy(other);
    return status == MG_OK ? mg_generator_set_state(h->generator, (uint8_t *)h->numbers, err) : status;
}
static mg_status noise(struct handles *h, struct mg_err *err) {
    const float strength = 0.5f;
    return mg_multi_resolution_noise(h->numbers, 1, 1, LATENT, LATENT, &strength, h->generator, err);
}
static mg_status set_timesteps(struct handles *h, struct mg_err *err) {
    return mg_scheduler_set_timesteps(h->scheduler, 1, err);
}
static mg_status coefficients(struct handles *h, struct mg_err *err) {
    struct mg_step_coefficients k;
    return mg_scheduler_step_coefficients(&k, h->scheduler, 0, &(struct mg_step_options){0}, err);
}
static mg_status decode(struct handles *h, struct mg_err *err) {
    memset(h->numbers, 0, 4 * sizeof(float));
    return mg_pipeline_vae_decode(h->numbers + 4, h->pipeline, h->numbers, 1, 1, 1, err);
}
static mg_status read_value(struct handles *h, struct mg_err *err) {
    return mg_trainer_read(h->numbers, h->trainer, 0, MG_PART_VALUE, err);
}
static mg_status write_value(struct handles *h, struct mg_err *err) {
    return mg_trainer_write(h->trainer, 0, MG_PART_GRADIENT, h->numbers, err);
}
static mg_status clear(struct handles *h, struct mg_err *err) { return mg_trainer_clear_gradients(h->trainer, err); }
static mg_status set_steps(struct handles *h, struct mg_err *err) { return mg_trainer_set_steps(h->trainer, 0, err); }
static mg_status follow(struct handles *h, struct mg_err *err) { return mg_trainer_follow_gradients(h->trainer, err); }
static mg_status step(struct handles *h, struct mg_err *err) {
    double norm;
    return mg_trainer_step(&norm, h->trainer, 0.0, err);
}

struct function {
    const char *name;
    mg_status (*call)(struct handles *h, struct mg_err *err);
};
static const struct function of_runs[] = {{"generator_randn", randn},
                                          {"generator_rand", uniform},
                                          {"generator_randint", randint},
                                          {"generator_seed", seed},
                                          {"generator_get_state", get_state},
                                          {"generator_set_state", set_state},
                                          {"multi_resolution_noise", noise},
                                          {"scheduler_set_timesteps", set_timesteps},
                                          {"scheduler_step_coefficients", coefficients},
                                          {"pipeline_vae_decode", decode},
                                          {NULL, NULL}};
static const struct function of_trainers[] = {{"trainer_read", read_value},
                                              {"trainer_write", write_value},
                                              {"trainer_clear_gradients", clear},
                                              {"trainer_set_steps", set_steps},
                                              {"trainer_follow_gradients", follow},
                                              {"trainer_step", step},
                                              {NULL, NULL}};

/* Needs the GIL. */
static PyObject *ask(struct handles *h) {
    static struct mg_err err;
    PyObject *found = PyDict_New();
    for (const struct function *f = h->trainer ? of_trainers : of_runs; found && f->name; f++) {
        PyObject *status = PyLong_FromLong(f->call(h, &err));
        if (!status || PyDict_SetItemString(found, f->name, status) < 0)
            Py_CLEAR(found);
        Py_XDECREF(status);
    }
    return found;
}

/* Within a run or a backward pass; also called while the handles are still being made. */
static int poll(void *user) {
    struct handles *h = user;
    if ((h->generator || h->trainer) && !h->found)
        h->found = ask(h);
    return PyErr_Occurred() != NULL;
}

/* ---- the calls that are under way meanwhile ---- */
static mg_status run(struct handles *h, const struct mg_pipeline_params *params, struct mg_err *err) {
    static const char config[] = "{\"clip_sample\": false}";
    static const uint8_t pixels[SIDE * SIDE];
    mg_generator *generators[2];
    struct mg_run_params run_params;
    struct mg_result result;
    mg_scheduler *scheduler;
    MG_TRY(mg_pipeline_open(&h->pipeline, params, err));
    MG_TRY(mg_scheduler_create(&scheduler, config, sizeof config - 1, err));
    h->scheduler = scheduler;
    MG_TRY(mg_generator_create(&h->generator, 1, err));
    generators[0] = generators[1] = h->generator; /* one may be given twice */
    mg_run_params_init(&run_params);
    run_params.image = (struct mg_image){.data = pixels, .type = MG_PIXEL_U8, .n = 2, .h = SIDE / 2, .w = SIDE, .c = 1};
    run_params.num_inference_steps = 2;
    run_params.generators = generators;
    run_params.num_generators = 2;
    run_params.scheduler = scheduler;
    MG_TRY(mg_pipeline_run(&result, h->pipeline, &run_params, err));
    mg_result_free(&result);
    return MG_OK;
}

static mg_status learn(struct handles *h, const struct mg_pipeline_params *pipeline, struct mg_err *err) {
    static const float latent[4 * LATENT * LATENT];
    static const int64_t timesteps[1] = {500};
    struct mg_trainer_params params;
    struct mg_training_batch batch = {.image_latent = latent,
                                      .target_latent = latent,
                                      .noise = latent,
                                      .timesteps = timesteps,
                                      .n = 1,
                                      .h = LATENT,
                                      .w = LATENT,
                                      .weight = 1.0};
    double loss;
    mg_trainer_params_init(&params);
    params.pipeline.folder = pipeline->folder;
    params.pipeline.task = pipeline->task;
    params.pipeline.poll = pipeline->poll;
    params.pipeline.poll_user = pipeline->poll_user;
    MG_TRY(mg_trainer_open(&h->trainer, &params, err));
    return mg_trainer_forward_backward(&loss, h->trainer, &batch, err);
}

static PyObject *busy_handles(PyObject *self, PyObject *args) {
    (void)self;
    struct handles h = {0};
    struct mg_pipeline_params params;
    struct mg_err err;
    int trains;
    PyObject *result = NULL;
    mg_pipeline_params_init(&params);
    if (!PyArg_ParseTuple(args, "sp:busy_handles", &params.folder, &trains))
        return NULL;
    params.task = "depth";
    params.poll = poll;
    params.poll_user = &h;
    mg_status status = mg_alloc((void **)&h.numbers, 1 << 20, "numbers", &err);
    if (status == MG_OK)
        status = (trains ? learn : run)(&h, &params, &err);
    if (status == MG_OK && h.found)
        result = Py_BuildValue("ON", h.found, ask(&h));
    else if (!PyErr_Occurred())
        mg_test_raise(&err);
    Py_XDECREF(h.found);
    mg_generator_destroy(h.generator);
    mg_scheduler_destroy(h.scheduler);
    mg_trainer_close(h.trainer);
    mg_pipeline_close(h.pipeline);
    mg_free(h.numbers);
    return result;
}

/* ---- how often opening asks whether to stop ---- */
static int count_poll(void *user) {
    ++*(int *)user;
    return 0;
}

static PyObject *polls_of_opening(PyObject *self, PyObject *args) {
    (void)self;
    mg_trainer *trainer;
    struct mg_trainer_params params;
    struct mg_err err;
    int polls = 0;
    mg_trainer_params_init(&params);
    params.pipeline.task = "depth";
    params.pipeline.poll = count_poll;
    params.pipeline.poll_user = &polls;
    if (!PyArg_ParseTuple(args, "s:polls_of_opening", &params.pipeline.folder))
        return NULL;
    if (mg_trainer_open(&trainer, &params, &err) != MG_OK)
        return mg_test_raise(&err);
    const int parameters = mg_trainer_num_parameters(trainer);
    mg_trainer_close(trainer);
    return Py_BuildValue("ii", polls, parameters);
}

PyMethodDef mg_test_busy_methods[] = {
    {"polls_of_opening", polls_of_opening, METH_VARARGS,
     "polls_of_opening(folder): calls of poll while a trainer is opened, and its parameters."},
    {"busy_handles", busy_handles, METH_VARARGS,
     "busy_handles(folder, trains): statuses by name of function: while a run, or a trainer's pass, works on the "
     "handles; and "
     "afterwards."},
    {NULL, NULL, 0, NULL},
};
