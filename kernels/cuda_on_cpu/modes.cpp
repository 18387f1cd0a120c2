/* modes.cpp: see modes.h. */
#include "modes.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace on_cpu {

static uint64_t random_state = 88172645463325252u;

/* Marsaglia's xorshift, 64 bits (2003). */
unsigned long long random_below(unsigned long long n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static bool asked(const char *name) {
    const char *value = getenv(name);
    return value && *value && strcmp(value, "0") != 0;
}
static void seed_from(const char *name) {
    random_state = random_state * 6364136223846793005u + strtoull(getenv(name), nullptr, 10) * 2 + 1;
}

static modes_state read_modes(void) {
    modes_state m = {};
    m.poison = asked("PERIGEE_CUDA_POISON");
    m.guard = asked("PERIGEE_CUDA_GUARD");
    if (asked("PERIGEE_CUDA_ORDER")) {
        m.order = strcmp(getenv("PERIGEE_CUDA_ORDER"), "reverse") == 0 ? ORDER_REVERSE : ORDER_RANDOM;
        if (m.order == ORDER_RANDOM) seed_from("PERIGEE_CUDA_ORDER");
    }
    if (asked("PERIGEE_CUDA_LATE")) {
        m.late = true;
        seed_from("PERIGEE_CUDA_LATE");
    }
    if (asked("PERIGEE_CUDA_MEMORY"))
        m.memory = (size_t)strtoull(getenv("PERIGEE_CUDA_MEMORY"), nullptr, 10) << 20;
    m.devices = asked("PERIGEE_CUDA_DEVICES") ? atoi(getenv("PERIGEE_CUDA_DEVICES")) : 1;
    if (asked("PERIGEE_CUDA_REFUSE")) m.refuse = strtoull(getenv("PERIGEE_CUDA_REFUSE"), nullptr, 10);
    if (asked("PERIGEE_CUDA_LOSE")) m.lose = strtoull(getenv("PERIGEE_CUDA_LOSE"), nullptr, 10);
    m.without = asked("PERIGEE_CUDA_WITHOUT") ? getenv("PERIGEE_CUDA_WITHOUT") : "";
    if (m.memory == 0) m.memory = (size_t)sysconf(_SC_PHYS_PAGES) / 2 * (size_t)sysconf(_SC_PAGESIZE);
    return m;
}
const modes_state modes = read_modes();

}   // namespace on_cpu
