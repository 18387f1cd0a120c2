/* fiber.cpp: see fiber.h. */
#include "fiber.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

#include "sanitizer_hooks.h"

namespace on_cpu {

/* ---- stacks ---- */

/* Frames that a sanitizer instruments are several times as large. */
static size_t stack_bytes(void) {
    return (__sanitizer_start_switch_fiber || __tsan_create_fiber ? 256 : 64) << 10;
}
enum { STACKS = 2048 };

static fiber_stack stacks[STACKS];
static int made;
static fiber_stack *unused[STACKS];
static int unused_count;

static fiber_stack *stack_make(void) {
    if (made == STACKS) return nullptr;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), all = stack_bytes() + 2 * page;
    char *memory = (char *)mmap(nullptr, all, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory, page, PROT_NONE);
    fiber_stack *stack = &stacks[made];
    stack->low = memory + page;
    /* The tops of a thousand stacks must not all fall into the same set of the cache. */
    stack->top = memory + all - made % 9 * 448;
    stack->bytes = (size_t)(stack->top - stack->low);
    made++;
    return stack;
}

fiber_stack *stack_take(void) { return unused_count > 0 ? unused[--unused_count] : stack_make(); }
void stack_give(fiber_stack *stack) { unused[unused_count++] = stack; }
void stacks_reset(void) {
    unused_count = 0;
    for (int i = made; i-- > 0;) {
        unused[unused_count++] = &stacks[i];
        if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(stacks[i].low, stacks[i].bytes);
    }
}

/* ---- switching: the registers that a called function must keep go onto the stack ---- */

#if defined(__x86_64__)

__asm__(".text\n"
        ".globl pg_fiber_switch\n"
        ".hidden pg_fiber_switch\n"
        ".type pg_fiber_switch, @function\n"
        "pg_fiber_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size pg_fiber_switch, . - pg_fiber_switch\n");

void *fiber_prepare(fiber_stack *stack, void (*entry)(void)) {
    void **sp = (void **)stack->top;
    *--sp = nullptr;       /* where entry would return to; it also aligns the stack as a call does */
    *--sp = (void *)entry;
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    return sp;
}

#elif defined(__aarch64__)

__asm__(".text\n"
        ".globl pg_fiber_switch\n"
        ".hidden pg_fiber_switch\n"
        ".type pg_fiber_switch, %function\n"
        "pg_fiber_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size pg_fiber_switch, . - pg_fiber_switch\n");

void *fiber_prepare(fiber_stack *stack, void (*entry)(void)) {
    uint64_t *frame = (uint64_t *)stack->top - 20;
    for (int i = 0; i < 20; i++) frame[i] = 0;
    frame[11] = (uint64_t)entry;         /* x30 */
    return frame;
}

#else

/* The context lies on the stack it belongs to. */
extern "C" void pg_fiber_switch(void **save, void *load) {
    ucontext_t here;
    *save = &here;
    swapcontext(&here, (ucontext_t *)load);
}

void *fiber_prepare(fiber_stack *stack, void (*entry)(void)) {
    ucontext_t *context = (ucontext_t *)(((uintptr_t)stack->top - sizeof *context) & ~(uintptr_t)63);
    getcontext(context);
    context->uc_stack.ss_sp = stack->low;
    context->uc_stack.ss_size = (size_t)((char *)context - stack->low);
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}

#endif

}   // namespace on_cpu
