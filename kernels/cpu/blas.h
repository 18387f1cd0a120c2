/* blas.h: the library that large matrix products go to: cblas's entries, one thread a caller. */
#ifndef PG_BLAS_H
#define PG_BLAS_H

enum { PG_BLAS_ROW_MAJOR = 101, PG_BLAS_AS_IS = 111, PG_BLAS_TRANSPOSED = 112 };   /* cblas.h's numbers */

typedef struct pg_blas {
    void (*gemm_f32)(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                     float beta, float *c, int ldc);
    void (*gemm_f64)(int order, int ta, int tb, int m, int n, int k, double alpha, const double *a, int lda, const double *b,
                     int ldb, double beta, double *c, int ldc);
} pg_blas;

#endif
