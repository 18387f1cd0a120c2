/* debt.h: memory that Lua's collector does not see. A Lua state lives on one thread, so the thread counts for
 * it: bytes handed out less bytes given back since the last collection. Past a limit the outermost door
 * answers PG_COLLECT. */
#ifndef PG_DEBT_H
#define PG_DEBT_H

#include "error.h"

typedef struct pg_debt { int64_t bytes, limit; } pg_debt;
extern PG_THREAD pg_debt pg_debt_here;

static inline void pg_debt_add(int64_t bytes)
{
    int64_t sum = pg_debt_here.bytes + bytes;
    /* a thread that frees what others made does not run up credit */
    pg_debt_here.bytes = sum > 0 ? sum : 0;
}

/* Live bytes of all allocators together. */
size_t pg_allocated_everywhere(void);

#endif
