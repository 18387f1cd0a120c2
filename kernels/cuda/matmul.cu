/* matmul.cu: matrix products: cuBLASLt's, with plans (descriptors, layouts and the chosen algorithm) cached,
 * and one kernel for what comes after a product where cuBLASLt has it not, or has it otherwise than kernels.h
 * says.
 *
 * A product is bound by the tensor cores where m, n and k are large, by the bytes of a and b where one of m
 * and n is small: cuBLASLt's business. `finish` reads and writes c once more (and writes aux): 2 to 3 times
 * its bytes at copy bandwidth, in 16-byte packs.
 *
 * What cuBLASLt is trusted with: alpha, beta, bias; GELU_TANH with aux for halves (its GELU is the tanh one,
 * through an instruction too rough for float32). What it is not: the exact GELU (it has none), RELU (its
 * max(x, 0) does not say what a NaN becomes), float64's epilogues. A float32 product is one of float32 unless
 * g->tf32. Halves accumulate in float32: reductions of split products in the output's dtype are excluded. */
#include <cublasLt.h>
#include <stdio.h>
#include <string.h>

#include <mutex>

#include "cuda.h"
#include "gelu.h"
#include "runtime.h"

#ifdef __CUDACC__
#include <dlfcn.h>
static void *open_file(const char *file) { return dlopen(file, RTLD_NOW | RTLD_LOCAL); }
static const char *open_error(void) { return dlerror(); }
static void *function_of(void *library, const char *name) { return dlsym(library, name); }
#else
#include "on_cpu/libraries.h"
static void *open_file(const char *file) { return on_cpu::library_open(file); }
static const char *open_error(void) { return on_cpu::library_error(); }
static void *function_of(void *library, const char *name) { return on_cpu::library_function(library, name); }
#endif

/* ---- the library ---- */

#define CUBLASLT(X)                                                                     \
    X(Create) X(GetStatusName) X(MatmulDescCreate) X(MatmulDescDestroy)                 \
    X(MatmulDescSetAttribute) X(MatrixLayoutCreate) X(MatrixLayoutDestroy)              \
    X(MatrixLayoutSetAttribute) X(MatmulPreferenceCreate) X(MatmulPreferenceDestroy)    \
    X(MatmulPreferenceSetAttribute) X(MatmulAlgoGetHeuristic) X(Matmul)

typedef struct library {
#define X(name) decltype(&cublasLt##name) name;
    CUBLASLT(X)
#undef X
} library;

enum {
    DEVICES = 64,
    SETS = 512,
    WAYS = 4,            /* the cache of plans */
    WORKSPACE = 32 << 20 /* bytes an algorithm may ask for */
};
static const int64_t SIDE = 1 << 30; /* longer sides are split: cuBLASLt's kernels count in 32 bits */

static int failed(const library *lt, const char *what, cublasStatus_t status, const pg_gemm *g) {
    pg_cuda_fail("cuBLASLt: %s: %s (m %lld, n %lld, k %lld, batch %lld)", what, lt->GetStatusName(status),
                 (long long)g->m, (long long)g->n, (long long)g->k, (long long)g->batch);
    return PG_KERNEL_FAILED;
}

/* cuBLASLt, opened when first needed; NULL where it cannot be, which is kept: another try would fail as well.
 */
static const library *open_library(void) {
    static library lt;
    static bool there;
    static char why[500];
    static std::once_flag once;
    std::call_once(once, [] {
        static const char *const files[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
        void *handle = NULL;
        for (const char *file : files)
            if ((handle = open_file(file))) break;
        if (!handle) {
            const char *last = open_error();
            snprintf(why, sizeof why,
                     "matrix products need cuBLASLt, and none of %s, %s and %s can be opened (%.200s): "
                     "install cuBLAS of the CUDA toolkit, 12 or 13, or put its folder into LD_LIBRARY_PATH",
                     files[0], files[1], files[2], last ? last : "no reason given");
            return;
        }
#define X(name)                                                                                 \
    lt.name = (decltype(lt.name))function_of(handle, "cublasLt" #name);                         \
    if (!lt.name) {                                                                             \
        snprintf(why, sizeof why,                                                               \
                 "matrix products need cuBLASLt 12 or 13: the one found lacks cublasLt" #name); \
        return;                                                                                 \
    }
        CUBLASLT(X)
#undef X
        there = true;
    });
    if (there) return &lt;
    pg_cuda_fail("%s", why);
    return NULL;
}

/* ---- plans ---- */

typedef struct key {
    int device, dtype, epilogue;
    unsigned char ta, tb, tf32, align_a, align_b, align_c, align_bias, align_aux;
    int64_t m, n, k, batch, lda, ldb, ldc, a_batch, b_batch, c_batch;
} key;

typedef struct plan {
    key of;
    bool used;
    uint64_t last; /* when it was used last, counted in products */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
} plan;

/* All of it under `lock`, held over a launch too: the descriptor carries the pointers of bias and aux. */
static std::mutex lock;
static cublasLtHandle_t handles[DEVICES];
static plan plans[SETS][WAYS];
static uint64_t products;

static uint64_t hash_of(const key *k) {
    uint64_t h = UINT64_C(0xcbf29ce484222325), word;
    const unsigned char *bytes = (const unsigned char *)k;
    for (size_t i = 0; i < sizeof *k; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}
static_assert(sizeof(key) % sizeof(uint64_t) == 0, "hash_of reads words");

static unsigned char alignment(const void *p) {
    const uintptr_t low = (uintptr_t)p & 15;
    return (unsigned char)(low == 0 ? 16 : low & (0 - low));
}

static cudaDataType_t type_of(int dtype) {
    return dtype == PG_K_FLOAT64   ? CUDA_R_64F
           : dtype == PG_K_FLOAT32 ? CUDA_R_32F
           : dtype == PG_K_FLOAT16 ? CUDA_R_16F
                                   : CUDA_R_16BF;
}

static void drop(const library *lt, plan *p) {
    if (p->c) lt->MatrixLayoutDestroy(p->c);
    if (p->b) lt->MatrixLayoutDestroy(p->b);
    if (p->a) lt->MatrixLayoutDestroy(p->a);
    if (p->desc) lt->MatmulDescDestroy(p->desc);
    memset(p, 0, sizeof *p);
}

static cublasStatus_t layout(const library *lt, cublasLtMatrixLayout_t *out, cudaDataType_t type,
                             int64_t rows, int64_t cols, int64_t ld, int64_t batch, int64_t stride) {
    const int32_t count = (int32_t)batch;
    cublasStatus_t s =
        lt->MatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)cols, ld < rows ? rows : ld);
    if (s == CUBLAS_STATUS_SUCCESS && batch > 1) {
        s = lt->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
        if (s == CUBLAS_STATUS_SUCCESS)
            s = lt->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                             sizeof stride);
    }
    return s;
}

static cublasStatus_t point(const library *lt, const plan *p, const pg_gemm *g) {
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
    if (p->of.epilogue & CUBLASLT_EPILOGUE_BIAS)
        s = lt->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias, sizeof g->bias);
    if (s == CUBLAS_STATUS_SUCCESS && p->of.align_aux)
        s = lt->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &g->aux,
                                       sizeof g->aux);
    return s;
}

/* cuBLASLt's matrices are by columns: our c (m, n) is its (n, m), so a and b change places. */
static cublasStatus_t make(const library *lt, cublasLtHandle_t handle, plan *p, const key *k,
                           const pg_gemm *g) {
    p->of = *k;
    const cudaDataType_t type = type_of(k->dtype);
    const bool wide = k->dtype == PG_K_FLOAT64;
    const int32_t op_a = k->tb ? CUBLAS_OP_T : CUBLAS_OP_N, op_b = k->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    const uint32_t epilogue = (uint32_t)k->epilogue;
    cublasStatus_t s = lt->MatmulDescCreate(&p->desc,
                                            wide      ? CUBLAS_COMPUTE_64F
                                            : k->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                      : CUBLAS_COMPUTE_32F,
                                            wide ? CUDA_R_64F : CUDA_R_32F);
#define SET(attribute, value)        \
    if (s == CUBLAS_STATUS_SUCCESS)  \
        s = lt->MatmulDescSetAttribute(p->desc, attribute, &(value), sizeof(value))
    SET(CUBLASLT_MATMUL_DESC_TRANSA, op_a);
    SET(CUBLASLT_MATMUL_DESC_TRANSB, op_b);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (k->epilogue & CUBLASLT_EPILOGUE_BIAS) {
        const int32_t bias_type = type;
        SET(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
    }
    if (k->align_aux) {
        SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, k->ldc);
        if (k->batch > 1) {
            SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, k->c_batch);
        }
    }
    if (s == CUBLAS_STATUS_SUCCESS) s = point(lt, p, g);
#undef SET
    if (s == CUBLAS_STATUS_SUCCESS)
        s = layout(lt, &p->a, type, k->tb ? k->k : k->n, k->tb ? k->n : k->k, k->ldb, k->batch, k->b_batch);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = layout(lt, &p->b, type, k->ta ? k->m : k->k, k->ta ? k->k : k->m, k->lda, k->batch, k->a_batch);
    if (s == CUBLAS_STATUS_SUCCESS) s = layout(lt, &p->c, type, k->n, k->m, k->ldc, k->batch, k->c_batch);
    cublasLtMatmulPreference_t preference = NULL;
    if (s == CUBLAS_STATUS_SUCCESS) s = lt->MatmulPreferenceCreate(&preference);
    const uint64_t workspace = WORKSPACE;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, a = k->align_b, b = k->align_a,
                   c = k->align_c;
#define PREFER(attribute, value)    \
    if (s == CUBLAS_STATUS_SUCCESS) \
        s = lt->MatmulPreferenceSetAttribute(preference, attribute, &(value), sizeof(value))
    PREFER(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    PREFER(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c);
    PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c);
#undef PREFER
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    memset(&result, 0, sizeof result);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = lt->MatmulAlgoGetHeuristic(handle, p->desc, p->a, p->b, p->c, p->c, preference, 1, &result,
                                       &found);
    if (s == CUBLAS_STATUS_SUCCESS) s = found < 1 ? CUBLAS_STATUS_NOT_SUPPORTED : result.state;
    if (preference) lt->MatmulPreferenceDestroy(preference);
    p->algo = result.algo;
    p->workspace = result.workspaceSize;
    return s;
}

/* The plan of k, made where there is none: in place of the one of its set that was not used for longest. */
static plan *plan_of(const library *lt, cublasLtHandle_t handle, const key *k, const pg_gemm *g,
                     cublasStatus_t *status) {
    plan *set = plans[hash_of(k) % SETS], *oldest = set;
    *status = CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].used && memcmp(&set[i].of, k, sizeof *k) == 0) {
            set[i].last = ++products;
            *status = point(lt, &set[i], g);
            return &set[i];
        }
        if (!set[i].used || set[i].last < oldest->last) oldest = &set[i];
        if (!oldest->used) break;
    }
    drop(lt, oldest);
    if ((*status = make(lt, handle, oldest, k, g)) != CUBLAS_STATUS_SUCCESS) {
        drop(lt, oldest);
        return NULL;
    }
    oldest->used = true;
    oldest->last = ++products;
    return oldest;
}

/* ---- what comes after a product ---- */

template <class C> static __device__ __forceinline__ C activated(int activation, C x) {
    if (activation == PG_K_ACT_RELU) return x < C(0) ? C(0) : x;
    if (activation == PG_K_ACT_GELU) return gelu(x);
    if (activation == PG_K_ACT_GELU_TANH) return gelu_tanh(x);
    return x;
}

/* c = act(c + bias) and aux = c + bias, or, where k is 0, with beta * c for c. N elements a thread at
 * once. */
template <class T, int N> static __global__ void finish(T *c, T *aux, const T *bias, int64_t m, int64_t n,
                                                        int64_t ldc, int64_t c_batch, int64_t packs,
                                                        bool empty, double beta, int activation) {
    typedef compute_t<T> C;
    const int64_t wide = n / N;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < packs;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / wide, j = (i - row * wide) * N, at = row / m * c_batch + row % m * ldc + j;
        pack<T, N> x, b;
        if (!empty || beta != 0) x = *reinterpret_cast<const pack<T, N> *>(c + at);
        if (bias) b = *reinterpret_cast<const pack<T, N> *>(bias + j);
        pack<T, N> before;
#pragma unroll
        for (int e = 0; e < N; e++) {
            C v = empty ? (beta != 0 ? (C)beta * load_as<T>(x.v[e]) : C(0)) : load_as<T>(x.v[e]);
            if (bias) v += load_as<T>(b.v[e]);
            before.v[e] = store_as<T>(v);
            x.v[e] = store_as<T>(activated<C>(activation, v));
        }
        if (aux) *reinterpret_cast<pack<T, N> *>(aux + at) = before;
        *reinterpret_cast<pack<T, N> *>(c + at) = x;
    }
}

template <class T>
static int launch_finish(const pg_context *context, const pg_gemm *g, const void *bias, bool empty) {
    enum { N = 16 / sizeof(T), THREADS = 256 };
    const bool packed = g->n % N == 0 && g->ldc % N == 0 && (g->batch == 1 || g->c_batch % N == 0) &&
                        aligned16(g->c) && (!g->aux || aligned16(g->aux)) && (!bias || aligned16(bias));
    const int64_t packs = g->batch * g->m * (packed ? g->n / N : g->n);
    const unsigned blocks = blocks_for(packs, THREADS, 1 << 16);
    if (packed)
        PG_LAUNCH((finish<T, N>), blocks, THREADS, 0, context, (T *)g->c, (T *)g->aux, (const T *)bias, g->m,
                  g->n, g->ldc, g->c_batch, packs, empty, g->beta, g->activation);
    else
        PG_LAUNCH((finish<T, 1>), blocks, THREADS, 0, context, (T *)g->c, (T *)g->aux, (const T *)bias, g->m,
                  g->n, g->ldc, g->c_batch, packs, empty, g->beta, g->activation);
    return launched();
}
static int finish_of(const pg_context *context, int dtype, const pg_gemm *g, const void *bias, bool empty) {
    PG_FOR_FLOATS(dtype, return launch_finish<T>(context, g, bias, empty))
}

/* ---- products of floats ---- */

/* One product whose sides fit cuBLASLt and whose batch lies evenly; bias, aux and activation follow where
 * they are set. */
static int product(const pg_context *context, const library *lt, int dtype, const pg_gemm *g) {
    const bool half = dtype == PG_K_FLOAT16 || dtype == PG_K_BFLOAT16;
    key k;
    memset(&k, 0, sizeof k);
    if (cudaGetDevice(&k.device) != cudaSuccess || k.device < 0 || k.device >= DEVICES) {
        pg_cuda_fail("no current device");
        return PG_KERNEL_FAILED;
    }
    k.dtype = dtype;
    k.ta = g->ta;
    k.tb = g->tb;
    k.tf32 = g->tf32 && dtype == PG_K_FLOAT32;
    k.m = g->m, k.n = g->n, k.k = g->k, k.batch = g->batch;
    k.lda = g->lda, k.ldb = g->ldb, k.ldc = g->ldc;
    if (g->batch > 1) k.a_batch = g->a_batch, k.b_batch = g->b_batch, k.c_batch = g->c_batch;
    k.align_a = alignment(g->a), k.align_b = alignment(g->b), k.align_c = alignment(g->c);
    /* first with what cuBLASLt can do in the same pass, then, where it declines, without */
    const void *bias = g->bias;
    bool activated = false;
    k.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const bool gelu =
        half && g->activation == PG_K_ACT_GELU_TANH &&
        (!g->aux || (g->ldc % 8 == 0 && aligned16(g->aux) && (g->batch == 1 || g->c_batch % 8 == 0)));
    if (gelu) {
        k.epilogue = g->aux ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_GELU;
        if (bias) k.epilogue |= CUBLASLT_EPILOGUE_BIAS;
        if (g->aux) k.align_aux = alignment(g->aux);
        activated = true;
    } else if (bias && dtype != PG_K_FLOAT64 && (!half || g->activation == PG_K_ACT_NONE)) {
        k.epilogue = CUBLASLT_EPILOGUE_BIAS;
    }
    if (k.epilogue & CUBLASLT_EPILOGUE_BIAS) k.align_bias = alignment(bias), bias = NULL;

    cublasStatus_t status;
    plan *p;
    {
        std::lock_guard<std::mutex> held(lock);
        cublasLtHandle_t *handle = &handles[k.device];
        if (!*handle && (status = lt->Create(handle)) != CUBLAS_STATUS_SUCCESS)
            return failed(lt, "no handle", status, g);
        p = plan_of(lt, *handle, &k, g, &status);
        if (!p && k.epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
            k.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
            k.align_bias = k.align_aux = 0;
            bias = g->bias;
            activated = false;
            p = plan_of(lt, *handle, &k, g, &status);
        }
        if (!p) return failed(lt, "no algorithm for a product", status, g);
        if (status != CUBLAS_STATUS_SUCCESS) return failed(lt, "an attribute was refused", status, g);
        void *workspace = p->workspace > 0 ? context->scratch(context, p->workspace) : NULL;
        if (p->workspace > 0 && !workspace) return PG_KERNEL_NO_SCRATCH;
        const float alpha = (float)g->alpha, beta = (float)g->beta;
        const bool wide = dtype == PG_K_FLOAT64;
        status = lt->Matmul(*handle, p->desc, wide ? (const void *)&g->alpha : &alpha, g->b, p->a, g->a, p->b,
                            wide ? (const void *)&g->beta : &beta, g->c, p->c, g->c, p->c, &p->algo,
                            workspace, p->workspace, (cudaStream_t)context->stream);
        if (status != CUBLAS_STATUS_SUCCESS) return failed(lt, "a product was refused", status, g);
    }
    if (activated || (!bias && !g->aux && g->activation == PG_K_ACT_NONE)) return PG_KERNEL_OK;
    return finish_of(context, dtype, g, bias, false);
}

static const void *moved(const void *p, int64_t elements, size_t size) {
    return (const char *)p + elements * (int64_t)size;
}

/* Sides within cuBLASLt's reach. The parts along k add to c; what comes after a product comes after the last
 * of them. */
static int split(const pg_context *context, const library *lt, int dtype, const pg_gemm *g) {
    if (g->m <= SIDE && g->n <= SIDE && g->k <= SIDE && g->batch <= SIDE)
        return product(context, lt, dtype, g);
    const size_t size = dtype == PG_K_FLOAT64 ? 8 : dtype == PG_K_FLOAT32 ? 4 : 2;
    int status = PG_KERNEL_OK;
    for (int64_t e = 0; e < g->batch && status == PG_KERNEL_OK; e += SIDE)
        for (int64_t i = 0; i < g->m && status == PG_KERNEL_OK; i += SIDE)
            for (int64_t j = 0; j < g->n && status == PG_KERNEL_OK; j += SIDE)
                for (int64_t q = 0; q < g->k && status == PG_KERNEL_OK; q += SIDE) {
                    pg_gemm part = *g;
                    part.batch = g->batch - e < SIDE ? g->batch - e : SIDE;
                    part.m = g->m - i < SIDE ? g->m - i : SIDE;
                    part.n = g->n - j < SIDE ? g->n - j : SIDE;
                    part.k = g->k - q < SIDE ? g->k - q : SIDE;
                    const int64_t c = e * g->c_batch + i * g->ldc + j;
                    part.a = moved(g->a, e * g->a_batch + (g->ta ? q * g->lda + i : i * g->lda + q), size);
                    part.b = moved(g->b, e * g->b_batch + (g->tb ? j * g->ldb + q : q * g->ldb + j), size);
                    part.c = (void *)moved(g->c, c, size);
                    part.aux = g->aux ? (void *)moved(g->aux, c, size) : NULL;
                    part.bias = g->bias ? moved(g->bias, j, size) : NULL;
                    if (q > 0) part.beta = 1;
                    if (q + SIDE < g->k) part.bias = NULL, part.aux = NULL, part.activation = PG_K_ACT_NONE;
                    status = product(context, lt, dtype, &part);
                }
    return status;
}

static int floats(const pg_context *context, int dtype, const pg_gemm *g) {
    if (g->k <= 0) return finish_of(context, dtype, g, g->bias, true);
    const library *lt = open_library();
    if (!lt) return PG_KERNEL_FAILED;
    if (!g->a_offset) return split(context, lt, dtype, g);
    /* entries whose offsets grow evenly go together */
    const size_t size = dtype == PG_K_FLOAT64 ? 8 : dtype == PG_K_FLOAT32 ? 4 : 2;
    int status = PG_KERNEL_OK;
    for (int64_t i = 0, n; i < g->batch && status == PG_KERNEL_OK; i += n) {
        pg_gemm part = *g;
        n = 1;
        if (i + 1 < g->batch) {
            part.a_batch = g->a_offset[i + 1] - g->a_offset[i];
            part.b_batch = g->b_offset[i + 1] - g->b_offset[i];
            if (part.a_batch >= 0 && part.b_batch >= 0)
                for (n = 2; i + n < g->batch && g->a_offset[i + n] - g->a_offset[i + n - 1] == part.a_batch &&
                            g->b_offset[i + n] - g->b_offset[i + n - 1] == part.b_batch;
                     n++) {}
        }
        part.batch = n;
        part.a = moved(g->a, g->a_offset[i], size);
        part.b = moved(g->b, g->b_offset[i], size);
        part.c = (void *)moved(g->c, i * g->c_batch, size);
        part.aux = g->aux ? (void *)moved(g->aux, i * g->c_batch, size) : NULL;
        part.a_offset = part.b_offset = NULL;
        status = split(context, lt, dtype, &part);
    }
    return status;
}

/* ---- products of integers: for counting, not for training: a thread an element ---- */

typedef struct integers {
    bool ta, tb;
    int64_t m, n, k, batch, lda, ldb, ldc, a_batch, b_batch, c_batch, alpha, beta;
    const int64_t *a_offset, *b_offset; /* the device's */
} integers;

/* Wraps around as the type does. */
template <class T>
static __global__ void integer_product(integers g, const T *a0, const T *b0, T *c0, const T *bias) {
    typedef std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t> U;
    const int64_t all = g.batch * g.m * g.n;
    for (int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; r < all;
         r += (int64_t)gridDim.x * blockDim.x) {
        const int64_t j = r % g.n, i = r / g.n % g.m, at = r / g.n / g.m;
        const T *a = a0 + (g.a_offset ? g.a_offset[at] : at * g.a_batch) + (g.ta ? i : i * g.lda);
        const T *b = b0 + (g.b_offset ? g.b_offset[at] : at * g.b_batch) + (g.tb ? j * g.ldb : j);
        const int64_t step_a = g.ta ? g.lda : 1, step_b = g.tb ? 1 : g.ldb;
        T *c = c0 + at * g.c_batch + i * g.ldc + j;
        U sum = 0;
        for (int64_t q = 0; q < g.k; q++) sum += (U)a[q * step_a] * (U)b[q * step_b];
        sum *= (U)g.alpha;
        if (g.beta) sum += (U)g.beta * (U)*c;
        if (bias) sum += (U)bias[j];
        *c = (T)sum;
    }
}

template <class T> static int launch_integers(const pg_context *context, const pg_gemm *g) {
    integers h = {g->ta,  g->tb,  g->m,       g->n,       g->k,       g->batch,          g->lda,
                  g->ldb, g->ldc, g->a_batch, g->b_batch, g->c_batch, (int64_t)g->alpha, (int64_t)g->beta,
                  NULL,   NULL};
    if (g->a_offset) {
        h.a_offset = (const int64_t *)on_device(context, g->a_offset, (size_t)g->batch * sizeof(int64_t));
        h.b_offset = (const int64_t *)on_device(context, g->b_offset, (size_t)g->batch * sizeof(int64_t));
        if (!h.a_offset || !h.b_offset) return PG_KERNEL_NO_SCRATCH;
    }
    PG_LAUNCH((integer_product<T>), blocks_for(g->batch * g->m * g->n, 256, 1 << 16), 256, 0, context, h,
              (const T *)g->a, (const T *)g->b, (T *)g->c, (const T *)g->bias);
    return launched();
}

extern "C" int PG_K(gemm)(const pg_context *context, int dtype, const pg_gemm *g) {
    if (g->batch <= 0 || g->m <= 0 || g->n <= 0) return PG_KERNEL_OK;
    switch (dtype) {
    case PG_K_FLOAT16:
    case PG_K_BFLOAT16:
    case PG_K_FLOAT32:
    case PG_K_FLOAT64: return floats(context, dtype, g);
    default: break;
    }
    if (g->activation != PG_K_ACT_NONE || g->aux) return PG_KERNEL_UNSUPPORTED;
    switch (dtype) {
        PG_CASES_INTEGER(return launch_integers<T>(context, g))
    default: return PG_KERNEL_UNSUPPORTED;
    }
}
