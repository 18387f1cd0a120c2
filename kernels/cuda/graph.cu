/* graph.cu: recording what comes on a stream, and running it again as a whole. */
#include "runtime.h"

/* Relaxed: allocations by the cache, which do not touch what is recorded, are allowed meanwhile. */
int pg_cuda_capture_begin(void *stream) {
    return PG_CUDA_TRY(cudaStreamBeginCapture((cudaStream_t)stream, cudaStreamCaptureModeRelaxed));
}

int pg_cuda_capture_end(void *stream, void **out) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    int status = PG_CUDA_TRY(cudaStreamEndCapture((cudaStream_t)stream, &graph));
    if (status == PG_CUDA_OK && out) status = PG_CUDA_TRY(cudaGraphInstantiate(&ready, graph, 0));
    if (graph) cudaGraphDestroy(graph);
    if (out) *out = ready;
    return status;
}

int pg_cuda_graph_launch(void *graph, void *stream) {
    return PG_CUDA_TRY(cudaGraphLaunch((cudaGraphExec_t)graph, (cudaStream_t)stream));
}

int pg_cuda_graph_free(void *graph) { return PG_CUDA_TRY(cudaGraphExecDestroy((cudaGraphExec_t)graph)); }
