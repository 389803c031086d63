/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench.h"

#include "cli/lanes.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define KEY_BYTES 16 /* fits standard NVMe namespaces */

struct worker;

/* One request slot; it is always in flight, parked until its time, or retired. */
struct op {
    union {
        struct blk_req blk;
        struct kv_req kv;
    };
    struct worker *w;
    struct op *next_parked;
    unsigned dev;
    bool is_write;
    bool expects; /* a read: the unit was written before it was sent */
    uint64_t unit;
    uint64_t start_ns;
    struct iovec iov;
    uint8_t *buf;
    char key[KEY_BYTES + 1];
};

struct worker {
    struct bench_plan *plan;
    unsigned idx;
    unsigned nops, active;
    struct op *op;
    uint8_t *mem;
    struct blk_chan **blk_chan; /* of this reactor, per device */
    struct kv_chan **kv_chan;
    uint64_t rng;
    uint64_t cursor;              /* sequential: next unit */
    uint64_t interval_ns, due_ns; /* with a rate */
    struct op *parked, **parked_tail;
    struct rt_timer timer;
    struct rt_cond idle;
    bool prefill; /* writes units [cursor, prefill_end) once */
    uint64_t prefill_end;
    struct bench_result result;
};

/* xorshift*: fast, and good enough to choose blocks. */
static uint64_t next_random(struct worker *w)
{
    w->rng ^= w->rng >> 12;
    w->rng ^= w->rng << 25;
    w->rng ^= w->rng >> 27;
    return w->rng * 0x2545f4914f6cdd1dull;
}

/* The contents of a unit are a function of its number and the seed. */
static void fill_pattern(const struct bench_plan *plan, uint64_t unit, uint8_t *buf)
{
    uint64_t v = (plan->seed + unit) * 0x9e3779b97f4a7c15ull | 1;

    for (uint32_t i = 0; i < plan->size_bytes; i += 8) {
        memcpy(buf + i, &v, MIN(8u, plan->size_bytes - i));
        v = v * 6364136223846793005ull + 1442695040888963407ull;
    }
}

static bool has_pattern(const struct bench_plan *plan, uint64_t unit, const uint8_t *buf)
{
    uint64_t v = (plan->seed + unit) * 0x9e3779b97f4a7c15ull | 1;

    for (uint32_t i = 0; i < plan->size_bytes; i += 8) {
        if (memcmp(buf + i, &v, MIN(8u, plan->size_bytes - i)) != 0)
            return false;
        v = v * 6364136223846793005ull + 1442695040888963407ull;
    }
    return true;
}

static bool was_written(const struct bench_plan *plan, uint64_t unit)
{
    return plan->check_all ||
           (atomic_load_explicit(&plan->written[unit / 64], memory_order_acquire) >> unit % 64 & 1);
}

static void op_done(struct rt_req *req);

static void op_submit(struct op *op)
{
    struct worker *w = op->w;
    const struct bench_plan *plan = w->plan;

    if (plan->verify && op->is_write)
        fill_pattern(plan, op->unit, op->buf);
    /* Asked now: at its end a write that overtook it may have ended too. */
    op->expects = plan->verify && !op->is_write && was_written(plan, op->unit);
    if (plan->kv) {
        snprintf(op->key, sizeof(op->key), "b%015lx", op->unit);
        op->kv = (struct kv_req){.op = op->is_write ? KV_STORE : KV_RETRIEVE,
                                 .flags = KV_F_NO_VERSION,
                                 .key = bytes_make(op->key, KEY_BYTES),
                                 .iov = &op->iov,
                                 .iovcnt = 1,
                                 .len = plan->size_bytes};
        rt_req_init(&op->kv.req, op_done);
        kv_submit(w->kv_chan[op->dev], &op->kv);
    } else {
        uint32_t bs = blk_info(plan->dev[op->dev].blk)->block_bytes;

        op->blk = (struct blk_req){.op = op->is_write ? BLK_WRITE : BLK_READ,
                                   .lba = op->unit * (plan->size_bytes / bs),
                                   .nblocks = plan->size_bytes / bs,
                                   .iov = &op->iov,
                                   .iovcnt = 1};
        rt_req_init(&op->blk.req, op_done);
        blk_submit(w->blk_chan[op->dev], &op->blk);
    }
}

static void op_retire(struct op *op)
{
    struct worker *w = op->w;

    w->active--;
    if (w->active == 0)
        rt_cond_wake_all(&w->idle);
}

/* Chooses what the slot does next. */
static void op_choose(struct op *op)
{
    struct worker *w = op->w;
    const struct bench_plan *plan = w->plan;

    if (w->prefill) {
        op->is_write = true;
        op->unit = w->cursor++;
        return;
    }
    op->is_write = plan->read_percent < 100 &&
                   (plan->read_percent == 0 || next_random(w) % 100 >= plan->read_percent);
    if (plan->random) {
        op->unit = (uint64_t)((unsigned __int128)next_random(w) * plan->units >> 64);
        return;
    }
    op->unit = w->cursor;
    w->cursor = w->cursor + 1 == plan->units ? 0 : w->cursor + 1;
}

static bool over(const struct worker *w, uint64_t now)
{
    if (w->prefill)
        return w->cursor >= w->prefill_end || w->result.first_error != 0;
    return now >= w->plan->end_ns;
}

/* Begins the next operation of a slot, now or when its time has come. */
static void op_next(struct op *op, uint64_t now)
{
    struct worker *w = op->w;

    if (over(w, now)) {
        op_retire(op);
        return;
    }
    if (w->interval_ns > 0 && !w->prefill) {
        /* The latency counts from when it should have begun, so that a stall shows. */
        op->start_ns = w->due_ns;
        w->due_ns += w->interval_ns;
        if (op->start_ns > now) {
            op->next_parked = NULL;
            *w->parked_tail = op;
            w->parked_tail = &op->next_parked;
            if (w->parked == op)
                rt_timer_start(&w->timer, op->start_ns);
            return;
        }
    } else {
        op->start_ns = now;
    }
    op_choose(op);
    op_submit(op);
}

static void unpark(struct rt_timer *timer)
{
    struct worker *w = container_of(timer, struct worker, timer);
    uint64_t now = rt_now_exact();

    while (w->parked != NULL && (w->parked->start_ns <= now || over(w, now))) {
        struct op *op = w->parked;

        w->parked = op->next_parked;
        if (w->parked == NULL)
            w->parked_tail = &w->parked;
        if (over(w, now)) {
            op_retire(op);
            continue;
        }
        op_choose(op);
        op_submit(op);
    }
    if (w->parked != NULL)
        rt_timer_start(&w->timer, w->parked->start_ns);
}

static void op_done(struct rt_req *req)
{
    struct op *op = container_of(req, struct op, blk.req);
    struct worker *w = op->w;
    struct bench_plan *plan = w->plan;
    struct bench_side *side = op->is_write ? &w->result.write : &w->result.read;
    uint64_t now = rt_now_exact();
    int rc = req->rc;

    if (rc == 0 && plan->kv && !op->is_write && op->kv.value_len != plan->size_bytes)
        rc = -EBADMSG;
    if (rc < 0 && w->result.first_error == 0)
        w->result.first_error = rc;
    if (plan->verify && rc == 0) {
        if (op->is_write)
            atomic_fetch_or_explicit(&plan->written[op->unit / 64], 1ull << op->unit % 64,
                                     memory_order_release);
        else if (op->expects && !has_pattern(plan, op->unit, op->buf))
            w->result.mismatches++;
    }
    if (now >= plan->begin_ns && now < plan->end_ns) {
        side->ops++;
        side->errors += rc < 0;
        hist_add(&side->latency_ns, now > op->start_ns ? now - op->start_ns : 0);
    }
    op_next(op, now);
}

/* --- a worker --------------------------------------------------------------------------------- */

static void close_chans(struct rt_task *t, struct worker *w)
{
    for (unsigned i = 0; i < w->plan->ndevs; i++) {
        if (w->blk_chan != NULL && w->blk_chan[i] != NULL)
            blk_chan_put(t, w->blk_chan[i]);
        if (w->kv_chan != NULL && w->kv_chan[i] != NULL)
            kv_chan_put(t, w->kv_chan[i]);
    }
    free(w->blk_chan);
    free(w->kv_chan);
}

static int open_chans(struct rt_task *t, struct worker *w)
{
    const struct bench_plan *plan = w->plan;
    int rc = 0;

    w->blk_chan = calloc(plan->ndevs, sizeof(struct blk_chan *));
    w->kv_chan = calloc(plan->ndevs, sizeof(struct kv_chan *));
    if (w->blk_chan == NULL || w->kv_chan == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < plan->ndevs && rc == 0; i++) {
        if (plan->kv)
            rc = kv_chan_get(t, plan->dev[i].kv, &w->kv_chan[i]);
        else
            rc = blk_chan_get(t, plan->dev[i].blk, &w->blk_chan[i]);
    }
    return rc;
}

static int make_ops(struct worker *w)
{
    const struct bench_plan *plan = w->plan;
    size_t stride = round_up_u64(plan->size_bytes, 4096);

    w->nops = plan->qd * plan->ndevs;
    w->op = calloc(w->nops, sizeof(*w->op));
    w->mem = aligned_alloc(4096, stride * w->nops);
    if (w->op == NULL || w->mem == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < w->nops; i++) {
        struct op *op = &w->op[i];

        op->w = w;
        op->dev = i % plan->ndevs;
        op->buf = w->mem + i * stride;
        op->iov = (struct iovec){.iov_base = op->buf, .iov_len = plan->size_bytes};
        fill_pattern(plan, i, op->buf); /* touches the memory; no zeroes, which drivers may skip */
    }
    return 0;
}

static int worker_task(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    int rc = open_chans(t, w);

    if (rc == 0)
        rc = make_ops(w);
    if (rc == 0) {
        uint64_t now = rt_now_exact();

        w->parked_tail = &w->parked;
        w->timer.fn = unpark;
        w->due_ns = now + w->interval_ns * w->idx / MAX(rt_reactors(), 1u);
        w->active = w->nops;
        for (unsigned i = 0; i < w->nops; i++)
            op_next(&w->op[i], now);
        rt_task_shield(t, true); /* it ends by itself when the time is over */
        while (w->active > 0)
            rt_cond_wait(t, &w->idle);
        rt_task_shield(t, false);
        rt_timer_stop(&w->timer);
    }
    close_chans(t, w);
    free(w->op);
    free(w->mem);
    return rc;
}

/* --- all of them ------------------------------------------------------------------------------ */

struct team {
    struct bench_plan *plan;
    struct worker *worker;
    unsigned count;
    struct bench_result *result;
};

static uint64_t timeval_ns(struct timeval tv)
{
    return (uint64_t)tv.tv_sec * NS_PER_S + (uint64_t)tv.tv_usec * NS_PER_US;
}

/* Takes the CPU time of the measured part; ends the load early when the user does. */
static int clock_lane(struct rt_task *t, struct team *team)
{
    struct bench_plan *plan = team->plan;
    struct rusage a, b;
    uint64_t from;
    int rc;

    rc = rt_sleep(t, plan->begin_ns - MIN(plan->begin_ns, rt_now_exact()));
    getrusage(RUSAGE_SELF, &a);
    from = rt_now_exact();
    if (rc == 0)
        rc = rt_sleep(t, plan->end_ns - MIN(plan->end_ns, rt_now_exact()));
    getrusage(RUSAGE_SELF, &b);
    if (rc < 0)
        plan->end_ns = rt_now_exact();
    team->result->measured_ns = rt_now_exact() - from;
    team->result->user_ns = timeval_ns(b.ru_utime) - timeval_ns(a.ru_utime);
    team->result->sys_ns = timeval_ns(b.ru_stime) - timeval_ns(a.ru_stime);
    return rc;
}

static int team_lane(struct rt_task *t, void *arg, unsigned lane)
{
    struct team *team = arg;

    if (lane == team->count)
        return clock_lane(t, team);
    return rt_on(t, rt_reactor(lane), worker_task, &team->worker[lane]);
}

static void merge(struct bench_result *to, const struct bench_result *from)
{
    to->read.ops += from->read.ops;
    to->read.errors += from->read.errors;
    hist_merge(&to->read.latency_ns, &from->read.latency_ns);
    to->write.ops += from->write.ops;
    to->write.errors += from->write.errors;
    hist_merge(&to->write.latency_ns, &from->write.latency_ns);
    to->mismatches += from->mismatches;
    if (to->first_error == 0)
        to->first_error = from->first_error;
}

static int run_team(struct rt_task *t, struct bench_plan *plan, bool prefill,
                    struct bench_result *out)
{
    CLEANUP(free_p) struct worker *worker = NULL;
    struct team team = {.plan = plan, .count = rt_reactors(), .result = out};
    int rc;

    worker = calloc(team.count, sizeof(*worker));
    if (worker == NULL)
        return -ENOMEM;
    team.worker = worker;
    for (unsigned i = 0; i < team.count; i++) {
        worker[i].plan = plan;
        worker[i].idx = i;
        worker[i].rng = (plan->seed + i + 1) * 0x9e3779b97f4a7c15ull;
        worker[i].cursor = plan->units * i / team.count;
        worker[i].prefill = prefill;
        worker[i].prefill_end = plan->units * (i + 1) / team.count;
        if (plan->rate > 0)
            worker[i].interval_ns = (uint64_t)((double)NS_PER_S * (double)team.count / plan->rate);
    }
    rc = lanes_run(t, team.count + !prefill, team_lane, &team);
    for (unsigned i = 0; i < team.count; i++)
        merge(out, &worker[i].result);
    return rc;
}

int bench_prefill(struct rt_task *t, struct cli *c, struct bench_plan *plan)
{
    CLEANUP(free_p) struct bench_result *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL)
        return -ENOMEM;
    rc = run_team(t, plan, true, r);
    if (rc == 0)
        rc = r->first_error;
    if (rc < 0)
        return cli_fail(c, rc, "cannot fill %s before the measurement: %s", plan->dev[0].uri,
                        err_str(rc));
    return 0;
}

int bench_load(struct rt_task *t, struct bench_plan *plan, uint64_t warmup_ns, uint64_t time_ns,
               struct bench_result *out)
{
    plan->begin_ns = rt_now_exact() + warmup_ns;
    plan->end_ns = plan->begin_ns + time_ns;
    return run_team(t, plan, false, out);
}
