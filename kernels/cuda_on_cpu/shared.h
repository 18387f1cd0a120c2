/* shared.h: a block's shared memory. */
#ifndef PG_ON_CPU_SHARED_H
#define PG_ON_CPU_SHARED_H

#include <stddef.h>

namespace on_cpu {

/* The dynamic part for one launch: 128-byte aligned; NULL where bytes is 0 or no memory is left. Under the address sanitizer it is
 * exactly that long. */
char *shared_begin(size_t bytes);
void shared_end(char *dynamic);

/* Fills it with NaN (all bits set), and the variables that kernels declare __shared__. */
void shared_poison(char *dynamic, size_t bytes);

}   // namespace on_cpu

#endif
