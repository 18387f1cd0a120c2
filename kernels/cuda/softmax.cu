/* softmax.cu: softmax and log_softmax over dense rows, and their gradients.
 *
 * Bound by memory: forward reads and writes each element once (8 bytes for float32, 4 for halves),
 * backward reads two and writes one. Rows of up to HELD values stay in registers between the two, 16 bytes a
 * load, 2 to 8 loads under way in each thread (of 1 to 32 lanes up to 256 values, 8 values a lane; of a warp up
 * to 1024; then of a block); float32 kernels take 22 to 48 registers, backward's 80 with 32 values: 24 or more
 * warps a multiprocessor with 1 KiB or more under way each, where 4.8 TB/s over 132 multiprocessors and 700 ns
 * ask for 26 KiB. 85 to 95 % of copy bandwidth is what to expect. Longer rows are read twice: the first pass
 * finds maximum and sum together, the second finds its row in the L2 cache (a row of 50,257 floats is 0.2 MB,
 * 132 at once 26 MB). Rows whose length is no multiple of 16 bytes are read element by element: coalesced too,
 * with fewer bytes in flight.
 */
#include "rows.h"

/* The row is E values in each thread's registers. */
template <class T, int E, int P, int WIDE>
ROWS_KERNEL softmax_held(int64_t rows, int64_t n, const T *in, T *out, bool log) {
    typedef compute_t<T> C;
    TEAM_OF_ROW(WIDE);
    if (row >= rows) n = 0;
    const int at = thread * P, step = threads * P;
    C x[E], top = lowest<C>(), sum = 0;
    take_steps<E, P>(in + row * n, n, at, step, lowest<C>(), x);
#pragma unroll
    for (int i = 0; i < E; i++) top = x[i] > top ? x[i] : top;
    top = team_max<WIDE>(top);
#pragma unroll
    for (int s = 0; s < E / P; s++) {
        if (at + s * step >= n) continue;
#pragma unroll
        for (int i = s * P; i < s * P + P; i++) {
            const C term = exp_of(x[i] - top);
            sum += term;
            x[i] = log ? x[i] - top : term;
        }
    }
    sum = team_sum<WIDE>(sum);
    const C scale = 1 / sum, shift = log_of(sum);
#pragma unroll
    for (int i = 0; i < E; i++) x[i] = log ? x[i] - shift : x[i] * scale;
    give_steps<E, P>(out + row * n, n, at, step, x);
}

/* Rows of any length, read twice. */
template <class T, int P>
static __global__ __launch_bounds__(TEAM_MOST, sizeof(T) == 8 ? 1 : 0)
    void softmax_twice(int64_t n, const T *in, T *out, bool log) {
    typedef compute_t<T> C;
    enum { N = P > 8 ? P : 8 };
    const T *from = in + blockIdx.x * n;
    T *to = out + blockIdx.x * n;
    const int64_t step = (int64_t)blockDim.x * P;
    C x[N];
    exponentials<C> e = {lowest<C>(), 0};
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(from, n, at, step, lowest<C>(), x);
        add_terms<N>(&e, x);
    }
    e = team_join<true>(e);
    const C scale = 1 / e.sum, shift = log_of(e.sum);
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(from, n, at, step, (C)0, x);
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = log ? x[i] - e.top - shift : exp_of(x[i] - e.top) * scale;
        give_steps<N, P>(to, n, at, step, x);
    }
}

/* softmax: dx = y * (g - sum(g y)); log_softmax: dx = g - exp(y) * sum(g). */
template <class C> static __device__ __forceinline__ C slope(C g, C y, C sum, bool log) {
    return log ? g - exp_of(y) * sum : y * (g - sum);
}

template <class T, int E, int P, int WIDE>
ROWS_KERNEL softmax_backward_held(int64_t rows, int64_t n, const T *grad, const T *result, T *out, bool log) {
    typedef compute_t<T> C;
    TEAM_OF_ROW(WIDE);
    if (row >= rows) n = 0;
    const int at = thread * P, step = threads * P;
    C g[E], y[E], sum = 0;
    take_steps<E, P>(grad + row * n, n, at, step, (C)0, g);
    take_steps<E, P>(result + row * n, n, at, step, (C)0, y);
#pragma unroll
    for (int i = 0; i < E; i++) sum = log ? sum + g[i] : fma_of(g[i], y[i], sum);
    sum = team_sum<WIDE>(sum);
#pragma unroll
    for (int s = 0; s < E / P; s++) {
        if (at + s * step >= n) continue;
#pragma unroll
        for (int i = s * P; i < s * P + P; i++) g[i] = slope(g[i], y[i], sum, log);
    }
    give_steps<E, P>(out + row * n, n, at, step, g);
}

template <class T, int P>
static __global__ __launch_bounds__(TEAM_MOST, sizeof(T) == 8 ? 1 : 0)
    void softmax_backward_twice(int64_t n, const T *grad, const T *result, T *out, bool log) {
    typedef compute_t<T> C;
    enum { N = P > 8 ? P : 8 };
    const T *grad_row = grad + blockIdx.x * n, *result_row = result + blockIdx.x * n;
    T *to = out + blockIdx.x * n;
    const int64_t step = (int64_t)blockDim.x * P;
    C g[N], y[N], sum = 0;
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(grad_row, n, at, step, (C)0, g);
        take_steps<N, P>(result_row, n, at, step, (C)0, y);
#pragma unroll
        for (int i = 0; i < N; i++) sum = log ? sum + g[i] : fma_of(g[i], y[i], sum);
    }
    sum = team_sum<true>(sum);
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(grad_row, n, at, step, (C)0, g);
        take_steps<N, P>(result_row, n, at, step, (C)0, y);
#pragma unroll
        for (int i = 0; i < N; i++) g[i] = slope(g[i], y[i], sum, log);
        give_steps<N, P>(to, n, at, step, g);
    }
}

extern "C" int PG_K(softmax)(const pg_context *c, int dtype, int64_t rows, int64_t n, const void *in,
                             void *out, bool log) {
    if (rows <= 0 || n <= 0) return PG_KERNEL_OK;
    PG_FOR_FLOATS(dtype, {
        const bool packs = n % packed<T>::N == 0 && aligned16(in) && aligned16(out);
        LAUNCH_ROWS(softmax_held, softmax_twice, c, packs, (const T *)in, (T *)out, log);
    })
}

extern "C" int PG_K(softmax_backward)(const pg_context *c, int dtype, int64_t rows, int64_t n,
                                      const void *grad, const void *result, void *out, bool log) {
    if (rows <= 0 || n <= 0) return PG_KERNEL_OK;
    PG_FOR_FLOATS(dtype, {
        const bool packs = n % packed<T>::N == 0 && aligned16(grad) && aligned16(result) && aligned16(out);
        LAUNCH_ROWS(softmax_backward_held, softmax_backward_twice, c, packs, (const T *)grad,
                    (const T *)result, (T *)out, log);
    })
}
