/* device.h: what a device is: one struct of functions and one table of kernels. Nothing above this file knows
 * which device it runs on. */
#ifndef PG_DEVICE_H
#define PG_DEVICE_H

#include "../core/alloc.h"
#include "../core/random.h"
#include "../../kernels/kernels.h"

struct pg_device {
    const char *type;                  /* "cpu", "cuda" */
    int index;                         /* among those of its type */
    int number;                        /* among all: the cpu is 0 */
    const char *name;                  /* "cpu", "cuda:0": what users see */
    bool host;                         /* its memory can be read by this process as it is */
    bool in_process;                   /* its kernels run in this process: sanitizers can watch it */
    const pg_kernels *kernels;
    pg_allocator *allocator;           /* the cache over raw_allocate */
    /* Memory from the system; NULL where it cannot be met. */
    void *(*raw_allocate)(const pg_device *d, size_t bytes);
    void (*raw_free)(const pg_device *d, void *memory, size_t bytes);
    /* Bytes that may still be asked for, checked before large reservations. */
    size_t (*available)(const pg_device *d);
    /* Between this device and host memory; ordered after what this thread launched before. Host memory is
     * done with on return; what to_host read is there, and errors that kernels met on the way are its
     * errors. */
    int (*to_host)(const pg_device *d, void *host, const void *memory, size_t bytes);
    int (*from_host)(const pg_device *d, void *memory, const void *host, size_t bytes);
    /* Fills a context for the calling thread's current stream. */
    void (*context)(const pg_device *d, pg_context *context);
    /* Frees what scratch gave since context(). */
    void (*context_end)(const pg_device *d, pg_context *context);
    int (*synchronize)(const pg_device *d);

    /* Called by whoever finds it by name; NULL: it is always ready. */
    int (*start)(const pg_device *d);
    /* The rest is of devices whose work is queued on streams; NULL on the cpu. pool: of this thread's
     * current stream, or of the graph that it captures. quiet: memory may go back now, as no graph is
     * being captured. passed: see pg_release_when; a guard that has passed is freed. */
    pg_allocator *(*pool)(const pg_device *d);
    bool (*quiet)(const pg_device *d);
    bool (*passed)(void *guard, bool wait);
    /* Why raw_allocate failed in this thread; NULL: for want of memory. */
    const char *(*why)(const pg_device *d);
    /* What a launch met that answered PG_KERNEL_FAILED. */
    const char *(*failure)(const pg_device *d);
    /* To find errors: waits after each kernel and gives what it met. NULL: not asked for. */
    int (*after)(const pg_device *d);
};

/* Where the calling thread's new memory on d comes from. */
static inline pg_allocator *pg_pool_of(const pg_device *d) { return d->pool ? d->pool(d) : d->allocator; }

const pg_device *pg_device_cpu(void);
/* "cpu", "cuda", "cuda:1"; NULL name is this thread's default device. An unknown or absent device is an
 * error that lists those there are. */
int pg_device_find(const pg_device **out, const char *name);
/* The same for who only wants to know about it: it may not have been started. */
int pg_device_find_known(const pg_device **out, const char *name);

/* The k-th device that is known, NULL past the last. The cpu is device 0; the others are known once
 * pg_device_find or pg_device_count was asked for one of their type. */
const pg_device *pg_device_at(int k);
enum { PG_CUDA_DEVICES = 8, PG_DEVICES = 1 + PG_CUDA_DEVICES };
/* Why the cpu's kernels are not those that were asked for (PERIGEE_CPU_ISA), or NULL. */
const char *pg_cpu_problem(void);

/* Runs a kernel: PG_RUN(device, softmax, dtype, rows, n, in, out, log). The status is the engine's (error
 * message set). */
int pg_kernel_status(const pg_device *d, pg_context *context, int kernel_status, const char *kernel,
                     int dtype);
/* The error of a kernel that met something wrong in its data: what bad_index says. */
int pg_kernel_complaint(int64_t kind, const int64_t *bad_index);
#define PG_RUN(device, kernel, ...)                                                                         \
    __extension__({                                                                                         \
        const pg_device *device_ = (device);                                                                \
        pg_context context_;                                                                                \
        device_->context(device_, &context_);                                                               \
        pg_kernel_status(device_, &context_, device_->kernels->kernel(&context_, __VA_ARGS__), #kernel, -1);\
    })

#endif
