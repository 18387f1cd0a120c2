/* vector.h: what each_float.h needs once. */
#ifndef PG_VECTOR_H
#define PG_VECTOR_H

#include "cpu.h"
#include <math.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
/* Of all lanes, in halves. */
static inline float sum8(__m256 a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
static inline float max8(__m256 a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
typedef float four_floats __attribute__((vector_size(16)));
typedef double two_doubles __attribute__((vector_size(16)));
typedef float four_anywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef double two_anywhere __attribute__((vector_size(16), aligned(8), may_alias));
static inline four_floats max4(four_floats a, four_floats b) {
    for (int i = 0; i < 4; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
static inline two_doubles max2(two_doubles a, two_doubles b) {
    for (int i = 0; i < 2; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
#endif

#endif
