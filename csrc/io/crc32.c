/* crc32.c: CRC-32 in slices of eight bytes: table[s][b] is the sum of byte b followed by s zero bytes, so that the
 * eight bytes of a step are looked up independently of each other. Calls nothing. */
#include "crc32.h"

enum { BITS = 8 };
static const uint32_t polynomial = 0xEDB88320; /* lowest bit first */

void mg_crc32_init(struct mg_crc32 *crc) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t sum = byte;
        for (int bit = 0; bit < BITS; bit++)
            sum = sum >> 1 ^ (sum & 1 ? polynomial : 0);
        crc->table[0][byte] = sum;
    }
    for (int slice = 1; slice < MG_CRC32_SLICES; slice++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t shorter = crc->table[slice - 1][byte];
            crc->table[slice][byte] = shorter >> 8 ^ crc->table[0][shorter & 255];
        }
}

uint32_t mg_crc32_add(const struct mg_crc32 *crc, uint32_t before, const void *data, size_t bytes) {
    const unsigned char *at = data;
    uint32_t sum = ~before;
    for (; bytes >= MG_CRC32_SLICES; bytes -= MG_CRC32_SLICES, at += MG_CRC32_SLICES) {
        const uint32_t first =
            sum ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
        sum = crc->table[7][first & 255] ^ crc->table[6][first >> 8 & 255] ^ crc->table[5][first >> 16 & 255] ^
              crc->table[4][first >> 24] ^ crc->table[3][at[4]] ^ crc->table[2][at[5]] ^ crc->table[1][at[6]] ^
              crc->table[0][at[7]];
    }
    for (; bytes; bytes--, at++)
        sum = sum >> 8 ^ crc->table[0][(sum ^ *at) & 255];
    return ~sum;
}
