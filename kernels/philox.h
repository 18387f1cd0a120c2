/* philox.h: random numbers, the same on every device, instruction set, number of threads and grid.
 *
 * Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key is the seed,
 * the counter (offset + i / 4) gives the four words of elements i .. i + 3 ("narrow" draws); "wide" draws
 * (float64, 64-bit integers) take two words each: element i has words 2 (i % 2) and 2 (i % 2) + 1 (low,
 * high) of counter offset + i / 2. A draw of n elements uses pg_philox_counters(...) counters.
 *
 * Everything after the words is IEEE additions, multiplications, divisions and square roots, one rounding
 * each, in the order written: compile with -ffp-contract=off (--fmad=false). This header is C, C++ and CUDA.
 */
#ifndef PG_PHILOX_H
#define PG_PHILOX_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#ifdef __CUDACC__
#define PG_PHILOX_FN static __host__ __device__ __forceinline__
#else
#define PG_PHILOX_FN static inline
#endif

/* One round on words a, b, c, d with keys k, l. */
#define PG_PHILOX_ROUND(a, b, c, d, k, l) do { \
        uint64_t p_ = (uint64_t)(a) * 0xd2511f53u, q_ = (uint64_t)(c) * 0xcd9e8d57u; \
        uint32_t a_ = (uint32_t)(q_ >> 32) ^ (b) ^ (k), c_ = (uint32_t)(p_ >> 32) ^ (d) ^ (l); \
        (a) = a_; (b) = (uint32_t)q_; (c) = c_; (d) = (uint32_t)p_; \
        (k) += 0x9e3779b9u; (l) += 0xbb67ae85u; \
    } while (0)

PG_PHILOX_FN void pg_philox_words(uint64_t seed, uint64_t counter, uint32_t *w0, uint32_t *w1, uint32_t *w2,
                                  uint32_t *w3) {
    uint32_t a = (uint32_t)counter, b = (uint32_t)(counter >> 32), c = 0, d = 0, k = (uint32_t)seed,
        l = (uint32_t)(seed >> 32);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    PG_PHILOX_ROUND(a, b, c, d, k, l);
    *w0 = a; *w1 = b; *w2 = c; *w3 = d;
}

/* The word of element i of a narrow draw. */
PG_PHILOX_FN uint32_t pg_philox_word(uint64_t seed, uint64_t offset, uint64_t i) {
    uint32_t w[4];
    pg_philox_words(seed, offset + i / 4, &w[0], &w[1], &w[2], &w[3]);
    return w[i % 4];
}

/* range: b - a of PG_K_RANDOM_INTEGER, 0 for 2^64. */
PG_PHILOX_FN int pg_philox_wide(int kind, int dtype, uint64_t range) {
    return kind == PG_K_RANDOM_BITS || (kind == PG_K_RANDOM_INTEGER
                                        && (range == 0 || range > UINT64_C(0x100000000)))
        || (dtype == PG_K_FLOAT64 && (kind == PG_K_RANDOM_UNIFORM || kind == PG_K_RANDOM_NORMAL));
}
/* What a draw of n elements advances the generator's offset by. */
PG_PHILOX_FN uint64_t pg_philox_counters(int kind, int dtype, uint64_t range, int64_t n) {
    return pg_philox_wide(kind, dtype, range) ? ((uint64_t)n + 1) / 2 : ((uint64_t)n + 3) / 4;
}

/* [0, 1): 24 bits, 53 bits, and as many as float16 and bfloat16 have, so that nothing is rounded up to 1. */
PG_PHILOX_FN float pg_uniform_f32(uint32_t w) { return (float)(int32_t)(w >> 8) * 0x1p-24f; }
PG_PHILOX_FN float pg_uniform_f16(uint32_t w) { return (float)(int32_t)(w >> 21) * 0x1p-11f; }
PG_PHILOX_FN float pg_uniform_bf16(uint32_t w) { return (float)(int32_t)(w >> 24) * 0x1p-8f; }
PG_PHILOX_FN double pg_uniform_f64(uint64_t x) {
    return (double)(int32_t)(uint32_t)(x >> 38) * 0x1p-26
        + (double)(int32_t)((uint32_t)(x >> 11) & 0x7ffffffu) * 0x1p-53;
}

/* Words below pg_threshold(p) have probability p. */
PG_PHILOX_FN uint64_t pg_threshold(double p) {
    double t = p * 4294967296.0;
    return t >= 4294967296.0 ? UINT64_C(0x100000000) : t > 0 ? (uint64_t)ceil(t) : 0;
}

/* Uniform integers in [0, range): the high part of a product, 32 x 32 or 64 x 64 bits. */
PG_PHILOX_FN uint64_t pg_below_narrow(uint32_t w, uint64_t range) { return (uint64_t)w * range >> 32; }
PG_PHILOX_FN uint64_t pg_below_wide(uint64_t x, uint64_t range) {
    if (range == 0) return x;
    uint64_t a = x >> 32, b = x & 0xffffffffu, c = range >> 32, d = range & 0xffffffffu;
    uint64_t middle = a * d + (b * d >> 32), other = b * c + (middle & 0xffffffffu);
    return a * c + (middle >> 32) + (other >> 32);
}

/* -2 ln u, u in (0, 1]. */
PG_PHILOX_FN float pg_minus_2_ln_f32(float u) {
    uint32_t bits;
    memcpy(&bits, &u, sizeof bits);
    bits -= 0x3f3504f3u;
    float e = (float)((int32_t)bits >> 23), m;
    bits = (bits & 0x7fffffu) + 0x3f3504f3u;
    memcpy(&m, &bits, sizeof m);
    float f = m - 1.0f, f2 = f * f;
    float q = 0.06971612f;
    q = q * f - 0.11479734f;
    q = q * f + 0.1168542f;
    q = q * f - 0.12425687f;
    q = q * f + 0.14249058f;
    q = q * f - 0.16667803f;
    q = q * f + 0.20000716f;
    q = q * f - 0.24999997f;
    q = q * f + 0.3333333f;
    float ln = e * 0.69314718f + (f - (0.5f * f2 - q * (f2 * f)));
    float r = -2.0f * ln;
    return r > 0.0f ? r : 0.0f;
}
PG_PHILOX_FN double pg_minus_2_ln_f64(double u) {
    uint64_t bits;
    memcpy(&bits, &u, sizeof bits);
    bits -= UINT64_C(0x3fe6a09e667f3bcd);
    int32_t exponent = (int32_t)(bits >> 32) >> 20;
    double e = (double)exponent, m;
    bits = (bits & UINT64_C(0xfffffffffffff)) + UINT64_C(0x3fe6a09e667f3bcd);
    memcpy(&m, &bits, sizeof m);
    double f = m - 1.0, s = f / (2.0 + f), z = s * s;
    double q = 0.14617807153417325;
    q = q * z + 0.153316117220550079;
    q = q * z + 0.181828924325368712;
    q = q * z + 0.222222110893794962;
    q = q * z + 0.285714286262538376;
    q = q * z + 0.399999999998988905;
    q = q * z + 0.666666666666666971;
    double ln = e * 0.693147180559945309 + (f - s * (f - z * q));
    double r = -2.0 * ln;
    return r > 0.0 ? r : 0.0;
}

/* Two normal numbers from two words (Box and Muller 1958): radius from the first, angle from the second, by
 * octants: three bits choose the octant, the rest v the place in it; sin and cos of pi/4 v are polynomials
 * in v^2. */
PG_PHILOX_FN void pg_normal_f32(uint32_t w0, uint32_t w1, float *z0, float *z1) {
    float u = ((float)(int32_t)(w0 >> 1) + 0.5f) * 0x1p-31f;
    float r = sqrtf(pg_minus_2_ln_f32(u));
    uint32_t octant = w1 >> 29;
    float t = (float)(int32_t)((w1 & 0x1fffffffu) >> 5) * 0x1p-24f;
    float v = octant & 1 ? 1.0f - t : t, y = v * v;
    float s = v * (((-3.595429e-05f * y + 0.0024900069f) * y - 0.080745436f) * y + 0.7853982f);
    float c = (((3.5297971e-06f * y - 0.0003259386f) * y + 0.015854325f) * y - 0.30842513f) * y + 1.0f;
    uint32_t swap = (octant + 1) & 2;
    float sine = swap ? c : s, cosine = swap ? s : c;
    *z0 = r * ((octant + 2) & 4 ? -cosine : cosine);
    *z1 = r * (octant & 4 ? -sine : sine);
}
PG_PHILOX_FN void pg_normal_f64(uint64_t x0, uint64_t x1, double *z0, double *z1) {
    uint64_t bits = (x0 >> 12) | UINT64_C(0x3ff0000000000000);
    double u, t;
    memcpy(&u, &bits, sizeof u);
    u = (u - 1.0) + 0x1p-53;
    double r = sqrt(pg_minus_2_ln_f64(u));
    uint32_t octant = (uint32_t)(x1 >> 61);
    bits = ((x1 >> 9) & UINT64_C(0xfffffffffffff)) | UINT64_C(0x3ff0000000000000);
    memcpy(&t, &bits, sizeof t);
    t = t - 1.0;
    double v = octant & 1 ? 1.0 - t : t, y = v * v;
    double s = -2.02259061858901134e-14;
    s = s * y + 6.94815411436722829e-12;
    s = s * y - 1.7572474204808876e-9;
    s = s * y + 3.13361688919281836e-7;
    s = s * y - 0.0000365762041821470865;
    s = s * y + 0.00249039457019271639;
    s = s * y - 0.0807455121882807815;
    s = v * (s * y + 0.78539816339744831);
    double c = 9.92836644809676809e-16;
    c = c * y - 3.89790372521139906e-13;
    c = c * y + 1.1501157415860446e-10;
    c = c * y - 2.4611369494856743e-8;
    c = c * y + 3.59086044858801989e-6;
    c = c * y - 0.000325991886927389335;
    c = c * y + 0.0158543442438155008;
    c = c * y - 0.308425137534042457;
    c = c * y + 1.0;
    uint32_t swap = (octant + 1) & 2;
    double sine = swap ? c : s, cosine = swap ? s : c;
    *z0 = r * ((octant + 2) & 4 ? -cosine : cosine);
    *z1 = r * (octant & 4 ? -sine : sine);
}

#endif
