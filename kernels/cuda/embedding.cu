/* embedding.cu: rows fetched and rows added to by index.
 *
 * index_select is bound by memory: the index is read once a row, each row read and written once, in units
 * of up to 16 bytes, a warp's lanes beside each other: 85 to 95 % of copy bandwidth is what to expect
 * where rows have 64 bytes or more; rows of a few bytes are fetched in sectors of 32 and cost that.
 * index_add: the places are put into order (order.h), then one thread alone adds to an element, in the
 * order of the index as the CPU's kernel does: the same bits in every run, without atomics. index.cu adds:
 * 8 bytes a thread where rows are dense and of 2- or 4-byte floats, 768 threads on a multiprocessor, each
 * with one wait for keys and places and one for up to 4 terms: those two bound it, some 8 KiB for 1.3 us and
 * multiprocessor, rather than the bytes. A row that is added to very often is the tail of the launch: 16 of
 * its terms under way, some 60 ns a term.
 */
#include "order.h"
#include "rows.h"

typedef struct selection {
    int64_t outer, size, n_index, width;   /* width: units of a row */
    const int64_t *index;
    bool from_end;
    int64_t *bad;
    const char *op;
} selection;

/* Blocks of (threads of a row, rows). A row whose index is reported is filled with zeros. */
template <class V> static __global__ void select_rows(selection s, const V *in, V *out) {
    const int64_t rows = s.outer * s.n_index, stride = (int64_t)gridDim.x * blockDim.y;
    for (int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += stride) {
        const int64_t outer = s.outer == 1 ? 0 : row / s.n_index, j = row - outer * s.n_index;
        const int64_t at = resolve(s.index[j], s.size, s.from_end, s.bad, s.op);
        const V *from = in + (outer * s.size + at) * s.width;
        V *to = out + row * s.width;
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < s.width; i += blockDim.x) to[i] = at >= 0 ? from[i] : V();
    }
}

template <class V>
static int launch_select(const pg_context *c, selection s, int64_t bytes, const void *in, void *out) {
    s.width = bytes / (int64_t)sizeof(V);
    unsigned x = 1, y = 1;
    while (x < 256 && x < s.width) x *= 2;
    while (x * y < 256 && y < s.outer * s.n_index) y *= 2;
    PG_LAUNCH((select_rows<V>), blocks_for(s.outer * s.n_index, y), dim3(x, y), 0, c, s, (const V *)in,
              (V *)out);
    return launched();
}

extern "C" int PG_K(index_select)(const pg_context *c, int item, const pg_rows *r, const void *in,
                                  void *out) {
    const int64_t bytes = r->inner * item;
    if (r->outer * r->n_index <= 0) return PG_KERNEL_OK;
    const selection s = {r->outer, r->size, r->n_index, 0, r->index, r->from_end, c->bad_index, c->op};
    const uintptr_t where = (uintptr_t)in | (uintptr_t)out | (uintptr_t)bytes;
    if (where % 16 == 0) return launch_select<int4>(c, s, bytes, in, out);
    if (where % 8 == 0) return launch_select<uint64_t>(c, s, bytes, in, out);
    if (where % 4 == 0) return launch_select<uint32_t>(c, s, bytes, in, out);
    if (where % 2 == 0) return launch_select<uint16_t>(c, s, bytes, in, out);
    return launch_select<uint8_t>(c, s, bytes, in, out);
}

/* Where each term goes; `size` where its index is reported. */
template <class K> static __global__ void row_places(selection s, K *key) {
    const int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < s.n_index; j += stride) {
        const int64_t at = resolve(s.index[j], s.size, s.from_end, s.bad, s.op);
        key[j] = (K)(at < 0 ? s.size : at);
    }
}

extern "C" int PG_K(index_add)(const pg_context *c, int dtype, const pg_rows *r, const void *source,
                               double alpha, void *self) {
    if (dtype == PG_K_BOOL) return PG_KERNEL_UNSUPPORTED;
    if (r->n_index <= 0) return PG_KERNEL_OK;
    const selection s = {r->outer, r->size, r->n_index, 0, r->index, true, c->bad_index, c->op};
    pg_sums sums = {};
    sums.wide = r->size >= UINT32_MAX;
    void *key = c->scratch(c, (size_t)r->n_index * (sums.wide ? 8 : 4));
    if (!key) return PG_KERNEL_NO_SCRATCH;
    const unsigned grid = blocks_for(r->n_index, 256);
    if (sums.wide) PG_LAUNCH((row_places<uint64_t>), grid, 256, 0, c, s, (uint64_t *)key);
    else PG_LAUNCH((row_places<uint32_t>), grid, 256, 0, c, s, (uint32_t *)key);
    if (r->outer * r->inner <= 0 || r->size == 0) return launched();   /* the indices have been looked at */
    const int status =
        pg_order_cuda(c, sums.wide ? 8 : 4, pg_bits_of((uint64_t)r->size), 1, r->n_index, key, &sums.order);
    if (status) return status;
    sums.none = (uint64_t)r->size;
    sums.m = r->n_index;
    sums.key_step = r->inner;
    sums.outer_n = 1;
    sums.outer_shape[0] = r->n_index, sums.outer_stride[0] = r->inner;
    sums.inner_n = r->outer == 1 ? 1 : 2;
    const int last = sums.inner_n - 1;
    sums.inner_shape[0] = r->outer, sums.inner_from[0] = r->n_index * r->inner,
    sums.inner_to[0] = r->size * r->inner;
    sums.inner_shape[last] = r->inner, sums.inner_from[last] = 1, sums.inner_to[last] = 1;
    sums.from = source;
    sums.to = self;
    sums.alpha = alpha;
    return pg_sum_by_place_cuda(c, dtype, &sums, true);
}
