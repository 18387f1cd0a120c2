/* sanitizers.h: what the emulator tells the address and thread sanitizers, where it is built with one. */
#ifndef PG_ON_CPU_SANITIZERS_H
#define PG_ON_CPU_SANITIZERS_H

#include <stddef.h>

/* A function that touches what belongs to other CUDA threads on their behalf. */
#define PG_UNCHECKED __attribute__((no_sanitize("thread", "address")))

#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_read_range(void *p, unsigned long n);
extern "C" void __tsan_write_range(void *p, unsigned long n);
#endif
#if defined(__SANITIZE_ADDRESS__)
extern "C" void *__asan_region_is_poisoned(void *p, size_t n);
#endif

namespace on_cpu {

/* The current CUDA thread reads, or writes, n bytes that an operation of the hardware moves for it. */
static inline void reads(const void *p, size_t n) {
#if defined(__SANITIZE_THREAD__)
    __tsan_read_range(const_cast<void *>(p), n);
#elif defined(__SANITIZE_ADDRESS__)
    /* Touching the first bad byte makes the report. */
    void *bad = __asan_region_is_poisoned(const_cast<void *>(p), n);
    if (bad) (void)*(const volatile char *)bad;
#else
    (void)p, (void)n;
#endif
}
static inline void writes(void *p, size_t n) {
#if defined(__SANITIZE_THREAD__)
    __tsan_write_range(p, n);
#else
    reads(p, n);
#endif
}

}   // namespace on_cpu

#endif
