/* The threads of the OpenMP runtime that PyTorch uses. After an operation of PyTorch they keep their cores for some
   milliseconds, waiting for the next one: they start at once, where threads of our own would wait for a core. */

#define _GNU_SOURCE
#include "native.h"

#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

/* OpenMP waits for all threads at the start and at the end. If that takes longer than the work and this, in seconds, the
   machine is busy, and some of the next calls do without them: at first the fewest, twice as many each time. */
#define TOLERATED 5e-5
#define FEWEST 8
#define MOST 1024

typedef void (*Parallel)(void (*work)(void *context), void *context, unsigned threads, unsigned flags);

static Parallel parallel; /* NULL without a runtime */
static int (*max_threads)(void);
static int to_skip, skipped_next = FEWEST;

/* The place where the calling thread begins and ends its part. */
typedef struct {
    void (*work)(void *context);
    void *context;
    pthread_t caller;
    double started, ended;
} Part;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Threads of OpenMP do not survive a fork. The runtime does not notice, and would wait for them. */
static int has_forked;

static void after_fork(void) {
    has_forked = 1;
    parallel = NULL;
}

void watch_forks(void) { has_forked = pthread_atfork(NULL, NULL, after_fork) != 0; }

int join_openmp(void) {
#ifdef __linux__
    if (!has_forked) {
        *(void **)&max_threads = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
        *(void **)&parallel = max_threads ? dlsym(RTLD_DEFAULT, "GOMP_parallel") : NULL;
    }
#endif
    return parallel != NULL;
}

static void run_part(void *context) {
    Part *part = context;
    int is_caller = pthread_equal(pthread_self(), part->caller);
    if (is_caller)
        part->started = now();
    part->work(part->context);
    if (is_caller)
        part->ended = now();
}

int run_with_openmp(void (*work)(void *context), void *context, int threads) {
    /* A team of another size than PyTorch's would be ended and started anew at each change. */
    if (parallel == NULL || threads != max_threads())
        return 0;
    if (to_skip > 0) {
        to_skip--;
        return 0;
    }
    Part part = {.work = work, .context = context, .caller = pthread_self()};
    double first = now();
    parallel(run_part, &part, (unsigned)threads, 0);
    double worked = part.ended - part.started, waited = now() - first - worked;
    if (waited > worked + TOLERATED) {
        to_skip = skipped_next;
        skipped_next = 2 * skipped_next < MOST ? 2 * skipped_next : MOST;
    } else if (skipped_next > FEWEST)
        skipped_next /= 2;
    return 1;
}
