/* random.c: the state of the streams. The numbers themselves are made by the kernels (kernels/philox.h). */

#include "random.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "tensor.h"

/* A thread's streams, one a device. */
static PG_THREAD struct {
    bool ready;
    pg_philox state[PG_DEVICES];
} here;

static uint64_t fresh_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        seed = ((uint64_t)t.tv_sec * 1000000007u) ^ (uint64_t)t.tv_nsec;
    }
    return seed >> 11;   /* exact as a double: a script can print it and give it back */
}

static void seed_all(uint64_t seed)
{
    for (int k = 0; k < PG_DEVICES; k++) here.state[k] = (pg_philox){seed, 0};
    here.ready = true;
}

static pg_philox *stream_of(const pg_device *device)
{
    if (!here.ready) seed_all(fresh_seed());
    return &here.state[device->number];
}

pg_philox pg_random_draw(const pg_device *device, uint64_t blocks)
{
    pg_philox *stream = stream_of(device), state = *stream;
    stream->offset += blocks;
    return state;
}

void pg_random_set(const pg_device *device, pg_philox state) { *stream_of(device) = state; }

static int check_not_capturing(const char *what)
{
    return pg_graph_capturing() ? pg_fail("%s: a generator cannot be set while a graph is captured", what) : PG_OK;
}

int pg_manual_seed(int64_t seed)
{
    int status = check_not_capturing("manual_seed");
    if (status >= 0) seed_all((uint64_t)seed);
    return status;
}

int pg_manual_seed_of(int64_t seed, const char *device)
{
    const pg_device *d;
    int status = check_not_capturing("manual_seed");
    if (status >= 0) status = pg_device_find(&d, device);
    if (status >= 0) pg_random_set(d, (pg_philox){(uint64_t)seed, 0});
    return status;
}

double pg_initial_seed(const char *device)
{
    const pg_device *d;
    return pg_device_find(&d, device) < 0 ? -1 : (double)(int64_t)stream_of(d)->seed;
}

/* The state as bytes: seed, then offset, little end first. */
static void pack(uint8_t *bytes, uint64_t v)
{
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t unpack(const uint8_t *bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v |= (uint64_t)bytes[i] << (8 * i);
    return v;
}

int pg_get_rng_state(pg_tensor *out, const char *device)
{
    if (!out || out->magic != PG_HANDLE_MAGIC || out->impl)
        return pg_fail("get_rng_state: expected an empty handle");
    const pg_device *d, *host = pg_device_cpu();
    int status = pg_device_find(&d, device);
    if (status < 0) return status;
    int64_t size = PG_RNG_STATE_BYTES;
    status = pg_new(out, host, PG_UINT8, 1, &size);
    if (status < 0) return status;
    pg_philox state = pg_random_draw(d, 0);
    uint8_t *bytes = pg_data(out);
    pack(bytes, state.seed);
    pack(bytes + 8, state.offset);
    return PG_OK;
}

int pg_set_rng_state(const pg_tensor *state, const char *device)
{
    if (!state || state->magic != PG_HANDLE_MAGIC || !state->impl || !state->impl->storage)
        return pg_fail("set_rng_state: expected a tensor, got a freed one or none");
    if (pg_dtype_of(state) != PG_UINT8 || pg_ndim(state) != 1 || pg_numel(state) != PG_RNG_STATE_BYTES)
        return pg_fail("set_rng_state: expected a uint8 tensor of shape [%d], got %s of shape %s",
                       PG_RNG_STATE_BYTES, pg_dtype_name(pg_dtype_of(state)), pg_text(state));
    if (!pg_device_of(state)->host)
        return pg_fail("set_rng_state: expected a tensor on the cpu, got one on %s",
                       pg_device_of(state)->name);
    const pg_device *d;
    int status = check_not_capturing("set_rng_state");
    if (status >= 0) status = pg_device_find(&d, device);
    if (status < 0) return status;
    uint8_t bytes[PG_RNG_STATE_BYTES];
    const uint8_t *from = pg_data(state);
    for (int i = 0; i < PG_RNG_STATE_BYTES; i++) bytes[i] = from[i * state->impl->stride[0]];
    *stream_of(d) = (pg_philox){unpack(bytes), unpack(bytes + 8)};
    return PG_OK;
}
