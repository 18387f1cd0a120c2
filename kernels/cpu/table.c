/* table.c: one instruction set's kernels as a table. */
#include "cpu.h"

extern const pg_kernels PG_K(kernels);
const pg_kernels PG_K(kernels) = {
    .hash = PG_KERNELS_HASH,
#define PG_TEXT_(x) #x
#define PG_TEXT(x) PG_TEXT_(x)
    .name = PG_TEXT(PG_ISA),
#define X(name) .name = PG_K(name),
    PG_ENTRIES(X)
#undef X
};
