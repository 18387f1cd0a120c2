/* autocast.h: mixed precision. While a region is open, ops called by the program (not those inside other ops, in gradient rules, with
 * out= or in place) get their floating arguments converted first, by the kind that their row names:
 *   LOW      to the region's dtype (products)
 *   F32      to float32 (what loses by rounding); an op that is told a dtype is left alone
 *   PROMOTE  to the widest dtype among them
 *   LOSS     to the region's dtype what is multiplied (input, linear_weight, linear_bias); the loss is float32 unless told otherwise
 * float64 and other devices' tensors are left alone, as PyTorch leaves them. A row's `cuda` says that the CPU has it not.
 *
 * float32 leaves that require gradients are converted once a region: the outermost region's end drops the copies. Unlike PyTorch's,
 * a copy is made anew when its source was written meanwhile, or when it was made without gradients and these are wanted.
 *
 * State is the thread's.
 */
#ifndef PG_AUTOCAST_H
#define PG_AUTOCAST_H

#include "../core/door.h"
#include "../core/pool.h"

/* Bit 0: on for the cpu; bit 1: for cuda. */
extern PG_THREAD unsigned pg_autocast_mode;

typedef struct pg_autocast {
    int kind;                     /* NONE: nothing is converted, the rest is undefined */
    int type;                     /* which kind of device */
    int dtype;                    /* what the tensors become; -1 where PROMOTE has seen none */
    pg_pool pool;
    const pg_tensor **list;       /* of pg_autocast_list */
} pg_autocast;

/* Whether the door's op converts: kind as in its row, `given` whether it was told a result dtype or an out=. */
void pg_autocast_begin_slow(pg_autocast *a, const pg_door *d, int kind, bool given);
static inline void pg_autocast_begin(pg_autocast *a, const pg_door *d, int kind, bool given) {
    a->kind = PG_AUTOCAST_NONE;
    if (pg_autocast_mode) pg_autocast_begin_slow(a, d, kind, given);
}
/* PROMOTE: each tensor is shown first. NULL is fine. */
void pg_autocast_see(pg_autocast *a, const pg_tensor *t);
/* *t becomes its conversion, which lives until the end. NULL is fine. */
int pg_autocast_tensor(pg_autocast *a, const pg_tensor **t);
int pg_autocast_list(pg_autocast *a, const pg_tensor *const **list, int n);
/* Drops the conversions; gives the status. */
int pg_autocast_end(pg_autocast *a, int status);

#endif
