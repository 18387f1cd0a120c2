/* convert.h: float16 and bfloat16 in bits <-> float32, round to nearest even, subnormals, infinities and
 * NaNs kept. */
#ifndef PG_CONVERT_H
#define PG_CONVERT_H

#include "mathf.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    uint32_t normal = (rest << 13) + (112u << 23);
    uint32_t special = (rest << 13) | 0x7f800000u;
    uint32_t tiny = bits_f32((float)(int32_t)rest * 0x1p-24f);
    uint32_t u = rest < 0x400u ? tiny : normal;
    u = rest >= 0x7c00u ? special : u;
    return float_of(u | sign);
}
static inline uint16_t f32_to_f16(float f) {
    uint32_t u = bits_f32(f), sign = (u >> 16) & 0x8000u, x = u & 0x7fffffffu;
    uint32_t normal = ((x + 0xfffu + ((x >> 13) & 1u)) >> 13) - (112u << 10);
    /* the sum's ulp is float16's smallest step */
    uint32_t tiny = bits_f32(float_of(x) + 0.5f) - bits_f32(0.5f);
    uint32_t h = x < 0x38800000u ? tiny : normal;
    h = x >= 0x477ff000u ? 0x7c00u : h;
    h = x > 0x7f800000u ? 0x7e00u | ((x >> 13) & 0x3ffu) : h;
    return (uint16_t)(h | sign);
}
static inline float bf16_to_f32(uint16_t h) { return float_of((uint32_t)h << 16); }
static inline uint16_t f32_to_bf16(float f) {
    uint32_t u = bits_f32(f);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}

/* n elements; widen and narrow by dtype, which is PG_K_FLOAT16 or PG_K_BFLOAT16. */
static inline void widen(int dtype, int64_t n, const uint16_t *in, float *out) {
    int64_t i = 0;
    if (dtype == PG_K_BFLOAT16) {
        for (; i < n; i++) out[i] = bf16_to_f32(in[i]);
        return;
    }
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(in + i))));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(in + i))));
#endif
    for (; i < n; i++) out[i] = f16_to_f32(in[i]);
}
static inline void narrow(int dtype, int64_t n, const float *in, uint16_t *out) {
    int64_t i = 0;
    if (dtype == PG_K_BFLOAT16) {
        for (; i < n; i++) out[i] = f32_to_bf16(in[i]);
        return;
    }
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(out + i), _mm512_cvtps_ph(_mm512_loadu_ps(in + i),
                                                                  _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(in + i),
                                                               _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++) out[i] = f32_to_f16(in[i]);
}

/* Floats to integers: truncated; NaN gives 0; out of range the nearest of the 32- or 64-bit type (narrower
 * types take the low bits of the 32-bit result, so that 300 becomes 44 in uint8 as a C cast of an int
 * would). */
static inline int32_t f64_to_i32(double x) {
    double c = x == x ? x : 0.0;
    c = c > 2147483647.0 ? 2147483647.0 : c;
    c = c < -2147483648.0 ? -2147483648.0 : c;
    return (int32_t)c;
}
static inline int32_t f32_to_i32(float x) {
    float c = x == x ? x : 0.0f;
    c = c < -2147483648.0f ? -2147483648.0f : c;
    float in_range = c >= 2147483648.0f ? 0.0f : c;
    int32_t i = (int32_t)in_range;
    return c >= 2147483648.0f ? INT32_MAX : i;
}
static inline int64_t f64_to_i64(double x) {
    double c = x == x ? x : 0.0;
    c = c < -9223372036854775808.0 ? -9223372036854775808.0 : c;
    double in_range = c >= 9223372036854775808.0 ? 0.0 : c;
    int64_t i = (int64_t)in_range;
    return c >= 9223372036854775808.0 ? INT64_MAX : i;
}
static inline int64_t f32_to_i64(float x) { return f64_to_i64((double)x); }

/* A constant as an element in memory. */
static inline void store_value(int dtype, pg_value v, void *to) {
#define STORE(T, e) { T x = (T)(e); memcpy(to, &x, sizeof x); } break
    switch (dtype) {
    case PG_K_BOOL: STORE(uint8_t, v.i != 0);
    case PG_K_UINT8: case PG_K_INT8: STORE(uint8_t, v.i);
    case PG_K_INT16: STORE(uint16_t, v.i);
    case PG_K_INT32: STORE(uint32_t, v.i);
    case PG_K_INT64: STORE(int64_t, v.i);
    case PG_K_FLOAT16: STORE(uint16_t, f32_to_f16((float)v.d));
    case PG_K_BFLOAT16: STORE(uint16_t, f32_to_bf16((float)v.d));
    case PG_K_FLOAT32: STORE(float, v.d);
    default: STORE(double, v.d);
    }
#undef STORE
}

#endif
