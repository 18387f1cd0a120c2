/* deferred.h: pointwise ops that are put off until somebody asks for their elements, so that a chain of
 * them is one kernel.
 *
 * A backward run knows its chains: what a rule makes on its way to a gradient, and a gradient on its way
 * to the next rule, is seen by nobody else. While the run defers (pg_deferring_set), pg_pointwise leaves
 * the elements of its result undefined and notes here how they come about. The result has its memory
 * already; its storage counts as watched, and so do those that it reads.
 * pg_data of a watched storage settles it first: what it waits for, and what would read it, is computed,
 * as its caller may be about to read it or to write to it. A result that is freed unasked is never
 * computed.
 * An op that reads what is deferred takes the other's steps into its own. What is read a second time is
 * computed instead.
 * Deferred ops belong to the thread that put them off, and none is left when a backward run hands over to
 * Lua.
 */
#ifndef PG_DEFERRED_H
#define PG_DEFERRED_H

#include "tensor.h"

enum { PG_DEFERRED_OPERANDS = 3 };

/* One op over the broadcast shape of its operands, which is out's. */
typedef struct pg_operation {
    int op, compute, result;         /* as for pg_pointwise */
    int keep;                        /* the operand that is bool whatever compute is, or -1 */
    int n;
    const pg_tensor *tensor[PG_DEFERRED_OPERANDS];   /* of the dtype that the op reads; NULL: */
    pg_value scalar[PG_DEFERRED_OPERANDS];
    double p[2];
} pg_operation;

/* Whether the calling thread puts pointwise ops off. set gives back what was. */
extern PG_THREAD bool pg_deferring;
bool pg_deferring_set(bool on);

/* True where op was put off: then it owns references to what it reads, and out's elements are undefined until
 * pg_data is asked for. False where it must be computed at once: a dtype that chains have no steps for, or too
 * few elements to gain by it. */
bool pg_defer(const pg_tensor *out, const pg_operation *operation);
static inline bool pg_is_deferred(const pg_tensor *t) { return t->impl->storage->deferred != NULL; }

/* s goes before anybody asked for its elements. */
void pg_deferred_forget(pg_storage *s);

/* All that this thread put off. The status is that of the first kernel that failed since it was last asked for. */
int pg_settle_all(void);

#endif
