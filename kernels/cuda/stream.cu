/* stream.cu: streams and events. */
#include "runtime.h"

int pg_cuda_stream_new(int device, bool urgent, void **out) {
    int least = 0, greatest = 0, status = pg_cuda_use(device);
    cudaStream_t stream = nullptr;
    if (status == PG_CUDA_OK) status = PG_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    if (status == PG_CUDA_OK)
        status = PG_CUDA_TRY(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, urgent ? greatest : least));
    *out = stream;
    return status;
}

int pg_cuda_stream_query(void *stream) { return PG_CUDA_TRY(cudaStreamQuery((cudaStream_t)stream)); }

int pg_cuda_stream_synchronize(void *stream) { return PG_CUDA_TRY(cudaStreamSynchronize((cudaStream_t)stream)); }

int pg_cuda_stream_wait(void *stream, void *event) {
    return PG_CUDA_TRY(cudaStreamWaitEvent((cudaStream_t)stream, (cudaEvent_t)event, 0));
}

int pg_cuda_event_new(int device, bool timed, void **out) {
    int status = pg_cuda_use(device);
    cudaEvent_t event = nullptr;
    if (status == PG_CUDA_OK)
        status = PG_CUDA_TRY(cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming));
    *out = event;
    return status;
}

int pg_cuda_event_free(void *event) { return PG_CUDA_TRY(cudaEventDestroy((cudaEvent_t)event)); }

int pg_cuda_event_record(void *event, void *stream) {
    return PG_CUDA_TRY(cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream));
}

int pg_cuda_event_query(void *event) { return PG_CUDA_TRY(cudaEventQuery((cudaEvent_t)event)); }

int pg_cuda_event_synchronize(void *event) { return PG_CUDA_TRY(cudaEventSynchronize((cudaEvent_t)event)); }

int pg_cuda_event_elapsed(double *milliseconds, void *from, void *to) {
    float elapsed = 0;
    const int status = PG_CUDA_TRY(cudaEventElapsedTime(&elapsed, (cudaEvent_t)from, (cudaEvent_t)to));
    *milliseconds = elapsed;
    return status;
}
