/* optim.cu: optimizer steps and gradient norms over all parameters in one launch.
 *
 * Bound by memory: Adam reads 16 and writes 12 bytes a float32 element, SGD with momentum 12 and 8, the
 * norm reads 4. The tensors are cut into blocks of BLOCK elements, one CUDA block each, so that one large
 * matrix among many vectors fills the machine; a block finds its tensor in the list by bisection (uniform
 * reads that stay in the first cache). A thread has 16 bytes of each operand under way: with Adam's 4 and 5
 * blocks of 256 threads on a multiprocessor (46 registers) 80 KiB, of the norm's one 64 bytes a thread, where
 * 4.8 TB/s ask for 26 KiB: 90 % of copy bandwidth is what to expect. Adam of 124 million float32 elements
 * moves 3.5 GB.
 * The arithmetic is that of cpu/optim.c, operation by operation: the same bits.
 */
#include "rows.h"

enum { BLOCK = 4096, OPTIM_THREADS = 256, LIST = 256 };   /* LIST: tensors of one launch */

typedef struct entry {
    void *param;
    const void *grad;
    void *state1, *state2, *state3;
    int64_t size, first;      /* elements; blocks before it in this launch */
    bool packs;               /* everything lies on 16 bytes */
} entry;

static void *listed(void *const *list, int k) { return list ? list[k] : NULL; }

/* A host's part of the list, tensors [from, from + count), with the blocks they make. */
static int64_t fill_list(const pg_parameters *p, int from, int count, entry *list) {
    int64_t blocks = 0;
    for (int k = 0; k < count; k++) {
        entry *e = &list[k];
        e->param = listed(p->param, from + k);
        e->grad = p->grad ? p->grad[from + k] : NULL;
        e->state1 = listed(p->state1, from + k);
        e->state2 = listed(p->state2, from + k);
        e->state3 = listed(p->state3, from + k);
        e->size = p->sizes[from + k];
        e->first = blocks;
        e->packs = aligned16(e->param) && aligned16(e->grad) && aligned16(e->state1) &&
                   aligned16(e->state2) && aligned16(e->state3);
        blocks += (e->size + BLOCK - 1) / BLOCK;
    }
    return blocks;
}

/* What one block works on. */
template <class T> struct piece {
    T *param, *state1, *state2, *state3;
    const T *grad;
    int64_t n;
    bool packs;
};
template <class T> static __device__ __forceinline__ piece<T> find_piece(const entry *list, int count) {
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (list[middle].first <= (int64_t)blockIdx.x) low = middle;
        else high = middle;
    }
    const entry e = list[low];
    const int64_t start = ((int64_t)blockIdx.x - e.first) * BLOCK, rest = e.size - start;
    piece<T> r;
    r.param = (T *)e.param + start;
    r.grad = (const T *)e.grad + start;
    r.state1 = e.state1 ? (T *)e.state1 + start : NULL;
    r.state2 = e.state2 ? (T *)e.state2 + start : NULL;
    r.state3 = e.state3 ? (T *)e.state3 + start : NULL;
    r.n = rest < BLOCK ? rest : (int64_t)BLOCK;
    r.packs = e.packs;
    return r;
}
/* Runs `each(i, P)` over the piece: elements i to i + P at a time, then what is left one by one. */
#define FOR_PIECE(T, q, EACH)                                                                                            \
    do {                                                                                                                 \
        enum { N = packed<T>::N };                                                                                       \
        const int64_t whole = (q).packs ? (q).n / N * N : 0;                                                             \
        _Pragma("unroll 1")                                                                                              \
        for (int64_t i = (int64_t)threadIdx.x * N; i < whole; i += (int64_t)blockDim.x * N) EACH(i, N);                  \
        for (int64_t i = whole + threadIdx.x; i < (q).n; i += blockDim.x) EACH(i, 1);                                    \
    } while (0)

/* Launches over the list, part by part; `blocks_before` counts those of earlier parts. */
#define LAUNCH_LIST(p, KERNEL, ...)                                                                                      \
    do {                                                                                                                 \
        entry list[LIST];                                                                                                \
        int64_t blocks_before = 0;                                                                                       \
        for (int from = 0; from < (p)->count; from += LIST) {                                                            \
            const int count = (p)->count - from < LIST ? (p)->count - from : (int)LIST;                                  \
            const int64_t blocks = fill_list(p, from, count, list);                                                      \
            if (blocks == 0) continue;                                                                                   \
            const entry *there = (const entry *)on_device(c, list, (size_t)count * sizeof *list);                        \
            if (!there) return PG_KERNEL_NO_SCRATCH;                                                                     \
            PG_LAUNCH((KERNEL), (unsigned)blocks, OPTIM_THREADS, 0, c, there, count, __VA_ARGS__);                       \
            blocks_before += blocks;                                                                                     \
        }                                                                                                                \
        (void)blocks_before;                                                                                             \
    } while (0)

/* ---- Adam and AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019) ---- */

static __device__ __forceinline__ float sqrt_of(float x) { return sqrtf(x); }
static __device__ __forceinline__ double sqrt_of(double x) { return sqrt(x); }

template <class T> struct adam_rates { T rate1, beta2, rate2, eps, decay, step_size, correct, shrink, sign; };

/* The powers of a step are taken once a block, by one thread, in double. */
template <class T> static __device__ __forceinline__ adam_rates<T> adam_rates_of(const double *hyper) {
    const double lr = hyper[0], beta1 = hyper[1], beta2 = hyper[2], decay = hyper[4], step = hyper[6];
    const bool decoupled = hyper[5] != 0;
    adam_rates<T> r;
    r.rate1 = (T)(1 - beta1);
    r.beta2 = (T)beta2;
    r.rate2 = (T)(1 - beta2);
    r.eps = (T)hyper[3];
    r.decay = (T)(decoupled ? 0 : decay);
    r.shrink = (T)(decoupled ? 1 - lr * decay : 1);
    r.step_size = (T)(lr / (1 - pow(beta1, step)));
    r.correct = (T)(1 / sqrt(1 - pow(beta2, step)));
    r.sign = hyper[8] != 0 ? (T)-1 : (T)1;
    return r;
}

template <int P, class T>
static __device__ __forceinline__ void adam_values(const adam_rates<compute_t<T>> &r, T *param, const T *grad,
                                                   T *m, T *v, T *vmax) {
    typedef compute_t<T> C;
    C p[P], g[P], m1[P], v1[P], top[P] = {};
    take<P>(param, p);
    take<P>(grad, g);
    take<P>(m, m1);
    take<P>(v, v1);
    if (vmax) take<P>(vmax, top);
#pragma unroll
    for (int i = 0; i < P; i++) {
        const C slope = r.sign * g[i] + r.decay * p[i];
        m1[i] = m1[i] + r.rate1 * (slope - m1[i]);
        v1[i] = r.beta2 * v1[i] + r.rate2 * slope * slope;
        if (vmax) top[i] = v1[i] > top[i] || v1[i] != v1[i] ? v1[i] : top[i];
        const C second = vmax ? top[i] : v1[i];
        p[i] = r.shrink * p[i] - r.step_size * (m1[i] / (sqrt_of(second) * r.correct + r.eps));
    }
    give<P>(m, m1);
    give<P>(v, v1);
    if (vmax) give<P>(vmax, top);
    give<P>(param, p);
}

template <class T>
static __global__ __launch_bounds__(OPTIM_THREADS) void adam_step(const entry *list, int count,
                                                                  const double *hyper) {
    __shared__ adam_rates<compute_t<T>> shared_rates;
    if (threadIdx.x == 0) shared_rates = adam_rates_of<compute_t<T>>(hyper);
    const piece<T> q = find_piece<T>(list, count);
    T *vmax = hyper[7] != 0 ? q.state3 : NULL;
    __syncthreads();
    const adam_rates<compute_t<T>> r = shared_rates;
#define EACH(i, P)                                                                                           \
    adam_values<P>(r, q.param + i, q.grad + i, q.state1 + i, q.state2 + i, vmax ? vmax + i : NULL)
    FOR_PIECE(T, q, EACH);
#undef EACH
}

extern "C" int PG_K(adam)(const pg_context *c, int dtype, const pg_parameters *p, const double *hyper) {
    PG_FOR_FLOATS(dtype, LAUNCH_LIST(p, adam_step<T>, hyper))
    return launched();
}

/* ---- SGD, with PyTorch's momentum: the learning rate stands outside of the buffer ---- */

template <class T> struct sgd_rates { T lr, momentum, rate, decay, sign; bool nesterov, first; };

template <int P, class T>
static __device__ __forceinline__ void sgd_values(const sgd_rates<compute_t<T>> &r, T *param, const T *grad,
                                                  T *buffer) {
    typedef compute_t<T> C;
    C p[P], g[P], m[P] = {};
    take<P>(param, p);
    take<P>(grad, g);
    if (buffer && !r.first) take<P>(buffer, m);
#pragma unroll
    for (int i = 0; i < P; i++) {
        const C slope = r.sign * g[i] + r.decay * p[i];
        C by = slope;
        if (buffer) {
            m[i] = r.first ? slope : r.momentum * m[i] + r.rate * slope;
            by = r.nesterov ? slope + r.momentum * m[i] : m[i];
        }
        p[i] -= r.lr * by;
    }
    if (buffer) give<P>(buffer, m);
    give<P>(param, p);
}

template <class T>
static __global__ __launch_bounds__(OPTIM_THREADS) void sgd_step(const entry *list, int count,
                                                                 const double *hyper) {
    const piece<T> q = find_piece<T>(list, count);
    typedef compute_t<T> C;
    const sgd_rates<C> r = {(C)hyper[0],
                            (C)hyper[1],
                            (C)(1 - hyper[2]),
                            (C)hyper[3],
                            hyper[5] != 0 ? (C)-1 : (C)1,
                            hyper[4] != 0,
                            hyper[6] != 0};
    T *buffer = hyper[1] != 0 ? q.state1 : NULL;
#define EACH(i, P) sgd_values<P>(r, q.param + i, q.grad + i, buffer ? buffer + i : NULL)
    FOR_PIECE(T, q, EACH);
#undef EACH
}

extern "C" int PG_K(sgd)(const pg_context *c, int dtype, const pg_parameters *p, const double *hyper) {
    PG_FOR_FLOATS(dtype, LAUNCH_LIST(p, sgd_step<T>, hyper))
    return launched();
}

/* ---- the norm over all gradients, and scaling by it ---- */

/* The greater, NaN before all. */
namespace {
struct op_top {
    __device__ __forceinline__ double operator()(double a, double b) const {
        return a != a || a > b ? a : b != b || b > a ? b : a;
    }
};
}
static __device__ __forceinline__ double norm_all(double x, double order) {
    return order == (double)INFINITY ? block_all(x, op_top(), 0.0) : block_all(x, op_sum(), 0.0);
}
template <int P, class C>
static __device__ __forceinline__ double norm_values(double sum, double order, const C *g) {
#pragma unroll
    for (int i = 0; i < P; i++) {
        const double x = fabs((double)g[i]);
        if (order == 2) sum += x * x;
        else if (order == 1) sum += x;
        else if (order == (double)INFINITY) sum = op_top()(sum, x);
        else sum += pow(x, order);
    }
    return sum;
}

/* One partial result a block; then one block joins them. A whole block's elements are all under way at
 * once. */
template <class T>
static __global__ __launch_bounds__(OPTIM_THREADS) void norm_pieces(const entry *list, int count,
                                                                    double order, double *partial) {
    const piece<T> q = find_piece<T>(list, count);
    double sum = 0;
    if (q.packs && q.n == BLOCK) {
        enum { N = packed<T>::N, STEPS = BLOCK / (OPTIM_THREADS * N) };
        compute_t<T> g[STEPS][N];
#pragma unroll
        for (int s = 0; s < STEPS; s++) take<N>(q.grad + ((int)threadIdx.x + s * OPTIM_THREADS) * N, g[s]);
#pragma unroll
        for (int s = 0; s < STEPS; s++) sum = norm_values<N>(sum, order, g[s]);
    } else {
        compute_t<T> g[packed<T>::N];
#define EACH(i, P)                                  \
    do {                                            \
        take<P>(q.grad + i, g);                     \
        sum = norm_values<P>(sum, order, g);        \
    } while (0)
        FOR_PIECE(T, q, EACH);
#undef EACH
    }
    sum = norm_all(sum, order);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
static __global__ void norm_join(int64_t blocks, double order, const double *partial, double *out) {
    double total = 0;
#pragma unroll 8
    for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x)
        total = order == (double)INFINITY ? op_top()(total, partial[b]) : total + partial[b];
    total = norm_all(total, order);
    if (threadIdx.x == 0)
        *out = order == 2                                ? sqrt(total)
               : order == 1 || order == (double)INFINITY ? total
                                                         : pow(total, 1 / order);
}

extern "C" int PG_K(total_norm)(const pg_context *c, int dtype, const pg_parameters *p, double order,
                                double *out) {
    int64_t all = 0;
    for (int k = 0; k < p->count; k++) all += (p->sizes[k] + BLOCK - 1) / BLOCK;
    double *partial = (double *)c->scratch(c, (size_t)(all + 1) * sizeof *partial);
    if (!partial) return PG_KERNEL_NO_SCRATCH;
    PG_FOR_FLOATS(dtype, LAUNCH_LIST(p, norm_pieces<T>, order, partial + blocks_before))
    PG_LAUNCH((norm_join), 1, (unsigned)team_size(all, 1, 1024), 0, c, all, order, (const double *)partial,
              out);
    return launched();
}

template <class T>
static __global__ __launch_bounds__(OPTIM_THREADS) void scale_pieces(const entry *list, int count,
                                                                     double max_norm, const double *norm) {
    const double by = max_norm / (*norm + 1e-6);
    if (by >= 1) return;   /* a NaN norm makes the gradients NaN, as it should */
    const piece<T> q = find_piece<T>(list, count);
    compute_t<T> x[packed<T>::N];
#define EACH(i, P)                                                   \
    do {                                                             \
        take<P>(q.param + i, x);                                     \
        for (int k = 0; k < P; k++) x[k] *= (compute_t<T>)by;                   \
        give<P>(q.param + i, x);                                     \
    } while (0)
    FOR_PIECE(T, q, EACH);
#undef EACH
}

extern "C" int PG_K(clip_scale)(const pg_context *c, int dtype, const pg_parameters *p, double max_norm,
                                const double *norm) {
    PG_FOR_FLOATS(dtype, LAUNCH_LIST(p, scale_pieces<T>, max_norm, norm))
    return launched();
}

/* ---- unscale: what a gradient scaler does before a step: 4 bytes read and written a float32 element ---- */

template <class T>
static __global__ __launch_bounds__(OPTIM_THREADS) void unscale_pieces(const entry *list, int count,
                                                                       const float *inverse, float *found) {
    typedef compute_t<T> C;
    const C by = (C)*inverse;
    const piece<T> q = find_piece<T>(list, count);
    C x[packed<T>::N];
    C zero = 0;   /* 0 * x is 0 where x is finite, NaN where not */
#define EACH(i, P)                                                   \
    do {                                                             \
        take<P>(q.param + i, x);                                     \
        for (int k = 0; k < P; k++) {                                \
            zero += x[k] * 0;                                        \
            x[k] *= by;                                              \
        }                                                            \
        give<P>(q.param + i, x);                                     \
    } while (0)
    FOR_PIECE(T, q, EACH);
#undef EACH
    if (zero != 0) atomicExch(found, 1.0f);
}

extern "C" int PG_K(unscale)(const pg_context *c, int dtype, const pg_parameters *p, const float *inverse,
                             float *found) {
    PG_FOR_FLOATS(dtype, LAUNCH_LIST(p, unscale_pieces<T>, inverse, found))
    return launched();
}
