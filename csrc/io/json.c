/* json.c: the strict JSON parser. Calls core.
 *
 * Recursive descent with a depth limit. Children of an array or object are gathered in a list that doubles and are
 * copied into the arena when the bracket closes, so a node's children are contiguous. */
#include "json.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

struct parser {
    struct mg_arena *arena;
    const char *text;
    size_t at, bytes;
    const char *name;
    locale_t plain; /* strtod reads the decimal point of the process's locale; JSON's is always a point */
    size_t values;  /* so far */
    struct mg_err *err;
};

/* One open array or object. */
struct children {
    struct mg_json *values;
    const char **keys;
    size_t count, capacity;
};

static mg_status fail_at(struct parser *p, size_t at, const char *what) {
    return mg_fail(p->err, MG_ERR_CHECKPOINT, "%s: not valid JSON: %s at byte %zu of %zu", p->name, what, at, p->bytes);
}

static mg_status no_memory(struct parser *p) {
    return mg_fail(p->err, MG_ERR_MEMORY, "%s: no memory to parse %zu bytes of JSON", p->name, p->bytes);
}

static void skip_space(struct parser *p) {
    while (p->at < p->bytes && strchr(" \t\r\n", p->text[p->at]) && p->text[p->at])
        p->at++;
}

static bool is_next(const struct parser *p, char c) { return p->at < p->bytes && p->text[p->at] == c; }

/* ---- strings ---- */
static mg_status read_hex(struct parser *p, uint32_t *out) {
    *out = 0;
    if (p->bytes - p->at < 4)
        return fail_at(p, p->at, "a \\u escape is cut off");
    for (int i = 0; i < 4; i++, p->at++) {
        char c = p->text[p->at];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit > 15)
            return fail_at(p, p->at, "a \\u escape without four hexadecimal digits");
        *out = *out << 4 | digit;
    }
    return MG_OK;
}

static size_t encode_utf8(char *out, uint32_t code) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00 >> length & 0xff) | code);
    return length;
}

static mg_status read_unicode_escape(struct parser *p, char *out, size_t *length) {
    uint32_t code, low;
    size_t start = p->at;
    MG_TRY(read_hex(p, &code));
    if (code >= 0xdc00 && code < 0xe000)
        return fail_at(p, start, "a lone low surrogate");
    if (code >= 0xd800 && code < 0xdc00) {
        if (p->bytes - p->at < 6 || p->text[p->at] != '\\' || p->text[p->at + 1] != 'u')
            return fail_at(p, start, "a lone high surrogate");
        p->at += 2;
        MG_TRY(read_hex(p, &low));
        if (low < 0xdc00 || low >= 0xe000)
            return fail_at(p, start, "a high surrogate without its low one");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    *length += encode_utf8(out + *length, code);
    return MG_OK;
}

static mg_status read_escape(struct parser *p, char *out, size_t *length) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = p->at < p->bytes ? p->text[p->at++] : '\0';
    if (c == 'u')
        return read_unicode_escape(p, out, length);
    const char *found = c ? strchr(names, c) : NULL;
    if (!found)
        return fail_at(p, p->at - 1, "an unknown escape");
    out[(*length)++] = values[found - names];
    return MG_OK;
}

static mg_status read_string(struct parser *p, const char **out, size_t *out_length) {
    size_t end = ++p->at, length = 0;
    while (end < p->bytes && p->text[end] != '"')
        end += p->text[end] == '\\' ? 2 : 1;
    if (end >= p->bytes)
        return fail_at(p, p->at - 1, "a string that does not end");
    /* No escape grows: \uXXXX is six bytes for at most three, a pair twelve for four. */
    char *text = mg_arena_alloc(p->arena, end - p->at + 1);
    if (!text)
        return no_memory(p);
    while (p->text[p->at] != '"') {
        unsigned char c = (unsigned char)p->text[p->at];
        if (c < 0x20)
            return fail_at(p, p->at, "a control character in a string");
        if (c == '\\') {
            p->at++;
            MG_TRY(read_escape(p, text, &length));
            continue;
        }
        size_t sequence = mg_utf8_length((const unsigned char *)p->text + p->at, p->bytes - p->at);
        if (!sequence)
            return fail_at(p, p->at, "invalid UTF-8");
        memcpy(text + length, p->text + p->at, sequence);
        length += sequence;
        p->at += sequence;
    }
    p->at++;
    *out = text;
    *out_length = length;
    return MG_OK;
}

/* ---- numbers ---- */
static size_t skip_digits(struct parser *p) {
    size_t start = p->at;
    while (p->at < p->bytes && p->text[p->at] >= '0' && p->text[p->at] <= '9')
        p->at++;
    return p->at - start;
}

static bool skip_number(struct parser *p, bool *integer) {
    if (is_next(p, '-'))
        p->at++;
    size_t first = p->at, digits = skip_digits(p);
    if (!digits || (digits > 1 && p->text[first] == '0'))
        return false;
    *integer = true;
    if (is_next(p, '.')) {
        *integer = false;
        p->at++;
        if (!skip_digits(p))
            return false;
    }
    if (is_next(p, 'e') || is_next(p, 'E')) {
        *integer = false;
        p->at++;
        if (is_next(p, '+') || is_next(p, '-'))
            p->at++;
        if (!skip_digits(p))
            return false;
    }
    return true;
}

/* What Python writes for a limit that is not there. */
static bool skip_minus_infinity(struct parser *p) {
    static const char word[] = "-Infinity";
    if (p->bytes - p->at < sizeof word - 1 || memcmp(p->text + p->at, word, sizeof word - 1))
        return false;
    p->at += sizeof word - 1;
    return true;
}

static mg_status read_number(struct parser *p, struct mg_json *out) {
    size_t start = p->at;
    bool integer;
    if (skip_minus_infinity(p)) {
        *out = (struct mg_json){.type = MG_JSON_NUMBER, .number = -INFINITY};
        return MG_OK;
    }
    if (!skip_number(p, &integer))
        return fail_at(p, start, "a malformed number");
    char *text = mg_arena_strdup(p->arena, p->text + start, p->at - start);
    if (!text)
        return no_memory(p);
    out->type = MG_JSON_NUMBER;
    out->number = strtod_l(text, NULL, p->plain);
    if (!isfinite(out->number))
        return fail_at(p, start, "a number too large for a double");
    if (integer) {
        errno = 0;
        out->integer = strtoll(text, NULL, 10);
        out->is_integer = errno == 0;
    }
    return MG_OK;
}

/* ---- values ---- */
static mg_status read_value(struct parser *p, struct mg_json *out, int depth);

static mg_status add_child(struct parser *p, struct children *list, const char *key, const struct mg_json *value) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        struct mg_json *values = realloc(list->values, capacity * sizeof *values);
        if (!values)
            return no_memory(p);
        list->values = values;
        const char **keys = realloc(list->keys, capacity * sizeof *keys);
        if (!keys)
            return no_memory(p);
        list->keys = keys;
        list->capacity = capacity;
    }
    list->values[list->count] = *value;
    list->keys[list->count++] = key;
    return MG_OK;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mg_status check_unique(struct parser *p, const struct children *list) {
    if (list->count < 2)
        return MG_OK;
    const char **sorted = malloc(list->count * sizeof *sorted);
    if (!sorted)
        return no_memory(p);
    memcpy(sorted, list->keys, list->count * sizeof *sorted);
    qsort(sorted, list->count, sizeof *sorted, compare_keys);
    mg_status status = MG_OK;
    for (size_t i = 1; i < list->count && status == MG_OK; i++)
        if (!strcmp(sorted[i - 1], sorted[i]))
            status = mg_fail(p->err, MG_ERR_CHECKPOINT, "%s: not valid JSON: key \"%.200s\" twice in one object",
                             p->name, sorted[i]);
    free(sorted);
    return status;
}

static mg_status read_member_key(struct parser *p, const char **key) {
    size_t length, start = p->at;
    skip_space(p);
    if (!is_next(p, '"'))
        return fail_at(p, p->at, "a key was expected");
    MG_TRY(read_string(p, key, &length));
    if (strlen(*key) != length)
        return fail_at(p, start, "a key with a NUL");
    skip_space(p);
    if (!is_next(p, ':'))
        return fail_at(p, p->at, "':' was expected");
    p->at++;
    return MG_OK;
}

static mg_status read_members(struct parser *p, struct children *list, bool object, int depth) {
    const char close = object ? '}' : ']';
    p->at++;
    skip_space(p);
    if (is_next(p, close)) {
        p->at++;
        return MG_OK;
    }
    for (;;) {
        const char *key = NULL;
        struct mg_json value = {0};
        if (object)
            MG_TRY(read_member_key(p, &key));
        MG_TRY(read_value(p, &value, depth + 1));
        MG_TRY(add_child(p, list, key, &value));
        skip_space(p);
        if (is_next(p, close))
            break;
        if (!is_next(p, ','))
            return fail_at(p, p->at, object ? "',' or '}' was expected" : "',' or ']' was expected");
        p->at++;
    }
    p->at++;
    return object ? check_unique(p, list) : MG_OK;
}

static mg_status read_container(struct parser *p, struct mg_json *out, int depth) {
    struct children list = {0};
    const bool object = p->text[p->at] == '{';
    mg_status status = read_members(p, &list, object, depth);
    if (status == MG_OK) {
        struct mg_json *children = mg_arena_alloc(p->arena, list.count * sizeof *children);
        const char **keys = mg_arena_alloc(p->arena, list.count * sizeof *keys);
        if (children && keys) {
            if (list.count) {
                memcpy(children, list.values, list.count * sizeof *children);
                memcpy(keys, list.keys, list.count * sizeof *keys);
            }
            *out = (struct mg_json){.type = object ? MG_JSON_OBJECT : MG_JSON_ARRAY,
                                    .length = list.count,
                                    .children = children,
                                    .keys = object ? keys : NULL};
        } else {
            status = no_memory(p);
        }
    }
    free(list.values);
    free(list.keys);
    return status;
}

static mg_status read_word(struct parser *p, struct mg_json *out) {
    static const struct {
        const char *text;
        mg_json_type type;
        bool boolean;
    } words[] = {{"null", MG_JSON_NULL, false}, {"true", MG_JSON_BOOL, true}, {"false", MG_JSON_BOOL, false}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i].text);
        if (p->bytes - p->at >= length && !memcmp(p->text + p->at, words[i].text, length)) {
            p->at += length;
            *out = (struct mg_json){.type = words[i].type, .boolean = words[i].boolean};
            return MG_OK;
        }
    }
    return fail_at(p, p->at, "an unexpected character");
}

static mg_status read_value(struct parser *p, struct mg_json *out, int depth) {
    skip_space(p);
    if (p->at >= p->bytes)
        return fail_at(p, p->at, "the text ends too early");
    if (++p->values > MG_JSON_MAX_VALUES)
        return fail_at(p, p->at, "more than a million values");
    char c = p->text[p->at];
    if (c == '{' || c == '[')
        return depth < MG_JSON_MAX_DEPTH ? read_container(p, out, depth) : fail_at(p, p->at, "nesting too deep");
    if (c == '"') {
        out->type = MG_JSON_STRING;
        return read_string(p, &out->string, &out->length);
    }
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(p, out);
    return read_word(p, out);
}

mg_status mg_json_parse(const struct mg_json **out, struct mg_arena *arena, const char *text, size_t bytes,
                        const char *name, struct mg_err *err) {
    struct parser p = {.arena = arena, .text = text, .bytes = bytes, .name = name, .err = err};
    struct mg_json *root = mg_arena_alloc(arena, sizeof *root);
    p.plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (!root || !p.plain) {
        if (p.plain)
            freelocale(p.plain);
        return no_memory(&p);
    }
    mg_status status = read_value(&p, root, 0);
    freelocale(p.plain);
    MG_TRY(status);
    skip_space(&p);
    if (p.at != bytes)
        return fail_at(&p, p.at, "text after the value");
    *out = root;
    return MG_OK;
}
