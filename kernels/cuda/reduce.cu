/* reduce.cu: reductions, in an order that the shape alone decides.
 *
 * `lanes` threads share an output (all within a block); each takes a group of 8 or 16 elements at a time,
 * which are folded pairwise in the computing type, and the groups' results are added in double: a rounding
 * error of float32 grows with the group's 4 steps, whatever the length. The lanes are joined pairwise through
 * shared memory. Where outputs are too few to fill the device, each is cut into `splits` parts whose results
 * stand in scratch until a second launch joins them.
 *
 * Sums of a matrix's columns (the gradient of a bias) take 16 bytes of neighbouring columns a thread, 8 rows
 * of them under way: 3 blocks of 256 threads, 96 KiB a multiprocessor, where 4.8 TB/s ask for 26.
 *
 * Else two ways to lay threads out: along the reduced elements where those are dense (packs of 16 bytes,
 * GROUP elements in flight), or across the outputs where those are dense while the reduced dimension is strided: a
 * warp then reads 32 neighbours of each row. Both are bound by reading the input once; a VAR costs a double
 * division a GROUP besides, LOGSUMEXP and the odd norms a transcendental an element.
 *
 * float16 and bfloat16 are computed in float32, integers in int64. */
#include <stdlib.h>

#include "divide.h"
#include "packs.h"

enum { BLOCK = 256, FILL = 1056, MOST_SPLITS = 1024 };   /* FILL: blocks that occupy 132 multiprocessors */

/* A run of dimensions, coalesced. */
struct axes {
    int n;
    bool wide;                         /* positions need 64 bits */
    divisor size[PG_K_DIMS];
    int64_t shape[PG_K_DIMS], stride[PG_K_DIMS];
};
static axes axes_of(int n, const int64_t *shape, const int64_t *stride) {
    axes a = {};
    a.n = n;
    a.wide = count_of(n, shape) > INT32_MAX;
    for (int d = 0; d < n; d++) {
        a.shape[d] = shape[d];
        a.stride[d] = stride[d];
        a.size[d] = a.wide || shape[d] == 0 ? divisor() : divisor_of(shape[d]);
    }
    return a;
}
static __device__ __noinline__ int64_t offset_beyond(const axes &a, int64_t i) {
    int64_t offset = 0;
    if (a.wide) {
        for (int d = a.n - 1; d > 0; d--) {
            offset += i % a.shape[d] * a.stride[d];
            i /= a.shape[d];
        }
        return offset + i * a.stride[0];
    }
    uint32_t rest = (uint32_t)i;
    for (int d = a.n - 1; d > 0; d--) {
        const uint32_t next = divide(rest, a.size[d]);
        offset += (rest - next * a.size[d].size) * a.stride[d];
        rest = next;
    }
    return offset + rest * a.stride[0];
}
static __device__ __forceinline__ int64_t offset_of(const axes &a, int64_t i) {
    return a.n == 0 ? 0 : a.n == 1 ? i * a.stride[0] : offset_beyond(a, i);
}

struct plan {
    axes kept, reduced;
    int64_t outputs, n, per_split;
    int lanes, splits;
    bool across, packs;
};

/* What the results need to know. */
enum { NORM_POWERS, NORM_SQUARES, NORM_ABSOLUTES, NORM_NONZEROS, NORM_LARGEST, NORM_SMALLEST };
struct settings {
    int op, dtype, norm;
    bool least;                        /* the minimum is sought */
    double p0;
    int64_t n;
    void *out, *out2;
};

/* ---- arithmetic ---- */

static __device__ __forceinline__ float plus(float a, float b) { return a + b; }
static __device__ __forceinline__ double plus(double a, double b) { return a + b; }
static __device__ __forceinline__ int64_t plus(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
static __device__ __forceinline__ float times(float a, float b) { return a * b; }
static __device__ __forceinline__ double times(double a, double b) { return a * b; }
static __device__ __forceinline__ int64_t times(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

/* Pairwise, in place; a template, so that x stays in registers. */
template <bool PRODUCT, int HALF, class C> static __device__ __forceinline__ void fold_halves(C *x) {
    if constexpr (HALF > 0) {
#pragma unroll
        for (int i = 0; i < HALF; i++) x[i] = PRODUCT ? times(x[i], x[i + HALF]) : plus(x[i], x[i + HALF]);
        fold_halves<PRODUCT, HALF / 2>(x);
    }
}
template <int N, class C> static __device__ __forceinline__ C sum_of(C (&x)[N]) {
    fold_halves<false, N / 2>(x);
    return x[0];
}
template <int N, class C> static __device__ __forceinline__ C product_of(C (&x)[N]) {
    fold_halves<true, N / 2>(x);
    return x[0];
}
/* NaN wins. */
template <class C> static __device__ __forceinline__ C better_of(C a, C b, bool least) {
    return (least ? b < a : b > a) || b != b ? b : a;
}
template <class C> static __device__ __forceinline__ C extreme(bool largest) {
    if constexpr (std::is_integral_v<C>) return largest ? INT64_MAX : INT64_MIN;
    else return largest ? (C)INFINITY : -(C)INFINITY;
}

template <class C> static __device__ __noinline__ C power(C x, C y) { return pow(x, y); }

static __device__ __forceinline__ void put(const settings &s, void *out, int64_t k, double a, int64_t i) {
    switch (s.dtype) {
    case PG_K_BOOL: ((bool *)out)[k] = i != 0; break;
    case PG_K_UINT8: case PG_K_INT8: ((uint8_t *)out)[k] = (uint8_t)i; break;
    case PG_K_INT16: ((uint16_t *)out)[k] = (uint16_t)i; break;
    case PG_K_INT32: ((uint32_t *)out)[k] = (uint32_t)i; break;
    case PG_K_INT64: ((int64_t *)out)[k] = i; break;
    case PG_K_FLOAT16: ((__half *)out)[k] = store_as<__half>((float)a); break;
    case PG_K_BFLOAT16: ((__nv_bfloat16 *)out)[k] = store_as<__nv_bfloat16>((float)a); break;
    case PG_K_FLOAT32: ((float *)out)[k] = (float)a; break;
    default: ((double *)out)[k] = a; break;
    }
}
static __device__ __forceinline__ void put(const settings &s, void *out, int64_t k, double a) {
    put(s, out, k, a, 0);
}
static __device__ __forceinline__ void put(const settings &s, void *out, int64_t k, int64_t i) {
    put(s, out, k, 0, i);
}

/* ---- what a thread gathers: start, add a group of N elements (x may be overwritten; bit v of `valid` says
 * whether x[v] is one, else it is neutral(); at(v) is its place in the reduced order), merge what another has
 * gathered, finish output k ---- */

template <class C> using total_t = std::conditional_t<std::is_integral_v<C>, int64_t, double>;

template <class C> struct sum {                       /* SUM, MEAN */
    total_t<C> total;
    static __device__ C neutral(const settings &) { return 0; }
    __device__ void start(const settings &) { total = 0; }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t, const At &, const settings &) {
        total = plus(total, (total_t<C>)sum_of(x));
    }
    __device__ void merge(const sum &o, const settings &) { total = plus(total, o.total); }
    __device__ void finish(const settings &s, int64_t k) const {
        if constexpr (std::is_integral_v<C>) put(s, s.out, k, total);
        else put(s, s.out, k, s.op == PG_K_REDUCE_MEAN ? total / (double)s.n : total);
    }
};

template <class C> struct product {
    total_t<C> total;
    static __device__ C neutral(const settings &) { return 1; }
    __device__ void start(const settings &) { total = 1; }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t, const At &, const settings &) {
        total = times(total, (total_t<C>)product_of(x));
    }
    __device__ void merge(const product &o, const settings &) { total = times(total, o.total); }
    __device__ void finish(const settings &s, int64_t k) const { put(s, s.out, k, total); }
};

template <class C> struct extremum {                  /* AMAX, AMIN */
    C value;
    static __device__ C neutral(const settings & s) { return extreme<C>(s.least); }
    __device__ void start(const settings &s) { value = extreme<C>(s.least); }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t, const At &, const settings &s) {
#pragma unroll
        for (int v = 0; v < N; v++) value = better_of(value, x[v], s.least);
    }
    __device__ void merge(const extremum &o, const settings &s) {
        value = better_of(value, o.value, s.least);
    }
    __device__ void finish(const settings &s, int64_t k) const { put(s, s.out, k, (total_t<C>)value); }
};

template <class C> struct placed { /* MAX, MIN, ARGMAX, ARGMIN: the first of equals, NaN wins */
    C value;
    int64_t index;                                    /* -1: nothing yet */
    static __device__ C neutral(const settings &) { return 0; }
    __device__ void start(const settings &) {
        value = 0;
        index = -1;
    }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t valid, const At &at, const settings &s) {
#pragma unroll
        for (int v = 0; v < N; v++)                   /* in ascending order of places */
            if ((valid >> v & 1)
                && (index < 0 || (s.least ? x[v] < value : x[v] > value) || (x[v] != x[v] && value == value))) {
                value = x[v];
                index = at(v);
            }
    }
    __device__ void merge(const placed &o, const settings &s) {
        if (o.index < 0) return;
        const bool nan = value != value, other = o.value != o.value;
        const bool better = s.least ? o.value < value : o.value > value,
                   equal = o.value == value || (nan && other);
        if (index < 0 || (better && !nan) || (other && !nan) || (equal && o.index < index)) *this = o;
    }
    __device__ void finish(const settings &s, int64_t k) const {
        if (s.op == PG_K_REDUCE_ARGMAX || s.op == PG_K_REDUCE_ARGMIN) {
            ((int64_t *)s.out)[k] = index;
            return;
        }
        put(s, s.out, k, (total_t<C>)value);
        if (s.out2) ((int64_t *)s.out2)[k] = index;
    }
};

template <class C> struct truth {                     /* ALL, ANY */
    bool all, any;
    static __device__ C neutral(const settings & s) { return s.op == PG_K_REDUCE_ALL; }
    __device__ void start(const settings &) {
        all = true;
        any = false;
    }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t, const At &, const settings &) {
#pragma unroll
        for (int v = 0; v < N; v++) {
            all &= x[v] != 0;
            any |= x[v] != 0;
        }
    }
    __device__ void merge(const truth &o, const settings &) {
        all &= o.all;
        any |= o.any;
    }
    __device__ void finish(const settings &s, int64_t k) const {
        ((bool *)s.out)[k] = s.op == PG_K_REDUCE_ALL ? all : any;
    }
};

template <class C> struct spread {                    /* VAR; joined as Chan et al. 1979 do */
    double n, mean, squares; /* squares: of the deviations from the mean, their sum */
    static __device__ C neutral(const settings &) { return 0; }
    __device__ void start(const settings &) { n = mean = squares = 0; }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t valid, const At &, const settings &s) {
        const int count = __popc(valid);
        if (count == 0) return;
        C y[N];
#pragma unroll
        for (int v = 0; v < N; v++) y[v] = x[v];
        const C about = sum_of(y) / (C)count;
#pragma unroll
        for (int v = 0; v < N; v++) {
            x[v] = valid >> v & 1 ? x[v] - about : 0;
            y[v] = x[v] * x[v];
        }
        const double rest = (double)sum_of(x), square = (double)sum_of(y) - rest * rest / count;
        spread o;
        o.n = count;
        o.mean = rest - rest == 0 ? (double)about + rest / count : (double)about;
        o.squares = square < 0 ? 0 : square;
        merge(o, s);
    }
    __device__ __forceinline__ void merge(const spread &o, const settings &) {
        if (o.n == 0) return;
        const double d = o.mean - mean, both = n + o.n;
        if (d - d == 0) {
            mean += d * (o.n / both);
            squares += o.squares + d * d * (n * o.n / both);
        } else {                                      /* an infinity or a NaN among the elements */
            mean += o.mean;
            squares = (double)NAN;
        }
        n = both;
    }
    __device__ void finish(const settings &s, int64_t k) const {
        const double freedom = n - s.p0;
        if (s.out2) put(s, s.out2, k, mean);
        put(s, s.out, k, squares / (freedom > 0 ? freedom : 0));
    }
};

template <class C> struct p_norm {
    double total;
    static __device__ C neutral(const settings & s) { return s.p0 < 0 ? (C)INFINITY : (C)0; }
    __device__ void start(const settings &s) { total = s.norm == NORM_SMALLEST ? (double)INFINITY : 0; }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t, const At &, const settings &s) {
        if (s.norm == NORM_SQUARES) {
#pragma unroll
            for (int v = 0; v < N; v++) x[v] = x[v] * x[v];
        } else if (s.norm == NORM_NONZEROS) {
#pragma unroll
            for (int v = 0; v < N; v++) x[v] = x[v] != 0 ? 1 : 0;
        } else if (s.norm == NORM_POWERS) {
#pragma unroll
            for (int v = 0; v < N; v++) x[v] = power((C)fabs(x[v]), (C)s.p0);
        } else {
#pragma unroll
            for (int v = 0; v < N; v++) x[v] = fabs(x[v]);
            if (s.norm != NORM_ABSOLUTES) {
#pragma unroll
                for (int v = 0; v < N; v++) total = better_of(total, (double)x[v], s.norm == NORM_SMALLEST);
                return;
            }
        }
        total += (double)sum_of(x);
    }
    __device__ void merge(const p_norm &o, const settings &s) {
        total = s.norm >= NORM_LARGEST ? better_of(total, o.total, s.norm == NORM_SMALLEST) : total + o.total;
    }
    __device__ void finish(const settings &s, int64_t k) const {
        double a = total;
        if (s.norm == NORM_SQUARES) a = sqrt(a);
        else if (s.norm == NORM_POWERS) a = power(a, 1 / s.p0);
        put(s, s.out, k, a);
    }
};

template <class C> struct exponentials {              /* LOGSUMEXP: e^shift * total */
    double total;
    C shift;
    static __device__ C neutral(const settings &) { return -(C)INFINITY; }
    __device__ void start(const settings &) {
        total = 0;
        shift = 0;
    }
    __device__ __forceinline__ void raise(C to) {
        if (total == 0) {
            shift = to;
        } else if (to > shift) {
            if (total - total == 0) total *= exp((double)shift - (double)to);
            shift = to;
        }
    }
    template <int N, class At>
    __device__ __forceinline__ void add(C (&x)[N], uint32_t, const At &, const settings &) {
        C most = x[0];
#pragma unroll
        for (int v = 1; v < N; v++) most = better_of(most, x[v], false);
        raise(most - most == 0 ? most : 0);           /* an infinity is not subtracted: inf - inf */
#pragma unroll
        for (int v = 0; v < N; v++) x[v] = exp(x[v] - shift);
        total += (double)sum_of(x);
    }
    __device__ void merge(const exponentials &o, const settings &) {
        if (o.total == 0) return;
        raise(o.shift);
        total += o.total - o.total == 0 ? o.total * exp((double)o.shift - (double)shift) : o.total;
    }
    __device__ void finish(const settings &s, int64_t k) const {
        put(s, s.out, k, (double)shift + log(total));
    }
};

/* ---- kernels ---- */

/* The lanes of each output joined, pairwise; lane 0's thread keeps the result. */
template <class A>
static __device__ __forceinline__ void join_lanes(A *shared, int lane, int lanes, int apart,
                                                  const settings &s) {
    const bool one_warp = apart == 1 && lanes <= 32;
    for (int w = lanes / 2; w > 0; w /= 2) {
        if (one_warp) __syncwarp();
        else __syncthreads();
        if (lane < w) shared[threadIdx.x].merge(shared[threadIdx.x + w * apart], s);
    }
}

/* Of a group: the place of its first element, and where the others are from there: packs of `width`. */
struct places {
    int64_t first;
    int pack, unit, width;
    __device__ __forceinline__ int after(int v) const { return v / width * pack + v % width * unit; }
    __device__ __forceinline__ int64_t operator()(int v) const { return first + after(v); }
};

template <class C, class T> static __device__ __forceinline__ C computed(T x) {
    if constexpr (std::is_integral_v<C>) return (C)x;
    else return load_as(x);
}

/* A group's elements before `end`; gives the mask of those there are. */
template <int PACKS, int V, class C, class T>
static __device__ __forceinline__ uint32_t fetch(const plan &p, const T *base, const places &at, int64_t end,
                                                 C neutral, C (&x)[PACKS * V]) {
    const int left = (int)(end - at.first < 1 << 20 ? end - at.first : 1 << 20);
    const bool full = at.after(PACKS * V - 1) < left;
    uint32_t valid = 0;
    if (p.packs) {
        pack<T, V> raw[PACKS] = {};
#pragma unroll
        for (int q = 0; q < PACKS; q++) {
            const int have = left - at.after(q * V);
            if (have <= 0) break;
            const T *from = base + offset_of(p.reduced, at(q * V));
            if (have >= V) {
                read_pack(from, raw[q]);
            } else {
#pragma unroll
                for (int v = 0; v < V; v++)
                    if (v < have) raw[q].v[v] = from[v];
            }
            valid |= ((1u << (have < V ? have : V)) - 1) << q * V;
        }
#pragma unroll
        for (int v = 0; v < PACKS * V; v++)
            x[v] = full || (valid >> v & 1) ? computed<C>(raw[v / V].v[v % V]) : neutral;
        return valid;
    }
    if (full && p.reduced.n == 1) {
        const int64_t step = at.unit * p.reduced.stride[0], pack_step = at.pack * p.reduced.stride[0];
        const T *from = base + at.first * p.reduced.stride[0];
        T raw[PACKS * V];
#pragma unroll
        for (int q = 0; q < PACKS; q++, from += pack_step) {
            const T *one = from;
#pragma unroll
            for (int v = q * V; v < (q + 1) * V; v++, one += step) raw[v] = *one;
        }
#pragma unroll
        for (int v = 0; v < PACKS * V; v++) x[v] = computed<C>(raw[v]);
        return (1u << (PACKS * V - 1)) * 2 - 1;
    }
#pragma unroll
    for (int v = 0; v < PACKS * V; v++) {
        x[v] = neutral;
        if (at.after(v) < left) {
            x[v] = computed<C>(base[offset_of(p.reduced, at(v))]);
            valid |= 1u << v;
        }
    }
    return valid;
}

template <class A, class C, class T> static __global__ void __launch_bounds__(BLOCK, sizeof(C) == 8 ? 2 : 3)
reduce_elements(const __grid_constant__ plan p, const settings s, const T *in, A *partials) {
    constexpr int V = sizeof(T) == 1 ? 8 : 16 / (int)sizeof(T), PACKS = V == 8 ? 2 : 4;
    PG_SHARED(A, shared);
    const int columns = BLOCK / p.lanes, thread = (int)threadIdx.x;
    const int lane = p.across ? thread / columns : thread % p.lanes,
              column = p.across ? thread % columns : thread / p.lanes;
    const int64_t k = (int64_t)blockIdx.x * columns + column;
    A a;
    a.start(s);
    if (k < p.outputs) {
        const T *base = in + offset_of(p.kept, k);
        const int64_t begin = blockIdx.y * p.per_split,
                      end = begin + p.per_split < p.n ? begin + p.per_split : p.n;
        const int unit = p.packs ? 1 : p.lanes, step = p.lanes * V;
        int64_t j = begin + lane * (p.packs ? V : 1);
        for (; j < end; j += PACKS * step) {
            C x[PACKS * V];
            const places at = {j, step, unit, V};
            const uint32_t valid = fetch<PACKS, V>(p, base, at, end, A::neutral(s), x);
            a.add(x, valid, at, s);
        }
    }
    shared[thread] = a;
    join_lanes(shared, lane, p.lanes, p.across ? columns : 1, s);
    if (lane == 0 && k < p.outputs) {
        if (p.splits == 1) shared[thread].finish(s, k);
        else partials[blockIdx.y * p.outputs + k] = shared[thread];
    }
}

/* The sums of a matrix's columns, (rows, columns) with rows `stride` apart: a thread has V neighbouring
 * columns, 16 bytes, and every lanes-th row of its block's, GROUP of them under way; `across` threads stand
 * beside each other: a warp reads 512 bytes of a row. */
template <class C, class T> static __global__ void __launch_bounds__(BLOCK, 3)
sum_columns(int64_t rows, int64_t columns, int64_t stride, int64_t per_split, int across, bool split,
            const settings s, const T *in, sum<C> *partials) {
    constexpr int V = 16 / (int)sizeof(T), GROUP = 8;
    PG_SHARED(total_t<C>, shared);                    /* (V, BLOCK) */
    const int thread = (int)threadIdx.x, x = thread % across, lanes = BLOCK / across, lane = thread / across;
    const int64_t column = ((int64_t)blockIdx.x * across + x) * V;
    total_t<C> total[V] = {};
    if (column < columns) {
        const int64_t begin = blockIdx.y * per_split,
                      end = begin + per_split < rows ? begin + per_split : rows;
        const int64_t step = lanes * stride;
        const T *from = in + (begin + lane) * stride + column;
        for (int64_t row = begin + lane; row < end; row += GROUP * lanes, from += GROUP * step) {
            pack<T, V> raw[GROUP] = {};
#pragma unroll
            for (int g = 0; g < GROUP; g++)
                if (row + g * lanes < end) read_pack(from + g * step, raw[g]);
#pragma unroll
            for (int v = 0; v < V; v++) {
                C one[GROUP];
#pragma unroll
                for (int g = 0; g < GROUP; g++) one[g] = computed<C>(raw[g].v[v]);
                total[v] = plus(total[v], (total_t<C>)sum_of(one));
            }
        }
    }
#pragma unroll
    for (int v = 0; v < V; v++) shared[v * BLOCK + thread] = total[v];
    for (int w = lanes / 2; w > 0; w /= 2) {
        __syncthreads();
        if (lane < w) {
#pragma unroll
            for (int v = 0; v < V; v++) {
                total[v] = plus(total[v], shared[v * BLOCK + thread + w * across]);
                shared[v * BLOCK + thread] = total[v];
            }
        }
    }
    if (lane > 0 || column >= columns) return;
#pragma unroll
    for (int v = 0; v < V; v++) {
        sum<C> a;
        a.total = total[v];
        if (split) partials[blockIdx.y * columns + column + v] = a;
        else a.finish(s, column + v);
    }
}

/* partials: (splits, outputs). */
template <class A> static __global__ void __launch_bounds__(BLOCK)
join_splits(int64_t outputs, int splits, int lanes, const settings s, const A *partials) {
    PG_SHARED(A, shared);
    const int columns = BLOCK / lanes, lane = (int)threadIdx.x / columns;
    const int64_t k = (int64_t)blockIdx.x * columns + (int)threadIdx.x % columns;
    A a;
    a.start(s);
    if (k < outputs)
        for (int i = lane; i < splits; i += lanes) a.merge(partials[i * outputs + k], s);
    shared[threadIdx.x] = a;
    join_lanes(shared, lane, lanes, columns, s);
    if (lane == 0 && k < outputs) shared[threadIdx.x].finish(s, k);
}

/* ---- launching ---- */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t up_to_multiple(int64_t n, int64_t of) { return (n + of - 1) / of * of; }

/* item: bytes of an element; width: elements of a pack; group: elements that a thread takes at once. */
static plan plan_of(const pg_reduction *r, int item, int width, int group) {
    plan p = {};
    p.kept = axes_of(r->kept_n, r->kept_shape, r->kept_stride);
    p.reduced = axes_of(r->reduced_n, r->reduced_shape, r->reduced_stride);
    p.outputs = count_of(r->kept_n, r->kept_shape);
    p.n = count_of(r->reduced_n, r->reduced_shape);
    const int64_t kept = r->kept_n ? llabs(r->kept_stride[r->kept_n - 1]) : INT64_MAX;
    const int64_t reduced = r->reduced_n ? llabs(r->reduced_stride[r->reduced_n - 1]) : INT64_MAX;
    p.across = p.outputs > 1 && kept > 0 && kept < reduced;
    p.packs = !p.across && reduced == 1 && r->reduced_stride[r->reduced_n - 1] == 1
           && (uintptr_t)r->in % (uintptr_t)(item * width) == 0;
    for (int d = 0; d < r->kept_n; d++) p.packs &= r->kept_shape[d] == 1 || r->kept_stride[d] % width == 0;
    for (int d = 0; d < r->reduced_n - 1; d++) p.packs &= r->reduced_stride[d] % width == 0;
    if (r->reduced_n > 1) p.packs &= r->reduced_shape[r->reduced_n - 1] % width == 0;
    p.lanes = 1;
    if (p.across) {
        int columns = BLOCK;
        while (columns > 32 && (p.n >= BLOCK / columns * 2 * 4 || columns / 2 >= p.outputs)) columns /= 2;
        while (columns > 1 && columns / 2 >= p.outputs) columns /= 2;
        p.lanes = BLOCK / columns;
    } else {
        while (p.lanes < 32 && p.lanes * width < p.n) p.lanes *= 2;
        while (p.lanes >= 32 && p.lanes < BLOCK && (int64_t)p.lanes * 2 * group <= p.n) p.lanes *= 2;
    }
    const int64_t blocks = (p.outputs + BLOCK / p.lanes - 1) / (BLOCK / p.lanes),
                  share = (int64_t)p.lanes * group;
    int64_t splits = smaller(smaller((FILL + blocks - 1) / blocks, p.n / share), MOST_SPLITS);
    if (splits < 1) splits = 1;
    p.per_split = up_to_multiple((p.n + splits - 1) / splits, share);
    if (splits == 1) p.per_split = p.n;
    p.splits = splits == 1 ? 1 : (int)((p.n + p.per_split - 1) / p.per_split);
    return p;
}

template <class A>
static void launch_join(const pg_context *c, const settings &s, int64_t outputs, int splits,
                        const A *partials) {
    int columns = 32;
    while (columns > 1 && columns / 2 >= outputs) columns /= 2;
    PG_LAUNCH((join_splits<A>), blocks_for(outputs, columns), BLOCK, BLOCK * sizeof(A), c, outputs, splits,
              BLOCK / columns, s, partials);
}

/* Whether r is the sums of a matrix's columns in packs. */
static bool by_columns(const pg_reduction *r, int item) {
    const int width = 16 / item;
    return r->kept_n == 1 && r->reduced_n == 1 && r->kept_stride[0] == 1 && r->kept_shape[0] % width == 0
        && r->reduced_stride[0] % width == 0 && r->reduced_stride[0] != 0 && aligned16(r->in)
        && r->reduced_shape[0] >= 16;
}
template <class C, class T>
static int run_columns(const pg_context *c, const settings &s, const pg_reduction *r) {
    constexpr int V = 16 / (int)sizeof(T), GROUP = 8, MOST = 396;   /* 3 on each of 132 multiprocessors */
    const int64_t columns = r->kept_shape[0], rows = r->reduced_shape[0];
    int across = 32;
    while (across > 1 && across / 2 * V >= columns) across /= 2;
    const int64_t blocks = (columns + across * V - 1) / (across * V), share = BLOCK / across * GROUP;
    int64_t splits = smaller((MOST + blocks - 1) / blocks, (rows + share - 1) / share);
    const int64_t per_split = (rows + splits - 1) / splits;
    splits = (rows + per_split - 1) / per_split;
    sum<C> *partials = NULL;
    if (splits > 1) {
        partials = (sum<C> *)c->scratch(c, (size_t)(columns * splits) * sizeof *partials);
        if (!partials) return PG_KERNEL_NO_SCRATCH;
    }
    PG_LAUNCH((sum_columns<C, T>), dim3((unsigned)blocks, (unsigned)splits), BLOCK,
              BLOCK * V * sizeof(total_t<C>), c, rows, columns, r->reduced_stride[0], per_split, across,
              splits > 1, s, (const T *)r->in, partials);
    if (splits > 1) launch_join(c, s, columns, (int)splits, (const sum<C> *)partials);
    return launched();
}

template <class A, class C, class T>
static int run(const pg_context *c, const settings &s, const pg_reduction *r) {
    constexpr int V = sizeof(T) == 1 ? 8 : 16 / (int)sizeof(T), GROUP = (V == 8 ? 2 : 4) * V;
    const plan p = plan_of(r, (int)sizeof(T), V, GROUP);
    const size_t shared = BLOCK * sizeof(A);
    A *partials = NULL;
    if (p.splits > 1) {
        partials = (A *)c->scratch(c, (size_t)(p.outputs * p.splits) * sizeof(A));
        if (!partials) return PG_KERNEL_NO_SCRATCH;
    }
    const dim3 grid(blocks_for(p.outputs, BLOCK / p.lanes), (unsigned)p.splits);
    PG_LAUNCH((reduce_elements<A, C, T>), grid, BLOCK, shared, c, p, s, (const T *)r->in, partials);
    if (p.splits > 1) launch_join(c, s, p.outputs, p.splits, (const A *)partials);
    return launched();
}

template <class C, class T> static int run_op(const pg_context *c, const settings &s, const pg_reduction *r) {
    switch (s.op) {
    case PG_K_REDUCE_SUM: case PG_K_REDUCE_MEAN:
        if constexpr (!std::is_integral_v<C>)
            if (by_columns(r, (int)sizeof(T))) return run_columns<C, T>(c, s, r);
        return run<sum<C>, C, T>(c, s, r);
    case PG_K_REDUCE_PROD: return run<product<C>, C, T>(c, s, r);
    case PG_K_REDUCE_AMAX: case PG_K_REDUCE_AMIN: return run<extremum<C>, C, T>(c, s, r);
    case PG_K_REDUCE_MAX: case PG_K_REDUCE_MIN: case PG_K_REDUCE_ARGMAX: case PG_K_REDUCE_ARGMIN:
        return run<placed<C>, C, T>(c, s, r);
    case PG_K_REDUCE_ALL: case PG_K_REDUCE_ANY: return run<truth<C>, C, T>(c, s, r);
    default: break;
    }
    if constexpr (!std::is_integral_v<C>) {
        switch (s.op) {
        case PG_K_REDUCE_VAR: return run<spread<C>, C, T>(c, s, r);
        case PG_K_REDUCE_NORM: return run<p_norm<C>, C, T>(c, s, r);
        case PG_K_REDUCE_LOGSUMEXP: return run<exponentials<C>, C, T>(c, s, r);
        default: break;
        }
    }
    return PG_KERNEL_UNSUPPORTED;
}

static int norm_of(double order) {
    return order == 2 ? NORM_SQUARES : order == 1 ? NORM_ABSOLUTES : order == 0 ? NORM_NONZEROS
         : order == (double)INFINITY ? NORM_LARGEST : order == -(double)INFINITY ? NORM_SMALLEST : NORM_POWERS;
}

extern "C" int PG_K(reduce)(const pg_context *c, int op, int dtype, const pg_reduction *r) {
    if ((unsigned)op >= PG_K_REDUCE_COUNT || (unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (dtype < PG_K_FLOAT16 && op == PG_K_REDUCE_MEAN) return PG_KERNEL_UNSUPPORTED;
    if (count_of(r->kept_n, r->kept_shape) == 0) return PG_KERNEL_OK;
    settings s = {};
    s.op = op;
    s.dtype = dtype;
    s.least = op == PG_K_REDUCE_AMIN || op == PG_K_REDUCE_MIN || op == PG_K_REDUCE_ARGMIN;
    s.p0 = r->p0;
    s.norm = norm_of(r->p0);
    s.n = count_of(r->reduced_n, r->reduced_shape);
    s.out = r->out;
    s.out2 = r->out2;
    switch (dtype) {
    case PG_K_BOOL: case PG_K_UINT8: return run_op<int64_t, uint8_t>(c, s, r);
    case PG_K_INT8: return run_op<int64_t, int8_t>(c, s, r);
    case PG_K_INT16: return run_op<int64_t, int16_t>(c, s, r);
    case PG_K_INT32: return run_op<int64_t, int32_t>(c, s, r);
    case PG_K_INT64: return run_op<int64_t, int64_t>(c, s, r);
    case PG_K_FLOAT16: return run_op<float, __half>(c, s, r);
    case PG_K_BFLOAT16: return run_op<float, __nv_bfloat16>(c, s, r);
    case PG_K_FLOAT32: return run_op<float, float>(c, s, r);
    default: return run_op<double, double>(c, s, r);
    }
}
