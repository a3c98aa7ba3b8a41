/* Calls a kernel for the thread sanitizer: from two threads at once, the second with outputs and
 * states of its own, and with a parallel_for whose parts run in threads that the sanitizer sees
 * begin and end.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <pyframe/pyframe.h>

enum { THREADS = 4 };
static _Thread_local int inside;

typedef struct {
    pf_body body;
    void *context;
    int64_t parts, first;
} share;

static void *run_share(void *given) {
    const share *s = given;
    inside = 1;
    for (int64_t part = s->first; part < s->parts; part += THREADS) s->body(s->context, part);
    return NULL;
}

static void parallel_for(int64_t parts, int64_t nanoseconds, pf_body body, void *context) {
    (void)nanoseconds;
    if (inside) {
        for (int64_t part = 0; part < parts; part++) body(context, part);
        return;
    }
    pthread_t threads[THREADS];
    share shares[THREADS];
    int64_t count = parts < THREADS ? parts : THREADS;
    for (int64_t i = 0; i < count; i++) {
        shares[i] = (share){body, context, parts, i};
        if (pthread_create(&threads[i], NULL, run_share, &shares[i])) abort();
    }
    for (int64_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static pf_operand *copies_of(const pf_operand *const *from, uint32_t count) {
    pf_operand *made = calloc(count + 1, sizeof *made);
    for (uint32_t i = 0; i < count; i++) {
        made[i] = *from[i];
        if (!made[i].data) continue;
        size_t bytes = made[i].type_bits / 8;
        for (int32_t axis = 0; axis < made[i].ndim; axis++) bytes *= (size_t)made[i].dims[axis];
        made[i].data = aligned_alloc(64, (bytes / 64 + 1) * 64);
        memcpy(made[i].data, from[i]->data, bytes);
    }
    return made;
}

static const pf_operand **table_of(const pf_operand *operands, uint32_t count) {
    const pf_operand **made = calloc(count + 1, sizeof *made);
    for (uint32_t i = 0; i < count; i++) made[i] = &operands[i];
    return made;
}

static void free_copies(pf_operand *operands, const pf_operand *const *table, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) free(operands[i].data);
    free(operands);
    free((void *)table);
}

typedef struct {
    pf_kernel kernel;
    const pf_call *call;
} task;

static void *run_task(void *given) {
    const task *t = given;
    t->kernel(t->call);
    return NULL;
}

int call_in_threads(pf_kernel kernel, const pf_call *call);
int call_in_threads(pf_kernel kernel, const pf_call *call) {
    pf_host host = *call->host;
    host.parallel_for = parallel_for;
    pf_operand *outputs = copies_of(call->outputs, call->output_count);
    pf_operand *states = copies_of(call->states, call->state_count);
    pf_error error = *call->error;
    pf_call own = *call, other = *call;
    own.host = other.host = &host;
    other.error = &error;
    other.outputs = table_of(outputs, call->output_count);
    other.states = table_of(states, call->state_count);
    other.scratch = aligned_alloc(64, (call->scratch_size / 64 + 1) * 64);
    task beside = {kernel, &other};
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_task, &beside)) abort();
    const int status = kernel(&own);
    pthread_join(thread, NULL);
    free(other.scratch);
    free_copies(outputs, other.outputs, call->output_count);
    free_copies(states, other.states, call->state_count);
    return status;
}
