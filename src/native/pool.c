/* Threads that wait between two jobs. A thread that does not wake up in time is not waited for: the others do its part. */

#include "native.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define MAX_THREADS 256
/* How often a thread looks again before it sleeps, some tens of microseconds: waking up takes as long as a small job. */
#define LOOKS 1000

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

typedef void (*Job)(void *context, int64_t item);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, one_job = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_is_there = PTHREAD_COND_INITIALIZER, all_have_left = PTHREAD_COND_INITIALIZER;
static int started;       /* threads of this process */
static atomic_int places; /* how many threads may still join the job */
static atomic_int inside; /* how many have joined and not left */
static atomic_int_fast64_t next_item;
static Job current_job;
static void *current_context;
static int64_t current_items;
static int registered;

static void run_items(void *unused) {
    (void)unused;
    Job job = current_job;
    void *context = current_context;
    int64_t items = current_items;
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&next_item, 1, memory_order_relaxed);
        if (item >= items)
            return;
        job(context, item);
    }
}

static void *thread_main(void *unused) {
    for (;;) {
        for (int look = 0; look < LOOKS && atomic_load(&places) == 0; look++)
            RELAX();
        pthread_mutex_lock(&lock);
        while (places == 0)
            pthread_cond_wait(&work_is_there, &lock);
        places--;
        inside++;
        pthread_mutex_unlock(&lock);
        run_items(unused);
        pthread_mutex_lock(&lock);
        if (--inside == 0)
            pthread_cond_signal(&all_have_left);
        pthread_mutex_unlock(&lock);
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

static void run_with_pool(int threads) {
    pthread_mutex_lock(&lock);
    start_threads(threads - 1);
    places = threads - 1;
    if (threads == 2)
        pthread_cond_signal(&work_is_there);
    else
        pthread_cond_broadcast(&work_is_there);
    pthread_mutex_unlock(&lock);
    run_items(NULL);
    pthread_mutex_lock(&lock);
    places = 0;
    pthread_mutex_unlock(&lock);
    for (int look = 0; look < LOOKS && atomic_load(&inside) > 0; look++)
        RELAX();
    pthread_mutex_lock(&lock);
    while (inside > 0)
        pthread_cond_wait(&all_have_left, &lock);
    pthread_mutex_unlock(&lock);
}

void parallel_for(Job job, void *context, int64_t items, int threads) {
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    /* Another caller has the threads: this one works alone. */
    if (threads < 2 || items < 2 || pthread_mutex_trylock(&one_job) != 0) {
        for (int64_t item = 0; item < items; item++)
            job(context, item);
        return;
    }
    current_job = job;
    current_context = context;
    current_items = items;
    atomic_store(&next_item, 0);
    if (!run_with_openmp(run_items, NULL, threads))
        run_with_pool(threads < items ? threads : (int)items);
    pthread_mutex_unlock(&one_job);
}
