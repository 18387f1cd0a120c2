/* stream.cpp: streams and events.
 *
 * Usually work runs as soon as it is submitted, so queues are empty. In the late mode nothing runs before
 * somebody waits, and then the streams take turns at random: what events do not order comes in any order.
 */
#include "stream.h"

#include <time.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "device.h"
#include "errors.h"
#include "graph.h"
#include "memory.h"
#include "modes.h"

namespace on_cpu {

/* Outlives the event while work that knows it is queued. */
struct event_progress {
    unsigned long long done = 0;      /* the last record that ran */
    double time = 0;                  /* when, in seconds */
};

}   // namespace on_cpu

struct CUevent_st {
    std::shared_ptr<on_cpu::event_progress> progress = std::make_shared<on_cpu::event_progress>();
    unsigned long long recorded = 0;  /* how many records were asked for */
    CUgraph_st *capture = nullptr;    /* the last was recorded there, not run */
    bool timed = true;
    bool reached() const { return progress->done >= recorded; }
};

namespace on_cpu {

static CUstream_st legacy;
static std::vector<cudaStream_t> streams = {&legacy};

static cudaStream_t the(cudaStream_t stream) { return stream ? stream : &legacy; }
static bool known(cudaStream_t stream) {
    return std::find(streams.begin(), streams.end(), the(stream)) != streams.end();
}

/* ---- running ---- */

static void run_now(work &w) {
    const memory_open open;
    w.run();
}

/* One piece of a stream's work, where it has one that is ready. */
static bool step(cudaStream_t stream) {
    if (stream->queue.empty() || !stream->queue.front()->ready()) return false;
    work *first = stream->queue.front();
    stream->queue.pop_front();
    run_now(*first);
    delete first;
    return true;
}

static bool step_any(void) {
    const size_t start = random_below(streams.size());
    for (size_t i = 0; i < streams.size(); i++) {
        if (step(streams[(start + i) % streams.size()])) return true;
    }
    return false;
}

/* What events wait for was submitted before they were, so some stream can always go on. */
cudaError_t stream_drain(cudaStream_t stream) {
    stream = the(stream);
    while (!stream->queue.empty()) {
        if (random_below(4) == 0 || !step(stream)) step_any();
    }
    return take_failure();
}
cudaError_t stream_drain_all(void) {
    while (step_any()) {}
    return take_failure();
}

static void drain_blocking(void) {
    for (cudaStream_t s : streams) {
        if (!(s->flags & cudaStreamNonBlocking)) {
            while (!s->queue.empty()) {
                if (!step(s)) step_any();
            }
        }
    }
}

cudaError_t stream_submit(cudaStream_t stream, work &w) {
    if (!known(stream)) return cudaErrorInvalidResourceHandle;
    stream = the(stream);
    if (stream->capture) return capture_record(stream, w);
    if (stream == &legacy) {
        if (capture_forbids()) return cudaErrorStreamCaptureImplicit;
        drain_blocking();
    }
    if (!modes.late || stream == &legacy) {
        run_now(w);
        return take_failure();
    }
    stream->queue.push_back(w.keep());
    return cudaSuccess;
}

bool stream_capturing(cudaStream_t stream) { return the(stream)->capture != nullptr; }

const std::vector<cudaStream_t> &all_streams(void) { return streams; }

/* ---- events ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct record_work final : work {
    std::shared_ptr<event_progress> event;
    unsigned long long turn;
    record_work(std::shared_ptr<event_progress> e, unsigned long long t) : event(std::move(e)), turn(t) {}
    void run() override {
        event->done = turn;
        event->time = now();
    }
    work *keep() const override { return new record_work(*this); }
};
struct wait_work final : work {
    std::shared_ptr<event_progress> event;
    unsigned long long turn;
    wait_work(std::shared_ptr<event_progress> e, unsigned long long t) : event(std::move(e)), turn(t) {}
    bool ready() const override { return event->done >= turn; }
    void run() override {}
    work *keep() const override { return new wait_work(*this); }
};
struct host_work final : work {
    cudaHostFn_t function;
    void *argument;
    host_work(cudaHostFn_t f, void *a) : function(f), argument(a) {}
    void run() override { function(argument); }
    work *keep() const override { return new host_work(*this); }
};

}   // namespace on_cpu

using namespace on_cpu;

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) {
    const device_lock lock(device_mutex);
    if (flags & ~(unsigned)cudaStreamNonBlocking) return outcome(cudaErrorInvalidValue);
    *stream = new CUstream_st;
    (*stream)->flags = flags;
    streams.push_back(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const device_lock lock(device_mutex);
    if (!stream || !known(stream)) return outcome(cudaErrorInvalidResourceHandle);
    const cudaError_t error = stream_drain(stream);
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    delete stream;
    return outcome(error);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const device_lock lock(device_mutex);
    if (!known(stream)) return outcome(cudaErrorInvalidResourceHandle);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    if (the(stream)->capture)
        return outcome(capture_invalidate(the(stream)->capture, cudaErrorStreamCaptureUnsupported));
    return outcome(stream_drain(stream));
}
cudaError_t cudaDeviceSynchronize(void) {
    const device_lock lock(device_mutex);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    return outcome(stream_drain_all());
}
/* In the late mode asking makes some progress, so that who asks again and again gets there. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const device_lock lock(device_mutex);
    if (!known(stream)) return outcome(cudaErrorInvalidResourceHandle);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    if (the(stream)->capture)
        return outcome(capture_invalidate(the(stream)->capture, cudaErrorStreamCaptureUnsupported));
    if (the(stream)->queue.empty()) return outcome(take_failure());
    step_any();
    return cudaErrorNotReady;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument) {
    const device_lock lock(device_mutex);
    host_work w(function, argument);
    return outcome(stream_submit(stream, w));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    const device_lock lock(device_mutex);
    *event = new CUevent_st;
    (*event)->timed = !(flags & cudaEventDisableTiming);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const device_lock lock(device_mutex);
    if (!event) return outcome(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const device_lock lock(device_mutex);
    if (!event || !known(stream)) return outcome(cudaErrorInvalidResourceHandle);
    event->capture = the(stream)->capture;
    if (event->capture) return cudaSuccess;
    record_work w(event->progress, ++event->recorded);
    return outcome(stream_submit(stream, w));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const device_lock lock(device_mutex);
    if (!event || !known(stream)) return outcome(cudaErrorInvalidResourceHandle);
    if (event->capture) return outcome(capture_join(the(stream), event->capture));
    if (the(stream)->capture) {
        /* What was recorded outside a capture is no part of it. */
        return outcome(event->recorded
                           ? capture_invalidate(the(stream)->capture, cudaErrorStreamCaptureIsolation)
                           : cudaSuccess);
    }
    if (event->reached()) return cudaSuccess;
    wait_work w(event->progress, event->recorded);
    return outcome(stream_submit(stream, w));
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    const device_lock lock(device_mutex);
    if (!event) return outcome(cudaErrorInvalidResourceHandle);
    if (event->capture) return outcome(cudaErrorCapturedEvent);
    if (event->reached()) return cudaSuccess;
    step_any();
    return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const device_lock lock(device_mutex);
    if (!event) return outcome(cudaErrorInvalidResourceHandle);
    if (event->capture) return outcome(cudaErrorCapturedEvent);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    while (!event->reached()) step_any();
    return outcome(take_failure());
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const device_lock lock(device_mutex);
    if (!start || !end || !start->timed || !end->timed || !start->recorded || !end->recorded) {
        return outcome(cudaErrorInvalidResourceHandle);
    }
    if (!start->reached() || !end->reached()) return outcome(cudaErrorNotReady);
    *milliseconds = (float)(1e3 * (end->progress->time - start->progress->time));
    return cudaSuccess;
}
