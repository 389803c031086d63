/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists and snapshots of an open store: many lists at once while keys come and go and checkpoints
 * swap what they go through, and snapshots that cost too much or are too old. And what a store
 * knows of its keys after it has been opened.
 */
#include "kv/drivers/blobkv/list.h"
#include "kv/drivers/blobkv/shards.h"
#include "kv/drivers/blobkv/snap.h"
#include "kv/drivers/blobkv/test_rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

#define TEST(name)                                                                                 \
    static void name##_test(void **state)                                                          \
    {                                                                                              \
        struct rt_config cfg = {.reactors = 1, .poll = RT_POLL_NEVER};                             \
        struct err why = {""};                                                                     \
        int rc = rt_run(&cfg, name, NULL, &why);                                                   \
                                                                                                   \
        (void)state;                                                                               \
        if (rc < 0)                                                                                \
            print_error("line %d (%s)\n", -rc, why.text);                                          \
        assert_int_equal(rc, 0);                                                                   \
    }

static int store_open(struct rt_task *t, const char *uri, struct kv_dev **dev,
                      struct kv_chan **chan)
{
    struct err why = {""};
    int rc = kv_open(t, uri, dev, &why);

    if (rc < 0)
        fprintf(stderr, "%s: %s\n", uri, why.text);
    return rc < 0 ? rc : kv_chan_get(t, *dev, chan);
}

static void store_close(struct rt_task *t, struct kv_dev *dev, struct kv_chan *chan)
{
    kv_chan_put(t, chan);
    kv_close(t, dev);
}

static int run(struct rt_task *t, struct kv_chan *chan, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(chan, req);
    return rt_wait(t, &req->req);
}

static struct bytes key_of(char *buf, const char *what, unsigned i)
{
    return bytes_make(buf, (size_t)snprintf(buf, 64, "%s/%06u", what, i));
}

/* --- lists ------------------------------------------------------------------------------------ */

enum { KEYS_MAX = 6000, LISTERS = 20 };

struct world {
    struct kv_chan *chan;
    bool there[KEYS_MAX]; /* from now on and for ever */
    unsigned running;
    bool writing;
    struct rt_cond ended;
    int failed;
    uint64_t lists;
};

/* What was there at the beginning is seen, once and in order; what comes meanwhile may be. */
static int list_all(struct rt_task *t, struct world *w, struct rng *rng)
{
    uint32_t max = 64 + rng_below(rng, 40000), next = 0;
    CLEANUP(free_p) uint8_t *buf = malloc(max);
    CLEANUP(free_p) bool *want = malloc(sizeof(w->there));
    char last[64] = "";
    size_t last_len = 0, moved;
    bool more = true;

    CHECK(buf != NULL && want != NULL);
    memcpy(want, w->there, sizeof(w->there));
    while (more) {
        struct kv_list_iter it;
        struct bytes key;

        CHECK(kv_list(t, w->chan, bytes_make(last, last_len), bytes_of_str("k/"), KV_F_AFTER, buf,
                      max, &moved, &more) == 0);
        CHECK(moved > 0 || !more);
        w->lists++;
        it = kv_list_begin(buf, moved);
        while (kv_list_next(&it, &key)) {
            uint32_t i;

            CHECK(bytes_cmp(bytes_make(last, last_len), key) < 0);
            memcpy(last, key.ptr, key.len);
            last_len = key.len;
            last[last_len] = '\0';
            if (key.len != 8) /* one that comes and goes */
                continue;
            for (i = (uint32_t)atoi(last + 2); next < i; next++)
                CHECK(!want[next]);
            next = i + 1;
        }
    }
    for (; next < KEYS_MAX; next++)
        CHECK(!want[next]);
    return 0;
}

static void ended(struct world *w, int rc)
{
    if (rc < 0 && w->failed == 0)
        w->failed = rc;
    if (--w->running == 0)
        rt_cond_wake_all(&w->ended);
}

static int lister(struct rt_task *t, void *arg)
{
    struct world *w = arg;
    struct rng rng = {w->running};
    int rc = 0;

    while (w->writing && w->failed == 0 && rc == 0)
        rc = list_all(t, w, &rng);
    ended(w, rc);
    return 0;
}

enum { BATCH = 10 };

/* Adds the odd keys, in no order, some at a time; each with one that goes again with the next. */
static int writer(struct rt_task *t, void *arg)
{
    static uint8_t value[20000];
    static char name[BATCH][64], other[2][BATCH][64];
    struct world *w = arg;
    struct rng rng = {77};
    int rc = 0;

    for (unsigned n = 0; n < KEYS_MAX / 2 && w->failed == 0 && rc == 0; n += BATCH) {
        struct kv_batch_item item[3 * BATCH];
        struct kv_req req = {.op = KV_BATCH, .batch = item, .nbatch = n == 0 ? 20 : 30};
        unsigned now = n / BATCH % 2;

        for (unsigned k = 0; k < BATCH; k++) {
            unsigned i = (n + k) * 1237 % (KEYS_MAX / 2) * 2 + 1;
            int len = snprintf(other[now][k], 64, "k/%06u+", i);

            item[k] = (struct kv_batch_item){
                .key = key_of(name[k], "k", i),
                .val = bytes_make(value, rng_below(&rng, sizeof(value))),
            };
            item[BATCH + k].key = bytes_make(other[now][k], (size_t)len);
            item[BATCH + k].val = bytes_make(value, 1);
            item[BATCH + k].is_delete = false;
            item[2 * BATCH + k] =
                (struct kv_batch_item){.key = bytes_of_str(other[!now][k]), .is_delete = true};
        }
        rc = run(t, w->chan, &req);
        for (unsigned k = 0; k < BATCH; k++)
            w->there[(n + k) * 1237 % (KEYS_MAX / 2) * 2 + 1] = true;
    }
    w->writing = false;
    ended(w, rc);
    return 0;
}

static int lists_while_changing(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct world *w = calloc(1, sizeof(*w));
    struct kv_dev *dev;
    struct bkv *s;
    char name[64];

    CHECK(store_open(t, "blob:?bdev=mem:%3Fsize=256M&memory=4M&checkpoint=1M&sync=no", &dev,
                     &w->chan) == 0);
    s = ((struct bkv_shards *)kv_driver_dev(dev))->shard[0];
    for (unsigned i = 0; i < KEYS_MAX; i += 2) {
        CHECK(kv_store(t, w->chan, key_of(name, "k", i), bytes_of_str("x"), 0) == 0);
        w->there[i] = true;
    }
    CHECK(kv_store(t, w->chan, bytes_of_str("j"), bytes_of_str("x"), 0) == 0);
    CHECK(kv_store(t, w->chan, bytes_of_str("k0"), bytes_of_str("x"), 0) == 0);
    w->writing = true;
    w->running = LISTERS + 1;
    CHECK(rt_task_start("writer", writer, w, NULL, NULL) == 0);
    for (unsigned i = 0; i < LISTERS; i++)
        CHECK(rt_task_start("lister", lister, w, NULL, NULL) == 0);
    while (w->running > 0)
        (void)rt_cond_wait(t, &w->ended);
    CHECK(w->failed == 0);
    /* It was what it is meant to be: lists met checkpoints, and not all could be at work. */
    CHECK(s->stats.checkpoints > 10);
    CHECK(w->lists > 3 * LISTERS);
    store_close(t, dev, w->chan);
    return 0;
}
TEST(lists_while_changing)

/* --- snapshots -------------------------------------------------------------------------------- */

enum { KEYS = 300 };

static int put_all(struct rt_task *t, struct kv_chan *chan, uint8_t tag)
{
    static uint8_t value[30000];
    char name[64];

    memset(value, tag, sizeof(value));
    for (unsigned i = 0; i < KEYS; i++)
        CHECK(kv_store(t, chan, key_of(name, "s", i), bytes_make(value, 20000 + i), 0) == 0);
    return 0;
}

/* What a snapshot says of a key: the value's tag, or an errno. */
static int snap_tag(struct rt_task *t, struct kv_chan *chan, struct kv_snap *snap, unsigned i)
{
    uint8_t tag = 0;
    struct iovec iov = {&tag, 1};
    char name[64];
    struct kv_req req = {
        .op = KV_RETRIEVE, .key = key_of(name, "s", i), .iov = &iov, .iovcnt = 1, .len = 1};
    int rc;

    req.snap = snap;
    rc = run(t, chan, &req);
    return rc < 0 ? rc : tag;
}

static int snap_op(struct rt_task *t, struct kv_chan *chan, enum kv_op op, struct kv_snap **snap)
{
    struct kv_req req = {.op = (uint8_t)op, .snap = op == KV_SNAP_OPEN ? NULL : *snap};
    int rc = run(t, chan, &req);

    *snap = req.snap;
    return rc;
}

static int list_rc(struct rt_task *t, struct kv_chan *chan, struct kv_snap *snap, uint32_t *nkeys)
{
    static uint8_t buf[65536];
    struct iovec iov = {buf, sizeof(buf)};
    struct kv_req req = {.op = KV_LIST, .iov = &iov, .iovcnt = 1, .snap = snap};
    int rc = run(t, chan, &req);

    *nkeys = req.nkeys;
    return rc;
}

/* The oldest one goes stale when snapshots keep too much, and the store goes on. */
static int snapshots_have_a_price(struct rt_task *t, void *arg)
{
    struct kv_snap *first, *second;
    struct kv_chan *chan;
    struct kv_dev *dev;
    uint32_t nkeys;
    struct bkv *s;
    char name[64];
    uint8_t tag = 1;

    CHECK(store_open(t,
                     "blob:?bdev=mem:%3Fsize=160M&memory=4M&checkpoint=4M&segment=1M&sync=no&"
                     "snapshot_pin=24M",
                     &dev, &chan) == 0);
    s = ((struct bkv_shards *)kv_driver_dev(dev))->shard[0];
    CHECK(put_all(t, chan, tag) == 0);
    CHECK(snap_op(t, chan, KV_SNAP_OPEN, &first) == 0);
    CHECK(put_all(t, chan, ++tag) == 0);
    CHECK(kv_delete(t, chan, key_of(name, "s", 0)) == 0);
    CHECK(snap_tag(t, chan, NULL, 1) == 2);
    CHECK(snap_tag(t, chan, NULL, 0) == -ENOENT);
    for (unsigned i = 0; i < KEYS; i++)
        CHECK(snap_tag(t, chan, first, i) == 1);
    CHECK(list_rc(t, chan, first, &nkeys) == 0 && nkeys == KEYS);
    CHECK(list_rc(t, chan, NULL, &nkeys) == 0 && nkeys == KEYS - 1);
    CHECK(snap_op(t, chan, KV_SNAP_OPEN, &second) == 0);
    while (s->stats.snapshots_stale == 0) {
        CHECK(tag < 40);
        CHECK(put_all(t, chan, ++tag) == 0);
        if (s->stats.snapshots_stale == 0)
            CHECK(snap_tag(t, chan, first, 7) == 1);
    }
    CHECK(tag > 3); /* it did last a while: 24 MiB are four times all there is */
    CHECK(snap_tag(t, chan, first, 7) == -ESTALE);
    CHECK(list_rc(t, chan, first, &nkeys) == -ESTALE);
    CHECK(snap_op(t, chan, KV_SNAP_CLOSE, &first) == 0);
    if (s->stats.snapshots_stale == 1)
        CHECK(snap_tag(t, chan, second, 7) == 2);
    CHECK(snap_op(t, chan, KV_SNAP_CLOSE, &second) == 0);
    CHECK(list_empty(&s->snaps));
    CHECK(list_empty(&s->holds));
    for (unsigned i = 0; i < 10; i++)
        CHECK(put_all(t, chan, ++tag) == 0);
    CHECK(snap_tag(t, chan, NULL, 7) == tag);
    store_close(t, dev, chan);
    return 0;
}
TEST(snapshots_have_a_price)

static int snapshots_have_an_age(struct rt_task *t, void *arg)
{
    struct kv_chan *chan;
    struct kv_snap *snap;
    struct kv_dev *dev;
    struct bkv *s;

    CHECK(store_open(t, "blob:?bdev=mem:%3Fsize=64M&memory=4M&snapshot_max_age=1us", &dev, &chan) ==
          0);
    s = ((struct bkv_shards *)kv_driver_dev(dev))->shard[0];
    CHECK(snap_op(t, chan, KV_SNAP_OPEN, &snap) == 0);
    CHECK(put_all(t, chan, 1) == 0);
    CHECK(snap_tag(t, chan, snap, 7) == -ESTALE);
    CHECK(list_empty(&s->holds));
    CHECK(snap_op(t, chan, KV_SNAP_CLOSE, &snap) == 0);
    store_close(t, dev, chan);
    return 0;
}
TEST(snapshots_have_an_age)

/* --- after a reopen --------------------------------------------------------------------------- */

/* The first get of a leaf reads it, and the table has all its keys: each further one reads once,
 * also when others of its keys have changed before. */
static int learns_whole_leaves(struct rt_task *t, void *arg)
{
    enum { N = 20000 };
    const char *uri = "blob:?bdev=mem:%3Fname=learns%26size=64M&memory=4M";
    struct blk_dev *disk;
    struct kv_chan *chan;
    struct kv_dev *dev;
    uint64_t leaves, seen;
    char name[64], val[64];
    struct err why;
    struct bkv *s;

    CHECK(blk_open(t, "mem:?name=learns&size=64M", &disk, &why) == 0);
    CHECK(store_open(t, uri, &dev, &chan) == 0);
    for (unsigned i = 0; i < N; i++)
        CHECK(kv_store(t, chan, key_of(name, "k", i), bytes_of_str(name), 0) == 0);
    store_close(t, dev, chan);
    CHECK(store_open(t, uri, &dev, &chan) == 0);
    s = ((struct bkv_shards *)kv_driver_dev(dev))->shard[0];
    for (unsigned i = 0; i < N; i += 100)
        CHECK(kv_store(t, chan, key_of(name, "k", i), bytes_of_str("new"), 0) == 0);
    for (unsigned i = 5; i < N; i += 1000)
        CHECK(kv_delete(t, chan, key_of(name, "k", i)) == 0);
    leaves = bkv_tree_nleaves(s->tree);
    CHECK(leaves > 50 && leaves < N / 30);
    for (unsigned i = 0; i < N; i++) {
        uint64_t len;
        struct bytes key = key_of(name, "k", i);
        int rc = kv_retrieve(t, chan, key, val, sizeof(val), &len);

        if (i % 1000 == 5) {
            CHECK(rc == -ENOENT);
            continue;
        }
        CHECK(rc == 0);
        CHECK(i % 100 == 0 ? len == 3 && memcmp(val, "new", 3) == 0
                           : len == key.len && memcmp(val, name, len) == 0);
    }
    CHECK(s->stats.get_index <= leaves);
    CHECK(s->stats.get_hot + s->stats.get_cache >= N - N / 1000 - leaves);
    seen = bkv_hot_bytes(s->hot);
    CHECK(seen <= 10 * N + 1024);
    store_close(t, dev, chan);
    blk_close(t, disk);
    return 0;
}
TEST(learns_whole_leaves)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_while_changing_test),
        cmocka_unit_test(snapshots_have_a_price_test),
        cmocka_unit_test(snapshots_have_an_age_test),
        cmocka_unit_test(learns_whole_leaves_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
