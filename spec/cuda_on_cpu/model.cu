/* model.cu: what CUDA promises a kernel and its host, one case a promise: prints "NAME right", or "NAME
 * wrong: LINE". */
#include <cuda_runtime.h>

#include <cuda_on_cpu.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "on_cpu/async_copy.h"

struct launcher { void *stream; };
static launcher *context;
static cudaStream_t stream;

enum { N = 1024 };
static int *device, host[N];

static int wrong_line;
#define EXPECT(condition) \
    do { \
        if (!(condition) && wrong_line == 0) wrong_line = __LINE__; \
    } while (0)

static void fetch(void) {
    EXPECT(cudaStreamSynchronize(stream) == cudaSuccess);
    EXPECT(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost) == cudaSuccess);
}

/* ---- indices ---- */

static __global__ void indices(int *out) {
    const int thread = (int)(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    const int block = (int)(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
    const int threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    out[block * threads + thread] = 1000 * block + thread;
}
static void run_indices(void) {
    PG_LAUNCH(indices, dim3(2, 3, 2), dim3(4, 3, 5), 0, context, device);
    fetch();
    for (int i = 0; i < 12 * 60; i++) EXPECT(host[i] == 1000 * (i / 60) + i % 60);
}

/* ---- barriers ---- */

static __global__ void votes(int *out) {
    const int i = (int)threadIdx.x;
    out[i] = __syncthreads_or(i == 70) + 2 * __syncthreads_or(0) + 4 * __syncthreads_and(i < 100) +
             8 * __syncthreads_and(i < 99) + 16 * __syncthreads_count(i % 3 == 0);
}
static void run_votes(void) {
    PG_LAUNCH(votes, 1, 100, 0, context, device);
    fetch();
    for (int i = 0; i < 100; i++) EXPECT(host[i] == 1 + 4 + 16 * 34);
}

/* Two halves of a block, each with a barrier of its own, go round at their own pace. */
static __device__ void half_barrier(int half) {
    on_cpu::barrier(1 + half, 32, 0, on_cpu::BARRIER_PLAIN, __FILE__, __LINE__);
}
static __global__ void named_barriers(int *out) {
    __shared__ int s[64];
    const int half = (int)threadIdx.x / 32, i = (int)threadIdx.x;
    s[i] = 0;
    half_barrier(half);
    for (int round = 0; round < (half ? 5 : 3); round++) {
        const int next = s[half * 32 + (i + 1) % 32] + 1;
        half_barrier(half);
        s[i] = next;
        half_barrier(half);
    }
    out[i] = s[i];
}
static void run_named_barriers(void) {
    PG_LAUNCH(named_barriers, 1, 64, 0, context, device);
    fetch();
    for (int i = 0; i < 64; i++) EXPECT(host[i] == (i < 32 ? 3 : 5));
}

/* ---- warps ---- */

static __global__ void shuffles(int *out) {
    const int lane = (int)threadIdx.x % 32, x = 100 + lane;
    out += threadIdx.x;
    out[0 * 64] = __shfl_sync(~0u, x, 5);
    out[1 * 64] = __shfl_sync(~0u, x, 37);             /* modulo the width */
    out[2 * 64] = __shfl_sync(~0u, x, 3, 8);
    out[3 * 64] = __shfl_up_sync(~0u, x, 2);
    out[4 * 64] = __shfl_up_sync(~0u, x, 3, 16);
    out[5 * 64] = __shfl_down_sync(~0u, x, 1);
    out[6 * 64] = __shfl_down_sync(~0u, x, 4, 8);
    out[7 * 64] = __shfl_xor_sync(~0u, x, 17);
    out[8 * 64] = (int)__shfl_xor_sync(~0u, 1e300 * x, 1) == 0;      /* eight bytes */
    out[9 * 64] = (int)(__shfl_xor_sync(~0u, (double)x, 4));
}
static void run_shuffles(void) {
    PG_LAUNCH(shuffles, 1, 64, 0, context, device);
    fetch();
    for (int t = 0; t < 64; t++) {
        const int lane = t % 32;
        const int want[] = {105, 105, 100 + lane / 8 * 8 + 3, 100 + (lane < 2 ? lane : lane - 2),
                            100 + (lane % 16 < 3 ? lane : lane - 3), 100 + (lane == 31 ? 31 : lane + 1),
                            100 + (lane % 8 > 3 ? lane : lane + 4), 100 + (lane ^ 17)};
        for (int k = 0; k < 8; k++) EXPECT(host[k * 64 + t] == want[k]);
        EXPECT(host[9 * 64 + t] == 100 + (lane ^ 4));
    }
}

static __global__ void warp_votes(int *out) {
    const int lane = (int)threadIdx.x % 32;
    const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    out += threadIdx.x;
    out[0 * 32] = (int)__ballot_sync(~0u, lane % 4 == 0);
    out[1 * 32] = (int)__ballot_sync(half, lane % 4 == 0);
    out[2 * 32] = __any_sync(half, lane == 3);
    out[3 * 32] = __all_sync(half, lane < 16);
    out[4 * 32] = __reduce_add_sync(~0u, lane - 40);
    out[5 * 32] = __reduce_max_sync(~0u, lane - 40);
    out[6 * 32] = (int)__reduce_min_sync(~0u, (unsigned)lane - 1u);
    out[7 * 32] = (int)__reduce_or_sync(half, 1u << (lane & 15));
    out[8 * 32] = (int)__reduce_xor_sync(~0u, (unsigned)lane);
    out[9 * 32] = (int)__reduce_and_sync(half, ~(1u << (lane & 15)));
}
static void run_warp_votes(void) {
    PG_LAUNCH(warp_votes, 1, 32, 0, context, device);
    fetch();
    for (int lane = 0; lane < 32; lane++) {
        const bool low = lane < 16;
        const int want[] = {0x11111111, low ? 0x1111 : 0x11110000, low, low, 496 - 40 * 32, -9, 0, 0xffff, 0,
                            (int)0xffff0000};
        for (int k = 0; k < 10; k++) EXPECT(host[k * 32 + lane] == want[k]);
    }
}

/* The last warp has 8 lanes: the others are out of every mask. */
static __global__ void partial_warp(int *out) {
    int sum = 1;
    for (int k = 16; k > 0; k /= 2) {
        const int other = __shfl_down_sync(~0u, sum, (unsigned)k, 8);
        if ((int)threadIdx.x % 8 + k < 8) sum += other;
    }
    out[threadIdx.x] = sum + 100 * (int)__ballot_sync(~0u, 1);
}
static void run_partial_warp(void) {
    PG_LAUNCH(partial_warp, 1, 40, 0, context, device);
    fetch();
    EXPECT(host[32] == 8 + 100 * 0xff);
    EXPECT(host[0] == 8 - 100);
}

/* ---- atomics ---- */

static __global__ void atomics(int *out) {
    const int i = (int)threadIdx.x;
    atomicAdd(out, i);
    atomicSub(out + 1, i);
    atomicMax(out + 2, i ^ 5);
    atomicMin(out + 3, -i);
    atomicOr(out + 4, 1 << i % 8);
    atomicXor(out + 5, 1 << i % 7);
    atomicAnd(out + 6, ~(1 << i % 4));
    atomicCAS(out + 7, i == 0 ? 0 : i + 1, i + 2);
    if (i == 9) out[8] = atomicExch(out + 9, 77);
    atomicInc((unsigned *)out + 10, 5);
    atomicDec((unsigned *)out + 11, 5);
    atomicAdd((float *)out + 12, 0.5f);
    atomicAdd((double *)(out + 14), 0.25);
    atomicAdd((unsigned long long *)(out + 16), 1ull << 32);
}
static void run_atomics(void) {
    memset(host, 0, sizeof host);
    host[6] = -1;
    EXPECT(cudaMemcpy(device, host, sizeof host, cudaMemcpyHostToDevice) == cudaSuccess);
    PG_LAUNCH(atomics, 1, 100, 0, context, device);
    fetch();
    float f;
    double d;
    memcpy(&f, host + 12, sizeof f);
    memcpy(&d, host + 14, sizeof d);
    EXPECT(host[0] == 4950 && host[1] == -4950 && host[2] == 103 && host[3] == -99 && host[4] == 255);
    EXPECT(host[5] == 3 && host[6] == -16 && host[7] >= 2 && host[8] == 0 && host[9] == 77);
    EXPECT(host[10] == 100 % 6 && host[11] == 2 && f == 50.0f && d == 25.0 && host[17] == 100);
}

/* ---- shared memory ---- */

static __global__ void shared(int *out, const int *in) {
    PG_SHARED(int, dynamic);
    __shared__ int fixed[2][100];
    dynamic[threadIdx.x] = in[blockIdx.x * 100 + threadIdx.x];
    fixed[1][threadIdx.x] = dynamic[threadIdx.x] + 1;
    __syncthreads();
    out[blockIdx.x * 100 + threadIdx.x] = dynamic[99 - threadIdx.x] + fixed[1][(threadIdx.x + 1) % 100];
}
static void run_shared(void) {
    for (int i = 0; i < N; i++) host[i] = i;
    int *in;
    EXPECT(cudaMalloc(&in, sizeof host) == cudaSuccess);
    EXPECT(cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice) == cudaSuccess);
    PG_LAUNCH(shared, 3, 100, 100 * sizeof(int), context, device, in);
    fetch();
    for (int i = 0; i < 300; i++) EXPECT(host[i] == 2 * (i / 100 * 100) + 99 - i % 100 + (i + 1) % 100 + 1);
    EXPECT(cudaFree(in) == cudaSuccess);
}

/* Two groups under way: the older lands first; nothing before its wait; 4 of 16 bytes taken, the rest
 * zeros. */
static __global__ void async_copies(int *out, const int *in) {
    __shared__ __align__(16) int s[3][4];
    const int mark = -7;
    for (int k = 0; k < 12; k++) s[k / 4][k % 4] = mark;
    on_cpu::async_copy_start(s[0], in, 16, 16, __FILE__, __LINE__);
    on_cpu::async_copy_commit();
    on_cpu::async_copy_start(s[1], in + 4, 16, 4, __FILE__, __LINE__);
    on_cpu::async_copy_start(s[2], in + 8, 8, 8, __FILE__, __LINE__);
    on_cpu::async_copy_commit();
    out[0] = s[0][0] == mark && s[1][0] == mark;
    on_cpu::async_copy_wait(1);
    out[1] = s[0][3] == in[3] && s[1][0] == mark && s[2][0] == mark;
    on_cpu::async_copy_wait(0);
    out[2] = s[1][0] == in[4] && s[1][1] == 0 && s[1][3] == 0 && s[2][1] == in[9] && s[2][2] == mark;
}
static void run_async_copies(void) {
    for (int i = 0; i < N; i++) host[i] = 50 + i;
    EXPECT(cudaMemcpy(device, host, sizeof host, cudaMemcpyHostToDevice) == cudaSuccess);
    PG_LAUNCH(async_copies, 1, 1, 0, context, device + 512, device);
    fetch();
    EXPECT(host[512] == 1 && host[513] == 1 && host[514] == 1);
}

/* ---- arguments, launches ---- */

struct many { int values[900]; };
static __global__ void by_value(int *out, many m, double scale, const int *nothing) {
    out[threadIdx.x] = (int)(scale * m.values[threadIdx.x]) + (nothing == nullptr);
    m.values[threadIdx.x] = 0;                        /* each thread's own copy */
    out[threadIdx.x] += m.values[(threadIdx.x + 1) % 900];
}
static void run_arguments(void) {
    many m;
    for (int i = 0; i < 900; i++) m.values[i] = i;
    PG_LAUNCH(by_value, 1, 900, 0, context, device, m, 2, nullptr);   /* converted to double, to a pointer */
    m.values[0] = 1 << 20;                                            /* the launch has its copy */
    fetch();
    for (int i = 0; i < 900; i++) EXPECT(host[i] == 2 * i + 1 + (i + 1) % 900);
}

static __global__ void nothing(void) {}
static void run_limits(void) {
    const struct { dim3 grid, block; size_t shared; cudaError_t want; } shapes[] = {
        {1, 1024, 0, cudaSuccess},
        {1, 1025, 0, cudaErrorInvalidConfiguration},
        {0, 1, 0, cudaErrorInvalidConfiguration},
        {1, 0, 0, cudaErrorInvalidConfiguration},
        {1, dim3(1, 1, 65), 0, cudaErrorInvalidConfiguration},
        {dim3(1, 65536), 1, 0, cudaErrorInvalidConfiguration},
        {1, 1, 48 << 10, cudaSuccess},
        {1, 1, (48 << 10) + 1, cudaErrorInvalidValue},
    };
    for (const auto &s : shapes) {
        PG_LAUNCH(nothing, s.grid, s.block, s.shared, context);
        EXPECT(cudaPeekAtLastError() == s.want);
        EXPECT(cudaGetLastError() == s.want);
        EXPECT(cudaGetLastError() == cudaSuccess);
    }
    EXPECT(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20) ==
           cudaErrorInvalidValue);
    cudaGetLastError();
}

/* A launch that failed leaves the device as it was. */
static __global__ void skips_barrier(void) {
    if (__shfl_xor_sync(~0u, threadIdx.x, 1) % 2) __syncthreads();
}
static void run_after_failure(void) {
    for (int i = 0; i < 3; i++) {
        PG_LAUNCH(skips_barrier, 7, 96, 0, context);
        cudaError_t error = cudaGetLastError();
        if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
        EXPECT(error == cudaErrorLaunchFailure);
        EXPECT(strstr(cudaGetErrorString(error), "kernel skips_barrier") &&
               strstr(cudaGetErrorString(error), "model.cu"));
        cudaGetLastError();
        run_votes();
        run_shuffles();
    }
}

/* ---- memory ---- */

static void run_memory(void) {
    size_t before, after, total;
    void *p, *pinned, *mapped, *too_much = &p;
    EXPECT(cudaMemGetInfo(&before, &total) == cudaSuccess && before <= total);
    EXPECT(cudaMalloc(&p, 1 << 20) == cudaSuccess && ((size_t)p & 255) == 0);
    EXPECT(cudaMemGetInfo(&after, &total) == cudaSuccess && after == before - (1 << 20));
    EXPECT(cudaMalloc(&too_much, total) == cudaErrorMemoryAllocation && !too_much);
    EXPECT(cudaFree((char *)p + 256) == cudaErrorInvalidValue);
    EXPECT(cudaFreeHost(p) == cudaErrorInvalidValue);
    EXPECT(cudaHostAlloc(&pinned, 4096, cudaHostAllocMapped) == cudaSuccess);
    EXPECT(cudaHostGetDevicePointer(&mapped, pinned, 0) == cudaSuccess && mapped == pinned);
    EXPECT(cudaFree(pinned) == cudaErrorInvalidValue);
    EXPECT(cudaMemsetAsync(pinned, 1, 4097, stream) == cudaErrorInvalidValue);
    EXPECT(cudaMemcpy(p, host, sizeof host, (cudaMemcpyKind)9) == cudaErrorInvalidMemcpyDirection);
    EXPECT(cudaFreeHost(pinned) == cudaSuccess && cudaFree(p) == cudaSuccess &&
           cudaFree(nullptr) == cudaSuccess);
    EXPECT(cudaFree(p) == cudaErrorInvalidValue);
    cudaGetLastError();
}

/* ---- streams, events, graphs ---- */

static __global__ void append(int *list, int value) { list[++list[0]] = value; }

static void run_events(void) {
    cudaStream_t other;
    cudaEvent_t a, b;
    float ms;
    EXPECT(cudaMemset(device, 0, sizeof host) == cudaSuccess);
    EXPECT(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
    EXPECT(cudaEventCreate(&a) == cudaSuccess && cudaEventCreate(&b) == cudaSuccess);
    EXPECT(cudaEventQuery(a) == cudaSuccess);           /* never recorded: done */
    launcher there = {other};
    for (int i = 0; i < 40; i += 2) {
        PG_LAUNCH(append, 1, 1, 0, context, device, i);
        EXPECT(cudaEventRecord(a, stream) == cudaSuccess && cudaStreamWaitEvent(other, a, 0) == cudaSuccess);
        PG_LAUNCH(append, 1, 1, 0, &there, device, i + 1);
        EXPECT(cudaEventRecord(b, other) == cudaSuccess && cudaStreamWaitEvent(stream, b, 0) == cudaSuccess);
    }
    EXPECT(cudaEventSynchronize(b) == cudaSuccess && cudaEventQuery(b) == cudaSuccess &&
           cudaStreamQuery(other) == cudaSuccess);
    EXPECT(cudaEventElapsedTime(&ms, a, b) == cudaSuccess && ms >= 0);
    fetch();
    EXPECT(host[0] == 40);
    for (int i = 0; i < 40; i++) EXPECT(host[1 + i] == i);
    EXPECT(cudaEventDestroy(a) == cudaSuccess && cudaEventDestroy(b) == cudaSuccess &&
           cudaStreamDestroy(other) == cudaSuccess);
    EXPECT(cudaStreamSynchronize(other) == cudaErrorInvalidResourceHandle);
    cudaGetLastError();
}

/* An event destroyed with work that waits for it queued; polling makes progress. */
static void run_late_ends(void) {
    cudaStream_t other;
    cudaEvent_t e;
    EXPECT(cudaMemset(device, 0, sizeof host) == cudaSuccess);
    EXPECT(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
    EXPECT(cudaEventCreateWithFlags(&e, cudaEventDisableTiming) == cudaSuccess);
    launcher there = {other};
    PG_LAUNCH(append, 1, 1, 0, context, device, 1);
    EXPECT(cudaEventRecord(e, stream) == cudaSuccess && cudaStreamWaitEvent(other, e, 0) == cudaSuccess);
    EXPECT(cudaEventDestroy(e) == cudaSuccess);
    PG_LAUNCH(append, 1, 1, 0, &there, device, 2);
    cudaError_t state;
    while ((state = cudaStreamQuery(other)) == cudaErrorNotReady) {}
    EXPECT(state == cudaSuccess && cudaStreamDestroy(other) == cudaSuccess);
    fetch();
    EXPECT(host[0] == 2 && host[1] == 1 && host[2] == 2);
}

static void host_append(void *list) {
    int *l = (int *)list;
    l[++l[0]] = 7;
}
static void run_host_function(void) {
    int *pinned;
    EXPECT(cudaHostAlloc(&pinned, 4096, cudaHostAllocMapped) == cudaSuccess);
    memset(pinned, 0, 4096);
    PG_LAUNCH(append, 1, 1, 0, context, pinned, 6);
    EXPECT(cudaLaunchHostFunc(stream, host_append, pinned) == cudaSuccess);
    PG_LAUNCH(append, 1, 1, 0, context, pinned, 8);
    EXPECT(cudaStreamSynchronize(stream) == cudaSuccess);
    EXPECT(pinned[0] == 3 && pinned[1] == 6 && pinned[2] == 7 && pinned[3] == 8);
    EXPECT(cudaFreeHost(pinned) == cudaSuccess);
}

static void run_graph(void) {
    cudaStream_t other;
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cudaStreamCaptureStatus status;
    EXPECT(cudaMemset(device, 0, sizeof host) == cudaSuccess);
    EXPECT(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
    EXPECT(cudaEventCreate(&fork) == cudaSuccess && cudaEventCreate(&join) == cudaSuccess);
    launcher there = {other};
    EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    PG_LAUNCH(append, 1, 1, 0, context, device, 1);
    EXPECT(cudaEventRecord(fork, stream) == cudaSuccess &&
           cudaStreamWaitEvent(other, fork, 0) == cudaSuccess);
    EXPECT(cudaStreamIsCapturing(other, &status) == cudaSuccess && status == cudaStreamCaptureStatusActive);
    PG_LAUNCH(append, 1, 1, 0, &there, device, 2);
    EXPECT(cudaEventRecord(join, other) == cudaSuccess &&
           cudaStreamWaitEvent(stream, join, 0) == cudaSuccess);
    PG_LAUNCH(append, 1, 1, 0, context, device, 3);
    EXPECT(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    EXPECT(cudaStreamIsCapturing(other, &status) == cudaSuccess && status == cudaStreamCaptureStatusNone);
    fetch();
    EXPECT(host[0] == 0);                                /* captured, not run */
    EXPECT(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess &&
           cudaGraphDestroy(graph) == cudaSuccess);
    for (int i = 0; i < 3; i++) EXPECT(cudaGraphLaunch(executable, stream) == cudaSuccess);
    EXPECT(cudaGraphExecDestroy(executable) == cudaSuccess);
    fetch();
    EXPECT(host[0] == 9);
    for (int i = 0; i < 9; i++) EXPECT(host[1 + i] == 1 + i % 3);

    /* What may not be captured ends the capture without a graph. */
    void *p;
    EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    EXPECT(cudaMalloc(&p, 64) == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated && !graph);
    EXPECT(cudaStreamEndCapture(stream, &graph) == cudaErrorInvalidValue);
    EXPECT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed) == cudaSuccess);
    EXPECT(cudaMalloc(&p, 64) == cudaSuccess);           /* a relaxed one allows it */
    EXPECT(cudaStreamEndCapture(stream, &graph) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess);
    EXPECT(cudaFree(p) == cudaSuccess && cudaStreamDestroy(other) == cudaSuccess);
    EXPECT(cudaEventDestroy(fork) == cudaSuccess && cudaEventDestroy(join) == cudaSuccess);
    cudaGetLastError();
}

#define CASES(X) \
    X(indices) X(votes) X(named_barriers) X(shuffles) X(warp_votes) X(partial_warp) X(atomics) X(shared) \
    X(async_copies) X(arguments) X(limits) X(after_failure) X(memory) X(events) X(late_ends) \
    X(host_function) X(graph)

int main(void) {
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 1;
    if (cudaMalloc(&device, sizeof host) != cudaSuccess) return 1;
    launcher on_stream = {stream};
    context = &on_stream;
#define X(name) \
    wrong_line = 0; \
    run_##name(); \
    if (wrong_line) printf(#name " wrong: %d\n", wrong_line); \
    else printf(#name " right\n");
    CASES(X)
#undef X
    return 0;
}
