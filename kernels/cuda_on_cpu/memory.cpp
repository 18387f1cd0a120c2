/* memory.cpp: cudaMalloc and its relatives. Every allocation is one of the C library's, so that the
 * sanitizers know its exact bounds; in the guarded mode it is pages of its own, which nobody may touch
 * while neither kernel nor copy runs. */
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "device.h"
#include "errors.h"
#include "modes.h"
#include "stream.h"

namespace on_cpu {

struct allocation { size_t bytes; memory_kind kind; int device; };
static std::map<uintptr_t, allocation> allocations;
static std::map<int, size_t> used;      /* bytes of each device */
static int open_depth;

static size_t whole_pages(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}
static void protect(int protection) {
    for (const auto &a : allocations) {
        if (a.second.kind == MEMORY_DEVICE)
            mprotect((void *)a.first, whole_pages(a.second.bytes), protection);
    }
}
memory_open::memory_open() {
    if (modes.guard && open_depth++ == 0) protect(PROT_READ | PROT_WRITE);
}
memory_open::~memory_open() {
    if (modes.guard && --open_depth == 0) protect(PROT_NONE);
}

static bool in_pages(memory_kind kind) { return modes.guard && kind == MEMORY_DEVICE; }

static cudaError_t allocate(void **result, size_t bytes, memory_kind kind) {
    *result = nullptr;
    if (bytes == 0) return cudaSuccess;
    const int device = current_device();
    if (kind == MEMORY_DEVICE && bytes > modes.memory - used[device]) return cudaErrorMemoryAllocation;
    void *p = nullptr;
    if (in_pages(kind)) {
        p = mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return cudaErrorMemoryAllocation;
    } else if (posix_memalign(&p, kind == MEMORY_DEVICE ? 256 : 4096, bytes) != 0) {
        return cudaErrorMemoryAllocation;
    }
    if (modes.poison) memset(p, 0xff, bytes);
    if (in_pages(kind) && open_depth == 0) mprotect(p, whole_pages(bytes), PROT_NONE);
    allocations[(uintptr_t)p] = {bytes, kind, device};
    if (kind == MEMORY_DEVICE) used[device] += bytes;
    *result = p;
    return cudaSuccess;
}

static cudaError_t release_memory(void *p, bool device) {
    if (!p) return cudaSuccess;
    const auto a = allocations.find((uintptr_t)p);
    if (a == allocations.end() || (a->second.kind == MEMORY_DEVICE) != device) return cudaErrorInvalidValue;
    const allocation was = a->second;
    allocations.erase(a);
    if (device) used[was.device] -= was.bytes;
    if (in_pages(was.kind)) munmap(p, whole_pages(was.bytes));
    else free(p);
    return cudaSuccess;
}

memory_kind memory_kind_of(const void *p, size_t bytes, bool *bad) {
    const uintptr_t at = (uintptr_t)p;
    auto a = allocations.upper_bound(at);
    if (a == allocations.begin()) return MEMORY_PAGEABLE;
    --a;
    if (at - a->first >= a->second.bytes) return MEMORY_PAGEABLE;
    if (bytes > a->second.bytes - (at - a->first)) *bad = true;
    return a->second.kind;
}

/* ---- copies ---- */

struct copy_work final : work {
    void *to;
    const void *from;
    size_t bytes;
    char *staged;      /* a pageable source is read when the copy is asked for; this owns what was read */
    copy_work(void *t, const void *f, size_t n) : to(t), from(f), bytes(n), staged(nullptr) {}
    copy_work(const copy_work &) = delete;
    ~copy_work() override { free(staged); }
    void run() override { memmove(to, staged ? staged : from, bytes); }
    work *keep() const override {
        copy_work *copy = new copy_work(to, from, bytes);
        bool bad = false;
        if (memory_kind_of(from, bytes, &bad) == MEMORY_PAGEABLE && (copy->staged = (char *)malloc(bytes))) {
            memcpy(copy->staged, from, bytes);
        }
        return copy;
    }
};
struct fill_work final : work {
    void *to;
    int value;
    size_t bytes;
    fill_work(void *t, int v, size_t n) : to(t), value(v), bytes(n) {}
    void run() override { memset(to, value, bytes); }
    work *keep() const override { return new fill_work(*this); }
};

/* Both sides where the direction says that they are, and within their allocations. */
static cudaError_t check_copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    bool bad = false;
    const bool to_device = memory_kind_of(to, bytes, &bad) == MEMORY_DEVICE;
    const bool from_device = memory_kind_of(from, bytes, &bad) == MEMORY_DEVICE;
    if (bad || !to || !from) return cudaErrorInvalidValue;
    if ((unsigned)kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
    if (kind == cudaMemcpyDefault) return cudaSuccess;
    const bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return to_device == wants_to && from_device == wants_from ? cudaSuccess : cudaErrorInvalidValue;
}

static cudaError_t copy_on(cudaStream_t stream, void *to, const void *from, size_t bytes,
                           cudaMemcpyKind kind) {
    if (bytes == 0) return cudaSuccess;
    const cudaError_t error = check_copy(to, from, bytes, kind);
    if (error != cudaSuccess) return error;
    copy_work copy(to, from, bytes);
    const cudaError_t submitted = stream_submit(stream, copy);
    /* Into pageable memory the call itself waits, as the driver's does. */
    bool bad = false;
    if (submitted == cudaSuccess && !stream_capturing(stream) &&
        memory_kind_of(to, bytes, &bad) == MEMORY_PAGEABLE) {
        return stream_drain(stream);
    }
    return submitted;
}
static cudaError_t fill_on(cudaStream_t stream, void *to, int value, size_t bytes) {
    if (bytes == 0) return cudaSuccess;
    bool bad = false;
    if (memory_kind_of(to, bytes, &bad) == MEMORY_PAGEABLE || bad) return cudaErrorInvalidValue;
    fill_work fill(to, value, bytes);
    return stream_submit(stream, fill);
}

}   // namespace on_cpu

using namespace on_cpu;

cudaError_t cudaMemGetInfo(size_t *unused, size_t *total) {
    const device_lock lock(device_mutex);
    *unused = modes.memory - used[current_device()];
    *total = modes.memory;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t bytes) {
    const device_lock lock(device_mutex);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    return outcome(allocate(p, bytes, MEMORY_DEVICE));
}
/* What is queued may still use it. */
static cudaError_t give_back(void *p, bool device) {
    const device_lock lock(device_mutex);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    const cudaError_t error = p ? stream_drain_all() : cudaSuccess;
    const cudaError_t freed = release_memory(p, device);
    return outcome(error != cudaSuccess ? error : freed);
}
cudaError_t cudaFree(void *p) { return give_back(p, true); }
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) {
    const device_lock lock(device_mutex);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    return outcome(allocate(p, bytes, MEMORY_PINNED));
}
cudaError_t cudaMallocHost(void **p, size_t bytes) { return cudaHostAlloc(p, bytes, cudaHostAllocDefault); }
cudaError_t cudaFreeHost(void *p) { return give_back(p, false); }
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned) {
    const device_lock lock(device_mutex);
    bool bad = false;
    if (memory_kind_of(host, 1, &bad) != MEMORY_PINNED) return outcome(cudaErrorInvalidValue);
    *device = host;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    const device_lock lock(device_mutex);
    return outcome(copy_on(stream, to, from, bytes, kind));
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    const device_lock lock(device_mutex);
    return outcome(fill_on(stream, to, value, bytes));
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const device_lock lock(device_mutex);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    const cudaError_t error = copy_on(nullptr, to, from, bytes, kind);
    return outcome(error != cudaSuccess ? error : stream_drain(nullptr));
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    const device_lock lock(device_mutex);
    if (capture_forbids()) return outcome(cudaErrorStreamCaptureUnsupported);
    return outcome(fill_on(nullptr, to, value, bytes));
}
