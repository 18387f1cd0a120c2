/* scan.cu: running sums along the middle dimension of (outer, n, inner). Floats accumulate in double,
 * integers wrap.
 *
 * The n elements of a line are cut into chunks, as the shape alone decides. inner == 1 and lines that are not
 * short: a block takes a chunk by tiles, thread by thread ITEMS neighbours (packs of 16 bytes where all is
 * aligned), and adds up over the block by shuffles. Else neighbouring threads take neighbouring lines, each
 * walking its chunk. Lines of more than one chunk take three launches: the chunks' sums, their running sums,
 * the scan that starts from them. Bound by memory: one read and one write of each element, and a second read
 * where there are several chunks (from the L2 cache where all fits there): 12 bytes an element of float32. A
 * block of scan_line has 8 KiB or more of reads under way and 4 or more run on a multiprocessor. */
#include "packs.h"

enum { BLOCK = 256, ITEMS = 8, TILE = BLOCK * ITEMS, WARPS = BLOCK / 32 };
enum { SHORTEST_LINE = 8192, SHORTEST_ACROSS = 64 };     /* chunks */

template <class T> struct sum_of { typedef uint64_t type; };
template <> struct sum_of<float> { typedef double type; };
template <> struct sum_of<double> { typedef double type; };
template <> struct sum_of<__half> { typedef double type; };
template <> struct sum_of<__nv_bfloat16> { typedef double type; };

template <class T> static __device__ __forceinline__ typename sum_of<T>::type widened(T x) {
    return (typename sum_of<T>::type)load_as(x);
}
template <class T> static __device__ __forceinline__ T rounded(typename sum_of<T>::type x) {
    return store_as<T>((compute_t<T>)x);
}

/* The sum of the threads before this one; *all is the whole block's. */
template <class A> static __device__ __forceinline__ A sum_before(A mine, A *all) {
    __shared__ A warp[WARPS];
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    A sum = mine;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        const A below = __shfl_up_sync(~0u, sum, d);
        if (lane >= d) sum += below;
    }
    const A before = __shfl_up_sync(~0u, sum, 1);
    __syncthreads();                       /* whoever read it last time has done so */
    if (lane == 31) warp[w] = sum;
    __syncthreads();
    A others = 0, total = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        if (i == w) others = total;
        total += warp[i];
    }
    *all = total;
    return others + (lane ? before : 0);
}

/* inner == 1. Block b: chunk b % chunks of line b / chunks. sums (lines, chunks): what is before each chunk,
 * or NULL for a single chunk; with out NULL the chunks' own sums go there. */
template <class T> static __global__ void __launch_bounds__(BLOCK)
scan_line(int64_t n, int64_t chunk, unsigned chunks, bool packs, const T *in, T *out,
          typename sum_of<T>::type *sums) {
    typedef typename sum_of<T>::type A;
    const int64_t line = blockIdx.x / chunks, first = blockIdx.x % chunks * chunk;
    const int64_t end = first + chunk < n ? first + chunk : n;
    const T *from = in + line * n;
    T *to = out ? out + line * n : NULL;
    A before = out && sums ? sums[blockIdx.x] : 0;
    for (int64_t tile = first; tile < end; tile += TILE) {
        const int64_t i = tile + threadIdx.x * ITEMS;
        const bool whole = packs && i + ITEMS <= end;
        pack<T, ITEMS> raw;
        A x[ITEMS], mine = 0, all;
        if (whole) read_pack(from + i, raw);
#pragma unroll
        for (int k = 0; k < ITEMS; k++) {
            if (!whole) raw.v[k] = i + k < end ? from[i + k] : store_as<T>(0);
            mine += widened(raw.v[k]);
            x[k] = mine;
        }
        const A start = before + sum_before(mine, &all);
        before += all;
        if (!out) continue;
#pragma unroll
        for (int k = 0; k < ITEMS; k++) raw.v[k] = rounded<T>(start + x[k]);
        if (whole) {
            write_pack(to + i, raw);
        } else {
#pragma unroll
            for (int k = 0; k < ITEMS; k++)
                if (i + k < end) to[i + k] = raw.v[k];
        }
    }
    if (!out && threadIdx.x == 0) sums[blockIdx.x] = before;
}

/* Thread u: line u % lines (outer, inner), chunk u / lines. sums (chunks, lines). */
template <class T> static __global__ void __launch_bounds__(BLOCK)
scan_across(int64_t lines, int64_t n, int64_t inner, int64_t chunk, unsigned chunks, const T *in, T *out,
            typename sum_of<T>::type *sums) {
    typedef typename sum_of<T>::type A;
    const int64_t u = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (u >= lines * chunks) return;
    const int64_t line = u % lines, first = u / lines * chunk, end = first + chunk < n ? first + chunk : n;
    const int64_t base = line / inner * n * inner + line % inner;
    A sum = out && sums ? sums[u] : 0;
#pragma unroll 8
    for (int64_t i = first; i < end; i++) {
        sum += widened(in[base + i * inner]);
        if (out) out[base + i * inner] = rounded<T>(sum);
    }
    if (!out) sums[u] = sum;
}

/* Each chunk's sum becomes what is before it in its line; that of chunk k, line l: l line_step + k step. A
 * block a line: walked by one thread a line of many chunks would take longer than all else. */
template <class A> static __global__ void __launch_bounds__(BLOCK)
scan_sums(unsigned chunks, int64_t line_step, int64_t step, A *sums) {
    A *const line = sums + blockIdx.x * line_step;
    A before = 0;
    for (unsigned first = 0; first < chunks; first += BLOCK * ITEMS) {
        const unsigned k = first + threadIdx.x * ITEMS;
        A x[ITEMS], mine = 0, all;
#pragma unroll
        for (int i = 0; i < ITEMS; i++) x[i] = k + i < chunks ? line[(k + i) * step] : 0;
#pragma unroll
        for (int i = 0; i < ITEMS; i++) mine += x[i];
        A sum = before + sum_before(mine, &all);
        before += all;
#pragma unroll
        for (int i = 0; i < ITEMS; i++) {
            if (k + i < chunks) line[(k + i) * step] = sum;
            sum += x[i];
        }
    }
}

template <class T>
static int scan(const pg_context *c, int64_t outer, int64_t n, int64_t inner, const T *in, T *out) {
    typedef typename sum_of<T>::type A;
    const int64_t lines = outer * inner;
    /* chunks: one where lines alone occupy the device, else as many as do, none too short */
    const bool by_block = inner == 1 && n > SHORTEST_ACROSS;
    const int64_t wanted =
        by_block ? 1024 / (lines < 1024 ? lines : 1024) : 65536 / (lines < 65536 ? lines : 65536);
    const int64_t shortest = by_block ? SHORTEST_LINE : SHORTEST_ACROSS;
    int64_t chunk = (n + wanted - 1) / wanted;
    if (chunk < shortest) chunk = shortest;
    chunk = (chunk + ITEMS - 1) / ITEMS * ITEMS;
    const unsigned chunks = (unsigned)((n + chunk - 1) / chunk);
    const bool packs = aligned16(in) && aligned16(out) && (lines == 1 || n % ITEMS == 0);
    A *sums = NULL;
    if (chunks > 1) {
        sums = (A *)c->scratch(c, (size_t)lines * chunks * sizeof(A));
        if (!sums) return PG_KERNEL_NO_SCRATCH;
    }
    for (int pass = chunks > 1 ? 0 : 1; pass < 2; pass++) {
        T *to = pass ? out : NULL;
        if (by_block)
            PG_LAUNCH((scan_line<T>), (unsigned)(lines * chunks), BLOCK, 0, c, n, chunk, chunks, packs,
                      in, to, sums);
        else
            PG_LAUNCH((scan_across<T>), blocks_for(lines * chunks, BLOCK), BLOCK, 0, c, lines, n, inner,
                      chunk, chunks, in, to, sums);
        if (!pass)
            PG_LAUNCH((scan_sums<A>), (unsigned)lines, BLOCK, 0, c, chunks,
                      by_block ? (int64_t)chunks : (int64_t)1, by_block ? (int64_t)1 : lines, sums);
    }
    return launched();
}

extern "C" int PG_K(scan)(const pg_context *c, int op, int dtype, int64_t outer, int64_t n, int64_t inner,
                          const void *in, void *out) {
    if (op != PG_K_REDUCE_SUM) return PG_KERNEL_UNSUPPORTED;
    if (outer * n * inner == 0) return PG_KERNEL_OK;
    PG_FOR_NUMBERS(dtype, return scan<T>(c, outer, n, inner, (const T *)in, (T *)out))
}
