/* graph.h: captures and the graphs they become; and what a stream is, which both sides need. */
#ifndef PG_ON_CPU_GRAPH_H
#define PG_ON_CPU_GRAPH_H

#include <pthread.h>

#include <deque>
#include <memory>
#include <vector>

#include "include/on_cpu/launch.h"

struct CUgraph_st {
    std::vector<std::shared_ptr<on_cpu::work>> nodes;    /* in the order of the capture */
    cudaStream_t origin = nullptr;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    pthread_t thread;
    bool invalid = false;
};
struct CUgraphExec_st {
    std::vector<std::shared_ptr<on_cpu::work>> nodes;
};
struct CUstream_st {
    std::deque<on_cpu::work *> queue;
    unsigned flags = 0;
    CUgraph_st *capture = nullptr;      /* what is submitted goes there */
};

namespace on_cpu {

const std::vector<cudaStream_t> &all_streams(void);

cudaError_t capture_record(cudaStream_t stream, work &work);
/* The stream waits for an event recorded in a capture, and belongs to it from then on. */
cudaError_t capture_join(cudaStream_t stream, CUgraph_st *capture);
/* The capture will give no graph; gives `error`. */
cudaError_t capture_invalidate(CUgraph_st *capture, cudaError_t error);

}   // namespace on_cpu

#endif
