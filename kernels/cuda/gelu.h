/* gelu.h: what a product's epilogue and the pointwise op compute alike, to the bit. */
#ifndef PG_CUDA_GELU_H
#define PG_CUDA_GELU_H

#include "cuda.h"

#define PG_NORMAL_FN static __device__ __forceinline__
#define PG_NORMAL_FMA32 fmaf
#define PG_NORMAL_FMA64 fma
#include "../normal.h"

static __device__ __forceinline__ float normal_cdf(float x, float e) { return normal_cdf_f32(x, e); }
static __device__ __forceinline__ double normal_cdf(double x, double e) { return normal_cdf_f64(x, e); }

/* x times the normal distribution function. */
template <class R> static __device__ __forceinline__ R gelu(R x) { return x * normal_cdf(x, exp(R(-0.5) * x * x)); }
/* 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
template <class R> static __device__ __forceinline__ R gelu_tanh(R x) {
    const R u2 = R(1.59576912160573071) * x * fma(R(0.044715) * x, x, R(1));
    return x / (1 + exp(-u2));
}

#endif
