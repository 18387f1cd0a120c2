/* cublaslt.cpp: a stand-in for the part of cuBLASLt in include/cublasLt.h: what is checked, and the status
 * that answers, follow NVIDIA's header; products run on the stream, as kernels do.
 *
 * It is stricter than the library where that shows mistakes: an algorithm works for the descriptors that it
 * was chosen for alone (a plan taken for another is refused), the alignment it was promised is checked on
 * every pointer, and the workspace it asks for (products with a long k) is overwritten.
 *
 * One thread; 16 rows x 4 columns of D at a time in vectors, k in order. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_on_cpu.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <new>
#include <vector>

#include "modes.h"
#include "on_cpu/libraries.h"

namespace {

enum { DESC = 0x4d41544d, LAYOUT, PREFERENCE, ALGO }; /* first word of each opaque object */
enum { EPILOGUE_AUX = 128 };                          /* this bit of an epilogue: aux is written */

struct Desc {
    uint32_t magic;
    int32_t compute, scale, transa, transb, bias_type;
    uint32_t epilogue;
    const void *bias;
    void *aux;
    int64_t aux_ld, aux_batch;
};
struct Layout {
    uint32_t magic;
    int32_t type, batch;
    uint64_t rows, cols;
    int64_t ld, stride;
};
struct Preference {
    uint32_t magic, schemes, align[4];
    uint64_t workspace;
};
struct Algo {
    uint32_t magic, align[4];
    uint64_t made_for, workspace;
};
static_assert(sizeof(Desc) <= sizeof(cublasLtMatmulDescOpaque_t) &&
                  sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t) &&
                  sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t) &&
                  sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t),
              "they are kept in NVIDIA's opaque objects");

template <class S, class O> cublasStatus_t create(O **out, const S &value) {
    if (!out) return CUBLAS_STATUS_INVALID_VALUE;
    if (!(*out = new (std::nothrow) O())) return CUBLAS_STATUS_ALLOC_FAILED;
    memcpy((void *)*out, &value, sizeof value);
    return CUBLAS_STATUS_SUCCESS;
}
template <class O> cublasStatus_t destroy(O *object) {
    delete object;
    return CUBLAS_STATUS_SUCCESS;
}
template <class S, class O> bool read(const O *object, uint32_t magic, S *out) {
    if (!object) return false;
    memcpy(out, object, sizeof *out);
    return out->magic == magic;
}
/* value into one member of the object: its size must be the member's. */
template <class S, class O, class M>
cublasStatus_t set(O *object, uint32_t magic, M S::*member, const void *value, size_t bytes) {
    S s;
    if (!read(object, magic, &s) || !value || bytes != sizeof(M)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&(s.*member), value, bytes);
    memcpy((void *)object, &s, sizeof s);
    return CUBLAS_STATUS_SUCCESS;
}

int size_of(int type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }
bool is_aligned(const void *p, uint64_t bytes) { return (uintptr_t)p % bytes == 0; }

/* ---- what fits what ---- */

struct Operation {
    Desc desc;
    Layout a, b, c, d;
};

bool read_operation(Operation *o, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
    return read(desc, DESC, &o->desc) && read(a, LAYOUT, &o->a) && read(b, LAYOUT, &o->b) &&
           read(c, LAYOUT, &o->c) && read(d, LAYOUT, &o->d);
}

cublasStatus_t check(const Operation &o) {
    const Desc &t = o.desc;
    const uint64_t m = t.transa ? o.a.cols : o.a.rows, k = t.transa ? o.a.rows : o.a.cols;
    const uint64_t n = t.transb ? o.b.rows : o.b.cols, k_of_b = t.transb ? o.b.cols : o.b.rows;
    if (k != k_of_b || m != o.d.rows || n != o.d.cols || m != o.c.rows || n != o.c.cols)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (const Layout *l : {&o.a, &o.b, &o.c, &o.d}) {
        if (l->rows == 0 || l->cols == 0 || l->ld < (int64_t)l->rows || l->batch < 1 ||
            l->batch != o.d.batch || l->stride < 0)
            return CUBLAS_STATUS_INVALID_VALUE;
        if (l->rows > INT32_MAX || l->cols > INT32_MAX) return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (o.d.batch > 1 && o.d.stride < o.d.ld * ((int64_t)o.d.cols - 1) + (int64_t)o.d.rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (o.a.type != o.b.type || o.a.type != o.c.type || o.a.type != o.d.type)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    const bool wide = o.d.type == CUDA_R_64F;
    if (wide ? t.compute != CUBLAS_COMPUTE_64F || t.scale != CUDA_R_64F
             : (t.compute != CUBLAS_COMPUTE_32F &&
                (t.compute != CUBLAS_COMPUTE_32F_FAST_TF32 || o.d.type != CUDA_R_32F)) ||
                   t.scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    const uint32_t known = CUBLASLT_EPILOGUE_GELU_AUX_BIAS | CUBLASLT_EPILOGUE_DEFAULT;
    if (t.epilogue == 0 || (t.epilogue & ~known) ||
        ((t.epilogue & CUBLASLT_EPILOGUE_DEFAULT) && t.epilogue != CUBLASLT_EPILOGUE_DEFAULT) ||
        ((t.epilogue & EPILOGUE_AUX) && !(t.epilogue & CUBLASLT_EPILOGUE_GELU)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (wide && t.epilogue != CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((t.epilogue & CUBLASLT_EPILOGUE_BIAS) && t.bias_type != -1 && t.bias_type != o.d.type)
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((t.epilogue & EPILOGUE_AUX) && (t.aux_ld % 8 != 0 || t.aux_ld < (int64_t)o.d.rows))
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

uint64_t identity(Operation o) {
    o.desc.bias = nullptr;
    o.desc.aux = nullptr;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    const auto mix = [&h](uint64_t x) { h = (h ^ x) * UINT64_C(0x100000001b3), h ^= h >> 31; };
    for (uint64_t x : {(uint64_t)o.desc.compute, (uint64_t)o.desc.transa, (uint64_t)o.desc.transb,
                       (uint64_t)o.desc.epilogue, (uint64_t)o.desc.aux_ld, (uint64_t)o.desc.aux_batch})
        mix(x);
    for (const Layout *l : {&o.a, &o.b, &o.c, &o.d})
        for (uint64_t x :
             {(uint64_t)l->type, (uint64_t)l->batch, l->rows, l->cols, (uint64_t)l->ld, (uint64_t)l->stride})
            mix(x);
    return h;
}

/* ---- the arithmetic: C is float or double ---- */

enum { MR = 16, NR = 4, MC = 256, NC = 256, KC = 256 };

float as_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}
double number(double x, bool) { return x; }
float number(float x, bool tf32) { return tf32 ? as_tf32(x) : x; }
float number(__half x, bool) { return __half2float(x); }
float number(__nv_bfloat16 x, bool) { return __bfloat162float(x); }
void store(double *to, double x) { *to = x; }
void store(float *to, float x) { *to = x; }
void store(__half *to, float x) { *to = __float2half_rn(x); }
void store(__nv_bfloat16 *to, float x) { *to = __float2bfloat16_rn(x); }

/* sums (NR columns, `apart` apart) += rows (k, MR) times columns (k, NR) */
template <class C> inline __attribute__((always_inline)) void tile(int64_t k, const C *rows, const C *columns,
                                                                   C *sums, int64_t apart) {
    typedef C V __attribute__((vector_size(MR * sizeof(C)), aligned(sizeof(C)), may_alias));
    V s0 = *(const V *)sums, s1 = *(const V *)(sums + apart), s2 = *(const V *)(sums + 2 * apart),
      s3 = *(const V *)(sums + 3 * apart);
    for (int64_t l = 0; l < k; l++) {
        const V x = *(const V *)(rows + l * MR);
        const C *y = columns + l * NR;
        s0 += x * y[0];
        s1 += x * y[1];
        s2 += x * y[2];
        s3 += x * y[3];
    }
    *(V *)sums = s0;
    *(V *)(sums + apart) = s1;
    *(V *)(sums + 2 * apart) = s2;
    *(V *)(sums + 3 * apart) = s3;
}
template <class C> void tile_plain(int64_t k, const C *rows, const C *columns, C *sums, int64_t apart) {
    tile<C>(k, rows, columns, sums, apart);
}
#if defined(__x86_64__)
template <class C> __attribute__((target("avx2"))) void tile_avx2(int64_t k, const C *rows, const C *columns,
                                                                  C *sums, int64_t apart) {
    tile<C>(k, rows, columns, sums, apart);
}
template <class C> auto tile_here() { return __builtin_cpu_supports("avx2") ? tile_avx2<C> : tile_plain<C>; }
#else
template <class C> auto tile_here() { return tile_plain<C>; }
#endif

double tanh_gelu(double x) {
    return 0.5 * x * (1.0 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}

/* One entry of a batch. */
template <class T, class C> void product(const Operation &o, C alpha, C beta, const T *a, const T *b,
                                         const T *c, T *d, T *aux, std::vector<C> &room) {
    const Desc &t = o.desc;
    const int64_t m = (int64_t)o.d.rows, n = (int64_t)o.d.cols, k = (int64_t)(t.transa ? o.a.rows : o.a.cols);
    const int64_t row_a = t.transa ? o.a.ld : 1, k_a = t.transa ? 1 : o.a.ld, k_b = t.transb ? o.b.ld : 1,
                  col_b = t.transb ? 1 : o.b.ld;
    const bool tf32 = t.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const auto multiply = tile_here<C>();
    room.resize((size_t)(MC * NC + MC * KC + NC * KC));
    C *sums = room.data(), *rows = sums + MC * NC, *columns = rows + MC * KC;
    for (int64_t i0 = 0; i0 < m; i0 += MC)
        for (int64_t j0 = 0; j0 < n; j0 += NC) {
            const int64_t height = m - i0 < MC ? m - i0 : (int64_t)MC,
                          width = n - j0 < NC ? n - j0 : (int64_t)NC;
            const int64_t high = (height + MR - 1) / MR * MR, wide = (width + NR - 1) / NR * NR;
            for (int64_t j = 0; j < wide; j++) memset((void *)(sums + j * MC), 0, (size_t)high * sizeof(C));
            for (int64_t l0 = 0; l0 < k; l0 += KC) {
                const int64_t deep = k - l0 < KC ? k - l0 : (int64_t)KC;
                for (int64_t i = 0; i < high; i++)
                    for (int64_t l = 0; l < deep; l++)
                        rows[(i / MR * deep + l) * MR + i % MR] =
                            i < height ? (C)number(a[(i0 + i) * row_a + (l0 + l) * k_a], tf32) : C(0);
                for (int64_t j = 0; j < wide; j++)
                    for (int64_t l = 0; l < deep; l++)
                        columns[(j / NR * deep + l) * NR + j % NR] =
                            j < width ? (C)number(b[(l0 + l) * k_b + (j0 + j) * col_b], tf32) : C(0);
                for (int64_t j = 0; j < wide; j += NR)
                    for (int64_t i = 0; i < high; i += MR)
                        multiply(deep, rows + i * deep, columns + j * deep, sums + j * MC + i, MC);
            }
            for (int64_t j = 0; j < width; j++)
                for (int64_t i = 0; i < height; i++) {
                    const int64_t at = (j0 + j) * o.c.ld + i0 + i;
                    C x = alpha * sums[j * MC + i];
                    if (beta != 0) x += beta * (C)number(c[at], false);
                    if (t.epilogue & CUBLASLT_EPILOGUE_BIAS)
                        x += (C)number(((const T *)t.bias)[i0 + i], false);
                    if (aux) store(aux + (j0 + j) * t.aux_ld + i0 + i, x);
                    if (t.epilogue & CUBLASLT_EPILOGUE_GELU) x = (C)tanh_gelu((double)x);
                    store(d + (j0 + j) * o.d.ld + i0 + i, x);
                }
        }
}

template <class T, class C> void products(const Operation &o, double alpha, double beta, const void *a,
                                          const void *b, const void *c, void *d) {
    std::vector<C> room;
    const bool aux = o.desc.epilogue & EPILOGUE_AUX;
    for (int64_t e = 0; e < o.d.batch; e++)
        product<T, C>(o, (C)alpha, (C)beta, (const T *)a + e * o.a.stride, (const T *)b + e * o.b.stride,
                      (const T *)c + e * o.c.stride, (T *)d + e * o.d.stride,
                      aux ? (T *)o.desc.aux + e * o.desc.aux_batch : nullptr, room);
}

} /* namespace */

/* ---- the calls ---- */

static int the_handle;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    *handle = (cublasLtHandle_t)&the_handle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
#define NAME(s) case s: return #s;
    NAME(CUBLAS_STATUS_SUCCESS)
    NAME(CUBLAS_STATUS_NOT_INITIALIZED)
    NAME(CUBLAS_STATUS_ALLOC_FAILED)
    NAME(CUBLAS_STATUS_INVALID_VALUE)
    NAME(CUBLAS_STATUS_ARCH_MISMATCH)
    NAME(CUBLAS_STATUS_MAPPING_ERROR)
    NAME(CUBLAS_STATUS_EXECUTION_FAILED)
    NAME(CUBLAS_STATUS_INTERNAL_ERROR)
    NAME(CUBLAS_STATUS_NOT_SUPPORTED)
    NAME(CUBLAS_STATUS_LICENSE_ERROR)
#undef NAME
    }
    return "CUBLAS_STATUS_UNKNOWN";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    return create(desc, Desc{DESC, compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, -1, CUBLASLT_EPILOGUE_DEFAULT,
                             nullptr, nullptr, 0, 0});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(desc, DESC, &Desc::transa, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(desc, DESC, &Desc::transb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(desc, DESC, &Desc::epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(desc, DESC, &Desc::bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return set(desc, DESC, &Desc::bias_type, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return set(desc, DESC, &Desc::aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return set(desc, DESC, &Desc::aux_ld, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
        return set(desc, DESC, &Desc::aux_batch, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    return create(layout, Layout{LAYOUT, type, 1, rows, cols, ld, 0});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return set(layout, LAYOUT, &Layout::batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return set(layout, LAYOUT, &Layout::stride, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    return create(preference, Preference{PREFERENCE, 7, {256, 256, 256, 256}, 0});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    return destroy(preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(preference, PREFERENCE, &Preference::workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return set(preference, PREFERENCE, &Preference::schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: {
        Preference p;
        if (!read(preference, PREFERENCE, &p) || !value || bytes != sizeof(uint32_t))
            return CUBLAS_STATUS_INVALID_VALUE;
        memcpy(&p.align[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
        memcpy((void *)preference, &p, sizeof p);
        return CUBLAS_STATUS_SUCCESS;
    }
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int *found) {
    Operation o;
    Preference p;
    if (found) *found = 0;
    if (handle != (cublasLtHandle_t)&the_handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (requested < 1 || !results || !found || !read_operation(&o, desc, a, b, c, d) ||
        !read(preference, PREFERENCE, &p))
        return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = check(o);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if ((o.desc.epilogue & EPILOGUE_AUX) && !is_aligned(o.desc.aux, 16)) return CUBLAS_STATUS_NOT_SUPPORTED;
    Algo algo = {ALGO, {p.align[0], p.align[1], p.align[2], p.align[3]}, identity(o), 0};
    const uint64_t k = o.desc.transa ? o.a.rows : o.a.cols, wanted = o.d.rows * o.d.cols * 4;
    if (k >= 4 * (o.d.rows + o.d.cols) && wanted <= p.workspace &&
        (p.schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE))
        algo.workspace = wanted;
    memset(results, 0, sizeof *results);
    memcpy(&results->algo, &algo, sizeof algo);
    results->workspaceSize = algo.workspace;
    results->state = CUBLAS_STATUS_SUCCESS;
    results->wavesCount = 1;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_desc, const void *b,
                              cublasLtMatrixLayout_t b_desc, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_desc, void *d, cublasLtMatrixLayout_t d_desc,
                              const cublasLtMatmulAlgo_t *given, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    Operation o;
    Algo algo;
    if (handle != (cublasLtHandle_t)&the_handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!alpha || !beta || !a || !b || !d || !read_operation(&o, desc, a_desc, b_desc, c_desc, d_desc) ||
        !read(given, ALGO, &algo))
        return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = check(o);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (algo.made_for != identity(o) || workspace_bytes < algo.workspace ||
        (algo.workspace > 0 && (!workspace || !is_aligned(workspace, 16))))
        return CUBLAS_STATUS_INVALID_VALUE;
    const bool wide = o.desc.scale == CUDA_R_64F;
    const double by = wide ? *(const double *)alpha : (double)*(const float *)alpha;
    const double keep = wide ? *(const double *)beta : (double)*(const float *)beta;
    const int size = size_of(o.d.type);
    const void *pointers[4] = {a, b, c ? c : d, d};
    for (int i = 0; i < 4; i++)
        if (!is_aligned(pointers[i], algo.align[i]) || !is_aligned(pointers[i], (uint64_t)size))
            return CUBLAS_STATUS_INVALID_VALUE;
    if (keep != 0 && !c) return CUBLAS_STATUS_INVALID_VALUE;
    if (c == d && (o.c.ld != o.d.ld || o.c.stride != o.d.stride)) return CUBLAS_STATUS_INVALID_VALUE;
    if ((o.desc.epilogue & CUBLASLT_EPILOGUE_BIAS) &&
        (!o.desc.bias || !is_aligned(o.desc.bias, (uint64_t)size)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((o.desc.epilogue & EPILOGUE_AUX) && (!o.desc.aux || !is_aligned(o.desc.aux, 16)))
        return CUBLAS_STATUS_INVALID_VALUE;
    const uint64_t used = algo.workspace;
    const auto work = [=] {
        if (used > 0) memset(workspace, 0xff, (size_t)used);
        switch (o.d.type) {
        case CUDA_R_64F: products<double, double>(o, by, keep, a, b, c, d); break;
        case CUDA_R_32F: products<float, float>(o, by, keep, a, b, c, d); break;
        case CUDA_R_16F: products<__half, float>(o, by, keep, a, b, c, d); break;
        default: products<__nv_bfloat16, float>(o, by, keep, a, b, c, d); break;
        }
    };
    return on_cpu::enqueue(stream, work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                        : CUBLAS_STATUS_EXECUTION_FAILED;
}

/* ---- opened by name ---- */

static char open_error[300];

void *on_cpu::library_open(const char *file) {
    const bool known = strncmp(file, "libcublasLt.so", 14) == 0;
    if (known && strcmp(modes.without, "cublasLt") != 0) return &the_handle;
    snprintf(open_error, sizeof open_error,
             "%.200s: cannot open shared object file: No such file or directory", file);
    return nullptr;
}

const char *on_cpu::library_error(void) { return open_error; }

void *on_cpu::library_function(void *library, const char *name) {
    static const struct { const char *name; void *function; } functions[] = {
#define F(name) {#name, (void *)&name},
        F(cublasLtCreate) F(cublasLtGetStatusName)
        F(cublasLtMatmulDescCreate) F(cublasLtMatmulDescDestroy) F(cublasLtMatmulDescSetAttribute)
        F(cublasLtMatrixLayoutCreate) F(cublasLtMatrixLayoutDestroy) F(cublasLtMatrixLayoutSetAttribute)
        F(cublasLtMatmulPreferenceCreate) F(cublasLtMatmulPreferenceDestroy)
        F(cublasLtMatmulPreferenceSetAttribute) F(cublasLtMatmulAlgoGetHeuristic) F(cublasLtMatmul)
#undef F
    };
    if (library != &the_handle || strcmp(modes.without, name) == 0) return nullptr;
    for (const auto &f : functions)
        if (strcmp(f.name, name) == 0) return f.function;
    return nullptr;
}
