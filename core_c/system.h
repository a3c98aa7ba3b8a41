/* What the thread pool needs from the operating system: threads, monitors, clock, processor hints.
 *
 * POSIX and Windows side by side, so that parallel.c is the same for both. Include this first: it
 * selects what the system's headers declare. */
#ifndef PYFRAME_SYSTEM_H
#define PYFRAME_SYSTEM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_setname_np */
#endif

#include <stdint.h>

/* A worker's stack. A GEMM packs up to 96 KiB on it, a group of instructions 64 KiB; a page that is
 * never touched costs nothing. */
enum { PF_STACK_BYTES = 1 << 20 };

/* Of each thread its own. The GNU library keeps some room for that in what every thread has anyway;
 * otherwise the memory is allocated at the first use and freed by whichever thread comes later,
 * which the thread sanitizer takes for a race. Other libraries have no such room for what is loaded
 * late. */
#ifdef __GLIBC__
#define PF_THREAD_LOCAL __attribute__((tls_model("initial-exec"))) _Thread_local
#else
#define PF_THREAD_LOCAL _Thread_local
#endif

#ifdef _WIN32

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef struct {
    SRWLOCK lock;
    CONDITION_VARIABLE changed;
} pf_monitor;

static inline void pf_monitor_init(pf_monitor *m) {
    InitializeSRWLock(&m->lock);
    InitializeConditionVariable(&m->changed);
}
static inline void pf_monitor_lock(pf_monitor *m) { AcquireSRWLockExclusive(&m->lock); }
static inline void pf_monitor_unlock(pf_monitor *m) { ReleaseSRWLockExclusive(&m->lock); }
static inline void pf_monitor_wait(pf_monitor *m) {
    SleepConditionVariableSRW(&m->changed, &m->lock, INFINITE, 0);
}
static inline void pf_monitor_notify(pf_monitor *m) { WakeConditionVariable(&m->changed); }

static inline void pf_yield(void) { SwitchToThread(); }

static inline int64_t pf_nanoseconds(void) {
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (int64_t)(1e9 * (double)count.QuadPart / (double)frequency.QuadPart);
}

#define PF_THREAD_MAIN(name, argument) static DWORD WINAPI name(void *argument)

/* Starts a thread that nobody waits for; 0 when the system refuses. */
static inline int pf_start_thread(DWORD(WINAPI *run)(void *), void *argument) {
    HANDLE thread =
        CreateThread(NULL, PF_STACK_BYTES, run, argument, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (!thread) return 0;
    CloseHandle(thread);
    return 1;
}
static inline void pf_name_this_thread(void) {}
static inline void pf_at_fork_in_child(void (*handler)(void)) { (void)handler; }
static inline void pf_ask_for_large_pages(void *memory, int64_t bytes) {
    (void)memory, (void)bytes;
}

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
} pf_monitor;

static inline void pf_monitor_init(pf_monitor *m) {
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, NULL);
}
static inline void pf_monitor_lock(pf_monitor *m) { pthread_mutex_lock(&m->lock); }
static inline void pf_monitor_unlock(pf_monitor *m) { pthread_mutex_unlock(&m->lock); }
static inline void pf_monitor_wait(pf_monitor *m) { pthread_cond_wait(&m->changed, &m->lock); }
static inline void pf_monitor_notify(pf_monitor *m) { pthread_cond_signal(&m->changed); }

static inline void pf_yield(void) { sched_yield(); }

static inline int64_t pf_nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#define PF_THREAD_MAIN(name, argument) static void *name(void *argument)

/* Starts a thread that nobody waits for; 0 when the system refuses. It blocks signals: Ctrl-C is
 * for Python's main thread. Signals that a fault raises in the thread itself are not blocked, so
 * that a crash is reported like any other. */
static inline int pf_start_thread(void *(*run)(void *), void *argument) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, PF_STACK_BYTES);
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++) sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    pthread_t thread;
    const int status = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return status == 0;
}

static inline void pf_name_this_thread(void) {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "pyframe");
#elif defined(__APPLE__)
    pthread_setname_np("pyframe");
#endif
}

static inline void pf_at_fork_in_child(void (*handler)(void)) {
    pthread_atfork(NULL, NULL, handler);
}

/* Memory that all of is used, in pages of 2 MB as far as it holds whole ones: rows of a product lie
 * on many pages, of which a processor keeps only some thousands in mind. Where the system refuses,
 * or does so by itself, nothing happens. */
static inline void pf_ask_for_large_pages(void *memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)1 << 21, end = (uintptr_t)memory + (uintptr_t)bytes;
    const uintptr_t first = ((uintptr_t)memory + page - 1) / page * page;
    if (end >= first + page) madvise((void *)first, (end - first) / page * page, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

#endif

/* Tells the processor that this is a spin loop. */
static inline void pf_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

#endif
