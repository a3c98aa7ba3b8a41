/* Works the thread pool hard: several threads share out work at once, bodies share out work
 * themselves, the number of threads changes, the process forks. Prints "ok" when every part ran
 * exactly once, always. Built by test_threads.py; by hand also with -fsanitize=thread:
 *
 *     cc -g -O1 -fsanitize=thread -I core_c -I core_c/include tests/pool_check.c core_c/parallel.c
 * \ -pthread -lm -o pool_check && ./pool_check 300 nofork */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "parallel.h"

enum { PARTS = 500, CALLERS = 3, FORKS = 20 };

typedef struct {
    int64_t ran[PARTS]; /* not atomic: a part that two threads run is a race */
    int64_t inner[PARTS][4];
    int64_t rounds;
} board;

static void count_inner(void *context, int64_t part) { ((int64_t *)context)[part]++; }

static void count(void *context, int64_t part) {
    board *b = context;
    b->ran[part]++;
    for (volatile int i = 0; i < 200; i++) continue;
    if (part % 16 == 0) pf_parallel_for(4, 1000000, count_inner, b->inner[part]);
}

static void share_out(board *b, int64_t parts, int64_t nanoseconds) {
    memset(b, 0, sizeof *b);
    pf_parallel_for(parts, nanoseconds, count, b);
    for (int64_t p = 0; p < PARTS; p++) {
        const int64_t inner = p < parts && p % 16 == 0;
        int wrong = b->ran[p] != (p < parts);
        for (int i = 0; i < 4; i++) wrong |= b->inner[p][i] != inner;
        if (!wrong) continue;
        printf("part %lld of %lld ran %lld times\n", (long long)p, (long long)parts,
               (long long)b->ran[p]);
        exit(1);
    }
}

static void *call_often(void *rounds) {
    board *b = malloc(sizeof *b);
    for (int64_t r = 0; r < *(int64_t *)rounds; r++) {
        share_out(b, r % 4 == 0 ? r % 9 : 1 + r * 37 % PARTS, r % 3 == 0 ? 10000 : 10000000);
        if (r % 50 == 0) usleep(300); /* the workers fall asleep */
    }
    free(b);
    return NULL;
}

static void *change_count(void *done) {
    for (int n = 1; !atomic_load((atomic_int *)done); n = n % 7 + 1) {
        pf_set_thread_count(n);
        usleep(200);
    }
    return NULL;
}

/* A child has a pool of its own that works, whatever the parent's was doing. */
static void fork_often(void) {
    for (int i = 0; i < FORKS; i++) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);
            pf_set_thread_count(3);
            int64_t rounds = 20;
            call_often(&rounds);
            pf_pool_report report;
            pf_pool_look(&report);
            _exit(report.workers == 2 ? 0 : 2);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) {
            printf("child %d: status %d, signal %d\n", i, WEXITSTATUS(status), WTERMSIG(status));
            exit(1);
        }
        usleep(500);
    }
}

int main(int argc, char **argv) {
    int64_t rounds = argc > 1 ? atoll(argv[1]) : 1000;
    pthread_t callers[CALLERS], changer;
    atomic_int done = 0;
    pf_set_thread_count(4);
    pthread_create(&changer, NULL, change_count, &done);
    for (int i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, call_often, &rounds);
    if (argc < 3) fork_often();
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
    atomic_store(&done, 1);
    pthread_join(changer, NULL);
    pf_pool_report report;
    pf_pool_look(&report);
    if (report.regions == 0) return puts("nothing was shared out"), 1;
    printf("ok: %lld workers, %lld regions, %lld ns to wake one\n", (long long)report.workers,
           (long long)report.regions, (long long)report.wake_nanoseconds);
    return 0;
}
