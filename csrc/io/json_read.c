/* json_read.c: typed reads of parsed JSON, with messages that name file, key and value. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "json.h"

const struct mg_json *mg_json_get(const struct mg_json *object, const char *key) {
    if (!object || object->type != MG_JSON_OBJECT)
        return NULL;
    for (size_t i = 0; i < object->length; i++)
        if (!strcmp(object->keys[i], key))
            return &object->children[i];
    return NULL;
}

/* Appends formatted text, stopping at the end of the buffer. */
static void append(char *buffer, size_t bytes, size_t *length, const char *format, ...) MG_PRINTF(4, 5);
static void append(char *buffer, size_t bytes, size_t *length, const char *format, ...) {
    if (*length + 1 >= bytes)
        return;
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(buffer + *length, bytes - *length, format, arguments);
    va_end(arguments);
    *length += added > 0 ? (size_t)added : 0;
    if (*length >= bytes)
        *length = bytes - 1;
}

static void append_value(char *buffer, size_t bytes, size_t *length, const struct mg_json *value) {
    const bool object = value->type == MG_JSON_OBJECT;
    switch (value->type) {
    case MG_JSON_NULL:
        append(buffer, bytes, length, "null");
        return;
    case MG_JSON_BOOL:
        append(buffer, bytes, length, value->boolean ? "true" : "false");
        return;
    case MG_JSON_NUMBER:
        if (value->is_integer)
            append(buffer, bytes, length, "%lld", (long long)value->integer);
        else
            append(buffer, bytes, length, "%.10g", value->number);
        return;
    case MG_JSON_STRING:
        append(buffer, bytes, length, "\"%s\"", value->string);
        return;
    default:
        append(buffer, bytes, length, object ? "{" : "[");
        for (size_t i = 0; i < value->length && *length + 1 < bytes; i++) {
            append(buffer, bytes, length, "%s", i ? ", " : "");
            if (object)
                append(buffer, bytes, length, "\"%s\": ", value->keys[i]);
            append_value(buffer, bytes, length, &value->children[i]);
        }
        append(buffer, bytes, length, object ? "}" : "]");
    }
}

const char *mg_json_text(char *buffer, size_t bytes, const struct mg_json *value) {
    size_t length = 0;
    buffer[0] = '\0';
    append_value(buffer, bytes, &length, value);
    return buffer;
}

static mg_status wrong_type(const struct mg_json *value, const char *key, const char *wanted, const char *name,
                            struct mg_err *err) {
    char text[128];
    return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\" is %s; %s was expected", name, key,
                   mg_json_text(text, sizeof text, value), wanted);
}

/* NULL for an absent key or null: the caller's fallback holds. */
static const struct mg_json *given(const struct mg_json *object, const char *key) {
    const struct mg_json *value = mg_json_get(object, key);
    return value && value->type != MG_JSON_NULL ? value : NULL;
}

mg_status mg_json_get_int(int64_t *out, const struct mg_json *object, const char *key, int64_t fallback,
                          int64_t minimum, int64_t maximum, const char *name, struct mg_err *err) {
    const struct mg_json *value = given(object, key);
    *out = fallback;
    if (!value)
        return MG_OK;
    bool whole = value->type == MG_JSON_NUMBER &&
                 (value->is_integer ||
                  (value->number > -1e15 && value->number < 1e15 && value->number == (double)(int64_t)value->number));
    int64_t integer = !whole ? 0 : value->is_integer ? value->integer : (int64_t)value->number;
    if (!whole || integer < minimum || integer > maximum) {
        char wanted[96];
        snprintf(wanted, sizeof wanted, "a whole number from %lld to %lld", (long long)minimum, (long long)maximum);
        return wrong_type(value, key, wanted, name, err);
    }
    *out = integer;
    return MG_OK;
}

mg_status mg_json_get_double(double *out, const struct mg_json *object, const char *key, double fallback,
                             const char *name, struct mg_err *err) {
    const struct mg_json *value = given(object, key);
    *out = fallback;
    if (!value)
        return MG_OK;
    if (value->type != MG_JSON_NUMBER || !isfinite(value->number))
        return wrong_type(value, key, "a number", name, err);
    *out = value->number;
    return MG_OK;
}

mg_status mg_json_get_bool(bool *out, const struct mg_json *object, const char *key, bool fallback, const char *name,
                           struct mg_err *err) {
    const struct mg_json *value = given(object, key);
    *out = fallback;
    if (!value)
        return MG_OK;
    if (value->type != MG_JSON_BOOL)
        return wrong_type(value, key, "true or false", name, err);
    *out = value->boolean;
    return MG_OK;
}

mg_status mg_json_get_string(const char **out, const struct mg_json *object, const char *key, const char *fallback,
                             const char *name, struct mg_err *err) {
    const struct mg_json *value = given(object, key);
    *out = fallback;
    if (!value)
        return MG_OK;
    if (value->type != MG_JSON_STRING || strlen(value->string) != value->length)
        return wrong_type(value, key, "a string", name, err);
    *out = value->string;
    return MG_OK;
}

mg_status mg_json_read_file(const struct mg_json **out, struct mg_arena *arena, const char *path, struct mg_err *err) {
    enum { LARGEST = 64 << 20 };
    struct mg_file file;
    MG_TRY(mg_file_open(&file, path, err));
    mg_status status;
    if (file.bytes > LARGEST)
        status =
            mg_fail(err, MG_ERR_CHECKPOINT, "%s: %zu bytes of JSON; at most %d are read", path, file.bytes, LARGEST);
    else
        status = mg_json_parse(out, arena, file.data ? (const char *)file.data : "", file.bytes, path, err);
    mg_file_close(&file);
    return status;
}
