/* device.cu: opening the library, finding the devices, and what went wrong. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime.h"

extern "C" const pg_kernels pg_kernels_cuda;

/* ---- failures ---- */

static thread_local char message[512] __attribute__((section(".tdata")));   /* see cuda_on_cpu/shared.cpp */

static const char *error(void) { return message; }

int pg_cuda_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return PG_CUDA_FAILED;
}

int pg_cuda_status(cudaError_t result, const char *call) {
    if (result == cudaSuccess) return PG_CUDA_OK;
    cudaGetLastError();
    if (result == cudaErrorNotReady) return PG_CUDA_BUSY;
    const char *arguments = strchr(call, '(');
    snprintf(message, sizeof message, "%.*s: %s (%s)", arguments ? (int)(arguments - call) : 64, call,
             cudaGetErrorString(result), cudaGetErrorName(result));
    return result == cudaErrorMemoryAllocation ? PG_CUDA_MEMORY : PG_CUDA_FAILED;
}

static const char *failure(void) {
    const cudaError_t result = cudaGetLastError();
    if (result == cudaSuccess) return message[0] ? message : "the kernel gives no reason";
    snprintf(message, sizeof message, "%s (%s)", cudaGetErrorString(result), cudaGetErrorName(result));
    return message;
}

/* ---- devices ---- */

static int devices(int *n) {
    int driver = 0, runtime = 0;
    *n = 0;
    const cudaError_t result = cudaGetDeviceCount(n);
    if (result == cudaSuccess && *n > 0) return PG_CUDA_OK;
    *n = 0;
    cudaGetLastError();
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return pg_cuda_fail("no NVIDIA driver is installed");
    if (result == cudaErrorInsufficientDriver) {
        cudaRuntimeGetVersion(&runtime);
        return pg_cuda_fail("the NVIDIA driver is too old: it offers CUDA %d.%d, this build needs %d.%d", driver / 1000,
                            driver / 10 % 100, runtime / 1000, runtime / 10 % 100);
    }
    if (result == cudaSuccess || result == cudaErrorNoDevice) return pg_cuda_fail("the NVIDIA driver finds no GPU");
    return pg_cuda_status(result, "cudaGetDeviceCount");
}

static int properties(int device, pg_cuda_properties *out) {
    cudaDeviceProp p;
    const int status = PG_CUDA_TRY(cudaGetDeviceProperties(&p, device));
    if (status != PG_CUDA_OK) return status;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", p.name);
    out->major = p.major;
    out->minor = p.minor;
    out->multi_processors = p.multiProcessorCount;
    out->warp_size = p.warpSize;
    out->threads_per_block = p.maxThreadsPerBlock;
    out->threads_per_multi_processor = p.maxThreadsPerMultiProcessor;
    out->total_memory = p.totalGlobalMem;
    out->shared_per_block = p.sharedMemPerBlockOptin;
    out->shared_per_multi_processor = p.sharedMemPerMultiprocessor;
    out->l2_cache = (size_t)p.l2CacheSize;
    return PG_CUDA_OK;
}

/* The runtime's own answer to cudaSetDevice costs more than a launch's share should. */
static thread_local int current = -1;

int pg_cuda_use(int device) {
    if (device == current) return PG_CUDA_OK;
    const int status = PG_CUDA_TRY(cudaSetDevice(device));
    current = status == PG_CUDA_OK ? device : -1;
    return status;
}

static int synchronize(int device) {
    const int status = pg_cuda_use(device);
    return status == PG_CUDA_OK ? PG_CUDA_TRY(cudaDeviceSynchronize()) : status;
}

/* ---- the library ---- */

#ifdef __CUDACC__
enum { EMULATED = false };
#else
enum { EMULATED = true };
#endif

extern "C" __attribute__((visibility("default"))) const pg_cuda_library *pg_cuda_library_open(void) {
    static const pg_cuda_library library = {
        PG_CUDA_LIBRARY_HASH, EMULATED, &pg_kernels_cuda, error, failure,
        devices, properties, pg_cuda_use, synchronize,
        pg_cuda_memory, pg_cuda_allocate, pg_cuda_release, pg_cuda_allocate_pinned, pg_cuda_release_pinned, pg_cuda_copy,
        pg_cuda_stream_new, pg_cuda_stream_query, pg_cuda_stream_synchronize, pg_cuda_stream_wait,
        pg_cuda_event_new, pg_cuda_event_free, pg_cuda_event_record, pg_cuda_event_query, pg_cuda_event_synchronize,
        pg_cuda_event_elapsed,
        pg_cuda_capture_begin, pg_cuda_capture_end, pg_cuda_graph_launch, pg_cuda_graph_free,
    };
    return &library;
}
