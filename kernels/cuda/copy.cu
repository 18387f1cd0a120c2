/* copy.cu: elements from one layout and dtype to another, and fill.
 *
 * Conversions: to bool, whether it is not zero; between integers, the low bits; floats to integers truncated,
 * NaN 0, out of range the nearest of the 32- or 64-bit type (narrower types take the low bits of the 32-bit
 * result); wider floats to float16 and bfloat16 through float32.
 *
 * All are bound by memory: each element is read once and written once. Layouts: packs and strided elements
 * as in elementwise.h, and where the input is dense along one dimension and the output along another, tiles
 * through shared memory. */
#include <string.h>

#include "convert.h"
#include "elementwise.h"

/* ---- conversions ---- */

/* Pairs that models meet have a kernel each. The functor sees computing types: what it gives is rounded once
 * more by store_as. */
template <class O, class A> struct conversion : operands<1, O, A> {
    __device__ __forceinline__ compute_t<O> operator()(compute_t<A> a, compute_t<A>, compute_t<A>) const {
        if constexpr (std::is_floating_point_v<compute_t<A>> && std::is_integral_v<O>)
            return from_double<O>((double)a);
        else if constexpr (std::is_same_v<O, bool>) return a != 0;
        else return (compute_t<O>)a;
    }
};
template <class T> struct itself : operands<1, T> {
    __device__ __forceinline__ T operator()(T a, T, T) const { return a; }
};

/* The others: read by dtype as int64 or double, both exact, and written by dtype. */
struct any_pair { int to, from; };
static __global__ void __launch_bounds__(EACH_BLOCK) convert_any(const space s, const any_pair p) {
    const uint32_t first = blockIdx.x * (EACH_STEPS * EACH_BLOCK) + threadIdx.x;
#pragma unroll
    for (int u = 0; u < EACH_STEPS; u++) {
        const uint32_t i = first + (uint32_t)u * EACH_BLOCK;
        if (i >= s.count) break;
        int64_t at[2], x = 0;
        double y = 0;
        locate(s, i, at);
        switch (p.from) {
        case PG_K_BOOL: case PG_K_UINT8: x = ((const uint8_t *)s.data[1])[at[1]]; break;
        case PG_K_INT8: x = ((const int8_t *)s.data[1])[at[1]]; break;
        case PG_K_INT16: x = ((const int16_t *)s.data[1])[at[1]]; break;
        case PG_K_INT32: x = ((const int32_t *)s.data[1])[at[1]]; break;
        case PG_K_INT64: x = ((const int64_t *)s.data[1])[at[1]]; break;
        case PG_K_FLOAT16: y = load_as(((const __half *)s.data[1])[at[1]]); break;
        case PG_K_BFLOAT16: y = load_as(((const __nv_bfloat16 *)s.data[1])[at[1]]); break;
        case PG_K_FLOAT32: y = ((const float *)s.data[1])[at[1]]; break;
        default: y = ((const double *)s.data[1])[at[1]]; break;
        }
        const bool integer = p.from < PG_K_FLOAT16;
#define PUT(T) ((T *)s.data[0])[at[0]] = integer ? from_integer<T>(x) : from_double<T>(y); break
        switch (p.to) {
        case PG_K_BOOL: PUT(bool);
        case PG_K_UINT8: PUT(uint8_t);
        case PG_K_INT8: PUT(int8_t);
        case PG_K_INT16: PUT(int16_t);
        case PG_K_INT32: PUT(int32_t);
        case PG_K_INT64: PUT(int64_t);
        case PG_K_FLOAT16: PUT(__half);
        case PG_K_BFLOAT16: PUT(__nv_bfloat16);
        case PG_K_FLOAT32: PUT(float);
        default: PUT(double);
        }
#undef PUT
    }
}

/* ---- transposed: the input is dense along dimension p, the output along q ---- */

/* A tile's side: bytes enough under way in a thread where elements are small. */
enum { TILE_ROWS = 8 };
template <int ITEM> struct tile_of { static constexpr int SIDE = ITEM <= 2 ? 64 : 32; };

struct transposition {
    uint32_t p_size, q_size, p_tiles, q_tiles;
    int64_t to_p, from_q;              /* strides */
    space outer;                       /* what is left: operands 0 and 1 */
};

/* A tile of TILE x TILE: read along p, written along q, both coalesced; 4 bytes of padding keep the reads of
 * a warp in different banks. Bytes an element: its own twice; 16 KiB or more under way on a
 * multiprocessor for bytes, 32 for all others. */
template <class T> static __global__ void __launch_bounds__(32 * TILE_ROWS)
transpose_tiles(const transposition t) {
    constexpr int TILE = tile_of<(int)sizeof(T)>::SIDE, PAD = sizeof(T) < 4 ? 4 / (int)sizeof(T) : 1;
    __shared__ T tile[TILE][TILE + PAD];
    int64_t base[2];
    const uint32_t per_outer = t.p_tiles * t.q_tiles;
    const uint32_t o = blockIdx.x / per_outer, in_outer = blockIdx.x % per_outer;
    const uint32_t p0 = in_outer % t.p_tiles * TILE, q0 = in_outer / t.p_tiles * TILE;
    locate(t.outer, o, base);
    const T *from = (const T *)t.outer.data[1] + base[1];
    T *to = (T *)t.outer.data[0] + base[0];
#pragma unroll
    for (int i = 0; i < TILE; i += TILE_ROWS)
#pragma unroll
        for (int j = 0; j < TILE; j += 32) {
            const uint32_t q = q0 + threadIdx.y + i, p = p0 + threadIdx.x + j;
            if (q < t.q_size && p < t.p_size)
                tile[threadIdx.y + i][threadIdx.x + j] = from[q * t.from_q + p];
        }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; i += TILE_ROWS)
#pragma unroll
        for (int j = 0; j < TILE; j += 32) {
            const uint32_t p = p0 + threadIdx.y + i, q = q0 + threadIdx.x + j;
            if (q < t.q_size && p < t.p_size) to[p * t.to_p + q] = tile[threadIdx.x + j][threadIdx.y + i];
        }
}

static bool find_transpose(transposition *t, const pg_strided *s, int item) {
    int p = -1, q = -1;
    for (int d = 0; d < s->ndim; d++) {
        if (s->shape[d] < 4) continue;
        if (s->stride[1][d] == 1 && s->stride[0][d] != 1) p = d;
        if (s->stride[0][d] == 1 && s->stride[1][d] != 1 && s->stride[1][d] != 0) q = d;
    }
    if (p < 0 || q < 0 || count_of(s->ndim, s->shape) > INT32_MAX || s->shape[p] * s->shape[q] < 256)
        return false;
    t->p_size = (uint32_t)s->shape[p];
    t->q_size = (uint32_t)s->shape[q];
    const uint32_t tile = item <= 2 ? tile_of<2>::SIDE : tile_of<4>::SIDE;
    t->p_tiles = (t->p_size + tile - 1) / tile;
    t->q_tiles = (t->q_size + tile - 1) / tile;
    t->to_p = s->stride[0][p];
    t->from_q = s->stride[1][q];
    pg_strided outer = {};
    for (int d = 0; d < s->ndim; d++) {
        if (d == p || d == q) continue;
        outer.shape[outer.ndim] = s->shape[d];
        for (int k = 0; k < 2; k++) outer.stride[k][outer.ndim] = s->stride[k][d];
        outer.ndim++;
    }
    const int64_t none[4] = {0};
    const int items[4] = {item, item, item, item};
    for (int k = 0; k < 2; k++) outer.data[k] = s->data[k];
    t->outer = space_of(&outer, 1, 0, outer.ndim ? outer.shape[0] : 1, none, items);
    return true;
}

template <class T> static int move(const pg_context *c, const pg_strided *s) {
    transposition t;
    if (find_transpose(&t, s, (int)sizeof(T))) {
        PG_LAUNCH((transpose_tiles<T>), t.outer.count * t.p_tiles * t.q_tiles, dim3(32, TILE_ROWS), 0, c, t);
        return launched();
    }
    return each(c, s, itself<T>());
}

static int item_size(int dtype) {
    static const unsigned char sizes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
    return sizes[dtype];
}

/* Pieces of at most 2^31 - 1 elements, along the outermost dimension. */
static int move_any_pair(const pg_context *c, int to, int from, const pg_strided *s) {
    const any_pair pair = {to, from};
    const int item[4] = {item_size(to), item_size(from), 1, 1};
    const cuts k = cuts_of(c, s, 1);
    for (piece p = {}; next_piece(&k, s, &p);) {
        const space t = space_of(s, 1, k.dim, p.size, p.offset, item);
        PG_LAUNCH((convert_any), blocks_for(t.count, EACH_BLOCK * EACH_STEPS), EACH_BLOCK, 0, c, t, pair);
    }
    return launched();
}

extern "C" int PG_K(copy)(const pg_context *c, int to, int from, const pg_strided *s) {
    if ((unsigned)to > PG_K_FLOAT64 || (unsigned)from > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (count_of(s->ndim, s->shape) == 0) return PG_KERNEL_OK;
    if (to == from) {
        switch (item_size(to)) {
        case 1: return move<uint8_t>(c, s);
        case 2: return move<uint16_t>(c, s);
        case 4: return move<uint32_t>(c, s);
        default: return move<uint64_t>(c, s);
        }
    }
#define PAIR(to, from) ((to) * 16 + (from))
    switch (PAIR(to, from)) {
    case PAIR(PG_K_FLOAT32, PG_K_FLOAT16): return each(c, s, conversion<float, __half>());
    case PAIR(PG_K_FLOAT32, PG_K_BFLOAT16): return each(c, s, conversion<float, __nv_bfloat16>());
    case PAIR(PG_K_FLOAT32, PG_K_FLOAT64): return each(c, s, conversion<float, double>());
    case PAIR(PG_K_FLOAT32, PG_K_BOOL): return each(c, s, conversion<float, uint8_t>());
    case PAIR(PG_K_FLOAT32, PG_K_UINT8): return each(c, s, conversion<float, uint8_t>());
    case PAIR(PG_K_FLOAT32, PG_K_INT64): return each(c, s, conversion<float, int64_t>());
    case PAIR(PG_K_FLOAT16, PG_K_FLOAT32): return each(c, s, conversion<__half, float>());
    case PAIR(PG_K_FLOAT16, PG_K_BFLOAT16): return each(c, s, conversion<__half, __nv_bfloat16>());
    case PAIR(PG_K_BFLOAT16, PG_K_FLOAT32): return each(c, s, conversion<__nv_bfloat16, float>());
    case PAIR(PG_K_BFLOAT16, PG_K_FLOAT16): return each(c, s, conversion<__nv_bfloat16, __half>());
    case PAIR(PG_K_FLOAT64, PG_K_FLOAT32): return each(c, s, conversion<double, float>());
    case PAIR(PG_K_INT64, PG_K_BOOL): return each(c, s, conversion<int64_t, uint8_t>());
    case PAIR(PG_K_INT64, PG_K_INT32): return each(c, s, conversion<int64_t, int32_t>());
    case PAIR(PG_K_INT64, PG_K_UINT8): return each(c, s, conversion<int64_t, uint8_t>());
    case PAIR(PG_K_INT64, PG_K_FLOAT32): return each(c, s, conversion<int64_t, float>());
    case PAIR(PG_K_BOOL, PG_K_FLOAT32): return each(c, s, conversion<bool, float>());
    default: return move_any_pair(c, to, from, s);
    }
#undef PAIR
}

/* ---- fill: bound by what is written ---- */

template <class T> struct constantly : operands<0, T> {
    T value;
    __device__ __forceinline__ T operator()(T, T, T) const { return value; }
};

template <class T> static int fill_with(const pg_context *c, const pg_strided *s, uint64_t bits) {
    constantly<T> f = {};
    f.value = (T)bits;
    return each(c, s, f);
}
/* The constant is rounded to a half type on the device. */
template <class T> struct constantly_half : operands<0, T> {
    float value;
    __device__ __forceinline__ float operator()(float, float, float) const { return value; }
};

extern "C" int PG_K(fill)(const pg_context *c, int dtype, const pg_strided *s, pg_value value) {
    uint32_t narrow;
    uint64_t wide;
    const float single = (float)value.d;
    switch (dtype) {
    case PG_K_BOOL: return fill_with<uint8_t>(c, s, value.i != 0);
    case PG_K_UINT8: case PG_K_INT8: return fill_with<uint8_t>(c, s, (uint64_t)value.i);
    case PG_K_INT16: return fill_with<uint16_t>(c, s, (uint64_t)value.i);
    case PG_K_INT32: return fill_with<uint32_t>(c, s, (uint64_t)value.i);
    case PG_K_INT64: return fill_with<uint64_t>(c, s, (uint64_t)value.i);
    case PG_K_FLOAT32: memcpy(&narrow, &single, sizeof narrow); return fill_with<uint32_t>(c, s, narrow);
    case PG_K_FLOAT64: memcpy(&wide, &value.d, sizeof wide); return fill_with<uint64_t>(c, s, wide);
    case PG_K_FLOAT16: { constantly_half<__half> f = {}; f.value = single; return each(c, s, f); }
    case PG_K_BFLOAT16: { constantly_half<__nv_bfloat16> f = {}; f.value = single; return each(c, s, f); }
    default: return PG_KERNEL_UNSUPPORTED;
    }
}
