/* error.h: statuses and messages. A failing function leaves one message for its thread and returns a negative status; whoever
 * gets a negative status returns it on, releasing what it holds. */
#ifndef PG_ERROR_H
#define PG_ERROR_H

#include <stdarg.h>

#include "../include/perigee.h"

/* Thread-local, in the space that every thread has from its start: an access is one load. The library's share is small: keep
 * buffers behind pointers. */
#define PG_THREAD _Thread_local __attribute__((tls_model("initial-exec")))

/* Sets the message "op: text" (op: the running op's name, absent outside ops) and returns status. %-formats as printf. */
int pg_fail_as(int status, const char *format, ...) __attribute__((format(printf, 2, 3), cold));
int pg_fail_memory(size_t bytes) __attribute__((cold));
/* Lets the compiler see which status comes back, so that it can follow the failing path. */
static inline int pg_known_status(int status, int same) { (void)same; return status; }
#define pg_fail_status(status, ...) pg_known_status(status, pg_fail_as(status, __VA_ARGS__))
#define pg_fail(...) pg_fail_status(PG_ERROR, __VA_ARGS__)
#define pg_out_of_memory(bytes) pg_known_status(PG_ERROR_MEMORY, pg_fail_memory(bytes))

/* The op that messages name; NULL for none. Returns the one before. */
const char *pg_error_set_op(const char *name);
const char *pg_error_op(void);

/* pg_interrupt was called. */
extern volatile int pg_interrupted;

#endif
