/* The loop over epochs: shuffles, gathers batches, runs steps, adds up what they record. */
#include "batches.h"
#include "context.h"

static int64_t batch_count(const pf_loop *loop) {
    return (loop->samples + loop->batch - 1) / loop->batch;
}

static int64_t first_row(const pf_loop *loop) {
    return loop->batch_index * loop->batch + loop->part_index * loop->part;
}

static int is_last_part(const pf_loop *loop) {
    return !(loop->flags & PF_LOOP_MORE) && ((loop->part_index + 1) * loop->part >= loop->batch ||
                                             first_row(loop) + loop->part >= loop->samples);
}

static int64_t record_width(const pf_program_spec *spec) {
    int64_t width = 0;
    for (int64_t r = 0; r < spec->record_count; r++) {
        const pf_value *value = &spec->values[spec->records[r]];
        width += value->bytes / (value->type_bits / 8);
    }
    return width;
}

pf_context *pf_loop_context(const pf_loop *loop) {
    return first_row(loop) + loop->part > loop->samples ? loop->tail : loop->full;
}

static void begin_part(pf_loop *loop) {
    pf_context *context = pf_loop_context(loop);
    const pf_program_spec *spec = &context->spec;
    int64_t first = first_row(loop);
    int64_t rows = loop->samples - first < loop->part ? loop->samples - first : loop->part;
    int gather = loop->flags & (PF_LOOP_SHUFFLE | PF_LOOP_GATHER);
    if (loop->flags & PF_LOOP_SHUFFLE && first == 0)
        pf_shuffle(loop->seed, loop->first_epoch + loop->epoch, loop->samples, loop->order);
    for (int64_t f = 0; f < loop->feed_count; f++) {
        const pf_feed *feed = &loop->feeds[f];
        const unsigned char *data = feed->data;
        if (!gather) {
            pf_context_bind(context, feed->base, (void *)(data + first * feed->row_bytes));
            continue;
        }
        pf_gather_rows(feed->full_rows, data, loop->order + first, rows, feed->row_bytes);
        pf_context_bind(context, feed->base, feed->full_rows);
    }
    pf_context_begin(context, loop->seed, pf_steps(loop->step_count),
                     loop->learning_rates[loop->steps_done]);
    context->step.first_sample = loop->first_sample + loop->part_rows;
    if (loop->part_index) context->position = spec->begin_at;
    for (int64_t i = 0; i < record_width(spec) && !loop->part_index; i++) loop->sums[i] = 0;
    loop->in_step = 1;
}

/* Add the elements of a value, of whichever dtype, to float64 sums; return how many there are. */
static int64_t add_record(const pf_value *value, const void *data, double *sums) {
    int64_t n = value->bytes / (value->type_bits / 8);
    if (value->type_code == PF_FLOAT && value->type_bits == 32)
        for (int64_t i = 0; i < n; i++) sums[i] += ((const float *)data)[i];
    else if (value->type_code == PF_FLOAT)
        for (int64_t i = 0; i < n; i++) sums[i] += ((const double *)data)[i];
    else
        for (int64_t i = 0; i < n; i++) sums[i] += (double)((const int64_t *)data)[i];
    return n;
}

static void end_part(pf_loop *loop) {
    const pf_context *context = pf_loop_context(loop);
    const pf_program_spec *spec = &context->spec;
    double *sums = loop->sums;
    for (int64_t r = 0; r < spec->record_count; r++) {
        int32_t record = spec->records[r];
        sums += add_record(&spec->values[record], context->operands[record].data, sums);
    }
    loop->part_index++;
    loop->part_rows += loop->part;
}

void pf_loop_drop_step(pf_loop *loop) {
    loop->in_step = 0;
    loop->part_index = loop->part_rows = 0;
}

void pf_loop_end_part(pf_loop *loop) {
    end_part(loop);
    loop->in_step = 0;
}

void pf_loop_end_step(pf_loop *loop) {
    end_part(loop);
    const int64_t width = record_width(&loop->full->spec);
    double *records = loop->records + loop->epoch * width;
    for (int64_t i = 0; i < width; i++) records[i] += loop->sums[i];
    pf_loop_drop_step(loop);
    pf_count_step(loop->step_count);
    loop->steps_done++;
    loop->steps++;
    if (++loop->batch_index == batch_count(loop)) {
        loop->batch_index = 0;
        loop->epoch++;
    }
}

void pf_loop_end_epoch(pf_loop *loop) {
    loop->samples = loop->batch_index;
    loop->batch_index = 0;
    loop->epoch++;
}

int pf_loop_run(pf_loop *loop, double seconds) {
    pf_stopwatch watch = {.seconds = seconds};
    while (loop->epoch < loop->epochs) {
        if (!loop->in_step) begin_part(loop);
        pf_context *context = pf_loop_context(loop);
        const pf_program_spec *spec = &context->spec;
        const int last = is_last_part(loop);
        int status = pf_run_until(context, last ? spec->instruction_count : spec->part_at, &watch);
        if (status != PF_DONE) return status;
        if (last) {
            pf_loop_end_step(loop);
            if (loop->flags & PF_LOOP_STOP_STEP) return PF_STEP_END;
            if (loop->batch_index == 0 && loop->flags & PF_LOOP_STOP_EPOCH) return PF_EPOCH_END;
        } else if (loop->flags & PF_LOOP_MORE) {
            return PF_PART_END;
        } else {
            end_part(loop);
            begin_part(loop);
        }
        if ((watch.work > PF_WORK_PER_CLOCK || seconds == 0) && pf_is_over(&watch))
            return PF_PAUSED;
    }
    return PF_DONE;
}
