/* make.cu: tensors from nothing, and triangles. Bound by what is written (and read, for triangles). */
#include "convert.h"

enum { BLOCK = 256 };

/* Integers start + i * step wrap; floats are computed in double and rounded once. */
template <class T> static __global__ void __launch_bounds__(BLOCK)
fill_arange(int64_t n, pg_value start, pg_value step, T *out) {
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < n; i += (int64_t)gridDim.x * BLOCK) {
        if constexpr (std::is_integral_v<T>)
            out[i] = from_integer<T>((int64_t)((uint64_t)start.i + (uint64_t)i * (uint64_t)step.i));
        else
            out[i] = store_as<T>((compute_t<T>)(start.d + (double)i * step.d));
    }
}

extern "C" int PG_K(arange)(const pg_context *c, int dtype, int64_t n, pg_value start, pg_value step,
                            void *out) {
    if ((unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (n <= 0) return PG_KERNEL_OK;
    PG_FOR_ALL(dtype,
               PG_LAUNCH((fill_arange<T>), blocks_for(n, BLOCK), BLOCK, 0, c, n, start, step, (T *)out))
    return launched();
}

/* From both ends, so that the last element is `end` and the middle is symmetric. */
template <class T> static __global__ void __launch_bounds__(BLOCK)
fill_linspace(int64_t n, double start, double end, double step, T *out) {
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < n; i += (int64_t)gridDim.x * BLOCK) {
        const double v = i < n / 2 || n == 1 ? start + step * (double)i : end - step * (double)(n - 1 - i);
        if constexpr (std::is_integral_v<T>) out[i] = from_integer<T>(f64_to_i64(v));
        else out[i] = store_as<T>((compute_t<T>)v);
    }
}

extern "C" int PG_K(linspace)(const pg_context *c, int dtype, int64_t n, double start, double end,
                              void *out) {
    if ((unsigned)dtype > PG_K_FLOAT64) return PG_KERNEL_UNSUPPORTED;
    if (n <= 0) return PG_KERNEL_OK;
    const double step = n > 1 ? (end - start) / (double)(n - 1) : 0;
    PG_FOR_ALL(dtype, PG_LAUNCH((fill_linspace<T>), blocks_for(n, BLOCK), BLOCK, 0, c, n, start, end, step,
                                (T *)out))
    return launched();
}

/* Rows of cols elements; row u % rows = i keeps the columns from i + k on (upper) or up to i + k. A block
 * has blockDim.y rows; in and out may be the same. */
template <class T> static __global__ void __launch_bounds__(BLOCK)
keep_triangle(int64_t lines, int64_t rows, int64_t cols, int64_t k, bool upper, const T *in, T *out) {
    for (int64_t u = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; u < lines;
         u += (int64_t)gridDim.x * blockDim.y) {
        const int64_t diagonal = u % rows + k;
        for (int64_t j = threadIdx.x; j < cols; j += blockDim.x) {
            const bool keep = upper ? j >= diagonal : j <= diagonal;
            out[u * cols + j] = keep ? in[u * cols + j] : (T)0;
        }
    }
}

extern "C" int PG_K(triangle)(const pg_context *c, int item, int64_t batch, int64_t rows, int64_t cols,
                              int64_t k, bool upper, const void *in, void *out) {
    const int64_t lines = batch * rows, most = rows + cols;
    if (lines * cols == 0) return PG_KERNEL_OK;
    if (k > most) k = most;
    if (k < -most) k = -most;
    unsigned across = 1;
    while (across < BLOCK && across < cols) across *= 2;
    const dim3 block(across, BLOCK / across);
    const unsigned grid = blocks_for(lines, BLOCK / across);
    switch (item) {
#define ITEM(T) \
    PG_LAUNCH((keep_triangle<T>), grid, block, 0, c, lines, rows, cols, k, upper, (const T *)in, (T *)out); \
    break
    case 1: ITEM(uint8_t);
    case 2: ITEM(uint16_t);
    case 4: ITEM(uint32_t);
    case 8: ITEM(uint64_t);
#undef ITEM
    default: return PG_KERNEL_UNSUPPORTED;
    }
    return launched();
}
