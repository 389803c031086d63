/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One life of a store in which the n-th request of the device fails, for every n: what was
 * acknowledged before is there when the store is opened again without faults, what failed is old or
 * new, and the checker finds no error. And writers on several reactors while snapshots come and go.
 */
#include "blob/blob_test.h"

#define BASE "mem:?size=8M&name=base"
#define BLOCK 4096u
#define NBLOCKS 640u /* 40 clusters of 64 KiB */

struct life {
    uint64_t id;
    bool made, marked, sized;
    uint32_t want[NBLOCKS]; /* stamps that are durable */
    bool any[NBLOCKS];      /* a write that failed: old or new */
    bool over;              /* came to its end without a failure */
};

static uint32_t buf[16 * BLOCK], back[BLOCK / 4];

static int put(struct rt_task *t, struct rig *r, struct life *l, struct blob *b, unsigned at,
               unsigned n, uint32_t stamp)
{
    int rc;

    for (unsigned i = 0; i < n * BLOCK / 4; i++)
        buf[i] = stamp;
    rc = blob_write(t, r->chan, b, buf, (uint64_t)at * BLOCK, (uint64_t)n * BLOCK, 0);
    if (rc == 0)
        rc = blob_flush(t, r->chan, b);
    for (unsigned i = at; i < at + n; i++) {
        l->any[i] = l->any[i] || rc < 0;
        if (rc == 0)
            l->want[i] = stamp;
    }
    return rc;
}

/* Each step goes on from what the ones before have acknowledged; the first failure ends it. */
static int live_in(struct rt_task *t, struct rig *r, struct life *l, struct blob *b)
{
    struct blob *c = NULL;
    uint64_t snap, clone;
    int rc = put(t, r, l, b, 3, 9, 1);

    if (rc == 0)
        rc = put(t, r, l, b, 500, 40, 2);
    if (rc == 0)
        rc = blob_set_xattr(t, b, "mark", "m", 1);
    l->marked = rc == 0;
    if (rc == 0)
        rc = blob_snapshot(t, b, NULL, 0, &snap);
    if (rc == 0)
        rc = put(t, r, l, b, 5, 3, 3);
    if (rc == 0)
        rc = blob_clone(t, r->bs, snap, NULL, 0, &clone);
    if (rc == 0)
        rc = blob_open(t, r->bs, clone, &c);
    if (rc == 0)
        rc = blob_inflate(t, c, NULL, NULL);
    if (c != NULL)
        blob_close(t, c);
    if (rc == 0)
        rc = blob_delete(t, r->bs, clone);
    if (rc == 0)
        rc = blob_delete(t, r->bs, snap);
    if (rc == 0)
        rc = put(t, r, l, b, 20, 50, 4);
    if (rc == 0)
        rc = blob_resize(t, b, 60);
    l->sized = rc == 0;
    if (rc == 0)
        rc = blob_store_settle(t, r->bs);
    return rc == 0 ? put(t, r, l, b, 100, 1, 5) : rc;
}

static void live(struct rt_task *t, struct rig *r, struct life *l)
{
    struct blob_create_opts thin = {.clusters = NBLOCKS / 16, .thin = true};
    struct blob *b;

    if (blob_create(t, r->bs, &thin, &l->id) < 0)
        return;
    l->made = true;
    if (blob_open(t, r->bs, l->id, &b) < 0)
        return;
    l->over = live_in(t, r, l, b) == 0;
    blob_close(t, b);
}

static int after(struct rt_task *t, struct rig *r, const struct life *l)
{
    struct blob_info info;
    const void *value;
    struct blob *b;
    uint16_t len;

    CHECK(r->bs->nunreadable == 0);
    if (!l->made)
        return 0;
    CHECK(blob_open(t, r->bs, l->id, &b) == 0);
    blob_info(b, &info);
    CHECK(!l->marked || blob_get_xattr(b, "mark", &value, &len) == 0);
    CHECK(info.clusters == 60 || (!l->sized && info.clusters == NBLOCKS / 16));
    for (unsigned i = 0; i < NBLOCKS; i++) {
        CHECK(blob_read(t, r->chan, b, back, (uint64_t)i * BLOCK, BLOCK) == 0);
        CHECK(back[0] == l->want[i] || l->any[i]);
        CHECK(back[BLOCK / 4 - 1] == l->want[i] || l->any[i]);
    }
    blob_close(t, b);
    return 0;
}

static int one_fault(struct rt_task *t, const char *how, unsigned n, bool *out_over)
{
    struct blob_format_opts opts = {.md_pages = 30};
    struct rig r = {.uri = BASE}, f = {0};
    struct life *l = calloc(1, sizeof(*l));
    char uri[128];
    struct err why;

    CHECK(l != NULL);
    CHECK(rig_open(t, &r, &opts) == 0);
    rig_store_close(t, &r);
    snprintf(uri, sizeof(uri), "fault:?base=mem:%%3Fname=base&%s=%u", how, n);
    if (blob_store_open(t, uri, NULL, 0, &f.bs, &why) == 0) {
        if (blob_chan_get(t, f.bs, &f.chan) == 0) {
            live(t, &f, l);
            blob_chan_put(t, f.chan);
        }
        blob_store_close(t, f.bs);
    }
    CHECK(rig_store(t, &r, 0) == 0);
    if (after(t, &r, l) < 0) {
        fprintf(stderr, "%s\n", uri);
        return -EILSEQ;
    }
    rig_store_close(t, &r);
    CHECK(rig_check(t, &r) == 0);
    rig_close(t, &r);
    *out_over = l->over;
    free(l);
    return 0;
}

/* Until it is over before the fault comes. */
static int every_fault(struct rt_task *t, void *arg)
{
    bool over = false;
    unsigned n = 1;

    for (; !over && n < 5000; n++)
        CHECK(one_fault(t, arg, n, &over) == 0);
    CHECK(over);
    CHECK(n > 100);
    return 0;
}

static void fail_at_test(void **state)
{
    (void)state;
    run_task(1, every_fault, (void *)(uintptr_t) "fail_at");
}

static void fail_from_test(void **state)
{
    (void)state;
    run_task(1, every_fault, (void *)(uintptr_t) "fail_from");
}

/* --- several reactors ------------------------------------------------------------------------- */

#define WRITERS 3u
#define ROUNDS 150u

struct writer {
    struct rt_req done;
    struct rig *r;
    struct blob *b;
    unsigned idx;
    int rc;
    uint32_t mine[BLOCK / 4], last[NBLOCKS];
};
static struct writer writers[WRITERS];

/* Its own blocks, every third one, over and over; what it reads is what it wrote last. */
static int writer_main(struct rt_task *t, void *arg)
{
    struct writer *w = arg;
    struct blob_chan *chan;
    uint32_t *mine = w->mine, *last = w->last;
    uint64_t rng = w->idx + 1;
    int rc = blob_chan_get(t, w->r->bs, &chan);

    for (unsigned i = 0; i < ROUNDS && rc == 0; i++) {
        unsigned at;

        rng = rng * 6364136223846793005u + 1442695040888963407u;
        at = (unsigned)(rng >> 33) % (NBLOCKS / WRITERS) * WRITERS + w->idx;
        if (last[at] != 0) {
            rc = blob_read(t, chan, w->b, mine, (uint64_t)at * BLOCK, BLOCK);
            if (rc == 0 && (mine[0] != last[at] || mine[BLOCK / 4 - 1] != last[at]))
                rc = -EILSEQ;
        }
        last[at] = i + 1;
        for (unsigned k = 0; k < BLOCK / 4; k++)
            mine[k] = last[at];
        if (rc == 0)
            rc = blob_write(t, chan, w->b, mine, (uint64_t)at * BLOCK, BLOCK, 0);
    }
    for (unsigned at = 0; at < NBLOCKS && rc == 0; at++) {
        if (last[at] == 0)
            continue;
        rc = blob_read(t, chan, w->b, mine, (uint64_t)at * BLOCK, BLOCK);
        if (rc == 0 && mine[7] != last[at])
            rc = -EILSEQ;
    }
    blob_chan_put(t, chan);
    return rc;
}

static int writer_elsewhere(struct rt_task *t, void *arg)
{
    struct writer *w = arg;

    w->rc = rt_on(t, rt_reactor(w->idx), writer_main, w);
    return 0;
}

static int many_reactors(struct rt_task *t, void *arg)
{
    struct blob_create_opts thin = {.clusters = NBLOCKS / 16, .thin = true};
    struct rig r = {.uri = "mem:?size=64M&name=many"};
    struct writer *w = writers;
    struct blob *b;
    uint64_t id, snap;
    int rc = 0;

    CHECK(rig_open(t, &r, NULL) == 0);
    CHECK(blob_create(t, r.bs, &thin, &id) == 0);
    CHECK(blob_open(t, r.bs, id, &b) == 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){.r = &r, .b = b, .idx = i};
        rt_req_init_task(&w[i].done, t);
        CHECK(rt_task_start("writer", writer_elsewhere, &w[i], &w[i].done, NULL) == 0);
    }
    for (unsigned i = 0; i < 12 && rc == 0; i++) {
        rc = blob_snapshot(t, b, NULL, 0, &snap);
        rt_sleep(t, NS_PER_MS);
        if (rc == 0 && i % 3 != 0)
            rc = blob_delete(t, r.bs, snap);
        if (rc == 0 && i % 4 == 3)
            rc = blob_decouple(t, b, NULL, NULL);
        if (rc == -EINVAL) /* it stands on nothing */
            rc = 0;
    }
    for (unsigned i = 0; i < WRITERS; i++)
        rt_wait(t, &w[i].done);
    for (unsigned i = 0; i < WRITERS; i++)
        CHECK(w[i].rc == 0);
    CHECK(rc == 0);
    blob_close(t, b);
    rig_store_close(t, &r);
    CHECK(rig_check(t, &r) == 0);
    rig_close(t, &r);
    return 0;
}
TEST(many_reactors, WRITERS)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_at_test),
        cmocka_unit_test(fail_from_test),
        cmocka_unit_test(many_reactors_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
