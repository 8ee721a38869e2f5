/* error.c: how every fault becomes a status and a message, formatted once, where it is found. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

void mg_err_clear(struct mg_err *err) {
    if (!err)
        return;
    err->status = MG_OK;
    err->os_errno = 0;
    err->message[0] = '\0';
}

size_t mg_utf8_length(const unsigned char *text, size_t left) {
    const unsigned char first = text[0];
    if (first < 0x80)
        return 1;
    size_t length = first >= 0xc2 && first < 0xe0   ? 2
                    : (first & 0xf0) == 0xe0        ? 3
                    : first >= 0xf0 && first < 0xf5 ? 4
                                                    : 0;
    if (!length || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (first == 0xe0 && text[1] < 0xa0) || (first == 0xf0 && text[1] < 0x90);
    bool surrogate = first == 0xed && text[1] >= 0xa0, beyond = first == 0xf4 && text[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

/* Messages quote names out of files: one cut short may end inside a character, and a hostile one may hold the escape
 * codes of a terminal. */
static void make_printable(char *message) {
    unsigned char *text = (unsigned char *)message;
    size_t left = strlen(message);
    while (left) {
        size_t length = mg_utf8_length(text, left);
        if (!length || (*text < 0x20 && *text != '\n' && *text != '\t') || *text == 0x7f) {
            *text = '?';
            length = 1;
        }
        text += length;
        left -= length;
    }
}

mg_status mg_fail(struct mg_err *err, mg_status status, const char *format, ...) {
    if (!err)
        return status;
    err->status = status;
    err->os_errno = 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    make_printable(err->message);
    return status;
}

mg_status mg_fail_errno(struct mg_err *err, int os_errno, const char *format, ...) {
    mg_status status = os_errno == ENOMEM ? MG_ERR_MEMORY : MG_ERR_IO;
    if (!err)
        return status;
    err->status = status;
    err->os_errno = os_errno;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    char text[256];
#if defined(__GLIBC__)
    /* It may return a string of its own instead of filling the buffer. */
    const char *reason = strerror_r(os_errno, text, sizeof text);
#else
    const char *reason = strerror_r(os_errno, text, sizeof text) ? "unknown error" : text;
#endif
    if (length >= 0 && (size_t)length < sizeof err->message)
        snprintf(err->message + length, sizeof err->message - (size_t)length, ": %s", reason);
    make_printable(err->message);
    return status;
}
