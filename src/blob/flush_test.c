/* SPDX-License-Identifier: Apache-2.0 */
/* Flushes from two reactors at the same time, on a device that is slow and sometimes fails. */
#include "blob/blob_test.h"

#define WORKERS 6u
#define ROUNDS 40u

struct test {
    const char *uri;
    struct blob_store *bs;
    uint64_t id;
    unsigned done, failed,
        silent; /* silent: it failed, and the count of failures has not changed */
    uint64_t shared, failures;
    int rc;
};

struct worker {
    struct test *x;
    struct rt_req done;
    unsigned reactor;
};

static int flush_there(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    struct test *x = w->x;
    struct blob_chan *chan;
    struct blob *b;
    int rc = blob_chan_get(t, x->bs, &chan);

    if (rc < 0)
        return rc;
    rc = blob_open(t, x->bs, x->id, &b);
    for (unsigned i = 0; rc == 0 && i < ROUNDS; i++) {
        int one = blob_flush(t, chan, b);

        __atomic_add_fetch(&x->done, 1, __ATOMIC_RELAXED);
        if (one < 0)
            __atomic_add_fetch(&x->failed, 1, __ATOMIC_RELAXED);
        if (one < 0 && blob_flush_failures(x->bs) == 0)
            __atomic_add_fetch(&x->silent, 1, __ATOMIC_RELAXED);
    }
    if (rc == 0)
        blob_close(t, b);
    blob_chan_put(t, chan);
    return rc;
}

static int flush_from_here(struct rt_task *t, void *arg)
{
    struct worker *w = arg;

    return rt_on(t, rt_reactor(w->reactor), flush_there, w);
}

static int all(struct rt_task *t, struct test *x)
{
    struct worker w[WORKERS];
    int rc = 0;

    for (unsigned i = 0; i < WORKERS; i++) {
        w[i] = (struct worker){.x = x, .reactor = i % 2};
        rt_req_init_task(&w[i].done, t);
        must(rt_task_start("flush", flush_from_here, &w[i], &w[i].done, NULL) == 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        int one = rt_wait(t, &w[i].done);

        rc = rc == 0 ? one : rc;
    }
    return rc;
}

static int run(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    struct rig r = {.uri = x->uri};
    struct blob_create_opts opts = {.clusters = 1};
    struct blob_store_info info;
    int rc = rig_open(t, &r, NULL);

    if (rc < 0) {
        rig_close(t, &r);
        return rc;
    }
    x->bs = r.bs;
    rc = blob_create(t, r.bs, &opts, &x->id);
    if (rc == 0)
        rc = all(t, x);
    blob_store_info(r.bs, &info);
    x->shared = info.flushes_shared;
    x->failures = blob_flush_failures(r.bs);
    rig_close(t, &r);
    return rc;
}

static void with_runtime(struct test *x)
{
    struct rt_config cfg = {.reactors = 2};
    struct err why = {""};

    x->rc = rt_run(&cfg, run, x, &why);
}

static void test_shared(void **state)
{
    struct test x = {.uri = "fault:?base=mem:%3Fsize=16M&delay=200us"};

    with_runtime(&x);
    assert_int_equal(x.rc, 0);
    assert_int_equal(x.done, WORKERS * ROUNDS);
    assert_int_equal(x.failed, 0);
    /* While one is under way the five others come together. */
    assert_true(x.shared >= WORKERS * ROUNDS / 4);
}

/* Who shares a flush that fails, or waits for it to end, is told; and so is who looks. */
static void test_failing(void **state)
{
    char uri[128];
    struct test x = {.uri = uri};

    /* Making the store takes flushes, too: one of these seeds lets it. */
    for (unsigned seed = 1; seed < 200 && x.failures == 0; seed++) {
        snprintf(uri, sizeof(uri),
                 "fault:?base=mem:%%3Fsize=16M&delay=100us&flush_error=0.2&seed=%u", seed);
        x = (struct test){.uri = uri};
        with_runtime(&x);
    }
    assert_int_equal(x.rc, 0);
    assert_int_equal(x.done, WORKERS * ROUNDS);
    assert_true(x.failures > 0);
    assert_true(x.failed >= x.failures);
    assert_int_equal(x.silent, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_failing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
