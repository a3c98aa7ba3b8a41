/* A lock for one set of parameters: many readers or one writer, the writer first.
 *
 * Updates take microseconds and are rare beside the reading, so both sides wait by yielding and
 * then by short sleeps; no operating system's lock is needed. */
#define _POSIX_C_SOURCE 200809L
#include <stdatomic.h>
#include <stdlib.h>

#include "guard.h"

#ifdef _WIN32
#include <windows.h>
static void sleep_briefly(void) { Sleep(1); }
static void yield_processor(void) { SwitchToThread(); }
#else
#include <sched.h>
#include <time.h>
static void sleep_briefly(void) { nanosleep(&(struct timespec){0, 50000}, NULL); }
static void yield_processor(void) { sched_yield(); }
#endif

struct pf_guard {
    atomic_int owners;   /* whoever made it, each context, and who is between enter and leave */
    atomic_int training; /* somebody is between enter and leave */
    atomic_int writer;
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
    int free_to_train = 0;
    if (!atomic_compare_exchange_strong(&guard->training, &free_to_train, 1)) return 0;
    pf_guard_retain(guard);
    return 1;
}

int pf_guard_is_taken(pf_guard *guard) { return atomic_load(&guard->training); }

void pf_guard_leave(pf_guard *guard) {
    atomic_store(&guard->training, 0);
    pf_guard_free(guard);
}

static void wait_a_little(int *turns) {
    if (++*turns < 100)
        yield_processor();
    else
        sleep_briefly();
}

void pf_guard_lock_read(pf_guard *guard) {
    int turns = 0;
    for (;;) {
        while (atomic_load(&guard->writer)) wait_a_little(&turns);
        atomic_fetch_add(&guard->readers, 1);
        if (!atomic_load(&guard->writer)) return;
        atomic_fetch_sub(&guard->readers, 1); /* a writer came in between: let it go first */
    }
}
void pf_guard_unlock_read(pf_guard *guard) { atomic_fetch_sub(&guard->readers, 1); }

void pf_guard_lock_write(pf_guard *guard) {
    int turns = 0, nobody = 0;
    while (!atomic_compare_exchange_weak(&guard->writer, &nobody, 1)) {
        nobody = 0;
        wait_a_little(&turns);
    }
    while (atomic_load(&guard->readers)) wait_a_little(&turns);
}
void pf_guard_unlock_write(pf_guard *guard) { atomic_store(&guard->writer, 0); }

struct pf_hold {
    int to_write;
    int64_t count, taken;
    pf_guard *guards[];
};

pf_hold *pf_hold_new(pf_guard *const *guards, int64_t count, int to_write) {
    pf_hold *hold = calloc(1, sizeof *hold + (size_t)count * sizeof *guards);
    if (!hold) return NULL;
    hold->to_write = to_write, hold->count = count;
    for (int64_t g = 0; g < count; g++) pf_guard_retain(hold->guards[g] = guards[g]);
    return hold;
}

static void let_go(pf_hold *hold) {
    while (hold->taken > 0) {
        pf_guard *guard = hold->guards[--hold->taken];
        if (hold->to_write)
            pf_guard_unlock_write(guard);
        else
            pf_guard_leave(guard);
    }
}

int pf_hold_take(pf_hold *hold) {
    for (; hold->taken < hold->count; hold->taken++) {
        pf_guard *guard = hold->guards[hold->taken];
        if (hold->to_write) {
            pf_guard_lock_write(guard);
        } else if (!pf_guard_enter(guard)) {
            let_go(hold);
            return 0;
        }
    }
    return 1;
}

void pf_hold_free(pf_hold *hold) {
    let_go(hold);
    for (int64_t g = 0; g < hold->count; g++) pf_guard_free(hold->guards[g]);
    free(hold);
}
