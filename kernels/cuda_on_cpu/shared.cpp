/* shared.cpp: see shared.h.
 *
 * A kernel's __shared__ variables are the library's uninitialised thread_locals (thread.h), which the linker
 * lays into one piece behind the initialised ones: poisoning a block's shared memory is filling that piece.
 * So a thread_local that is not a kernel's must be none here, or have an initialiser that is not zero.
 */
#include "shared.h"

#include <link.h>
#include <stdint.h>
#include <stdlib.h>

#include "modes.h"
#include "sanitizer_hooks.h"

namespace on_cpu {

static thread_local char any_local;      /* touching it makes the calling thread's piece */

char *shared_begin(size_t bytes) {
    void *p = nullptr;
    if (bytes == 0 || posix_memalign(&p, 128, bytes) != 0) return nullptr;
    return (char *)p;
}
void shared_end(char *dynamic) { free(dynamic); }

/* Not memset, which the sanitizers would take for the kernel's own writing. */
static void fill(char *p, size_t bytes) {
    volatile char *at = p, *const end = p + bytes;
    for (; at < end && ((uintptr_t)at & 7) != 0; at++) *at = (char)0xff;
    for (; end - at >= 8; at += 8) *(volatile uint64_t *)at = ~(uint64_t)0;
    for (; at < end; at++) *at = (char)0xff;
}

struct piece { char *start; size_t bytes; };

/* The calling thread's piece of the __shared__ variables: *result. */
static int find_statics(struct dl_phdr_info *library, size_t, void *result) {
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) &header = library->dlpi_phdr[i];
        if (header.p_type != PT_TLS || !library->dlpi_tls_data) continue;
        char *const start = (char *)library->dlpi_tls_data;
        if (&any_local < start || &any_local >= start + header.p_memsz) continue;
        *(piece *)result = {start + header.p_filesz, header.p_memsz - header.p_filesz};
        return 1;
    }
    return 0;
}

void shared_next_block(char *dynamic, size_t bytes) {
    const bool watched = __tsan_java_alloc != nullptr;
    if (!modes.poison && !watched) return;
    piece statics = {nullptr, 0};
    any_local = 1;
    dl_iterate_phdr(find_statics, &statics);
    if (watched) {
        forget_accesses(statics.start, statics.bytes);
        forget_accesses(dynamic, bytes);
    }
    if (modes.poison) {
        fill(statics.start, statics.bytes);
        fill(dynamic, bytes);
    }
}

}   // namespace on_cpu
