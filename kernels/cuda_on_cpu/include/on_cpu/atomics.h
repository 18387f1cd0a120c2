/* atomics.h: CUDA's atomics. Only one CUDA thread runs at a time, so a read and a write are one step by
 * themselves; the thread sanitizer must be shown an atomic access, though. All of them give the old value. */
#ifndef PG_ON_CPU_ATOMICS_H
#define PG_ON_CPU_ATOMICS_H

#include "vector_types.h"

namespace on_cpu {

#if defined(__SANITIZE_THREAD__)
template <class T, class Next> inline T change(T *p, Next next) {
    T old, wanted;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do wanted = next(old);
    while (!__atomic_compare_exchange(p, &old, &wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
#else
template <class T, class Next> inline T change(T *p, Next next) {
    const T old = *p;
    *p = next(old);
    return old;
}
#endif

}   // namespace on_cpu

/* The overloads that CUDA has, and no others: what compiles here must compile there. */
#define PG_ATOMIC(name, type, expression)                                                   \
    static inline type name(type *p, type value) {                                          \
        return on_cpu::change(p, [=](type old) -> type { return expression; });             \
    }
#define PG_ATOMIC_INTEGERS(name, expression) \
    PG_ATOMIC(name, int, expression)         \
    PG_ATOMIC(name, unsigned, expression)    \
    PG_ATOMIC(name, unsigned long long, expression)
PG_ATOMIC_INTEGERS(atomicAdd, old + value)
PG_ATOMIC(atomicAdd, float, old + value)
PG_ATOMIC(atomicAdd, double, old + value)
PG_ATOMIC(atomicSub, int, old - value)
PG_ATOMIC(atomicSub, unsigned, old - value)
PG_ATOMIC_INTEGERS(atomicExch, (void(old), value))
PG_ATOMIC(atomicExch, float, (void(old), value))
PG_ATOMIC_INTEGERS(atomicMax, old > value ? old : value)
PG_ATOMIC(atomicMax, long long, old > value ? old : value)
PG_ATOMIC_INTEGERS(atomicMin, old < value ? old : value)
PG_ATOMIC(atomicMin, long long, old < value ? old : value)
PG_ATOMIC_INTEGERS(atomicAnd, old & value)
PG_ATOMIC_INTEGERS(atomicOr, old | value)
PG_ATOMIC_INTEGERS(atomicXor, old ^ value)
PG_ATOMIC(atomicInc, unsigned, old >= value ? 0u : old + 1)
PG_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef PG_ATOMIC_INTEGERS
#undef PG_ATOMIC

#define PG_ATOMIC_CAS(type)                                                                            \
    static inline type atomicCAS(type *p, type expected, type value) {                                 \
        return on_cpu::change(p, [=](type old) -> type { return old == expected ? value : old; });     \
    }
PG_ATOMIC_CAS(int)
PG_ATOMIC_CAS(unsigned)
PG_ATOMIC_CAS(unsigned long long)
PG_ATOMIC_CAS(unsigned short)
#undef PG_ATOMIC_CAS

/* Other blocks run before or after, never meanwhile. */
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}
static inline void __threadfence_system(void) {}

#endif
