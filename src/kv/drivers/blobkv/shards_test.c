/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores of several shards as such: the same store under one, two and three reactors, batches that
 * are seen whole or not at all, what is refused, and stores that were not finished or have lost a
 * shard.
 */
#include "kv/drivers/blobkv/shards.h"

#include "blk/blk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define KEYS 500u
#define BATCH 40u

struct test {
    char path[64];
    char uri[256];
    unsigned round;  /* which values are there */
    unsigned spread; /* reactors that shards were on */
    int failed;      /* line of the first check that did not hold */
    int rc;
    struct err why;
};

#define CHECK(x, cond)                                                                             \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            if ((x)->failed == 0)                                                                  \
                (x)->failed = __LINE__;                                                            \
            return -EINVAL;                                                                        \
        }                                                                                          \
    } while (0)

static int setup(void **state)
{
    struct test *x = calloc(1, sizeof(*x));
    int fd;

    if (x == NULL)
        return -1;
    snprintf(x->path, sizeof(x->path), "blobkv-shards-test-XXXXXX");
    fd = mkstemp(x->path);
    if (fd < 0 || ftruncate(fd, 128 * MIB) < 0)
        return -1;
    close(fd);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct test *x = *state;

    unlink(x->path);
    free(x);
    return 0;
}

static void run_on(struct test *x, unsigned reactors, const char *more, rt_task_fn fn)
{
    struct rt_config cfg = {.reactors = reactors};

    snprintf(x->uri, sizeof(x->uri), "blob:%s?%s", x->path, more);
    x->rc = rt_run(&cfg, fn, x, &x->why);
    if (x->failed != 0)
        fprintf(stderr, "the check in line %d does not hold\n", x->failed);
    assert_int_equal(x->failed, 0);
}

static struct bytes key_of(unsigned k, char buf[16])
{
    return bytes_make(buf, (size_t)snprintf(buf, 16, "k%05u", k));
}

/* --- one store under other numbers of reactors ------------------------------------------------ */

static int stored(struct rt_task *t, struct test *x, struct kv_chan *chan, unsigned round)
{
    for (unsigned k = 0; k < KEYS; k++) {
        char name[16], val[16];
        unsigned got = 0;
        uint64_t len;

        CHECK(x, kv_retrieve(t, chan, key_of(k, name), val, sizeof(val), &len) == 0);
        CHECK(x, len == 8 && sscanf(val, "%8u", &got) == 1 && got == round);
    }
    return 0;
}

static int store_all(struct rt_task *t, struct test *x, struct kv_chan *chan, unsigned round)
{
    struct kv_batch_item item[BATCH];
    char name[BATCH][16], val[16];

    snprintf(val, sizeof(val), "%08u", round);
    for (unsigned k = 0; k < KEYS; k += BATCH) {
        struct kv_req req = {.op = KV_BATCH, .batch = item};

        for (unsigned i = 0; i < BATCH && k + i < KEYS; i++, req.nbatch++)
            item[i] =
                (struct kv_batch_item){.key = key_of(k + i, name[i]), .val = bytes_make(val, 8)};
        rt_req_init_task(&req.req, t);
        kv_submit(chan, &req);
        CHECK(x, rt_wait(t, &req.req) == 0);
    }
    return 0;
}

static int listed(struct rt_task *t, struct test *x, struct kv_chan *chan)
{
    char buf[600], name[16];
    struct bytes from = {0}, key;
    bool more = true;
    unsigned k = 0;

    while (more) {
        struct kv_list_iter it;
        size_t moved;

        CHECK(x, kv_list(t, chan, from, bytes_make("k", 1), from.len > 0 ? KV_F_AFTER : 0, buf,
                         sizeof(buf), &moved, &more) == 0);
        it = kv_list_begin(buf, moved);
        while (kv_list_next(&it, &key))
            CHECK(x, bytes_eq(key, key_of(k++, name)));
        from = key_of(k - 1, name);
    }
    CHECK(x, k == KEYS);
    return 0;
}

static int use(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    struct bkv_shards *set;
    struct kv_dev *dev;
    struct kv_chan *chan;
    uint64_t used, keys;
    unsigned seen = 0;
    int rc;

    CHECK(x, kv_open(t, x->uri, &dev, &x->why) == 0);
    CHECK(x, kv_chan_get(t, dev, &chan) == 0);
    set = kv_driver_dev(dev);
    CHECK(x, set->n == 3);
    for (unsigned i = 0; i < set->n; i++)
        seen |= 1u << rt_index(set->shard[i]->reactor);
    x->spread = (unsigned)__builtin_popcount(seen);
    rc = x->round > 0 ? stored(t, x, chan, x->round) : 0;
    if (rc == 0)
        rc = store_all(t, x, chan, ++x->round);
    if (rc == 0)
        rc = stored(t, x, chan, x->round);
    if (rc == 0)
        rc = listed(t, x, chan);
    CHECK(x, kv_usage(t, dev, &used, &keys) == 0 && keys == KEYS);
    kv_chan_put(t, chan);
    kv_close(t, dev);
    return rc;
}

static void test_reactors(void **state)
{
    static const unsigned reactors[] = {2, 3, 1, 2};
    struct test *x = *state;

    for (unsigned i = 0; i < ARRAY_LEN(reactors); i++) {
        run_on(x, reactors[i], i == 0 ? "shards=3" : "memory=12M", use);
        assert_int_equal(x->rc, 0);
        assert_int_equal(x->spread, reactors[i]);
    }
}

/* --- batches under the eyes of readers -------------------------------------------------------- */

#define TOGETHER 6u /* keys that each round's batch writes */
#define ROUNDS 30u

struct watching {
    struct test *x;
    struct kv_chan *chan;
    unsigned first, seen; /* a reader's: the key it begins with; rounds it has seen */
    bool over;
    struct rt_req done;
};

static struct bytes round_key(unsigned round, char buf[16])
{
    return bytes_make(buf, (size_t)snprintf(buf, 16, "n%05u", round));
}

/* Each round writes the same keys, and one of its own. */
static int write_rounds(struct rt_task *t, struct test *x, struct kv_chan *chan)
{
    struct kv_batch_item item[TOGETHER + 1];
    char name[TOGETHER + 1][16], val[16];

    for (unsigned round = 1; round <= ROUNDS; round++) {
        struct kv_req req = {.op = KV_BATCH, .batch = item, .nbatch = TOGETHER + 1};

        snprintf(val, sizeof(val), "%08u", round);
        for (unsigned k = 0; k < TOGETHER; k++)
            item[k] = (struct kv_batch_item){.key = key_of(k, name[k]), .val = bytes_make(val, 8)};
        item[TOGETHER] = (struct kv_batch_item){.key = round_key(round, name[TOGETHER])};
        rt_req_init_task(&req.req, t);
        kv_submit(chan, &req);
        CHECK(x, rt_wait(t, &req.req) == 0);
    }
    return 0;
}

static int round_of(struct rt_task *t, struct watching *w, unsigned k, unsigned *out_round)
{
    char name[16], val[16];
    uint64_t len;
    int rc = kv_retrieve(t, w->chan, key_of(k, name), val, sizeof(val), &len);

    *out_round = 0;
    CHECK(w->x, rc == -ENOENT || (rc == 0 && sscanf(val, "%8u", out_round) == 1));
    return 0;
}

/* Whoever has seen one part of a round's batch sees all others. */
static int watch(struct rt_task *t, void *arg)
{
    struct watching *w = arg;
    struct kv_list_iter it;
    struct bytes key, own;
    char buf[600], name[16];
    uint64_t len, version;
    unsigned round, other;
    size_t moved;
    bool more;

    for (unsigned k = w->first; !w->over; k = (k + 1) % TOGETHER) {
        for (unsigned i = 1; i < TOGETHER; i++) {
            CHECK(w->x, round_of(t, w, k, &round) == 0);
            CHECK(w->x, round_of(t, w, (k + i) % TOGETHER, &other) == 0);
            CHECK(w->x, other >= round);
            w->seen = MAX(w->seen, round);
        }
        CHECK(w->x, round_of(t, w, k, &round) == 0);
        if (round == 0)
            continue;
        own = round_key(round, name);
        CHECK(w->x, kv_list(t, w->chan, own, bytes_make("n", 1), 0, buf, sizeof(buf), &moved,
                            &more) == 0);
        it = kv_list_begin(buf, moved);
        CHECK(w->x, kv_list_next(&it, &key) && bytes_eq(key, own));
        CHECK(w->x, kv_stat(t, w->chan, own, &len, &version) == 0);
    }
    return 0;
}

/* Keeps a reactor busy, so that what it is told and what it is asked comes to it together. */
static int slow_down(struct rt_task *t, void *arg)
{
    const struct watching *w = arg;

    while (!__atomic_load_n(&w->over, __ATOMIC_RELAXED)) {
        usleep(100);
        (void)rt_yield(t);
    }
    return 0;
}

static int slow_down_last(struct rt_task *t, void *arg)
{
    return rt_on(t, rt_reactor(rt_reactors() - 1), slow_down, arg);
}

static int write_and_watch(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    struct watching w[5];
    struct kv_dev *dev;
    struct kv_chan *chan;
    int rc;

    CHECK(x, kv_open(t, x->uri, &dev, &x->why) == 0);
    CHECK(x, kv_chan_get(t, dev, &chan) == 0);
    for (unsigned i = 0; i < ARRAY_LEN(w); i++) {
        w[i] = (struct watching){.x = x, .chan = chan, .first = i};
        rt_req_init_task(&w[i].done, t);
        CHECK(x,
              rt_task_start("watch", i < 4 ? watch : slow_down_last, &w[i], &w[i].done, NULL) == 0);
    }
    rc = write_rounds(t, x, chan);
    for (unsigned i = 0; i < ARRAY_LEN(w); i++) {
        __atomic_store_n(&w[i].over, true, __ATOMIC_RELAXED);
        (void)rt_wait(t, &w[i].done);
    }
    CHECK(x, w[0].seen > 0);
    kv_chan_put(t, chan);
    kv_close(t, dev);
    return rc;
}

static void test_seen_whole(void **state)
{
    struct test *x = *state;

    run_on(x, 2, "shards=2", write_and_watch);
}

/* --- what is refused -------------------------------------------------------------------------- */

static int only_open(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    struct kv_dev *dev;
    int rc;

    x->why.text[0] = '\0';
    rc = kv_open(t, x->uri, &dev, &x->why);
    if (rc == 0)
        kv_close(t, dev);
    x->rc = rc;
    return 0;
}

static void opens(struct test *x, const char *more, int want, const char *text)
{
    struct rt_config cfg = {.reactors = 1};

    snprintf(x->uri, sizeof(x->uri), "blob:%s?%s", x->path, more);
    assert_int_equal(rt_run(&cfg, only_open, x, &x->why), 0);
    if (x->rc != want || strstr(x->why.text, text) == NULL)
        fprintf(stderr, "%s: %d, \"%s\"\n", more, x->rc, x->why.text);
    assert_int_equal(x->rc, want);
    assert_non_null(strstr(x->why.text, text));
}

static void test_refused(void **state)
{
    struct test *x = *state;

    opens(x, "shards=0", -EINVAL, "1 to 64");
    opens(x, "shards=65", -EINVAL, "1 to 64");
    opens(x, "shards=4&memory=8M", -EINVAL, "memory= is 16M at least");
    opens(x, "shards=3", 0, "");
    opens(x, "shards=2", -EINVAL, "the store has 3 shards");
    opens(x, "memory=8M", -EINVAL, "memory= is 12M at least");
    opens(x, "store=default.1", -EINVAL, "is no store of its own");
    opens(x, "store=a.1&shards=1", 0, "");
    opens(x, "store=a&shards=2", -EEXIST, "is in the way of shard 1");
    opens(x, "store=a.1", 0, "");
}

/* --- stores that are not whole ---------------------------------------------------------------- */

static int lose_shard(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    char uri[128];
    struct lvs lvs;
    uint64_t id;

    snprintf(uri, sizeof(uri), "file:%s", x->path);
    CHECK(x, lvs_open(t, uri, 0, NULL, &lvs, &x->why) == 0);
    CHECK(x, lvol_find(t, &lvs, "kv.default.1", &id) == 0);
    CHECK(x, lvol_delete(t, &lvs, id, &x->why) == 0);
    lvs_close(t, &lvs);
    return 0;
}

static void test_lost_shard(void **state)
{
    struct test *x = *state;

    opens(x, "shards=2", 0, "");
    run_on(x, 1, "", lose_shard);
    opens(x, "", -EBADMSG, "shard 1 of the store");
    opens(x, "readonly=yes", -EBADMSG, "shard 1 of the store");
}

/* As a crash leaves it that came before the other shards were there. */
static int unfinish(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    struct kv_dev *dev;
    struct bkv *first;
    struct bkv_super super;

    CHECK(x, kv_open(t, x->uri, &dev, &x->why) == 0);
    first = ((struct bkv_shards *)kv_driver_dev(dev))->shard[0];
    super = first->super;
    super.shards.making = 1;
    CHECK(x, bkv_super_write(t, first, &super) == 0);
    kv_close(t, dev);
    return 0;
}

static void test_unfinished(void **state)
{
    struct test *x = *state;

    opens(x, "shards=3", 0, "");
    run_on(x, 1, "memory=12M", unfinish);
    run_on(x, 1, "", lose_shard);
    opens(x, "readonly=yes", -ENODATA, "never finished");
    opens(x, "", 0, "");
    run_on(x, 2, "", use);
    assert_int_equal(x->rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reactors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seen_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_shard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unfinished, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
