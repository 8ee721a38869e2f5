/* fuzz_tokenizer.c: any bytes as the files of a tokenizer. A line of '#' parts the input into vocab.json,
 * tokenizer_config.json and special_tokens_map.json; what is empty is not there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../csrc/nn/nn.h"
#include "fuzz.h"

static const char *const names[] = {"vocab.json", "tokenizer_config.json", "special_tokens_map.json"};
enum { FILES = 3, WORDS = 1000, TOKENS = 4 };

static const char *folder(void) {
    static char path[] = "/dev/shm/fuzz_tokenizer_XXXXXX";
    static bool made;
    if (!made && !mkdtemp(path))
        abort();
    made = true;
    return path;
}

static void place(const char *name, const uint8_t *data, size_t size) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    unlink(path);
    FILE *file = size ? fopen(path, "wb") : NULL;
    if (file) {
        fwrite(data, 1, size, file);
        fclose(file);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct mg_err err;
    const struct mg_clip_config config = {.vocabulary = WORDS};
    int64_t ids[TOKENS] = {0};
    for (int i = 0; i < FILES; i++) {
        const uint8_t *end = i + 1 < FILES ? memchr(data, '#', size) : NULL;
        const size_t length = end ? (size_t)(end - data) : size;
        place(names[i], data, length);
        data += length + (end != NULL);
        size -= length + (end != NULL);
    }
    const mg_status status = mg_clip_empty_prompt(ids, TOKENS, folder(), &config, &err);
    fuzz_check(status, &err);
    for (int i = 0; !status && i < TOKENS; i++)
        if (ids[i] < 0 || ids[i] >= WORDS)
            abort();
    return 0;
}
