/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw blocks on the file driver: the harness tried on the least there is. Workers write and zero
 * ranges of their own, all flush; what a flush covered has to be there after a crash.
 */
#include "sectors.h"
#include "walk.h"
#include "own.h"

#include "blk/blk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define URI "file:" DISK_PATH "?block_size=512"
#define WORKERS 4
#define REGION 256 /* sectors of each */
#define OPS 700    /* of each */
#define RANGE_MAX 24

enum kind { WRITE, ZERO, FLUSH };

struct op {
    uint8_t kind;
    uint32_t first, n, id;
    uint32_t issued; /* event */
};
struct event {
    uint32_t tick, op;
    bool ack;
};

static struct {
    struct op *op;
    struct event *event;
    uint32_t nops, nevents;
    uint32_t at; /* events taken into `sector` */
    struct sector sector[WORKERS * REGION];
} m;

struct worker {
    struct rt_req done;
    struct blk_dev *dev;
    struct dice dice;
    unsigned idx;
    int maybe;
};

/* --- the model -------------------------------------------------------------------------------- */

static void note(uint32_t op, bool ack)
{
    m.event = own_realloc(m.event, (m.nevents + 1) * sizeof(*m.event));
    must(m.event != NULL);
    if (!ack)
        m.op[op].issued = m.nevents;
    m.event[m.nevents++] = (struct event){disk.log.ticks, op, ack};
}

static uint32_t issue(enum kind kind, uint32_t first, uint32_t n)
{
    m.op = own_realloc(m.op, (m.nops + 1) * sizeof(*m.op));
    must(m.op != NULL);
    m.op[m.nops] = (struct op){(uint8_t)kind, first, n, kind == ZERO ? 0 : m.nops + 1, 0};
    note(m.nops, false);
    return m.nops++;
}

static void model_begin(void)
{
    m.at = 0;
    for (unsigned i = 0; i < WORKERS * REGION; i++)
        sector_reset(&m.sector[i], 0);
}

static void take_in(uint32_t ev)
{
    const struct op *op = &m.op[m.event[ev].op];

    for (uint32_t i = 0; i < (op->kind == FLUSH ? WORKERS * REGION : op->n); i++) {
        if (op->kind != FLUSH && !m.event[ev].ack)
            sector_write(&m.sector[op->first + i], op->id);
        else if (op->kind != FLUSH)
            sector_acked(&m.sector[op->first + i], op->id, ev);
        else if (m.event[ev].ack)
            sector_flushed(&m.sector[i], op->issued);
    }
}

static void model_to(uint32_t tick)
{
    for (; m.at < m.nevents && m.event[m.at].tick <= tick; m.at++)
        take_in(m.at);
}

/* --- the workload ----------------------------------------------------------------------------- */

static int one(struct rt_task *t, struct worker *w, struct blk_chan *chan, uint8_t *buf)
{
    uint32_t n = (uint32_t)dice_between(&w->dice, 1, RANGE_MAX);
    uint32_t first = w->idx * REGION + (uint32_t)dice_below(&w->dice, REGION - n + 1);
    uint64_t what = dice_below(&w->dice, 10);
    uint32_t op;
    int rc;

    if (what == 0 || w->maybe >= SECTOR_MAYBE - 2) {
        op = issue(FLUSH, 0, 0);
        rc = blk_flush(t, chan);
        w->maybe = 0;
    } else if (what == 1) {
        op = issue(ZERO, first, n);
        rc = dice_one_in(&w->dice, 2) ? blk_unmap(t, chan, first, n)
                                      : blk_zero(t, chan, first, n, 0);
        w->maybe++;
    } else {
        op = issue(WRITE, first, n);
        for (uint32_t i = 0; i < n; i++)
            sector_fill(buf + i * SECTOR_BYTES, first + i, m.op[op].id);
        rc = blk_write(t, chan, buf, first, n, dice_one_in(&w->dice, 20) ? BLK_F_FUA : 0);
        w->maybe++;
    }
    if (rc == 0)
        note(op, true);
    return rc;
}

static int worker(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    uint8_t *buf = own_align(round_up_u64(RANGE_MAX * SECTOR_BYTES, 4096));
    struct blk_chan *chan;
    int rc = blk_chan_get(t, w->dev, &chan);

    must(buf != NULL && rc == 0);
    for (unsigned i = 0; rc == 0 && i < OPS; i++)
        rc = one(t, w, chan, buf);
    blk_chan_put(t, chan);
    own_free(buf);
    return rc;
}

static int work(struct rt_task *t, void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    static struct worker w[WORKERS];
    struct blk_dev *dev;
    struct err why = {""};
    int rc = blk_open(t, URI, &dev, &why);

    if (rc < 0)
        return rc;
    m.nops = m.nevents = 0;
    for (unsigned i = 0; i < WORKERS; i++) {
        w[i] = (struct worker){.dev = dev, .dice = dice_of(seed, 100 + i), .idx = i};
        rt_req_init_task(&w[i].done, t);
        rt_task_start("worker", worker, &w[i], &w[i].done, NULL);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        int one_rc = rt_wait(t, &w[i].done);

        rc = rc == 0 ? one_rc : rc;
    }
    blk_close(t, dev);
    return rc;
}

static int format(struct rt_task *t, void *arg)
{
    (void)t;
    (void)arg;
    return 0;
}

/* --- after a crash ---------------------------------------------------------------------------- */

static int compare(struct look *l, const uint8_t *buf)
{
    for (uint32_t i = 0; i < WORKERS * REGION; i++) {
        const struct sector *s = &m.sector[i];

        if (sector_match(s, buf + (size_t)i * SECTOR_BYTES, i) < 0) {
            uint64_t place;
            uint32_t id;

            sector_tell(buf + (size_t)i * SECTOR_BYTES, &place, &id);
            return look_bad(l, "sector %u holds write %u of place %llu; durable is %u, %u since", i,
                            id, (unsigned long long)place, s->id[0], s->n - 1);
        }
    }
    return 0;
}

static int look(struct rt_task *t, void *arg)
{
    struct look *l = arg;
    uint8_t *buf = own_align(WORKERS * REGION * SECTOR_BYTES);
    struct blk_chan *chan;
    struct blk_dev *dev;
    struct err why = {""};
    int rc = blk_open(t, URI, &dev, &why);

    must(buf != NULL);
    if (rc == 0)
        rc = blk_chan_get(t, dev, &chan);
    if (rc == 0)
        rc = blk_read(t, chan, buf, 0, WORKERS * REGION);
    if (rc < 0)
        look_bad(l, "cannot be read: %d %s", rc, why.text);
    else
        rc = compare(l, buf);
    own_free(buf);
    if (rc == 0) {
        blk_chan_put(t, chan);
        blk_close(t, dev);
    }
    return rc;
}

const struct subject subject_blk = {
    .name = "blk",
    .disk_bytes = 2 * MIB,
    .block_bytes = 512,
    .format = format,
    .work = work,
    .model_begin = model_begin,
    .model_to = model_to,
    .look = look,
};
