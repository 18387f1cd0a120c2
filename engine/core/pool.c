#include "pool.h"

#include <stdlib.h>

struct pg_pool_chunk {
    pg_pool_chunk *before;
    int n;
    pg_tensor items[62];
};

/* Where a pool that cannot grow sends results: it stays empty, because status is negative by then. */
static PG_THREAD pg_tensor spare;

pg_tensor *pg_pool_new(pg_pool *p) {
    pg_tensor *t = NULL;
    if (p->n < PG_POOL_INLINE) {
        t = &p->items[p->n++];
    } else {
        pg_pool_chunk *c = p->more;
        if (!c || c->n == (int)(sizeof c->items / sizeof *c->items)) {
            if (!(c = pg_malloc(sizeof *c))) {
                pg_pool_note(p, pg_out_of_memory(sizeof *c));
                spare = PG_HANDLE;
                return &spare;
            }
            c->before = p->more;
            c->n = 0;
            p->more = c;
        }
        t = &c->items[c->n++];
    }
    *t = PG_HANDLE;
    return t;
}

int pg_pool_end(pg_pool *p) {
    for (int i = 0; i < p->n; i++) pg_tensor_release(&p->items[i]);
    p->n = 0;
    while (p->more) {
        pg_pool_chunk *c = p->more;
        p->more = c->before;
        for (int i = 0; i < c->n; i++) pg_tensor_release(&c->items[i]);
        free(c);
    }
    return p->status;
}

int pg_pool_return(pg_pool *p, pg_tensor *out, const pg_tensor *result) {
    if (p->status >= 0) pg_share(out, result);
    return pg_pool_end(p);
}
