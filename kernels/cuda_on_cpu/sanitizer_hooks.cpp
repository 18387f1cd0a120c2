/* sanitizer_hooks.cpp: see sanitizer_hooks.h. */
#include "sanitizer_hooks.h"

#include <link.h>
#include <sys/mman.h>

namespace on_cpu {

/* A collected heap may tell the thread sanitizer of memory that it gives out again. Here all of the address
 * space is that heap. But to say in a report what lies at an address, the sanitizer goes down from there, 8
 * bytes at a time, to the next allocation of the heap: from a stack or a library's variable it would not come
 * back. So there are allocations in its way: the first word of the program and of every library, and a word
 * in each GiB around the place where memory is mapped. */
static int stop_at_start(struct dl_phdr_info *library, size_t, void *) {
    for (int i = 0; i < library->dlpi_phnum; i++) {
        if (library->dlpi_phdr[i].p_type != PT_LOAD) continue;
        __tsan_java_alloc(library->dlpi_addr + library->dlpi_phdr[i].p_vaddr, 8);
        break;
    }
    return 0;
}
static void stop_in_mapped_memory(void) {
    const uintptr_t gib = (uintptr_t)1 << 30, reach = 64 * gib;
    void *page = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    munmap(page, 4096);
    const uintptr_t from = ((uintptr_t)page - reach) / gib * gib, stack = (uintptr_t)&gib;
    for (uintptr_t p = from; p < from + 2 * reach && p < stack; p += gib) __tsan_java_alloc(p, 8);
}

void forget_accesses(void *p, size_t bytes) {
    if (!__tsan_java_alloc || bytes == 0) return;
    static bool started;
    if (!started) {
        __tsan_java_init(8, UINTPTR_MAX / 2);
        dl_iterate_phdr(stop_at_start, nullptr);
        stop_in_mapped_memory();
        started = true;
    }
    const uintptr_t first = (uintptr_t)p & ~(uintptr_t)7, end = ((uintptr_t)p + bytes + 7) & ~(uintptr_t)7;
    __tsan_java_alloc(first, end - first);
}

}   // namespace on_cpu
