/* attention.cu: softmax(scale q k^T + mask) v by tiles (Dao et al. 2022, "FlashAttention"; Dao 2023,
 * "FlashAttention-2"): scores exist for one tile of queries against one tile of keys, in registers; a running
 * maximum and sum go with each query. Tiles that the causal rule hides are skipped; places are compared only
 * in those that it cuts. Backward makes the scores again from the saved log of the sums. A query without any
 * key gives zeros, and its lse is +inf, so that backward's exp(s - lse) is 0.
 *
 * Two families:
 *
 * Tensor cores (float16, bfloat16; sizes up to 128 that are multiples of 8; rows 16-byte aligned), padded to
 * 32, 64, 96 or 128 columns (64 or 128 with a mask or dropout, and where a block has less than 163 KiB of
 * shared memory). Every warp has 32 rows of its own, so that what it reads of the other side, 512 bytes at
 * once, feeds four products (mma m16n8k16, 4096 flops); the other side's tiles are copied meanwhile.
 *   forward      4 warps, 128 queries, against tiles of 64 keys: 2 blocks, 8 warps, on a multiprocessor, as
 *                many as registers allow. Queries of up to 64 columns stay in registers.
 *   dk and dv    8 warps, 128 keys, against tiles of 64 queries (48 where padded to 128): 1 block. Two warps
 *                share 32 keys; the one has dv, the other dk, and the weights go from the one to the other.
 *   dq           4 warps, 128 queries, against tiles of 64 keys (32 from 96 columns on): 2 blocks.
 * Backward makes 7 products where FlashAttention-2 makes 5: the weights and their gradient are made in either
 * kernel. That is what it costs to add dq up without atomics, the same bits in every run. The other way, 5
 * products and dq's parts of each 128 keys in memory until they are added, moves 8 bytes for 1280 flops: at
 * 4.8 TB/s about twice the time of the two products, and memory that grows with the square of the length.
 *
 * What bounds them on a Hopper-class GPU: the tensor cores, which mma.sync feeds at some 0.6 of the rate that
 * wgmma reaches (a lead, not measured here): about 6.5 cycles a product in each quarter of a multiprocessor,
 * 580 TFLOP/s on 132 of them at 1.75 GHz, or 415 where 5 of 7 products count. Instructions issued for a
 * product, of 6.5 that fit (from sm_90a's machine code, without mask and dropout, tiles not cut):
 *               64 columns                     128 columns
 *   forward     4.4 (16 exponentials a cycle:  3.1
 *               4.0 cycles)
 *   dk, dv      4.2 and 4.6                    3.1 and 3.3
 *   dq          3.4                            2.8
 * Shared memory, at 128 bytes a cycle, is busy for 5 and 6 cycles a product and quarter in forward, 6.1 and
 * 6.7 in dk and dv, 6.0 and 7.3 in dq, which it bounds at 128 columns. What is not hidden is latency: there
 * are 2 warps a quarter, which must be at different places for one to multiply while the other takes
 * exponentials.
 *
 * Plain (any dtype, size, stride): tiles of 64 x 64 (double: 32 x 32) in shared memory, 256 threads, each
 * 4 x 4 scores; 64 columns of the result a block, so the scores are made again for every 64 columns beyond
 * the first. Bound by float32 arithmetic fed from shared memory: 8 reads for 16 multiply-adds.
 *
 * Sums run in a fixed order: over keys ascending; for dk and dv over the heads that share them, then queries,
 * ascending. The tensor-core kernels use an exponential within 2 ulp of float32, far below what rounding
 * weights to halves loses (2^-11, 2^-8 of each); dk's weights are rounded too. */
#include <atomic>

#include "../philox.h"
#include "cuda.h"
#include "ptx.h"

static const float LOG2E = 1.4426950408889634f;

/* ---- shared by both families ---- */

/* What dropout makes of the weight of query i and key j: 0 or 1 / (1 - p). */
typedef struct dropout {
    uint64_t seed, offset, threshold;
    double keep;
} dropout;
static __device__ __forceinline__ dropout dropout_of(const pg_attention &a) {
    dropout d = {0, 0, 0, 1};
    if (a.dropout_p > 0) {
        d.seed = a.philox->seed;
        d.offset = a.philox->offset;
        d.threshold = pg_threshold(a.dropout_p);
        d.keep = a.dropout_p < 1 ? 1 / (1 - a.dropout_p) : 0;
    }
    return d;
}
static __device__ __forceinline__ bool dropped(const dropout &d, const pg_attention &a, int64_t batch,
                                               int64_t head, int64_t i, int64_t j) {
    const uint64_t index = (uint64_t)(((batch * a.heads + head) * a.q_len + i) * a.k_len + j);
    return pg_philox_word(d.seed, d.offset, index) < d.threshold;
}

template <class T> static __device__ __forceinline__ const T *place(const void *p, const int64_t *stride,
                                                                    int64_t batch, int64_t head, int64_t at) {
    return (const T *)p + batch * stride[0] + head * stride[1] + at * stride[2];
}

/* delta[row] = dot(grad_out, out), rows (batch, heads, q_len): what softmax's gradient subtracts. A warp a
 * row; bound by the bytes of both. */
template <class T> static __global__ void deltas(pg_attention a, compute_t<T> *delta) {
    typedef compute_t<T> C;
    const int64_t rows = a.batch * a.heads * a.q_len, warps = (int64_t)gridDim.x * (blockDim.x / 32);
    for (int64_t r = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; r < rows; r += warps) {
        const int64_t i = r % a.q_len, head = r / a.q_len % a.heads, batch = r / a.q_len / a.heads;
        const T *o = place<T>(a.out, a.out_stride, batch, head, i),
                *g = place<T>(a.grad_out, a.grad_out_stride, batch, head, i);
        C sum = 0;
        for (int64_t d = threadIdx.x % 32; d < a.v_size; d += 32) sum += load_as<T>(o[d]) * load_as<T>(g[d]);
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (threadIdx.x % 32 == 0) delta[r] = sum;
    }
}

/* ---- plain ---- */

static __device__ __forceinline__ float mac(float a, float b, float c) { return fmaf(a, b, c); }
static __device__ __forceinline__ double mac(double a, double b, double c) { return fma(a, b, c); }
static __device__ __forceinline__ float exponential(float x) { return expf(x); }
static __device__ __forceinline__ double exponential(double x) { return exp(x); }
static __device__ __forceinline__ float logarithm(float x) { return logf(x); }
static __device__ __forceinline__ double logarithm(double x) { return log(x); }
static __device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
static __device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }

template <class T> struct plain {
    typedef compute_t<T> C;
    static constexpr int TILE = sizeof(C) == 8 ? 32 : 64, R = TILE / 16, DEPTH = 16, COLUMNS = 64,
                         LD = TILE + 1;
    static constexpr size_t BYTES = (2 * DEPTH * LD + TILE * LD + DEPTH * COLUMNS) * sizeof(C);

    C *x, *y, *weights, *columns; /* shared: (DEPTH, LD) twice, (TILE, LD), (DEPTH, COLUMNS) */
    int ty, tx;

    __device__ __forceinline__ explicit plain(C *shared)
        : x(shared), y(x + DEPTH * LD), weights(y + DEPTH * LD), columns(weights + TILE * LD),
          ty(threadIdx.x / 16), tx(threadIdx.x % 16) {}

    /* sums[i][j] = dot of row ty R + i of a with row tx + 16 j of b, both `length` long; rows past a_rows,
     * b_rows count as 0. */
    __device__ __forceinline__ void dots(C (&sums)[R][R], const T *a, int64_t a_stride, int64_t a_rows,
                                         const T *b, int64_t b_stride, int64_t b_rows, int64_t length) {
        for (int i = 0; i < R; i++)
            for (int j = 0; j < R; j++) sums[i][j] = 0;
        for (int64_t d0 = 0; d0 < length; d0 += DEPTH) {
            const bool in = d0 + tx < length;
            for (int r = ty; r < TILE; r += 16) {
                x[tx * LD + r] = in && r < a_rows ? load_as<T>(a[r * a_stride + d0 + tx]) : C(0);
                y[tx * LD + r] = in && r < b_rows ? load_as<T>(b[r * b_stride + d0 + tx]) : C(0);
            }
            __syncthreads();
#pragma unroll 4
            for (int d = 0; d < DEPTH; d++) {
                C u[R], v[R];
#pragma unroll
                for (int i = 0; i < R; i++) u[i] = x[d * LD + ty * R + i], v[i] = y[d * LD + tx + 16 * i];
#pragma unroll
                for (int i = 0; i < R; i++)
#pragma unroll
                    for (int j = 0; j < R; j++) sums[i][j] = mac(u[i], v[j], sums[i][j]);
            }
            __syncthreads();
        }
    }

    /* sums[i][c] += row ty R + i of weights (TRANSPOSED: column) times column first + tx + 16 c of b (rows,
     * width). */
    template <bool TRANSPOSED> __device__ __forceinline__ void add_product(C (&sums)[R][4], const T *b,
                                                                           int64_t stride, int64_t rows,
                                                                           int64_t first, int64_t width) {
        for (int64_t k0 = 0; k0 < rows; k0 += DEPTH) {
            for (int c = 0; c < 4; c++) {
                const int64_t column = first + tx + 16 * c;
                columns[ty * COLUMNS + tx + 16 * c] =
                    k0 + ty < rows && column < width ? load_as<T>(b[(k0 + ty) * stride + column]) : C(0);
            }
            __syncthreads();
#pragma unroll 4
            for (int k = 0; k < DEPTH; k++) {
                C v[4];
#pragma unroll
                for (int c = 0; c < 4; c++) v[c] = columns[k * COLUMNS + tx + 16 * c];
#pragma unroll
                for (int i = 0; i < R; i++) {
                    const C w = TRANSPOSED ? weights[((int)k0 + k) * LD + ty * R + i]
                                           : weights[(ty * R + i) * LD + (int)k0 + k];
#pragma unroll
                    for (int c = 0; c < 4; c++) sums[i][c] = mac(w, v[c], sums[i][c]);
                }
            }
            __syncthreads();
        }
    }
};

template <class T> static __device__ __forceinline__ compute_t<T> plain_score(const pg_attention &a,
                                                                              const T *mask, compute_t<T> dot,
                                                                              int64_t i, int64_t j) {
    typedef compute_t<T> C;
    if (i >= a.q_len || j >= a.k_len || (a.causal && j > i)) return (C)-INFINITY;
    const C s = dot * (C)a.scale;
    return mask ? s + load_as<T>(mask[i * a.mask_stride[2] + j * a.mask_stride[3]]) : s;
}

template <class T> static __global__ void __launch_bounds__(256)
    plain_forward(pg_attention a, int64_t items) {
    typedef plain<T> P;
    typedef compute_t<T> C;
    constexpr int R = P::R, TILE = P::TILE;
    PG_SHARED(C, shared);
    P p(shared);
    const dropout drop = dropout_of(a);
    const int64_t tiles = (a.q_len + TILE - 1) / TILE, chunks = (a.v_size + P::COLUMNS - 1) / P::COLUMNS;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        const int64_t chunk = item % chunks, q0 = item / chunks % tiles * TILE,
                      head = item / chunks / tiles % a.heads;
        const int64_t batch = item / chunks / tiles / a.heads, kv = head / (a.heads / a.kv_heads);
        const T *q = place<T>(a.q, a.q_stride, batch, head, q0);
        const T *mask =
            a.mask ? (const T *)a.mask + batch * a.mask_stride[0] + head * a.mask_stride[1] : NULL;
        C top[R], total[R], out[R][4];
        for (int i = 0; i < R; i++) {
            top[i] = (C)-INFINITY;
            total[i] = 0;
            for (int c = 0; c < 4; c++) out[i][c] = 0;
        }
        for (int64_t k0 = 0; k0 < a.k_len && !(a.causal && k0 >= q0 + TILE); k0 += TILE) {
            C s[R][R];
            p.dots(s, q, a.q_stride[2], a.q_len - q0, place<T>(a.k, a.k_stride, batch, kv, k0), a.k_stride[2],
                   a.k_len - k0, a.size);
            for (int i = 0; i < R; i++) {
                const int64_t row = q0 + p.ty * R + i;
                C high = top[i];
                for (int j = 0; j < R; j++) {
                    s[i][j] = plain_score<T>(a, mask, s[i][j], row, k0 + p.tx + 16 * j);
                    high = larger(high, s[i][j]);
                }
                for (int step = 8; step > 0; step /= 2)
                    high = larger(high, __shfl_xor_sync(0xffffffffu, high, step));
                const C shift = high == (C)-INFINITY ? C(0) : high, factor = exponential(top[i] - shift);
                C sum = 0;
                for (int j = 0; j < R; j++) {
                    C w = exponential(s[i][j] - shift);
                    sum += w;
                    if (a.dropout_p > 0)
                        w *= dropped(drop, a, batch, head, row, k0 + p.tx + 16 * j) ? C(0) : (C)drop.keep;
                    p.weights[(p.ty * R + i) * P::LD + p.tx + 16 * j] = w;
                }
                for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
                total[i] = total[i] * factor + sum;
                top[i] = high;
                for (int c = 0; c < 4; c++) out[i][c] *= factor;
            }
            p.template add_product<false>(out, place<T>(a.v, a.v_stride, batch, kv, k0), a.v_stride[2],
                                          a.k_len - k0 < TILE ? a.k_len - k0 : (int64_t)TILE,
                                          chunk * P::COLUMNS, a.v_size);
        }
        for (int i = 0; i < R; i++) {
            const int64_t row = q0 + p.ty * R + i;
            if (row >= a.q_len) break;
            T *to = (T *)place<T>(a.out, a.out_stride, batch, head, row);
            const C inverse = total[i] == 0 ? C(0) : 1 / total[i];
            for (int c = 0; c < 4; c++) {
                const int64_t column = chunk * P::COLUMNS + p.tx + 16 * c;
                if (column < a.v_size) to[column] = store_as<T>(out[i][c] * inverse);
            }
            if (a.lse && chunk == 0 && p.tx == 0)
                ((C *)a.lse)[(batch * a.heads + head) * a.q_len + row] =
                    total[i] == 0 ? (C)INFINITY : top[i] + logarithm(total[i]);
        }
    }
}

/* KEYS: 64 columns of dv or, past those, of dk, for a tile of keys; else 64 columns of dq for a tile of
 * queries. */
template <class T, bool KEYS> static __global__ void __launch_bounds__(256)
    plain_backward(pg_attention a, const compute_t<T> *delta, int64_t items) {
    typedef plain<T> P;
    typedef compute_t<T> C;
    constexpr int R = P::R, TILE = P::TILE;
    PG_SHARED(C, shared);
    P p(shared);
    const dropout drop = dropout_of(a);
    const int64_t of_v = KEYS ? (a.v_size + P::COLUMNS - 1) / P::COLUMNS : 0,
                  chunks = of_v + (a.size + P::COLUMNS - 1) / P::COLUMNS;
    const int64_t tiles = ((KEYS ? a.k_len : a.q_len) + TILE - 1) / TILE, heads = KEYS ? a.kv_heads : a.heads;
    const int64_t share = a.heads / a.kv_heads;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        const int64_t chunk = item % chunks, own = item / chunks % tiles * TILE,
                      head = item / chunks / tiles % heads;
        const int64_t batch = item / chunks / tiles / heads, kv = KEYS ? head : head / share;
        const bool values = chunk < of_v;
        C sums[R][4];
        for (int i = 0; i < R; i++)
            for (int c = 0; c < 4; c++) sums[i][c] = 0;
        for (int64_t h = KEYS ? kv * share : head; h < (KEYS ? (kv + 1) * share : head + 1); h++) {
            const T *mask =
                a.mask ? (const T *)a.mask + batch * a.mask_stride[0] + h * a.mask_stride[1] : NULL;
            const C *lse = (const C *)a.lse + (batch * a.heads + h) * a.q_len,
                    *minus = delta + (batch * a.heads + h) * a.q_len;
            const int64_t first = KEYS && a.causal ? own / TILE * TILE : 0, end = KEYS ? a.q_len : a.k_len;
            for (int64_t other = first; other < end && !(!KEYS && a.causal && other >= own + TILE);
                 other += TILE) {
                const int64_t q0 = KEYS ? other : own, k0 = KEYS ? own : other, rows = a.q_len - q0,
                              keys = a.k_len - k0;
                const T *q = place<T>(a.q, a.q_stride, batch, h, q0),
                        *k = place<T>(a.k, a.k_stride, batch, kv, k0);
                const T *g = place<T>(a.grad_out, a.grad_out_stride, batch, h, q0);
                C s[R][R], d[R][R];
                p.dots(s, q, a.q_stride[2], rows, k, a.k_stride[2], keys, a.size);
                if (!values)
                    p.dots(d, g, a.grad_out_stride[2], rows, place<T>(a.v, a.v_stride, batch, kv, k0),
                           a.v_stride[2], keys, a.v_size);
                for (int i = 0; i < R; i++) {
                    const int64_t row = q0 + p.ty * R + i;
                    const C of_row = row < a.q_len ? lse[row] : (C)INFINITY,
                            less = row < a.q_len ? minus[row] : C(0);
                    for (int j = 0; j < R; j++) {
                        const int64_t key = k0 + p.tx + 16 * j;
                        const C w = exponential(plain_score<T>(a, mask, s[i][j], row, key) - of_row);
                        const C kept = a.dropout_p > 0
                                           ? (dropped(drop, a, batch, h, row, key) ? C(0) : (C)drop.keep)
                                           : C(1);
                        p.weights[(p.ty * R + i) * P::LD + p.tx + 16 * j] =
                            values ? w * kept : w * (d[i][j] * kept - less);
                    }
                }
                const int64_t count = KEYS ? rows : keys;
                p.template add_product<KEYS>(sums,
                                             values ? g
                                             : KEYS ? q
                                                    : k,
                                             values ? a.grad_out_stride[2]
                                             : KEYS ? a.q_stride[2]
                                                    : a.k_stride[2],
                                             count < TILE ? count : (int64_t)TILE,
                                             (values ? chunk : chunk - of_v) * P::COLUMNS,
                                             values ? a.v_size : a.size);
            }
        }
        for (int i = 0; i < R; i++) {
            const int64_t row = own + p.ty * R + i;
            if (row >= (KEYS ? a.k_len : a.q_len)) break;
            T *to = (T *)(values ? place<T>(a.grad_v, a.grad_v_stride, batch, kv, row)
                          : KEYS ? place<T>(a.grad_k, a.grad_k_stride, batch, kv, row)
                                 : place<T>(a.grad_q, a.grad_q_stride, batch, head, row));
            const C by = values ? C(1) : (C)a.scale;
            for (int c = 0; c < 4; c++) {
                const int64_t column = (values ? chunk : chunk - of_v) * P::COLUMNS + p.tx + 16 * c;
                if (column < (values ? a.v_size : a.size)) to[column] = store_as<T>(sums[i][c] * by);
            }
        }
    }
}

/* ---- tensor cores ---- */

/* Rows in shared memory are LD elements apart, PAD (16 bytes) more than they hold: the 8 rows that ldmatrix
 * reads lie in different banks. Which tiles a block has in which kernel, and the bytes they take. */
enum { PAD = 8 };
template <int HD, bool EXTRA> struct tiles_of {
    static constexpr int LD = HD + PAD, QUERIES = 128;
    static constexpr int KEYS = EXTRA ? 32 : 64; /* forward: keys of a step */
    /* for dq: keys of a step */
    static constexpr int NEAR = EXTRA && HD == 128 ? 16 : !EXTRA && HD <= 64 ? 64 : 32;
    /* for dk and dv: pairs of warps, their keys, queries of a step */
    static constexpr int PAIRS = EXTRA && HD == 128 ? 2 : 4, OWN = 32 * PAIRS;
    static constexpr int OTHER = EXTRA ? 32 : HD == 128 ? 48 : 64;
    static constexpr size_t FORWARD = (QUERIES + 4 * KEYS) * LD * 2;
    static constexpr size_t TO_QUERIES = (2 * QUERIES + 4 * NEAR) * LD * 2;
    static constexpr size_t TO_KEYS = (2 * OWN + 5 * OTHER) * LD * 2 + 3 * OTHER * 8 + 2 * OWN * OTHER * 2 +
                                      2 * 2 * OWN * 4;
};

/* What a block works on: the rank-th of the tiles of a (batch, head). The grid is (heads of a group, ranks,
 * groups): blocks start in that order, group by group, so that what they stream is found in the L2 cache,
 * within a group the longest first. */
typedef struct turn {
    int rank, batch, head;
    bool any;
} turn;
static __device__ __forceinline__ turn turn_of(const pg_attention &a, int heads) {
    const int both = (int)(blockIdx.z * gridDim.x + blockIdx.x);
    const turn r = {(int)blockIdx.y, both / heads, both % heads, both < (int)a.batch * heads};
    return r;
}

/* ROWS rows of `size` elements, `stride` apart, into shared memory (ROWS, LD); zeros past `rows` and past
 * `size`. */
template <class T, int HD, int ROWS, int THREADS>
static __device__ __forceinline__ void fetch(T *to, const T *from, int64_t stride, int rows, int size) {
    constexpr int ACROSS = HD <= 32 ? 4 : HD <= 64 ? 8 : 16, DOWN = THREADS / ACROSS, LD = HD + PAD;
    static_assert(ROWS % DOWN == 0, "every thread copies as much");
    const int r = (int)threadIdx.x / ACROSS, c = (int)threadIdx.x % ACROSS * 8;
    const int64_t step = DOWN * stride;
    if (HD % (ACROSS * 8) && c >= HD) return;
    from += r * stride + c;
    to += r * LD + c;
    if (rows >= ROWS && size == HD) {
#pragma unroll
        for (int i = 0; i < ROWS / DOWN; i++, from += step) copy_async(to + i * DOWN * LD, from);
    } else {
#pragma unroll
        for (int i = 0; i < ROWS / DOWN; i++, from += step)
            copy_async_if(r + i * DOWN < rows && c < size, to + i * DOWN * LD, from);
    }
}
/* An a of 16 rows and 16 columns from row 0, column 0 of x on. */
template <int LD, class T> static __device__ __forceinline__ void load_a(uint32_t (&a)[4], const T *x) {
    const int lane = threadIdx.x % 32;
    ldmatrix(a, x + lane % 16 * LD + lane / 16 * 8);
}
/* Two b's, columns 0-7 and 8-15 of the product, from 16 rows of x (rows: the product's columns; columns: k).
 */
template <int LD, class T> static __device__ __forceinline__ void load_b(uint32_t (&b)[4], const T *x) {
    const int lane = threadIdx.x % 32;
    ldmatrix(b, x + (lane / 16 * 8 + lane % 8) * LD + lane / 8 % 2 * 8);
}
/* The same from x with k along its rows. */
template <int LD, class T> static __device__ __forceinline__ void load_b_trans(uint32_t (&b)[4], const T *x) {
    const int lane = threadIdx.x % 32;
    ldmatrix_trans(b, x + lane % 16 * LD + lane / 16 * 8);
}
/* The k-th 16 columns of d, rounded, as an a. */
template <class T, int N>
static __device__ __forceinline__ void as_a(uint32_t (&a)[4], const float (&d)[N][4], int k) {
    a[0] = pack2(d[2 * k][0], d[2 * k][1], T());
    a[1] = pack2(d[2 * k][2], d[2 * k][3], T());
    a[2] = pack2(d[2 * k + 1][0], d[2 * k + 1][1], T());
    a[3] = pack2(d[2 * k + 1][2], d[2 * k + 1][3], T());
}

/* 32 rows of a warp, HD columns: in shared memory, or as a's in registers. */
template <class T, int HD, bool HELD> struct warp_rows {
    static constexpr int D = HD / 16, LD = HD + PAD;
    const T *rows;
    uint32_t held[HELD ? 2 : 1][HELD ? D : 1][4];
    __device__ __forceinline__ void hold(const T *x) {
        rows = x;
        if constexpr (HELD) {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int d = 0; d < D; d++) load_a<LD>(held[m][d], x + m * 16 * LD + d * 16);
        }
    }
    __device__ __forceinline__ void get(uint32_t (&a)[2][4], int d) const {
#pragma unroll
        for (int m = 0; m < 2; m++) {
            if constexpr (HELD) {
#pragma unroll
                for (int i = 0; i < 4; i++) a[m][i] = held[m][d][i];
            } else {
                load_a<LD>(a[m], rows + m * 16 * LD + d * 16);
            }
        }
    }
    /* s = these rows times the 8 N rows of `other`, transposed. */
    template <int N> __device__ __forceinline__ void times_rows(float (&s)[2][N][4], const T *other) const {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < N; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
        for (int d = 0; d < D; d++) {
            uint32_t a[2][4];
            get(a, d);
#pragma unroll
            for (int n = 0; n < N / 2; n++) {
                uint32_t b[4];
                load_b<LD>(b, other + n * 16 * LD + d * 16);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    mma(s[m][2 * n], a[m], b[0], b[1], T());
                    mma(s[m][2 * n + 1], a[m], b[2], b[3], T());
                }
            }
        }
    }
};
/* sums += w (32, 16) times 16 rows of x (16, HD). */
template <class T, int HD>
static __device__ __forceinline__ void add_rows(float (&sums)[2][HD / 8][4], const uint32_t (&w)[2][4],
                                                const T *x) {
#pragma unroll
    for (int n = 0; n < HD / 16; n++) {
        uint32_t b[4];
        load_b_trans<HD + PAD>(b, x + n * 16);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            mma(sums[m][2 * n], w[m], b[0], b[1], T());
            mma(sums[m][2 * n + 1], w[m], b[2], b[3], T());
        }
    }
}
/* 32 rows of sums, row g + 8 h of its m-th 16 by by[m][h], by way of this warp's rows `staged` in shared
 * memory to global memory; those below `rows`. */
template <class T, int HD>
static __device__ __forceinline__ void give_rows(T *to, int64_t stride, int rows, int size, T *staged,
                                                 const float (&sums)[2][HD / 8][4], const float (&by)[2][2]) {
    constexpr int LD = HD + PAD;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4 * 2;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int n = 0; n < HD / 8; n++)
                *reinterpret_cast<uint32_t *>(staged + (m * 16 + g + h * 8) * LD + n * 8 + t) =
                    pack2(sums[m][n][2 * h] * by[m][h], sums[m][n][2 * h + 1] * by[m][h], T());
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 32 * HD / 8; i += 32) {
        const int r = i / (HD / 8), c = i % (HD / 8) * 8;
        if (r < rows && c < size)
            *reinterpret_cast<int4 *>(to + r * stride + c) =
                *reinterpret_cast<const int4 *>(staged + r * LD + c);
    }
}

/* Which of the N weights from `first` on are dropped, bit by bit; N <= 32. Lanes that are alike but for
 * lane / LOW % LANES ask for the same weights and share the work: a counter gives the words of four, in ten
 * rounds that are more than all else a weight takes. */
template <int N, int LOW, int LANES>
static __device__ __forceinline__ uint32_t dropped_bits(const dropout &d, uint64_t first) {
    const uint64_t counter = d.offset + first / 4;
    const int skew = (int)(first % 4), counters = skew ? N / 4 + 1 : N / 4;
    uint64_t bits = 0;
#pragma unroll 1
    for (int i = (int)threadIdx.x % 32 / LOW % LANES; i < counters; i += LANES) {
        uint32_t w[4];
        pg_philox_words(d.seed, counter + i, &w[0], &w[1], &w[2], &w[3]);
#pragma unroll
        for (int k = 0; k < 4; k++) bits |= (uint64_t)(w[k] < d.threshold) << (4 * i + k);
    }
#pragma unroll
    for (int step = LOW; step < LOW * LANES; step *= 2) bits |= __shfl_xor_sync(0xffffffffu, bits, step);
    return (uint32_t)(bits >> skew);
}
static __device__ __forceinline__ uint64_t weight_index(const pg_attention &a, const turn &at, int64_t i,
                                                        int64_t j) {
    return (uint64_t)((((int64_t)at.batch * a.heads + at.head) * a.q_len + i) * a.k_len + j);
}
template <class T>
static __device__ __forceinline__ const T *mask_of(const pg_attention &a, int batch, int head) {
    return a.mask ? (const T *)a.mask + batch * a.mask_stride[0] + head * a.mask_stride[1] : NULL;
}

/* s = s scale + mask at row + 16 m + 8 h, column + 8 n + e of it, where those are below rows and columns. */
template <class T, int N>
static __device__ __forceinline__ void add_mask(float (&s)[2][N][4], float scale, const T *mask, int row,
                                                int rows, int64_t by_row, int column, int columns,
                                                int64_t by_column) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = row + m * 16 + e / 2 * 8, j = column + n * 8 + e % 2;
                if (i < rows && j < columns)
                    s[m][n][e] = fmaf(s[m][n][e], scale, load_as<T>(mask[i * by_row + j * by_column]));
            }
}
/* -inf where there is no key, or the causal rule hides it from the query; those of s[0][0][0] are given. */
template <int N>
static __device__ __forceinline__ void hide_keys(float (&s)[2][N][4], bool causal, int query, int key,
                                                 int keys) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = query + m * 16 + h * 8, left = (causal && row < keys ? row + 1 : keys) - key;
#pragma unroll
            for (int n = 0; n < N; n++) {
                if (n * 8 >= left) s[m][n][2 * h] = -INFINITY;
                if (n * 8 + 1 >= left) s[m][n][2 * h + 1] = -INFINITY;
            }
        }
}

/* EXTRA: a mask or dropout may be there, and steps are small. Otherwise weights are 2^(unit s - unit top),
 * one fmaf and one ex2. */
template <class T, int HD, bool EXTRA>
static __global__ void __launch_bounds__(128, 2) tensor_forward(const __grid_constant__ pg_attention a) {
    typedef tiles_of<HD, EXTRA> S;
    constexpr int LD = S::LD, BQ = S::QUERIES, BK = S::KEYS, N = BK / 8;
    PG_SHARED(T, shared);
    T *const sq = shared, *const sk = sq + BQ * LD, *const sv = sk + 2 * BK * LD;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4 * 2;
    const int q_len = (int)a.q_len, k_len = (int)a.k_len, size = (int)a.size, v_size = (int)a.v_size;
    const turn at = turn_of(a, (int)a.heads);
    if (!at.any) return;
    const int q0 = (a.causal ? (int)gridDim.y - 1 - at.rank : at.rank) * BQ, row0 = q0 + warp * 32,
              kv = at.head / (int)(a.heads / a.kv_heads);
    const int seen = a.causal && q0 + BQ < k_len ? q0 + BQ : k_len, steps = (seen + BK - 1) / BK;
    const float scale = (float)a.scale, unit = EXTRA && a.mask ? LOG2E : scale * LOG2E, slack = 8 / unit;
    const T *k = place<T>(a.k, a.k_stride, at.batch, kv, 0), *v = place<T>(a.v, a.v_stride, at.batch, kv, 0);
    const T *const mask = EXTRA ? mask_of<T>(a, at.batch, at.head) : NULL;
    dropout drop = {0, 0, 0, 1};
    if (EXTRA) drop = dropout_of(a);

    fetch<T, HD, BQ, 128>(sq, place<T>(a.q, a.q_stride, at.batch, at.head, q0), a.q_stride[2], q_len - q0,
                          size);
    copy_commit();
    if (steps > 0) {
        fetch<T, HD, BK, 128>(sk, k, a.k_stride[2], k_len, size);
        fetch<T, HD, BK, 128>(sv, v, a.v_stride[2], k_len, v_size);
    }
    copy_commit();
    copy_wait<1>();
    __syncthreads();
    warp_rows<T, HD, (HD <= 64)> q;
    q.hold(sq + warp * 32 * LD);

    float out[2][HD / 8][4] = {}, top[2][2], total[2][2] = {};
    top[0][0] = top[0][1] = top[1][0] = top[1][1] = -INFINITY;
    for (int step = 0; step < steps; step++) {
        const int k0 = step * BK;
        const T *const keys = sk + step % 2 * (BK * LD), *const values = sv + step % 2 * (BK * LD);
        copy_wait<0>();
        __syncthreads(); /* this tile is there, and nobody reads the one before */
        if (step + 1 < steps) {
            k += BK * a.k_stride[2];
            v += BK * a.v_stride[2];
            fetch<T, HD, BK, 128>(sk + (step + 1) % 2 * (BK * LD), k, a.k_stride[2], k_len - k0 - BK, size);
            fetch<T, HD, BK, 128>(sv + (step + 1) % 2 * (BK * LD), v, a.v_stride[2], k_len - k0 - BK, v_size);
        }
        copy_commit();
        if (row0 >= q_len || (a.causal && k0 > row0 + 31)) continue;

        float s[2][N][4];
        q.times_rows(s, keys);
        if (mask)
            add_mask<T>(s, scale, mask, row0 + g, q_len, a.mask_stride[2], k0 + t, k_len, a.mask_stride[3]);
        if (k0 + BK > k_len || (a.causal && k0 + BK - 1 > row0))
            hide_keys(s, a.causal, row0 + g, k0 + t, k_len);
        /* The shift is raised where a weight would pass 2^8: halves hold those as well as 1. */
        float high[2][2];
        bool raise = false;
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float x = fmaxf(s[m][0][2 * h], s[m][0][2 * h + 1]);
#pragma unroll
                for (int n = 1; n < N; n++) x = fmaxf(x, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
                x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
                high[m][h] = x;
                raise |= x > top[m][h] + slack;
            }
        if (__any_sync(0xffffffffu, raise)) {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float next = fmaxf(top[m][h], high[m][h]),
                                factor = fast_exp2((top[m][h] - (next == -INFINITY ? 0.0f : next)) * unit);
                    top[m][h] = next;
                    total[m][h] *= factor;
#pragma unroll
                    for (int n = 0; n < HD / 8; n++)
                        out[m][n][2 * h] *= factor, out[m][n][2 * h + 1] *= factor;
                }
        }
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                /* masks may hold the least float, of which no multiple is finite */
                const float shift = EXTRA && top[m][h] == -INFINITY ? 0.0f : top[m][h], less = -shift * unit;
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int e = 2 * h; e < 2 * h + 2; e++) {
                        s[m][n][e] =
                            fast_exp2(EXTRA ? (s[m][n][e] - shift) * unit : fmaf(s[m][n][e], unit, less));
                        total[m][h] += s[m][n][e];
                    }
            }
        if (EXTRA && a.dropout_p > 0) {
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const uint64_t first = weight_index(a, at, row0 + m * 16 + g, k0);
                const uint32_t bits[2] = {dropped_bits<BK, 1, 4>(drop, first) >> t,
                                          dropped_bits<BK, 1, 4>(drop, first + 8 * (uint64_t)k_len) >> t};
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        if (bits[e / 2] >> (8 * n + e % 2) & 1) s[m][n][e] = 0;
            }
        }
#pragma unroll
        for (int c = 0; c < BK / 16; c++) {
            uint32_t w[2][4];
            as_a<T>(w[0], s[0], c);
            as_a<T>(w[1], s[1], c);
            add_rows<T, HD>(out, w, values + c * 16 * LD);
        }
    }
    copy_wait<0>();
    float by[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = total[m][h];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            by[m][h] = sum == 0 ? 0.0f : (float)drop.keep / sum;
            const int row = row0 + m * 16 + g + h * 8;
            if (a.lse && t == 0 && row < q_len)
                ((float *)a.lse)[((int64_t)at.batch * a.heads + at.head) * q_len + row] =
                    sum == 0 ? INFINITY : fmaf(top[m][h], EXTRA && a.mask ? 1.0f : scale, logf(sum));
        }
    /* This warp's rows of q have been read: they take the result. */
    give_rows<T, HD>((T *)place<T>(a.out, a.out_stride, at.batch, at.head, row0), a.out_stride[2],
                     q_len - row0, v_size, sq + warp * 32 * LD, out, by);
}

/* Of a query: the log of its sum (times LOG2E where there is no mask), and dot(grad_out, out). */
typedef struct alignas(8) row_sums {
    float log_sum, delta;
} row_sums;

/* (batch, heads, q_len) of them. `lanes` threads a row, 16 bytes each of out and grad_out; bound by those. */
template <class T>
static __global__ void tensor_sums(const __grid_constant__ pg_attention a, int lanes, float unit,
                                   row_sums *to) {
    const int64_t r = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / lanes,
                  rows = a.batch * a.heads * a.q_len;
    const int lane = (int)threadIdx.x % lanes;
    float sum = 0;
    if (r < rows && lane * 8 < a.v_size) {
        const int64_t i = r % a.q_len, head = r / a.q_len % a.heads, batch = r / a.q_len / a.heads;
        const pack<T> o = load_pack(place<T>(a.out, a.out_stride, batch, head, i) + lane * 8),
                      g = load_pack(place<T>(a.grad_out, a.grad_out_stride, batch, head, i) + lane * 8);
#pragma unroll
        for (int d = 0; d < 8; d++) sum = fmaf(load_as<T>(o.v[d]), load_as<T>(g.v[d]), sum);
    }
    for (int step = lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (r < rows && lane == 0) {
        const row_sums x = {((const float *)a.lse)[r] * unit, sum};
        to[r] = x;
    }
}

/* dq of 128 queries: ds k, where ds = w (grad_out v^T - delta). */
template <class T, int HD, bool EXTRA>
static __global__ void __launch_bounds__(128, 2)
    tensor_to_queries(const __grid_constant__ pg_attention a, const row_sums *sums) {
    typedef tiles_of<HD, EXTRA> S;
    constexpr int LD = S::LD, BQ = S::QUERIES, BK = S::NEAR, N = BK / 8;
    PG_SHARED(T, shared);
    T *const sq = shared, *const sg = sq + BQ * LD, *const sk = sg + BQ * LD, *const sv = sk + 2 * BK * LD;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4 * 2;
    const int q_len = (int)a.q_len, k_len = (int)a.k_len, size = (int)a.size, v_size = (int)a.v_size;
    const turn at = turn_of(a, (int)a.heads);
    if (!at.any) return;
    const int q0 = (a.causal ? (int)gridDim.y - 1 - at.rank : at.rank) * BQ, row0 = q0 + warp * 32,
              kv = at.head / (int)(a.heads / a.kv_heads);
    const int seen = a.causal && q0 + BQ < k_len ? q0 + BQ : k_len, steps = (seen + BK - 1) / BK;
    const float scale = (float)a.scale, unit = scale * LOG2E;
    const T *k = place<T>(a.k, a.k_stride, at.batch, kv, 0), *v = place<T>(a.v, a.v_stride, at.batch, kv, 0);
    const T *const mask = EXTRA ? mask_of<T>(a, at.batch, at.head) : NULL;
    dropout drop = {0, 0, 0, 1};
    if (EXTRA) drop = dropout_of(a);

    fetch<T, HD, BQ, 128>(sq, place<T>(a.q, a.q_stride, at.batch, at.head, q0), a.q_stride[2], q_len - q0,
                          size);
    fetch<T, HD, BQ, 128>(sg, place<T>(a.grad_out, a.grad_out_stride, at.batch, at.head, q0),
                          a.grad_out_stride[2], q_len - q0, v_size);
    copy_commit();
    if (steps > 0) {
        fetch<T, HD, BK, 128>(sk, k, a.k_stride[2], k_len, size);
        fetch<T, HD, BK, 128>(sv, v, a.v_stride[2], k_len, v_size);
    }
    copy_commit();
    float log_sum[2][2], delta[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = row0 + m * 16 + g + h * 8;
            row_sums x = {INFINITY, 0};
            if (row < q_len) x = sums[((int64_t)at.batch * a.heads + at.head) * q_len + row];
            log_sum[m][h] = x.log_sum;
            delta[m][h] = x.delta;
        }
    copy_wait<1>();
    __syncthreads();
    warp_rows<T, HD, false> q, grad;
    q.hold(sq + warp * 32 * LD);
    grad.hold(sg + warp * 32 * LD);

    float dq[2][HD / 8][4] = {};
    for (int step = 0; step < steps; step++) {
        const int k0 = step * BK;
        const T *const keys = sk + step % 2 * (BK * LD), *const values = sv + step % 2 * (BK * LD);
        copy_wait<0>();
        __syncthreads(); /* this tile is there, and nobody reads the one before */
        if (step + 1 < steps) {
            k += BK * a.k_stride[2];
            v += BK * a.v_stride[2];
            fetch<T, HD, BK, 128>(sk + (step + 1) % 2 * (BK * LD), k, a.k_stride[2], k_len - k0 - BK, size);
            fetch<T, HD, BK, 128>(sv + (step + 1) % 2 * (BK * LD), v, a.v_stride[2], k_len - k0 - BK, v_size);
        }
        copy_commit();
        if (row0 >= q_len || (a.causal && k0 > row0 + 31)) continue;

        float s[2][N][4], d[2][N][4];
        q.times_rows(s, keys);
        grad.times_rows(d, values);
        if (mask)
            add_mask<T>(s, scale, mask, row0 + g, q_len, a.mask_stride[2], k0 + t, k_len, a.mask_stride[3]);
        if (k0 + BK > k_len || (a.causal && k0 + BK - 1 > row0))
            hide_keys(s, a.causal, row0 + g, k0 + t, k_len);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            uint32_t bits[2] = {0, 0};
            if (EXTRA && a.dropout_p > 0) {
                const uint64_t first = weight_index(a, at, row0 + m * 16 + g, k0);
                bits[0] = dropped_bits<BK, 1, 4>(drop, first) >> t;
                bits[1] = dropped_bits<BK, 1, 4>(drop, first + 8 * (uint64_t)k_len) >> t;
            }
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int h = e / 2;
                    const float w = fast_exp2(mask ? (s[m][n][e] - log_sum[m][h]) * LOG2E
                                                   : fmaf(s[m][n][e], unit, -log_sum[m][h]));
                    const bool lost = EXTRA && (bits[h] >> (8 * n + e % 2) & 1);
                    const float kept = lost ? 0.0f : (float)drop.keep;
                    s[m][n][e] = w * ((EXTRA ? d[m][n][e] * kept : d[m][n][e]) - delta[m][h]);
                }
        }
#pragma unroll
        for (int c = 0; c < BK / 16; c++) {
            uint32_t w[2][4];
            as_a<T>(w[0], s[0], c);
            as_a<T>(w[1], s[1], c);
            add_rows<T, HD>(dq, w, keys + c * 16 * LD);
        }
    }
    copy_wait<0>();
    const float by[2][2] = {{scale, scale}, {scale, scale}};
    /* This warp's rows of q have been read: they take the result. */
    give_rows<T, HD>((T *)place<T>(a.grad_q, a.grad_q_stride, at.batch, at.head, row0), a.grad_q_stride[2],
                     q_len - row0, size, sq + warp * 32 * LD, dq, by);
}

/* dk and dv of 32 keys a pair of warps. Two warps share 32 keys: the one makes the weights, w = exp(k q^T -
 * log_sum), and dv += w grad_out; the other, a step behind, the scores' gradient, ds = w (v grad_out^T -
 * delta), and dk += ds q. Each warp's registers hold one of the two gradients. The weights go from the one to
 * the other through shared memory, rounded, as the a's that they are for dv. */
template <class T, int HD, bool EXTRA>
static __global__ void __launch_bounds__(64 * tiles_of<HD, EXTRA>::PAIRS, 1)
    tensor_to_keys(const __grid_constant__ pg_attention a, const row_sums *sums) {
    typedef tiles_of<HD, EXTRA> S;
    constexpr int LD = S::LD, OWN = S::OWN, OTHER = S::OTHER, N = OTHER / 8, C = OTHER / 16, PAIRS = S::PAIRS,
                  THREADS = 64 * PAIRS;
    PG_SHARED(T, shared);
    T *const own_k = shared, *const own_v = own_k + OWN * LD, *const sq = own_v + OWN * LD,
             *const sg = sq + 3 * OTHER * LD; /* q: 3 tiles; grad_out: 2 */
    row_sums *const ss = reinterpret_cast<row_sums *>(sg + 2 * OTHER * LD); /* (3, OTHER) */
    int4 *const passed = reinterpret_cast<int4 *>(ss + 3 * OTHER); /* (2, PAIRS, C, 2, 32) */
    uint32_t *const passed_bits =
        reinterpret_cast<uint32_t *>(passed + 2 * PAIRS * C * 2 * 32); /* (2, PAIRS, 2, 32) */
    const int lane = threadIdx.x % 32, pair = threadIdx.x / 32 % PAIRS, g = lane / 4, t = lane % 4 * 2;
    const bool weighs = threadIdx.x < 32 * PAIRS;
    const int q_len = (int)a.q_len, k_len = (int)a.k_len, size = (int)a.size, v_size = (int)a.v_size;
    const int share = (int)(a.heads / a.kv_heads);
    const turn at = turn_of(a, (int)a.kv_heads);
    if (!at.any) return;
    const int own = at.rank * OWN, row0 = own + pair * 32, first = a.causal ? own / OTHER * OTHER : 0;
    const int each = first < q_len ? (q_len - first + OTHER - 1) / OTHER : 0, steps = each * share;
    const float scale = (float)a.scale, unit = scale * LOG2E;
    dropout drop = {0, 0, 0, 1};
    if (EXTRA) drop = dropout_of(a);

    /* The tile of queries of a step: of which head, from where on, in which of the 3 places. */
    struct tile {
        int head, from, place;
    };
    const auto tile_of = [&](int step) {
        const int more = share == 1 || each == 0 ? 0 : step / each;
        const tile r = {at.head * share + more, first + (step - more * each) * OTHER, step % 3};
        return r;
    };
    const auto load = [&](int step) {
        const tile next = tile_of(step);
        fetch<T, HD, OTHER, THREADS>(sq + next.place * (OTHER * LD),
                                     place<T>(a.q, a.q_stride, at.batch, next.head, next.from), a.q_stride[2],
                                     q_len - next.from, size);
        fetch<T, HD, OTHER, THREADS>(sg + step % 2 * (OTHER * LD),
                                     place<T>(a.grad_out, a.grad_out_stride, at.batch, next.head, next.from),
                                     a.grad_out_stride[2], q_len - next.from, v_size);
        if (threadIdx.x < OTHER) {
            const int i = next.from + (int)threadIdx.x;
            row_sums *const to = ss + next.place * OTHER + threadIdx.x;
            if (i < q_len)
                copy_async8(to, sums + (((int64_t)at.batch * a.heads + next.head) * q_len + i));
            else
                to->log_sum = INFINITY, to->delta = 0;
        }
    };
    const auto concerns = [&](const tile &of) {
        return row0 < k_len && !(a.causal && of.from + OTHER - 1 < row0);
    };

    fetch<T, HD, OWN, THREADS>(own_k, place<T>(a.k, a.k_stride, at.batch, at.head, own), a.k_stride[2],
                               k_len - own, size);
    fetch<T, HD, OWN, THREADS>(own_v, place<T>(a.v, a.v_stride, at.batch, at.head, own), a.v_stride[2],
                               k_len - own, v_size);
    copy_commit();
    if (steps > 0) load(0);
    copy_commit();
    copy_wait<1>();
    __syncthreads();
    warp_rows<T, HD, (HD <= 64)> mine;
    mine.hold((weighs ? own_k : own_v) + pair * 32 * LD);

    float grad[2][HD / 8][4] = {}, s[2][N][4];
    for (int step = 0; step <= steps; step++) {
        copy_wait<0>();
        __syncthreads(); /* this tile and the last one's weights are there; nobody reads those before */
        if (step + 1 < steps) load(step + 1);
        copy_commit();
        const tile now = tile_of(step);
        if (weighs) {
            if (step < steps && concerns(now)) {
                int4 *const to = passed + (step % 2 * PAIRS + pair) * (C * 2 * 32) + lane;
                const row_sums *const of = ss + now.place * OTHER + t;
                const T *const mask = EXTRA ? mask_of<T>(a, at.batch, now.head) : NULL;
                mine.times_rows(s, sq + now.place * (OTHER * LD));
                if (mask)
                    add_mask<T>(s, scale, mask, row0 + g, k_len, a.mask_stride[3], now.from + t, q_len,
                                a.mask_stride[2]);
                if (a.causal && now.from < row0 + 31) {
#pragma unroll
                    for (int m = 0; m < 2; m++)
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                            const int hidden = row0 + m * 16 + g + h * 8 - now.from - t;
#pragma unroll
                            for (int n = 0; n < N; n++) {
                                if (n * 8 < hidden) s[m][n][2 * h] = -INFINITY;
                                if (n * 8 + 1 < hidden) s[m][n][2 * h + 1] = -INFINITY;
                            }
                        }
                }
#pragma unroll
                for (int n = 0; n < N; n++) {
                    const float log_sum[2] = {of[n * 8].log_sum, of[n * 8 + 1].log_sum};
#pragma unroll
                    for (int m = 0; m < 2; m++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            s[m][n][e] = fast_exp2(mask ? (s[m][n][e] - log_sum[e % 2]) * LOG2E
                                                        : fmaf(s[m][n][e], unit, -log_sum[e % 2]));
                }
                uint32_t bits[2] = {0, 0};
                if (EXTRA && a.dropout_p > 0) {
                    const turn of_now = {0, at.batch, now.head, true};
#pragma unroll
                    for (int n = 0; n < N; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const uint32_t keys = dropped_bits<32, 4, 8>(
                                drop, weight_index(a, of_now, now.from + n * 8 + t + e, row0));
#pragma unroll
                            for (int m = 0; m < 2; m++)
                                bits[m] |= (keys >> (m * 16 + g) & 1) << (4 * n + e) |
                                           (keys >> (m * 16 + g + 8) & 1) << (4 * n + 2 + e);
                        }
#pragma unroll
                    for (int m = 0; m < 2; m++)
                        passed_bits[((step % 2 * PAIRS + pair) * 2 + m) * 32 + lane] = bits[m];
                }
#pragma unroll
                for (int c = 0; c < C; c++) {
                    uint32_t w[2][4];
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        as_a<T>(w[m], s[m], c);
                        to[(c * 2 + m) * 32] =
                            make_int4((int)w[m][0], (int)w[m][1], (int)w[m][2], (int)w[m][3]);
                        if (EXTRA && a.dropout_p > 0) {
#pragma unroll
                            for (int n = 2 * c; n < 2 * c + 2; n++)
#pragma unroll
                                for (int e = 0; e < 4; e++)
                                    s[m][n][e] = bits[m] >> (4 * n + e) & 1 ? 0
                                                                            : s[m][n][e] * (float)drop.keep;
                            as_a<T>(w[m], s[m], c);
                        }
                    }
                    add_rows<T, HD>(grad, w, sg + (step % 2 * OTHER + c * 16) * LD);
                }
            }
        } else {
            const tile before = tile_of(step - 1);
            if (step > 0 && concerns(before)) {
                const int4 *const from = passed + ((step + 1) % 2 * PAIRS + pair) * (C * 2 * 32) + lane;
                const row_sums *const of = ss + before.place * OTHER + t;
                uint32_t bits[2] = {0, 0};
                if (EXTRA && a.dropout_p > 0)
                    for (int m = 0; m < 2; m++)
                        bits[m] = passed_bits[(((step + 1) % 2 * PAIRS + pair) * 2 + m) * 32 + lane];
#pragma unroll
                for (int c = 0; c < C; c++) {
                    uint32_t w[2][4];
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        const int4 x = from[(c * 2 + m) * 32];
                        const uint32_t pairs[4] = {(uint32_t)x.x, (uint32_t)x.y, (uint32_t)x.z,
                                                   (uint32_t)x.w};
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            const int n = 2 * c + i / 2, e = i % 2 * 2;
                            float weight[2];
                            unpack2(pairs[i], &weight[0], &weight[1], T());
#pragma unroll
                            for (int u = 0; u < 2; u++) {
                                const float kept = !EXTRA                           ? 1.0f
                                                   : bits[m] >> (4 * n + e + u) & 1 ? 0.0f
                                                                                    : (float)drop.keep;
                                s[m][n][e + u] =
                                    weight[u] *
                                    ((EXTRA ? s[m][n][e + u] * kept : s[m][n][e + u]) - of[n * 8 + u].delta);
                            }
                        }
                        as_a<T>(w[m], s[m], c);
                    }
                    add_rows<T, HD>(grad, w, sq + (before.place * OTHER + c * 16) * LD);
                }
            }
            if (step < steps && concerns(now)) mine.times_rows(s, sg + step % 2 * (OTHER * LD));
        }
    }
    copy_wait<0>();
    __syncthreads(); /* own keys and values have been read: they take the results */
    const float times = weighs ? 1.0f : scale, by[2][2] = {{times, times}, {times, times}};
    if (weighs)
        give_rows<T, HD>((T *)place<T>(a.grad_v, a.grad_v_stride, at.batch, at.head, row0),
                         a.grad_v_stride[2], k_len - row0, v_size, own_v + pair * 32 * LD, grad, by);
    else
        give_rows<T, HD>((T *)place<T>(a.grad_k, a.grad_k_stride, at.batch, at.head, row0),
                         a.grad_k_stride[2], k_len - row0, size, own_k + pair * 32 * LD, grad, by);
}

/* ---- launchers ---- */

/* More than 48 KiB of shared memory are asked for once a kernel and device. */
template <class Kernel> static int allow_shared(Kernel *kernel, size_t bytes, std::atomic<uint64_t> &done) {
    int device = 0;
    if (bytes <= 48 << 10) return PG_KERNEL_OK;
    if (cudaGetDevice(&device) != cudaSuccess) return PG_KERNEL_FAILED;
    const uint64_t bit = UINT64_C(1) << (device & 63);
    if (device < 64 && (done.load(std::memory_order_relaxed) & bit)) return PG_KERNEL_OK;
    /* all of the first cache's memory as shared memory: two blocks want more than half of it */
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes) !=
            cudaSuccess ||
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100) != cudaSuccess)
        return PG_KERNEL_FAILED;
    done.fetch_or(bit, std::memory_order_relaxed);
    return PG_KERNEL_OK;
}
#define LAUNCH_TILES(kernel, items, threads, bytes, context, ...)                                            \
    do {                                                                                                     \
        static std::atomic<uint64_t> allowed_;                                                               \
        const int64_t items_ = (items);                                                                      \
        if (items_ <= 0) break;                                                                              \
        if (allow_shared(kernel, bytes, allowed_) != PG_KERNEL_OK) return PG_KERNEL_FAILED;                  \
        PG_LAUNCH(kernel, blocks_for(items_, 1), threads, bytes, context, __VA_ARGS__, items_);              \
    } while (0)

#define LAUNCH_TURNS(kernel, grid, threads, bytes, context, ...)                                             \
    do {                                                                                                     \
        static std::atomic<uint64_t> allowed_;                                                               \
        const dim3 grid_ = (grid);                                                                           \
        if (grid_.x == 0 || grid_.y == 0) break;                                                             \
        if (allow_shared(kernel, bytes, allowed_) != PG_KERNEL_OK) return PG_KERNEL_FAILED;                  \
        PG_LAUNCH(kernel, grid_, threads, bytes, context, __VA_ARGS__);                                      \
    } while (0)

static int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* turn_of's grid. The heads of a group stream half of the L2 cache, `each` bytes a head. */
static dim3 turns_of(int64_t tiles, int64_t heads, int64_t each) {
    int64_t group = (INT64_C(24) << 20) / (each > 0 ? each : 1);
    if (group < ceiling(heads, 65535)) group = ceiling(heads, 65535);
    if (group > heads) group = heads;
    return dim3((unsigned)group, (unsigned)tiles, (unsigned)(group ? ceiling(heads, group) : 1));
}

static bool rows_fit(const void *p, const int64_t *stride) {
    return aligned16(p) && stride[0] % 8 == 0 && stride[1] % 8 == 0 && stride[2] % 8 == 0;
}
static bool tensor_cores_fit(const pg_attention *a, bool backward) {
    const int64_t most = a->q_len > a->k_len ? a->q_len
                                             : a->k_len; /* counted in ints; tiles are a grid's y */
    return a->size % 8 == 0 && a->v_size % 8 == 0 && a->size <= 128 && a->v_size <= 128 && a->scale > 1e-30 &&
           a->scale < 1e30 && most < 32 * INT64_C(65535) && a->batch * a->heads < 1 << 30 &&
           rows_fit(a->q, a->q_stride) && rows_fit(a->k, a->k_stride) && rows_fit(a->v, a->v_stride) &&
           rows_fit(a->out, a->out_stride) &&
           (!backward ||
            (rows_fit(a->grad_out, a->grad_out_stride) && rows_fit(a->grad_q, a->grad_q_stride) &&
             rows_fit(a->grad_k, a->grad_k_stride) && rows_fit(a->grad_v, a->grad_v_stride)));
}

/* a with what it points to where kernels can read it. */
static int bring(const pg_context *context, const pg_attention *a, pg_attention *out) {
    *out = *a;
    out->philox = NULL;
    if (a->dropout_p > 0) {
        out->philox = (const pg_philox *)on_device(context, a->philox, sizeof *a->philox);
        if (!out->philox) return PG_KERNEL_NO_SCRATCH;
    }
    return PG_KERNEL_OK;
}

template <class T> static int forward_plain(const pg_context *context, const pg_attention &a) {
    typedef plain<T> P;
    LAUNCH_TILES((plain_forward<T>),
                 a.batch * a.heads * ceiling(a.q_len, P::TILE) * ceiling(a.v_size, P::COLUMNS), 256, P::BYTES,
                 context, a);
    return launched();
}
template <class T, int HD, bool EXTRA>
static int forward_tensor(const pg_context *context, const pg_attention &a) {
    typedef tiles_of<HD, EXTRA> S;
    LAUNCH_TURNS((tensor_forward<T, HD, EXTRA>),
                 turns_of(ceiling(a.q_len, S::QUERIES), a.batch * a.heads, a.k_len * (a.size + a.v_size) * 2),
                 128, S::FORWARD, context, a);
    return launched();
}
/* Whether blocks can have the shared memory that kernels without mask and dropout take: compute
 * capability 8.0 and 9.0 give 163 KiB and more, others 99. */
static bool room_for_wide_steps(void) {
    int device = 0, bytes = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess &&
           (size_t)bytes >= tiles_of<128, false>::TO_KEYS;
}
static_assert(tiles_of<128, false>::TO_KEYS <= 163 << 10 && tiles_of<96, false>::TO_KEYS <= 163 << 10 &&
                  tiles_of<128, true>::TO_KEYS <= 99 << 10 && tiles_of<128, true>::TO_QUERIES <= 99 << 10 &&
                  tiles_of<128, true>::FORWARD <= 99 << 10 && tiles_of<64, true>::TO_KEYS <= 99 << 10,
              "they fit");
/* The narrowest columns that hold a row. */
#define PG_BY_COLUMNS(f, a, ...)                                                                             \
    do {                                                                                                     \
        const int64_t columns_ = (a).size > (a).v_size ? (a).size : (a).v_size;                              \
        const bool extra_ = (a).mask || (a).dropout_p > 0 || !room_for_wide_steps();                         \
        if (extra_) return columns_ <= 64 ? f<T, 64, true>(__VA_ARGS__) : f<T, 128, true>(__VA_ARGS__);      \
        if (columns_ <= 32) return f<T, 32, false>(__VA_ARGS__);                                             \
        if (columns_ <= 64) return f<T, 64, false>(__VA_ARGS__);                                             \
        if (columns_ <= 96) return f<T, 96, false>(__VA_ARGS__);                                             \
        return f<T, 128, false>(__VA_ARGS__);                                                                \
    } while (0)
template <class T> static int forward(const pg_context *context, const pg_attention &a) {
    if constexpr (sizeof(T) == 2) {
        if (tensor_cores_fit(&a, false)) PG_BY_COLUMNS(forward_tensor, a, context, a);
    }
    return forward_plain<T>(context, a);
}

template <class T>
static int backward_plain(const pg_context *context, const pg_attention &a, const compute_t<T> *delta) {
    typedef plain<T> P;
    const int64_t of_v = ceiling(a.v_size, P::COLUMNS), of_k = ceiling(a.size, P::COLUMNS);
    LAUNCH_TILES((plain_backward<T, true>), a.batch * a.kv_heads * ceiling(a.k_len, P::TILE) * (of_v + of_k),
                 256, P::BYTES, context, a, delta);
    LAUNCH_TILES((plain_backward<T, false>), a.batch * a.heads * ceiling(a.q_len, P::TILE) * of_k, 256,
                 P::BYTES, context, a, delta);
    return launched();
}
template <class T, int HD, bool EXTRA>
static int backward_tensor(const pg_context *context, const pg_attention &a, row_sums *sums) {
    typedef tiles_of<HD, EXTRA> S;
    const int64_t rows = a.batch * a.heads * a.q_len;
    int lanes = 1;
    while (lanes * 8 < a.v_size) lanes *= 2;
    if (rows > 0)
        PG_LAUNCH((tensor_sums<T>), blocks_for(rows, 256 / lanes), 256, 0, context, a, lanes,
                  a.mask ? 1.0f : LOG2E, sums);
    LAUNCH_TURNS((tensor_to_keys<T, HD, EXTRA>),
                 turns_of(ceiling(a.k_len, S::OWN), a.batch * a.kv_heads,
                          a.heads / a.kv_heads * a.q_len * (a.size + a.v_size) * 2),
                 64 * S::PAIRS, S::TO_KEYS, context, a, sums);
    LAUNCH_TURNS((tensor_to_queries<T, HD, EXTRA>),
                 turns_of(ceiling(a.q_len, S::QUERIES), a.batch * a.heads, a.k_len * (a.size + a.v_size) * 2),
                 128, S::TO_QUERIES, context, a, sums);
    return launched();
}
template <class T> static int backward(const pg_context *context, const pg_attention &a) {
    typedef compute_t<T> C;
    const int64_t rows = a.batch * a.heads * a.q_len;
    void *sums = context->scratch(context, (size_t)(rows + 1) * sizeof(row_sums));
    if (!sums) return PG_KERNEL_NO_SCRATCH;
    if constexpr (sizeof(T) == 2) {
        if (tensor_cores_fit(&a, true)) PG_BY_COLUMNS(backward_tensor, a, context, a, (row_sums *)sums);
    }
    if (rows > 0) PG_LAUNCH((deltas<T>), blocks_for(rows, 8, 1 << 16), 256, 0, context, a, (C *)sums);
    return backward_plain<T>(context, a, (C *)sums);
}

extern "C" int PG_K(attention)(const pg_context *context, int dtype, const pg_attention *a) {
    pg_attention here;
    if (a->batch <= 0 || a->heads <= 0 || a->q_len <= 0 || a->v_size <= 0) return PG_KERNEL_OK;
    const int status = bring(context, a, &here);
    if (status != PG_KERNEL_OK) return status;
    PG_FOR_FLOATS(dtype, return forward<T>(context, here))
}

extern "C" int PG_K(attention_backward)(const pg_context *context, int dtype, const pg_attention *a) {
    pg_attention here;
    if (a->batch <= 0 || a->heads <= 0) return PG_KERNEL_OK;
    const int status = bring(context, a, &here);
    if (status != PG_KERNEL_OK) return status;
    PG_FOR_FLOATS(dtype, return backward<T>(context, here))
}
