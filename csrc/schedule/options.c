/* options.c: reads single options of scheduler_config.json; what is not supported is named with its value. */
#include <string.h>

#include "scheduler.h"

mg_status mg_option_unsupported(const struct mg_json *config, const char *key, const char *supported,
                                struct mg_err *err) {
    char text[128] = "(absent; the default)";
    const struct mg_json *value = mg_json_get(config, key);
    if (value)
        mg_json_text(text, sizeof text, value);
    return mg_fail(err, MG_ERR_UNSUPPORTED, "%s: \"%s\": %s is not supported; supported: %s", MG_SCHEDULER_FILE, key,
                   text, supported);
}

mg_status mg_option_choice(int *out, const struct mg_json *config, const char *key, const char *const *names, int count,
                           int fallback, const char *supported, struct mg_err *err) {
    const char *text;
    MG_TRY(mg_json_get_string(&text, config, key, names[fallback], MG_SCHEDULER_FILE, err));
    for (*out = 0; *out < count; (*out)++)
        if (!strcmp(text, names[*out]))
            return MG_OK;
    return mg_option_unsupported(config, key, supported, err);
}

mg_status mg_option_bool(bool *out, const struct mg_json *config, const char *key, bool fallback, struct mg_err *err) {
    return mg_json_get_bool(out, config, key, fallback, MG_SCHEDULER_FILE, err);
}

mg_status mg_option_refuse(const struct mg_json *config, const char *key, struct mg_err *err) {
    const struct mg_json *value = mg_json_get(config, key);
    const bool is_off = !value || value->type == MG_JSON_NULL || (value->type == MG_JSON_BOOL && !value->boolean);
    return is_off ? MG_OK : mg_option_unsupported(config, key, "false or null", err);
}
