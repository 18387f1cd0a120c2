#include "cuda.h"

extern "C" int PG_K(sgd)(const pg_context *, int, const pg_parameters *, const double *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(adam)(const pg_context *, int, const pg_parameters *, const double *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(total_norm)(const pg_context *, int, const pg_parameters *, double, double *) { return PG_KERNEL_UNSUPPORTED; }

extern "C" int PG_K(clip_scale)(const pg_context *, int, const pg_parameters *, double, const double *) { return PG_KERNEL_UNSUPPORTED; }
