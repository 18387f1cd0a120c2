/* error.h: statuses and messages. A failing function leaves one message for its thread and returns a negative status; whoever
 * gets a negative status returns it on, releasing what it holds. */
#ifndef PG_ERROR_H
#define PG_ERROR_H

#include <stdarg.h>

#include "../include/perigee.h"

/* Sets the message "op: text" (op: the running op's name, absent outside ops) and returns status. %-formats as printf. */
int pg_fail_status(int status, const char *format, ...) __attribute__((format(printf, 2, 3), cold));
#define pg_fail(...) pg_fail_status(PG_ERROR, __VA_ARGS__)
int pg_out_of_memory(size_t bytes) __attribute__((cold));

/* The op that messages name; NULL for none. Returns the one before. */
const char *pg_error_set_op(const char *name);
const char *pg_error_op(void);

/* pg_interrupt was called. */
extern volatile int pg_interrupted;

#endif
