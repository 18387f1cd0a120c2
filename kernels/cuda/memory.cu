/* memory.cu: memory of devices and pinned memory of the host, and copies between them. */
#include "runtime.h"

int pg_cuda_memory(int device, size_t *free_bytes, size_t *total) {
    const int status = pg_cuda_use(device);
    return status == PG_CUDA_OK ? PG_CUDA_TRY(cudaMemGetInfo(free_bytes, total)) : status;
}

int pg_cuda_allocate(int device, size_t bytes, void **out) {
    *out = nullptr;
    const int status = pg_cuda_use(device);
    return status == PG_CUDA_OK ? PG_CUDA_TRY(cudaMalloc(out, bytes)) : status;
}

int pg_cuda_release(int device, void *memory) {
    const int status = pg_cuda_use(device);
    return status == PG_CUDA_OK ? PG_CUDA_TRY(cudaFree(memory)) : status;
}

int pg_cuda_allocate_pinned(size_t bytes, void **out) {
    *out = nullptr;
    return PG_CUDA_TRY(cudaHostAlloc(out, bytes, cudaHostAllocPortable | cudaHostAllocMapped));
}

int pg_cuda_release_pinned(void *memory) { return PG_CUDA_TRY(cudaFreeHost(memory)); }

int pg_cuda_copy(void *stream, void *to, const void *from, size_t bytes, int kind) {
    if (bytes == 0) return PG_CUDA_OK;
    const cudaMemcpyKind way = kind == PG_CUDA_TO_DEVICE ? cudaMemcpyHostToDevice
                               : kind == PG_CUDA_TO_HOST ? cudaMemcpyDeviceToHost : cudaMemcpyDefault;
    return PG_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, way, (cudaStream_t)stream));
}
