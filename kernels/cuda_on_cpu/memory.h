/* memory.h: the device's memory and the host's pinned memory. */
#ifndef PG_ON_CPU_MEMORY_H
#define PG_ON_CPU_MEMORY_H

#include <stddef.h>

namespace on_cpu {

enum memory_kind { MEMORY_PAGEABLE, MEMORY_PINNED, MEMORY_DEVICE };

/* Where [p, p + bytes) lies; a range that leaves its allocation is *bad. */
memory_kind memory_kind_of(const void *p, size_t bytes, bool *bad);

/* While one lives, device memory can be touched: a kernel runs, or a copy. Nested ones do nothing. */
struct memory_open {
    memory_open();
    ~memory_open();
};

}   // namespace on_cpu

#endif
