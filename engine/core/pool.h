/* pool.h: temporaries. Composite ops and gradient rules are written as expressions: x_mul(p, g, x_cos(p, x)); every x_ call
 * makes a temporary owned by the pool. After a failure all further x_ calls do nothing and answer an empty handle: check
 * pool->status before looking inside one, and return it at the end. */
#ifndef PG_POOL_H
#define PG_POOL_H

#include "tensor.h"

enum { PG_POOL_INLINE = 16 };
typedef struct pg_pool_chunk pg_pool_chunk;
typedef struct pg_pool {
    int status, n;
    pg_tensor items[PG_POOL_INLINE];
    pg_pool_chunk *more;
} pg_pool;

static inline void pg_pool_begin(pg_pool *p) {
    p->status = PG_OK;
    p->n = 0;
    p->more = NULL;
}
/* An empty handle owned by the pool; never NULL (a failed allocation sets status and answers a shared spare). */
pg_tensor *pg_pool_new(pg_pool *p);
static inline void pg_pool_note(pg_pool *p, int status) { if (status < 0 && p->status >= 0) p->status = status; }
/* Releases the temporaries; returns the status. */
int pg_pool_end(pg_pool *p);
/* Moves a temporary out (sharing it) as the result, then ends the pool: `return pg_pool_return(&p, out, x_mul(...));` */
int pg_pool_return(pg_pool *p, pg_tensor *out, const pg_tensor *result);

#endif
