/* index.cu: element-wise indexed access: gather, scatter, advanced indexing, positions of what is true.
 *
 * Reading by index (gather, index_get) is a thread an element: bound by the index (8 bytes), the element
 * written, and the sectors that the elements read lie in: coalesced where neighbours read neighbours, else
 * 32 bytes an element. Writing by index has one order in every run, the CPU's: where there are lines
 * enough along the indexed dimension a thread walks each; else the places are put into order (order.h) and
 * one thread alone writes an element: what was given last stays, and sums are added as given. The
 * ordering, 20 bytes an element and digit of 8 bits, is what bounds that.
 */
#include "order.h"
#include "packs.h"
#include "rows.h"

enum { INDEX_THREADS = 256 };

/* ---- spaces: a few strided operands over one shape ---- */

/* Drops dimensions of 1 and joins neighbours that every operand walks as one; gives how many are left. */
static int join_dims(int n, int64_t *shape, int64_t *const *stride, int operands) {
    int kept = 0;
    for (int d = 0; d < n; d++) {
        if (shape[d] == 1) continue;
        bool joins = kept > 0;
        for (int k = 0; k < operands && joins; k++) joins = stride[k][kept - 1] == stride[k][d] * shape[d];
        const int to = joins ? kept - 1 : kept++;
        shape[to] = joins ? shape[to] * shape[d] : shape[d];
        for (int k = 0; k < operands; k++) stride[k][to] = stride[k][d];
    }
    return kept;
}
static int64_t product(int n, const int64_t *shape) {
    int64_t all = 1;
    for (int d = 0; d < n; d++) all *= shape[d];
    return all;
}
/* Coordinates of a linear position, last dimension first: the first takes what is left, so that one
 * dimension costs no division. I: uint32_t where that is enough. */
template <class I, class Each>
static __device__ __forceinline__ void coordinates(I linear, int n, const int64_t *shape, Each each) {
    for (int d = n - 1; d > 0; d--) {
        const I size = (I)shape[d], rest = linear / size;
        each(d, (int64_t)(linear - rest * size));
        linear = rest;
    }
    if (n > 0) each(0, (int64_t)linear);
}
static bool is_small(int64_t n) { return n < INT64_C(1) << 31; }

/* ---- gather, and scatter by lines ---- */

typedef struct gathering {
    int n;
    int64_t shape[PG_K_DIMS], index_stride[PG_K_DIMS], dense_stride[PG_K_DIMS], indexed_stride[PG_K_DIMS];
    int64_t count, size, dim_stride;
    /* lines: the space lacks the indexed dimension */
    int64_t length, index_step, dense_step;
    const int64_t *index;
    void *dense, *indexed;
    int64_t *bad;
    const char *op;
} gathering;

static gathering gathering_of(const pg_context *c, const pg_gathering *g, bool lines) {
    gathering r = {};
    for (int d = 0; d < g->s.ndim; d++) {
        if (lines && d == g->dim) continue;
        r.shape[r.n] = g->s.shape[d];
        r.index_stride[r.n] = g->s.stride[0][d];
        r.dense_stride[r.n] = g->s.stride[1][d];
        r.indexed_stride[r.n++] = g->s.stride[2][d];
    }
    int64_t *strides[] = {r.index_stride, r.dense_stride, r.indexed_stride};
    r.n = join_dims(r.n, r.shape, strides, 3);
    r.count = product(r.n, r.shape);
    r.size = g->size, r.dim_stride = g->dim_stride;
    r.length = g->s.ndim ? g->s.shape[g->dim] : 1;
    r.index_step = g->s.ndim ? g->s.stride[0][g->dim] : 0;
    r.dense_step = g->s.ndim ? g->s.stride[1][g->dim] : 0;
    r.index = (const int64_t *)g->s.data[0];
    r.dense = g->s.data[1], r.indexed = g->s.data[2];
    r.bad = c->bad_index, r.op = c->op;
    return r;
}

template <class V, class I> static __global__ void gather_each(gathering g) {
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < g.count; i += stride) {
        int64_t index = 0, dense = 0, indexed = 0;
        coordinates((I)i, g.n, g.shape, [&](int d, int64_t x) {
            index += x * g.index_stride[d], dense += x * g.dense_stride[d],
                indexed += x * g.indexed_stride[d];
        });
        const int64_t at = resolve(g.index[index], g.size, false, g.bad, g.op);
        ((V *)g.dense)[dense] = at < 0 ? V() : ((const V *)g.indexed)[indexed + at * g.dim_stride];
    }
}

/* a + alpha b, in T's own arithmetic; integers wrap around, bools are or'ed. */
template <class T> static __device__ __forceinline__ T plus(T a, T b, bool scaled, double alpha) {
    if constexpr (std::is_same<T, bool>::value) {
        return a || b;
    } else if constexpr (std::is_integral<T>::value) {
        const uint64_t term = scaled ? (uint64_t)(int64_t)alpha * (uint64_t)b : (uint64_t)b;
        return (T)((uint64_t)a + term);
    } else {
        typedef compute_t<T> C;
        return store_as<T>(load_as<T>(a) + (scaled ? (C)alpha * load_as<T>(b) : load_as<T>(b)));
    }
}

/* A thread a line along the indexed dimension, in order. */
template <class T, bool ADD> static __global__ void scatter_lines(gathering g) {
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < g.count; i += stride) {
        int64_t index = 0, dense = 0, indexed = 0;
        coordinates((uint64_t)i, g.n, g.shape, [&](int d, int64_t x) {
            index += x * g.index_stride[d], dense += x * g.dense_stride[d],
                indexed += x * g.indexed_stride[d];
        });
        for (int64_t k = 0; k < g.length; k++, index += g.index_step, dense += g.dense_step) {
            const int64_t at = resolve(g.index[index], g.size, false, g.bad, g.op);
            if (at < 0) continue;
            T *to = (T *)g.indexed + indexed + at * g.dim_stride;
            const T value = ((const T *)g.dense)[dense];
            *to = ADD ? plus(*to, value, false, 1) : value;
        }
    }
}

#define FOR_ITEM(item, ...)                                                                                              \
    switch (item) {                                                                                                      \
        PG_CASE(1, uint8_t, __VA_ARGS__)                                                                                 \
        PG_CASE(2, uint16_t, __VA_ARGS__)                                                                                \
        PG_CASE(4, uint32_t, __VA_ARGS__)                                                                                \
        PG_CASE(8, uint64_t, __VA_ARGS__)                                                                                \
    default: return PG_KERNEL_UNSUPPORTED;                                                                               \
    }

extern "C" int PG_K(gather)(const pg_context *c, int item, const pg_gathering *g) {
    const gathering s = gathering_of(c, g, false);
    if (s.count <= 0) return PG_KERNEL_OK;
    const unsigned grid = blocks_for(s.count, INDEX_THREADS);
    FOR_ITEM(item, {
        if (is_small(s.count)) PG_LAUNCH((gather_each<T, uint32_t>), grid, INDEX_THREADS, 0, c, s);
        else PG_LAUNCH((gather_each<T, uint64_t>), grid, INDEX_THREADS, 0, c, s);
    })
    return launched();
}

/* ---- what goes to one place, by one thread ---- */

static __device__ __forceinline__ uint64_t key_at(const pg_sums &s, int64_t j) {
    return s.wide ? ((const uint64_t *)s.order.key)[j] : ((const uint32_t *)s.order.key)[j];
}

/* Adds up to N terms from pair *t on, all of them under way before the first is added; whether there may be
 * more. */
template <int N, class T, class At>
static __device__ __forceinline__ bool add_terms(const pg_sums &s, uint64_t key, int64_t *t, T *sum,
                                                 const At &value_at) {
    T term[N];
    int got = 0;
#pragma unroll
    for (int k = 0; k < N; k++)
        if (*t + k < s.m && key_at(s, *t + k) == key) got = k + 1;
#pragma unroll
    for (int k = 0; k < N; k++)
        if (k < got) term[k] = value_at(*t + k);
#pragma unroll
    for (int k = 0; k < N; k++)
        if (k < got) *sum = plus(*sum, term[k], s.alpha != 1, s.alpha);
    *t += N;
    return got == N;
}

/* Blocks of (elements of the inner space, pairs). The first pair of a place adds all of them, in order;
 * where nothing is added the last one writes. */
template <class T, bool ADD> static __global__ void sum_by_place(pg_sums s, int64_t inner) {
    enum { FEW = 4, MANY = 16 };   /* most places have few terms; the one with the most is the launch's tail */
    const int64_t j = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, beside = ADD ? j - 1 : j + 1;
    if (j >= s.m) return;
    const uint64_t key = key_at(s, j);
    /* Bad ones stand last: where there is one nothing is written. */
    if (key_at(s, s.m - 1) >= s.none || (beside >= 0 && beside < s.m && key_at(s, beside) == key)) return;
    const int64_t stride = (int64_t)gridDim.y * blockDim.x;
    for (int64_t e = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; e < inner; e += stride) {
        int64_t inner_from = 0, inner_to = 0;
        coordinates((uint64_t)e, s.inner_n, s.inner_shape, [&](int d, int64_t x) {
            inner_from += x * s.inner_from[d], inner_to += x * s.inner_to[d];
        });
        const auto value_at = [&](int64_t pair) {
            int64_t from = inner_from;
            coordinates((uint64_t)s.order.at[pair], s.outer_n, s.outer_shape,
                        [&](int d, int64_t x) { from += x * s.outer_stride[d]; });
            return ((const T *)s.from)[from];
        };
        T *to = (T *)s.to + (int64_t)key * s.key_step + inner_to;
        if (!ADD) {
            *to = value_at(j);
            continue;
        }
        T sum = *to;
        int64_t t = j;
        bool more = add_terms<FEW>(s, key, &t, &sum, value_at);
        while (more) more = add_terms<MANY>(s, key, &t, &sum, value_at);
        *to = sum;
    }
}

/* The same for dense rows (an embedding's gradient): 8 bytes a thread, blocks of (packs of a row, pairs). What
 * the first terms need is asked for before it is known whether this pair is its place's first: two waits, for
 * keys and places and then for the rows, are what most threads do. */
template <class T>
static __global__ void __launch_bounds__(INDEX_THREADS, 3) sum_rows_by_place(pg_sums s, int64_t packs) {
    enum { FEW = 4, MANY = 16, V = 8 / (int)sizeof(T) };
    const int64_t j = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (j >= s.m) return;
    const uint64_t last = key_at(s, s.m - 1), before = key_at(s, j > 0 ? j - 1 : 0);
    uint64_t key[FEW];
    uint32_t at[FEW];
#pragma unroll
    for (int k = 0; k < FEW; k++) {
        const int64_t pair = j + k < s.m ? j + k : s.m - 1;
        key[k] = key_at(s, pair);
        at[k] = s.order.at[pair];
    }
    if (last >= s.none || (j > 0 && before == key[0])) return;
    int got = 1;
#pragma unroll
    for (int k = 1; k < FEW; k++)
        if (j + k < s.m && key[k] == key[0]) got = k + 1;
    const int64_t stride = (int64_t)gridDim.y * blockDim.x;
    for (int64_t e = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; e < packs; e += stride) {
        const T *const from = (const T *)s.from + e * V;
        T *const to = (T *)s.to + (int64_t)key[0] * s.key_step + e * V;
        pack<T, V> sum, term[MANY];
        read_pack(to, sum);
        const auto add = [&](const pack<T, V> &x) {
#pragma unroll
            for (int v = 0; v < V; v++) sum.v[v] = plus(sum.v[v], x.v[v], s.alpha != 1, s.alpha);
        };
#pragma unroll
        for (int k = 0; k < FEW; k++)
            if (k < got) read_pack(from + at[k] * s.outer_stride[0], term[k]);
#pragma unroll
        for (int k = 0; k < FEW; k++)
            if (k < got) add(term[k]);
        bool more = got == FEW;
        for (int64_t t = j + FEW; more; t += MANY) {
            int here = 0;
#pragma unroll
            for (int k = 0; k < MANY; k++)
                if (t + k < s.m && key_at(s, t + k) == key[0]) here = k + 1;
#pragma unroll
            for (int k = 0; k < MANY; k++)
                if (k < here) read_pack(from + s.order.at[t + k] * s.outer_stride[0], term[k]);
#pragma unroll
            for (int k = 0; k < MANY; k++)
                if (k < here) add(term[k]);
            more = here == MANY;
        }
        write_pack(to, sum);
    }
}
template <class T> static bool dense_rows(const pg_sums *s) {
    const int64_t width = 8 / (int)sizeof(T);
    return s->inner_n == 1 && s->inner_from[0] == 1 && s->inner_to[0] == 1 && s->outer_n == 1 &&
           s->inner_shape[0] % width == 0 && s->key_step % width == 0 && s->outer_stride[0] % width == 0 &&
           ((uintptr_t)s->from & 7) == 0 && ((uintptr_t)s->to & 7) == 0;
}

template <class T, bool ADD> static int launch_sums(const pg_context *c, const pg_sums *s) {
    int64_t inner = product(s->inner_n, s->inner_shape);
    if (s->m <= 0 || inner <= 0) return PG_KERNEL_OK;
    bool rows = false;
    if constexpr (ADD && !std::is_integral_v<T> && sizeof(T) < 8) rows = dense_rows<T>(s);
    if (rows) inner /= 8 / (int)sizeof(T);
    unsigned x = 1, y = 1;
    while (x < INDEX_THREADS && x < inner) x *= 2;
    while (x * y < INDEX_THREADS && y < s->m) y *= 2;
    const dim3 grid(blocks_for(s->m, y, INT64_MAX), blocks_for(inner, x, 65535));
    if constexpr (ADD && !std::is_integral_v<T> && sizeof(T) < 8)
        if (rows) {
            PG_LAUNCH((sum_rows_by_place<T>), grid, dim3(x, y), 0, c, *s, inner);
            return launched();
        }
    PG_LAUNCH((sum_by_place<T, ADD>), grid, dim3(x, y), 0, c, *s, inner);
    return launched();
}

static int size_of(int dtype) {
    static const int bytes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
    return bytes[dtype];
}

int pg_sum_by_place_cuda(const pg_context *c, int dtype, const pg_sums *s, bool accumulate) {
    if (!accumulate) FOR_ITEM(size_of(dtype), return (launch_sums<T, false>)(c, s))
    PG_FOR_ALL(dtype, return (launch_sums<T, true>)(c, s))
}

/* ---- advanced indexing ---- */

typedef struct advanced {
    int n, indices;
    int64_t shape[PG_K_DIMS], dense_stride[PG_K_DIMS], base_stride[PG_K_DIMS];
    int64_t count;
    const int64_t *data[PG_K_DIMS];
    int64_t index_stride[PG_K_DIMS][PG_K_DIMS], size[PG_K_DIMS], dim_stride[PG_K_DIMS];
    const void *base;
    void *dense;
    int64_t *bad;
    const char *op;
} advanced;

/* The dimensions for which take[d] is `which`; all where take is NULL. */
static advanced advanced_of(const pg_context *c, const pg_advanced *a, const bool *take, bool which) {
    advanced r = {};
    int64_t *strides[PG_K_DIMS + 2] = {r.dense_stride, r.base_stride};
    r.indices = a->n;
    for (int d = 0; d < a->s.ndim; d++) {
        if (take && take[d] != which) continue;
        r.shape[r.n] = a->s.shape[d];
        r.dense_stride[r.n] = a->s.stride[0][d];
        r.base_stride[r.n] = a->s.stride[1][d];
        for (int k = 0; k < a->n; k++) r.index_stride[k][r.n] = a->index_stride[k][d];
        r.n++;
    }
    for (int k = 0; k < a->n; k++) {
        strides[2 + k] = r.index_stride[k];
        r.data[k] = a->index_data[k];
        r.size[k] = a->size[k];
        r.dim_stride[k] = a->dim_stride[k];
    }
    r.n = join_dims(r.n, r.shape, strides, 2 + a->n);
    r.count = product(r.n, r.shape);
    r.dense = a->s.data[0], r.base = a->s.data[1];
    r.bad = c->bad_index, r.op = c->op;
    return r;
}

/* Where position i lies: *dense beside; false where an index is reported. */
template <class I>
static __device__ __forceinline__ bool locate(const advanced &a, I i, int64_t *dense, int64_t *at) {
    int64_t in_dense = 0, in_base = 0, where[PG_K_DIMS] = {};
    coordinates(i, a.n, a.shape, [&](int d, int64_t x) {
        in_dense += x * a.dense_stride[d], in_base += x * a.base_stride[d];
        for (int k = 0; k < a.indices; k++) where[k] += x * a.index_stride[k][d];
    });
    bool good = true;
    for (int k = 0; k < a.indices; k++) {
        const int64_t index = resolve(a.data[k][where[k]], a.size[k], true, a.bad, a.op);
        good = good && index >= 0;
        in_base += index * a.dim_stride[k];
    }
    *dense = in_dense;
    *at = in_base;
    return good;
}

template <class V, class I> static __global__ void get_each(advanced a) {
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += stride) {
        int64_t dense, at;
        const bool good = locate(a, (I)i, &dense, &at);
        ((V *)a.dense)[dense] = good ? ((const V *)a.base)[at] : V();
    }
}

extern "C" int PG_K(index_get)(const pg_context *c, int item, const pg_advanced *a) {
    const advanced s = advanced_of(c, a, NULL, false);
    if (s.count <= 0) return PG_KERNEL_OK;
    const unsigned grid = blocks_for(s.count, INDEX_THREADS);
    FOR_ITEM(item, {
        if (is_small(s.count)) PG_LAUNCH((get_each<T, uint32_t>), grid, INDEX_THREADS, 0, c, s);
        else PG_LAUNCH((get_each<T, uint64_t>), grid, INDEX_THREADS, 0, c, s);
    })
    return launched();
}

/* Keys: offsets from the lowest place that may be written; `none` where an index is reported. */
template <class K> static __global__ void advanced_places(advanced a, int64_t lowest, uint64_t none, K *key) {
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += stride) {
        int64_t dense, at;
        key[i] = (K)(locate(a, (uint64_t)i, &dense, &at) ? (uint64_t)(at - lowest) : none);
    }
}
template <class K>
static __global__ void gathering_places(gathering g, int64_t lowest, uint64_t none, K *key) {
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < g.count; i += stride) {
        int64_t index = 0, indexed = 0;
        coordinates((uint64_t)i, g.n, g.shape, [&](int d, int64_t x) {
            index += x * g.index_stride[d], indexed += x * g.indexed_stride[d];
        });
        const int64_t at = resolve(g.index[index], g.size, false, g.bad, g.op);
        key[i] = (K)(at < 0 ? none : (uint64_t)(indexed + at * g.dim_stride - lowest));
    }
}

/* The offsets that `size` steps of `stride` span. */
static void widen_span(int64_t size, int64_t stride, int64_t *lowest, int64_t *highest) {
    const int64_t reach = (size > 1 ? size - 1 : 0) * stride;
    *(reach < 0 ? lowest : highest) += reach;
}

/* Orders the places that PLACES finds and writes there. `sums` has its spaces and `from`. */
#define WRITE_BY_PLACE(PLACES, space, base, dtype, accumulate)                                                           \
    do {                                                                                                                 \
        sums.none = (uint64_t)(highest - lowest) + 1;                                                                    \
        sums.wide = sums.none > UINT32_MAX;                                                                              \
        sums.m = (space).count;                                                                                          \
        sums.key_step = 1;                                                                                               \
        sums.alpha = 1;                                                                                                  \
        sums.to = (char *)(base) + lowest * size_of(dtype);                                                              \
        void *key = c->scratch(c, (size_t)sums.m * (sums.wide ? 8 : 4));                                                 \
        if (!key) return PG_KERNEL_NO_SCRATCH;                                                                           \
        const unsigned grid = blocks_for(sums.m, INDEX_THREADS);                                                         \
        if (sums.wide)                                                                                                   \
            PG_LAUNCH((PLACES<uint64_t>), grid, INDEX_THREADS, 0, c, space, lowest, sums.none, (uint64_t *)key);         \
        else                                                                                                             \
            PG_LAUNCH((PLACES<uint32_t>), grid, INDEX_THREADS, 0, c, space, lowest, sums.none, (uint32_t *)key);         \
        const int status = pg_order_cuda(c, sums.wide ? 8 : 4, pg_bits_of(sums.none), 1, sums.m, key, &sums.order);      \
        return status ? status : pg_sum_by_place_cuda(c, dtype, &sums, accumulate);                                      \
    } while (0)

extern "C" int PG_K(index_put)(const pg_context *c, int dtype, const pg_advanced *a, bool accumulate) {
    /* Indices choose the place along some dimensions; along the others elements cannot meet. */
    bool chosen[PG_K_DIMS] = {};
    for (int d = 0; d < a->s.ndim; d++) {
        chosen[d] = a->s.stride[1][d] == 0;
        for (int k = 0; k < a->n; k++) chosen[d] = chosen[d] || a->index_stride[k][d] != 0;
    }
    const advanced outer = advanced_of(c, a, chosen, true), inner = advanced_of(c, a, chosen, false);
    if (outer.count <= 0 || inner.count <= 0) return PG_KERNEL_OK;
    int64_t lowest = 0, highest = 0;
    for (int d = 0; d < outer.n; d++) widen_span(outer.shape[d], outer.base_stride[d], &lowest, &highest);
    for (int k = 0; k < a->n; k++) widen_span(a->size[k], a->dim_stride[k], &lowest, &highest);
    pg_sums sums = {};
    sums.outer_n = outer.n, sums.inner_n = inner.n;
    for (int d = 0; d < outer.n; d++) {
        sums.outer_shape[d] = outer.shape[d];
        sums.outer_stride[d] = outer.dense_stride[d];
    }
    for (int d = 0; d < inner.n; d++) {
        sums.inner_shape[d] = inner.shape[d];
        sums.inner_from[d] = inner.dense_stride[d];
        sums.inner_to[d] = inner.base_stride[d];
    }
    sums.from = a->s.data[0];
    WRITE_BY_PLACE(advanced_places, outer, a->s.data[1], dtype, accumulate);
}

/* Whether a thread a line is the better way: short lines, or many of them beside each other in memory. */
static bool by_lines(const gathering &lines) {
    const bool beside = lines.n > 0 && lines.dense_stride[lines.n - 1] == 1;
    return lines.length <= 64 || (beside && lines.count >= 4096);
}
static int scatter_by_place(const pg_context *c, int dtype, const pg_gathering *g, bool accumulate) {
    const gathering s = gathering_of(c, g, false);
    int64_t lowest = 0, highest = 0;
    for (int d = 0; d < s.n; d++) widen_span(s.shape[d], s.indexed_stride[d], &lowest, &highest);
    widen_span(s.size, s.dim_stride, &lowest, &highest);
    pg_sums sums = {};
    sums.outer_n = s.n;
    for (int d = 0; d < s.n; d++) {
        sums.outer_shape[d] = s.shape[d];
        sums.outer_stride[d] = s.dense_stride[d];
    }
    sums.from = s.dense;
    WRITE_BY_PLACE(gathering_places, s, s.indexed, dtype, accumulate);
}

extern "C" int PG_K(scatter)(const pg_context *c, int item, const pg_gathering *g) {
    const gathering lines = gathering_of(c, g, true);
    if (lines.count <= 0 || lines.length <= 0) return PG_KERNEL_OK;
    if (!by_lines(lines)) {
        const int dtype = item == 1   ? PG_K_UINT8
                          : item == 2 ? PG_K_INT16
                          : item == 4 ? PG_K_INT32
                                      : PG_K_INT64;
        return scatter_by_place(c, dtype, g, false);
    }
    FOR_ITEM(item, PG_LAUNCH((scatter_lines<T, false>), blocks_for(lines.count, INDEX_THREADS), INDEX_THREADS,
                             0, c, lines))
    return launched();
}
extern "C" int PG_K(scatter_add)(const pg_context *c, int dtype, const pg_gathering *g) {
    const gathering lines = gathering_of(c, g, true);
    if (lines.count <= 0 || lines.length <= 0) return PG_KERNEL_OK;
    if (!by_lines(lines)) return scatter_by_place(c, dtype, g, true);
    PG_FOR_ALL(dtype, PG_LAUNCH((scatter_lines<T, true>), blocks_for(lines.count, INDEX_THREADS),
                                INDEX_THREADS, 0, c, lines))
    return launched();
}

/* ---- positions of what is true: bound by reading, a byte an element, twice ---- */

enum { FLAGS = 16, FLAG_TILE = FLAGS * INDEX_THREADS };

/* The flags of one thread, as bits. */
static __device__ __forceinline__ unsigned flags_of(const bool *in, int64_t n, int64_t first, bool packs) {
    unsigned bits = 0;
    if (packs && first + FLAGS <= n) {
        const pack<bool> x = load_pack(in + first);
#pragma unroll
        for (int k = 0; k < FLAGS; k++) bits |= (unsigned)(x.v[k] != 0) << k;
    } else {
        for (int k = 0; k < FLAGS && first + k < n; k++) bits |= (unsigned)(in[first + k] != 0) << k;
    }
    return bits;
}
/* The sum of the threads before this one, and of all. */
static __device__ __forceinline__ uint32_t flags_before(uint32_t x, uint32_t *all) {
    __shared__ uint32_t warps[INDEX_THREADS / WARP];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    uint32_t sum = x;
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        const uint32_t other = __shfl_up_sync(PG_FULL_MASK, sum, step);
        if (lane >= step) sum += other;
    }
    __syncthreads();
    if (lane == WARP - 1) warps[warp] = sum;
    __syncthreads();
    uint32_t before = 0, total = 0;
    for (int w = 0; w < INDEX_THREADS / WARP; w++) {
        if (w < warp) before += warps[w];
        total += warps[w];
    }
    *all = total;
    return before + sum - x;
}

static __global__ __launch_bounds__(INDEX_THREADS) void count_flags(int64_t n, const bool *in, bool packs,
                                                                    int64_t *counts) {
    const int64_t first = (int64_t)blockIdx.x * FLAG_TILE + threadIdx.x * FLAGS;
    uint32_t all;
    flags_before(first < n ? __popc(flags_of(in, n, first, packs)) : 0, &all);
    if (threadIdx.x == 0) counts[blockIdx.x] = all;
}
/* One block: counts become the sums of those before; counts[tiles] the sum of all. */
static __global__ __launch_bounds__(INDEX_THREADS) void add_flag_counts(int64_t tiles, int64_t *counts) {
    int64_t before = 0;
    for (int64_t first = 0; first < tiles; first += INDEX_THREADS) {
        const int64_t t = first + threadIdx.x;
        uint32_t all;   /* 256 tiles of 4096 */
        const int64_t mine = before + flags_before(t < tiles ? (uint32_t)counts[t] : 0, &all);
        if (t < tiles) counts[t] = mine;
        before += all;
    }
    if (threadIdx.x == 0) counts[tiles] = before;
}
/* Positions are gathered in shared memory, so that what leaves is one run. */
static __global__ __launch_bounds__(INDEX_THREADS) void put_positions(int64_t n, const bool *in, bool packs,
                                                                      const int64_t *counts, int64_t *out) {
    __shared__ uint16_t place[FLAG_TILE];
    const int64_t tile = (int64_t)blockIdx.x * FLAG_TILE, first = tile + threadIdx.x * FLAGS;
    unsigned bits = first < n ? flags_of(in, n, first, packs) : 0;
    uint32_t all, to = flags_before(__popc(bits), &all);
    for (; bits; bits &= bits - 1) place[to++] = (uint16_t)(threadIdx.x * FLAGS + __ffs((int)bits) - 1);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < all; i += INDEX_THREADS) out[counts[blockIdx.x] + i] = tile + place[i];
}

extern "C" int PG_K(nonzero)(const pg_context *c, int64_t n, const bool *in, int64_t *count, int64_t *out) {
    *count = 0;
    if (n <= 0) return PG_KERNEL_OK;
    const unsigned tiles = blocks_for(n, FLAG_TILE);
    int64_t *counts = (int64_t *)c->scratch(c, ((size_t)tiles + 1) * sizeof *counts);
    if (!counts) return PG_KERNEL_NO_SCRATCH;
    const bool packs = aligned16(in);
    PG_LAUNCH((count_flags), tiles, INDEX_THREADS, 0, c, n, in, packs, counts);
    PG_LAUNCH((add_flag_counts), 1, INDEX_THREADS, 0, c, (int64_t)tiles, counts);
    if (out)
        PG_LAUNCH((put_positions), tiles, INDEX_THREADS, 0, c, n, in, packs, (const int64_t *)counts, out);
    const cudaStream_t stream = (cudaStream_t)c->stream;
    const bool arrived = launched() == PG_KERNEL_OK &&
                         cudaMemcpyAsync(count, counts + tiles, sizeof *count, cudaMemcpyDeviceToHost,
                                         stream) == cudaSuccess &&
                         cudaStreamSynchronize(stream) == cudaSuccess;
    return arrived ? PG_KERNEL_OK : PG_KERNEL_FAILED;
}
