/* fuzz_safetensors.c: any bytes as a safetensors file. Every tensor that is accepted is read to its last byte. */
#include "../../csrc/io/checkpoint.h"
#include "../../csrc/io/json.h"
#include "fuzz.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t largest, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t largest, unsigned seed) {
    return fuzz_mutate_header(data, size, largest, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct mg_err err;
    static volatile unsigned char read;
    struct mg_checkpoint checkpoint = {0};
    const mg_status status = mg_checkpoint_open_file(&checkpoint, fuzz_file(data, size), &err);
    fuzz_check(status, &err);
    for (size_t i = 0; !status && i < checkpoint.stored.count; i++) {
        const struct mg_stored_tensor *tensor = &checkpoint.stored.list[i];
        if (mg_checkpoint_find(&checkpoint, tensor->key) != tensor)
            __builtin_trap();
        /* What lies behind a mapping may be readable too: the sanitizers would not see it. */
        const struct mg_file *file = &checkpoint.stored.files[tensor->file];
        const unsigned char *data_end = (const unsigned char *)tensor->data + tensor->bytes;
        if ((const unsigned char *)tensor->data < file->data || data_end > file->data + file->bytes)
            __builtin_trap();
        for (size_t byte = 0; byte < tensor->bytes; byte++)
            read = ((const unsigned char *)tensor->data)[byte];
    }
    if (!status && checkpoint.stored.metadata)
        fuzz_walk(checkpoint.stored.metadata);
    (void)read;
    mg_checkpoint_close(&checkpoint);
    return 0;
}
