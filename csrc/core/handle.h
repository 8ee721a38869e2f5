/* handle.h: a handle of marigold.h is used by one call at a time. Knows core.h alone. */
#ifndef MG_HANDLE_H
#define MG_HANDLE_H
#include <stdatomic.h>

#include "core.h"

/* Which call works on a handle; NULL: none. A call is named by an address of its own. */
typedef _Atomic(const void *) mg_handle_user;

/* MG_ERR_BUSY, naming `what`, if another call works on the handle; else it is this call's until mg_handle_leave. A call may
 * enter a handle again that it was given twice. */
static inline mg_status mg_handle_enter(mg_handle_user *user, const void *call, const char *what, struct mg_err *err) {
    const void *found = NULL;
    if (atomic_compare_exchange_strong(user, &found, call) || found == call)
        return MG_OK;
    return mg_fail(err, MG_ERR_BUSY, "this %s is already running in another thread; use a second one", what);
}

/* Nothing if the handle is not this call's. */
static inline void mg_handle_leave(mg_handle_user *user, const void *call) {
    const void *found = call;
    atomic_compare_exchange_strong(user, &found, NULL);
}
#endif
