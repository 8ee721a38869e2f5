/* layout_text.c: weight layouts as the short texts that packed checkpoints hold. Calls core. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"

enum { WIDEST_PANEL = 64, LARGEST_GROUP = 4, CHUNK_BYTES = 16 };

const char *mg_layout_text(char buffer[MG_LAYOUT_TEXT], struct mg_weight_layout layout) {
    if (layout.panel)
        snprintf(buffer, MG_LAYOUT_TEXT, "%s/%d/%d", mg_dtype_name(layout.dtype), layout.panel, layout.group);
    else
        snprintf(buffer, MG_LAYOUT_TEXT, "%s", mg_dtype_name(MG_F32));
    return buffer;
}

/* Reads "/NUMBER" and moves on. */
static int read_number(const char **text) {
    char *end;
    if (**text != '/')
        return -1;
    const long number = strtol(*text + 1, &end, 10);
    *text = end;
    return number > WIDEST_PANEL ? -1 : (int)number;
}

bool mg_layout_read(struct mg_weight_layout *out, const char *text) {
    static const mg_dtype types[] = {MG_F32, MG_F16, MG_BF16, MG_I8};
    char again[MG_LAYOUT_TEXT];
    *out = (struct mg_weight_layout){0};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const char *name = mg_dtype_name(types[i]), *rest = text + strlen(name);
        if (strncmp(text, name, strlen(name)))
            continue;
        if (!*rest && types[i] != MG_F32)
            return false;
        if (*rest) {
            out->panel = read_number(&rest);
            out->group = read_number(&rest);
            out->dtype = types[i];
            const bool chunks = out->panel == 1 && out->group * (int)mg_dtype_bytes(out->dtype) == CHUNK_BYTES;
            const bool panels = types[i] != MG_F16 && out->group <= LARGEST_GROUP;
            if (out->panel < 1 || out->group < 1 || (!chunks && !panels))
                return false;
        }
        return !strcmp(mg_layout_text(again, *out), text); /* one spelling of each */
    }
    return false;
}
