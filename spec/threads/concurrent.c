/* concurrent.c: threads that use the engine at once: each makes tensors, computes, records and runs gradients
 * and lets go, and compares its results with those of the first round; all read one shared tensor. The
 * argument names the device ("cpu"). With the argument "race" the threads write one int without a lock
 * instead, for the thread sanitizer to find. */
#include <perigee.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 30, N = 96 };

static pg_tensor shared = {PG_HANDLE_MAGIC, 0, NULL};
static const char *device = "cpu";

#define TRY(call)                                           \
    do {                                                    \
        if ((call) < 0) {                                   \
            printf("%s: %s\n", #call, pg_last_error());     \
            return NULL;                                    \
        }                                                   \
    } while (0)

static void *work(void *arg)
{
    int me = *(int *)arg;
    double values[N], gradient[N], first[N];
    const int64_t shape[2] = {8, 12};
    for (int k = 0; k < N; k++) values[k] = (k * 7 + me) % 11 - 5;
    for (int round = 0; round < ROUNDS; round++) {
        pg_tensor x = PG_HANDLE, y = PG_HANDLE, z = PG_HANDLE, s = PG_HANDLE, g = PG_HANDLE, mine = PG_HANDLE;
        TRY(pg_tensor_retain(&mine, &shared));
        TRY(pg_from_values(&x, values, NULL, N, shape, 2, PG_FLOAT32, device));
        TRY(pg_requires_grad_(&x, 1));
        TRY(pg_mul(&y, &x, &x, NULL));
        TRY(pg_mul(&z, &y, &mine, NULL));
        TRY(pg_sum(&s, &z, NULL, 0, false, -1));
        pg_backward_run *run = NULL;
        pg_backward_step step;
        const pg_tensor *root = &s;
        TRY(pg_backward_begin(&run, &root, 1, NULL, 0, NULL, 0, false, false, false));
        do TRY(pg_backward_next(run, &step)); while (step.kind != PG_STEP_DONE);
        pg_backward_end(run);
        TRY(pg_get_grad(&g, &x));
        TRY(pg_to_values(gradient, NULL, &g, 0, N));
        if (round == 0) memcpy(first, gradient, sizeof first);
        if (memcmp(first, gradient, sizeof first) != 0) {
            printf("thread %d: round %d differs\n", me, round);
            return NULL;
        }
        for (int k = 0; k < N; k++)
            if (gradient[k] != 2 * values[k] * 3) { printf("thread %d: wrong gradient\n", me); return NULL; }
        pg_tensor *all[] = {&x, &y, &z, &s, &g, &mine};
        for (int k = 0; k < 6; k++) pg_tensor_release(all[k]);
    }
    return arg;
}

static int unguarded;
static void *race(void *arg)
{
    for (int k = 0; k < 1000; k++) unguarded += k;
    return arg;
}

int main(int argc, char **argv)
{
    const double three[1] = {3};
    const int64_t one = 1;
    void *(*body)(void *) = argc > 1 && strcmp(argv[1], "race") == 0 ? race : work;
    if (argc > 1 && body == work) device = argv[1];
    if (pg_from_values(&shared, three, NULL, 1, &one, 1, PG_FLOAT32, device) < 0) {
        printf("%s\n", pg_last_error());
        return 1;
    }
    pthread_t threads[THREADS];
    int numbers[THREADS], good = 0;
    for (int k = 0; k < THREADS; k++) {
        numbers[k] = k;
        if (pthread_create(&threads[k], NULL, body, &numbers[k]) != 0) return 1;
    }
    for (int k = 0; k < THREADS; k++) {
        void *result = NULL;
        pthread_join(threads[k], &result);
        good += result != NULL;
    }
    pg_tensor_release(&shared);
    pg_memory_stats stats;
    if (pg_memory_statistics(&stats, device) < 0) return 1;
    printf("%d of %d threads, %.0f tensors live\n", good, THREADS, stats.live_tensors);
    return good == THREADS ? 0 : 1;
}
