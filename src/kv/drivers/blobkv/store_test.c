/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store against a model: tasks that each own some keys change and read them, the store is closed
 * and opened, and copies of the device taken in the middle of it all are opened, as after a crash.
 */
#include "kv/drivers/blobkv/blobkv.h"
#include "kv/drivers/blobkv/test_rng.h"

#include "blk/blk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define WORKERS 8u
#define KEYS 64u /* of each */
#define VALUE_MAX 20000u

/* What a key has to have. `maybe`: an operation was under way, either is right. */
struct want {
    bool there;
    uint32_t len, seed;
    uint64_t version;
};

struct test {
    const char *dev_uri; /* of the block device, which has a name and stays */
    char uri[256], copy_uri[256];
    uint32_t ops, sectors;
    bool sync;
    struct blk_dev *dev, *copy;
    struct kv_dev *kv;
    struct want want[WORKERS][KEYS];
    uint32_t running;
    struct rt_cond ended;
    int failed; /* line of the first check that did not hold */
};

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            if (w->test->failed == 0)                                                              \
                w->test->failed = __LINE__;                                                        \
            return -EINVAL;                                                                        \
        }                                                                                          \
    } while (0)

struct worker {
    struct test *test;
    unsigned id;
    struct rng rng;
    struct kv_chan *chan;
    uint8_t *buf, *got;
};

static void fill(uint8_t *p, uint32_t len, uint32_t seed)
{
    struct rng r = {.state = seed};

    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t v = rng_u64(&r);

        memcpy(p + i, &v, MIN(8u, len - i));
    }
}

static struct bytes key_of(unsigned worker, unsigned k, char *buf)
{
    int n = snprintf(buf, 64, "key-%u-%u%s", worker, k, k % 7 == 0 ? "-and-a-longer-tail" : "");

    return bytes_make(buf, (size_t)n);
}

static int run(struct rt_task *t, struct worker *w, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(w->chan, req);
    return rt_wait(t, &req->req);
}

static uint32_t some_len(struct rng *r)
{
    switch (rng_below(r, 8)) {
    case 0:
        return 0;
    case 1:
        return rng_below(r, VALUE_MAX);
    case 2:
        return 4096;
    default:
        return rng_below(r, 300);
    }
}

static int check_get(struct rt_task *t, struct worker *w, unsigned owner, unsigned k)
{
    const struct want *want = &w->test->want[owner][k];
    char name[64];
    struct iovec iov = {.iov_base = w->got, .iov_len = VALUE_MAX * 2};
    struct kv_req req = {.op = KV_RETRIEVE, .iov = &iov, .iovcnt = 1, .len = VALUE_MAX * 2};
    int rc;

    req.key = key_of(owner, k, name);
    rc = run(t, w, &req);
    if (rc != (want->there ? 0 : -ENOENT))
        fprintf(stderr, "%s: rc is %d, not %d\n", name, rc, want->there ? 0 : -ENOENT);
    CHECK(rc == (want->there ? 0 : -ENOENT));
    if (rc == 0) {
        fill(w->buf, want->len, want->seed);
        CHECK(req.value_len == want->len);
        CHECK(req.moved == want->len);
        CHECK(req.version == want->version);
        CHECK(memcmp(w->buf, w->got, want->len) == 0);
    }
    req.op = KV_STAT;
    rc = run(t, w, &req);
    CHECK(rc == (want->there ? 0 : -ENOENT));
    CHECK(rc < 0 || (req.value_len == want->len && req.version == want->version));
    return 0;
}

static int do_put(struct rt_task *t, struct worker *w, unsigned k)
{
    struct want *want = &w->test->want[w->id][k];
    struct want new = {.there = true, .len = some_len(&w->rng), .seed = (uint32_t)rng_u64(&w->rng)};
    struct iovec iov = {.iov_base = w->buf, .iov_len = new.len};
    struct kv_req req = {.op = KV_STORE, .iov = &iov, .iovcnt = 1, .len = new.len};
    char name[64];
    int rc, expect = 0;

    req.key = key_of(w->id, k, name);
    switch (rng_below(&w->rng, 6)) {
    case 0:
        req.flags = KV_F_MUST_EXIST;
        expect = want->there ? 0 : -ENOENT;
        break;
    case 1:
        req.flags = KV_F_MUST_NOT_EXIST;
        expect = want->there ? -EEXIST : 0;
        break;
    case 2:
        req.flags = KV_F_IF_VERSION;
        req.version = want->version + rng_below(&w->rng, 2);
        expect = want->there && req.version == want->version ? 0 : -ESTALE;
        break;
    default:
        break;
    }
    fill(w->buf, new.len, new.seed);
    rc = run(t, w, &req);
    if (rc != expect)
        fprintf(stderr, "put %s flags %x: rc is %d, not %d\n", name, req.flags, rc, expect);
    CHECK(rc == expect);
    new.version = req.version;
    if (rc == 0)
        *want = new;
    return 0;
}

static int do_delete(struct rt_task *t, struct worker *w, unsigned k)
{
    struct want *want = &w->test->want[w->id][k];
    struct kv_req req = {.op = KV_DELETE};
    char name[64];
    int rc;

    req.key = key_of(w->id, k, name);
    rc = run(t, w, &req);
    CHECK(rc == (want->there ? 0 : -ENOENT));
    want->there = false;
    return 0;
}

static int do_batch(struct rt_task *t, struct worker *w)
{
    struct kv_batch_item item[6];
    struct want new[6];
    unsigned key[6];
    char name[6][64];
    struct kv_req req = {.op = KV_BATCH, .batch = item, .nbatch = 6};
    uint8_t *at = w->buf;
    int rc;

    for (unsigned i = 0; i < 6; i++) {
        key[i] = rng_below(&w->rng, KEYS);
        new[i] = (struct want){.there = rng_below(&w->rng, 4) != 0,
                               .len = rng_below(&w->rng, 400),
                               .seed = (uint32_t)rng_u64(&w->rng)};
        fill(at, new[i].len, new[i].seed);
        item[i] = (struct kv_batch_item){.key = key_of(w->id, key[i], name[i]),
                                         .val = bytes_make(at, new[i].len),
                                         .is_delete = !new[i].there};
        at += 400;
    }
    rc = run(t, w, &req);
    CHECK(rc == 0);
    for (unsigned i = 0; i < 6; i++)
        w->test->want[w->id][key[i]] = new[i];
    for (unsigned i = 0; i < 6; i++) {
        struct want *want = &w->test->want[w->id][key[i]];

        if (want->there)
            CHECK(kv_stat(t, w->chan, item[i].key, &(uint64_t){0}, &want->version) == 0);
    }
    return 0;
}

static int do_append(struct rt_task *t, struct worker *w, unsigned k)
{
    struct want *want = &w->test->want[w->id][k];
    struct iovec iov = {.iov_base = w->buf};
    struct kv_req req = {.op = KV_STORE, .iov = &iov, .iovcnt = 1, .flags = KV_F_APPEND};
    char name[64];
    uint32_t old = want->there ? want->len : 0;
    int rc;

    if (old > VALUE_MAX - 100)
        return 0;
    if (!want->there)
        *want = (struct want){.seed = (uint32_t)rng_u64(&w->rng)};
    /* The bytes that a longer value of the same seed has there. */
    old &= ~7u;
    if (want->there && want->len != old)
        return 0;
    fill(w->buf, old + 96, want->seed);
    iov = (struct iovec){.iov_base = w->buf + old, .iov_len = 96};
    req.len = 96;
    req.key = key_of(w->id, k, name);
    rc = run(t, w, &req);
    CHECK(rc == 0);
    want->there = true;
    want->len = old + 96;
    want->version = req.version;
    return 0;
}

static int one_op(struct rt_task *t, struct worker *w)
{
    unsigned k = rng_below(&w->rng, KEYS);

    switch (rng_below(&w->rng, 12)) {
    case 0:
    case 1:
        return do_delete(t, w, k);
    case 2:
        return do_batch(t, w);
    case 3:
        return do_append(t, w, k);
    case 4:
    case 5:
    case 6:
        return check_get(t, w, w->id, k);
    default:
        return do_put(t, w, k);
    }
}

static int work(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    int rc = kv_chan_get(t, w->test->kv, &w->chan);

    for (uint32_t i = 0; i < w->test->ops && rc == 0 && w->test->failed == 0; i++)
        rc = one_op(t, w);
    if (w->chan != NULL)
        kv_chan_put(t, w->chan);
    if (--w->test->running == 0)
        rt_cond_wake_all(&w->test->ended);
    return rc;
}

static int open_store(struct rt_task *t, struct test *test, const char *uri)
{
    struct err why = {0};
    int rc = kv_open(t, uri, &test->kv, &why);

    if (rc < 0)
        fprintf(stderr, "%s: %s\n", uri, why.text);
    return rc;
}

/* Every key of a store that nobody changes. */
static int verify(struct rt_task *t, struct test *test, struct worker *w)
{
    uint64_t used, nkeys, count = 0;
    int rc = kv_chan_get(t, test->kv, &w->chan);

    for (unsigned i = 0; i < WORKERS && rc == 0; i++) {
        for (unsigned k = 0; k < KEYS && rc == 0; k++) {
            rc = check_get(t, w, i, k);
            count += test->want[i][k].there;
        }
    }
    if (rc == 0)
        rc = kv_usage(t, test->kv, &used, &nkeys);
    if (w->chan != NULL)
        kv_chan_put(t, w->chan);
    if (rc < 0)
        return rc;
    CHECK(nkeys == count);
    return 0;
}

/* The device as it is now, with whatever is under way, on the other one. */
static int copy_device(struct rt_task *t, struct test *test)
{
    struct blk_chan *from, *to;
    uint8_t *buf = aligned_alloc(4096, MIB);
    uint32_t bb = blk_info(test->dev)->block_bytes;
    uint64_t n = blk_info(test->dev)->nblocks;
    int rc = blk_chan_get(t, test->dev, &from);

    if (rc == 0)
        rc = blk_chan_get(t, test->copy, &to);
    for (uint64_t at = 0; at < n && rc == 0; at += MIB / bb) {
        uint32_t len = (uint32_t)MIN(MIB / bb, n - at);

        rc = blk_read(t, from, buf, at, len);
        if (rc == 0)
            rc = blk_write(t, to, buf, at, len, 0);
    }
    blk_chan_put(t, to);
    blk_chan_put(t, from);
    free(buf);
    return rc;
}

static int one_round(struct rt_task *t, struct test *test, struct worker *ws, unsigned round)
{
    struct kv_dev *first;
    int rc = open_store(t, test, test->uri);

    if (rc < 0)
        return rc;
    test->running = WORKERS;
    for (unsigned i = 0; i < WORKERS && rc == 0; i++)
        rc = rt_task_start("worker", work, &ws[i], NULL, NULL);
    while (test->running > 0)
        (void)rt_cond_wait(t, &test->ended);
    if (test->failed != 0)
        rc = -EINVAL;
    if (rc == 0 && round % 2 == 0)
        rc = verify(t, test, &ws[0]);
    /* As if the power had gone: everything acknowledged has to be there. */
    if (rc == 0)
        rc = copy_device(t, test);
    first = test->kv;
    if (rc == 0)
        rc = open_store(t, test, test->copy_uri);
    if (rc == 0) {
        rc = verify(t, test, &ws[0]);
        kv_close(t, test->kv);
    }
    kv_close(t, first);
    return rc;
}

static int model(struct rt_task *t, void *arg)
{
    struct test *test = arg;
    struct worker ws[WORKERS];
    struct err why;
    int rc = blk_open(t, test->dev_uri, &test->dev, &why);
    char copy[128];

    snprintf(copy, sizeof(copy), "mem:?name=bkv-copy&size=%s&block_size=%u", "48M", test->sectors);
    if (rc == 0)
        rc = blk_open(t, copy, &test->copy, &why);
    if (rc < 0)
        return rc;
    snprintf(test->copy_uri, sizeof(test->copy_uri), "blob:?bdev=mem:%%3Fname=bkv-copy");
    for (unsigned i = 0; i < WORKERS; i++)
        ws[i] = (struct worker){.test = test,
                                .id = i,
                                .rng = {.state = i + 1},
                                .buf = malloc(VALUE_MAX * 2),
                                .got = malloc(VALUE_MAX * 2)};
    for (unsigned round = 0; round < 6 && rc == 0; round++)
        rc = one_round(t, test, ws, round);
    for (unsigned i = 0; i < WORKERS; i++) {
        free(ws[i].buf);
        free(ws[i].got);
    }
    blk_close(t, test->copy);
    blk_close(t, test->dev);
    return rc;
}

/* --- space ------------------------------------------------------------------------------------ */

#define CHURN_KEYS 400u
#define CHURN_LEN 4000u

static uint32_t churn_len(uint32_t seed)
{
    return CHURN_LEN + seed % 1000;
}

struct churn {
    struct test *test;
    unsigned id;
    struct rng rng;
    struct kv_chan *chan;
    uint32_t keys, ops;
    uint32_t seed[2 * CHURN_KEYS]; /* 0: not there */
    uint8_t buf[CHURN_LEN + 1000], got[CHURN_LEN + 1000];
    int rc;
};

static int churn_put(struct rt_task *t, struct churn *c, uint32_t k)
{
    uint32_t seed = (uint32_t)rng_u64(&c->rng) | 1;
    char name[64];
    int rc;

    fill(c->buf, churn_len(seed), seed);
    rc = kv_store(t, c->chan, key_of(c->id, k, name), bytes_make(c->buf, churn_len(seed)), 0);
    if (rc == 0)
        c->seed[k] = seed;
    return rc;
}

static int churn_check(struct rt_task *t, struct churn *c, uint32_t k)
{
    uint64_t len;
    char name[64];
    int rc = kv_retrieve(t, c->chan, key_of(c->id, k, name), c->got, sizeof(c->got), &len);

    if (rc != (c->seed[k] != 0 ? 0 : -ENOENT)) {
        fprintf(stderr, "%s: rc %d\n", name, rc);
        return -EINVAL;
    }
    if (rc < 0)
        return 0;
    fill(c->buf, churn_len(c->seed[k]), c->seed[k]);
    if (len != churn_len(c->seed[k]) || memcmp(c->buf, c->got, len) != 0)
        return -EILSEQ;
    return 0;
}

static int churn_work(struct rt_task *t, void *arg)
{
    struct churn *c = arg;
    int rc = kv_chan_get(t, c->test->kv, &c->chan);

    for (uint32_t i = 0; i < c->ops && rc == 0; i++) {
        uint32_t k = i < c->keys ? i : rng_below(&c->rng, c->keys);

        rc = churn_put(t, c, k);
        if (rc == 0 && i % 4 == 0)
            rc = churn_check(t, c, rng_below(&c->rng, c->keys));
    }
    c->rc = rc;
    kv_chan_put(t, c->chan);
    if (--c->test->running == 0)
        rt_cond_wake_all(&c->test->ended);
    return rc;
}

static int churn_all(struct rt_task *t, struct test *test, struct churn *cs, rt_task_fn fn)
{
    int rc = 0;

    test->running = WORKERS;
    for (unsigned i = 0; i < WORKERS && rc == 0; i++)
        rc = rt_task_start("churn", fn, &cs[i], NULL, NULL);
    while (test->running > 0)
        (void)rt_cond_wait(t, &test->ended);
    for (unsigned i = 0; i < WORKERS && rc == 0; i++)
        rc = cs[i].rc;
    return rc;
}

static int churn_verify(struct rt_task *t, void *arg)
{
    struct churn *c = arg;
    int rc = kv_chan_get(t, c->test->kv, &c->chan);

    for (uint32_t k = 0; k < c->keys && rc == 0; k++)
        rc = churn_check(t, c, k);
    c->rc = rc;
    kv_chan_put(t, c->chan);
    if (--c->test->running == 0)
        rt_cond_wake_all(&c->test->ended);
    return rc;
}

/* Overwrites a store that is nearly full many times. */
static int churn(struct rt_task *t, void *arg)
{
    struct test *test = arg;
    struct churn *cs = calloc(WORKERS, sizeof(*cs));
    struct kv_dev *first;
    struct err why;
    int rc = blk_open(t, test->dev_uri, &test->dev, &why);

    if (rc == 0)
        rc = blk_open(t, "mem:?name=bkv-copy&size=24M&block_size=512", &test->copy, &why);
    snprintf(test->copy_uri, sizeof(test->copy_uri), "blob:?bdev=mem:%%3Fname=bkv-copy");
    for (unsigned i = 0; i < WORKERS; i++) {
        cs[i].test = test;
        cs[i].id = i;
        cs[i].rng.state = i + 100;
        cs[i].keys = CHURN_KEYS;
        cs[i].ops = 10 * CHURN_KEYS;
    }
    for (unsigned round = 0; round < 3 && rc == 0; round++) {
        rc = open_store(t, test, test->uri);
        if (rc == 0)
            rc = churn_all(t, test, cs, churn_work);
        if (rc == 0)
            rc = churn_all(t, test, cs, churn_verify);
        if (rc == 0)
            rc = copy_device(t, test);
        first = test->kv;
        if (rc == 0)
            rc = open_store(t, test, test->copy_uri);
        if (rc == 0) {
            rc = churn_all(t, test, cs, churn_verify);
            kv_close(t, test->kv);
        }
        kv_close(t, first);
    }
    blk_close(t, test->copy);
    blk_close(t, test->dev);
    free(cs);
    return rc;
}

/* Fills a store to the brim, deletes, and fills it again. */
static int brim(struct rt_task *t, void *arg)
{
    struct test *test = arg;
    struct churn *c = calloc(1, sizeof(*c));
    struct err why;
    uint32_t filled[3] = {0};
    char name[64];
    int rc = blk_open(t, test->dev_uri, &test->dev, &why);

    c->test = test;
    c->rng.state = 7;
    c->keys = 2 * CHURN_KEYS;
    if (rc == 0)
        rc = open_store(t, test, test->uri);
    if (rc == 0)
        rc = kv_chan_get(t, test->kv, &c->chan);
    for (unsigned round = 0; round < 3 && rc == 0; round++) {
        uint32_t n = 0;

        for (; n < 100000 && rc == 0; n++) {
            fill(c->buf, CHURN_LEN, n);
            rc = kv_store(t, c->chan, key_of(round, n, name), bytes_make(c->buf, CHURN_LEN), 0);
        }
        filled[round] = n;
        rc = rc == -ENOSPC ? 0 : -EINVAL;
        for (uint32_t k = 0; k + 1 < n && rc == 0; k++) {
            uint64_t len;

            rc = kv_retrieve(t, c->chan, key_of(round, k, name), c->got, sizeof(c->got), &len);
            if (rc == 0)
                rc = kv_delete(t, c->chan, key_of(round, k, name));
        }
    }
    /* It holds most of its 16 MiB, each time. */
    for (unsigned i = 0; i < 3 && rc == 0; i++) {
        if (filled[i] * (uint64_t)CHURN_LEN < 10 * MIB)
            rc = -ENOSPC;
        fprintf(stderr, "round %u: %u values\n", i, filled[i]);
    }
    kv_chan_put(t, c->chan);
    kv_close(t, test->kv);
    blk_close(t, test->dev);
    free(c);
    return rc;
}

static void run_space(const char *dev, const char *uri, rt_task_fn fn)
{
    struct test *test = calloc(1, sizeof(*test));
    struct err why = {0};
    int rc;

    test->dev_uri = dev;
    snprintf(test->uri, sizeof(test->uri), "%s", uri);
    rc = rt_run(&(struct rt_config){.reactors = 1}, fn, test, &why);
    assert_int_equal(rc, 0);
    free(test);
}

static void test_churn(void **state)
{
    (void)state;
    run_space("mem:?name=bkv&size=24M&block_size=512", "blob:?bdev=mem:%3Fname=bkv&memory=8M",
              churn);
}

static void test_brim(void **state)
{
    (void)state;
    run_space("mem:?name=bkv&size=16M", "blob:?bdev=mem:%3Fname=bkv&memory=8M", brim);
}

static void run_model(const char *dev, const char *uri, uint32_t ops, uint32_t sectors)
{
    struct test *test = calloc(1, sizeof(*test));
    struct err why = {0};
    int rc;

    test->dev_uri = dev;
    test->ops = ops;
    test->sectors = sectors;
    snprintf(test->uri, sizeof(test->uri), "%s", uri);
    rc = rt_run(&(struct rt_config){.reactors = 1}, model, test, &why);
    if (test->failed != 0)
        fprintf(stderr, "the check in line %d did not hold\n", test->failed);
    assert_int_equal(rc, 0);
    assert_int_equal(test->failed, 0);
    free(test);
}

static void test_sectors_of_4096(void **state)
{
    (void)state;
    run_model("mem:?name=bkv&size=48M", "blob:?bdev=mem:%3Fname=bkv&memory=4M&checkpoint=1M", 400,
              4096);
}

static void test_sectors_of_512(void **state)
{
    (void)state;
    run_model("mem:?name=bkv&size=48M&block_size=512", "blob:?bdev=mem:%3Fname=bkv&checkpoint=2M",
              400, 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sectors_of_4096),
        cmocka_unit_test(test_sectors_of_512),
        cmocka_unit_test(test_churn),
        cmocka_unit_test(test_brim),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
