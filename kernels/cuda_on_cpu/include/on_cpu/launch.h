/* launch.h: a kernel with its arguments as a piece of work for a stream. */
#ifndef PG_ON_CPU_LAUNCH_H
#define PG_ON_CPU_LAUNCH_H

#include <stddef.h>

#include <tuple>
#include <utility>

#include "runtime_api.h"
#include "vector_types.h"

#pragma GCC visibility push(hidden)
namespace on_cpu {

/* What a stream runs: once at least, several times where a graph holds it. */
struct work {
    virtual ~work() {}
    virtual bool ready() const { return true; }   /* false: what it waits for has not happened */
    virtual void run() = 0;
    virtual work *keep() const = 0;               /* a copy on the heap */
};

struct launch_shape {
    const void *kernel;
    const char *name, *file;
    int line;
    dim3 grid, block;
    size_t shared_bytes;
};

/* Runs the whole grid; call(arguments) is one CUDA thread. */
void run_grid(const launch_shape &shape, void (*call)(void *arguments), void *arguments);

/* The stream runs it, now or later, or its capture records it. */
cudaError_t submit(cudaStream_t stream, work &work);

/* A host function of no arguments as work that may touch device memory: what a library's stand-in does on a
 * stream. */
template <class Function> struct function_work final : work {
    Function function;
    explicit function_work(Function f) : function(f) {}
    void run() override { function(); }
    work *keep() const override { return new function_work(*this); }
};
template <class Function> inline cudaError_t enqueue(cudaStream_t stream, Function function) {
    function_work<Function> work(function);
    return submit(stream, work);
}

/* Checks the shape as the driver does, then submits it. */
void submit_launch(const launch_shape &shape, cudaStream_t stream, work &launch);

template <class Call, class... Parameters> struct kernel_launch final : work {
    launch_shape shape;
    Call call;
    std::tuple<Parameters...> arguments;

    template <class... Arguments> kernel_launch(const launch_shape &s, Call c, Arguments &&...a)
        : shape(s), call(c), arguments(std::forward<Arguments>(a)...) {}
    static void one_thread(void *self) {
        kernel_launch *launch = (kernel_launch *)self;
        std::apply(launch->call, launch->arguments);
    }
    void run() override { run_grid(shape, one_thread, this); }
    work *keep() const override { return new kernel_launch(*this); }
};

template <class Call, class... Parameters, class... Arguments>
inline void launch(void (*kernel)(Parameters...), Call call, const char *name, const char *file, int line,
                   dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments &&...arguments) {
    static_assert((sizeof(Parameters) + ... + 0) <= 4096, "a kernel's parameters are limited to 4 KiB");
    static_assert(sizeof...(Parameters) == sizeof...(Arguments), "a launch with too few or many arguments");
    const launch_shape shape = {(const void *)kernel, name, file, line, grid, block, shared_bytes};
    kernel_launch<Call, Parameters...> work(shape, call, std::forward<Arguments>(arguments)...);
    submit_launch(work.shape, stream, work);
}

}   // namespace on_cpu
#pragma GCC visibility pop

#endif
