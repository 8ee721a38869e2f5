/* snippets.c: the snippets of a video: as many frames as `length`, `dilation` apart, at every place where they fit. */
#include "snippets.h"

mg_status mg_check_snippets(const struct mg_snippets *s, struct mg_err *err) {
    if (s->length < 2 || s->length > MG_MAX_SNIPPET_LENGTH)
        return mg_fail(err, MG_ERR_ARGUMENT, "a snippet has %lld frames; it must have 2 to %d", (long long)s->length,
                       MG_MAX_SNIPPET_LENGTH);
    if (s->frames < s->length)
        return mg_fail(err, MG_ERR_ARGUMENT, "a video of %lld frame%s; a snippet has %lld", (long long)s->frames,
                       s->frames == 1 ? "" : "s", (long long)s->length);
    if (s->num_dilations < 1 || s->num_dilations > MG_MAX_DILATIONS)
        return mg_fail(err, MG_ERR_ARGUMENT, "%d dilations; there must be 1 to %d", s->num_dilations, MG_MAX_DILATIONS);
    bool covers = false;
    for (int i = 0; i < s->num_dilations; i++) {
        const int64_t dilation = s->dilations[i], most = (s->frames - 1) / (s->length - 1);
        if (dilation < 1 || dilation > most)
            return mg_fail(
                err, MG_ERR_ARGUMENT,
                "a dilation of %lld; snippets of %lld frames fit into %lld frames with dilations of 1 to %lld",
                (long long)dilation, (long long)s->length, (long long)s->frames, (long long)most);
        covers = covers || dilation == 1;
    }
    return covers ? MG_OK : mg_fail(err, MG_ERR_ARGUMENT, "no dilation is 1: only with it every frame is in a snippet");
}

int64_t mg_snippets_with_dilation(const struct mg_snippets *s, int64_t dilation) {
    const int64_t count = s->frames - (s->length - 1) * dilation;
    return count > 0 ? count : 0;
}

int64_t mg_snippets_count(const struct mg_snippets *s) {
    int64_t count = 0;
    for (int i = 0; i < s->num_dilations; i++)
        count += mg_snippets_with_dilation(s, s->dilations[i]);
    return count;
}

int64_t mg_snippets_of_frame(struct mg_frame_map *out, const struct mg_snippets *s, int64_t frame) {
    int64_t count = 0, before = 0;
    for (int i = 0; i < s->num_dilations; i++) {
        const int64_t starts = mg_snippets_with_dilation(s, s->dilations[i]);
        for (int64_t position = 0; position < s->length; position++) {
            const int64_t first = frame - position * s->dilations[i];
            if (first >= 0 && first < starts)
                out[count++] = (struct mg_frame_map){before + first, (before + first) * s->length + position};
        }
        before += starts;
    }
    return count;
}
