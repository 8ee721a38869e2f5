/* packed_format.h: what packed_file.c and packed_writer.c agree on. */
#ifndef MG_PACKED_FORMAT_H
#define MG_PACKED_FORMAT_H

#define MG_PACKED_FORMAT "marigold_c packed checkpoint"
#define MG_PACKED_VERSION "1"
/* The header of every such file begins with this; eight digits follow. */
#define MG_PACKED_BEGINNING "{\"__metadata__\":{\"crc32\":\""
#define MG_PACKED_NO_CHECKSUM "00000000"
enum { MG_PACKED_DIGITS = 8, MG_PACKED_LAYOUT_TEXT = 64, MG_PACKED_NAME = 640 };
#endif
