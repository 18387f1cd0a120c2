/* cpu.c: the host as a device: memory with huge pages, kernels picked for the processor at hand. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "../core/host_limits.h"
#include "../core/parallel.h"
#include "device.h"
#include "openblas.h"

/* ---- instruction sets, from the least to the best ---- */

#ifdef PG_HAVE_BASELINE
extern const pg_kernels pg_kernels_baseline;
#endif
#ifdef PG_HAVE_AVX2
extern const pg_kernels pg_kernels_avx2;
#endif
#ifdef PG_HAVE_AVX512
extern const pg_kernels pg_kernels_avx512;
#endif

#if defined(__x86_64__)
/* __builtin_cpu_supports also asks whether the operating system saves the registers. */
static bool has_avx2(void)
{
    unsigned a, b, c = 0, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#else
static bool has_avx2(void) { return false; }
static bool has_avx512(void) { return false; }
#endif
static bool always(void) { return true; }

typedef struct isa { const char *name; const pg_kernels *kernels; bool (*supported)(void); } isa;
static const isa isas[] = {
#ifdef PG_HAVE_BASELINE
    {"baseline", &pg_kernels_baseline, always},
#else
    {"baseline", NULL, always},
#endif
#ifdef PG_HAVE_AVX2
    {"avx2", &pg_kernels_avx2, has_avx2},
#else
    {"avx2", NULL, has_avx2},
#endif
#ifdef PG_HAVE_AVX512
    {"avx512", &pg_kernels_avx512, has_avx512},
#else
    {"avx512", NULL, has_avx512},
#endif
};
enum { ISAS = sizeof isas / sizeof *isas };

static char problem[160];

const char *pg_cpu_problem(void)
{
    pg_device_cpu();
    return problem[0] ? problem : NULL;
}

static const isa *pick(void)
{
    int cap = ISAS - 1;
    const char *asked = getenv("PERIGEE_CPU_ISA");
    if (asked && *asked) {
        for (cap = ISAS - 1; cap >= 0 && strcmp(isas[cap].name, asked) != 0; cap--) {}
        if (cap < 0) {
            snprintf(problem, sizeof problem, "PERIGEE_CPU_ISA: expected baseline, avx2 or avx512, got "
                                              "'%.60s'", asked);
            cap = 0;
        }
    }
    for (; cap > 0; cap--)
        if (isas[cap].kernels && isas[cap].supported()) break;
    return &isas[cap];
}

/* ---- memory ---- */

static const size_t HUGE_PAGE = (size_t)2 << 20;

static void *raw_allocate(const pg_device *d, size_t bytes)
{
    (void)d;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page;
    bool large = size >= HUGE_PAGE;
    size_t extra = large ? HUGE_PAGE : 0;
    if (size > PTRDIFF_MAX - extra) return NULL;
    char *memory = mmap(NULL, size + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    if (large) {
        size_t before = (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
        if (before) munmap(memory, before);
        if (extra > before) munmap(memory + before + size, extra - before);
        memory += before;
        madvise(memory, size, MADV_HUGEPAGE);
    }
    return memory;
}

static void raw_free(const pg_device *d, void *memory, size_t bytes)
{
    (void)d;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(memory, (bytes + page - 1) / page * page);
}

static size_t available(const pg_device *d)
{
    (void)d;
    return pg_host_available();
}

static int copy_bytes(const pg_device *d, void *to, const void *from, size_t bytes)
{
    (void)d;
    if (bytes) memcpy(to, from, bytes);
    return PG_OK;
}

/* ---- contexts: scratch comes from the allocator's cache and goes back when the kernel is done ---- */

enum { SCRATCH_MAX = 32 };
static PG_THREAD struct {
    int64_t bad_index[3];
    int n;
    struct { void *memory; size_t got; } scratch[SCRATCH_MAX];
} here;

static void *scratch(const pg_context *context, size_t bytes)
{
    (void)context;
    if (here.n == SCRATCH_MAX) {
        pg_fail("a kernel asked for more than %d pieces of scratch", SCRATCH_MAX);
        return NULL;
    }
    const pg_device *d = pg_device_cpu();
    void *memory;
    if (pg_allocate(d->allocator, bytes, &memory, &here.scratch[here.n].got) < 0) return NULL;
    here.scratch[here.n++].memory = memory;
    return memory;
}

static void split(const pg_context *context, int64_t n, int64_t grain, pg_body body, void *arg)
{
    if (context->threads <= 1) body(arg, 0, n, 0);
    else pg_parallel(n, grain, body, arg);
}

static const void *constant(const pg_context *context, const void *host, size_t bytes)
{
    (void)context;
    (void)bytes;
    return host;
}

static const pg_philox *random_state(const pg_context *context, const pg_philox *host)
{
    (void)context;
    return host;
}

/* `stream` holds where this context's scratch starts: contexts of one thread nest. */
static void begin(const pg_device *d, pg_context *context)
{
    (void)d;
    here.bad_index[0] = here.bad_index[1] = here.bad_index[2] = 0;
    context->stream = (void *)(intptr_t)here.n;
    context->threads = pg_parallel_threads();
    context->grain_limit = pg_parallel_grain_limit();
    context->bad_index = here.bad_index;
    context->parallel = split;
    context->scratch = scratch;
    context->constant = constant;
    context->blas = pg_openblas;
    context->random_state = random_state;
    context->op = pg_error_op();
    context->interrupt = &pg_interrupted;
}

static void end(const pg_device *d, pg_context *context)
{
    int first = (int)(intptr_t)context->stream;
    while (here.n > first) {
        here.n--;
        pg_release_memory(d->allocator, here.scratch[here.n].memory, here.scratch[here.n].got);
    }
}

static int synchronize(const pg_device *d)
{
    (void)d;
    return PG_OK;
}

/* ---- the device ---- */

static pg_device cpu = {
    .type = "cpu", .index = 0, .name = "cpu", .host = true,
    .raw_allocate = raw_allocate, .raw_free = raw_free, .available = available,
    .to_host = copy_bytes, .from_host = copy_bytes, .context = begin, .context_end = end,
    .synchronize = synchronize,
};
static const char *isa_name;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_bool made;

static void make(void)
{
    const isa *best = pick();
    cpu.kernels = best->kernels;
    isa_name = best->name;
    cpu.allocator = pg_allocator_new(&cpu, NULL);
    atomic_store_explicit(&made, true, memory_order_release);
}

const pg_device *pg_device_cpu(void)
{
    if (!atomic_load_explicit(&made, memory_order_acquire)) pthread_once(&once, make);
    return &cpu;
}

const char *pg_cpu_isa(void)
{
    pg_device_cpu();
    return isa_name;
}
