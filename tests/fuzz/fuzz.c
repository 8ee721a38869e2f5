/* fuzz.c: see fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../csrc/io/json.h"

enum { LENGTH_BYTES = 8 };

static void require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "fuzz: %s\n", what);
        abort();
    }
}

const char *fuzz_file(const uint8_t *data, size_t size) {
    static int handle = -1;
    static char path[64];
    if (handle < 0)
        handle = memfd_create("input", MFD_CLOEXEC);
    require(handle >= 0 && !ftruncate(handle, 0) && !ftruncate(handle, (off_t)size), "no memory for a file");
    require(pwrite(handle, data, size, 0) == (ssize_t)size, "a file that is not written");
    snprintf(path, sizeof path, "/proc/self/fd/%d", handle);
    return path;
}

void fuzz_walk(const struct mg_json *value) {
    char text[80];
    require(strlen(mg_json_text(text, sizeof text, value)) < sizeof text, "a text longer than its buffer");
    if (value->type == MG_JSON_STRING)
        require(value->string[value->length] == '\0', "a string without an end");
    for (size_t i = 0; (value->type == MG_JSON_ARRAY || value->type == MG_JSON_OBJECT) && i < value->length; i++) {
        if (value->type == MG_JSON_OBJECT)
            require(mg_json_get(value, value->keys[i]) != NULL, "a key that is not found");
        fuzz_walk(&value->children[i]);
    }
}

void fuzz_check(mg_status status, const struct mg_err *err) {
    if (status) {
        require(memchr(err->message, '\0', sizeof err->message) != NULL, "a message without an end");
        require(err->message[0] != '\0', "a failure without a message");
    }
}

static uint64_t header_length(const uint8_t *data, size_t size) {
    uint64_t length = 0;
    if (size < LENGTH_BYTES)
        return 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)data[i] << 8 * i;
    return length <= size - LENGTH_BYTES ? length : 0;
}

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* The number that begins at `at` becomes another everywhere in the text: a size that is written in two places stays the same in
 * both. Returns the new length. */
static size_t replace_number(uint8_t *text, size_t length, size_t room, size_t at, const char *other) {
    size_t digits = 0, out = 0;
    const size_t added = strlen(other);
    uint8_t *changed = malloc(room);
    require(changed != NULL, "no memory for a mutation");
    while (at + digits < length && is_digit(text[at + digits]))
        digits++;
    for (size_t i = 0; i < length;) {
        const bool begins = is_digit(text[i]) && (!i || !is_digit(text[i - 1]));
        const bool same = begins && i + digits <= length && !memcmp(text + i, text + at, digits) &&
                          (i + digits == length || !is_digit(text[i + digits]));
        const size_t bytes = same ? added : 1;
        if (out + bytes > room)
            break;
        memcpy(changed + out, same ? (const uint8_t *)other : text + i, bytes);
        out += bytes;
        i += same ? digits : 1;
    }
    memcpy(text, changed, out);
    free(changed);
    return out;
}

static size_t mutate_number(uint8_t *text, size_t length, size_t room, unsigned seed) {
    static const char *const others[] = {
        "0", "1", "7", "64", "4097", "8000", "30000", "4294967297", "9223372036854775807"};
    for (size_t i = 0; i < length; i++) {
        const size_t at = (seed / 64 + i) % length;
        if (is_digit(text[at]) && (!at || !is_digit(text[at - 1])))
            return replace_number(text, length, room, at, others[seed / 8 % (sizeof others / sizeof *others)]);
    }
    return LLVMFuzzerMutate(text, length, room);
}

size_t fuzz_mutate_header(uint8_t *data, size_t size, size_t largest, unsigned seed) {
    const uint64_t length = header_length(data, size);
    if (!length || seed % 4 == 0)
        return LLVMFuzzerMutate(data, size, largest);
    const size_t rest = size - LENGTH_BYTES - (size_t)length, room = largest - LENGTH_BYTES - rest;
    uint8_t *header = malloc(room), *tail = malloc(rest + 1);
    require(header && tail, "no memory for a mutation");
    memcpy(header, data + LENGTH_BYTES, (size_t)length);
    memcpy(tail, data + LENGTH_BYTES + length, rest);
    const size_t changed = seed % 4 == 1 ? mutate_number(header, (size_t)length, room, seed)
                                         : LLVMFuzzerMutate(header, (size_t)length, room);
    for (int i = 0; i < LENGTH_BYTES; i++)
        data[i] = (uint8_t)((uint64_t)changed >> 8 * i);
    memcpy(data + LENGTH_BYTES, header, changed);
    memcpy(data + LENGTH_BYTES + changed, tail, rest);
    free(header);
    free(tail);
    return LENGTH_BYTES + changed + rest;
}
