/* gelu.h: what a product's epilogue and the pointwise op compute alike, to the bit. */
#ifndef PG_CUDA_GELU_H
#define PG_CUDA_GELU_H

#include "cuda.h"

/* e^(t^2) erfc(t), t >= 0: the polynomial of the CPU's mathf.h in (t - k) / (t + k), over t + k. */
static __device__ __forceinline__ float erfcx_of(float t) {
    const float d = 1.0f / (t + 2.0f), q = fmaf(-4.0f, d, 1.0f);
    float p = 6.327862e-05f;
    p = fmaf(p, q, 3.763922e-05f);
    p = fmaf(p, q, -0.00058809813f);
    p = fmaf(p, q, -0.00082189107f);
    p = fmaf(p, q, 0.0030619854f);
    p = fmaf(p, q, 0.0064720446f);
    p = fmaf(p, q, -0.021505808f);
    p = fmaf(p, q, -0.03644123f);
    p = fmaf(p, q, 0.27947178f);
    p = fmaf(p, q, -0.68716073f);
    return fmaf(p, q, 1.0215827f) * d;
}
static __device__ __forceinline__ double erfcx_of(double t) {
    double d = 1.0 / (t + 3.75), q = (t - 3.75) * d;
    q = t > 1e30 ? 1.0 : q;
    double p = 2.11745568745577328e-10;
    p = fma(p, q, 7.05245686815725405e-10);
    p = fma(p, q, -1.13752422169222451e-9);
    p = fma(p, q, -6.45549573844244004e-9);
    p = fma(p, q, 4.58717226631166113e-9);
    p = fma(p, q, 4.21993608980006042e-8);
    p = fma(p, q, -2.81353385625088148e-8);
    p = fma(p, q, -2.65509800926708437e-7);
    p = fma(p, q, 2.80467299174961077e-7);
    p = fma(p, q, 1.65705677376589712e-6);
    p = fma(p, q, -3.28959336213926661e-6);
    p = fma(p, q, -8.90430266492308966e-6);
    p = fma(p, q, 0.0000374717087876496772);
    p = fma(p, q, 0.0000105940739632606065);
    p = fma(p, q, -0.000348646845161072902);
    p = fma(p, q, 0.00079482308681763746);
    p = fma(p, q, 0.000986338077791426406);
    p = fma(p, q, -0.0125358800398574048);
    p = fma(p, q, 0.0491187786154283336);
    p = fma(p, q, -0.131955401178598243);
    p = fma(p, q, 0.279062049033778417);
    p = fma(p, q, -0.490470291207676833);
    p = fma(p, q, 0.736318925221751719);
    p = fma(p, q, -0.958741576652909579);
    return fma(p, q, 1.09192290956278904) * d;
}
/* The standard normal's distribution function, relative accuracy in both tails; e is e^(-x^2 / 2). */
static __device__ __forceinline__ float normal_cdf(float x, float e) {
    const float upper = 0.5f * erfcx_of(fabsf(x) * 0.70710678f) * e;
    return x < 0.0f ? upper : 1.0f - upper;
}
static __device__ __forceinline__ double normal_cdf(double x, double e) {
    const double upper = 0.5 * erfcx_of(fabs(x) * 0.7071067811865475244) * e;
    return x < 0.0 ? upper : 1.0 - upper;
}

/* x times the normal distribution function. */
template <class R> static __device__ __forceinline__ R gelu(R x) { return x * normal_cdf(x, exp(R(-0.5) * x * x)); }
/* 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
template <class R> static __device__ __forceinline__ R gelu_tanh(R x) {
    const R u2 = R(1.59576912160573071) * x * fma(R(0.044715) * x, x, R(1));
    return x / (1 + exp(-u2));
}

#endif
