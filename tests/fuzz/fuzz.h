/* fuzz.h: what the harnesses share. Each is a program of libFuzzer (tools/fuzz.py builds and runs them): it hands bytes to a
 * reader of the engine and asks what it got. Whatever the bytes are, a reader fails with a status and a message, or gives
 * something that can be read to its end; memory and undefined behaviour are watched by the sanitizers. */
#ifndef MG_FUZZ_H
#define MG_FUZZ_H
#include <stddef.h>
#include <stdint.h>

#include "../../csrc/core/core.h"

struct mg_json;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t largest);

/* A path by which the bytes can be opened as a file until the next call. */
const char *fuzz_file(const uint8_t *data, size_t size);
/* Reads every value, key and character. */
void fuzz_walk(const struct mg_json *value);
/* Ends the process unless a failure has a class and a message that ends within its buffer. */
void fuzz_check(mg_status status, const struct mg_err *err);
/* A safetensors file's mutator: mostly the JSON header changes, and the length before it is made to fit again. */
size_t fuzz_mutate_header(uint8_t *data, size_t size, size_t largest, unsigned seed);
#endif
