/* A lock for one set of parameters: many readers or one writer, with priority for the writer.
 *
 * Updates take microseconds and are rare compared with reads, so both sides wait by yielding and
 * then by short sleeps; no operating-system lock is needed. */
#define _POSIX_C_SOURCE 200809L
#include <stdatomic.h>
#include <stdlib.h>

#include "guard.h"

#ifdef _WIN32
#include <windows.h>
static void sleep_briefly(void) { Sleep(1); }
static void yield_processor(void) { SwitchToThread(); }
static uintptr_t this_thread(void) { return GetCurrentThreadId(); }
#else
#include <pthread.h>
#include <sched.h>
#include <time.h>
static void sleep_briefly(void) { nanosleep(&(struct timespec){0, 50000}, NULL); }
static void yield_processor(void) { sched_yield(); }
static uintptr_t this_thread(void) { return (uintptr_t)pthread_self(); }
#endif

struct pf_guard {
    atomic_int owners; /* its creator, each context, and each thread between enter and leave */
    atomic_uintptr_t trainer; /* the thread between enter and leave, or 0 */
    atomic_uintptr_t writer;  /* the thread that writes or waits to write, or 0 */
    atomic_int readers;
};

pf_guard *pf_guard_new(void) {
    pf_guard *guard = calloc(1, sizeof *guard);
    if (guard) pf_guard_retain(guard);
    return guard;
}

void pf_guard_retain(pf_guard *guard) { atomic_fetch_add(&guard->owners, 1); }

void pf_guard_free(pf_guard *guard) {
    if (atomic_fetch_sub(&guard->owners, 1) == 1) free(guard);
}

int pf_guard_enter(pf_guard *guard) {
    uintptr_t nobody = 0;
    if (!atomic_compare_exchange_strong(&guard->trainer, &nobody, this_thread())) return 0;
    pf_guard_retain(guard);
    return 1;
}

int pf_guard_is_taken(pf_guard *guard) { return atomic_load(&guard->trainer) != 0; }

void pf_guard_leave(pf_guard *guard) {
    atomic_store(&guard->trainer, 0);
    pf_guard_free(guard);
}

static void wait_a_little(int *turns) {
    if (++*turns < 100)
        yield_processor();
    else
        sleep_briefly();
}

/* Whether this thread is the writer: then it may also read, or take the write lock again. */
static int is_writer(pf_guard *guard) { return atomic_load(&guard->writer) == this_thread(); }

int pf_guard_try_read(pf_guard *guard) {
    atomic_fetch_add(&guard->readers, 1);
    if (!atomic_load(&guard->writer) || is_writer(guard)) return 1;
    atomic_fetch_sub(&guard->readers, 1);
    return 0;
}

void pf_guard_lock_read(pf_guard *guard) {
    int turns = 0;
    do
        while (atomic_load(&guard->writer) && !is_writer(guard)) wait_a_little(&turns);
    while (!pf_guard_try_read(guard)); /* a writer came in between: it goes first */
}
void pf_guard_unlock_read(pf_guard *guard) { atomic_fetch_sub(&guard->readers, 1); }

void pf_guard_lock_write(pf_guard *guard) {
    int turns = 0;
    uintptr_t nobody = 0;
    while (!atomic_compare_exchange_weak(&guard->writer, &nobody, this_thread())) {
        nobody = 0;
        wait_a_little(&turns);
    }
    while (atomic_load(&guard->readers)) wait_a_little(&turns);
}
void pf_guard_unlock_write(pf_guard *guard) { atomic_store(&guard->writer, 0); }

struct pf_hold {
    int purpose;
    int64_t count, taken;
    struct held {
        pf_guard *guard;
        int training, writing; /* what we hold of it */
    } guards[];
};

pf_hold *pf_hold_new(pf_guard *const *guards, int64_t count, int purpose) {
    pf_hold *hold = calloc(1, sizeof *hold + (size_t)count * sizeof hold->guards[0]);
    if (!hold) return NULL;
    hold->purpose = purpose, hold->count = count;
    for (int64_t g = 0; g < count; g++) pf_guard_retain(hold->guards[g].guard = guards[g]);
    return hold;
}

static void let_go(struct held *held) {
    if (held->writing) pf_guard_unlock_write(held->guard);
    if (held->training) pf_guard_leave(held->guard);
    held->writing = held->training = 0;
}

/* Returns 0 if another thread trains and the purpose does not allow that. */
static int take(struct held *held, int purpose) {
    if (purpose != PF_TO_WRITE) {
        held->training = pf_guard_enter(held->guard);
        const int is_ours = atomic_load(&held->guard->trainer) == this_thread();
        if (!held->training && !(purpose == PF_TO_RESTORE && is_ours)) return 0;
    }
    if (purpose != PF_TO_TRAIN && !is_writer(held->guard)) {
        pf_guard_lock_write(held->guard);
        held->writing = 1;
    }
    return 1;
}

int pf_hold_take(pf_hold *hold) {
    for (; hold->taken < hold->count; hold->taken++)
        if (!take(&hold->guards[hold->taken], hold->purpose)) {
            while (hold->taken > 0) let_go(&hold->guards[--hold->taken]);
            return 0;
        }
    return 1;
}

void pf_hold_free(pf_hold *hold) {
    while (hold->taken > 0) let_go(&hold->guards[--hold->taken]);
    for (int64_t g = 0; g < hold->count; g++) pf_guard_free(hold->guards[g].guard);
    free(hold);
}
