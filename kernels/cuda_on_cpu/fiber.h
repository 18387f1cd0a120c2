/* fiber.h: stacks, and going from one to another.
 *
 * A fiber that does not run is the stack pointer it stopped at. Going over costs a few nanoseconds where the
 * switch is written out (x86-64, aarch64) and a system call elsewhere (ucontext).
 */
#ifndef PG_ON_CPU_FIBER_H
#define PG_ON_CPU_FIBER_H

#include <stddef.h>

namespace on_cpu {

struct fiber_stack {
    char *low;       /* above a page that faults */
    char *top;       /* where the first frame goes, 16-byte aligned */
    size_t bytes;    /* low to top */
};

/* A stack that nobody uses; NULL where there is no memory. At most 2,048 are ever made. */
fiber_stack *stack_take(void);
void stack_give(fiber_stack *stack);
/* All stacks are unused again: what stood on them is abandoned. */
void stacks_reset(void);

/* The stack pointer of a fiber that will call entry(), which never returns. */
void *fiber_prepare(fiber_stack *stack, void (*entry)(void));

/* Saves this fiber's stack pointer at *save and goes on where `load` stopped. */
extern "C" void pg_fiber_switch(void **save, void *load);

}   // namespace on_cpu

#endif
