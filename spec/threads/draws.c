/* draws.c: random numbers drawn by several threads at once, on the CPU by the engine's workers and on the
 * device that the argument names, with copies both ways. After its seed a thread draws the same numbers in
 * every round, whatever the others do. Prints how many threads saw that, and how many tensors are left.
 */
#include <perigee.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 3, WORKERS = 4, ROUNDS = 8, N = 3000 };

static const char *device = "cpu";

/* moved: drawn on the CPU and copied to the device; there: drawn on the device; sum: theirs, computed there.
 * */
typedef struct drawn { float moved[N], there[N], sum[N]; } drawn;
static drawn first[THREADS], now[THREADS];

#define TRY(call)                                           \
    do {                                                    \
        if ((call) < 0) {                                   \
            printf("%s: %s\n", #call, pg_last_error());     \
            return 0;                                       \
        }                                                   \
    } while (0)

static int draw(drawn *d, int seed)
{
    const int64_t size[1] = {N};
    const pg_number one = {PG_NUMBER_INT, 1, 1.0};
    pg_tensor here = PG_HANDLE, moved = PG_HANDLE, there = PG_HANDLE, sum = PG_HANDLE;
    TRY(pg_manual_seed(seed));
    TRY(pg_randn(&here, size, 1, PG_FLOAT32, "cpu", false));
    TRY(pg__to(&moved, &here, -1, device, false, false));
    TRY(pg_rand(&there, size, 1, PG_FLOAT32, device, false));
    TRY(pg_add(&sum, &moved, &there, NULL, &one));
    TRY(pg_to_memory(&moved, d->moved, sizeof d->moved));
    TRY(pg_to_memory(&there, d->there, sizeof d->there));
    TRY(pg_to_memory(&sum, d->sum, sizeof d->sum));
    int same = memcmp(d->moved, pg_tensor_data_ptr(&here), sizeof d->moved) == 0;
    pg_tensor *all[] = {&here, &moved, &there, &sum};
    for (int k = 0; k < 4; k++) pg_tensor_release(all[k]);
    return same;
}

static void *work(void *arg)
{
    int me = *(int *)arg;
    for (int round = 0; round < ROUNDS; round++) {
        drawn *d = round == 0 ? &first[me] : &now[me];
        int right = draw(d, me) && memcmp(d, &first[me], sizeof *d) == 0;
        for (int k = 0; k < N && right; k++)
            right = d->sum[k] == d->moved[k] + d->there[k] && d->there[k] >= 0 && d->there[k] < 1;
        if (!right) {
            printf("thread %d: round %d is wrong\n", me, round);
            return NULL;
        }
    }
    return arg;
}

int main(int argc, char **argv)
{
    if (argc > 1) device = argv[1];
    if (pg_set_num_threads(WORKERS) < 0) return 1;
    pthread_t threads[THREADS];
    int numbers[THREADS], good = 0;
    for (int k = 0; k < THREADS; k++) {
        numbers[k] = k;
        if (pthread_create(&threads[k], NULL, work, &numbers[k]) != 0) return 1;
    }
    for (int k = 0; k < THREADS; k++) {
        void *result = NULL;
        pthread_join(threads[k], &result);
        good += result != NULL;
    }
    pg_memory_stats stats;
    if (pg_memory_statistics(&stats, NULL) < 0) return 1;
    printf("%d of %d threads, %.0f tensors live\n", good, THREADS, stats.live_tensors);
    return good == THREADS ? 0 : 1;
}
