/* fuzz_json.c: any text as JSON. */
#include "../../csrc/io/json.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct mg_err err;
    struct mg_arena arena = {0};
    const struct mg_json *value = NULL;
    const mg_status status = mg_json_parse(&value, &arena, (const char *)data, size, "input.json", &err);
    fuzz_check(status, &err);
    if (!status)
        fuzz_walk(value);
    mg_arena_free(&arena);
    return 0;
}
