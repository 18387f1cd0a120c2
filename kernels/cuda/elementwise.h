/* elementwise.h: one output element from the elements at the same place of up to three operands, whatever
 * their layout. pointwise.cu and copy.cu give the functor.
 *
 * A functor derives from `operands` (which types it takes and gives) and has operator()(a, b, c) on the
 * computing types of its inputs. Two kernels come from it:
 *
 * each_pack     The output and every operand that varies along the innermost dimension are dense and aligned
 *               there: VALUES elements a thread and step, UNROLL steps in flight. An operand that does not
 *               vary along it is read once a pack, a constant not at all. Bound by memory: what operands and
 *               output occupy, each byte once; one division by multiplication a pack and further dimension.
 * each_element  Any strides. Threads that follow each other take elements that follow each other, so what is
 *               dense along the innermost dimension stays coalesced.
 *
 * Positions are 32 bits wide; a larger space is cut into several launches. */
#ifndef PG_ELEMENTWISE_H
#define PG_ELEMENTWISE_H

#include "divide.h"
#include "packs.h"

enum { EACH_BLOCK = 256, EACH_STEPS = 4 };

static constexpr int smaller_of(int a, int b) { return a < b ? a : b; }
static constexpr int larger_of(int a, int b) { return a > b ? a : b; }

template <int inputs, class O, class A = O, class B = A, class C = A> struct operands {
    static const int INPUTS = inputs;
    typedef O out_type;
    typedef A a_type;
    typedef B b_type;
    typedef C c_type;
    static const int SMALLEST = smaller_of((int)sizeof(O), inputs > 0 ? (int)sizeof(A) : (int)sizeof(O));
    static const int VALUES = smaller_of(8, 16 / SMALLEST), UNROLL = 2;
};

/* A pg_strided as a kernel reads it: ndim >= 1, count < 2^31, K operands of which 0 is the output. */
template <int K> struct space_of_operands {
    static const int OPERANDS = K;
    uint32_t count;
    int ndim;
    divisor size[PG_K_DIMS];
    int64_t stride[K][PG_K_DIMS];
    void *data[K];
    pg_value scalar[K];
};
typedef space_of_operands<4> space;

/* The offsets of the element at linear position i. */
template <int N>
static __device__ __forceinline__ void locate(const space &s, uint32_t i, int64_t (&offset)[N]) {
#pragma unroll
    for (int k = 0; k < N; k++) offset[k] = 0;
    for (int d = s.ndim - 1; d > 0; d--) {
        const uint32_t rest = divide(i, s.size[d]), at = i - rest * s.size[d].size;
#pragma unroll
        for (int k = 0; k < N; k++) offset[k] += at * s.stride[k][d];
        i = rest;
    }
#pragma unroll
    for (int k = 0; k < N; k++) offset[k] += i * s.stride[k][0];
}

/* A constant rounded to the dtype. */
template <class T> static __device__ __forceinline__ T element_of(pg_value v) {
    if constexpr (std::is_same_v<T, bool>) return v.i != 0;
    else if constexpr (std::is_integral_v<T>) return (T)v.i;
    else return store_as<T>((compute_t<T>)v.d);
}

/* Operand k's elements of the pack at `offset`, of which `left` are inside. */
template <class T, int N, class Space>
static __device__ __forceinline__ void fetch_pack(const Space &s, int k, int64_t offset, uint32_t left,
                                                  pack<T, N> &to) {
    const T *data = (const T *)s.data[k];
    const bool varies = data && s.stride[k][s.ndim - 1] != 0;
    if (varies && left >= N) {
        read_pack<T, N>(data + offset, to);
    } else if (varies) {
#pragma unroll
        for (int v = 0; v < N; v++) to.v[v] = data[offset + (v < (int)left ? v : 0)];
    } else {
        const T x = data ? data[offset] : element_of<T>(s.scalar[k]);
#pragma unroll
        for (int v = 0; v < N; v++) to.v[v] = x;
    }
}

template <class Op> static __global__ void __launch_bounds__(EACH_BLOCK)
each_pack(const space s, const Op op) {
    typedef typename Op::out_type O;
    typedef typename Op::a_type A;
    typedef typename Op::b_type B;
    typedef typename Op::c_type C;
    constexpr int N = Op::INPUTS, V = Op::VALUES, U = Op::UNROLL;
    pack<A, V> a[U] = {};
    pack<B, V> b[U] = {};
    pack<C, V> c[U] = {};
    int64_t offset[U][N + 1];
    const uint32_t first = (blockIdx.x * (U * EACH_BLOCK) + threadIdx.x) * V;
#pragma unroll
    for (int u = 0; u < U; u++) {
        const uint32_t i = first + (uint32_t)u * EACH_BLOCK * V;
        if (i >= s.count) break;
        locate(s, i, offset[u]);
        if constexpr (N > 0) fetch_pack<A, V>(s, 1, offset[u][1], s.count - i, a[u]);
        if constexpr (N > 1) fetch_pack<B, V>(s, 2, offset[u][2], s.count - i, b[u]);
        if constexpr (N > 2) fetch_pack<C, V>(s, 3, offset[u][3], s.count - i, c[u]);
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
        const uint32_t i = first + (uint32_t)u * EACH_BLOCK * V;
        if (i >= s.count) break;
        pack<O, V> result;
#pragma unroll
        for (int v = 0; v < V; v++)
            result.v[v] = store_as<O>(op(load_as(a[u].v[v]), load_as(b[u].v[v]), load_as(c[u].v[v])));
        O *to = (O *)s.data[0] + offset[u][0];
        if (s.count - i >= V) {
            write_pack<O, V>(to, result);
        } else {
#pragma unroll
            for (int v = 0; v < V; v++)
                if (v < (int)(s.count - i)) to[v] = result.v[v];
        }
    }
}

template <class T, class Space>
static __device__ __forceinline__ T fetch_element(const Space &s, int k, int64_t offset) {
    const T *data = (const T *)s.data[k];
    return data ? data[offset] : element_of<T>(s.scalar[k]);
}

template <class Op> static __global__ void __launch_bounds__(EACH_BLOCK)
each_element(const space s, const Op op) {
    typedef typename Op::out_type O;
    typedef typename Op::a_type A;
    typedef typename Op::b_type B;
    typedef typename Op::c_type C;
    constexpr int N = Op::INPUTS;
    A a[EACH_STEPS] = {};
    B b[EACH_STEPS] = {};
    C c[EACH_STEPS] = {};
    int64_t offset[EACH_STEPS][N + 1];
    const uint32_t first = blockIdx.x * (EACH_STEPS * EACH_BLOCK) + threadIdx.x;
#pragma unroll
    for (int u = 0; u < EACH_STEPS; u++) {
        const uint32_t i = first + (uint32_t)u * EACH_BLOCK;
        if (i >= s.count) break;
        locate(s, i, offset[u]);
        if constexpr (N > 0) a[u] = fetch_element<A>(s, 1, offset[u][1]);
        if constexpr (N > 1) b[u] = fetch_element<B>(s, 2, offset[u][2]);
        if constexpr (N > 2) c[u] = fetch_element<C>(s, 3, offset[u][3]);
    }
#pragma unroll
    for (int u = 0; u < EACH_STEPS; u++) {
        if (first + (uint32_t)u * EACH_BLOCK >= s.count) break;
        ((O *)s.data[0])[offset[u][0]] = store_as<O>(op(load_as(a[u]), load_as(b[u]), load_as(c[u])));
    }
}

/* ---- launching ---- */

/* `size` of dimension `cut` and all of those after it, from `offset` on. */
template <class Space = space>
static inline Space space_of(const pg_strided *s, int inputs, int cut, int64_t size, const int64_t *offset,
                             const int *item) {
    Space to = {};
    to.ndim = s->ndim - cut;
    int64_t count = 1;
    for (int d = cut; d < s->ndim; d++) {
        const int64_t n = d == cut ? size : s->shape[d];
        count *= n;
        to.size[d - cut] = divisor_of(n);
    }
    if (to.ndim == 0) {
        to.ndim = 1;
        to.size[0] = divisor_of(1);
    }
    to.count = (uint32_t)count;
    for (int k = 0; k <= inputs; k++) {
        to.scalar[k] = s->scalar[k];
        if (!s->data[k]) continue;
        to.data[k] = (char *)s->data[k] + offset[k] * item[k];
        for (int d = cut; d < s->ndim; d++) to.stride[k][d - cut] = s->stride[k][d];
        if (s->ndim == cut) to.stride[k][0] = 1;       /* one element */
    }
    return to;
}

/* Whether packs of `values` never leave a row and are aligned where they are read or written as one. */
template <class Space>
static inline bool takes_packs(const Space &s, int inputs, const int *item, int values) {
    const int last = s.ndim - 1;
    if (last > 0 && s.size[last].size % (uint32_t)values) return false;
    for (int k = 0; k <= inputs; k++) {
        if (!s.data[k]) continue;
        const int64_t inner = s.stride[k][last];
        if (inner == 0 && k > 0) continue;
        if (inner != 1 && s.size[last].size > 1) return false;
        const uintptr_t bytes = (uintptr_t)smaller_of(16, item[k] * values);
        if ((uintptr_t)s.data[k] % bytes) return false;
        for (int d = 0; d < last; d++)
            if (s.size[d].size > 1 && s.stride[k][d] % values) return false;
    }
    return true;
}

/* A space of too many elements is cut: launches take `step` of dimension `dim` each, for every position in
 * the dimensions before it. */
struct cuts { int dim, inputs; int64_t step, outer; };
struct piece { int64_t o, at, size, offset[PG_K_OPERANDS]; };    /* starts as zeros */

static inline cuts cuts_of(const pg_context *c, const pg_strided *s, int inputs) {
    int64_t limit = c->grain_limit < INT32_MAX ? c->grain_limit : INT32_MAX;
    if (limit < 4096) limit = 4096;
    cuts k = {0, inputs, 1, 1};
    int64_t inner = count_of(s->ndim, s->shape);     /* of one step */
    for (; k.dim < s->ndim; k.dim++) {
        inner /= s->shape[k.dim];
        if (inner <= limit) break;
        k.outer *= s->shape[k.dim];
    }
    k.step = limit / inner;
    if (k.step > 4096) k.step -= k.step % 4096;      /* so that packs stay aligned */
    return k;
}
static inline bool next_piece(const cuts *k, const pg_strided *s, piece *p) {
    const int64_t size = s->ndim ? s->shape[k->dim] : 1;
    p->at += p->size;
    if (p->at >= size) {
        p->at = 0;
        p->o++;
    }
    if (p->o >= k->outer) return false;
    p->size = size - p->at < k->step ? size - p->at : k->step;
    for (int j = 0; j <= k->inputs; j++) p->offset[j] = s->ndim ? p->at * s->stride[j][k->dim] : 0;
    int64_t rest = p->o;
    for (int d = k->dim - 1; d >= 0; d--) {
        for (int j = 0; j <= k->inputs; j++) p->offset[j] += rest % s->shape[d] * s->stride[j][d];
        rest /= s->shape[d];
    }
    return true;
}

/* op over all of s; an input that s does not have is 0. */
template <class Op> static int each(const pg_context *c, const pg_strided *s, const Op &op) {
    if (count_of(s->ndim, s->shape) == 0) return PG_KERNEL_OK;
    const int inputs = smaller_of(Op::INPUTS, s->n - 1);
    const int item[4] = {(int)sizeof(typename Op::out_type), (int)sizeof(typename Op::a_type),
                         (int)sizeof(typename Op::b_type), (int)sizeof(typename Op::c_type)};
    const cuts k = cuts_of(c, s, inputs);
    for (piece p = {}; next_piece(&k, s, &p);) {
        const space t = space_of(s, inputs, k.dim, p.size, p.offset, item);
        if (takes_packs(t, inputs, item, Op::VALUES))
            PG_LAUNCH((each_pack<Op>), blocks_for(t.count, EACH_BLOCK * Op::VALUES * Op::UNROLL), EACH_BLOCK,
                      0, c, t, op);
        else
            PG_LAUNCH((each_element<Op>), blocks_for(t.count, EACH_BLOCK * EACH_STEPS), EACH_BLOCK, 0, c, t,
                      op);
    }
    return launched();
}

#endif
