/* norm.cu: layer_norm over dense rows (Ba et al. 2016).
 *
 * Bound by memory. Forward reads x and writes y once (8 bytes an element for float32, 4 for halves; weight
 * and bias stay in the first cache): a row of up to HELD values is kept in registers between mean, spread
 * and result, so both passes over it are free; rows of up to 256 values share a warp (rows.h). With a
 * residual the sum is made on the way: 16 bytes an element where add and norm apart move 20. 32 to 64
 * registers, a KiB or more under way in each of 32 or more warps of a multiprocessor. Backward reads x and
 * grad and writes dx once (12 bytes; 6 for halves, and 4 or 2 for the gradient of a sum): a block keeps the
 * columns' sums of its rows in registers beside, and its share of dweight and dbias leaves once, at the end:
 * with 16,384 rows 4 % of float32's bytes, 8 % of halves'. It runs 4 blocks a multiprocessor (105 to 126
 * registers), whose next row, or of halves next two, are under way while one is worked on: 25 KiB at 768
 * columns. 85 to 95 % of copy bandwidth is what to expect of forward, 80 to 90 of backward, where rows are
 * multiples of 16 bytes. Other rows, and longer ones, are read again from the L2 cache.
 */
#include "packs.h"
#include "rows.h"

/* ---- forward ---- */

/* (x - mean) rstd w + b for the N values at at, at + step, ... of a row. */
template <int N, int P, class T, class C>
static __device__ __forceinline__ void normalize(int64_t n, int64_t at, int64_t step, C *x, C mean, C rstd,
                                                 const T *weight, const T *bias) {
#pragma unroll
    for (int s = 0; s < N / P; s++) {
        const int64_t from = at + s * step;
        if (from >= n) continue;
        C w[P] = {}, b[P] = {};
        if (weight) take<P>(weight + from, w);
        if (bias) take<P>(bias + from, b);
#pragma unroll
        for (int i = 0; i < P; i++) {
            const C centred = x[s * P + i] - mean;
            if (weight && bias) x[s * P + i] = fma_of(centred * rstd, w[i], b[i]);
            else if (weight) x[s * P + i] = centred * rstd * w[i];
            else if (bias) x[s * P + i] = fma_of(centred, rstd, b[i]);
            else x[s * P + i] = centred * rstd;
        }
    }
}
template <class C> static __device__ __forceinline__ C rstd_of(C variance, double eps) {
    return (C)(1 / sqrt((double)variance + eps));
}

/* x += residual for the values at at, at + step, ... of a row, as sum will give them back: rounded; and
 * there they go. */
template <int N, int P, class T>
static __device__ __forceinline__ void add_residual(const T *residual, T *sum, int64_t n, int64_t at,
                                                    int64_t step, compute_t<T> *x) {
#pragma unroll
    for (int s = 0; s < N / P; s++) {
        if (at + s * step >= n) continue;
        compute_t<T> r[P];
        take<P>(residual + at + s * step, r);
#pragma unroll
        for (int i = 0; i < P; i++) x[s * P + i] = load_as<T>(store_as<T>(x[s * P + i] + r[i]));
        give<P>(sum + at + s * step, x + s * P);
    }
}

template <class T, int E, int P, int WIDE>
ROWS_KERNEL norm_held(int64_t rows, int64_t n, const T *in, const T *residual, const T *weight, const T *bias,
                      double eps, T *out, T *sum_out, compute_t<T> *mean_out, compute_t<T> *rstd_out) {
    typedef compute_t<T> C;
    TEAM_OF_ROW(WIDE);
    if (row >= rows) n = 0;
    const int at = thread * P, step = threads * P;
    const C inverse = (C)1 / (C)n;
    C x[E], sum = 0, spread = 0;
    take_steps<E, P>(in + row * n, n, at, step, (C)0, x);
    if (residual) add_residual<E, P>(residual + row * n, sum_out + row * n, n, at, step, x);
#pragma unroll
    for (int i = 0; i < E; i++) sum += x[i];
    const C mean = team_sum<WIDE>(sum) * inverse;
#pragma unroll
    for (int s = 0; s < E / P; s++) {
        if (at + s * step >= n) continue;
#pragma unroll
        for (int i = s * P; i < s * P + P; i++) spread = fma_of(x[i] - mean, x[i] - mean, spread);
    }
    const C rstd = rstd_of(team_sum<WIDE>(spread) * inverse, eps);
    normalize<E, P>(n, at, step, x, mean, rstd, weight, bias);
    give_steps<E, P>(out + row * n, n, at, step, x);
    if (thread == 0 && row < rows && mean_out) mean_out[row] = mean;
    if (thread == 0 && row < rows && rstd_out) rstd_out[row] = rstd;
}

/* Rows of any length, read three times. */
template <class T, int P>
static __global__ __launch_bounds__(TEAM_MOST) void norm_again(int64_t n, const T *in, const T *residual,
                                                               const T *weight, const T *bias, double eps,
                                                               T *out, T *sum_out, compute_t<T> *mean_out,
                                                               compute_t<T> *rstd_out) {
    typedef compute_t<T> C;
    enum { N = P > 8 ? P : 8 };
    const int64_t row = blockIdx.x, step = (int64_t)blockDim.x * P;
    const T *from = in + row * n;
    const C inverse = (C)1 / (C)n;
    C x[N], sum = 0, spread = 0;
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(from, n, at, step, (C)0, x);
        if (residual) add_residual<N, P>(residual + row * n, sum_out + row * n, n, at, step, x);
#pragma unroll
        for (int i = 0; i < N; i++) sum += x[i];
    }
    if (residual) from = sum_out + row * n;   /* each thread reads what it wrote */
    const C mean = team_sum<true>(sum) * inverse;
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(from, n, at, step, mean, x);
#pragma unroll
        for (int i = 0; i < N; i++) spread = fma_of(x[i] - mean, x[i] - mean, spread);
    }
    const C rstd = rstd_of(team_sum<true>(spread) * inverse, eps);
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(from, n, at, step, (C)0, x);
        normalize<N, P>(n, at, step, x, mean, rstd, weight, bias);
        give_steps<N, P>(out + row * n, n, at, step, x);
    }
    if (threadIdx.x == 0 && mean_out) mean_out[row] = mean;
    if (threadIdx.x == 0 && rstd_out) rstd_out[row] = rstd;
}

extern "C" int PG_K(layer_norm)(const pg_context *c, int dtype, int64_t rows, int64_t n, const void *x,
                                const void *residual, const void *weight, const void *bias, double eps,
                                void *y, void *sum, void *mean, void *rstd) {
    if (rows <= 0 || n <= 0) return PG_KERNEL_OK;
    PG_FOR_FLOATS(dtype, {
        const bool packs = n % packed<T>::N == 0 && aligned16(x) && aligned16(residual) && aligned16(y) &&
                           aligned16(sum) && aligned16(weight) && aligned16(bias);
        LAUNCH_ROWS(norm_held, norm_again, c, packs, (const T *)x, (const T *)residual, (const T *)weight,
                    (const T *)bias, eps, (T *)y, (T *)sum, (compute_t<T> *)mean, (compute_t<T> *)rstd);
    })
}

/* ---- backward ----
 *
 * With z = (x - mean) rstd and h = g w: dx = rstd (h - mean(h) - z mean(h z)); dweight = sum of g z; dbias
 * = sum of g. The rows are cut into at most BLOCKS runs; a run's sums over its rows go to scratch, (runs,
 * n), and are added in order by norm_total. */

enum { BLOCKS = 528, BLOCK_ROWS = 4, TOTAL_COLUMNS = 32, TOTAL_PARTS = 32, COLUMNS = 64, COLUMN_PARTS = 4 };

template <class T> struct norm_slopes {
    typedef compute_t<T> C;
    int64_t rows, n, run;                  /* run: rows of a block */
    const T *grad, *x, *weight, *grad_sum; /* weight and grad_sum may be NULL */
    const C *mean, *rstd;
    T *dx;                                 /* may be NULL */
    C *partial_weight, *partial_bias;      /* (runs, n), or NULL */
};

template <class C>
static __device__ __forceinline__ C norm_slope(C g, C w, bool weighted, C centred, C rstd, C m, C d) {
    return rstd * ((weighted ? fma_of(g, w, -m) : g - m) - centred * rstd * d);
}

/* d += grad_sum for the values at at, at + step, ... of a row. */
template <int N, int P, class T>
static __device__ __forceinline__ void add_steps(const T *grad_sum, int64_t n, int64_t at, int64_t step,
                                                 compute_t<T> *d) {
#pragma unroll
    for (int s = 0; s < N / P; s++) {
        if (at + s * step >= n) continue;
        compute_t<T> more[P];
        take<P>(grad_sum + at + s * step, more);
#pragma unroll
        for (int i = 0; i < P; i++) d[s * P + i] += more[i];
    }
}

/* A row as it is in memory: E values of a thread. */
template <class T, int E, int P> struct row_ahead {
    typedef compute_t<T> C;
    pack<T, P> grad[E / P], x[E / P], more[E / P];   /* more: of grad_sum */
    C mean, rstd;
    __device__ __forceinline__ void load(const norm_slopes<T> &a, int64_t row, int at, int step) {
        mean = a.mean[row];
        rstd = a.rstd[row];
#pragma unroll
        for (int s = 0; s < E / P; s++) {
            const int64_t column = at + s * step;
            if (column >= a.n) continue;
            read_pack(a.grad + row * a.n + column, grad[s]);
            read_pack(a.x + row * a.n + column, x[s]);
            if (a.grad_sum) read_pack(a.grad_sum + row * a.n + column, more[s]);
        }
    }
};

template <class T, int E, int P, int WIDE>
ROWS_KERNEL norm_backward_held(norm_slopes<T> a) {
    typedef compute_t<T> C;
    const int warp = (int)threadIdx.x / WARP;
    const int threads = WIDE ? (int)blockDim.x : (int)WARP,
              thread = WIDE ? (int)threadIdx.x : (int)threadIdx.x % WARP;
    const int64_t n = a.n, first = blockIdx.x * a.run, last = first + a.run < a.rows ? first + a.run : a.rows;
    const int at = thread * P, step = threads * P;
    const C inverse = (C)1 / (C)n;
    C w[E], sum_weight[E], sum_bias[E];
#pragma unroll
    for (int i = 0; i < E; i++) w[i] = sum_weight[i] = sum_bias[i] = 0;
    if (a.weight) take_steps<E, P>(a.weight, n, at, step, (C)0, w);
    /* so many rows are loaded ahead of the one that is worked on; more values would not fit */
    constexpr int DEPTH = E > 8 || P == 1 || sizeof(T) == 8 ? 0 : sizeof(T) == 2 ? 2 : 1;
    constexpr int TURNS = DEPTH ? DEPTH : 1;
    const int apart = WIDE ? 1 : (int)TEAM_WARPS;
    row_ahead<T, E, P> rows[TURNS] = {};
    const auto work_on = [&](row_ahead<T, E, P> &held, int64_t row) {
        const C mean = DEPTH ? held.mean : a.mean[row], rstd = DEPTH ? held.rstd : a.rstd[row];
        C g[E], x[E], sum = 0, dot = 0;
        pack<T, P> more[E / P];
        if constexpr (DEPTH == 0) {
            take_steps<E, P>(a.grad + row * n, n, at, step, (C)0, g);
            take_steps<E, P>(a.x + row * n, n, at, step, mean, x);
        } else {
#pragma unroll
            for (int s = 0; s < E / P; s++) {
                more[s] = held.more[s];
#pragma unroll
                for (int i = 0; i < P; i++) {
                    const bool is = at + s * step < n;
                    g[s * P + i] = is ? load_as<T>(held.grad[s].v[i]) : (C)0;
                    x[s * P + i] = is ? load_as<T>(held.x[s].v[i]) : mean;
                }
            }
            if (row + TURNS * apart < last) held.load(a, row + TURNS * apart, at, step);
        }
#pragma unroll
        for (int i = 0; i < E; i++) {
            const C h = a.weight ? g[i] * w[i] : g[i];
            x[i] -= mean;
            sum += h;
            dot = fma_of(h, x[i], dot);
            sum_weight[i] = fma_of(g[i], x[i] * rstd, sum_weight[i]);
            sum_bias[i] += g[i];
        }
        if (!a.dx) return;
        team_sums<WIDE>(&sum, &dot);
        const C m = sum * inverse, d = dot * rstd * inverse;
#pragma unroll
        for (int i = 0; i < E; i++) {
            g[i] = norm_slope(g[i], w[i], a.weight != NULL, x[i], rstd, m, d);
            if (DEPTH > 0 && a.grad_sum) g[i] += load_as<T>(more[i / P].v[i % P]);
        }
        if (DEPTH == 0 && a.grad_sum) add_steps<E, P>(a.grad_sum + row * n, n, at, step, g);
        give_steps<E, P>(a.dx + row * n, n, at, step, g);
    };
    const int64_t begin = first + (WIDE ? 0 : warp);
    if (DEPTH > 0) {
#pragma unroll
        for (int t = 0; t < TURNS; t++)
            if (begin + t * apart < last) rows[t].load(a, begin + t * apart, at, step);
    }
    for (int64_t row = begin; row < last; row += TURNS * apart) {
#pragma unroll
        for (int t = 0; t < TURNS; t++)
            if (row + t * apart < last) work_on(rows[t], row + t * apart);
    }
    if (!a.partial_weight) return;
    C *to_weight = a.partial_weight + blockIdx.x * n, *to_bias = a.partial_bias + blockIdx.x * n;
    if constexpr (WIDE) {
#pragma unroll
        for (int i = 0; i < E; i++) {
            const int64_t column = at + i / P * step + i % P;
            if (column >= n) continue;
            to_weight[column] = sum_weight[i];
            to_bias[column] = sum_bias[i];
        }
    } else {
        /* The warps one after another. */
        __shared__ C weights[E * WARP], biases[E * WARP];
        for (int turn = 0; turn < TEAM_WARPS; turn++) {
            if (warp == turn) {
#pragma unroll
                for (int i = 0; i < E; i++) {
                    const int column = at + i / P * step + i % P;
                    const C sw = turn ? weights[column] + sum_weight[i] : sum_weight[i];
                    const C sb = turn ? biases[column] + sum_bias[i] : sum_bias[i];
                    weights[column] = sw;
                    biases[column] = sb;
                    if (turn == TEAM_WARPS - 1 && column < n) {
                        to_weight[column] = sw;
                        to_bias[column] = sb;
                    }
                }
            }
            __syncthreads();
        }
    }
}

/* dx alone, for rows of any length: a block a row, read twice. */
template <class T, int P>
static __global__ __launch_bounds__(TEAM_MOST) void norm_backward_again(norm_slopes<T> a) {
    typedef compute_t<T> C;
    enum { N = P > 8 ? P : 8 };
    const int64_t n = a.n, row = blockIdx.x, step = (int64_t)blockDim.x * P;
    const C inverse = (C)1 / (C)n, mean = a.mean[row], rstd = a.rstd[row];
    C g[N], x[N], w[N] = {}, sum = 0, dot = 0;
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(a.grad + row * n, n, at, step, (C)0, g);
        take_steps<N, P>(a.x + row * n, n, at, step, mean, x);
        if (a.weight) take_steps<N, P>(a.weight, n, at, step, (C)0, w);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const C h = a.weight ? g[i] * w[i] : g[i];
            sum += h;
            dot = fma_of(h, x[i] - mean, dot);
        }
    }
    team_sums<true>(&sum, &dot);
    const C m = sum * inverse, d = dot * rstd * inverse;
    for (int64_t at = (int64_t)threadIdx.x * P; at < n; at += N / P * step) {
        take_steps<N, P>(a.grad + row * n, n, at, step, (C)0, g);
        take_steps<N, P>(a.x + row * n, n, at, step, mean, x);
        if (a.weight) take_steps<N, P>(a.weight, n, at, step, (C)0, w);
#pragma unroll
        for (int i = 0; i < N; i++) g[i] = norm_slope(g[i], w[i], a.weight != NULL, x[i] - mean, rstd, m, d);
        if (a.grad_sum) add_steps<N, P>(a.grad_sum + row * n, n, at, step, g);
        give_steps<N, P>(a.dx + row * n, n, at, step, g);
    }
}

/* The columns' sums over a run of rows, where the rows were not held: COLUMN_PARTS threads a column, each
 * with every fourth row. */
template <class T> static __global__ void norm_columns(norm_slopes<T> a) {
    typedef compute_t<T> C;
    __shared__ C weights[COLUMN_PARTS][COLUMNS], biases[COLUMN_PARTS][COLUMNS];
    const int64_t n = a.n, column = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    const int64_t first = blockIdx.y * a.run, last = first + a.run < a.rows ? first + a.run : a.rows;
    C sum_weight = 0, sum_bias = 0;
    if (column < n) {
#pragma unroll 4
        for (int64_t row = first + threadIdx.y; row < last; row += COLUMN_PARTS) {
            const C g = load_as<T>(a.grad[row * n + column]), x = load_as<T>(a.x[row * n + column]);
            sum_weight = fma_of(g, (x - a.mean[row]) * a.rstd[row], sum_weight);
            sum_bias += g;
        }
    }
    weights[threadIdx.y][threadIdx.x] = sum_weight;
    biases[threadIdx.y][threadIdx.x] = sum_bias;
    __syncthreads();
    if (threadIdx.y || column >= n) return;
    for (int part = 1; part < COLUMN_PARTS; part++) {
        sum_weight += weights[part][threadIdx.x];
        sum_bias += biases[part][threadIdx.x];
    }
    a.partial_weight[blockIdx.y * n + column] = sum_weight;
    a.partial_bias[blockIdx.y * n + column] = sum_bias;
}

/* Either sum over the runs: TOTAL_PARTS threads a column, each with its share of the runs, in order. */
template <class T>
static __global__ void norm_total(int64_t runs, int64_t n, const compute_t<T> *partial_weight,
                                  const compute_t<T> *partial_bias, T *dweight, T *dbias) {
    typedef compute_t<T> C;
    __shared__ C sums[TOTAL_PARTS][TOTAL_COLUMNS];
    const C *partial = blockIdx.y ? partial_bias : partial_weight;
    T *out = blockIdx.y ? dbias : dweight;
    if (!out) return;
    const int64_t column = (int64_t)blockIdx.x * TOTAL_COLUMNS + threadIdx.x,
                  share = (runs + TOTAL_PARTS - 1) / TOTAL_PARTS;
    const int64_t first = threadIdx.y * share, last = first + share < runs ? first + share : runs;
    C sum = 0;
    if (column < n) {
#pragma unroll 8
        for (int64_t run = first; run < last; run++) sum += partial[run * n + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= n) return;
    for (int part = 1; part < TOTAL_PARTS; part++) sum += sums[part][threadIdx.x];
    out[column] = store_as<T>(sum);
}

template <class T>
static int norm_backward(const pg_context *c, norm_slopes<T> a, T *dweight, T *dbias) {
    typedef compute_t<T> C;
    enum { P = packed<T>::N };
    const int64_t n = a.n, rows = a.rows;
    a.run = (rows + BLOCKS - 1) / BLOCKS > BLOCK_ROWS ? (rows + BLOCKS - 1) / BLOCKS : (int64_t)BLOCK_ROWS;
    const int64_t runs = (rows + a.run - 1) / a.run;
    const bool sums = dweight || dbias;
    if (sums) {
        a.partial_weight = (C *)c->scratch(c, 2 * (size_t)(runs + 1) * (size_t)n * sizeof(C));
        if (!a.partial_weight) return PG_KERNEL_NO_SCRATCH;
        a.partial_bias = a.partial_weight + (runs + 1) * n;
    }
    const bool packs = n % P == 0 && aligned16(a.grad) && aligned16(a.x) && aligned16(a.weight) &&
                       aligned16(a.grad_sum) && aligned16(a.dx);
    const unsigned grid = (unsigned)runs;
    if (rows == 0) {
        /* the sums are zeros */
    } else if (packs && n <= SHORT_ROW) {
        PG_LAUNCH((norm_backward_held<T, 8, P, false>), grid, TEAM_WARPS * WARP, 0, c, a);
    } else if (packs && n <= 8 * TEAM_MOST) {
        PG_LAUNCH((norm_backward_held<T, 8, P, true>), grid, team_size(n, 8, TEAM_MOST), 0, c, a);
    } else if (sizeof(C) == 4 && packs && n <= HELD) {
        PG_LAUNCH((norm_backward_held<T, sizeof(C) == 4 ? 16 : 8, P, true>), grid, TEAM_MOST, 0, c, a);
    } else if (!packs && n <= SHORT_ROW) {
        PG_LAUNCH((norm_backward_held<T, 8, 1, false>), grid, TEAM_WARPS * WARP, 0, c, a);
    } else {
        const int team = team_size(n, 8, TEAM_MOST);
        if (a.dx && packs) PG_LAUNCH((norm_backward_again<T, P>), (unsigned)rows, team, 0, c, a);
        else if (a.dx) PG_LAUNCH((norm_backward_again<T, 1>), (unsigned)rows, team, 0, c, a);
        if (sums)
            PG_LAUNCH((norm_columns<T>), dim3(blocks_for(n, COLUMNS), grid), dim3(COLUMNS, COLUMN_PARTS), 0,
                      c, a);
    }
    if (sums)
        PG_LAUNCH((norm_total<T>), dim3(blocks_for(n, TOTAL_COLUMNS), 2), dim3(TOTAL_COLUMNS, TOTAL_PARTS), 0,
                  c, runs, n, (const C *)a.partial_weight, (const C *)a.partial_bias, dweight, dbias);
    return launched();
}

extern "C" int PG_K(layer_norm_backward)(const pg_context *c, int dtype, int64_t rows, int64_t n,
                                         const void *grad, const void *x, const void *weight,
                                         const void *mean, const void *rstd, const void *grad_sum, void *dx,
                                         void *dweight, void *dbias) {
    if (n <= 0) return PG_KERNEL_OK;
    PG_FOR_FLOATS(dtype, {
        norm_slopes<T> a = {rows, n, 0, (const T *)grad, (const T *)x, (const T *)weight, (const T *)grad_sum,
                            (const compute_t<T> *)mean, (const compute_t<T> *)rstd, (T *)dx, NULL, NULL};
        return norm_backward<T>(c, a, (T *)dweight, (T *)dbias);
    })
}
