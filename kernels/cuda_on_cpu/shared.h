/* shared.h: a block's shared memory. */
#ifndef PG_ON_CPU_SHARED_H
#define PG_ON_CPU_SHARED_H

#include <stddef.h>

namespace on_cpu {

/* The dynamic part for one launch: 128-byte aligned; NULL where bytes is 0 or no memory is left. Under the
 * address sanitizer it is exactly that long. */
char *shared_begin(size_t bytes);
void shared_end(char *dynamic);

/* A block begins: its shared memory, both the dynamic part and the variables that kernels declare
 * __shared__, is NaN (all bits set) where that is asked for, and for the thread sanitizer it is memory
 * that nobody has touched. */
void shared_next_block(char *dynamic, size_t bytes);

}   // namespace on_cpu

#endif
