/* crc32.h: the checksum CRC-32 of gzip, PNG and zlib (RFC 1952, section 8), which finds every burst of errors up to 32
 * bits. */
#ifndef MG_CRC32_H
#define MG_CRC32_H
#include "../core/core.h"

enum { MG_CRC32_SLICES = 8 };
/* Tables for eight bytes at a time. Made by whoever sums (in microseconds), since the engine has no mutable globals. */
struct mg_crc32 {
    uint32_t table[MG_CRC32_SLICES][256];
};
void mg_crc32_init(struct mg_crc32 *crc);
/* The checksum of what gave `before` (0: nothing) followed by data[0..bytes). */
uint32_t mg_crc32_add(const struct mg_crc32 *crc, uint32_t before, const void *data, size_t bytes);
#endif
