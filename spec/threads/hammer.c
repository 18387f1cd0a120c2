/* hammer.c: the engine used from several threads at once, as workers and queues between them will use it.
 * Prints "sound" at the end. hammer_spec.lua compiles it against the library under test; under the thread
 * sanitizer every race is an error. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "perigee.h"

enum { THREADS = 4, ROUNDS = 60, SIZE = 96 };

#define must(call)                                                               \
    do {                                                                         \
        if ((call) < 0) {                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, pg_last_error()); \
            exit(1);                                                             \
        }                                                                        \
    } while (0)
#define check(what)                                                            \
    do {                                                                       \
        if (!(what)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

/* A place where one thread leaves a tensor and another takes it. */
static struct { pthread_mutex_t mutex; pg_tensor tensor; } mailbox = {PTHREAD_MUTEX_INITIALIZER,
                                                                      {PG_HANDLE_MAGIC, 0, NULL}};

static double sum_of(const pg_tensor *t)
{
    pg_tensor sum = PG_HANDLE;
    pg_number number;
    must(pg_sum(&sum, t, NULL, 0, false, -1));
    must(pg_item(&number, &sum));
    pg_tensor_release(&sum);
    return number.d;
}

static void exchange(const pg_tensor *mine)
{
    pg_tensor theirs = PG_HANDLE;
    must(pg_scope_exempt(mine));
    pthread_mutex_lock(&mailbox.mutex);
    theirs.impl = mailbox.tensor.impl;
    mailbox.tensor.impl = NULL;
    must(pg_tensor_retain(&mailbox.tensor, mine));
    pthread_mutex_unlock(&mailbox.mutex);
    if (theirs.impl) check(sum_of(&theirs) == SIZE * SIZE);
    pg_tensor_release(&theirs);
}

/* loss = sum((x w) * 2); d loss / d w = 2 * SIZE everywhere, x being ones. */
static void train(const pg_tensor *x, const pg_tensor *w)
{
    const pg_number two = {PG_NUMBER_INT, 2, 2.0};
    pg_tensor y = PG_HANDLE, z = PG_HANDLE, loss = PG_HANDLE, grad = PG_HANDLE;
    pg_backward_run *run;
    pg_backward_step step;
    must(pg_matmul(&y, x, w));
    must(pg_mul(&z, &y, NULL, &two));
    must(pg_sum(&loss, &z, NULL, 0, false, -1));
    const pg_tensor *root = &loss;
    must(pg_backward_begin(&run, &root, 1, NULL, 0, NULL, 0, false, false, false));
    do must(pg_backward_next(run, &step));
    while (step.kind != PG_STEP_DONE);
    pg_backward_end(run);
    must(pg_get_grad(&grad, w));
    check(sum_of(&grad) == 2.0 * SIZE * SIZE * SIZE);
    must(pg_set_grad(w, NULL));
    pg_tensor_release(&y);
    pg_tensor_release(&z);
    pg_tensor_release(&loss);
    pg_tensor_release(&grad);
}

static void *work(void *arg)
{
    const int me = (int)(size_t)arg;
    const int64_t shape[2] = {SIZE, SIZE};
    const pg_number one = {PG_NUMBER_INT, 1, 1.0};
    pg_tensor w = PG_HANDLE;
    must(pg_ones(&w, shape, 2, PG_FLOAT32, NULL, false));
    must(pg_requires_grad_(&w, 1));
    for (int round = 0; round < ROUNDS; round++) {
        int scope;
        pg_tensor x = PG_HANDLE, noise = PG_HANDLE;
        must(pg_scope_enter(&scope));
        must(pg_full(&x, shape, 2, &one, PG_FLOAT32, NULL, false));
        train(&x, &w);
        must(pg_randn(&noise, shape, 2, PG_FLOAT32, NULL, false));
        exchange(&x);
        must(pg_scope_leave(scope));
        check(pg_tensor_dim(&noise) == -1);    /* emptied by the scope's end: its handle alone held it */
        check(pg_tensor_dim(&x) == 2 || pg_tensor_dim(&x) == -1);
        pg_tensor_release(&x);
        pg_tensor_release(&noise);
        if (me == 0 && round % 16 == 0) {
            pg_memory_stats stats;
            must(pg_memory_statistics(&stats, NULL));
            must(pg_empty_cache(NULL));
            must(pg_set_num_threads(1 + round / 16 % 3));
        }
        if (me == 1 && round % 16 == 8) must(pg_manual_seed(round));
        /* errors are each thread's own */
        pg_tensor wrong = PG_HANDLE;
        check(pg_reshape(&wrong, &w, (int64_t[]){me + 5}, 1) < 0);
        char expected[32];
        snprintf(expected, sizeof expected, "[%d]", me + 5);
        const char *message = pg_last_error();
        bool found = false;
        for (const char *p = message; *p && !found; p++) {
            size_t n = 0;
            while (expected[n] && p[n] == expected[n]) n++;
            found = expected[n] == 0;
        }
        check(found);
    }
    pg_tensor_release(&w);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    must(pg_set_num_threads(2));
    for (int i = 0; i < THREADS; i++) check(pthread_create(&threads[i], NULL, work, (void *)(size_t)i) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pg_tensor_release(&mailbox.tensor);
    pg_memory_stats stats;
    must(pg_memory_statistics(&stats, NULL));
    check(stats.live_tensors == 0 && stats.live_storages == 0);
    check(stats.live_nodes == 0 && stats.allocated == 0);
    puts("sound");
    return 0;
}
