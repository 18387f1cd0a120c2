/* order.h: what sort.cu offers to the files that access by index: places brought into the order of their
 * keys, so that what goes to one place stands together, in the order in which it was given. That is how
 * sums by index have one order without atomics.
 */
#ifndef PG_CUDA_ORDER_H
#define PG_CUDA_ORDER_H

#include "cuda.h"

/* Rows of n pairs, in scratch: keys ascending, equal keys by place; places count from 0 in each row. */
typedef struct pg_ordering {
    const void *key;      /* uint32_t or uint64_t, as was given */
    const uint32_t *at;
} pg_ordering;

/* Orders rows of n keys of `bytes` bytes (4 or 8), of which the lower `bits` alone may be set. key is
 * scratch of the caller's and is written over. Fewer than 2^32 keys a row, else UNSUPPORTED. */
int pg_order_cuda(const pg_context *c, int bytes, int bits, int64_t rows, int64_t n, void *key,
                  pg_ordering *out);

/* How many bits it takes to write x. */
static inline int pg_bits_of(uint64_t x) {
    int bits = 1;
    while (bits < 64 && x >> bits) bits++;
    return bits;
}

/* For each j < m, in order: to[key[j] * step + ...] += alpha * from[at[j] * stride + ...], or = from (the
 * last one stays), over an inner space. Where a key is at or above `none` nothing is written. index.cu has
 * it. */
enum { PG_SUMS_DIMS = PG_K_DIMS };
typedef struct pg_sums {
    pg_ordering order;
    bool wide;                                   /* keys are uint64_t */
    uint64_t none;
    int64_t m, key_step;
    int outer_n, inner_n;                        /* what a place stands for; what lies at each place */
    int64_t outer_shape[PG_SUMS_DIMS], outer_stride[PG_SUMS_DIMS];
    int64_t inner_shape[PG_SUMS_DIMS], inner_from[PG_SUMS_DIMS], inner_to[PG_SUMS_DIMS];
    const void *from;
    void *to;
    double alpha;
} pg_sums;
int pg_sum_by_place_cuda(const pg_context *c, int dtype, const pg_sums *s, bool accumulate);

#endif
