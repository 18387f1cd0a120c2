/* cpu.h: what every CPU kernel file starts with. Each file is compiled once per instruction set with -DPG_ISA=<name>; PG_K(f) is
 * f_<name>, so that nothing compiled for one set can be linked into another. Everything else is static. */
#ifndef PG_CPU_H
#define PG_CPU_H

#include "../kernels.h"

#define PG_PASTE_(a, b) a##_##b
#define PG_PASTE(a, b) PG_PASTE_(a, b)
#define PG_K(name) PG_PASTE(pg_##name, PG_ISA)

/* Splits [0, n) over the context's workers. */
static inline void parallel(const pg_context *c, int64_t n, int64_t grain, pg_body body, void *arg) {
    if (c->threads == 1 || n <= (grain < c->grain_limit ? grain : c->grain_limit)) body(arg, 0, n, 0);
    else c->parallel(c, n, grain, body, arg);
}

/* a * b + c, rounded once where the instruction set can; never contracted behind our back (-ffp-contract=off). */
#ifdef __FMA__
static inline float fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
#elif defined(__aarch64__)
static inline float fma32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
static inline float fma32(float a, float b, float c) { return a * b + c; }
static inline double fma64(double a, double b, double c) { return a * b + c; }
#endif

/* The files' entries, gathered into one table by table.c. */
#define X(name) __typeof__(*((pg_kernels *)0)->name) PG_K(name);
PG_ENTRIES(X)
#undef X

#endif
