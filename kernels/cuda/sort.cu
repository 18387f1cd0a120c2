/* sort.cu: stable sorting of rows, and the k best of them.
 *
 * Elements become unsigned keys whose order is theirs (NaN greatest, -0 equal to 0; complemented for
 * descending order), paired with their places. Rows of up to SHORT values are sorted by a bitonic network
 * in shared memory, one launch, bound by the network's log^2 n steps. Longer ones by digits of 8 bits,
 * least significant first, three launches a digit: count (reads the keys), add up the counts, and move
 * (reads pairs, writes pairs): 20 bytes an element and digit for keys of 32 bits, 80 in all for float32,
 * 40 for halves. Moves go through shared memory, where a tile of 4096 is put into order first, so that what
 * leaves are runs of 64 bytes on average; count is bound by reading (16 loads under way in each thread), move
 * by memory at 60 to 80 % of its bandwidth (2 blocks a multiprocessor, 128 registers). The k best: digits of
 * 8 bits, most significant first, narrow down the k-th key with counts in shared memory (a block a row; the
 * row is read once a digit and once to collect, from the L2 cache, 8 loads under way), and the k are sorted
 * in shared memory.
 */
#include "order.h"
#include "rows.h"

enum {
    SHORT = 2048,
    DIGITS = 256,
    SORT_THREADS = 256,
    SORT_WARPS = SORT_THREADS / WARP,
    TOP_THREADS = 512,
    TOP_MOST = 2048
};

/* ---- keys ---- */

namespace {

template <int SIZE> struct unsigned_of { typedef uint32_t type; };
template <> struct unsigned_of<8> { typedef uint64_t type; };
template <class T> using key_t_of = typename unsigned_of<sizeof(T)>::type;

template <class T> struct float_bits { static const bool is = false; };
template <> struct float_bits<__half> {
    static const bool is = true;
    static const uint64_t infinity = 0x7c00;
};
template <> struct float_bits<__nv_bfloat16> {
    static const bool is = true;
    static const uint64_t infinity = 0x7f80;
};
template <> struct float_bits<float> {
    static const bool is = true;
    static const uint64_t infinity = 0x7f800000;
};
template <> struct float_bits<double> {
    static const bool is = true;
    static const uint64_t infinity = UINT64_C(0x7ff) << 52;
};

template <class T> struct keys {
    typedef key_t_of<T> K;
    static const int bits = 8 * (int)sizeof(T);
    static const K all = (K)(~(K)0 >> (8 * (int)sizeof(K) - bits)), sign = (K)1 << (bits - 1);

    static __device__ __forceinline__ K of(T x) {
        K u = 0;
        memcpy(&u, &x, sizeof x);
        if constexpr (float_bits<T>::is) {
            if ((u & ~sign) > (K)float_bits<T>::infinity) return all;
            if (u == sign) u = 0;
            return u & sign ? ~u & all : u | sign;
        } else {
            return std::is_signed<T>::value ? u ^ sign : u;
        }
    }
    /* The value that has this key; where several have it, the one that is there. */
    static __device__ __forceinline__ T value(K key, const T *there) {
        K u = key;
        if constexpr (float_bits<T>::is) {
            if (key == all || key == sign) return *there;
            u = key & sign ? key & ~sign : ~key & all;
        } else if (std::is_signed<T>::value) {
            u = key ^ sign;
        }
        T x;
        memcpy(&x, &u, sizeof x);
        return x;
    }
};

}

/* ---- in shared memory ---- */

template <class K>
static __device__ __forceinline__ bool after(K key_a, uint32_t at_a, K key_b, uint32_t at_b) {
    return key_a > key_b || (key_a == key_b && at_a > at_b);
}
/* Sorts `size` pairs, a power of two; every thread of the block calls, `threads` of them for this row. */
template <class K>
static __device__ void sort_shared(K *key, uint32_t *at, int size, int thread, int threads) {
    for (int run = 2; run <= size; run *= 2)
        for (int reach = run / 2; reach > 0; reach /= 2) {
            __syncthreads();
            for (int t = thread; t < size / 2; t += threads) {
                const int low = 2 * t - (t & (reach - 1)), high = low + reach;
                const K key_low = key[low], key_high = key[high];
                const uint32_t at_low = at[low], at_high = at[high];
                if (after(key_low, at_low, key_high, at_high) == ((low & run) == 0)) {
                    key[low] = key_high, key[high] = key_low;
                    at[low] = at_high, at[high] = at_low;
                }
            }
        }
    __syncthreads();
}

/* What goes out: the first k of each row. */
template <class T> struct sorted {
    const T *in;
    T *values;            /* or NULL */
    int64_t *indices;
    int64_t n, k;
    key_t_of<T> flip;     /* all ones for descending order */
};
template <class T>
static __device__ __forceinline__ void put_sorted(const sorted<T> &s, int64_t row, int64_t i, key_t_of<T> key,
                                                  uint32_t at) {
    s.indices[row * s.k + i] = at;
    if (s.values) s.values[row * s.k + i] = keys<T>::value(key ^ s.flip, s.in + row * s.n + at);
}

/* Blocks of (threads of a row, rows); `size` is n's power of two. */
template <class T> static __global__ void sort_rows(int64_t rows, int size, sorted<T> s) {
    typedef key_t_of<T> K;
    PG_SHARED(K, shared);
    const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    K *key = shared + (size_t)threadIdx.y * size;
    uint32_t *at = (uint32_t *)(shared + (size_t)blockDim.y * size) + (size_t)threadIdx.y * size;
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const bool is = row < rows && i < s.n;
        key[i] = is ? keys<T>::of(s.in[row * s.n + i]) ^ s.flip : (K)~(K)0;
        at[i] = is ? (uint32_t)i : UINT32_MAX;
    }
    sort_shared(key, at, size, threadIdx.x, blockDim.x);
    if (row >= rows) return;
    for (int i = threadIdx.x; i < s.k; i += blockDim.x) put_sorted(s, row, i, key[i], at[i]);
}
/* The same for keys as they are, in place. */
template <class K>
static __global__ void order_rows(int64_t rows, int n, int size, K *keys_in, uint32_t *places) {
    PG_SHARED(K, shared);
    const int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    K *key = shared + (size_t)threadIdx.y * size;
    uint32_t *at = (uint32_t *)(shared + (size_t)blockDim.y * size) + (size_t)threadIdx.y * size;
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const bool is = row < rows && i < n;
        key[i] = is ? keys_in[row * n + i] : (K)~(K)0;
        at[i] = is ? (uint32_t)i : UINT32_MAX;
    }
    sort_shared(key, at, size, threadIdx.x, blockDim.x);
    if (row >= rows) return;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        keys_in[row * n + i] = key[i];
        places[row * n + i] = at[i];
    }
}

typedef struct short_shape { int size; dim3 block; unsigned grid; size_t shared; } short_shape;
static short_shape shape_short(int64_t rows, int64_t n, size_t key_bytes) {
    short_shape s;
    s.size = 2;
    while (s.size < n) s.size *= 2;
    const unsigned x = s.size / 2 < SORT_THREADS ? (unsigned)s.size / 2 : (unsigned)SORT_THREADS;
    unsigned y = 1;
    while (x * y < SORT_THREADS && y < rows) y *= 2;
    s.block = dim3(x, y);
    s.grid = blocks_for(rows, y, INT64_MAX);
    s.shared = (size_t)y * s.size * (key_bytes + sizeof(uint32_t));
    return s;
}

/* ---- by digits ---- */

template <class K> struct tile {
    static const int ITEMS = sizeof(K) == 4 ? 16 : 8, SIZE = ITEMS * SORT_THREADS;
};

/* counts (rows, DIGITS, tiles): how often each digit stands in each tile. Blocks of (tile, row). */
template <class K>
static __global__ __launch_bounds__(SORT_THREADS) void count_digits(int64_t n, int64_t tiles, int shift,
                                                                    const K *key, uint32_t *counts) {
    __shared__ uint32_t count[DIGITS];
    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        count[threadIdx.x] = 0;
        __syncthreads();
        const K *from = key + blockIdx.y * n + t * tile<K>::SIZE;
        const int64_t left = n - t * tile<K>::SIZE;
        K mine[tile<K>::ITEMS];
#pragma unroll
        for (int j = 0; j < tile<K>::ITEMS; j++) {
            const int i = j * SORT_THREADS + (int)threadIdx.x;
            if (i < left) mine[j] = from[i];
        }
#pragma unroll
        for (int j = 0; j < tile<K>::ITEMS; j++)
            if (j * SORT_THREADS + (int)threadIdx.x < left)
                atomicAdd(&count[mine[j] >> shift & (DIGITS - 1)], 1u);
        __syncthreads();
        counts[((int64_t)blockIdx.y * DIGITS + threadIdx.x) * tiles + t] = count[threadIdx.x];
    }
}

/* The sum of the lanes before this one; *all: of all lanes. */
template <class C> static __device__ __forceinline__ C warp_before(C x, C *all) {
    C sum = x;
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        const C other = __shfl_up_sync(PG_FULL_MASK, sum, step);
        if (lane >= step) sum += other;
    }
    *all = __shfl_sync(PG_FULL_MASK, sum, WARP - 1);
    return sum - x;
}
/* The sum of the threads before this one, in a block of SORT_THREADS. */
template <class C> static __device__ __forceinline__ C block_before(C x) {
    __shared__ C warps[SORT_WARPS];
    C all;
    C sum = warp_before(x, &all);
    __syncthreads();
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = all;
    __syncthreads();
    for (int w = 0; w < (int)threadIdx.x / WARP; w++) sum += warps[w];
    return sum;
}

/* A warp a digit: each count becomes the sum of those of the tiles before; totals (rows, DIGITS) the sum
 * of all. A lane takes EACH neighbours at once: 16 million elements are 4096 tiles, 16 steps. */
static __global__ __launch_bounds__(SORT_THREADS) void add_counts(int64_t tiles, uint32_t *counts,
                                                                  uint32_t *totals) {
    enum { EACH = 8 };
    const int64_t digit = ((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * SORT_WARPS + threadIdx.x / WARP;
    uint32_t *count = counts + digit * tiles, before = 0;
    for (int64_t first = 0; first < tiles; first += EACH * WARP) {
        const int64_t t = first + threadIdx.x % WARP * EACH;
        uint32_t x[EACH], own = 0, all;
#pragma unroll
        for (int i = 0; i < EACH; i++) x[i] = t + i < tiles ? count[t + i] : 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) own += x[i];
        uint32_t sum = before + warp_before(own, &all);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            if (t + i < tiles) count[t + i] = sum;
            sum += x[i];
        }
        before += all;
    }
    if (threadIdx.x % WARP == 0) totals[digit] = before;
}

/* The lanes whose digit is this lane's; `is`: this lane has one. */
static __device__ __forceinline__ unsigned same_digit(unsigned digit, bool is) {
    unsigned same = __ballot_sync(PG_FULL_MASK, is);
#pragma unroll
    for (int bit = 0; bit < 8; bit++) {
        const bool set = digit >> bit & 1;
        const unsigned with = __ballot_sync(PG_FULL_MASK, set);
        same &= set ? with : ~with;
    }
    return same;
}

/* Pairs to where their digit says. at NULL: places are still 0, 1, 2, ... A warp takes consecutive items,
 * so that a rank within its digit follows from the lanes before, the steps before, the warps before and
 * the tiles before. */
template <class K>
static __global__
__launch_bounds__(SORT_THREADS) void move_pairs(int64_t n, int64_t tiles, int shift, const uint32_t *counts,
                                                const uint32_t *totals, const K *key, const uint32_t *at,
                                                K *key_out, uint32_t *at_out) {
    enum { ITEMS = tile<K>::ITEMS, SIZE = tile<K>::SIZE };
    __shared__ uint32_t rank[SORT_WARPS][DIGITS], start[DIGITS], target[DIGITS], places[SIZE];
    __shared__ K sorted_keys[SIZE];
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int64_t row = (int64_t)blockIdx.y * n, digit_row = (int64_t)blockIdx.y * DIGITS + threadIdx.x;
    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        const int64_t first = t * SIZE;
        const int many = n - first < SIZE ? (int)(n - first) : (int)SIZE;
        K mine[ITEMS];
        uint32_t place[ITEMS], own[ITEMS];
        for (int w = 0; w < SORT_WARPS; w++) rank[w][threadIdx.x] = 0;
#pragma unroll
        for (int j = 0; j < ITEMS; j++) {
            const int i = warp * WARP * ITEMS + j * WARP + lane;
            mine[j] = i < many ? key[row + first + i] : (K)0;
            place[j] = i < many ? (at ? at[row + first + i] : (uint32_t)(first + i)) : 0;
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < ITEMS; j++) {
            const bool is = warp * WARP * ITEMS + j * WARP + lane < many;
            const unsigned digit = (unsigned)(mine[j] >> shift) & (DIGITS - 1), same = same_digit(digit, is);
            const unsigned before = same & ((1u << lane) - 1);
            const uint32_t so_far = rank[warp][digit];
            own[j] = so_far + __popc(before);
            __syncwarp();
            if (is && before == 0) rank[warp][digit] = so_far + __popc(same);
            __syncwarp();
        }
        __syncthreads();
        /* A thread a digit now. */
        uint32_t count = 0;
        for (int w = 0; w < SORT_WARPS; w++) {
            const uint32_t x = rank[w][threadIdx.x];
            rank[w][threadIdx.x] = count;
            count += x;
        }
        const uint64_t sums = block_before((uint64_t)totals[digit_row] << 32 | count);
        start[threadIdx.x] = (uint32_t)sums;
        target[threadIdx.x] = (uint32_t)(sums >> 32) + counts[digit_row * tiles + t];
        __syncthreads();
#pragma unroll
        for (int j = 0; j < ITEMS; j++) {
            if (warp * WARP * ITEMS + j * WARP + lane >= many) continue;
            const unsigned digit = (unsigned)(mine[j] >> shift) & (DIGITS - 1);
            const uint32_t to = start[digit] + rank[warp][digit] + own[j];
            sorted_keys[to] = mine[j];
            places[to] = place[j];
        }
        __syncthreads();
        for (int i = threadIdx.x; i < many; i += SORT_THREADS) {
            const unsigned digit = (unsigned)(sorted_keys[i] >> shift) & (DIGITS - 1);
            const int64_t to = row + target[digit] + (i - start[digit]);
            key_out[to] = sorted_keys[i];
            at_out[to] = places[i];
        }
        __syncthreads();
    }
}

enum { GRID_ROWS = 65535 };   /* what blockIdx.y can count */

/* Rows first..first + rows of pairs, from key to key, at, or to spare_key, spare_at; *swapped says where
 * they are. */
template <class K>
static int order_by_digits(const pg_context *c, int bits, int64_t rows, int64_t n, K *key, uint32_t *at,
                           K *spare_key, uint32_t *spare_at, uint32_t *counts, bool *swapped) {
    const int64_t tiles = (n + tile<K>::SIZE - 1) / tile<K>::SIZE;
    uint32_t *totals = counts + rows * DIGITS * tiles;
    const dim3 grid(blocks_for(tiles, 1), (unsigned)rows);
    K *from = key, *to = spare_key;
    uint32_t *from_at = NULL, *to_at = spare_at, *other_at = at;
    *swapped = false;
    for (int shift = 0; shift < bits; shift += 8) {
        PG_LAUNCH((count_digits<K>), grid, SORT_THREADS, 0, c, n, tiles, shift, (const K *)from, counts);
        PG_LAUNCH((add_counts), dim3(DIGITS / SORT_WARPS, (unsigned)rows), SORT_THREADS, 0, c, tiles, counts,
                  totals);
        PG_LAUNCH((move_pairs<K>), grid, SORT_THREADS, 0, c, n, tiles, shift, (const uint32_t *)counts,
                  (const uint32_t *)totals, (const K *)from, (const uint32_t *)from_at, to, to_at);
        K *k = from;
        from = to, to = k;
        from_at = to_at, to_at = other_at, other_at = from_at;
        *swapped = !*swapped;
    }
    return launched();
}

template <class K>
static int order_any(const pg_context *c, int bits, int64_t rows, int64_t n, K *key, pg_ordering *out) {
    const size_t count = (size_t)rows * (size_t)n;
    if (bits < 1) bits = 1;
    if (n <= SHORT) {
        uint32_t *at = (uint32_t *)c->scratch(c, (count + 1) * sizeof *at);
        if (!at) return PG_KERNEL_NO_SCRATCH;
        const short_shape s = shape_short(rows, n, sizeof(K));
        PG_LAUNCH((order_rows<K>), s.grid, s.block, s.shared, c, rows, (int)n, s.size, key, at);
        out->key = key;
        out->at = at;
        return launched();
    }
    const int64_t tiles = (n + tile<K>::SIZE - 1) / tile<K>::SIZE,
                  part = rows < GRID_ROWS ? rows : (int64_t)GRID_ROWS;
    K *spare = (K *)c->scratch(c, count * sizeof *spare);
    uint32_t *at = (uint32_t *)c->scratch(c, 2 * count * sizeof *at);
    uint32_t *counts =
        (uint32_t *)c->scratch(c, (size_t)part * DIGITS * (size_t)(tiles + 1) * sizeof *counts);
    if (!spare || !at || !counts) return PG_KERNEL_NO_SCRATCH;
    bool swapped = false;
    for (int64_t row = 0; row < rows; row += part) {
        const int64_t many = rows - row < part ? rows - row : part;
        const int status = order_by_digits<K>(c, bits, many, n, key + row * n, at + row * n, spare + row * n,
                                              at + count + row * n, counts, &swapped);
        if (status) return status;
    }
    out->key = swapped ? spare : key;
    out->at = swapped ? at + count : at;
    return PG_KERNEL_OK;
}

int pg_order_cuda(const pg_context *c, int bytes, int bits, int64_t rows, int64_t n, void *key,
                  pg_ordering *out) {
    if (n >= UINT32_MAX) return PG_KERNEL_UNSUPPORTED;
    if (bytes == 4) return order_any(c, bits, rows, n, (uint32_t *)key, out);
    return order_any(c, bits, rows, n, (uint64_t *)key, out);
}

/* ---- the k best of long rows ---- */

/* use(i, key) for each of a row's keys, a thread's next TOP_AHEAD loaded before the first of them is used. */
template <class T, class Use> static __device__ __forceinline__ void each_key(const sorted<T> &s, const T *in,
                                                                              const Use &use) {
    enum { TOP_AHEAD = 8 };
    for (int64_t first = threadIdx.x; first < s.n; first += TOP_AHEAD * TOP_THREADS) {
        T x[TOP_AHEAD];
#pragma unroll
        for (int j = 0; j < TOP_AHEAD; j++)
            if (first + j * TOP_THREADS < s.n) x[j] = in[first + j * TOP_THREADS];
#pragma unroll
        for (int j = 0; j < TOP_AHEAD; j++)
            if (first + j * TOP_THREADS < s.n) use(first + j * TOP_THREADS, keys<T>::of(x[j]) ^ s.flip);
    }
}

template <class T> static __global__ __launch_bounds__(TOP_THREADS) void select_top(int size, sorted<T> s) {
    typedef key_t_of<T> K;
    __shared__ uint32_t count[DIGITS], chosen, left, found, warp_ties[TOP_THREADS / WARP];
    PG_SHARED(K, key);
    uint32_t *at = (uint32_t *)(key + size);
    const T *in = s.in + blockIdx.x * s.n;
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    K best = 0;                             /* the k-th key, its digits from the top */
    /* How many are wanted of those that begin with `best`, and how many there are. */
    uint32_t need = (uint32_t)s.k, ties = 0;
    for (int shift = keys<T>::bits - 8; shift >= 0; shift -= 8) {
        if (threadIdx.x < DIGITS) count[threadIdx.x] = 0;
        __syncthreads();
        const K above = (K)(keys<T>::all & ~(((K)DIGITS << shift) - 1));   /* 0 for the first digit */
        each_key(s, in, [&](int64_t, K x) {
            if ((x & above) == best) atomicAdd(&count[x >> shift & (DIGITS - 1)], 1u);
        });
        __syncthreads();
        if (warp == 0) {
            uint32_t own = 0, all;
            for (int d = 0; d < DIGITS / WARP; d++) own += count[lane * (DIGITS / WARP) + d];
            uint32_t before = warp_before(own, &all);
            if (before < need && need <= before + own) {
                int d = lane * (DIGITS / WARP);
                while (before + count[d] < need) before += count[d++];
                chosen = (uint32_t)d;
                left = need - before;
            }
        }
        __syncthreads();
        best |= (K)chosen << shift;
        need = left;
        ties = count[chosen];
        __syncthreads();
    }
    if (threadIdx.x == 0) found = 0;
    for (int i = threadIdx.x; i < size; i += TOP_THREADS) {
        key[i] = (K)~(K)0;
        at[i] = UINT32_MAX;
    }
    __syncthreads();
    /* Sorting will order them: only where not all that equal the k-th are wanted, the first of those must
     * be known. */
    const bool all_ties = ties == need;
    each_key(s, in, [&](int64_t i, K x) {
        if (x < best || (all_ties && x == best)) {
            const uint32_t to = atomicAdd(&found, 1u);
            key[to] = x;
            at[to] = (uint32_t)i;
        }
    });
    if (!all_ties) {
        uint32_t taken = 0;
        for (int64_t first = 0; first < s.n && taken < need; first += TOP_THREADS) {
            const int64_t i = first + threadIdx.x;
            const bool tie = i < s.n && (K)(keys<T>::of(in[i]) ^ s.flip) == best;
            const unsigned lanes = __ballot_sync(PG_FULL_MASK, tie);
            if (lane == 0) warp_ties[warp] = __popc(lanes);
            __syncthreads();
            uint32_t before = taken + __popc(lanes & ((1u << lane) - 1));
            for (int w = 0; w < TOP_THREADS / WARP; w++) {
                if (w < warp) before += warp_ties[w];
                taken += warp_ties[w];
            }
            if (tie && before < need) {
                const uint32_t to = (uint32_t)s.k - need + before;
                key[to] = best;
                at[to] = (uint32_t)i;
            }
            __syncthreads();
        }
    }
    sort_shared(key, at, size, threadIdx.x, TOP_THREADS);
    for (int i = threadIdx.x; i < s.k; i += TOP_THREADS) put_sorted(s, blockIdx.x, i, key[i], at[i]);
}

/* ---- the entries ---- */

template <class T>
static __global__ void make_keys(int64_t n, const T *in, key_t_of<T> flip, key_t_of<T> *key) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        key[i] = keys<T>::of(in[i]) ^ flip;
}
template <class T>
static __global__ void put_rows(int64_t rows, sorted<T> s, const key_t_of<T> *key, const uint32_t *at) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * s.k;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / s.k, from = row * s.n + i % s.k;
        put_sorted(s, row, i % s.k, key[from], at[from]);
    }
}

template <class T> static int run_sort(const pg_context *c, int64_t rows, const sorted<T> &s) {
    typedef key_t_of<T> K;
    if (s.n <= SHORT) {
        const short_shape f = shape_short(rows, s.n, sizeof(K));
        PG_LAUNCH((sort_rows<T>), f.grid, f.block, f.shared, c, rows, f.size, s);
        return launched();
    }
    if (s.n >= UINT32_MAX) return PG_KERNEL_UNSUPPORTED;
    /* A few very long rows leave most of the machine idle if a block takes one. */
    if (s.k <= TOP_MOST && s.k < s.n && (rows >= 16 || s.n <= 1 << 18)) {
        int size = 2;
        while (size < s.k) size *= 2;
        PG_LAUNCH((select_top<T>), (unsigned)rows, TOP_THREADS, (size_t)size * (sizeof(K) + sizeof(uint32_t)),
                  c, size, s);
        return launched();
    }
    const int64_t count = rows * s.n;
    K *key = (K *)c->scratch(c, (size_t)count * sizeof *key);
    if (!key) return PG_KERNEL_NO_SCRATCH;
    PG_LAUNCH((make_keys<T>), blocks_for(count, 256), 256, 0, c, count, s.in, s.flip, key);
    pg_ordering o;
    const int status = pg_order_cuda(c, (int)sizeof(K), keys<T>::bits, rows, s.n, key, &o);
    if (status) return status;
    PG_LAUNCH((put_rows<T>), blocks_for(rows * s.k, 256), 256, 0, c, rows, s, (const K *)o.key, o.at);
    return launched();
}

static int sort_any(const pg_context *c, int dtype, int64_t rows, int64_t n, int64_t k, const void *in,
                    void *values, int64_t *indices, bool flip) {
    if (rows <= 0 || k <= 0) return PG_KERNEL_OK;
    PG_FOR_ALL(dtype, {
        const sorted<T> s = {(const T *)in, (T *)values, indices, n, k, flip ? keys<T>::all : 0};
        return run_sort<T>(c, rows, s);
    })
}

extern "C" int PG_K(sort)(const pg_context *c, int dtype, int64_t rows, int64_t n, const void *in,
                          void *values, int64_t *indices, bool descending) {
    return sort_any(c, dtype, rows, n, n, in, values, indices, descending);
}

extern "C" int PG_K(topk)(const pg_context *c, int dtype, int64_t rows, int64_t n, int64_t k, const void *in,
                          void *values, int64_t *indices, bool largest) {
    if (k > n) return PG_KERNEL_UNSUPPORTED;
    return sort_any(c, dtype, rows, n, k, in, values, indices, largest);
}
