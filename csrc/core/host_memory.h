/* host_memory.h: how much memory this process may still use. */
#ifndef MG_HOST_MEMORY_H
#define MG_HOST_MEMORY_H
#include <stddef.h>

/* Bytes: what the system has left without swapping, what the control groups (version 1 or 2) of this process leave it, and what its
 * limit of address space does; the least of them. SIZE_MAX where nothing of that can be read. `root`: as of
 * mg_quota_processors. */
size_t mg_host_memory(const char *root);
#endif
