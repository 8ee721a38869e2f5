/* binding.h: what the files of the binding share. The binding carries arrays and errors between Python and marigold.h;
 * it knows that header, Python.h and NumPy, and nothing else of the engine. It keeps to Python's limited API of version 3.11
 * (Py_LIMITED_API, set by setup.py), so that one file serves all later versions. */
#ifndef MGPY_BINDING_H
#define MGPY_BINDING_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifndef NPY_NO_DEPRECATED_API
#define NPY_NO_DEPRECATED_API NPY_1_23_API_VERSION
#endif
#define PY_ARRAY_UNIQUE_SYMBOL mgpy_array_api
#ifndef MGPY_IMPORTS_NUMPY /* state.c alone holds NumPy's table */
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include <stdatomic.h>

#include "../include/marigold.h"

/* ---- state.c: one per interpreter ---- */
struct mgpy_state {
    PyObject *checkpoint_error, *device_error, *not_finite_error;
    PyTypeObject *generator_type, *scheduler_type, *pipeline_type, *trainer_type;
};
/* Without methods and slots, which module.c adds. */
extern struct PyModuleDef mgpy_module;
int mgpy_import_numpy(void);
/* The state of the module that made the type of `self`; NULL with an exception set. */
struct mgpy_state *mgpy_state_of(PyObject *self);

extern PyType_Spec mgpy_generator_spec, mgpy_scheduler_spec, mgpy_pipeline_spec, mgpy_trainer_spec;
/* autoencoder_trainer.c: a method of Trainer. */
PyObject *mgpy_trainer_reconstruct(PyObject *object, PyObject *args);
extern PyMethodDef mgpy_image_functions[], mgpy_ensemble_functions[], mgpy_evaluation_functions[],
    mgpy_machine_functions[], mgpy_declared_functions[];

/* ---- errors.c ---- */
/* Raises the exception of err->status unless one is set already; returns NULL. */
PyObject *mgpy_raise(const struct mgpy_state *state, const struct mg_err *err);

/* ---- arrays.c ---- */
/* `object` as float32, C-contiguous, with `ndim` axes, none of them empty; `layout` ("N, C, H, W") is for the message.
 * A new reference, or NULL with ValueError naming `name`. */
PyArrayObject *mgpy_float_array(PyObject *object, int ndim, const char *name, const char *layout);
/* `object` as a batch of images (N, H, W, C); `image` then points into the array returned, a new reference. */
PyArrayObject *mgpy_image_array(PyObject *object, struct mg_image *image);
PyArrayObject *mgpy_new_floats(int ndim, const npy_intp *shape);
/* Whether the array has this shape; else ValueError naming `name`. */
bool mgpy_check_shape(PyArrayObject *array, const int64_t *shape, const char *name);
float *mgpy_floats(PyArrayObject *array);
/* Gives a reference back; NULL is none. */
void mgpy_release(PyArrayObject *array);

/* ---- the three types ---- */
struct mgpy_generator {
    PyObject_HEAD mg_generator *handle;
    uint64_t seed;
};
/* `user` is the call that works on the object while the GIL is released; others are refused meanwhile. */
struct mgpy_scheduler {
    PyObject_HEAD mg_scheduler *handle;
    const void *user;
};

/* One call on a pipeline, from the release of the GIL to its return. */
struct mgpy_call {
    PyThreadState *thread; /* of the caller, while the GIL is released */
    int64_t next_poll_ns;
    PyObject *progress;    /* NULL or a callable, borrowed */
    bool raised;           /* a Python exception is set on `thread` */
    atomic_bool cancelled; /* by another thread */
};
struct mgpy_pipeline {
    PyObject_HEAD mg_pipeline *handle;
    struct mgpy_call *call; /* NULL: idle */
    const char *kind;       /* "pipeline" or "trainer" */
};
/* Calls on a trainer are calls on its pipeline, whose handle is not used. */
struct mgpy_trainer {
    struct mgpy_pipeline pipeline;
    mg_trainer *handle;
};

/* ---- calls.c: the GIL around a call on a pipeline ---- */
/* Releases the GIL; false with RuntimeError if the pipeline is in use. */
bool mgpy_call_begin(struct mgpy_pipeline *self, struct mgpy_call *call, PyObject *progress);
/* Takes the GIL back; false with an exception set if the call failed. Warns where free memory made the autoencoder work in tiles. */
bool mgpy_call_end(struct mgpy_pipeline *self, struct mgpy_call *call, mg_status status, const struct mg_err *err);
int mgpy_poll(void *user);
void mgpy_progress(void *user, int done, int total);
bool mgpy_refuse_busy(const void *user, const char *what);

/* ---- pipeline.c ---- */
PyObject *mgpy_memory_dict(const struct mg_memory_stats *m);

/* ---- arguments.c ---- */
/* NULL for None; false with an exception set: something else, or a scheduler in use. */
bool mgpy_take_scheduler(mg_scheduler **out, PyObject *object, const struct mgpy_state *state);
/* Marks a scheduler, or None, as in use by `user`, or as idle with NULL. */
void mgpy_mark_scheduler(PyObject *object, const void *user);
/* Of images of that size; resolution -1: the checkpoint's. False with an exception set. */
bool mgpy_take_geometry(struct mg_geometry *out, const struct mgpy_pipeline *self, int64_t h, int64_t w,
                        int64_t resolution, mg_preset preset, const struct mgpy_state *state);
/* The engine reads latents through a bare pointer: their shape is checked here. A new reference, or NULL with ValueError. */
PyArrayObject *mgpy_take_latents(PyObject *object, const char *name, int64_t n, int64_t channels,
                                 const struct mg_geometry *geometry);
/* A sequence of numbers as the dilations of snippets, in `list`; false with an exception set. */
bool mgpy_take_dilations(struct mg_snippets *snippets, int64_t list[MG_MAX_DILATIONS], PyObject *object);
/* A copy of `data` as an array; None for NULL. */
PyObject *mgpy_copied_array(const void *data, int ndim, const npy_intp *dims, int type);

/* ---- pipeline_run.c, completion.c, video.c, pipeline_pieces.c: methods of Pipeline ---- */
PyObject *mgpy_pipeline_encode(PyObject *self, PyObject *args);
PyObject *mgpy_pipeline_predict_video(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *mgpy_pipeline_run(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *mgpy_pipeline_complete(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *mgpy_pipeline_vae_encode(PyObject *self, PyObject *x);
PyObject *mgpy_pipeline_vae_decode(PyObject *self, PyObject *z);
PyObject *mgpy_pipeline_unet(PyObject *self, PyObject *args);
PyObject *mgpy_pipeline_empty_text_embedding(PyObject *self, PyObject *unused);

/* ---- declared.c: methods of Pipeline ---- */
PyObject *mgpy_pipeline_weights(PyObject *self, PyObject *args);
PyObject *mgpy_pipeline_read_weight(PyObject *self, PyObject *args);

#endif
