/* checkpoint_private.h: what checkpoint.c and safetensors.c share. */
#ifndef MG_CHECKPOINT_PRIVATE_H
#define MG_CHECKPOINT_PRIVATE_H
#include "checkpoint.h"

/* Room for `more` further tensors. */
mg_status mg_checkpoint_reserve(struct mg_checkpoint *checkpoint, size_t more, struct mg_err *err);
#endif
