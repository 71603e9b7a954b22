/* Threads that wait between two jobs. A thread that does not wake up in time is not waited for: the others do its part. */

#include "native.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define MAX_THREADS 256

typedef void (*Job)(void *context, int64_t item);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, one_job = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_is_there = PTHREAD_COND_INITIALIZER, all_have_left = PTHREAD_COND_INITIALIZER;
static int started;       /* threads of this process */
static int places;        /* how many threads may still join the job */
static int inside;        /* how many have joined and not left */
static int64_t job_items; /* of the current job */
static atomic_int_fast64_t next_item;
static Job current_job;
static void *current_context;
static int registered;

static void run_items(Job job, void *context, int64_t items) {
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&next_item, 1, memory_order_relaxed);
        if (item >= items)
            return;
        job(context, item);
    }
}

static void *thread_main(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (places == 0)
            pthread_cond_wait(&work_is_there, &lock);
        places--;
        inside++;
        Job job = current_job;
        void *context = current_context;
        int64_t items = job_items;
        pthread_mutex_unlock(&lock);
        run_items(job, context, items);
        pthread_mutex_lock(&lock);
        if (--inside == 0)
            pthread_cond_signal(&all_have_left);
    }
    return NULL;
}

/* Threads do not survive a fork, and locks may be held by threads that are gone. */
static void forget_threads(void) {
    pthread_mutex_init(&lock, NULL);
    pthread_mutex_init(&one_job, NULL);
    pthread_cond_init(&work_is_there, NULL);
    pthread_cond_init(&all_have_left, NULL);
    started = places = inside = 0;
}

static void start_threads(int count) {
    if (!registered)
        registered = pthread_atfork(NULL, NULL, forget_threads) == 0;
    while (started < count) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
            return;
        pthread_detach(thread);
        started++;
    }
}

void parallel_for(Job job, void *context, int64_t items, int threads) {
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    if (threads > items)
        threads = (int)items;
    /* Another caller has the threads: this one works alone. */
    if (threads < 2 || pthread_mutex_trylock(&one_job) != 0) {
        for (int64_t item = 0; item < items; item++)
            job(context, item);
        return;
    }
    pthread_mutex_lock(&lock);
    start_threads(threads - 1);
    current_job = job;
    current_context = context;
    job_items = items;
    atomic_store_explicit(&next_item, 0, memory_order_relaxed);
    places = threads - 1;
    if (threads == 2)
        pthread_cond_signal(&work_is_there);
    else
        pthread_cond_broadcast(&work_is_there);
    pthread_mutex_unlock(&lock);
    run_items(job, context, items);
    pthread_mutex_lock(&lock);
    places = 0;
    while (inside > 0)
        pthread_cond_wait(&all_have_left, &lock);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&one_job);
}
