#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_MAX = 2048 };

/* A pointer, not a buffer: the library is opened at run time, and the space for its thread-locals is small. */
static PG_THREAD char *message;
static PG_THREAD const char *op;

volatile int pg_interrupted;

void pg_interrupt(int on) { pg_interrupted = on; }

const char *pg_last_error(void) { return message ? message : "out of memory while reporting an error"; }

const char *pg_error_set_op(const char *name) {
    const char *before = op;
    op = name;
    return before;
}

const char *pg_error_op(void) { return op; }

int pg_fail_as(int status, const char *format, ...) {
    if (!message && !(message = malloc(MESSAGE_MAX))) return status;
    int n = op ? snprintf(message, MESSAGE_MAX, "%s: ", op) : 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + n, (size_t)(MESSAGE_MAX - n), format, arguments);
    va_end(arguments);
    return status;
}

int pg_fail_memory(size_t bytes) {
    return pg_fail_status(PG_ERROR_MEMORY, "out of memory: %zu bytes asked for", bytes);
}

#ifndef PG_VERSION
#define PG_VERSION "0.1.0"
#endif
const char *pg_version(void) { return PG_VERSION; }
