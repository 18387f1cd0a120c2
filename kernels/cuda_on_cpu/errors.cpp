/* errors.cpp: each thread's last error, the text of a kernel's failure, names and descriptions. */
#include "errors.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "device.h"

namespace on_cpu {

static char failure_text[1024];
static bool failure_pending;

/* A thread's last error is the value of its key: no thread_local, since those are the kernels' shared
 * memory (shared.cpp). */
static pthread_key_t last_error_key(void) {
    static pthread_key_t key;
    static const int made = pthread_key_create(&key, nullptr);
    (void)made;
    return key;
}
static cudaError_t last_error(void) { return (cudaError_t)(size_t)pthread_getspecific(last_error_key()); }
static void set_last_error(cudaError_t error) {
    pthread_setspecific(last_error_key(), (void *)(size_t)error);
}

static bool lost;

void lose_device(void) { lost = true; }

cudaError_t outcome(cudaError_t error) {
    if (lost) error = cudaErrorIllegalAddress;
    if (error != cudaSuccess && error != cudaErrorNotReady) set_last_error(error);
    return error;
}

void launch_failed(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure_text, sizeof failure_text, format, arguments);
    va_end(arguments);
    failure_pending = true;
}

cudaError_t take_failure(void) {
    if (!failure_pending) return cudaSuccess;
    failure_pending = false;
    return cudaErrorLaunchFailure;
}

struct error_words { cudaError_t error; const char *name, *description; };
static const error_words words[] = {
#define E(error, description) {error, #error, description}
    E(cudaSuccess, "no error"),
    E(cudaErrorInvalidValue, "invalid argument"),
    E(cudaErrorMemoryAllocation, "out of memory"),
    E(cudaErrorInitializationError, "initialization error"),
    E(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    E(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    E(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    E(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable"),
    E(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    E(cudaErrorInvalidDevice, "invalid device ordinal"),
    E(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    E(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    E(cudaErrorNotReady, "device not ready"),
    E(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    E(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    E(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped"),
    E(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    E(cudaErrorMisalignedAddress, "misaligned address"),
    E(cudaErrorLaunchFailure, failure_text),
    E(cudaErrorNotSupported, "operation not supported"),
    E(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    E(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    E(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    E(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    E(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    E(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    E(cudaErrorStreamCaptureImplicit,
      "operation would make the legacy stream depend on a capturing blocking stream"),
    E(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    E(cudaErrorStreamCaptureWrongThread,
      "attempt to terminate a thread-local capture sequence from another thread"),
    E(cudaErrorUnknown, "unknown error"),
#undef E
};
static const error_words *find(cudaError_t error) {
    for (const error_words &w : words) {
        if (w.error == error) return &w;
    }
    return nullptr;
}

}   // namespace on_cpu

using namespace on_cpu;

cudaError_t cudaPeekAtLastError(void) { return last_error(); }
cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last_error();
    set_last_error(cudaSuccess);
    return error;
}
const char *cudaGetErrorName(cudaError_t error) {
    const error_words *w = find(error);
    return w ? w->name : "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t error) {
    const error_words *w = find(error);
    return w ? w->description : "unrecognized error code";
}
