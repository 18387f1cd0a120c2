/* openblas.c: OpenBLAS, opened at run time: the engine starts without it and works without it.
 *
 * Its threads stay unused: the engine's own workers call it, each for a tile of its own. Its kernels are asked for by the
 * instruction set that ours use (so PERIGEE_CPU_ISA caps both, and a processor younger than the library is served), unless
 * OPENBLAS_CORETYPE says otherwise.
 */
#include "openblas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

extern char **environ;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pg_blas blas;
static bool there;
static char told[256] = "not opened";

/* OpenBLAS is told things through the environment alone, and only while it is opened. setenv would move memory under other
 * threads' getenv; a second array, put in place for a moment and never freed, does not. */
static void *open_with(const char *path, const char *const *settings, size_t settings_n)
{
    char **before = environ, **with;
    size_t n = 0;
    while (before && before[n]) n++;
    with = malloc((n + settings_n + 1) * sizeof *with);
    if (!with) return NULL;
    for (size_t i = 0; i < settings_n; i++) with[i] = (char *)settings[i];
    for (size_t i = 0; i < n; i++) with[settings_n + i] = before[i];
    with[n + settings_n] = NULL;
    environ = with;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    environ = before;
    return library;
}

static const char *core_type(void)
{
    const char *isa = pg_cpu_isa();
    if (strcmp(isa, "avx512") == 0) return "OPENBLAS_CORETYPE=SKYLAKEX";
    if (strcmp(isa, "avx2") == 0) return "OPENBLAS_CORETYPE=HASWELL";
#if defined(__x86_64__)
    return "OPENBLAS_CORETYPE=PRESCOTT";
#else
    return NULL;
#endif
}

static void *find(const char *asked)
{
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so"};
    const char *settings[2] = {"OPENBLAS_NUM_THREADS=1", core_type()};
    size_t n = settings[1] && !getenv("OPENBLAS_CORETYPE") ? 2 : 1;
    if (asked) return open_with(asked, settings, n);
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++)
        library = open_with(names[i], settings, n);
    return library;
}

static void open_library(void)
{
    const char *asked = getenv("PERIGEE_OPENBLAS");
    if (asked && !*asked) asked = NULL;
    if (asked && strcmp(asked, "off") == 0) {
        snprintf(told, sizeof told, "PERIGEE_OPENBLAS is off");
        return;
    }
    void *library = find(asked);
    if (!library) {
        const char *why = dlerror();
        snprintf(told, sizeof told, "%s", why ? why : "out of memory");
        return;
    }
    /* An object pointer that holds a function: POSIX's dlsym, which ISO C cannot say. */
    void (*threads)(int);
    char *(*config)(void);
    *(void **)&blas.gemm_f32 = dlsym(library, "cblas_sgemm");
    *(void **)&blas.gemm_f64 = dlsym(library, "cblas_dgemm");
    *(void **)&threads = dlsym(library, "openblas_set_num_threads");
    *(void **)&config = dlsym(library, "openblas_get_config");
    if (!blas.gemm_f32 || !blas.gemm_f64 || !threads || !config) {
        snprintf(told, sizeof told, "%s is no OpenBLAS", asked ? asked : "libopenblas");
        dlclose(library);
        return;
    }
    threads(1);
    snprintf(told, sizeof told, "%s", config());
    there = true;
}

const pg_blas *pg_openblas(void)
{
    pthread_once(&once, open_library);
    return there ? &blas : NULL;
}

int pg_openblas_config(const char **text)
{
    const pg_blas *found = pg_openblas();
    *text = told;
    return found != NULL;
}
