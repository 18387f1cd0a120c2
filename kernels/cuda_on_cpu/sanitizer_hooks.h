/* sanitizer_hooks.h: the sanitizers' own functions, null where the library is built without them. The
 * emulator's files are never instrumented themselves; the kernels and the device library are. */
#ifndef PG_ON_CPU_SANITIZER_HOOKS_H
#define PG_ON_CPU_SANITIZER_HOOKS_H

#include <stddef.h>
#include <stdint.h>

extern "C" {
__attribute__((weak)) void *__tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void *fiber);
__attribute__((weak)) void *__tsan_get_current_fiber(void);
__attribute__((weak)) void __tsan_switch_to_fiber(void *fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void *address);
__attribute__((weak)) void __tsan_release(void *address);
__attribute__((weak)) void __tsan_java_init(unsigned long heap, unsigned long bytes);
__attribute__((weak)) void __tsan_java_alloc(unsigned long p, unsigned long bytes);
__attribute__((weak)) void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom,
                                                          size_t bytes);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom,
                                                           size_t *bytes);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void *p, size_t bytes);
}

namespace on_cpu {

/* What came before release(p) is seen after acquire(p). */
static inline void acquire(void *p) {
    if (__tsan_acquire) __tsan_acquire(p);
}
static inline void release(void *p) {
    if (__tsan_release) __tsan_release(p);
}

/* What was done so far to [p, p + bytes) does not count: this memory is another block's now. */
void forget_accesses(void *p, size_t bytes);

}   // namespace on_cpu

#endif
