/* config.h: reading configurations of networks, which are untrusted and may ask for what is not built. Private to nn/.
 * In every function `name` is the file's name for messages. */
#ifndef MG_CONFIG_H
#define MG_CONFIG_H
#include "../io/json.h"

enum { MG_MAX_CHANNELS = 65536, MG_MAX_LAYERS = 64 };

/* Refuses JSON that is no object. */
mg_status mg_config_object(const struct mg_json *config, const char *name, struct mg_err *err);

/* A key whose value is read elsewhere or does not matter (accepted NULL), or must be one of the values listed in
 * `accepted`: JSON texts separated by '|'. null stands for the default and is accepted. */
struct mg_config_rule {
    const char *key;
    const char *accepted;
};
/* MG_ERR_UNSUPPORTED, naming key and value, for a value outside its rule and for a key without rule whose value asks
 * for something: it is not null, false, zero, empty, or a list of such. Keys that begin with '_' are ignored. The list
 * ends with a NULL key. */
mg_status mg_config_check(const struct mg_json *config, const struct mg_config_rule *rules, const char *name,
                          struct mg_err *err);
/* One value against an `accepted` list. */
mg_status mg_config_accept(const struct mg_json *config, const char *key, const char *accepted, const char *name,
                           struct mg_err *err);

mg_status mg_config_int(int *out, const struct mg_json *config, const char *key, int fallback, int minimum, int maximum,
                        const char *name, struct mg_err *err);
/* One whole number for all levels, or a list of one for each. */
mg_status mg_config_levels(int *out, int levels, const struct mg_json *config, const char *key, int fallback,
                           int minimum, int maximum, const char *name, struct mg_err *err);
/* A list of 1 to `most` whole numbers; without the key, the `fallback` of *count items. Sets *count. */
mg_status mg_config_list(int *out, int *count, int most, const struct mg_json *config, const char *key,
                         const int *fallback, int minimum, int maximum, const char *name, struct mg_err *err);
/* scaling_factor of an autoencoder. */
mg_status mg_config_scaling_factor(double *out, const struct mg_json *config, double fallback, const char *name,
                                   struct mg_err *err);
/* block_out_channels: their number becomes *levels (at most `most`), each a multiple of `groups`. */
mg_status mg_config_channels(int64_t *out, int *levels, int most, int groups, const struct mg_json *config,
                             const char *name, struct mg_err *err);
/* norm_num_groups. */
mg_status mg_config_groups(int *out, const struct mg_json *config, const char *name, struct mg_err *err);
/* A list of `levels` names, each one of the `count` names in `known`; out[i] is its index there. */
mg_status mg_config_blocks(int *out, int levels, const struct mg_json *config, const char *key,
                           const char *const *known, int count, const char *name, struct mg_err *err);
#endif
