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
int PG_K(pointwise)(const pg_context *, int op, int dtype, const pg_strided *s, const double *p);
int PG_K(copy)(const pg_context *, int to, int from, const pg_strided *s);
int PG_K(fill)(const pg_context *, int dtype, const pg_strided *s, pg_value value);
int PG_K(reduce)(const pg_context *, int op, int dtype, const pg_reduction *r);
int PG_K(scan)(const pg_context *, int op, int dtype, int64_t outer, int64_t n, int64_t inner, const void *in, void *out);
int PG_K(sort)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *in, void *values, int64_t *indices,
               bool descending);
int PG_K(topk)(const pg_context *, int dtype, int64_t rows, int64_t n, int64_t k, const void *in, void *values,
               int64_t *indices, bool largest);
int PG_K(arange)(const pg_context *, int dtype, int64_t n, pg_value start, pg_value step, void *out);
int PG_K(linspace)(const pg_context *, int dtype, int64_t n, double start, double end, void *out);
int PG_K(random)(const pg_context *, int kind, int dtype, int64_t n, pg_value a, pg_value b, const pg_philox *state, void *out);
int PG_K(dropout)(const pg_context *, int dtype, int64_t n, double p, const pg_philox *state, const void *x, void *out,
                  bool *mask);
int PG_K(index_select)(const pg_context *, int item, const pg_rows *r, const void *in, void *out);
int PG_K(index_add)(const pg_context *, int dtype, const pg_rows *r, const void *source, double alpha, void *self);
int PG_K(gather)(const pg_context *, int item, const pg_gathering *g);
int PG_K(scatter_add)(const pg_context *, int dtype, const pg_gathering *g);
int PG_K(scatter)(const pg_context *, int item, const pg_gathering *g);
int PG_K(index_get)(const pg_context *, int item, const pg_advanced *a);
int PG_K(index_put)(const pg_context *, int dtype, const pg_advanced *a, bool accumulate);
int PG_K(nonzero)(const pg_context *, int64_t n, const bool *in, int64_t *count, int64_t *out);
int PG_K(triangle)(const pg_context *, int item, int64_t batch, int64_t rows, int64_t cols, int64_t k, bool upper,
                   const void *in, void *out);
int PG_K(gemm)(const pg_context *, int dtype, const pg_gemm *g);
int PG_K(softmax)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *in, void *out, bool log);
int PG_K(softmax_backward)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *grad, const void *result,
                           void *out, bool log);
int PG_K(layer_norm)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *x, const void *weight,
                     const void *bias, double eps, void *y, void *mean, void *rstd);
int PG_K(layer_norm_backward)(const pg_context *, int dtype, int64_t rows, int64_t n, const void *grad, const void *x,
                              const void *weight, const void *mean, const void *rstd, void *dx, void *dweight, void *dbias);
int PG_K(cross_entropy)(const pg_context *, int dtype, const pg_classifier *c, void *loss, void *lse, void *row_weight);
int PG_K(cross_entropy_backward)(const pg_context *, int dtype, const pg_classifier *c, const void *lse,
                                 const void *grad_rows, int64_t grad_stride, void *dlogits);
int PG_K(attention)(const pg_context *, int dtype, const pg_attention *a);
int PG_K(attention_backward)(const pg_context *, int dtype, const pg_attention *a);
int PG_K(sgd)(const pg_context *, int dtype, const pg_parameters *p, const double *hyper);
int PG_K(adam)(const pg_context *, int dtype, const pg_parameters *p, const double *hyper);
int PG_K(total_norm)(const pg_context *, int dtype, const pg_parameters *p, double order, double *out);
int PG_K(clip_scale)(const pg_context *, int dtype, const pg_parameters *p, double max_norm, const double *norm);

#endif
