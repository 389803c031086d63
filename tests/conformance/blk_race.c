/* SPDX-License-Identifier: Apache-2.0 */
/* What happens between tasks and reactors: compare-and-write races, cancelling, resize, removal. */
#include "blk_suite.h"

#include "base/endian.h"

#include <string.h>

#define RACERS_PER_REACTOR 4

struct race {
    struct suite *s;
    struct rt_reactor *reactor;
    unsigned rounds;
    unsigned *running; /* atomic: racers still under way */
    unsigned idx;
    int (*fn)(struct rt_task *t, struct race *r, struct blk_chan *chan);
};

static int racer_here(struct rt_task *t, void *arg)
{
    struct race *r = arg;
    struct blk_chan *chan;
    int rc = blk_chan_get(t, r->s->dev, &chan);

    if (rc < 0)
        return rc;
    rc = r->fn(t, r, chan);
    blk_chan_put(t, chan);
    return rc;
}

static int racer(struct rt_task *t, void *arg)
{
    struct race *r = arg;
    int rc = rt_on(t, r->reactor, racer_here, r);

    __atomic_fetch_sub(r->running, 1, __ATOMIC_RELAXED);
    return rc;
}

/* Runs fn in some tasks on each reactor and waits for all. */
static int run_race(struct rt_task *t, struct suite *s, unsigned rounds,
                    int (*fn)(struct rt_task *t, struct race *r, struct blk_chan *chan))
{
    unsigned n = rt_reactors() * RACERS_PER_REACTOR, running = n;
    CLEANUP(free_p) struct race *r = calloc(n, sizeof(*r));
    CLEANUP(free_p) struct rt_req *done = calloc(n, sizeof(*done));
    int rc = 0;

    for (unsigned i = 0; i < n; i++) {
        r[i] = (struct race){.s = s,
                             .reactor = rt_reactor(i % rt_reactors()),
                             .rounds = rounds,
                             .running = &running,
                             .idx = i,
                             .fn = fn};
        rt_req_init_task(&done[i], t);
        CHECK_RC(rt_task_start("racer", racer, &r[i], &done[i], NULL), 0);
    }
    for (unsigned i = 0; i < n; i++)
        rc = rt_wait(t, &done[i]) < 0 ? -EPROTO : rc;
    return rc;
}

/* --- compare and write ------------------------------------------------------------------------ */

static int caw(struct rt_task *t, struct race *r, struct blk_chan *chan, uint64_t lba,
               uint32_t nblocks, uint8_t *then_and_now)
{
    struct iovec iov = {.iov_base = then_and_now,
                        .iov_len = 2 * (size_t)nblocks * r->s->block_bytes};
    struct blk_req req;

    suite_prepare(r->s, t, &req, BLK_COMPARE_AND_WRITE, lba, nblocks, NULL);
    req.iov = &iov;
    req.iovcnt = 1;
    blk_submit(chan, &req);
    return rt_wait(t, &req.req);
}

#define COUNTER_LBA 10

/* Each racer adds one `rounds` times; an addition made on an old number must not succeed. */
static int count_up(struct rt_task *t, struct race *r, struct blk_chan *chan)
{
    uint32_t b = r->s->block_bytes;
    CLEANUP(free_p) uint8_t *buf = suite_buf(r->s, 2);

    for (unsigned done = 0; done < r->rounds;) {
        int rc;

        CHECK_RC(blk_read(t, chan, buf, COUNTER_LBA, 1), 0);
        memcpy(buf + b, buf, b);
        le64_put(buf + b, le64_at(buf) + 1);
        rc = caw(t, r, chan, COUNTER_LBA, 1, buf);
        CHECK(rc == 0 || rc == -EILSEQ);
        done += rc == 0;
    }
    return 0;
}

static int caw_counter(struct rt_task *t, struct suite *s)
{
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, 1);
    unsigned rounds = MAX(s->ops / 16, 10u);

    CHECK_RC(blk_zero(t, s->chan, COUNTER_LBA, 1, 0), 0);
    CHECK_RC(run_race(t, s, rounds, count_up), 0);
    CHECK_RC(blk_read(t, s->chan, buf, COUNTER_LBA, 1), 0);
    CHECK(le64_at(buf) == (uint64_t)rounds * rt_reactors() * RACERS_PER_REACTOR);
    return 0;
}

#define LANE_LBA 20 /* written by the plain writer; the block after it by compare-and-writes */

/* Writes its own block; what it has written must not be undone by a compare-and-write around it. */
static int lane_writer(struct rt_task *t, struct race *r, struct blk_chan *chan)
{
    CLEANUP(free_p) uint8_t *buf = suite_buf(r->s, 1);
    uint64_t v = 0;

    memset(buf, 0, r->s->block_bytes);
    while (__atomic_load_n(r->running, __ATOMIC_RELAXED) > 1) {
        le64_put(buf, ++v);
        CHECK_RC(blk_write(t, chan, buf, LANE_LBA, 1, 0), 0);
        CHECK_RC(blk_read(t, chan, buf, LANE_LBA, 1), 0);
        CHECK(le64_at(buf) == v);
    }
    CHECK(v > 0);
    return 0;
}

static int lane_racer(struct rt_task *t, struct race *r, struct blk_chan *chan)
{
    uint32_t b = r->s->block_bytes;
    CLEANUP(free_p) uint8_t *buf = suite_buf(r->s, 4);
    unsigned won = 0;

    if (r->idx == 0)
        return lane_writer(t, r, chan);
    for (unsigned i = 0; i < r->rounds; i++) {
        int rc;

        CHECK_RC(blk_read(t, chan, buf, LANE_LBA, 2), 0);
        memcpy(buf + 2 * b, buf, 2 * b);
        le64_put(buf + 3 * b, le64_at(buf + b) + 1);
        rc = caw(t, r, chan, LANE_LBA, 2, buf);
        CHECK(rc == 0 || rc == -EILSEQ);
        won += rc == 0;
    }
    (void)won; /* a racer may lose every time: the writer is quick */
    return 0;
}

static int caw_and_writes(struct rt_task *t, struct suite *s)
{
    CHECK_RC(blk_zero(t, s->chan, LANE_LBA, 2, 0), 0);
    return run_race(t, s, MAX(s->ops / 16, 10u), lane_racer);
}

/* --- cancelling ------------------------------------------------------------------------------- */

#define STORM 64
#define STORM_BLOCKS 4

/* A cancelled request ends once, early or as if nobody had asked, and leaves no third content. */
static int cancel_round(struct rt_task *t, struct suite *s, struct rng *r, struct blk_req *req,
                        struct iovec *iov, uint8_t *data, uint32_t version)
{
    uint32_t span = STORM_BLOCKS * s->block_bytes;

    for (unsigned i = 0; i < STORM; i++) {
        uint64_t lba = (uint64_t)i * STORM_BLOCKS;

        pattern_fill(data + (size_t)i * span, lba, STORM_BLOCKS, s->block_bytes, version);
        iov[i] = (struct iovec){.iov_base = data + (size_t)i * span, .iov_len = span};
        suite_prepare(s, t, &req[i], BLK_WRITE, lba, STORM_BLOCKS, NULL);
        req[i].iov = &iov[i];
        req[i].iovcnt = 1;
        req[i].flags = rng_below(r, 3) == 0 ? BLK_F_FUA : 0;
        blk_submit(s->chan, &req[i]);
    }
    if (rng_below(r, 2) == 0)
        rt_yield(t);
    for (unsigned i = 0; i < STORM; i++) {
        if (rng_below(r, 2) == 0)
            rt_req_cancel(&req[i].req);
    }
    for (unsigned i = 0; i < STORM; i++) {
        int rc = rt_wait(t, &req[i].req);

        CHECK(rc == 0 || rc == -ECANCELED);
    }
    CHECK_RC(blk_read(t, s->chan, data, 0, STORM * STORM_BLOCKS), 0);
    for (unsigned i = 0; i < STORM * STORM_BLOCKS; i++) {
        const uint8_t *at = data + (size_t)i * s->block_bytes;
        bool is_new = pattern_is(at, i, 1, s->block_bytes, version);

        CHECK(is_new || (req[i / STORM_BLOCKS].req.rc == -ECANCELED && version > 1));
    }
    return 0;
}

static int cancels(struct rt_task *t, struct suite *s)
{
    struct rng r = suite_rng(s, "cancels");
    CLEANUP(free_p) struct blk_req *req = calloc(STORM, sizeof(*req));
    CLEANUP(free_p) struct iovec *iov = calloc(STORM, sizeof(*iov));
    CLEANUP(free_p) uint8_t *data = suite_buf(s, STORM * STORM_BLOCKS);

    for (uint32_t version = 2; version < 2 + MAX(s->ops / 64, 4u); version++)
        CHECK_RC(cancel_round(t, s, &r, req, iov, data, version), 0);
    return 0;
}

/* --- resize and removal ----------------------------------------------------------------------- */

struct watcher {
    struct blk_watch watch;
    struct blk_dev *dev;
    struct rt_reactor *reactor;
    unsigned resized, removed; /* atomic */
    bool elsewhere;            /* an event came on another reactor */
};

static void watcher_told(struct blk_watch *w, enum blk_event ev)
{
    struct watcher *me = container_of(w, struct watcher, watch);

    me->elsewhere |= rt_self() != me->reactor;
    __atomic_fetch_add(ev == BLK_EVENT_RESIZED ? &me->resized : &me->removed, 1, __ATOMIC_RELEASE);
}

static int watcher_add(struct rt_task *t, void *arg)
{
    struct watcher *w = arg;

    w->watch.fn = watcher_told;
    blk_watch_add(w->dev, &w->watch);
    return 0;
}

static int watchers_begin(struct rt_task *t, struct suite *s, struct watcher *w)
{
    for (unsigned i = 0; i < rt_reactors(); i++) {
        w[i].dev = s->dev;
        w[i].reactor = rt_reactor(i);
        CHECK_RC(rt_on(t, w[i].reactor, watcher_add, &w[i]), 0);
    }
    return 0;
}

static int wait_for(struct rt_task *t, const unsigned *count, unsigned wanted)
{
    uint64_t give_up_ns = rt_now() + 10 * NS_PER_S;

    while (__atomic_load_n(count, __ATOMIC_ACQUIRE) < wanted) {
        CHECK(rt_now() < give_up_ns);
        CHECK_RC(rt_sleep(t, NS_PER_MS), 0);
    }
    return 0;
}

static int resizes(struct rt_task *t, struct suite *s)
{
    CLEANUP(free_p) struct watcher *w = calloc(rt_reactors(), sizeof(*w));
    CLEANUP(free_p) uint8_t *buf = suite_buf(s, 1);

    CHECK_RC(watchers_begin(t, s, w), 0);
    for (unsigned round = 1; round <= 2; round++) {
        uint64_t nblocks = round == 1 ? s->nblocks - 1 : s->nblocks;

        blk_resized(s->dev, nblocks);
        CHECK(blk_info(s->dev)->nblocks == nblocks);
        for (unsigned i = 0; i < rt_reactors(); i++)
            CHECK_RC(wait_for(t, &w[i].resized, round), 0);
        CHECK_RC(blk_read(t, s->chan, buf, s->nblocks - 1, 1), round == 1 ? -ERANGE : 0);
    }
    if (blk_driver_of(s->dev)->refresh != NULL) {
        blk_resized(s->dev, s->nblocks - 1);
        CHECK_RC(blk_refresh(t, s->dev), 0);
    }
    CHECK(blk_info(s->dev)->nblocks == s->nblocks);
    for (unsigned i = 0; i < rt_reactors(); i++) {
        blk_watch_del(t, s->dev, &w[i].watch);
        CHECK(!w[i].elsewhere && w[i].removed == 0);
    }
    return 0;
}

static int told_at_once(struct rt_task *t, struct suite *s)
{
    struct watcher late = {.dev = s->dev, .reactor = rt_self()};

    watcher_add(t, &late);
    CHECK_RC(wait_for(t, &late.removed, 1), 0);
    blk_watch_del(t, s->dev, &late.watch);
    return 0;
}

/* A device that is taken away ends each request in flight; a new open finds it anew. */
static int removal(struct rt_task *t, struct suite *s)
{
    CLEANUP(free_p) struct watcher *w = calloc(rt_reactors(), sizeof(*w));
    CLEANUP(free_p) struct blk_req *req = calloc(STORM, sizeof(*req));
    CLEANUP(free_p) uint8_t *data = suite_buf(s, STORM);
    struct iovec iov[STORM];
    struct err why;

    CHECK_RC(watchers_begin(t, s, w), 0);
    for (unsigned i = 0; i < STORM; i++) {
        iov[i] = (struct iovec){.iov_base = data + (size_t)i * s->block_bytes,
                                .iov_len = s->block_bytes};
        suite_prepare(s, t, &req[i], BLK_READ, i, 1, NULL);
        req[i].iov = &iov[i];
        req[i].iovcnt = 1;
        blk_submit(s->chan, &req[i]);
    }
    blk_removed(s->dev);
    for (unsigned i = 0; i < STORM; i++) {
        int rc = rt_wait(t, &req[i].req);

        CHECK(rc == 0 || rc == -ENODEV);
    }
    CHECK_RC(blk_read(t, s->chan, data, 0, 1), -ENODEV);
    CHECK_RC(blk_flush(t, s->chan), -ENODEV);
    CHECK_RC(blk_zero(t, s->chan, 0, 1, 0), -ENODEV);
    CHECK_RC(blk_claim(s->dev, BLK_CLAIM_READ, "late", &why), -ENODEV);
    for (unsigned i = 0; i < rt_reactors(); i++) {
        CHECK_RC(wait_for(t, &w[i].removed, 1), 0);
        blk_watch_del(t, s->dev, &w[i].watch);
    }
    CHECK_RC(told_at_once(t, s), 0);
    blk_chan_put(t, s->chan);
    blk_close(t, s->dev);
    CHECK_RC(blk_open(t, s->uri, &s->dev, &why), 0);
    CHECK_RC(blk_chan_get(t, s->dev, &s->chan), 0);
    CHECK_RC(blk_read(t, s->chan, data, 0, 1), 0);
    return 0;
}

const struct suite_test blk_race_tests[] = {
    {"compare and write: none is lost", caw_counter},
    {"compare and write: no write is undone", caw_and_writes},
    {"cancel", cancels},
    {"resize", resizes},
    {"removal", removal},
    {NULL, NULL},
};
