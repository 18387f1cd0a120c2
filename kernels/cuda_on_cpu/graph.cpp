/* graph.cpp: stream capture and graphs. A graph is the list of what was submitted, in that order, which is
 * one of those that the captured events allow; a replay goes through the list. */
#include "graph.h"

#include "device.h"
#include "errors.h"
#include "stream.h"

namespace on_cpu {

/* Each thread's mode decides whether others' captures concern it: as the runtime, "global" at first. */
static pthread_key_t mode_key(void) {
    static pthread_key_t key;
    static const int made = pthread_key_create(&key, nullptr);
    (void)made;
    return key;
}
static cudaStreamCaptureMode thread_mode(void) {
    return (cudaStreamCaptureMode)(size_t)pthread_getspecific(mode_key());
}

cudaError_t capture_invalidate(CUgraph_st *capture, cudaError_t error) {
    capture->invalid = true;
    return error;
}

bool capture_forbids(void) {
    if (thread_mode() == cudaStreamCaptureModeRelaxed) return false;
    bool forbids = false;
    for (cudaStream_t s : all_streams()) {
        CUgraph_st *c = s->capture;
        if (!c || c->mode == cudaStreamCaptureModeRelaxed) continue;
        const bool own = pthread_equal(c->thread, pthread_self());
        const bool others =
            c->mode == cudaStreamCaptureModeGlobal && thread_mode() == cudaStreamCaptureModeGlobal;
        if (own || others) {
            c->invalid = true;
            forbids = true;
        }
    }
    return forbids;
}

cudaError_t capture_record(cudaStream_t stream, work &w) {
    if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
    stream->capture->nodes.emplace_back(w.keep());
    return cudaSuccess;
}

cudaError_t capture_join(cudaStream_t stream, CUgraph_st *capture) {
    if (stream->capture && stream->capture != capture)
        return capture_invalidate(capture, cudaErrorStreamCaptureMerge);
    if (!stream->queue.empty()) {
        /* What is queued comes before the capture and stays outside of it. */
        const cudaError_t error = stream_drain(stream);
        if (error != cudaSuccess) return error;
    }
    stream->capture = capture;
    return cudaSuccess;
}

struct node_work final : work {
    std::shared_ptr<work> node;
    explicit node_work(std::shared_ptr<work> n) : node(std::move(n)) {}
    void run() override { node->run(); }
    work *keep() const override { return new node_work(*this); }
};

}   // namespace on_cpu

using namespace on_cpu;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    const device_lock lock(device_mutex);
    if (!stream) return outcome(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return outcome(cudaErrorStreamCaptureUnsupported);
    if ((unsigned)mode > cudaStreamCaptureModeRelaxed) return outcome(cudaErrorInvalidValue);
    CUgraph_st *graph = new CUgraph_st;
    graph->origin = stream;
    graph->mode = mode;
    graph->thread = pthread_self();
    stream->capture = graph;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    const device_lock lock(device_mutex);
    *graph = nullptr;
    CUgraph_st *capture = stream ? stream->capture : nullptr;
    if (!capture) return outcome(cudaErrorInvalidValue);
    if (capture->origin != stream)
        return outcome(capture_invalidate(capture, cudaErrorStreamCaptureUnmatched));
    if (capture->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(capture->thread, pthread_self())) {
        return outcome(cudaErrorStreamCaptureWrongThread);
    }
    for (cudaStream_t s : all_streams()) {
        if (s->capture == capture) s->capture = nullptr;
    }
    if (capture->invalid) {
        delete capture;
        return outcome(cudaErrorStreamCaptureInvalidated);
    }
    *graph = capture;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    const device_lock lock(device_mutex);
    CUgraph_st *capture = stream ? stream->capture : nullptr;
    *status = !capture ? cudaStreamCaptureStatusNone
        : capture->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
    const cudaStreamCaptureMode before = thread_mode();
    pthread_setspecific(mode_key(), (void *)(size_t)*mode);
    *mode = before;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
    const device_lock lock(device_mutex);
    if (!graph) return outcome(cudaErrorInvalidValue);
    *executable = new CUgraphExec_st{graph->nodes};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    const device_lock lock(device_mutex);
    if (!executable) return outcome(cudaErrorInvalidValue);
    for (const auto &node : executable->nodes) {
        node_work w(node);
        const cudaError_t error = stream_submit(stream, w);
        if (error != cudaSuccess) return outcome(error);
    }
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    const device_lock lock(device_mutex);
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    const device_lock lock(device_mutex);
    delete executable;
    return cudaSuccess;
}
