/* The thread pool: one for the process, for the core and for the kernels of plugins.
 *
 * A region is one call of pf_parallel_for that is worth several threads. Its parts are divided into
 * runs, one for each thread, so that a thread gets the same rows of every layer and finds them in
 * its own cache. A thread that has finished its run takes parts from the others' runs. So a worker
 * that is late, or never comes because the machine is busy, delays no other thread: the region ends
 * when its parts are done, and the caller waits only for workers that are inside a part.
 *
 * Nothing here can wait for a second region: a caller that finds the pool taken, be it another
 * Python thread or a nested call from a body, runs its parts alone. Sums are cut by shapes only and
 * each part writes to its own memory, so all of these ways give the same bits.
 *
 * A worker that has nothing to do spins for a moment, then sleeps. How long it takes to wake one is
 * measured whenever one is woken, and decides what is worth waking for. */
#include "system.h"

#include "parallel.h"
#include "subnormals.h"

#include <fenv.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    LINE = 64, /* bytes; what two threads write at once lies on different cache lines */
    /* Nanoseconds, measured by benchmarks/threads.py. Calling a worker that is awake: cache lines
     * change hands, and not all threads end at the same moment; 1000 were seen. */
    CALL_COST = 3000,
    /* Waking one that sleeps: the initial assumption, and the bounds to which the pool's own
     * measurements are clamped. 10000 of it is the caller's system call. */
    WAKE_COST = 50000,
    LEAST_WAKE_COST = 10000,
    HIGHEST_WAKE_COST = 100000,
    /* How long a worker spins before it sleeps: as long as waking it takes. So waiting never costs
     * more than twice the optimum, which would need to know when the next call comes. */
    SPIN = WAKE_COST,
    PAUSES = 32 /* between two looks at the clock */
};

/* The gate of a region: a bit OPEN, a bit for whether the caller sleeps until the last worker has
 * left, and in the lower bits the number of workers inside. */
enum { OPEN = 1 << 30, CALLER_SLEEPS = 1 << 29 };

typedef struct {
    _Alignas(LINE) atomic_llong next; /* parts from here to `end` are not taken yet */
    int64_t end;
} share;

typedef struct {
    _Alignas(LINE) atomic_uint calls; /* how often it was called */
    atomic_int asleep;
    atomic_llong called_at; /* when it was woken, by the clock */
    pf_monitor monitor;
    struct pool *pool;
    int index;
} worker;

typedef struct pool {
    _Alignas(LINE) atomic_uint gate;
    _Alignas(LINE) share shares[PF_MAX_THREADS];
    worker workers[PF_MAX_THREADS]; /* the caller of a region is number 0 */
    int started;                    /* workers, without the caller */
    int refused;                    /* the system refused to start more threads */
    pf_monitor monitor;
    /* the region; written only while no worker is inside */
    int share_count;
    pf_body body;
    void *context;
    /* How the caller rounds and flushes: the bits depend on it. fegetenv has all of that on some
     * systems only. */
    fenv_t environment;
    uint64_t modes;
} pool;

static atomic_int thread_count = 1;
static atomic_int side_count; /* threads that compute beside each other */
static PF_THREAD_LOCAL int is_beside;
static atomic_int taken; /* the pool is in use */
static pool *the_pool;   /* owned by the caller that has taken it */
/* Statistics of the pool. */
static atomic_int workers; /* started in this process */
static atomic_llong regions;
static atomic_llong wake_cost = WAKE_COST; /* a running mean, nanoseconds */
static atomic_int watching_forks;

int pf_thread_count(void) { return atomic_load_explicit(&thread_count, memory_order_relaxed); }

void pf_set_thread_count(int count) {
    if (count < 1) count = 1;
    atomic_store(&thread_count, count < PF_MAX_THREADS ? count : PF_MAX_THREADS);
}

/* The same for threadpoolctl, which looks up these names in the library. */
#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif
EXPORTED int pyframe_get_num_threads(void);
EXPORTED void pyframe_set_num_threads(int count);
int pyframe_get_num_threads(void) { return pf_thread_count(); }
void pyframe_set_num_threads(int count) { pf_set_thread_count(count); }

/* ---- a region, as each thread that takes part sees it ---- */

/* Runs the rest of the thread's own share, then of the others'. */
static void work(pool *p, int index) {
    for (int i = 0; i < p->share_count; i++) {
        share *s = &p->shares[(index + i) % p->share_count];
        while (atomic_load_explicit(&s->next, memory_order_relaxed) < s->end) {
            const int64_t part = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
            if (part < s->end) p->body(p->context, part);
        }
    }
}

static int enter(pool *p) {
    unsigned gate = atomic_load(&p->gate);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&p->gate, &gate, gate + 1)) return 1;
    return 0;
}

static void leave(pool *p) {
    const unsigned gate = atomic_fetch_sub(&p->gate, 1) - 1;
    if (gate != CALLER_SLEEPS) return;
    pf_monitor_lock(&p->monitor);
    pf_monitor_notify(&p->monitor);
    pf_monitor_unlock(&p->monitor);
}

/* Spins until *word is not `old`; 0 if that takes too long. Yields in between, as there may be more
 * threads than cores. */
static int spin_while(atomic_uint *word, unsigned old, int64_t nanoseconds) {
    if (atomic_load(word) != old) return 1;
    const int64_t start = pf_nanoseconds();
    do {
        for (int i = 0; i < PAUSES; i++) {
            pf_pause();
            if (atomic_load_explicit(word, memory_order_acquire) != old) return 1;
        }
        pf_yield();
    } while (pf_nanoseconds() - start < nanoseconds);
    return 0;
}

/* Adds the time since a worker was called to the running mean. A worker that comes very late was
 * kept from its processor by something else. */
static void learn_wake_cost(int64_t took) {
    if (took < LEAST_WAKE_COST) took = LEAST_WAKE_COST;
    if (took > HIGHEST_WAKE_COST) took = HIGHEST_WAKE_COST;
    const int64_t mean = atomic_load(&wake_cost);
    atomic_store(&wake_cost, mean + (took - mean) / 8);
}

static void sleep_while(worker *w, unsigned calls) {
    pf_monitor_lock(&w->monitor);
    atomic_store(&w->asleep, 1); /* set before `calls` is read; a caller does the reverse */
    const int before_call = atomic_load(&w->calls) == calls;
    while (atomic_load(&w->calls) == calls) pf_monitor_wait(&w->monitor);
    atomic_store(&w->asleep, 0);
    pf_monitor_unlock(&w->monitor);
    if (before_call) learn_wake_cost(pf_nanoseconds() - atomic_load(&w->called_at));
}

/* Waits for a call other than number `old`, and returns its number. */
static unsigned next_call(worker *w, unsigned old) {
    if (!spin_while(&w->calls, old, SPIN)) sleep_while(w, old);
    return atomic_load(&w->calls);
}

PF_THREAD_MAIN(work_for_ever, argument) {
    worker *w = argument;
    pool *p = w->pool;
    pf_name_this_thread();
    for (unsigned call = 0;;) {
        call = next_call(w, call);
        if (!enter(p)) continue;
        if (w->index < p->share_count) { /* else this call was for an earlier region */
            fesetenv(&p->environment);
            pf_set_float_modes(p->modes);
            work(p, w->index);
        }
        leave(p);
    }
    return 0;
}

static void call_worker(worker *w) {
    atomic_store_explicit(&w->called_at, pf_nanoseconds(), memory_order_relaxed);
    atomic_fetch_add(&w->calls, 1);
    if (!atomic_load(&w->asleep)) return;
    pf_monitor_lock(&w->monitor);
    pf_monitor_notify(&w->monitor);
    pf_monitor_unlock(&w->monitor);
}

/* Waits until no worker is inside any more; the gate is closed. */
static void wait_for_the_last(pool *p) {
    const int64_t start = pf_nanoseconds();
    for (;;) {
        for (int i = 0; i < PAUSES; i++) {
            if (atomic_load_explicit(&p->gate, memory_order_acquire) == 0) return;
            pf_pause();
        }
        if (pf_nanoseconds() - start > SPIN) break;
        pf_yield();
    }
    pf_monitor_lock(&p->monitor);
    atomic_fetch_or(&p->gate, CALLER_SLEEPS);
    while (atomic_load(&p->gate) != CALLER_SLEEPS) pf_monitor_wait(&p->monitor);
    atomic_store(&p->gate, 0);
    pf_monitor_unlock(&p->monitor);
}

static void run_region(pool *p, int shares, int64_t parts, pf_body body, void *context) {
    const int64_t each = parts / shares, more = parts % shares; /* `more` shares get one more */
    for (int i = 0; i < shares; i++) {
        const int64_t first = i * each + (i < more ? i : more);
        atomic_store_explicit(&p->shares[i].next, first, memory_order_relaxed);
        p->shares[i].end = first + each + (i < more);
    }
    p->share_count = shares;
    p->body = body;
    p->context = context;
    fegetenv(&p->environment);
    p->modes = pf_float_modes();
    atomic_store(&p->gate, OPEN);
    for (int i = 1; i < shares; i++) call_worker(&p->workers[i]);
    work(p, 0);
    if (atomic_fetch_and(&p->gate, ~(unsigned)OPEN) != OPEN) wait_for_the_last(p);
    atomic_fetch_add_explicit(&regions, 1, memory_order_relaxed);
}

/* ---- the pool itself ---- */

/* In the child of a fork there is one thread only. The parent's workers are gone, and locks that
 * they and other threads held stay held: so the old pool is abandoned, and a new one made when it
 * is needed.
 */
static void forget_in_child(void) {
    the_pool = NULL;
    atomic_store(&workers, 0);
    atomic_store(&taken, 0);
    atomic_store(&side_count, is_beside);
}

static void watch_forks(void) {
    if (!atomic_exchange(&watching_forks, 1)) pf_at_fork_in_child(forget_in_child);
}

static pool *new_pool(void) {
    unsigned char *memory = calloc(1, sizeof(pool) + LINE);
    if (!memory) return NULL;
    pool *p = (pool *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    pf_monitor_init(&p->monitor);
    watch_forks();
    return p;
}

static void start_workers(pool *p, int count) {
    while (p->started < count && !p->refused) {
        worker *w = &p->workers[p->started + 1];
        w->pool = p;
        w->index = p->started + 1;
        pf_monitor_init(&w->monitor);
        if (pf_start_thread(work_for_ever, w))
            p->started++;
        else
            p->refused = 1; /* go on with those already started */
        atomic_store(&workers, p->started);
    }
}

/* Makes the pool ready for `threads`, including the caller; NULL: no memory. */
static pool *prepare(int threads) {
    if (!the_pool) the_pool = new_pool();
    if (the_pool) start_workers(the_pool, threads - 1);
    return the_pool;
}

/* How many threads should share the work: each must have as much to do as calling it costs. Those
 * that are awake cost little; they come first, since calls begin with the first workers. */
static int64_t worthwhile(pool *p, int threads, int64_t nanoseconds) {
    if (threads > p->started + 1) threads = p->started + 1;
    int awake = 1;
    while (awake < threads && !atomic_load(&p->workers[awake].asleep)) awake++;
    const int64_t soon = nanoseconds / CALL_COST, later = nanoseconds / atomic_load(&wake_cost);
    const int64_t of_awake = soon < awake ? soon : awake,
                  of_all = later < threads ? later : threads;
    return of_awake > of_all ? of_awake : of_all;
}

static int run_in_threads(int threads, int64_t parts, int64_t nanoseconds, pf_body body,
                          void *context) {
    int nobody = 0;
    if (!atomic_compare_exchange_strong(&taken, &nobody, 1)) return 0;
    int64_t shares = 1;
    if (the_pool || nanoseconds >= 2 * WAKE_COST) {
        pool *p = prepare(threads);
        if (p && p->started > 0) shares = worthwhile(p, threads, nanoseconds);
        if (shares > parts) shares = parts;
        if (shares > 1) run_region(p, (int)shares, parts, body, context);
    }
    atomic_store(&taken, 0);
    return shares > 1;
}

void pf_parallel_for(int64_t parts, int64_t nanoseconds, pf_body body, void *context) {
    if (parts > 1 && nanoseconds >= 2 * CALL_COST) {
        const int threads = pf_threads_left();
        if (threads > 1 && run_in_threads(threads, parts, nanoseconds, body, context)) return;
    }
    for (int64_t part = 0; part < parts; part++) body(context, part);
}

/* ---- threads that compute side by side ---- */

int pf_set_beside(int beside) {
    const int before = is_beside;
    watch_forks();
    is_beside = beside != 0;
    atomic_fetch_add(&side_count, is_beside - before);
    return before;
}

int pf_threads_left(void) {
    const int count = pf_thread_count();
    if (!is_beside) return count;
    const int left = count - (atomic_load_explicit(&side_count, memory_order_relaxed) - 1);
    return left > 1 ? left : 1;
}

int pf_threads_free(void) {
    return atomic_load_explicit(&taken, memory_order_relaxed) ? 1 : pf_threads_left();
}

void pf_pool_look(pf_pool_report *report) {
    *report = (pf_pool_report){
        .workers = atomic_load(&workers),
        .regions = atomic_load(&regions),
        .wake_nanoseconds = atomic_load(&wake_cost),
    };
}
