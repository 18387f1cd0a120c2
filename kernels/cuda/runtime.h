/* runtime.h: what the files that speak to the CUDA runtime share. They hold no kernels. */
#ifndef PG_CUDA_RUNTIME_H
#define PG_CUDA_RUNTIME_H

#include <cuda_runtime.h>

#include "library.h"

/* The call's result as a status of library.h; what went wrong is kept for error() and forgotten by the runtime. */
int pg_cuda_status(cudaError_t result, const char *call);
#define PG_CUDA_TRY(call) pg_cuda_status(call, #call)
/* A failure of ours, not the runtime's. */
int pg_cuda_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* device.cu */
int pg_cuda_use(int device);
/* memory.cu */
int pg_cuda_memory(int device, size_t *free_bytes, size_t *total);
int pg_cuda_allocate(int device, size_t bytes, void **out);
int pg_cuda_release(int device, void *memory);
int pg_cuda_allocate_pinned(size_t bytes, void **out);
int pg_cuda_release_pinned(void *memory);
int pg_cuda_copy(void *stream, void *to, const void *from, size_t bytes, int kind);
/* stream.cu */
int pg_cuda_stream_new(int device, bool urgent, void **out);
int pg_cuda_stream_query(void *stream);
int pg_cuda_stream_synchronize(void *stream);
int pg_cuda_stream_wait(void *stream, void *event);
int pg_cuda_event_new(int device, bool timed, void **out);
int pg_cuda_event_free(void *event);
int pg_cuda_event_record(void *event, void *stream);
int pg_cuda_event_query(void *event);
int pg_cuda_event_synchronize(void *event);
int pg_cuda_event_elapsed(double *milliseconds, void *from, void *to);
/* graph.cu */
int pg_cuda_capture_begin(void *stream);
int pg_cuda_capture_end(void *stream, void **graph);
int pg_cuda_graph_launch(void *graph, void *stream);
int pg_cuda_graph_free(void *graph);

#endif
