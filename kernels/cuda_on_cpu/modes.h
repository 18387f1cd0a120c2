/* modes.h: how hostile the emulator is, read once from the environment. README.md describes the variables. */
#ifndef PG_ON_CPU_MODES_H
#define PG_ON_CPU_MODES_H

#include <stddef.h>

namespace on_cpu {

enum order_mode { ORDER_FORWARD, ORDER_REVERSE, ORDER_RANDOM };
struct modes_state {
    order_mode order;    /* in which threads and blocks run: PERIGEE_CUDA_ORDER */
    bool poison;         /* fresh device memory and each block's shared memory is NaN: PERIGEE_CUDA_POISON */
    bool late;           /* streams run late, in any order that events allow: PERIGEE_CUDA_LATE */
    bool guard;          /* the host cannot touch device memory: PERIGEE_CUDA_GUARD */
    size_t memory;       /* how much memory the device has, in bytes: PERIGEE_CUDA_MEMORY, in MiB */
    int devices;         /* how many there are: PERIGEE_CUDA_DEVICES */
    unsigned long long refuse, lose; /* the launch that is refused, or with which the device is lost, counted
                                        from 1; 0: none: PERIGEE_CUDA_REFUSE, PERIGEE_CUDA_LOSE */
    const char *without;  /* "cublasLt": it is not installed; one of its functions: it lacks that;
                             "": all is there: PERIGEE_CUDA_WITHOUT */
};
extern const modes_state modes;

/* A number below n (n > 0), from the sequence that the modes' seed starts. */
unsigned long long random_below(unsigned long long n);

}   // namespace on_cpu

#endif
