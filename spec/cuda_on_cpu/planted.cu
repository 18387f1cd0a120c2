/* planted.cu: bugs, one of each kind that the emulator's modes are there to find, and the same code without
 * the bug. The specs compile it with each sanitizer. `planted` lists the bugs, `planted BUG` prints "right",
 * "wrong", or "failed: MESSAGE" where a call did; `planted fixed` goes through all the fixed twins, which are
 * to be "right".
 */
#include <cuda_runtime.h>

#include <cuda_on_cpu.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "on_cpu/async_copy.h"

struct launcher { void *stream; };

/* The device's memory of every case: in holds 0, 1, 2, ...; out zeros. */
enum { N = 256 };
static float *in, *out;
static float result[N];
static launcher *context;

static void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    printf("failed: %s\n", cudaGetErrorString(error));
    exit(0);
}
/* Reads back and says whether element i is want(i) for i < n. */
template <class Want> static bool is(int n, Want want) {
    check(cudaGetLastError());
    check(cudaStreamSynchronize((cudaStream_t)context->stream));
    check(cudaMemcpy(result, out, sizeof result, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++) {
        if (!(result[i] == want(i))) return false;
    }
    return true;
}

/* ---- threads of one block ---- */

template <bool fixed> static __global__ void barrier_missing(float *out, const float *in) {
    __shared__ float s[N];
    s[threadIdx.x] = in[threadIdx.x];
    if (fixed) __syncthreads();
    out[threadIdx.x] = s[threadIdx.x ^ 64];
}
template <bool fixed> static bool run_barrier_missing() {
    PG_LAUNCH(barrier_missing<fixed>, 1, N, 0, context, out, in);
    return is(N, [](int i) { return (float)(i ^ 64); });
}

template <bool fixed> static __global__ void reuse_without_barrier(float *out, const float *in) {
    __shared__ float first[8];
    float sum = 0;
    for (int round = 0; round < 2; round++) {
        if (threadIdx.x % 32 == 0) first[threadIdx.x / 32] = in[threadIdx.x] + (float)round;
        __syncthreads();
        for (int w = 0; w < 8; w++) sum += first[w];
        if (fixed) __syncthreads();
    }
    out[threadIdx.x] = sum;
}
template <bool fixed> static bool run_reuse_without_barrier() {
    PG_LAUNCH(reuse_without_barrier<fixed>, 1, N, 0, context, out, in);
    return is(N, [](int) { return 2 * 32 * 28 + 8.0f; });
}

template <bool fixed> static __global__ void warp_synchronous(float *out, const float *in) {
    __shared__ float s[32];
    s[threadIdx.x] = in[threadIdx.x];
    if (fixed) __syncwarp();
    out[threadIdx.x] = s[31 - threadIdx.x];
}
template <bool fixed> static bool run_warp_synchronous() {
    PG_LAUNCH(warp_synchronous<fixed>, 1, 32, 0, context, out, in);
    return is(32, [](int i) { return 31.0f - (float)i; });
}

template <bool fixed> static __global__ void barrier_skipped(float *out) {
    if (fixed || threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = 1;
}
template <bool fixed> static bool run_barrier_skipped() {
    PG_LAUNCH(barrier_skipped<fixed>, 1, 64, 0, context, out);
    return is(64, [](int) { return 1.0f; });
}

template <bool fixed> static __global__ void two_barriers(float *out) {
    if (fixed) {
        __syncthreads();
    } else if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}
template <bool fixed> static bool run_two_barriers() {
    PG_LAUNCH(two_barriers<fixed>, 1, 64, 0, context, out);
    return is(64, [](int) { return 1.0f; });
}

template <bool fixed> static __global__ void mask_mismatched(float *out) {
    float x = (float)threadIdx.x;
    if (threadIdx.x < 16) x = __shfl_xor_sync(fixed ? 0xffffu : ~0u, x, 1);
    out[threadIdx.x] = x;
}
template <bool fixed> static bool run_mask_mismatched() {
    PG_LAUNCH(mask_mismatched<fixed>, 1, 32, 0, context, out);
    return is(32, [](int i) { return (float)(i < 16 ? i ^ 1 : i); });
}

template <bool fixed> static __global__ void two_collectives(float *out) {
    const float x = (float)threadIdx.x;
    float y = 0;
    if (fixed) {
        y = __shfl_xor_sync(~0u, x, 1);
    } else if (threadIdx.x < 16) {
        y = __shfl_xor_sync(~0u, x, 1);
    } else {
        y = __shfl_xor_sync(~0u, x, 1);
    }
    out[threadIdx.x] = y;
}
template <bool fixed> static bool run_two_collectives() {
    PG_LAUNCH(two_collectives<fixed>, 1, 32, 0, context, out);
    return is(32, [](int i) { return (float)(i ^ 1); });
}

template <bool fixed> static __global__ void lane_outside(float *out) {
    float x = (float)threadIdx.x;
    if (threadIdx.x < 16) x = __shfl_sync(0xffffu, x, fixed ? 0 : 20);
    out[threadIdx.x] = x;
}
template <bool fixed> static bool run_lane_outside() {
    PG_LAUNCH(lane_outside<fixed>, 1, 32, 0, context, out);
    return is(32, [](int i) { return (float)(i < 16 ? 0 : i); });
}

template <bool fixed> static __global__ void uninitialised_shared(float *out) {
    __shared__ float s[64];
    if (fixed || threadIdx.x < 63) s[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = s[63 - threadIdx.x];
}
template <bool fixed> static bool run_uninitialised_shared() {
    PG_LAUNCH(uninitialised_shared<fixed>, 1, 64, 0, context, out);
    return is(64, [](int) { return 0.0f; });
}

template <bool fixed> static __global__ void uninitialised_dynamic(float *out) {
    PG_SHARED(float, s);
    if (fixed || threadIdx.x < 63) s[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = s[63 - threadIdx.x];
}
template <bool fixed> static bool run_uninitialised_dynamic() {
    PG_LAUNCH(uninitialised_dynamic<fixed>, 1, 64, 64 * sizeof(float), context, out);
    return is(64, [](int) { return 0.0f; });
}

template <bool fixed> static __global__ void wait_forgotten(float *out, const float *in) {
    __shared__ __align__(16) float s[128];
    s[threadIdx.x] = -1;
    __syncthreads();
    if (threadIdx.x < 32)
        on_cpu::async_copy_start(s + threadIdx.x * 4, in + threadIdx.x * 4, 16, 16, __FILE__, __LINE__);
    on_cpu::async_copy_commit();
    if (fixed) on_cpu::async_copy_wait(0);
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
    on_cpu::async_copy_wait(0);
}
template <bool fixed> static bool run_wait_forgotten() {
    PG_LAUNCH(wait_forgotten<fixed>, 1, 128, 0, context, out, in);
    return is(128, [](int i) { return (float)i; });
}

template <bool fixed> static __global__ void wait_never(float *out, const float *in) {
    __shared__ __align__(16) float s[128];
    on_cpu::async_copy_start(s + threadIdx.x * 4, in + threadIdx.x * 4, 16, 16, __FILE__, __LINE__);
    on_cpu::async_copy_commit();
    if (fixed) on_cpu::async_copy_wait(0);
    __syncthreads();
    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = fixed ? s[threadIdx.x * 4 + i] : 0;
}
template <bool fixed> static bool run_wait_never() {
    PG_LAUNCH(wait_never<fixed>, 1, 32, 0, context, out, in);
    return is(128, [](int i) { return (float)i; });
}

/* Each thread has waited for its own copy alone. */
template <bool fixed> static __global__ void copy_of_another(float *out, const float *in) {
    __shared__ __align__(16) float s[512];
    on_cpu::async_copy_start(s + threadIdx.x * 4, in + threadIdx.x % 64 * 4, 16, 16, __FILE__, __LINE__);
    on_cpu::async_copy_commit();
    on_cpu::async_copy_wait(0);
    if (fixed) __syncthreads();
    out[threadIdx.x] = s[(threadIdx.x ^ 32) * 4];
}
template <bool fixed> static bool run_copy_of_another() {
    PG_LAUNCH(copy_of_another<fixed>, 1, 128, 0, context, out, in);
    return is(128, [](int i) { return (float)((i ^ 32) % 64 * 4); });
}

/* ---- global memory ---- */

template <bool fixed> static __global__ void global_race(float *out, const float *in) {
    if (fixed) atomicAdd(&out[threadIdx.x & 63], in[threadIdx.x]);
    else out[threadIdx.x & 63] += in[threadIdx.x];
}
template <bool fixed> static bool run_global_race() {
    PG_LAUNCH(global_race<fixed>, 1, N, 0, context, out, in);
    return is(64, [](int i) { return 4.0f * (float)i + 384; });
}

/* In a variable of the program, not in allocated memory. */
static __device__ float total;
template <bool fixed> static __global__ void variable_race(float *out, const float *in) {
    if (fixed) atomicAdd(&total, in[threadIdx.x]);
    else total += in[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) out[0] = total;
}
template <bool fixed> static bool run_variable_race() {
    PG_LAUNCH(variable_race<fixed>, 1, N, 0, context, out, in);
    return is(1, [](int) { return 32640.0f; });
}

template <bool fixed> static __global__ void race_between_blocks(float *out, const float *in) {
    if (fixed) atomicAdd(out, in[blockIdx.x]);
    else if (threadIdx.x == blockIdx.x) *out += in[blockIdx.x];
}
template <bool fixed> static bool run_race_between_blocks() {
    PG_LAUNCH(race_between_blocks<fixed>, 4, fixed ? 1 : 4, 0, context, out, in);
    return is(1, [](int) { return 6.0f; });
}

/* Block 0 is expected to have run before the others. */
template <bool fixed> static __global__ void block_order(float *out, const float *in) {
    if (fixed) out[blockIdx.x] = in[0] + 1;
    else out[blockIdx.x] = blockIdx.x == 0 ? in[0] + 1 : out[blockIdx.x - 1];
}
template <bool fixed> static bool run_block_order() {
    PG_LAUNCH(block_order<fixed>, 16, 1, 0, context, out, in);
    return is(16, [](int) { return 1.0f; });
}

template <bool fixed> static __global__ void beyond_global(float *out, const float *in) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < N + (fixed ? 0 : 1)) out[i] = in[i];
}
template <bool fixed> static bool run_beyond_global() {
    PG_LAUNCH(beyond_global<fixed>, 3, 128, 0, context, out, in);
    return is(N, [](int i) { return (float)i; });
}

template <bool fixed> static __global__ void beyond_dynamic(float *out, const float *in) {
    PG_SHARED(float, s);
    s[threadIdx.x + (fixed ? 0 : 1)] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
template <bool fixed> static bool run_beyond_dynamic() {
    PG_LAUNCH(beyond_dynamic<fixed>, 1, N, N * sizeof(float), context, out, in);
    return is(N, [](int i) { return (float)i; });
}

template <bool fixed> static __global__ void beyond_static(float *out, const float *in) {
    __shared__ float s[N];
    s[threadIdx.x + (fixed ? 0 : 1)] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
template <bool fixed> static bool run_beyond_static() {
    PG_LAUNCH(beyond_static<fixed>, 1, N, 0, context, out, in);
    return is(N, [](int i) { return (float)i; });
}

static __device__ __attribute__((noinline)) float first_of(const float *s, int i) { return s[i]; }
template <bool fixed> static __global__ void beyond_static_pointer(float *out, const float *in) {
    __shared__ float s[N];
    s[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = threadIdx.x == 0 ? 0 : first_of(s, (int)threadIdx.x + (fixed ? 0 : 1));
}
template <bool fixed> static bool run_beyond_static_pointer() {
    PG_LAUNCH(beyond_static_pointer<fixed>, 1, N, 0, context, out, in);
    return is(N, [](int i) { return (float)i; });
}

template <bool fixed> static __global__ void misaligned(float *out, const float *in) {
    const float4 x = *reinterpret_cast<const float4 *>(in + (fixed ? 4 : 1));
    out[threadIdx.x] = x.x;
}
template <bool fixed> static bool run_misaligned() {
    PG_LAUNCH(misaligned<fixed>, 1, 1, 0, context, out, in);
    return is(1, [](int) { return fixed ? 4.0f : 1.0f; });
}

static __global__ void copy_one(float *out, const float *in) { out[threadIdx.x] = in[threadIdx.x]; }
template <bool fixed> static bool run_freed_memory() {
    float *other;
    check(cudaMalloc(&other, N * sizeof(float)));
    check(cudaMemcpy(other, in, N * sizeof(float), cudaMemcpyDeviceToDevice));
    if (!fixed) check(cudaFree(other));
    PG_LAUNCH(copy_one, 1, N, 0, context, out, other);
    return is(N, [](int i) { return (float)i; });
}

/* ---- streams and the host ---- */

static __global__ void add_one(float *x) { x[threadIdx.x] += 1; }
template <bool fixed> static bool run_event_missing() {
    cudaStream_t a, b;
    cudaEvent_t done;
    check(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    check(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    launcher on_a = {a}, on_b = {b};
    /* Often enough that no order comes out right by chance. */
    for (int i = 0; i < 16; i++) {
        PG_LAUNCH(add_one, 1, N, 0, &on_a, in);
        if (fixed) {
            check(cudaEventRecord(done, a));
            check(cudaStreamWaitEvent(b, done, 0));
        }
        PG_LAUNCH(copy_one, 1, N, 0, &on_b, out, in);
        if (fixed) {
            check(cudaEventRecord(done, b));
            check(cudaStreamWaitEvent(a, done, 0));
        }
    }
    check(cudaStreamSynchronize(b));
    return is(N, [](int i) { return (float)i + 16; });
}

template <bool fixed> static bool run_buffer_reused() {
    float *pinned;
    check(cudaHostAlloc(&pinned, N * sizeof(float), cudaHostAllocDefault));
    for (int i = 0; i < N; i++) pinned[i] = (float)i;
    check(cudaMemcpyAsync(out, pinned, N * sizeof(float), cudaMemcpyHostToDevice,
                          (cudaStream_t)context->stream));
    if (fixed) check(cudaStreamSynchronize((cudaStream_t)context->stream));
    for (int i = 0; i < N; i++) pinned[i] = -1;
    return is(N, [](int i) { return (float)i; });
}

template <bool fixed> static bool run_host_access() {
    PG_LAUNCH(copy_one, 1, N, 0, context, out, in);
    check(cudaStreamSynchronize((cudaStream_t)context->stream));
    if (!fixed) return ((volatile float *)out)[5] == 5.0f;
    return is(N, [](int i) { return (float)i; });
}

template <bool fixed> static bool run_copy_too_long() {
    check(cudaMemcpy(out, in, (N + (fixed ? 0 : 1)) * sizeof(float), cudaMemcpyDeviceToDevice));
    return is(N, [](int i) { return (float)i; });
}

template <bool fixed> static bool run_wrong_direction() {
    check(cudaMemcpy(out, in, N * sizeof(float), fixed ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice));
    return is(N, [](int i) { return (float)i; });
}

static __global__ void much_shared(float *out) {
    PG_SHARED(float, s);
    s[threadIdx.x] = 1;
    out[threadIdx.x] = s[threadIdx.x];
}
template <bool fixed> static bool run_shared_limit() {
    if (fixed)
        check(cudaFuncSetAttribute(much_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10));
    PG_LAUNCH(much_shared, 1, 64, 64 << 10, context, out);
    return is(64, [](int) { return 1.0f; });
}

template <bool fixed> static bool run_synchronise_in_capture() {
    cudaStream_t stream = (cudaStream_t)context->stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    PG_LAUNCH(add_one, 1, N, 0, context, out);
    if (!fixed) check(cudaStreamSynchronize(stream));
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&executable, graph, 0));
    check(cudaGraphDestroy(graph));
    for (int i = 0; i < 3; i++) check(cudaGraphLaunch(executable, stream));
    const bool right = is(N, [](int) { return 3.0f; });
    check(cudaGraphExecDestroy(executable));
    return right;
}

#define BUGS(X) \
    X(barrier_missing) X(reuse_without_barrier) X(warp_synchronous) X(barrier_skipped) X(two_barriers) \
    X(mask_mismatched) X(two_collectives) X(lane_outside) X(uninitialised_shared) X(uninitialised_dynamic) \
    X(wait_forgotten) X(wait_never) X(copy_of_another) \
    X(global_race) X(variable_race) X(race_between_blocks) X(block_order) X(beyond_global) \
    X(beyond_dynamic) X(beyond_static) X(beyond_static_pointer) X(misaligned) X(freed_memory) \
    X(event_missing) X(buffer_reused) X(host_access) X(copy_too_long) X(wrong_direction) X(shared_limit) \
    X(synchronise_in_capture)

int main(int count, char **words) {
    static const struct { const char *name; bool (*broken)(), (*fixed)(); } bugs[] = {
#define X(name) {#name, run_##name<false>, run_##name<true>},
        BUGS(X)
#undef X
    };
    cudaStream_t stream;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    launcher on_stream = {stream};
    context = &on_stream;
    check(cudaMalloc(&in, N * sizeof(float)));
    check(cudaMalloc(&out, N * sizeof(float)));
    int found = 0;
    for (const auto &bug : bugs) {
        for (int i = 0; i < N; i++) result[i] = (float)i;
        check(cudaMemcpy(in, result, sizeof result, cudaMemcpyHostToDevice));
        check(cudaMemset(out, 0, sizeof result));
        if (count == 1) {
            printf("%s\n", bug.name);
        } else if (strcmp(words[1], "fixed") == 0) {
            printf("%s %s\n", bug.name, bug.fixed() ? "right" : "wrong");
        } else if (strcmp(words[1], bug.name) == 0) {
            printf("%s\n", bug.broken() ? "right" : "wrong");
        } else {
            continue;
        }
        found++;
    }
    return found == 0;
}
