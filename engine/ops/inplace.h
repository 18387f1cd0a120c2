/* inplace.h: in-place ops that write straight into their tensor. (Twins of functional ops are generated and
 * need none of this.)
 *
 *     pg_tensor twin = PG_HANDLE;
 *     int status = pg_inplace_open(&twin, self, &rule, args, sizeof args, n, inputs);   inputs[0] is self
 *     if (status < 0) return status;
 *     return pg_inplace_close(&twin, self, write(self, ...));
 *
 * open refuses what must not be written to and, where gradients are recorded, makes the node while the inputs
 * are still as they were; saved inputs that share memory with self are copied. close counts the change and
 * gives self its new history.
 */
#ifndef PG_INPLACE_H
#define PG_INPLACE_H

#include "core/door.h"
#include "ops.h"

/* twin: an empty handle; stays empty where nothing is recorded. */
int pg_inplace_open(pg_tensor *twin, const pg_tensor *self, const pg_rule *rule, const void *args,
                    size_t args_size, int n, const pg_tensor *const *inputs);
/* status: that of the write, handed on. */
int pg_inplace_close(pg_tensor *twin, const pg_tensor *self, int status);

#endif
