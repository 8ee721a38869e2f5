/* config.c: what the readers of configurations share. Calls io/json. */
#include "config.h"

#include <stdio.h>
#include <string.h>

enum { VALUE_TEXT = 200 };

static bool asks_for_something(const struct mg_json *value) {
    switch (value->type) {
    case MG_JSON_NULL:
        return false;
    case MG_JSON_BOOL:
        return value->boolean;
    case MG_JSON_NUMBER:
        return value->number != 0;
    case MG_JSON_STRING:
        return value->length > 0;
    case MG_JSON_ARRAY:
        for (size_t i = 0; i < value->length; i++)
            if (asks_for_something(&value->children[i]))
                return true;
        return false;
    case MG_JSON_OBJECT:
        break;
    }
    return value->length > 0;
}

static bool is_listed(const char *text, const char *accepted) {
    size_t length = strlen(text);
    for (const char *item = accepted; item; item = strchr(item, '|')) {
        item += *item == '|';
        if (!strncmp(item, text, length) && (item[length] == '|' || !item[length]))
            return true;
    }
    return false;
}

mg_status mg_config_accept(const struct mg_json *config, const char *key, const char *accepted, const char *name,
                           struct mg_err *err) {
    const struct mg_json *value = mg_json_get(config, key);
    char text[VALUE_TEXT];
    if (!value || value->type == MG_JSON_NULL || is_listed(mg_json_text(text, sizeof text, value), accepted))
        return MG_OK;
    return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"%s\" is %s, which is not supported; supported: %s", name, key, text,
                   accepted);
}

static const struct mg_config_rule *find_rule(const struct mg_config_rule *rules, const char *key) {
    for (; rules->key; rules++)
        if (!strcmp(rules->key, key))
            return rules;
    return NULL;
}

mg_status mg_config_object(const struct mg_json *config, const char *name, struct mg_err *err) {
    char text[VALUE_TEXT];
    if (config->type == MG_JSON_OBJECT)
        return MG_OK;
    return mg_fail(err, MG_ERR_CHECKPOINT, "%s: holds %s; an object was expected", name,
                   mg_json_text(text, sizeof text, config));
}

mg_status mg_config_check(const struct mg_json *config, const struct mg_config_rule *rules, const char *name,
                          struct mg_err *err) {
    char text[VALUE_TEXT];
    MG_TRY(mg_config_object(config, name, err));
    for (size_t i = 0; i < config->length; i++) {
        const char *key = config->keys[i];
        const struct mg_config_rule *rule = find_rule(rules, key);
        if (rule && rule->accepted)
            MG_TRY(mg_config_accept(config, key, rule->accepted, name, err));
        else if (!rule && key[0] != '_' && asks_for_something(&config->children[i]))
            return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"%.200s\" is %s, which is not supported", name, key,
                           mg_json_text(text, sizeof text, &config->children[i]));
    }
    return MG_OK;
}

mg_status mg_config_int(int *out, const struct mg_json *config, const char *key, int fallback, int minimum, int maximum,
                        const char *name, struct mg_err *err) {
    int64_t value;
    MG_TRY(mg_json_get_int(&value, config, key, fallback, minimum, maximum, name, err));
    *out = (int)value;
    return MG_OK;
}

/* A list of `levels` items, or of any number when levels is 0. */
static mg_status get_list(const struct mg_json **out, int levels, const struct mg_json *config, const char *key,
                          const char *name, struct mg_err *err) {
    const struct mg_json *list = mg_json_get(config, key);
    char text[VALUE_TEXT];
    if (!list)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\" is missing", name, key);
    if (list->type != MG_JSON_ARRAY)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\" is %s; a list was expected", name, key,
                       mg_json_text(text, sizeof text, list));
    if (levels && list->length != (size_t)levels)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\" is %s, of %zu items; block_out_channels has %d", name, key,
                       mg_json_text(text, sizeof text, list), list->length, levels);
    *out = list;
    return MG_OK;
}

static mg_status check_count(const struct mg_json *list, int most, const char *key, const char *name,
                             struct mg_err *err) {
    if (list->length >= 1 && list->length <= (size_t)most)
        return MG_OK;
    return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"%s\" has %zu items; supported: 1 to %d", name, key, list->length,
                   most);
}

static mg_status get_item(int *out, const struct mg_json *list, size_t i, const char *key, int minimum, int maximum,
                          const char *name, struct mg_err *err) {
    const struct mg_json *item = &list->children[i];
    char text[VALUE_TEXT];
    if (item->type != MG_JSON_NUMBER || !item->is_integer || item->integer < minimum || item->integer > maximum)
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\"[%zu] is %s; a whole number from %d to %d was expected", name,
                       key, i, mg_json_text(text, sizeof text, item), minimum, maximum);
    *out = (int)item->integer;
    return MG_OK;
}

mg_status mg_config_levels(int *out, int levels, const struct mg_json *config, const char *key, int fallback,
                           int minimum, int maximum, const char *name, struct mg_err *err) {
    const struct mg_json *value = mg_json_get(config, key);
    if (value && value->type == MG_JSON_ARRAY) {
        MG_TRY(get_list(&value, levels, config, key, name, err));
        for (int i = 0; i < levels; i++)
            MG_TRY(get_item(&out[i], value, (size_t)i, key, minimum, maximum, name, err));
        return MG_OK;
    }
    MG_TRY(mg_config_int(&out[0], config, key, fallback, minimum, maximum, name, err));
    for (int i = 1; i < levels; i++)
        out[i] = out[0];
    return MG_OK;
}

mg_status mg_config_list(int *out, int *count, int most, const struct mg_json *config, const char *key,
                         const int *fallback, int minimum, int maximum, const char *name, struct mg_err *err) {
    const struct mg_json *list = NULL;
    if (!mg_json_get(config, key)) {
        memcpy(out, fallback, (size_t)*count * sizeof *out);
        return MG_OK;
    }
    MG_TRY(get_list(&list, 0, config, key, name, err));
    MG_TRY(check_count(list, most, key, name, err));
    *count = (int)list->length;
    for (int i = 0; i < *count; i++)
        MG_TRY(get_item(&out[i], list, (size_t)i, key, minimum, maximum, name, err));
    return MG_OK;
}

mg_status mg_config_scaling_factor(double *out, const struct mg_json *config, double fallback, const char *name,
                                   struct mg_err *err) {
    MG_TRY(mg_json_get_double(out, config, "scaling_factor", fallback, name, err));
    if (*out >= 1e-6 && *out <= 1e6)
        return MG_OK;
    return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"scaling_factor\" is %g; a number from 1e-6 to 1e6 was expected", name,
                   *out);
}

mg_status mg_config_channels(int64_t *out, int *levels, int most, int groups, const struct mg_json *config,
                             const char *name, struct mg_err *err) {
    static const char key[] = "block_out_channels";
    const struct mg_json *list = NULL;
    MG_TRY(get_list(&list, 0, config, key, name, err));
    MG_TRY(check_count(list, most, key, name, err));
    *levels = (int)list->length;
    for (int i = 0; i < *levels; i++) {
        int channels = 0;
        MG_TRY(get_item(&channels, list, (size_t)i, key, 1, MG_MAX_CHANNELS, name, err));
        if (channels % groups)
            return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"%s\"[%d] is %d, not divisible by \"norm_num_groups\" %d",
                           name, key, i, channels, groups);
        out[i] = channels;
    }
    return MG_OK;
}

mg_status mg_config_groups(int *out, const struct mg_json *config, const char *name, struct mg_err *err) {
    const struct mg_json *value = mg_json_get(config, "norm_num_groups");
    /* Here null is no default: it asks for a network with other norms. */
    if (value && value->type == MG_JSON_NULL)
        return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"norm_num_groups\" is null, which is not supported", name);
    return mg_config_int(out, config, "norm_num_groups", 32, 1, MG_MAX_CHANNELS, name, err);
}

mg_status mg_config_blocks(int *out, int levels, const struct mg_json *config, const char *key,
                           const char *const *known, int count, const char *name, struct mg_err *err) {
    const struct mg_json *list = NULL;
    MG_TRY(get_list(&list, levels, config, key, name, err));
    for (int i = 0; i < levels; i++) {
        const struct mg_json *item = &list->children[i];
        char text[VALUE_TEXT];
        out[i] = -1;
        for (int k = 0; k < count; k++)
            if (item->type == MG_JSON_STRING && !strcmp(item->string, known[k]))
                out[i] = k;
        if (out[i] < 0)
            return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"%s\"[%d] is %s, which is not supported; supported: %s%s%s",
                           name, key, i, mg_json_text(text, sizeof text, item), known[0], count > 1 ? ", " : "",
                           count > 1 ? known[1] : "");
    }
    return MG_OK;
}
