/* fuzz_packed.c: any bytes as a packed checkpoint. The header's own checksum is made right after a mutation, or nothing behind
 * it would ever be reached. */
#include <stdio.h>
#include <string.h>

#include "../../csrc/io/packed_file.h"
#include "../../csrc/io/packed_format.h"
#include "fuzz.h"

enum { LENGTH_BYTES = 8 };

static void sign(uint8_t *data, size_t size) {
    struct mg_crc32 crc;
    char digits[MG_PACKED_DIGITS + 1];
    uint64_t length = 0;
    const size_t before = strlen(MG_PACKED_BEGINNING);
    for (int i = 0; size >= LENGTH_BYTES && i < LENGTH_BYTES; i++)
        length |= (uint64_t)data[i] << 8 * i;
    char *header = (char *)data + LENGTH_BYTES;
    if (size < LENGTH_BYTES || length > size - LENGTH_BYTES || length < before + MG_PACKED_DIGITS ||
        memcmp(header, MG_PACKED_BEGINNING, before))
        return;
    mg_crc32_init(&crc);
    memcpy(header + before, MG_PACKED_NO_CHECKSUM, MG_PACKED_DIGITS);
    snprintf(digits, sizeof digits, "%08x", (unsigned)mg_crc32_add(&crc, 0, header, (size_t)length));
    memcpy(header + before, digits, MG_PACKED_DIGITS);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t largest, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t largest, unsigned seed) {
    const size_t changed = fuzz_mutate_header(data, size, largest, seed);
    if (seed % 16 != 5)
        sign(data, changed);
    return changed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const components[] = {"unet", "vae", "text_encoder", "no such one"};
    static struct mg_err err;
    struct mg_packed_file file = {0};
    const mg_status status = mg_packed_open(&file, fuzz_file(data, size), &err);
    fuzz_check(status, &err);
    for (size_t i = 0; !status && i < sizeof components / sizeof *components; i++) {
        struct mg_checkpoint part = {0};
        fuzz_check(mg_packed_component(&part, &file, components[i], &err), &err);
        mg_checkpoint_close(&part);
    }
    if (!status) {
        fuzz_walk(file.tensors.stored.metadata);
        fuzz_check(mg_packed_check(&file, NULL, NULL, &err), &err);
    }
    mg_packed_close(&file);
    return 0;
}
