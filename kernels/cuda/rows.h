/* rows.h: rows of numbers, each taken by a team of threads: some lanes, a warp, or a block. What a team sums is
 * added in an order that the row's length alone decides: each thread's own values in order, the lanes in
 * halves, the warps in halves. */
#ifndef PG_CUDA_ROWS_H
#define PG_CUDA_ROWS_H

#include "cuda.h"

enum { WARP = 32 };
/* The kinds of teams, as `WIDE` in templates: false, true, and blockDim.x neighbouring lanes of a warp, a power of
 * two of them, threadIdx.y of a block. */
enum { TEAM_WARP, TEAM_BLOCK, TEAM_LANES };
#define PG_FULL_MASK 0xffffffffu

/* ---- P values at once: one element, or 16 bytes of them ---- */

template <int P, class T> static __device__ __forceinline__ void take(const T *p, compute_t<T> *to) {
    if constexpr (P == 1) {
        to[0] = load_as<T>(p[0]);
    } else {
        const pack<T> x = load_pack(p);
#pragma unroll
        for (int i = 0; i < P; i++) to[i] = load_as<T>(x.v[i]);
    }
}
template <int P, class T> static __device__ __forceinline__ void give(T *p, const compute_t<T> *from) {
    if constexpr (P == 1) {
        p[0] = store_as<T>(from[0]);
    } else {
        pack<T> x;
#pragma unroll
        for (int i = 0; i < P; i++) x.v[i] = store_as<T>(from[i]);
        store_pack(p, x);
    }
}
template <class T> struct packed { static const int N = 16 / (int)sizeof(T); };

/* N values of a row of n: P from `at`, P a step further, ...; `fill` stands for what lies beyond. All
 * loads are under way before the first is used. n is a multiple of P. */
template <int N, int P, class T>
static __device__ __forceinline__ void take_steps(const T *row, int64_t n, int64_t at, int64_t step,
                                                  compute_t<T> fill, compute_t<T> *to) {
#pragma unroll
    for (int s = 0; s < N / P; s++) {
        if (at + s * step < n) {
            take<P>(row + at + s * step, to + s * P);
        } else {
#pragma unroll
            for (int i = 0; i < P; i++) to[s * P + i] = fill;
        }
    }
}
template <int N, int P, class T>
static __device__ __forceinline__ void give_steps(T *row, int64_t n, int64_t at, int64_t step,
                                                  const compute_t<T> *from) {
#pragma unroll
    for (int s = 0; s < N / P; s++)
        if (at + s * step < n) give<P>(row + at + s * step, from + s * P);
}

/* ---- functions by type ---- */

static __device__ __forceinline__ float exp_of(float x) { return expf(x); }
static __device__ __forceinline__ double exp_of(double x) { return exp(x); }
static __device__ __forceinline__ float log_of(float x) { return logf(x); }
static __device__ __forceinline__ double log_of(double x) { return log(x); }
static __device__ __forceinline__ float fma_of(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ __forceinline__ double fma_of(double a, double b, double c) { return fma(a, b, c); }
template <class C> static __device__ __forceinline__ C lowest() { return -(C)INFINITY; }

/* ---- what a team agrees on ---- */

struct op_sum {
    template <class C> __device__ __forceinline__ C operator()(C a, C b) const { return a + b; }
};
/* NaNs are passed over: what is computed from them stays NaN. */
struct op_max {
    template <class C> __device__ __forceinline__ C operator()(C a, C b) const { return b > a ? b : a; }
};

template <class C, class Op> static __device__ __forceinline__ C lanes_all(C x, Op op) {
    for (int step = (int)blockDim.x / 2; step > 0; step /= 2) {
        const C other = __shfl_xor_sync(PG_FULL_MASK, x, step);
        x = op(x, other);
    }
    return x;
}
template <class C, class Op> static __device__ __forceinline__ C warp_all(C x, Op op) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        const C other = __shfl_xor_sync(PG_FULL_MASK, x, step);
        x = op(x, other);
    }
    return x;
}
/* Every thread of a block of whole warps calls; `none` is what changes nothing. */
template <class C, class Op> static __device__ __forceinline__ C block_all(C x, Op op, C none) {
    __shared__ C part[WARP];
    const int warps = (int)blockDim.x / WARP, lane = (int)threadIdx.x % WARP;
    x = warp_all(x, op);
    if (warps == 1) return x;
    __syncthreads();   /* the call before has been read */
    if (lane == 0) part[threadIdx.x / WARP] = x;
    __syncthreads();
    return warp_all(lane < warps ? part[lane] : none, op);
}
template <int WIDE, class C, class Op> static __device__ __forceinline__ C team_all(C x, Op op, C none) {
    if constexpr (WIDE == TEAM_BLOCK) return block_all(x, op, none);
    else if constexpr (WIDE == TEAM_WARP) return warp_all(x, op);
    else return lanes_all(x, op);
}
template <int WIDE, class C>
static __device__ __forceinline__ C team_sum(C x) { return team_all<WIDE>(x, op_sum(), (C)0); }
/* Two sums for the price of one. */
template <int WIDE, class C> static __device__ __forceinline__ void team_sums(C *a, C *b) {
    *a = warp_all(*a, op_sum());
    *b = warp_all(*b, op_sum());
    if constexpr (WIDE) {
        __shared__ C part[2 * WARP];
        const int warps = (int)blockDim.x / WARP, lane = (int)threadIdx.x % WARP;
        if (warps == 1) return;
        __syncthreads();
        if (lane == 0) {
            part[threadIdx.x / WARP] = *a;
            part[WARP + threadIdx.x / WARP] = *b;
        }
        __syncthreads();
        *a = warp_all(lane < warps ? part[lane] : (C)0, op_sum());
        *b = warp_all(lane < warps ? part[WARP + lane] : (C)0, op_sum());
    }
}
template <int WIDE, class C>
static __device__ __forceinline__ C team_max(C x) { return team_all<WIDE>(x, op_max(), lowest<C>()); }

/* ---- sums of exponentials while the maximum is still being found ---- */

/* sum of exp(x - top); where nothing above -inf has been seen the terms are exp(x), which are zeros, or
 * NaN. */
template <class C> struct exponentials { C top, sum; };
template <class C>
static __device__ __forceinline__ C shift_of(C top) { return top == lowest<C>() ? (C)0 : top; }
/* N more values; -inf adds nothing. */
template <int N, class C> static __device__ __forceinline__ void add_terms(exponentials<C> *e, const C *x) {
    C top = e->top;
#pragma unroll
    for (int i = 0; i < N; i++) top = x[i] > top ? x[i] : top;
    const C shift = shift_of(top);
    C sum = top == e->top ? e->sum : e->sum * exp_of(e->top - shift);
#pragma unroll
    for (int i = 0; i < N; i++) sum += exp_of(x[i] - shift);
    e->top = top;
    e->sum = sum;
}
template <int WIDE, class C> static __device__ __forceinline__ exponentials<C> team_join(exponentials<C> e) {
    const C top = team_max<WIDE>(e.top), shift = shift_of(top);
    exponentials<C> r;
    r.top = top;
    r.sum = team_sum<WIDE>(e.top == top ? e.sum : e.sum * exp_of(e.top - shift));
    return r;
}

/* ---- shapes of launches ---- */

/* A block of warps, or of as many lanes in shorter teams; a row that a warp holds with 8 or 32 values a thread;
 * threads of the widest team, which holds 16. */
enum { TEAM_WARPS = 4, SHORT_ROW = 8 * WARP, WARP_ROW = 32 * WARP, TEAM_MOST = 512, HELD = 16 * TEAM_MOST };

/* Threads of a block that walks a row of n, `per` values a thread and step: whole warps, 32 to `most`. */
static inline int team_size(int64_t n, int per, int most) {
    int threads = WARP;
    while (threads < most && (int64_t)threads * per < n) threads *= 2;
    return threads;
}

/* A kernel of such teams. Doubles may take the registers that they need. */
#define ROWS_KERNEL                                                                                          \
    static __global__ __launch_bounds__((int)WIDE == TEAM_BLOCK ? TEAM_MOST : TEAM_WARPS * WARP,             \
                                        sizeof(T) == 8 ? 1 : 0) void

/* A team's row and the place of this thread in it. Teams of lanes stay to the end, whether there is a row. */
#define TEAM_OF_ROW(WIDE)                                                                                    \
    const bool lanes_ = (int)WIDE == TEAM_LANES, block_ = (int)WIDE == TEAM_BLOCK;                           \
    const int64_t row = lanes_   ? (int64_t)blockIdx.x * blockDim.y + threadIdx.y                            \
                        : block_ ? (int64_t)blockIdx.x                                                       \
                                 : (int64_t)blockIdx.x * TEAM_WARPS + threadIdx.x / WARP;                    \
    const int threads = lanes_ || block_ ? (int)blockDim.x : (int)WARP,                                      \
              thread = lanes_ || block_ ? (int)threadIdx.x : (int)threadIdx.x % WARP

/* Teams of lanes for rows of n <= SHORT_ROW: 8 values a lane. */
static inline dim3 lanes_for(int64_t n) {
    unsigned lanes = 1;
    while (lanes * 8 < n) lanes *= 2;
    return dim3(lanes, TEAM_WARPS * WARP / lanes);
}

/* Picks the shape for rows of n and launches HELD_KERNEL<T, E, P, WIDE>(rows, n, ...) or TWICE_KERNEL<T,
 * P>(n, ...). */
#define LAUNCH_ROWS(HELD_KERNEL, TWICE_KERNEL, context, wide_packs, ...)                                                 \
    do {                                                                                                                 \
        enum { P = packed<T>::N };                                                                                       \
        const dim3 lanes = lanes_for(n < SHORT_ROW ? n : (int64_t)SHORT_ROW);                                            \
        const unsigned by_warp = blocks_for(rows, TEAM_WARPS, INT64_MAX), by_block = (unsigned)rows,                     \
                       by_lanes = blocks_for(rows, lanes.y, INT64_MAX);                                                  \
        if (!(wide_packs) && n <= SHORT_ROW)                                                                             \
            PG_LAUNCH((HELD_KERNEL<T, 8, 1, TEAM_LANES>), by_lanes, lanes, 0, context, rows, n, __VA_ARGS__);            \
        else if (!(wide_packs))                                                                                          \
            PG_LAUNCH((TWICE_KERNEL<T, 1>), by_block, team_size(n, 8, TEAM_MOST), 0, context, n, __VA_ARGS__);           \
        else if (n <= SHORT_ROW)                                                                                         \
            PG_LAUNCH((HELD_KERNEL<T, 8, P, TEAM_LANES>), by_lanes, lanes, 0, context, rows, n, __VA_ARGS__);            \
        else if (n <= WARP_ROW)                                                                                          \
            PG_LAUNCH((HELD_KERNEL<T, 32, P, TEAM_WARP>), by_warp, TEAM_WARPS * WARP, 0, context, rows, n, __VA_ARGS__);     \
        else if (n <= HELD)                                                                                              \
            PG_LAUNCH((HELD_KERNEL<T, 16, P, TEAM_BLOCK>), by_block, team_size(n, 8, TEAM_MOST), 0, context, rows, n,          \
                      __VA_ARGS__);                                                                                      \
        else                                                                                                             \
            PG_LAUNCH((TWICE_KERNEL<T, P>), by_block, TEAM_MOST, 0, context, n, __VA_ARGS__);                            \
        return launched();                                                                                               \
    } while (0)

#endif
