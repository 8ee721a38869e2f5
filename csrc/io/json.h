/* json.h: a strict JSON reader (RFC 8259) for configuration files and safetensors headers; untrusted input. Refused:
 * trailing text, duplicate keys, nesting beyond MG_JSON_MAX_DEPTH, more values than MG_JSON_MAX_VALUES (two bytes of
 * text become 100 in memory), invalid UTF-8 or escapes, numbers that are not finite doubles, the words NaN and Infinity
 * (-Infinity is read, as Python writes it for limits that are not there; mg_json_get_double refuses it). */
#ifndef MG_JSON_H
#define MG_JSON_H
#include "../core/core.h"

enum { MG_JSON_MAX_DEPTH = 64, MG_JSON_MAX_VALUES = 1 << 20 };

typedef enum mg_json_type {
    MG_JSON_NULL,
    MG_JSON_BOOL,
    MG_JSON_NUMBER,
    MG_JSON_STRING,
    MG_JSON_ARRAY,
    MG_JSON_OBJECT
} mg_json_type;

struct mg_json {
    mg_json_type type;
    bool boolean;
    bool is_integer; /* number written without fraction or exponent, and within int64 */
    int64_t integer;
    double number;
    const char *string;      /* NUL-terminated UTF-8; length counts embedded NULs */
    size_t length;           /* of string, or number of children */
    const char *const *keys; /* object: keys[i] names children[i] */
    const struct mg_json *children;
};

/* Parses text[0..bytes). Nodes live in `arena`. `name` (a file name) prefixes messages; errors are MG_ERR_CHECKPOINT
 * with byte offset. */
mg_status mg_json_parse(const struct mg_json **out, struct mg_arena *arena, const char *text, size_t bytes,
                        const char *name, struct mg_err *err);
/* NULL when absent (or when object is NULL or no object). */
const struct mg_json *mg_json_get(const struct mg_json *object, const char *key);

/* Typed reads for configs: absent or null key gives `fallback`; wrong type is MG_ERR_CHECKPOINT naming file and key. */
mg_status mg_json_get_int(int64_t *out, const struct mg_json *object, const char *key, int64_t fallback,
                          int64_t minimum, int64_t maximum, const char *name, struct mg_err *err);
mg_status mg_json_get_double(double *out, const struct mg_json *object, const char *key, double fallback,
                             const char *name, struct mg_err *err);
mg_status mg_json_get_bool(bool *out, const struct mg_json *object, const char *key, bool fallback, const char *name,
                           struct mg_err *err);
mg_status mg_json_get_string(const char **out, const struct mg_json *object, const char *key, const char *fallback,
                             const char *name, struct mg_err *err);
/* The value of a key as text for messages: 3, "silu", [5, 10], true, {...}. Truncates. Returns buffer. */
const char *mg_json_text(char *buffer, size_t bytes, const struct mg_json *value);
#endif
