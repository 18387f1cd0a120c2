/* openblas.h: the library for large matrix products, opened when the first of them is met. */
#ifndef PG_OPENBLAS_H
#define PG_OPENBLAS_H

#include "../../kernels/cpu/blas.h"

/* NULL where there is no OpenBLAS, or PERIGEE_OPENBLAS=off says to do without; a path there names the library to open.
 * Thread-safe. */
const pg_blas *pg_openblas(void);

#endif
