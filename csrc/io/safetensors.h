/* safetensors.h: the reader of one safetensors file. Knows the list of stored tensors that it fills. */
#ifndef MG_SAFETENSORS_H
#define MG_SAFETENSORS_H
#include "stored_tensors.h"

/* Appends the tensors of the mapped file of that number; untrusted input. */
mg_status mg_safetensors_parse(struct mg_stored_tensors *into, int file, struct mg_err *err);
#endif
