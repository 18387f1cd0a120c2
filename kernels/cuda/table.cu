/* table.cu: the CUDA kernels as a table. */
#include "cuda.h"

extern "C" const pg_kernels pg_kernels_cuda;
const pg_kernels pg_kernels_cuda = {
    PG_KERNELS_HASH,
    "cuda",
#define X(name) PG_K(name),
    PG_ENTRIES(X)
#undef X
};
