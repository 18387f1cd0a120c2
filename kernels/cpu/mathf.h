/* mathf.h: elementary functions without branches or calls, so that loops over them become vector code.
 *
 * Each takes and gives one value, for every input: subnormals, infinities and NaNs included. Errors are a
 * few units in the last place; the polynomials are near-minimax (Chebyshev) fits on the stated intervals. A
 * vector loop and its scalar remainder give the same bits, because every step is one IEEE operation (fma
 * only through fma32 and fma64).
 */
#ifndef PG_MATHF_H
#define PG_MATHF_H

#include <math.h>
#include <string.h>

#include "cpu.h"

static inline uint32_t bits_f32(float x) { uint32_t u; memcpy(&u, &x, sizeof u); return u; }
static inline float float_of(uint32_t u) { float x; memcpy(&x, &u, sizeof x); return x; }
static inline uint64_t bits_f64(double x) { uint64_t u; memcpy(&u, &x, sizeof u); return u; }
static inline double double_of(uint64_t u) { double x; memcpy(&x, &u, sizeof x); return x; }
/* 2^e, e in the normal range. */
static inline float pow2_f32(int32_t e) { return float_of((uint32_t)(e + 127) << 23); }
static inline double pow2_f64(int64_t e) { return double_of((uint64_t)(e + 1023) << 52); }

/* Adding 1.5 * 2^23 (1.5 * 2^52) rounds to the nearest integer, which then stands in the low bits. */
#define ROUND_F32 12582912.0f
#define ROUND_F64 6755399441055744.0
#define LN2_HI_F32 0.69287109375f                 /* 11 bits: n * LN2_HI is exact */
#define LN2_LO_F32 0.000276086809945f
#define LN2_HI_F64 0x1.62e42fee00000p-1           /* 32 bits */
#define LN2_LO_F64 1.908214929270587816144e-10
#define LOG2E 1.44269504088896340736

/* (e^r - 1 - r) / r^2, |r| <= ln2 / 2. */
static inline float exp_tail_f32(float r) {
    float p = 0.0013926825f;
    p = fma32(p, r, 0.008363693f);
    p = fma32(p, r, 0.041666552f);
    p = fma32(p, r, 0.16666573f);
    return fma32(p, r, 0.5f);
}
static inline double exp_tail_f64(double r) {
    double p = 2.09147012831032839e-9;
    p = fma64(p, r, 2.51052370507602993e-8);
    p = fma64(p, r, 2.75572736087090067e-7);
    p = fma64(p, r, 2.75572553520326723e-6);
    p = fma64(p, r, 0.0000248015873255748678);
    p = fma64(p, r, 0.000198412698748586118);
    p = fma64(p, r, 0.00138888888888837405);
    p = fma64(p, r, 0.00833333333332612426);
    p = fma64(p, r, 0.0416666666666666698);
    p = fma64(p, r, 0.16666666666666671);
    return fma64(p, r, 0.5);
}

static inline float exp_f32(float x) {
    float c = x > 88.8f ? 88.8f : x;
    c = c < -104.0f ? -104.0f : c;
    float t = fma32(c, (float)LOG2E, ROUND_F32), n = t - ROUND_F32;
    float r = fma32(n, -LN2_LO_F32, fma32(n, -LN2_HI_F32, c));
    float y = 1.0f + fma32(exp_tail_f32(r), r * r, r);
    /* two steps: 2^e may be subnormal */
    int32_t e = (int32_t)(bits_f32(t) - bits_f32(ROUND_F32)), half = e >> 1;
    return y * pow2_f32(half) * pow2_f32(e - half);
}
static inline double exp_f64(double x) {
    double c = x > 710.0 ? 710.0 : x;
    c = c < -746.0 ? -746.0 : c;
    double t = fma64(c, LOG2E, ROUND_F64), n = t - ROUND_F64;
    double r = fma64(n, -LN2_LO_F64, fma64(n, -LN2_HI_F64, c));
    double y = 1.0 + fma64(exp_tail_f64(r), r * r, r);
    int32_t e = (int32_t)(uint32_t)(bits_f64(t) - bits_f64(ROUND_F64)), half = e >> 1;
    return y * pow2_f64(half) * pow2_f64(e - half);
}

static inline float exp2_f32(float x) {
    float c = x > 129.0f ? 129.0f : x;
    c = c < -151.0f ? -151.0f : c;
    float t = c + ROUND_F32, r = (c - (t - ROUND_F32)) * 0.69314718056f;
    float y = 1.0f + fma32(exp_tail_f32(r), r * r, r);
    int32_t e = (int32_t)(bits_f32(t) - bits_f32(ROUND_F32)), half = e >> 1;
    return y * pow2_f32(half) * pow2_f32(e - half);
}
static inline double exp2_f64(double x) {
    double c = x > 1025.0 ? 1025.0 : x;
    c = c < -1076.0 ? -1076.0 : c;
    double t = c + ROUND_F64, r = (c - (t - ROUND_F64)) * 0.69314718055994530942;
    double y = 1.0 + fma64(exp_tail_f64(r), r * r, r);
    int32_t e = (int32_t)(uint32_t)(bits_f64(t) - bits_f64(ROUND_F64)), half = e >> 1;
    return y * pow2_f64(half) * pow2_f64(e - half);
}

/* e^x - 1 = ((e^r - 1) 2^a + (2^a - 2^-b)) 2^b, a + b = n. */
static inline float expm1_f32(float x) {
    float c = x > 88.8f ? 88.8f : x;
    c = c < -25.0f ? -25.0f : c;
    float t = fma32(c, (float)LOG2E, ROUND_F32), n = t - ROUND_F32;
    float r = fma32(n, -LN2_LO_F32, fma32(n, -LN2_HI_F32, c));
    float y = fma32(exp_tail_f32(r), r * r, r);
    int32_t e = (int32_t)(bits_f32(t) - bits_f32(ROUND_F32)), half = e >> 1;
    float s = pow2_f32(half);
    float result = fma32(y, s, s - pow2_f32(half - e)) * pow2_f32(e - half);
    return x == 0.0f ? x : result;
}
static inline double expm1_f64(double x) {
    double c = x > 710.0 ? 710.0 : x;
    c = c < -50.0 ? -50.0 : c;
    double t = fma64(c, LOG2E, ROUND_F64), n = t - ROUND_F64;
    double r = fma64(n, -LN2_LO_F64, fma64(n, -LN2_HI_F64, c));
    double y = fma64(exp_tail_f64(r), r * r, r);
    int32_t e = (int32_t)(uint32_t)(bits_f64(t) - bits_f64(ROUND_F64)), half = e >> 1;
    double s = pow2_f64(half);
    double result = fma64(y, s, s - pow2_f64(half - e)) * pow2_f64(e - half);
    return x == 0.0 ? x : result;
}

/* log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)), low receives what is to be added first (a multiple of the
 * low part of ln 2). */
static inline float log_near1_f32(float f, float low) {
    float q = 0.06971612f;
    q = fma32(q, f, -0.11479734f);
    q = fma32(q, f, 0.1168542f);
    q = fma32(q, f, -0.12425687f);
    q = fma32(q, f, 0.14249058f);
    q = fma32(q, f, -0.16667803f);
    q = fma32(q, f, 0.20000716f);
    q = fma32(q, f, -0.24999997f);
    q = fma32(q, f, 0.3333333f);
    float f2 = f * f;
    return f + fma32(-0.5f, f2, fma32(q, f2 * f, low));
}
/* 2s = f - s f with s = f / (2 + f), and log(1 + f) = 2 atanh(s). */
static inline double log_near1_f64(double f, double low) {
    double s = f / (2.0 + f), z = s * s;
    double q = 0.14617807153417325;
    q = fma64(q, z, 0.153316117220550079);
    q = fma64(q, z, 0.181828924325368712);
    q = fma64(q, z, 0.222222110893794962);
    q = fma64(q, z, 0.285714286262538376);
    q = fma64(q, z, 0.399999999998988905);
    q = fma64(q, z, 0.666666666666666971);
    return f - (s * (f - z * q) - low);
}

#define SQRT_HALF_BITS_F32 0x3f3504f3u
#define SQRT_HALF_BITS_F64 UINT64_C(0x3fe6a09e667f3bcd)

static inline float log_f32(float x) {
    bool tiny = x < 1.17549435e-38f;
    float y = tiny ? x * 8388608.0f : x;
    uint32_t u = bits_f32(y) - SQRT_HALF_BITS_F32;
    float e = (float)((int32_t)u >> 23) - (tiny ? 23.0f : 0.0f);
    float f = float_of((u & 0x7fffffu) + SQRT_HALF_BITS_F32) - 1.0f;
    float r = fma32(e, LN2_HI_F32, log_near1_f32(f, e * LN2_LO_F32));
    r = x == INFINITY ? x : r;
    r = x == 0.0f ? -INFINITY : r;
    r = x < 0.0f ? NAN : r;
    return x != x ? x : r;
}
static inline double log_f64(double x) {
    bool tiny = x < 2.2250738585072014e-308;
    double y = tiny ? x * 4503599627370496.0 : x;
    uint64_t u = bits_f64(y) - SQRT_HALF_BITS_F64;
    double e = (double)(int32_t)((uint32_t)(u >> 52) << 20 >> 20);
    e = (e >= 2048.0 ? e - 4096.0 : e) - (tiny ? 52.0 : 0.0);
    double f = double_of((u & UINT64_C(0xfffffffffffff)) + SQRT_HALF_BITS_F64) - 1.0;
    double r = fma64(e, LN2_HI_F64, log_near1_f64(f, e * LN2_LO_F64));
    r = x == (double)INFINITY ? x : r;
    r = x == 0.0 ? -(double)INFINITY : r;
    r = x < 0.0 ? (double)NAN : r;
    return x != x ? x : r;
}
static inline float log2_f32(float x) { return (float)(log_f64((double)x) * LOG2E); }
static inline double log2_f64(double x) { return log2(x); }
static inline float log10_f32(float x) { return (float)(log_f64((double)x) * 0.43429448190325182765); }
static inline double log10_f64(double x) { return log10(x); }

/* u = 1 + x rounded, what was lost is c: log(1 + x) = log(u) + c / u to first order. */
static inline float log1p_f32(float x) {
    float w = 1.0f + x, c = x > 1.0f ? 1.0f - (w - x) : x - (w - 1.0f);
    uint32_t u = bits_f32(w) - SQRT_HALF_BITS_F32;
    int32_t k = (int32_t)u >> 23;
    float e = (float)k, m = float_of((u & 0x7fffffu) + SQRT_HALF_BITS_F32);
    float f = m - 1.0f, scale = m / w;                   /* 2^-e */
    f = f + c * scale;
    float r = fma32(e, LN2_HI_F32, log_near1_f32(f, e * LN2_LO_F32));
    r = x == INFINITY ? x : r;
    r = x == -1.0f ? -INFINITY : r;
    r = x < -1.0f ? NAN : r;
    r = x == 0.0f ? x : r;
    return x != x ? x : r;
}
static inline double log1p_f64(double x) {
    double w = 1.0 + x, c = x > 1.0 ? 1.0 - (w - x) : x - (w - 1.0);
    uint64_t u = bits_f64(w) - SQRT_HALF_BITS_F64;
    double e = (double)(int32_t)((uint32_t)(u >> 52) << 20 >> 20);
    e = e >= 2048.0 ? e - 4096.0 : e;
    double m = double_of((u & UINT64_C(0xfffffffffffff)) + SQRT_HALF_BITS_F64);
    double f = m - 1.0, scale = m / w;
    f = f + c * scale;
    double r = fma64(e, LN2_HI_F64, log_near1_f64(f, e * LN2_LO_F64));
    r = x == (double)INFINITY ? x : r;
    r = x == -1.0 ? -(double)INFINITY : r;
    r = x < -1.0 ? (double)NAN : r;
    r = x == 0.0 ? x : r;
    return x != x ? x : r;
}

/* tanh|x| = -t / (t + 2), t = e^(-2|x|) - 1. */
static inline float tanh_f32(float x) {
    float a = -2.0f * fabsf(x), c = a < -30.0f ? -30.0f : a;
    float m = fma32(c, (float)LOG2E, ROUND_F32), n = m - ROUND_F32;
    float r = fma32(n, -LN2_LO_F32, fma32(n, -LN2_HI_F32, c));
    float s = pow2_f32((int32_t)(bits_f32(m) - bits_f32(ROUND_F32)));
    float t = fma32(fma32(exp_tail_f32(r), r * r, r), s, s - 1.0f);
    return copysignf(t / (t + 2.0f), x);
}
static inline double tanh_f64(double x) {
    double t = expm1_f64(-2.0 * fabs(x));
    return copysign(t / (t + 2.0), x);
}

static inline float sigmoid_f32(float x) { return 1.0f / (1.0f + exp_f32(-x)); }
static inline double sigmoid_f64(double x) { return 1.0 / (1.0 + exp_f64(-x)); }

#define PG_NORMAL_FN static inline
#define PG_NORMAL_FMA32 fma32
#define PG_NORMAL_FMA64 fma64
#include "../normal.h"

static inline float erf_f32(float x) {
    float t = fabsf(x), z = t > 1.0f ? 1.0f : x * x;
    float p = 7.875875e-05f;
    p = fma32(p, z, -0.00080168643f);
    p = fma32(p, z, 0.0051890872f);
    p = fma32(p, z, -0.026854211f);
    p = fma32(p, z, 0.11283594f);
    p = fma32(p, z, -0.37612626f);
    p = fma32(p, z, 1.1283791f);
    float far = copysignf(1.0f - erfcx_f32(t) * exp_f32(-t * t), x);
    return t < 1.0f ? p * x : far;
}
static inline double erf_f64(double x) {
    double t = fabs(x), z = t > 1.0 ? 1.0 : x * x;
    double p = 5.9571761477489114e-11;
    p = fma64(p, z, -1.13728488567916737e-9);
    p = fma64(p, z, 1.46597752740474358e-8);
    p = fma64(p, z, -1.6350312701054695e-7);
    p = fma64(p, z, 1.6461000484121368e-6);
    p = fma64(p, z, -0.0000149255952668311816);
    p = fma64(p, z, 0.000120553311116427109);
    p = fma64(p, z, -0.000854832698083378991);
    p = fma64(p, z, 0.00522397762481801447);
    p = fma64(p, z, -0.0268661706450767932);
    p = fma64(p, z, 0.112837916709548787);
    p = fma64(p, z, -0.376126389031837481);
    p = fma64(p, z, 1.12837916709551257);
    double far = copysign(1.0 - erfcx_f64(t) * exp_f64(-t * t), x);
    return t < 1.0 ? p * x : far;
}

static inline float gelu_f32(float x) { return x * normal_cdf_f32(x, exp_f32(-0.5f * x * x)); }
static inline double gelu_f64(double x) { return x * normal_cdf_f64(x, exp_f64(-0.5 * x * x)); }
static inline float gelu_slope_f32(float x) {
    float e = exp_f32(-0.5f * x * x);
    return fma32(x * 0.3989422804f, e, normal_cdf_f32(x, e));
}
static inline double gelu_slope_f64(double x) {
    double e = exp_f64(-0.5 * x * x);
    return fma64(x * 0.39894228040143267794, e, normal_cdf_f64(x, e));
}

/* 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
static inline float gelu_tanh_f32(float x) {
    float u2 = 1.595769122f * x * fma32(0.044715f * x, x, 1.0f);
    return x / (1.0f + exp_f32(-u2));
}
static inline double gelu_tanh_f64(double x) {
    double u2 = 1.59576912160573071 * x * fma64(0.044715 * x, x, 1.0);
    return x / (1.0 + exp_f64(-u2));
}
/* s + x s (1 - s) du2/dx, s = sigmoid(u2); s (1 - s) = t / (1 + t)^2, t = e^-|u2|, keeps its digits where s
 * is nearly 1. */
static inline float gelu_tanh_slope_f32(float x) {
    float x2 = x * x, u2 = 1.595769122f * x * fma32(0.044715f, x2, 1.0f);
    float t = exp_f32(-fabsf(u2)), r = 1.0f / (1.0f + t), s = u2 < 0.0f ? t * r : r;
    return fma32(x * (t * r * r), 1.595769122f * fma32(0.134145f, x2, 1.0f), s);
}
static inline double gelu_tanh_slope_f64(double x) {
    double x2 = x * x, u2 = 1.59576912160573071 * x * fma64(0.044715, x2, 1.0);
    double t = exp_f64(-fabs(u2)), r = 1.0 / (1.0 + t), s = u2 < 0.0 ? t * r : r;
    return fma64(x * (t * r * r), 1.59576912160573071 * fma64(0.134145, x2, 1.0), s);
}

static inline float silu_f32(float x) { return x / (1.0f + exp_f32(-x)); }
static inline double silu_f64(double x) { return x / (1.0 + exp_f64(-x)); }
static inline float silu_slope_f32(float x) { float s = sigmoid_f32(x); return s * fma32(x, 1.0f - s, 1.0f); }
static inline double silu_slope_f64(double x) {
    double s = sigmoid_f64(x);
    return s * fma64(x, 1.0 - s, 1.0);
}

static inline float softplus_f32(float x, float beta, float threshold) {
    float z = x * beta;
    return z > threshold ? x : log1p_f32(exp_f32(z)) / beta;
}
static inline double softplus_f64(double x, double beta, double threshold) {
    double z = x * beta;
    return z > threshold ? x : log1p_f64(exp_f64(z)) / beta;
}

/* sin and cos of a float in double: three-part reduction by pi/2, exact enough up to 2^20; the driver in
 * pointwise.c takes what lies beyond to the C library. */
#define SINCOS_LIMIT 1048576.0f
static inline double reduce_pi2(double x, uint32_t *quadrant) {
    double t = x * 0.63661977236758134308 + ROUND_F64, n = t - ROUND_F64;
    *quadrant = (uint32_t)bits_f64(t);
    return ((x - n * 0x1.921fb54400000p+0) - n * 0x1.0b4611a600000p-34) - n * 0x1.3198a2e037073p-69;
}
static inline double sin_poly(double r) {
    double z = r * r, p = 1.59178486651219391e-10;
    p = fma64(p, z, -2.50511279459656386e-8);
    p = fma64(p, z, 2.75573160838257406e-6);
    p = fma64(p, z, -0.000198412698367224359);
    p = fma64(p, z, 0.00833333333333092457);
    p = fma64(p, z, -0.166666666666666646);
    return fma64(p * z, r, r);
}
static inline double cos_poly(double r) {
    double z = r * r, p = -1.13824568658404824e-11;
    p = fma64(p, z, 2.08761438292139369e-9);
    p = fma64(p, z, -2.75573172600147074e-7);
    p = fma64(p, z, 0.0000248015872987430806);
    p = fma64(p, z, -0.00138888888888873823);
    p = fma64(p, z, 0.0416666666666666654);
    return fma64(p * z, z, fma64(-0.5, z, 1.0));
}
static inline float sin_f32(float x) {
    uint32_t q;
    double r = reduce_pi2((double)x, &q), s = sin_poly(r), c = cos_poly(r);
    double v = q & 1 ? c : s;
    return x == 0.0f ? x : (float)(q & 2 ? -v : v);
}
static inline float cos_f32(float x) {
    uint32_t q;
    double r = reduce_pi2((double)x, &q), s = sin_poly(r), c = cos_poly(r);
    double v = q & 1 ? s : c;
    return (float)((q + 1) & 2 ? -v : v);
}
static inline float tan_f32(float x) {
    uint32_t q;
    double r = reduce_pi2((double)x, &q), s = sin_poly(r), c = cos_poly(r);
    double up = q & 1 ? -c : s, down = q & 1 ? s : c;
    return x == 0.0f ? x : (float)(up / down);
}
static inline double sin_f64(double x) { return sin(x); }
static inline double cos_f64(double x) { return cos(x); }
static inline double tan_f64(double x) { return tan(x); }

static inline float sinh_f32(float x) {
    double e = expm1_f64(fabs((double)x));
    return copysignf((float)(0.5 * (e + (e > 1e20 ? 1.0 : e / (e + 1.0)))), x);
}
static inline double sinh_f64(double x) { return sinh(x); }
static inline float cosh_f32(float x) {
    double e = exp_f64(fabs((double)x));
    return (float)(0.5 * (e + 1.0 / e));
}
static inline double cosh_f64(double x) { return cosh(x); }

/* Through double, to 1e-9 of the result: one float rounding remains. */
static inline float pow_f32(float x, float y) {
    double a = fabs((double)x), b = (double)y;
    uint64_t u = bits_f64(a) - SQRT_HALF_BITS_F64;
    double e = (double)(int32_t)((uint32_t)(u >> 52) << 20 >> 20);
    e = e >= 2048.0 ? e - 4096.0 : e;
    double f = double_of((u & UINT64_C(0xfffffffffffff)) + SQRT_HALF_BITS_F64) - 1.0;
    double s = f / (2.0 + f), z = s * s, z2 = z * z;
    double q = fma64(fma64(0.233316144718434992, z, 0.285507786331919654), z2,
                     fma64(0.400001222118106494, z, 0.666666665540420124));
    double l = fma64(e, 0.69314718055994530942, f - s * (f - z * q));
    l = a == 0.0 ? -(double)INFINITY : l;
    l = a < (double)INFINITY ? l : a;                       /* inf, NaN */
    double c = b * l;
    c = c > 89.0 ? 89.0 : c;
    c = c < -105.0 ? -105.0 : c;
    double t = fma64(c, LOG2E, ROUND_F64), r = fma64(t - ROUND_F64, -0.69314718055994530942, c), r2 = r * r;
    double tail = fma64(fma64(0.000198910095963083161, r, 0.00139336669000069318), r2 * r2,
                        fma64(fma64(0.00833331090856545328, r, 0.0416664647729668138), r2,
                              fma64(0.166666666816401663, r, 0.500000001348105802)));
    double v = (1.0 + fma64(tail, r2, r)) * pow2_f64((int32_t)(uint32_t)(bits_f64(t) - bits_f64(ROUND_F64)));
    double h = 0.5 * b, round_b = (b + ROUND_F64) - ROUND_F64, round_h = (h + ROUND_F64) - ROUND_F64;
    bool big = fabs(b) >= 16777216.0, integer = big | (round_b == b), even = big | (round_h == h);
    bool negative = (bits_f32(x) >> 31) != 0;
    v = (negative & integer & !even) ? -v : v;
    v = (negative & !integer & (a > 0.0) & (a < (double)INFINITY)) ? (double)NAN : v;
    v = ((a == 1.0) & big & (b == b)) ? 1.0 : v;
    v = x == 1.0f ? 1.0 : v;
    return y == 0.0f ? 1.0f : (float)v;
}
static inline double pow_f64(double x, double y) { return pow(x, y); }

static inline float sqrt_f32(float x) { return sqrtf(x); }
static inline double sqrt_f64(double x) { return sqrt(x); }
static inline float abs_f32(float x) { return fabsf(x); }
static inline double abs_f64(double x) { return fabs(x); }
static inline float floor_f32(float x) { return floorf(x); }
static inline double floor_f64(double x) { return floor(x); }
static inline float ceil_f32(float x) { return ceilf(x); }
static inline double ceil_f64(double x) { return ceil(x); }
static inline float trunc_f32(float x) { return truncf(x); }
static inline double trunc_f64(double x) { return trunc(x); }
static inline float round_f32(float x) { return rintf(x); }
static inline double round_f64(double x) { return rint(x); }
static inline float fmod_f32(float x, float y) { return fmodf(x, y); }
static inline double fmod_f64(double x, double y) { return fmod(x, y); }
static inline float atan2_f32(float y, float x) { return atan2f(y, x); }
static inline double atan2_f64(double y, double x) { return atan2(y, x); }
static inline float copysign_f32(float x, float y) { return copysignf(x, y); }
static inline double copysign_f64(double x, double y) { return copysign(x, y); }

/* Python's % and //: the remainder has the divisor's sign. */
static inline float remainder_f32(float a, float b) {
    float m = fmodf(a, b);
    return m != 0.0f && (b < 0.0f) != (m < 0.0f) ? m + b : m;
}
static inline double remainder_f64(double a, double b) {
    double m = fmod(a, b);
    return m != 0.0 && (b < 0.0) != (m < 0.0) ? m + b : m;
}
static inline float floor_divide_f32(float a, float b) {
    if (b == 0.0f) return a / b;
    float m = fmodf(a, b), d = (a - m) / b;
    if (m != 0.0f && (b < 0.0f) != (m < 0.0f)) d -= 1.0f;
    if (d == 0.0f) return copysignf(0.0f, a / b);
    float f = floorf(d);
    return d - f > 0.5f ? f + 1.0f : f;
}
static inline double floor_divide_f64(double a, double b) {
    if (b == 0.0) return a / b;
    double m = fmod(a, b), d = (a - m) / b;
    if (m != 0.0 && (b < 0.0) != (m < 0.0)) d -= 1.0;
    if (d == 0.0) return copysign(0.0, a / b);
    double f = floor(d);
    return d - f > 0.5 ? f + 1.0 : f;
}

#endif
