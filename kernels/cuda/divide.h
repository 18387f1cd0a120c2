/* divide.h: from a linear position to the places along each dimension. */
#ifndef PG_DIVIDE_H
#define PG_DIVIDE_H

#include "cuda.h"

static inline int64_t count_of(int ndim, const int64_t *shape) {
    int64_t n = 1;
    for (int d = 0; d < ndim; d++) n *= shape[d];
    return n;
}

/* n / size for n < 2^31 (Granlund and Montgomery 1994). */
struct divisor { uint32_t size, multiplier, shift; };
static inline divisor divisor_of(int64_t size) {
    divisor d = {(uint32_t)size, 0, 0};
    while ((INT64_C(1) << d.shift) < size) d.shift++;
    d.multiplier = (uint32_t)((((UINT64_C(1) << d.shift) - (uint64_t)size) << 32) / (uint64_t)size + 1);
    return d;
}
static __device__ __forceinline__ uint32_t divide(uint32_t n, const divisor &d) {
    return ((uint32_t)((uint64_t)n * d.multiplier >> 32) + n) >> d.shift;
}

#endif
