/* cublaslt.cu: what the stand-in of cuBLASLt refuses, with which status, and what it computes. Prints a line
 * for each case that is not as it should be, then "N cases".
 */
#include "../../kernels/cuda_on_cpu/cublaslt.cpp"

#include <stdio.h>
#include <stdlib.h>

static int cases;

static void expect(const char *what, cublasStatus_t got, cublasStatus_t wanted) {
    cases++;
    if (got != wanted)
        printf("%s: %s, not %s\n", what, cublasLtGetStatusName(got), cublasLtGetStatusName(wanted));
}
static void near(const char *what, double got, double wanted, double tolerance) {
    cases++;
    if (!(fabs(got - wanted) <= tolerance)) printf("%s: %.9g, not %.9g\n", what, got, wanted);
}

/* A product (m, n, k) by columns with everything right: each case makes one thing wrong. */
struct request {
    cudaDataType type = CUDA_R_32F;
    cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
    cudaDataType scale = CUDA_R_32F;
    uint64_t m = 24, n = 5, k = 7, k_of_b = 7;
    int64_t lda = 24, ldb = 7, ldc = 24, aux_ld = 24, stride = 24 * 5;
    int32_t transa = CUBLAS_OP_N, batch = 1;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT, align = 16;
    uint64_t workspace = 1 << 20;
    void *bias = nullptr, *aux = nullptr;
};
struct made {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulHeuristicResult_t result;
    cublasStatus_t status;
};
static cublasLtHandle_t handle;
static float *a, *b, *c;   /* device memory, 4096 floats each: a[i] = i % 13 - 6, b[i] = i % 7 - 3 */

static made plan(const request &r) {
    made p;
    int found = 0;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulDescCreate(&p.desc, r.compute, r.scale);
    cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_TRANSA, &r.transa, sizeof r.transa);
    cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &r.epilogue, sizeof r.epilogue);
    cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &r.bias, sizeof r.bias);
    cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &r.aux, sizeof r.aux);
    cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &r.aux_ld, sizeof r.aux_ld);
    cublasLtMatrixLayoutCreate(&p.a, r.type, r.transa ? r.k : r.m, r.transa ? r.m : r.k, r.lda);
    cublasLtMatrixLayoutCreate(&p.b, r.type, r.k_of_b, r.n, r.ldb);
    cublasLtMatrixLayoutCreate(&p.c, r.type, r.m, r.n, r.ldc);
    cublasLtMatrixLayoutSetAttribute(p.c, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &r.stride,
                                     sizeof r.stride);
    for (cublasLtMatrixLayout_t l : {p.a, p.b, p.c})
        cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &r.batch, sizeof r.batch);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &r.workspace,
                                         sizeof r.workspace);
    for (int i = 0; i < 4; i++)
        cublasLtMatmulPreferenceSetAttribute(
            preference,
            (cublasLtMatmulPreferenceAttributes_t)(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i), &r.align,
            sizeof r.align);
    p.status =
        cublasLtMatmulAlgoGetHeuristic(handle, p.desc, p.a, p.b, p.c, p.c, preference, 1, &p.result, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    return p;
}
static cublasStatus_t run(const made &p, const void *x, void *workspace = nullptr, size_t bytes = 0,
                          float beta = 0) {
    const float alpha = 1;
    return cublasLtMatmul(handle, p.desc, &alpha, x, p.a, b, p.b, &beta, c, p.c, c, p.c, &p.result.algo,
                          workspace, bytes, nullptr);
}
static float dot(int i, int j, int lda, int k) {
    float sum = 0;
    for (int l = 0; l < k; l++) sum += (float)((i + l * lda) % 13 - 6) * (float)((l + j * k) % 7 - 3);
    return sum;
}
static float read_back(const float *p) {
    float x;
    cudaDeviceSynchronize();
    cudaMemcpy(&x, p, sizeof x, cudaMemcpyDeviceToHost);
    return x;
}

static void refusals() {
    request r;
    expect("all right", plan(r).status, CUBLAS_STATUS_SUCCESS);
    r = request(), r.k_of_b = 6, expect("inner sizes", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.lda = 23,
    expect("a short leading dimension", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.ldc = 23, expect("c's leading dimension", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.transa = CUBLAS_OP_T, r.lda = 6,
    expect("a transposed", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.batch = 2, r.stride = 24 * 5 - 1,
    expect("overlapping c", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.m = r.lda = r.ldc = (uint64_t)1 << 31,
    expect("2^31 rows", plan(r).status, CUBLAS_STATUS_NOT_SUPPORTED);
    r = request(), r.scale = CUDA_R_64F,
    expect("scale of another type", plan(r).status, CUBLAS_STATUS_NOT_SUPPORTED);
    r = request(), r.type = CUDA_R_16F, r.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    expect("TF32 of halves", plan(r).status, CUBLAS_STATUS_NOT_SUPPORTED);
    r = request(), r.epilogue = 3,
    expect("an epilogue that is none", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.type = r.scale = CUDA_R_64F, r.compute = CUBLAS_COMPUTE_64F,
    r.epilogue = CUBLASLT_EPILOGUE_BIAS;
    expect("float64's bias", plan(r).status, CUBLAS_STATUS_NOT_SUPPORTED);
    r = request(), r.epilogue = CUBLASLT_EPILOGUE_GELU_AUX, r.aux = c, r.aux_ld = 28;
    expect("aux's leading dimension, not a multiple of 8", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);
    r.aux_ld = 16, expect("aux's leading dimension, short", plan(r).status, CUBLAS_STATUS_INVALID_VALUE);

    const made good = plan(request());
    expect("a product", run(good, a), CUBLAS_STATUS_SUCCESS);
    expect("an address less aligned than was promised", run(good, a + 1), CUBLAS_STATUS_INVALID_VALUE);
    expect("no operand", run(good, nullptr), CUBLAS_STATUS_INVALID_VALUE);
    made other = good;
    r = request(), r.n = 4, other.result = plan(r).result;
    expect("an algorithm chosen for another product", run(other, a), CUBLAS_STATUS_INVALID_VALUE);
    memset(&other.result.algo, 0, sizeof other.result.algo);
    expect("an algorithm that is none", run(other, a), CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.epilogue = CUBLASLT_EPILOGUE_BIAS;
    expect("no bias", run(plan(r), a), CUBLAS_STATUS_INVALID_VALUE);
    r = request(), r.m = r.lda = r.ldc = 8, r.n = 2, r.k = r.k_of_b = r.ldb = 100, r.stride = 16;
    const made deep = plan(r);
    cases++;
    if (deep.result.workspaceSize == 0) printf("no workspace for a deep product\n");
    expect("a workspace too small", run(deep, a, c + 1024, deep.result.workspaceSize - 1),
           CUBLAS_STATUS_INVALID_VALUE);
    expect("a workspace that is not aligned", run(deep, a, c + 1025, deep.result.workspaceSize),
           CUBLAS_STATUS_INVALID_VALUE);
    expect("a workspace", run(deep, a, c + 1024, deep.result.workspaceSize), CUBLAS_STATUS_SUCCESS);
    cases++;
    if (read_back(c + 1024) == read_back(c + 1024)) printf("the workspace was not overwritten\n");
    near("a deep product", read_back(c + 8 + 3), dot(3, 1, 8, 100), 0);
    const float one = 1;
    expect("no handle",
           cublasLtMatmul(nullptr, good.desc, &one, a, good.a, b, good.b, &one, c, good.c, c, good.c,
                          &good.result.algo, nullptr, 0, nullptr),
           CUBLAS_STATUS_NOT_INITIALIZED);
    const int32_t wrong = 0;
    expect("an attribute's size",
           cublasLtMatmulDescSetAttribute(good.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &wrong, sizeof wrong),
           CUBLAS_STATUS_INVALID_VALUE);
}

static void values() {
    request r;
    expect("default", run(plan(r), a), CUBLAS_STATUS_SUCCESS);
    near("default", read_back(c + 2 * 24 + 9), dot(9, 2, 24, 7), 0);
    expect("beta", run(plan(r), a, nullptr, 0, 2), CUBLAS_STATUS_SUCCESS);
    near("beta", read_back(c + 2 * 24 + 9), 3 * dot(9, 2, 24, 7), 0);

    r.epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS, r.bias = b, r.aux = c + 512;
    expect("gelu", run(plan(r), a), CUBLAS_STATUS_SUCCESS);
    const double x = dot(9, 2, 24, 7) + (9 % 7 - 3);   /* the bias is a row's */
    near("aux", read_back(c + 512 + 2 * 24 + 9), x, 0);
    near("gelu", read_back(c + 2 * 24 + 9), 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))),
         1e-5);

    const float fine = 1 + 0x1p-11f, coarse = 1 + 0x1p-10f, one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    cudaMemcpy(a, &fine, sizeof fine, cudaMemcpyHostToDevice);
    cudaMemcpy(a + 4, &coarse, sizeof coarse, cudaMemcpyHostToDevice);
    cudaMemcpy(b, one, sizeof one, cudaMemcpyHostToDevice);
    r = request(), r.m = r.n = r.k = r.k_of_b = 1, r.lda = r.ldb = r.ldc = 1, r.stride = 1;
    run(plan(r), a);
    near("float32 keeps 24 bits", read_back(c), fine, 0);
    r.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    run(plan(r), a);
    near("TF32 keeps 11 bits", read_back(c), coarse, 0);
    run(plan(r), a + 4);
    near("and those it keeps", read_back(c), coarse, 0);
}

int main() {
    float numbers[4096];
    for (float **p : {&a, &b, &c}) {
        if (cudaMalloc((void **)p, sizeof numbers) != cudaSuccess) return 1;
        for (int i = 0; i < 4096; i++) numbers[i] = (float)(p == &a ? i % 13 - 6 : i % 7 - 3);
        cudaMemcpy(*p, numbers, sizeof numbers, cudaMemcpyHostToDevice);
    }
    cublasLtCreate(&handle);
    refusals();
    values();
    printf("%d cases\n", cases);
}
