/* random.cu: draws of the counter-based generator (philox.h), and dropout: the CPU's bits for every element.
 *
 * A thread takes one counter: four elements of a narrow draw, two of a wide one. Bound by what is written
 * (and read, for dropout: x, the result and a byte of mask an element); ten rounds of Philox are some 80
 * instructions for four elements, Box and Muller's some 40 more for two. */
#include "../philox.h"
#include "convert.h"

enum { BLOCK = 256 };

struct draw {
    int kind;
    int64_t n;
    pg_value a, b;
    uint64_t range, threshold;
};

/* N elements that start at i. */
template <class T, int N>
static __device__ __forceinline__ void put(T *out, int64_t i, int64_t n, const pack<T, N> &x) {
    constexpr uintptr_t bytes = sizeof(T) * N;
    if (i + N <= n && (uintptr_t)(out + i) % bytes == 0) {
        *reinterpret_cast<pack<T, N> *>(out + i) = x;
    } else {
#pragma unroll
        for (int k = 0; k < N; k++)
            if (i + k < n) out[i + k] = x.v[k];
    }
}

/* float16, bfloat16: as many random bits as they hold. */
template <class T> static __device__ __forceinline__ float uniform_of(uint32_t w) {
    if constexpr (std::is_same_v<T, __half>) return pg_uniform_f16(w);
    else if constexpr (std::is_same_v<T, __nv_bfloat16>) return pg_uniform_bf16(w);
    else return pg_uniform_f32(w);
}

/* Narrow draws of floats are float32 and float16, bfloat16 from it. */
template <class T> static __device__ __forceinline__ T rounded(float x) {
    if constexpr (std::is_integral_v<T>) return 0;
    else return store_as<T>((compute_t<T>)x);
}

template <class T> static __global__ void __launch_bounds__(BLOCK)
draw_narrow(draw d, const pg_philox *state, T *out) {
    const uint64_t seed = state->seed, offset = state->offset;
    for (int64_t u = (int64_t)blockIdx.x * BLOCK + threadIdx.x; u * 4 < d.n;
         u += (int64_t)gridDim.x * BLOCK) {
        uint32_t w[4];
        pack<T, 4> x;
        pg_philox_words(seed, offset + (uint64_t)u, &w[0], &w[1], &w[2], &w[3]);
        switch (d.kind) {
        case PG_K_RANDOM_UNIFORM: {
            const float a = (float)d.a.d, range = (float)d.b.d - a;
#pragma unroll
            for (int k = 0; k < 4; k++) x.v[k] = rounded<T>(a + range * uniform_of<T>(w[k]));
            break;
        }
        case PG_K_RANDOM_NORMAL: {
            const float a = (float)d.a.d, b = (float)d.b.d;
            float z[4];
            pg_normal_f32(w[0], w[1], &z[0], &z[1]);
            pg_normal_f32(w[2], w[3], &z[2], &z[3]);
#pragma unroll
            for (int k = 0; k < 4; k++) x.v[k] = rounded<T>(a + b * z[k]);
            break;
        }
        case PG_K_RANDOM_BERNOULLI:
#pragma unroll
            for (int k = 0; k < 4; k++) x.v[k] = from_integer<T>((uint64_t)w[k] < d.threshold);
            break;
        default:
#pragma unroll
            for (int k = 0; k < 4; k++)
                x.v[k] = from_integer<T>((int64_t)((uint64_t)d.a.i + pg_below_narrow(w[k], d.range)));
        }
        put<T, 4>(out, u * 4, d.n, x);
    }
}

template <class T> static __global__ void __launch_bounds__(BLOCK)
draw_wide(draw d, const pg_philox *state, T *out) {
    const uint64_t seed = state->seed, offset = state->offset;
    for (int64_t u = (int64_t)blockIdx.x * BLOCK + threadIdx.x; u * 2 < d.n;
         u += (int64_t)gridDim.x * BLOCK) {
        uint32_t w[4];
        pack<T, 2> x;
        pg_philox_words(seed, offset + (uint64_t)u, &w[0], &w[1], &w[2], &w[3]);
        const uint64_t y[2] = {w[0] | (uint64_t)w[1] << 32, w[2] | (uint64_t)w[3] << 32};
        if constexpr (std::is_same_v<T, double>) {
            if (d.kind == PG_K_RANDOM_NORMAL) {
                double z[2];
                pg_normal_f64(y[0], y[1], &z[0], &z[1]);
                for (int k = 0; k < 2; k++) x.v[k] = d.a.d + d.b.d * z[k];
                put<T, 2>(out, u * 2, d.n, x);
                continue;
            }
            if (d.kind == PG_K_RANDOM_UNIFORM) {
                const double range = d.b.d - d.a.d;
                for (int k = 0; k < 2; k++) x.v[k] = d.a.d + range * pg_uniform_f64(y[k]);
                put<T, 2>(out, u * 2, d.n, x);
                continue;
            }
        }
#pragma unroll
        for (int k = 0; k < 2; k++)
            x.v[k] = from_integer<T>(d.kind == PG_K_RANDOM_BITS ? (int64_t)(y[k] >> 1)
                                     : (int64_t)((uint64_t)d.a.i + pg_below_wide(y[k], d.range)));
        put<T, 2>(out, u * 2, d.n, x);
    }
}

extern "C" int PG_K(random)(const pg_context *c, int kind, int dtype, int64_t n, pg_value a, pg_value b,
                            const pg_philox *state, void *out) {
    const bool floats = kind == PG_K_RANDOM_UNIFORM || kind == PG_K_RANDOM_NORMAL;
    if ((unsigned)dtype > PG_K_FLOAT64 || (floats && dtype < PG_K_FLOAT16)) return PG_KERNEL_UNSUPPORTED;
    if (n <= 0) return PG_KERNEL_OK;
    draw d = {};
    d.kind = kind;
    d.n = n;
    d.a = a;
    d.b = b;
    if (kind == PG_K_RANDOM_INTEGER) d.range = (uint64_t)b.i - (uint64_t)a.i;
    if (kind == PG_K_RANDOM_BERNOULLI) d.threshold = pg_threshold(a.d);
    const bool wide = pg_philox_wide(kind, dtype, d.range) != 0;
    const unsigned grid = blocks_for(n, (int64_t)BLOCK * (wide ? 2 : 4));
    const pg_philox *there = (const pg_philox *)on_device(c, state, sizeof *state);
    if (!there) return PG_KERNEL_NO_SCRATCH;
    if (wide) PG_FOR_ALL(dtype, PG_LAUNCH((draw_wide<T>), grid, BLOCK, 0, c, d, there, (T *)out))
    else PG_FOR_ALL(dtype, PG_LAUNCH((draw_narrow<T>), grid, BLOCK, 0, c, d, there, (T *)out))
    return launched();
}

/* x is read in packs where it and the results are aligned for them. */
template <class T> static __global__ void __launch_bounds__(BLOCK)
drop(int64_t n, uint64_t threshold, double scale, const pg_philox *state, bool packs, const T *x, T *out,
     bool *mask) {
    typedef compute_t<T> R;
    const uint64_t seed = state->seed, offset = state->offset;
    const R factor = (R)scale;
    for (int64_t u = (int64_t)blockIdx.x * BLOCK + threadIdx.x; u * 4 < n; u += (int64_t)gridDim.x * BLOCK) {
        uint32_t w[4];
        pack<T, 4> a;
        pack<bool, 4> keep;
        const int64_t i = u * 4;
        if (packs && i + 4 <= n) {
            a = *reinterpret_cast<const pack<T, 4> *>(x + i);
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++) a.v[k] = x[i + k < n ? i + k : i];
        }
        pg_philox_words(seed, offset + (uint64_t)u, &w[0], &w[1], &w[2], &w[3]);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            keep.v[k] = w[k] >= threshold;
            a.v[k] = store_as<T>(load_as(a.v[k]) * (keep.v[k] ? factor : (R)0));
        }
        put<T, 4>(out, i, n, a);
        put<bool, 4>(mask, i, n, keep);
    }
}

extern "C" int PG_K(dropout)(const pg_context *c, int dtype, int64_t n, double p, const pg_philox *state,
                             const void *x, void *out, bool *mask) {
    if (dtype < PG_K_FLOAT16 || dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (n <= 0) return PG_KERNEL_OK;
    const pg_philox *there = (const pg_philox *)on_device(c, state, sizeof *state);
    if (!there) return PG_KERNEL_NO_SCRATCH;
    const uint64_t threshold = pg_threshold(p);
    const double scale = p < 1 ? 1 / (1 - p) : 0;
    PG_FOR_FLOATS(dtype, PG_LAUNCH((drop<T>), blocks_for(n, BLOCK * 4), BLOCK, 0, c, n, threshold, scale,
                                   there, (uintptr_t)x % (sizeof(T) * 4) == 0, (const T *)x, (T *)out, mask))
    return launched();
}
