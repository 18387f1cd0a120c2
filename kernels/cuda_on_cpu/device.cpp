/* device.cpp: the device's properties, and what a launch may ask of it. It says that it is a Hopper-class
 * GPU, so that kernels take the ways they would take there. */
#include "device.h"

#include <pthread.h>
#include <string.h>

#include <map>

#include "errors.h"
#include "include/on_cpu/launch.h"
#include "memory.h"
#include "modes.h"
#include "stream.h"

namespace on_cpu {

std::recursive_mutex device_mutex;

/* Bytes of shared memory a block: without asking, and at most (compute capability 9.0). */
enum { SHARED_BYTES = 48 << 10, SHARED_BYTES_OPTIN = 227 << 10, PROCESSORS = 4 };

/* Kernels that asked for more dynamic shared memory. */
static std::map<const void *, size_t> shared_limits;

static cudaError_t check_shape(const launch_shape &s) {
    const unsigned long long threads = (unsigned long long)s.block.x * s.block.y * s.block.z;
    if (threads == 0 || threads > 1024 || s.block.x > 1024 || s.block.y > 1024 || s.block.z > 64) {
        return cudaErrorInvalidConfiguration;
    }
    if (s.grid.x == 0 || s.grid.y == 0 || s.grid.z == 0 || s.grid.x > 0x7fffffffu || s.grid.y > 65535 ||
        s.grid.z > 65535) {
        return cudaErrorInvalidConfiguration;
    }
    if (s.shared_bytes > SHARED_BYTES) {
        const auto limit = shared_limits.find(s.kernel);
        if (limit == shared_limits.end() || s.shared_bytes > limit->second) return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

cudaError_t submit(cudaStream_t stream, work &w) {
    const device_lock lock(device_mutex);
    return outcome(stream_submit(stream, w));
}
void submit_launch(const launch_shape &shape, cudaStream_t stream, work &launch) {
    const device_lock lock(device_mutex);
    static unsigned long long launches;
    cudaError_t error = check_shape(shape);
    launches++;
    if (launches == modes.refuse) error = cudaErrorLaunchOutOfResources;
    if (launches == modes.lose) lose_device();
    outcome(error != cudaSuccess ? error : stream_submit(stream, launch));
}

}   // namespace on_cpu

using namespace on_cpu;

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    const device_lock lock(device_mutex);
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > SHARED_BYTES_OPTIN) {
        return outcome(cudaErrorInvalidValue);
    }
    shared_limits[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }

/* The thread's current device is the value of its key, as its last error is. */
static pthread_key_t device_key(void) {
    static pthread_key_t key;
    static const int made = pthread_key_create(&key, nullptr);
    (void)made;
    return key;
}
static bool is_device(int device) { return device >= 0 && device < modes.devices; }

cudaError_t cudaGetDeviceCount(int *count) {
    *count = modes.devices;
    return outcome(modes.devices > 0 ? cudaSuccess : cudaErrorNoDevice);
}
int on_cpu::current_device(void) { return (int)(size_t)pthread_getspecific(device_key()); }
cudaError_t cudaGetDevice(int *device) { return *device = current_device(), cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
    if (!is_device(device)) return outcome(cudaErrorInvalidDevice);
    pthread_setspecific(device_key(), (void *)(size_t)device);
    return outcome(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    if (!is_device(device)) return outcome(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    strcpy(p->name, "CUDA emulated on the CPU");
    p->totalGlobalMem = modes.memory;
    p->sharedMemPerBlock = SHARED_BYTES;
    p->sharedMemPerBlockOptin = SHARED_BYTES_OPTIN;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->multiProcessorCount = PROCESSORS;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = 9;
    p->l2CacheSize = 1 << 20;
    p->memoryBusWidth = 64;
    p->canMapHostMemory = p->unifiedAddressing = p->concurrentKernels = p->asyncEngineCount = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (!is_device(device)) return outcome(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_BYTES; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHARED_BYTES_OPTIN; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = PROCESSORS; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    default: return outcome(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
