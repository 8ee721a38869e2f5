/* library.h: what a backend in a shared object of its own shows to the engine that loads it. */
#ifndef MG_LIBRARY_H
#define MG_LIBRARY_H
#include "backend.h"

/* What the shared object exports as "mg_backend_library". */
struct mg_backend_library {
    const char *operations; /* mg_operations of the headers that it was built with */
    size_t layout;          /* MG_BACKEND_LAYOUT there */
    const struct mg_backend *backend;
};
/* Names and slots of every operation. */
static const char mg_operations[] =
#define MG_OP(ID, name, inputs, required, alias, meaning) #name " " #inputs " " #required " " #alias "\n"
#include "../op/ops.def"
#undef MG_OP
    ;
/* Differs where the structures that cross the border differ: in size, or, by the checksum of their headers (tools/border.py),
 * in anything else. A compiler that is not told the checksum compares sizes alone. */
#ifndef MG_BORDER
#define MG_BORDER 0
#endif
enum { MG_LAYOUT_RADIX = 1024 };
#define MG_BACKEND_LAYOUT                                                                                              \
    (MG_BORDER + sizeof(struct mg_backend) +                                                                           \
     MG_LAYOUT_RADIX * (sizeof(struct mg_context) +                                                                    \
                        MG_LAYOUT_RADIX * (sizeof(struct mg_op_shape) +                                                \
                                           MG_LAYOUT_RADIX * (sizeof(struct mg_op_call) +                              \
                                                              MG_LAYOUT_RADIX * sizeof(struct mg_device_memory)))))
#endif
