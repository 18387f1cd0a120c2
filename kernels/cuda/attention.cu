/* attention.cu: softmax(scale q k^T + mask) v by tiles (Dao et al. 2022, "FlashAttention"; Dao 2023,
 * "FlashAttention-2"): scores exist for one tile of queries against one tile of keys, in registers; a running
 * maximum and sum go with each query. Tiles that the causal rule hides are skipped. Backward makes the scores
 * again from the saved log of the sums. A query without any key gives zeros, and its lse is +inf, so that
 * backward's exp(s - lse) is 0.
 *
 * Two families:
 *
 * Tensor cores (float16, bfloat16; sizes up to 128 that are multiples of 8; rows 16-byte aligned), padded to
 * 64 or 128 columns:
 *   forward   4 warps, 128 queries, 32 to a warp, against tiles of 64 keys (32 where padded to 128), keys and
 *             values of the next tile under way meanwhile. 55 KiB (70 KiB) of shared memory and up to 255
 *             registers a thread: 2 blocks, 8 warps, on a multiprocessor. With 32 queries a warp each byte
 *             read from shared memory feeds 26 flops, so that a Hopper-class multiprocessor's 128 bytes a
 *             cycle allow 3,300 flops: the tensor cores' rate through mma.sync (about 2,600 of those) and the
 *             16 exponentials a cycle bound it: 4 * 64 flops each at size 64.
 *   backward  4 warps, 64 rows of their own, 16 to a warp: keys and values for dk and dv, queries for dq,
 *             against tiles of 64 (32) of the other side. Two kernels, so that nothing is added by atomics: 7
 *             products where 5 would do, the price of the same bits in every run. 13 flops a byte of shared
 *             memory: some 1,700 a cycle bound it.
 *
 * Plain (any dtype, size, stride): tiles of 64 x 64 (double: 32 x 32) in shared memory, 256 threads, each
 * 4 x 4 scores; 64 columns of the result a block, so the scores are made again for every 64 columns beyond the
 * first. Bound by float32 arithmetic fed from shared memory: 8 reads for 16 multiply-adds.
 *
 * Sums run in a fixed order: over keys ascending; for dk and dv over the heads that share them, then queries,
 * ascending. The tensor-core kernels use an exponential within 2 ulp of float32, far below what rounding
 * weights to halves loses. */
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

template <int HD> struct tensor_tiles {
    static constexpr int LD = HD + 8; /* 16 bytes on: the 8 rows that ldmatrix reads lie in different banks */
    static constexpr int QUERIES = 128, KEYS = HD == 64 ? 64 : 32; /* forward */
    static constexpr int OWN = 64, OTHER = HD == 64 ? 64 : 32;     /* backward */
    static constexpr size_t FORWARD = (QUERIES + 4 * KEYS) * LD * 2;
    static constexpr size_t BACKWARD = (2 * OWN + 4 * OTHER) * LD * 2 + 4 * OTHER * sizeof(float);
};

/* A distance where only that it is large matters when it is. */
enum { FAR = 1 << 29 };
static __device__ __forceinline__ int near(int64_t x) {
    return (int)(x > FAR ? (int64_t)FAR : x < -FAR ? -(int64_t)FAR : x);
}

/* ROWS rows of `size` elements, `stride` apart, into shared memory (ROWS, LD); zeros past `rows` and past
 * `size`. 128 threads. */
template <class T, int HD, int ROWS>
static __device__ __forceinline__ void fetch(T *to, const T *from, int64_t stride, int64_t rows,
                                             int64_t size) {
#pragma unroll
    for (int i = (int)threadIdx.x; i < ROWS * HD / 8; i += 128) {
        const int r = i / (HD / 8), c = i % (HD / 8) * 8;
        T *at = to + r * tensor_tiles<HD>::LD + c;
        if (r < rows && c < size) copy_async(at, from + r * stride + c);
        else *reinterpret_cast<int4 *>(at) = make_int4(0, 0, 0, 0);
    }
}
/* An a of 16 rows and 16 columns from row 0, column 0 of x on. */
template <int LD, class T> static __device__ __forceinline__ void load_a(uint32_t (&a)[4], const T *x) {
    const int lane = threadIdx.x % 32;
    ldmatrix(a, x + lane % 16 * LD + lane / 16 * 8);
}
/* Two b's, columns 0-7 and 8-15 of the product, from 16 rows of x (rows: the product's columns; columns: k). */
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
/* ROWS rows from row 0 of staged (shared, LD) on, which this warp wrote, to global memory; those below
 * `rows`. */
template <class T, int HD, int ROWS>
static __device__ __forceinline__ void store_rows(T *to, int64_t stride, int64_t rows, int64_t size,
                                                  const T *staged) {
    __syncwarp();
#pragma unroll
    for (int i = (int)threadIdx.x % 32; i < ROWS * HD / 8; i += 32) {
        const int r = i / (HD / 8), c = i % (HD / 8) * 8;
        if (r < rows && c < size)
            *reinterpret_cast<int4 *>(to + r * stride + c) =
                *reinterpret_cast<const int4 *>(staged + r * tensor_tiles<HD>::LD + c);
    }
}

template <class T, int HD> static __global__ void __launch_bounds__(128)
    tensor_forward(pg_attention a, int64_t items) {
    typedef tensor_tiles<HD> S;
    constexpr int LD = S::LD, BQ = S::QUERIES, BK = S::KEYS, M = 2, D = HD / 16;
    PG_SHARED(T, shared);
    T *const sq = shared, *const sk = sq + BQ * LD, *const sv = sk + 2 * BK * LD;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4 * 2;
    const dropout drop = dropout_of(a);
    const int64_t tiles = (a.q_len + BQ - 1) / BQ;
    const float scale = (float)a.scale,
                unit = a.mask ? LOG2E : scale * LOG2E; /* weights are 2^(unit (s - top)) */
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        /* the longest first */
        const int64_t q0 = (tiles - 1 - item % tiles) * BQ, head = item / tiles % a.heads,
                      batch = item / tiles / a.heads;
        const int64_t kv = head / (a.heads / a.kv_heads), row0 = q0 + warp * 32;
        const T *k = place<T>(a.k, a.k_stride, batch, kv, 0), *v = place<T>(a.v, a.v_stride, batch, kv, 0);
        const T *mask =
            a.mask ? (const T *)a.mask + batch * a.mask_stride[0] + head * a.mask_stride[1] : NULL;
        const int64_t seen = a.causal && q0 + BQ < a.k_len ? q0 + BQ : a.k_len, steps = (seen + BK - 1) / BK;
        float out[M][HD / 8][4] = {}, top[M][2], total[M][2] = {};
        for (int m = 0; m < M; m++) top[m][0] = top[m][1] = -INFINITY;
        fetch<T, HD, BQ>(sq, place<T>(a.q, a.q_stride, batch, head, q0), a.q_stride[2], a.q_len - q0, a.size);
        if (steps > 0) {
            fetch<T, HD, BK>(sk, k, a.k_stride[2], a.k_len, a.size);
            fetch<T, HD, BK>(sv, v, a.v_stride[2], a.k_len, a.v_size);
        }
        copy_commit();
        for (int64_t step = 0; step < steps; step++) {
            const int64_t k0 = step * BK;
            const T *const keys = sk + step % 2 * (BK * LD), *const values = sv + step % 2 * (BK * LD);
            copy_wait<0>();
            __syncthreads(); /* this tile is there, and nobody reads the one before */
            if (step + 1 < steps) {
                const int64_t next = k0 + BK;
                fetch<T, HD, BK>(sk + (step + 1) % 2 * (BK * LD), k + next * a.k_stride[2], a.k_stride[2],
                                 a.k_len - next, a.size);
                fetch<T, HD, BK>(sv + (step + 1) % 2 * (BK * LD), v + next * a.v_stride[2], a.v_stride[2],
                                 a.k_len - next, a.v_size);
            }
            copy_commit();
            if (row0 >= a.q_len || (a.causal && k0 > row0 + 31)) continue;

            float s[M][BK / 8][4] = {};
#pragma unroll
            for (int d = 0; d < D; d++) {
                uint32_t q[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) load_a<LD>(q[m], sq + (warp * 32 + m * 16) * LD + d * 16);
#pragma unroll
                for (int n = 0; n < BK / 16; n++) {
                    uint32_t b[4];
                    load_b<LD>(b, keys + n * 16 * LD + d * 16);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma(s[m][2 * n], q[m], b[0], b[1], T());
                        mma(s[m][2 * n + 1], q[m], b[2], b[3], T());
                    }
                }
            }
            const bool edge = k0 + BK > a.k_len || (a.causal && k0 + BK - 1 > row0);
            const int keys_left = near(a.k_len - k0),
                      ahead = a.causal ? near(row0 - k0) : FAR; /* key n of row m is seen: n <= m + ahead */
            if (edge || mask) {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int n = 0; n < BK / 8; n++)
#pragma unroll
                        for (int e = 0; e < 4; e++) {
                            const int row = m * 16 + g + e / 2 * 8, key = n * 8 + t + e % 2;
                            if (key >= keys_left || key > row + ahead) s[m][n][e] = -INFINITY;
                            else if (mask && row0 + row < a.q_len)
                                s[m][n][e] = fmaf(s[m][n][e], scale,
                                                  load_as<T>(mask[(row0 + row) * a.mask_stride[2] +
                                                                  (k0 + key) * a.mask_stride[3]]));
                        }
            }
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float high = top[m][h];
#pragma unroll
                    for (int n = 0; n < BK / 8; n++)
                        high = fmaxf(high, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                    high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
                    high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
                    const float shift = high == -INFINITY ? 0.0f : high,
                                factor = fast_exp2((top[m][h] - shift) * unit);
                    top[m][h] = high;
                    total[m][h] *= factor;
#pragma unroll
                    for (int n = 0; n < HD / 8; n++)
                        out[m][n][2 * h] *= factor, out[m][n][2 * h + 1] *= factor;
#pragma unroll
                    for (int n = 0; n < BK / 8; n++)
#pragma unroll
                        for (int e = 2 * h; e < 2 * h + 2; e++) {
                            s[m][n][e] = fast_exp2((s[m][n][e] - shift) * unit);
                            total[m][h] += s[m][n][e];
                        }
                }
            if (a.dropout_p > 0) {
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int n = 0; n < BK / 8; n++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            if (dropped(drop, a, batch, head, row0 + m * 16 + g + e / 2 * 8,
                                        k0 + n * 8 + t + e % 2))
                                s[m][n][e] = 0;
            }
#pragma unroll
            for (int c = 0; c < BK / 16; c++) {
                uint32_t w[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) as_a<T>(w[m], s[m], c);
#pragma unroll
                for (int n = 0; n < HD / 16; n++) {
                    uint32_t b[4];
                    load_b_trans<LD>(b, values + c * 16 * LD + n * 16);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma(out[m][2 * n], w[m], b[0], b[1], T());
                        mma(out[m][2 * n + 1], w[m], b[2], b[3], T());
                    }
                }
            }
        }
        copy_wait<0>();
        if (steps == 0) __syncthreads(); /* no step waited for what other threads copy into this warp's rows */
        __syncwarp(); /* this warp's rows of q have been read: they take the result */
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float sum = total[m][h];
                sum += __shfl_xor_sync(0xffffffffu, sum, 1);
                sum += __shfl_xor_sync(0xffffffffu, sum, 2);
                const float by = sum == 0 ? 0.0f : (float)drop.keep / sum;
                const int64_t row = row0 + m * 16 + g + h * 8;
                if (a.lse && t == 0 && row < a.q_len)
                    ((float *)a.lse)[(batch * a.heads + head) * a.q_len + row] =
                        sum == 0 ? INFINITY : fmaf(top[m][h], a.mask ? 1.0f : scale, logf(sum));
#pragma unroll
                for (int n = 0; n < HD / 8; n++)
                    *reinterpret_cast<uint32_t *>(sq + (warp * 32 + m * 16 + g + h * 8) * LD + n * 8 + t) =
                        pack2(out[m][n][2 * h] * by, out[m][n][2 * h + 1] * by, T());
            }
        store_rows<T, HD, 32>((T *)place<T>(a.out, a.out_stride, batch, head, row0), a.out_stride[2],
                              a.q_len - row0, a.v_size, sq + warp * 32 * LD);
        __syncthreads();
    }
}

/* Own rows: keys and values (KEYS), for dk and dv; or queries and grad_out, for dq. x1 y1^T are the scores,
 * x2 y2^T grad_out v^T. */
template <class T, int HD, bool KEYS> static __global__ void __launch_bounds__(128)
    tensor_backward(pg_attention a, const float *delta, int64_t items) {
    typedef tensor_tiles<HD> S;
    constexpr int LD = S::LD, OWN = S::OWN, OTHER = S::OTHER, D = HD / 16;
    PG_SHARED(T, shared);
    T *const x1 = shared, *const x2 = x1 + OWN * LD, *const y1 = x2 + OWN * LD,
             *const y2 = y1 + 2 * OTHER * LD;
    float *const of_other = reinterpret_cast<float *>(
        y2 + 2 * OTHER * LD); /* KEYS: lse and delta of the queries, (2, 2, OTHER) */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4 * 2;
    const dropout drop = dropout_of(a);
    const int64_t own_n = KEYS ? a.k_len : a.q_len, other_n = KEYS ? a.q_len : a.k_len,
                  tiles = (own_n + OWN - 1) / OWN;
    const int64_t heads = KEYS ? a.kv_heads : a.heads, share = a.heads / a.kv_heads;
    const float scale = (float)a.scale;
    const int64_t *x1_stride = KEYS ? a.k_stride : a.q_stride,
                  *x2_stride = KEYS ? a.v_stride : a.grad_out_stride;
    const int64_t *y1_stride = KEYS ? a.q_stride : a.k_stride,
                  *y2_stride = KEYS ? a.grad_out_stride : a.v_stride;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        /* the longest first: under the causal rule the first keys and the last queries */
        const int64_t tile = KEYS ? item % tiles : tiles - 1 - item % tiles;
        const int64_t own = tile * OWN, head = item / tiles % heads, batch = item / tiles / heads,
                      kv = KEYS ? head : head / share;
        const int64_t row0 = own + warp * 16, first = KEYS && a.causal ? own / OTHER * OTHER : 0;
        const int64_t end = !KEYS && a.causal && own + OWN < other_n ? own + OWN : other_n;
        const int64_t each = end > first ? (end - first + OTHER - 1) / OTHER : 0,
                      steps = KEYS ? each * share : each;
        const auto load_other = [&](int64_t step) {
            const int64_t h = KEYS ? kv * share + step / each : head,
                          at = first + (KEYS ? step % each : step) * OTHER;
            const int buffer = (int)(step % 2);
            fetch<T, HD, OTHER>(y1 + buffer * OTHER * LD,
                                place<T>(KEYS ? a.q : a.k, y1_stride, batch, KEYS ? h : kv, at), y1_stride[2],
                                other_n - at, a.size);
            fetch<T, HD, OTHER>(y2 + buffer * OTHER * LD,
                                place<T>(KEYS ? a.grad_out : a.v, y2_stride, batch, KEYS ? h : kv, at),
                                y2_stride[2], other_n - at, a.v_size);
            if (KEYS && threadIdx.x < OTHER) {
                const int64_t i = at + threadIdx.x, row = (batch * a.heads + h) * a.q_len + i;
                of_other[buffer * 2 * OTHER + threadIdx.x] =
                    i < a.q_len ? ((const float *)a.lse)[row] : INFINITY;
                of_other[(buffer * 2 + 1) * OTHER + threadIdx.x] = i < a.q_len ? delta[row] : 0.0f;
            }
        };
        float lse[2] = {INFINITY, INFINITY}, less[2] = {0, 0}; /* of own queries */
        if (!KEYS)
            for (int h = 0; h < 2; h++)
                if (row0 + g + h * 8 < a.q_len) {
                    const int64_t row = (batch * a.heads + head) * a.q_len + row0 + g + h * 8;
                    lse[h] = ((const float *)a.lse)[row];
                    less[h] = delta[row];
                }
        float grad1[HD / 8][4] = {}, grad2[KEYS ? HD / 8 : 1][4] = {};
        fetch<T, HD, OWN>(x1, place<T>(KEYS ? a.k : a.q, x1_stride, batch, head, own), x1_stride[2],
                          own_n - own, a.size);
        fetch<T, HD, OWN>(x2, place<T>(KEYS ? a.v : a.grad_out, x2_stride, batch, head, own), x2_stride[2],
                          own_n - own, a.v_size);
        if (steps > 0) load_other(0);
        copy_commit();
        for (int64_t step = 0; step < steps; step++) {
            const int64_t h = KEYS ? kv * share + step / each : head,
                          other = first + (KEYS ? step % each : step) * OTHER;
            const int buffer = (int)(step % 2);
            const T *const of1 = y1 + buffer * OTHER * LD, *const of2 = y2 + buffer * OTHER * LD;
            copy_wait<0>();
            __syncthreads(); /* this tile is there, and nobody reads the one before */
            if (step + 1 < steps) load_other(step + 1);
            copy_commit();
            if (row0 >= own_n || (a.causal && (KEYS ? other + OTHER - 1 < row0 : other > row0 + 15)))
                continue;

            float s[OTHER / 8][4] = {}, p[OTHER / 8][4] = {};
#pragma unroll
            for (int d = 0; d < D; d++) {
                uint32_t a1[4], a2[4];
                load_a<LD>(a1, x1 + warp * 16 * LD + d * 16);
                load_a<LD>(a2, x2 + warp * 16 * LD + d * 16);
#pragma unroll
                for (int n = 0; n < OTHER / 16; n++) {
                    uint32_t b[4];
                    load_b<LD>(b, of1 + n * 16 * LD + d * 16);
                    mma(s[2 * n], a1, b[0], b[1], T());
                    mma(s[2 * n + 1], a1, b[2], b[3], T());
                    load_b<LD>(b, of2 + n * 16 * LD + d * 16);
                    mma(p[2 * n], a2, b[0], b[1], T());
                    mma(p[2 * n + 1], a2, b[2], b[3], T());
                }
            }
            /* s becomes the scores' gradient, p the weights that the values were multiplied by. */
            const T *mask =
                a.mask ? (const T *)a.mask + batch * a.mask_stride[0] + h * a.mask_stride[1] : NULL;
            const int own_left = near(own_n - row0), other_left = near(other_n - other);
            const int ahead = !a.causal ? FAR
                              : KEYS    ? near(other - row0)
                                        : near(row0 - other); /* a key of a query: key <= query + ahead */
#pragma unroll
            for (int n = 0; n < OTHER / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int mine = g + e / 2 * 8, theirs = n * 8 + t + e % 2;
                    const auto i = [&] {
                        return KEYS ? other + theirs : row0 + mine;
                    }; /* the query, the key */
                    const auto j = [&] { return KEYS ? row0 + mine : other + theirs; };
                    const float log_sum =
                        KEYS ? of_other[buffer * 2 * OTHER + n * 8 + t + e % 2] : lse[e / 2];
                    const float minus =
                        KEYS ? of_other[(buffer * 2 + 1) * OTHER + n * 8 + t + e % 2] : less[e / 2];
                    const bool seen = mine < own_left && theirs < other_left &&
                                      (KEYS ? mine <= theirs + ahead : theirs <= mine + ahead);
                    const float added =
                        mask && seen ? load_as<T>(mask[i() * a.mask_stride[2] + j() * a.mask_stride[3]])
                                     : 0.0f;
                    const float w = seen ? fast_exp2((fmaf(s[n][e], scale, added) - log_sum) * LOG2E) : 0.0f;
                    const float kept = a.dropout_p > 0
                                           ? (dropped(drop, a, batch, h, i(), j()) ? 0.0f : (float)drop.keep)
                                           : 1.0f;
                    s[n][e] = w * (p[n][e] * kept - minus);
                    p[n][e] = w * kept;
                }
#pragma unroll
            for (int c = 0; c < OTHER / 16; c++) {
                uint32_t w[4], b[4];
                as_a<T>(w, s, c);
#pragma unroll
                for (int n = 0; n < HD / 16; n++) {
                    load_b_trans<LD>(b, of1 + c * 16 * LD + n * 16);
                    mma(grad1[2 * n], w, b[0], b[1], T());
                    mma(grad1[2 * n + 1], w, b[2], b[3], T());
                }
                if constexpr (KEYS) {
                    as_a<T>(w, p, c);
#pragma unroll
                    for (int n = 0; n < HD / 16; n++) {
                        load_b_trans<LD>(b, of2 + c * 16 * LD + n * 16);
                        mma(grad2[2 * n], w, b[0], b[1], T());
                        mma(grad2[2 * n + 1], w, b[2], b[3], T());
                    }
                }
            }
        }
        copy_wait<0>();
        if (steps == 0) __syncthreads(); /* no step waited for what other threads copy into this warp's rows */
        __syncwarp(); /* this warp's own rows have been read: they take the results */
#pragma unroll
        for (int n = 0; n < HD / 8; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int at = (warp * 16 + g + h * 8) * LD + n * 8 + t;
                *reinterpret_cast<uint32_t *>(x1 + at) =
                    pack2(grad1[n][2 * h] * scale, grad1[n][2 * h + 1] * scale, T());
                if constexpr (KEYS)
                    *reinterpret_cast<uint32_t *>(x2 + at) = pack2(grad2[n][2 * h], grad2[n][2 * h + 1], T());
            }
        const T *to1 =
            place<T>(KEYS ? a.grad_k : a.grad_q, KEYS ? a.grad_k_stride : a.grad_q_stride, batch, head, row0);
        store_rows<T, HD, 16>((T *)to1, KEYS ? a.grad_k_stride[2] : a.grad_q_stride[2], own_n - row0, a.size,
                              x1 + warp * 16 * LD);
        if (KEYS)
            store_rows<T, HD, 16>((T *)place<T>(a.grad_v, a.grad_v_stride, batch, head, row0),
                                  a.grad_v_stride[2], own_n - row0, a.v_size, x2 + warp * 16 * LD);
        __syncthreads();
    }
}

/* ---- launchers ---- */

/* More than 48 KiB of shared memory are asked for once a kernel and device. */
template <class Kernel> static int allow_shared(Kernel *kernel, size_t bytes, std::atomic<uint64_t> &done) {
    int device = 0;
    if (bytes <= 48 << 10) return PG_KERNEL_OK;
    if (cudaGetDevice(&device) != cudaSuccess) return PG_KERNEL_FAILED;
    const uint64_t bit = UINT64_C(1) << (device & 63);
    if (device < 64 && (done.load(std::memory_order_relaxed) & bit)) return PG_KERNEL_OK;
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes) != cudaSuccess)
        return PG_KERNEL_FAILED;
    done.fetch_or(bit, std::memory_order_relaxed);
    return PG_KERNEL_OK;
}
#define LAUNCH_TILES(kernel, items, threads, bytes, context, ...)                               \
    do {                                                                                        \
        static std::atomic<uint64_t> allowed_;                                                  \
        const int64_t items_ = (items);                                                         \
        if (items_ <= 0) break;                                                                 \
        if (allow_shared(kernel, bytes, allowed_) != PG_KERNEL_OK) return PG_KERNEL_FAILED;     \
        PG_LAUNCH(kernel, blocks_for(items_, 1), threads, bytes, context, __VA_ARGS__, items_); \
    } while (0)

static int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

static bool rows_fit(const void *p, const int64_t *stride) {
    return aligned16(p) && stride[0] % 8 == 0 && stride[1] % 8 == 0 && stride[2] % 8 == 0;
}
static bool tensor_cores_fit(const pg_attention *a, bool backward) {
    return a->size % 8 == 0 && a->v_size % 8 == 0 && a->size <= 128 && a->v_size <= 128 && a->scale > 0 &&
           a->scale < 1e30 && rows_fit(a->q, a->q_stride) && rows_fit(a->k, a->k_stride) &&
           rows_fit(a->v, a->v_stride) && rows_fit(a->out, a->out_stride) &&
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
template <class T, int HD> static int forward_tensor(const pg_context *context, const pg_attention &a) {
    typedef tensor_tiles<HD> S;
    LAUNCH_TILES((tensor_forward<T, HD>), a.batch * a.heads * ceiling(a.q_len, S::QUERIES), 128, S::FORWARD,
                 context, a);
    return launched();
}
template <class T> static int forward(const pg_context *context, const pg_attention &a) {
    if constexpr (sizeof(T) == 2) {
        if (tensor_cores_fit(&a, false))
            return a.size <= 64 && a.v_size <= 64 ? forward_tensor<T, 64>(context, a)
                                                  : forward_tensor<T, 128>(context, a);
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
template <class T, int HD>
static int backward_tensor(const pg_context *context, const pg_attention &a, const float *delta) {
    typedef tensor_tiles<HD> S;
    LAUNCH_TILES((tensor_backward<T, HD, true>), a.batch * a.kv_heads * ceiling(a.k_len, S::OWN), 128,
                 S::BACKWARD, context, a, delta);
    LAUNCH_TILES((tensor_backward<T, HD, false>), a.batch * a.heads * ceiling(a.q_len, S::OWN), 128,
                 S::BACKWARD, context, a, delta);
    return launched();
}
template <class T> static int backward(const pg_context *context, const pg_attention &a) {
    typedef compute_t<T> C;
    const int64_t rows = a.batch * a.heads * a.q_len;
    C *delta = (C *)context->scratch(context, (size_t)(rows + 1) * sizeof(C));
    if (!delta) return PG_KERNEL_NO_SCRATCH;
    if (rows > 0) PG_LAUNCH((deltas<T>), blocks_for(rows, 8, 1 << 16), 256, 0, context, a, delta);
    if constexpr (sizeof(T) == 2) {
        if (tensor_cores_fit(&a, true))
            return a.size <= 64 && a.v_size <= 64 ? backward_tensor<T, 64>(context, a, delta)
                                                  : backward_tensor<T, 128>(context, a, delta);
    }
    return backward_plain<T>(context, a, delta);
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
